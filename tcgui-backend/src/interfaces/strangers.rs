//! Namespaces to which no tracked way leads: how the kernel's namespace ids tell of them.
//!
//! The kernel gives a namespace an id when a link connects to it or moves there. An id of the observer's table says at
//! once whether the namespace is tracked. An id of the host's table does not: the kernel has to be asked which of the
//! observer's ids belongs to the same namespace. One question is under way at a time.

use std::time::{Duration, Instant};

use crate::kernel::rtnetlink::Nsid;
use crate::pacing::Pacing;

/// The answer lists all ids of the host, and the kernel compares each with all of the observer.
const QUESTION_PACING: Pacing = Pacing::new(10, Duration::ZERO, Duration::from_millis(250));

/// Whether namespaces to which no way is tracked are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strangers {
    /// As [`InterfacesEvent::UnknownNsid`](super::InterfacesEvent).
    Report,
    /// Nobody looks for them.
    Ignore,
}

/// What is known of such namespaces.
#[derive(Debug)]
pub(super) struct StrangerWatch {
    wanted: Strangers,
    /// There is one, and it was not reported.
    found: bool,
    /// Ids that the host's namespace gave, about which the kernel was not asked.
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

    /// Notes a namespace to which an id was given in the observer's table.
    pub(super) fn met(&mut self, is_tracked: bool) {
        self.found |= self.wanted == Strangers::Report && !is_tracked;
    }

    /// Notes an id of the host's table.
    pub(super) fn met_by_host(&mut self, id: Nsid) {
        if self.wanted == Strangers::Report && !self.met.contains(&id) {
            self.met.push(id);
        }
    }

    /// Returns the ids about which to ask the kernel now; empty: none.
    pub(super) fn next_question(&mut self, now: Instant) -> Vec<Nsid> {
        if self.asking || self.met.is_empty() || !self.pacing.allows(now) {
            return Vec::new();
        }
        self.asking = true;
        std::mem::take(&mut self.met)
    }

    /// Takes in that the question is answered; the namespaces are then [`Self::met`].
    pub(super) fn answered(&mut self, now: Instant, cost: Duration) {
        self.asking = false;
        self.pacing.done(now, cost);
    }

    /// Returns when the next question is due, if one waits for that.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let waits = !self.asking && !self.met.is_empty();
        self.pacing.not_before().filter(|_| waits)
    }

    pub(super) fn has_news(&self) -> bool {
        self.found
    }

    /// Returns whether there is one that was not reported, and takes it as reported.
    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.found)
    }
}
