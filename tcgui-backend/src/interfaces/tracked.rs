//! The state of one tracked namespace. Pure.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::Links;
use super::generations::Generations;
use super::kernel::DumpRequest;
use crate::kernel::netns::{NetnsKey, NetnsRef};
use crate::kernel::rtnetlink::Nsid;
use crate::pacing::Pacing;

/// Dumps of a namespace with constant events take a tenth of the time.
const DUMP_PACING: Pacing = Pacing::new(10, Duration::ZERO, Duration::from_millis(100));

/// One namespace. `W` is a client that waits for a dump.
#[derive(Debug)]
pub(super) struct Tracked<W> {
    /// Distinguishes this entry from an earlier one of the same namespace, whose dumps may still be under way.
    pub(super) generation: u64,
    pub(super) netns_refs: Vec<NetnsRef>,
    /// The id that the kernel puts on the events of this namespace. It stays until the kernel removes it or a dump
    /// finds another one. It also stays while dumps fail, so that no event is missed.
    pub(super) nsid: Option<Nsid>,
    /// The id may now belong to another namespace. The next dump requests it again.
    pub(super) is_nsid_doubtful: bool,
    pub(super) dump: Option<DumpUnderWay<W>>,
    /// The next dump is reported even if nothing changed.
    pub(super) recheck: bool,
    pub(super) pacing: Pacing,
    pub(super) retry: Option<(Instant, Duration)>,
    /// The links of the last report. `None`: no reference leads to the namespace.
    pub(super) links: Option<Links>,
    pub(super) generations: Generations,
    /// Events may have been missed since the last dump began.
    pub(super) is_unsure: bool,
    /// When the last successful dump began.
    pub(super) began: Instant,
    /// Clients that wait for the next dump. The dump under way began before their requests.
    pub(super) waiting: Vec<W>,
    pub(super) unreadable: bool,
}

/// A dump that has not finished, and the events since it began.
#[derive(Debug)]
pub(super) struct DumpUnderWay<W> {
    /// Clients that wait for this dump.
    pub(super) served: Vec<W>,
    /// As [`Tracked::recheck`], for this dump.
    pub(super) rechecks: bool,
    /// The dump uses an id that an earlier dump has found.
    by_id: bool,
    /// Events may have been missed since it began.
    pub(super) is_unsure: bool,
    /// Ids removed since it began. The kernel may have given them to other namespaces.
    pub(super) removed: HashSet<Nsid>,
}

/// Why a namespace is to be dumped, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    Unseen,
    Awaited,
    Changed,
}

impl<W> Tracked<W> {
    /// Returns the state of a namespace that was never dumped.
    pub(super) fn new(generation: u64, started: Instant) -> Self {
        Self {
            generation,
            netns_refs: Vec::new(),
            nsid: None,
            is_nsid_doubtful: false,
            dump: None,
            recheck: false,
            pacing: DUMP_PACING,
            retry: None,
            links: None,
            generations: Generations::default(),
            is_unsure: false,
            began: started,
            waiting: Vec::new(),
            unreadable: false,
        }
    }

    /// Notes that events of this namespace may have been missed, including the removal of its id.
    pub(super) fn missed_events(&mut self) {
        self.is_unsure = true;
        self.is_nsid_doubtful = true;
        if let Some(dump) = &mut self.dump {
            dump.is_unsure = true;
        }
    }

    /// Begins a dump.
    pub(super) fn begin(&mut self, key: NetnsKey) -> DumpRequest {
        let nsid = self.nsid.filter(|_| !self.is_nsid_doubtful);
        self.dump = Some(DumpUnderWay {
            served: std::mem::take(&mut self.waiting),
            rechecks: std::mem::take(&mut self.recheck),
            by_id: nsid.is_some(),
            is_unsure: false,
            removed: HashSet::new(),
        });
        DumpRequest {
            key,
            generation: self.generation,
            nsid,
            netns_refs: self.netns_refs.clone(),
        }
    }

    /// Passes the tasks of a discarded dump on to the next one.
    pub(super) fn repeat(&mut self, dump: DumpUnderWay<W>) {
        self.recheck |= dump.rechecks;
        self.waiting.splice(0..0, dump.served);
    }

    pub(super) fn urgency(&self) -> Urgency {
        match (&self.links, self.waiting.is_empty()) {
            (None, _) => Urgency::Unseen,
            (Some(_), false) => Urgency::Awaited,
            (Some(_), true) => Urgency::Changed,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.dump.is_none() && self.not_before().is_none_or(|at| at <= now)
    }

    /// Returns the earliest time of the next dump. `None`: at once, for example because a client waits for a
    /// refresh.
    pub(super) fn not_before(&self) -> Option<Instant> {
        if !self.waiting.is_empty() {
            return None;
        }
        self.retry.map(|(at, _)| at).max(self.pacing.not_before())
    }
}

impl<W> DumpUnderWay<W> {
    /// Returns whether the links that were dumped by this id may belong to another namespace.
    ///
    /// A dump that requested the id itself is accepted even if events were lost. Otherwise no dump would be
    /// accepted while the kernel loses events continuously.
    pub(super) fn may_be_of_another(&self, nsid: Nsid) -> bool {
        self.removed.contains(&nsid) || (self.by_id && self.is_unsure)
    }
}
