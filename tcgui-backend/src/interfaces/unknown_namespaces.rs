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
const QUERY_PACING: Pacing = Pacing::new(10, Duration::ZERO, Duration::from_millis(250));

/// Whether to report namespaces to which no tracked reference leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownNamespaces {
    /// Report them as [`InterfacesEvent::UnknownNsid`](super::InterfacesEvent).
    Report,
    /// Do not look for them.
    Ignore,
}

/// The unknown namespaces seen so far.
#[derive(Debug)]
pub(super) struct UnknownNamespaceWatch {
    wanted: UnknownNamespaces,
    /// An unknown namespace was found and not reported yet.
    found: bool,
    /// Ids in the host's table that no query has translated yet.
    host_ids: Vec<Nsid>,
    query_running: bool,
    pacing: Pacing,
}

impl UnknownNamespaceWatch {
    pub(super) fn new(wanted: UnknownNamespaces) -> Self {
        Self {
            wanted,
            found: false,
            host_ids: Vec::new(),
            query_running: false,
            pacing: QUERY_PACING,
        }
    }

    /// Records that a namespace got an id in the observer's table.
    pub(super) fn id_assigned(&mut self, is_tracked: bool) {
        self.found |= self.wanted == UnknownNamespaces::Report && !is_tracked;
    }

    /// Handles an id of the host's table.
    pub(super) fn host_id_assigned(&mut self, id: Nsid) {
        if self.wanted == UnknownNamespaces::Report && !self.host_ids.contains(&id) {
            self.host_ids.push(id);
        }
    }

    /// Returns the ids to query now. Empty: no query is due.
    pub(super) fn next_query(&mut self, now: Instant) -> Vec<Nsid> {
        if self.query_running || self.host_ids.is_empty() || !self.pacing.allows(now) {
            return Vec::new();
        }
        self.query_running = true;
        std::mem::take(&mut self.host_ids)
    }

    /// Records that the query has finished. The caller passes each result to [`Self::id_assigned`].
    pub(super) fn answered(&mut self, now: Instant, cost: Duration) {
        self.query_running = false;
        self.pacing.done(now, cost);
    }

    /// Returns when the next query is due. `None`: no id waits for one.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let waits = !self.query_running && !self.host_ids.is_empty();
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
