//! Finds namespaces to which no tracked reference leads, from the kernel's namespace ids.
//!
//! The kernel gives a namespace an id when a link connects to it or moves there. An id in the observer's table
//! shows at once whether the namespace is tracked. An id in the host's table does not: it must first be translated
//! to the observer's id of the same namespace by a query. At most one query runs at a time.

use std::time::{Duration, Instant};

use crate::kernel::rtnetlink::Nsid;
use crate::pacing::Pacing;

/// Limits the queries: the reply lists all ids of the host, and the kernel compares each with all ids of the
/// observer.
const QUESTION_PACING: Pacing = Pacing::new(10, Duration::ZERO, Duration::from_millis(250));

/// Whether to report namespaces to which no tracked reference leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strangers {
    /// Report them as [`InterfacesEvent::UnknownNsid`](super::InterfacesEvent).
    Report,
    /// Do not look for them.
    Ignore,
}

/// The unknown namespaces seen so far.
#[derive(Debug)]
pub(super) struct StrangerWatch {
    wanted: Strangers,
    /// An unknown namespace was found and not reported yet.
    found: bool,
    /// Ids in the host's table that no query has translated yet.
    met: Vec<Nsid>,
    asking: bool,
    pacing: Pacing,
}

impl StrangerWatch {
    pub(super) fn new(wanted: Strangers) -> Self {
        Self {
            wanted,
            found: false,
            met: Vec::new(),
            asking: false,
            pacing: QUESTION_PACING,
        }
    }

    /// Records that a namespace got an id in the observer's table.
    pub(super) fn met(&mut self, is_tracked: bool) {
        self.found |= self.wanted == Strangers::Report && !is_tracked;
    }

    /// Handles an id of the host's table.
    pub(super) fn met_by_host(&mut self, id: Nsid) {
        if self.wanted == Strangers::Report && !self.met.contains(&id) {
            self.met.push(id);
        }
    }

    /// Returns the ids to query now. Empty: no query is due.
    pub(super) fn next_question(&mut self, now: Instant) -> Vec<Nsid> {
        if self.asking || self.met.is_empty() || !self.pacing.allows(now) {
            return Vec::new();
        }
        self.asking = true;
        std::mem::take(&mut self.met)
    }

    /// Records that the query has finished. The caller passes each result to [`Self::met`].
    pub(super) fn answered(&mut self, now: Instant, cost: Duration) {
        self.asking = false;
        self.pacing.done(now, cost);
    }

    /// Returns when the next query is due. `None`: no id waits for one.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let waits = !self.asking && !self.met.is_empty();
        self.pacing.not_before().filter(|_| waits)
    }

    pub(super) fn has_news(&self) -> bool {
        self.found
    }

    /// Returns whether there is an unreported unknown namespace, and marks it as reported.
    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.found)
    }
}
