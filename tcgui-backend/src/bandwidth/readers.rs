//! Reads the counter targets on blocking threads. A free thread takes the next namespace.
//!
//! A reader that is blocked in the kernel delays only its own namespace. It may outlive the round in which it began. Therefore
//! the set of namespaces that are being read is kept across rounds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::{CounterKernel, CounterTargets, NetnsCounterTarget, ReadError, Reading};
use crate::kernel::netns::NetnsKey;

/// Number of readings after which the actor is woken up. A wake-up costs about as much as a reading.
const CHUNK: usize = 32;

/// The result of reading one namespace.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) order: Order,
    pub(super) at: Instant,
    pub(super) result: Result<Reading, ReadError>,
}

/// One namespace to read: its index in the counter targets.
#[derive(Debug)]
pub(super) struct Order {
    counter_targets: Arc<CounterTargets>,
    index: usize,
}

impl Order {
    pub(super) fn entry(&self) -> &NetnsCounterTarget {
        &self.counter_targets.namespaces[self.index]
    }
}

/// The queue from which readers take namespaces, and their results. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    results_ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    counter_targets: Arc<CounterTargets>,
    /// The index of the first namespace that no thread has taken.
    next: usize,
    /// The namespaces that are being read, at most one for each reader.
    reading: Vec<NetnsKey>,
    done: Vec<Read>,
}

impl ReadQueue {
    /// Begins a round unless the earlier round still has namespaces that no reader has taken. Returns whether it began.
    pub(super) fn begin(&self, counter_targets: Arc<CounterTargets>) -> bool {
        let mut state = self.lock();
        let free = state.next >= state.counter_targets.namespaces.len();
        if free {
            state.counter_targets = counter_targets;
            state.next = 0;
        }
        free
    }

    /// Cancels the round. Each reader ends after the namespace that it is reading.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.next = state.counter_targets.namespaces.len();
    }

    /// Returns how many namespaces of the round no reader has taken.
    pub(super) fn untaken(&self) -> usize {
        let state = self.lock();
        state.counter_targets.namespaces.len() - state.next
    }

    /// Returns whether namespaces are left to take or are being read.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.lock();
        state.next < state.counter_targets.namespaces.len() || !state.reading.is_empty()
    }

    /// Removes and returns the finished readings.
    pub(super) fn take_done(&self) -> Vec<Read> {
        std::mem::take(&mut self.lock().done)
    }

    /// Waits until [`CHUNK`] readings have finished or a reader has ended. Cancel-safe: `Notify` keeps the permit until it is
    /// consumed.
    pub(super) async fn results_ready(&self) {
        self.0.results_ready.notified().await;
    }

    /// Reads until no namespace is left to take. Blocks.
    pub(super) fn read(&self, kernel: &impl CounterKernel) {
        while let Some(order) = self.take() {
            let key = order.entry().key;
            let result = kernel.read(order.entry());
            let at = crate::clock::now();
            let mut state = self.lock();
            state.reading.retain(|reading| *reading != key);
            state.done.push(Read { order, at, result });
            if state.done.len() >= CHUNK {
                self.0.results_ready.notify_one();
            }
        }
        self.0.results_ready.notify_one();
    }

    fn take(&self) -> Option<Order> {
        let mut state = self.lock();
        loop {
            let index = state.next;
            let key = state.counter_targets.namespaces.get(index)?.key;
            state.next += 1;
            // A reader of an earlier round still reads this namespace. Its sample comes from that reading.
            if !state.reading.contains(&key) {
                state.reading.push(key);
                let counter_targets = Arc::clone(&state.counter_targets);
                return Some(Order {
                    counter_targets,
                    index,
                });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
