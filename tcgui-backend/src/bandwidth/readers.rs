//! Reads the counter targets on blocking threads: a free thread takes the next namespace.
//!
//! A reader that the kernel holds up keeps only its own namespace from being read. It outlives the
//! round in which it began, so what is being read is remembered across rounds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::{CounterKernel, CounterTargets, NetnsCounterTarget, ReadError, Reading};
use crate::kernel::netns::NetnsKey;

/// Readings after which the actor is woken: waking it for each would cost as much as a reading.
const CHUNK: usize = 32;

/// One namespace that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) order: Order,
    pub(super) at: Instant,
    pub(super) result: Result<Reading, ReadError>,
}

/// One namespace of the counter targets.
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

/// Where readers take their work from and put their results. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    rung: Notify,
}

#[derive(Debug, Default)]
struct State {
    counter_targets: Arc<CounterTargets>,
    /// The index of the first namespace that no thread has taken.
    next: usize,
    /// At most one per reader.
    reading: Vec<NetnsKey>,
    done: Vec<Read>,
}

impl ReadQueue {
    /// Begins a round, unless the earlier one has namespaces that no reader has taken. Returns whether it
    /// did.
    pub(super) fn begin(&self, counter_targets: Arc<CounterTargets>) -> bool {
        let mut state = self.lock();
        let free = state.next >= state.counter_targets.namespaces.len();
        if free {
            state.counter_targets = counter_targets;
            state.next = 0;
        }
        free
    }

    /// Gives up the round: readers end after what they are reading.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.next = state.counter_targets.namespaces.len();
    }

    /// Returns how many namespaces of the round no reader has taken.
    pub(super) fn untaken(&self) -> usize {
        let state = self.lock();
        state.counter_targets.namespaces.len() - state.next
    }

    /// Returns whether readings are to be waited for.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.lock();
        state.next < state.counter_targets.namespaces.len() || !state.reading.is_empty()
    }

    /// Takes what was read so far.
    pub(super) fn take_done(&self) -> Vec<Read> {
        std::mem::take(&mut self.lock().done)
    }

    /// Waits until much was read, or a reader has ended. Cancel-safe: a ring stays until it is heard.
    pub(super) async fn rung(&self) {
        self.0.rung.notified().await;
    }

    /// Reads until nothing is left to take; blocks.
    pub(super) fn read(&self, kernel: &impl CounterKernel) {
        while let Some(order) = self.take() {
            let key = order.entry().key;
            let result = kernel.read(order.entry());
            let at = tokio::time::Instant::now().into_std();
            let mut state = self.lock();
            state.reading.retain(|reading| *reading != key);
            state.done.push(Read { order, at, result });
            if state.done.len() >= CHUNK {
                self.0.rung.notify_one();
            }
        }
        self.0.rung.notify_one();
    }

    fn take(&self) -> Option<Order> {
        let mut state = self.lock();
        loop {
            let index = state.next;
            let key = state.counter_targets.namespaces.get(index)?.key;
            state.next += 1;
            // Still being read since a round before: its sample will come from that reading.
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
