//! What the tracker knows of one namespace. Pure.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::Links;
use super::generations::Generations;
use super::kernel::LookOrder;
use crate::kernel::netns::{NetnsKey, NetnsRef};
use crate::kernel::rtnetlink::Nsid;
use crate::pacing::Pacing;

/// A namespace that rings without end is looked at for a tenth of the time.
const LOOK_PACING: Pacing = Pacing::new(10, Duration::ZERO, Duration::from_millis(100));

/// One namespace. `W` is a client that waits for a look.
#[derive(Debug)]
pub(super) struct Tracked<W> {
    /// Tells this entry from an earlier one of the same namespace, whose looks may still be under way.
    pub(super) generation: u64,
    pub(super) netns_refs: Vec<NetnsRef>,
    /// The id that the kernel puts on the events of this namespace. It is kept until the kernel removes it or a look finds
    /// another one, also while looks fail: no event may be missed.
    pub(super) nsid: Option<Nsid>,
    /// The id may belong to another namespace by now. The next look asks for it again.
    pub(super) is_nsid_doubtful: bool,
    pub(super) look: Option<LookUnderWay<W>>,
    /// The next look reports what it sees, even if nothing changed.
    pub(super) recheck: bool,
    pub(super) pacing: Pacing,
    pub(super) retry: Option<(Instant, Duration)>,
    /// The links as they were reported last. `None`: no reference leads to the namespace.
    pub(super) links: Option<Links>,
    pub(super) generations: Generations,
    /// Events may have been missed since the last look began.
    pub(super) is_unsure: bool,
    /// When the last look that succeeded began.
    pub(super) began: Instant,
    /// They wait for the next look. The look under way began before they asked.
    pub(super) waiting: Vec<W>,
    pub(super) unreadable: bool,
}

/// A look that has not finished, and what happened since it began.
#[derive(Debug)]
pub(super) struct LookUnderWay<W> {
    /// They wait for this look.
    pub(super) served: Vec<W>,
    /// As [`Tracked::recheck`], for this look.
    pub(super) rechecks: bool,
    /// It reads by an id that an earlier look has found.
    by_id: bool,
    /// Events may have been missed.
    pub(super) is_unsure: bool,
    /// These ids were removed. The kernel may have given them to other namespaces.
    pub(super) removed: HashSet<Nsid>,
}

/// Why a namespace is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    Unseen,
    Awaited,
    Rung,
}

impl<W> Tracked<W> {
    /// Returns a namespace that was never looked at.
    pub(super) fn new(generation: u64, started: Instant) -> Self {
        Self {
            generation,
            netns_refs: Vec::new(),
            nsid: None,
            is_nsid_doubtful: false,
            look: None,
            recheck: false,
            pacing: LOOK_PACING,
            retry: None,
            links: None,
            generations: Generations::default(),
            is_unsure: false,
            began: started,
            waiting: Vec::new(),
            unreadable: false,
        }
    }

    /// Notes that events of this namespace may have been missed. The message that its id was removed may be among them.
    pub(super) fn missed_events(&mut self) {
        self.is_unsure = true;
        self.is_nsid_doubtful = true;
        if let Some(look) = &mut self.look {
            look.is_unsure = true;
        }
    }

    /// Begins a look.
    pub(super) fn begin(&mut self, key: NetnsKey) -> LookOrder {
        let nsid = self.nsid.filter(|_| !self.is_nsid_doubtful);
        self.look = Some(LookUnderWay {
            served: std::mem::take(&mut self.waiting),
            rechecks: std::mem::take(&mut self.recheck),
            by_id: nsid.is_some(),
            is_unsure: false,
            removed: HashSet::new(),
        });
        LookOrder {
            key,
            generation: self.generation,
            nsid,
            netns_refs: self.netns_refs.clone(),
        }
    }

    /// Lets the next look do what a look that does not count was to do.
    pub(super) fn repeat(&mut self, look: LookUnderWay<W>) {
        self.recheck |= look.rechecks;
        self.waiting.splice(0..0, look.served);
    }

    pub(super) fn urgency(&self) -> Urgency {
        match (&self.links, self.waiting.is_empty()) {
            (None, _) => Urgency::Unseen,
            (Some(_), false) => Urgency::Awaited,
            (Some(_), true) => Urgency::Rung,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.look.is_none() && self.not_before().is_none_or(|at| at <= now)
    }

    /// Returns from when on it may be looked at; those who wait for a refresh are not kept waiting.
    pub(super) fn not_before(&self) -> Option<Instant> {
        if !self.waiting.is_empty() {
            return None;
        }
        self.retry.map(|(at, _)| at).max(self.pacing.not_before())
    }
}

impl<W> LookUnderWay<W> {
    /// Returns whether the links that were read by this id may be those of another namespace.
    ///
    /// A look that asked for the id itself counts even if events were lost. Otherwise no look would count while the kernel
    /// loses events all the time.
    pub(super) fn may_be_of_another(&self, nsid: Nsid) -> bool {
        self.removed.contains(&nsid) || (self.by_id && self.is_unsure)
    }
}
