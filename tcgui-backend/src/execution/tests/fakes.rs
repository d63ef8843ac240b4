//! A port that records its calls, and a bus that keeps all updates.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tcgui_shared::scenario::{ExecutionState, ScenarioExecutionUpdate};

use crate::bus::ExecutionPublication;
use crate::execution::port::{Claim, Impairment, PortError, TcPort, UpdateSink};

/// One request and its time.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) at: Instant,
    pub(super) number: u64,
    pub(super) wanted: Impairment,
}

#[derive(Debug, Default)]
struct Inner {
    roots: HashMap<u32, Impairment>,
    /// The roots before the first change, by the number of the claim.
    captured: HashMap<u64, Impairment>,
    recorded: Vec<Recorded>,
    released: Vec<(u64, bool)>,
    refusal: Option<PortError>,
}

/// A port with a fixed duration of each change.
#[derive(Debug, Clone)]
pub(super) struct RecordingPort {
    inner: Arc<Mutex<Inner>>,
    latency: Duration,
}

impl RecordingPort {
    pub(super) fn new(latency: Duration) -> Self {
        Self {
            inner: Arc::default(),
            latency,
        }
    }

    pub(super) fn recorded(&self) -> Vec<Recorded> {
        self.inner.lock().unwrap().recorded.clone()
    }

    /// Returns the number of each released claim, and whether the restoration is owed.
    pub(super) fn released(&self) -> Vec<(u64, bool)> {
        self.inner.lock().unwrap().released.clone()
    }

    pub(super) fn root(&self, ifindex: u32) -> Impairment {
        let inner = self.inner.lock().unwrap();
        inner
            .roots
            .get(&ifindex)
            .cloned()
            .unwrap_or(Impairment::None)
    }

    pub(super) fn set_root(&self, ifindex: u32, root: Impairment) {
        self.inner.lock().unwrap().roots.insert(ifindex, root);
    }

    /// Refuses all further calls.
    pub(super) fn refuse(&self, refusal: PortError) {
        self.inner.lock().unwrap().refusal = Some(refusal);
    }
}

impl TcPort for RecordingPort {
    async fn capture(&self, claim: &Claim) -> Result<(), PortError> {
        tokio::time::sleep(self.latency).await;
        let refusal = self.inner.lock().unwrap().refusal.clone();
        match refusal {
            Some(refusal) => Err(refusal),
            None => {
                let root = self.root(claim.target.key.ifindex);
                let mut inner = self.inner.lock().unwrap();
                inner.captured.insert(claim.number, root);
                Ok(())
            }
        }
    }

    async fn set(&self, claim: &Claim, wanted: Impairment) -> Result<(), PortError> {
        let recorded = Recorded {
            at: crate::clock::now(),
            number: claim.number,
            wanted: wanted.clone(),
        };
        self.inner.lock().unwrap().recorded.push(recorded);
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        let mut inner = self.inner.lock().unwrap();
        if let Some(refusal) = &inner.refusal {
            return Err(refusal.clone());
        }
        inner.roots.insert(claim.target.key.ifindex, wanted);
        Ok(())
    }

    async fn restore(&self, claim: &Claim) -> Result<(), PortError> {
        tokio::time::sleep(self.latency).await;
        let mut inner = self.inner.lock().unwrap();
        if let Some(refusal) = &inner.refusal {
            return Err(refusal.clone());
        }
        let captured = inner.captured.get(&claim.number).cloned();
        let root = captured.unwrap_or(Impairment::None);
        inner.roots.insert(claim.target.key.ifindex, root);
        Ok(())
    }

    async fn release(&self, claim: &Claim, owed: bool) {
        let mut inner = self.inner.lock().unwrap();
        inner.released.push((claim.number, owed));
    }
}

/// Serialises and keeps each update.
#[derive(Debug, Clone, Default)]
pub(super) struct Bus {
    updates: Arc<Mutex<Vec<ExecutionPublication>>>,
}

impl Bus {
    pub(super) fn publications(&self) -> Vec<ExecutionPublication> {
        self.updates.lock().unwrap().clone()
    }

    /// The state in the newest update.
    pub(super) fn last_state(&self) -> Option<ExecutionState> {
        let updates = self.updates.lock().unwrap();
        let last = updates.last().and_then(|it| it.update.as_ref());
        last.map(|update| update.execution.state.clone())
    }

    pub(super) fn updates(&self) -> Vec<ScenarioExecutionUpdate> {
        let publications = self.publications();
        publications
            .into_iter()
            .filter_map(|it| it.update)
            .collect()
    }
}

impl UpdateSink for Bus {
    async fn publish(&self, updates: Vec<ExecutionPublication>) {
        for update in updates.iter().filter_map(|it| it.update.as_ref()) {
            assert!(!serde_json::to_vec(update).unwrap().is_empty());
        }
        self.updates.lock().unwrap().extend(updates);
    }
}
