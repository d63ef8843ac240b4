//! The actor: waits for ticks and readings, and sends samples to the bus.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tcgui_shared::names::BackendName;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::rates::Rates;
use super::readers::{Read, ReadQueue};
use super::wire::{Stamp, add_samples};
use super::{CounterKernel, CounterTargets};
use crate::bus::Sample;
use crate::clock::unix_seconds;
use crate::error::chain;

/// Maximum number of concurrent readers. One does the work. The others take over while the kernel blocks it.
const READERS: usize = 3;
/// Time without progress after which another reader starts. A reading takes well under 1 ms, and all samples must be published
/// within 300 ms of the tick.
const READING_TIMEOUT: Duration = Duration::from_millis(50);

enum Input<'a> {
    Stop,
    Room(mpsc::Permit<'a, Vec<Sample>>),
    BusGone,
    ResultsReady,
    ReaderEnded(Result<(), JoinError>),
    Stalled,
    Tick,
}

/// The bandwidth actor. [`Task::run`] runs it.
#[derive(Debug)]
pub struct Task<K> {
    kernel: Arc<K>,
    backend_name: String,
    interval: Duration,
    counter_targets: watch::Receiver<Arc<CounterTargets>>,
    samples: mpsc::Sender<Vec<Sample>>,
    rates: Rates,
    read_queue: ReadQueue,
    readers: JoinSet<()>,
    /// Time of the next progress check, and the number of namespaces that no reader had taken at the last one. `None` if no
    /// namespace is being read.
    check: Option<(Instant, usize)>,
    /// Batches of the current round that wait for room in the channel to the bus.
    outbox: VecDeque<Vec<Sample>>,
}

impl<K: CounterKernel> Task<K> {
    pub(super) fn new(
        kernel: K,
        name: &BackendName,
        interval: Duration,
        counter_targets: watch::Receiver<Arc<CounterTargets>>,
        samples: mpsc::Sender<Vec<Sample>>,
    ) -> Self {
        Self {
            kernel: Arc::new(kernel),
            backend_name: name.to_string(),
            interval,
            counter_targets,
            samples,
            rates: Rates::default(),
            read_queue: ReadQueue::default(),
            readers: JoinSet::new(),
            check: None,
            outbox: VecDeque::new(),
        }
    }

    /// Publishes until `stop` is cancelled or the bus has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let samples = self.samples.clone();
        let mut ticks = tokio::time::interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            match self.next_input(&samples, &mut ticks, &stop).await {
                Input::Stop | Input::BusGone => break,
                Input::Room(permit) => {
                    if let Some(batch) = self.outbox.pop_front() {
                        permit.send(batch);
                    }
                }
                Input::ResultsReady => self.collect(),
                Input::ReaderEnded(ended) => {
                    if let Err(err) = ended {
                        self.read_queue.close();
                        // Readers are never aborted, so this one panicked. Pass the panic on to the supervisor.
                        std::panic::resume_unwind(err.into_panic());
                    }
                    self.collect();
                }
                Input::Stalled => self.overtake(),
                Input::Tick => self.begin_round(),
            }
        }
        self.read_queue.close();
    }

    async fn next_input<'a>(
        &mut self,
        samples: &'a mpsc::Sender<Vec<Sample>>,
        ticks: &mut tokio::time::Interval,
        stop: &CancellationToken,
    ) -> Input<'a> {
        let check = self.check;
        let stalled = async {
            match check {
                Some((at, _)) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Cancel-safe: cancellation is a state.
            () = stop.cancelled() => Input::Stop,
            // Cancel-safe: a dropped future takes no permit.
            permit = samples.reserve(), if !self.outbox.is_empty() => {
                permit.map_or(Input::BusGone, Input::Room)
            }
            // Cancel-safe: `Notify` keeps the permit until it is consumed.
            () = self.read_queue.results_ready() => Input::ResultsReady,
            // Cancel-safe: the set keeps a result until it is returned.
            Some(ended) = self.readers.join_next(), if !self.readers.is_empty() => {
                Input::ReaderEnded(ended)
            }
            // Cancel-safe: the deadline is stored in `self.check`.
            () = stalled => Input::Stalled,
            // Cancel-safe: a dropped future consumes no tick.
            _ = ticks.tick() => Input::Tick,
        }
    }

    fn begin_round(&mut self) {
        let counter_targets = Arc::clone(&self.counter_targets.borrow_and_update());
        if !self.read_queue.begin(Arc::clone(&counter_targets)) {
            debug!(
                count = self.read_queue.untaken(),
                "earlier round not finished, tick skipped"
            );
            return;
        }
        if !self.outbox.is_empty() {
            // Only new samples are useful. The bus has not taken these batches for a whole interval.
            debug!(count = self.outbox.len(), "batches dropped");
            self.outbox.clear();
        }
        let present: HashSet<_> = counter_targets
            .namespaces
            .iter()
            .map(|entry| entry.key)
            .collect();
        self.rates.keep(|key| present.contains(key));
        self.watch_progress();
        self.start_reader();
    }

    /// Takes the results of a slow reader so far. Starts another reader for the rest if no reader has made progress since
    /// the last check.
    fn overtake(&mut self) {
        let before = self.check.map(|(_, untaken)| untaken);
        let untaken = self.read_queue.untaken();
        if untaken > 0 && before == Some(untaken) {
            self.start_reader();
        }
        self.watch_progress();
        self.collect();
    }

    fn watch_progress(&mut self) {
        let check = || (Instant::now() + READING_TIMEOUT, self.read_queue.untaken());
        self.check = self.read_queue.is_busy().then(check);
    }

    fn start_reader(&mut self) {
        if self.readers.len() < READERS {
            let (read_queue, kernel) = (self.read_queue.clone(), Arc::clone(&self.kernel));
            self.readers
                .spawn_blocking(move || read_queue.read(&*kernel));
        }
    }

    /// Converts the finished readings to one batch of samples.
    fn collect(&mut self) {
        let mut batch = Vec::new();
        let stamp = Stamp {
            backend_name: &self.backend_name,
            unix_s: unix_seconds(),
        };
        for Read { order, at, result } in self.read_queue.take_done() {
            let entry = order.entry();
            let key = entry.key;
            match result {
                Ok(reading) => {
                    let rated = self.rates.sample(key, at, reading.links);
                    add_samples(&mut batch, entry, &rated, &reading.qdiscs, stamp);
                }
                // The next tick retries. The counter targets no longer list what has disappeared.
                Err(err) => debug!(?key, error = %chain(&err), "counters not read"),
            }
        }
        if !batch.is_empty() {
            self.outbox.push_back(batch);
        }
    }
}
