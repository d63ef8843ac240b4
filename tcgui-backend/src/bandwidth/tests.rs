//! Tests of the actor over an in-memory kernel with slow, deleted and reset namespaces.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant as RealInstant;

use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::kernel::link::{LinkName, Traffic};
use crate::namespace_watcher::MountedNamespaceId;

const INTERVAL: Duration = Duration::from_secs(2);
/// The same value as in `task.rs`.
const READING_TIMEOUT: Duration = Duration::from_millis(50);
/// Real-time limit for a few microseconds of work on a busy machine.
const REAL_DEADLINE: Duration = Duration::from_secs(20);

/// A kernel in memory. Clones are the same kernel.
#[derive(Debug, Clone, Default)]
struct FakeKernel(Arc<Fake>);

#[derive(Debug, Default)]
struct Fake {
    state: Mutex<FakeState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct FakeState {
    /// Bytes received and sent by each link of a namespace.
    bytes: HashMap<NetnsKey, u64>,
    held: HashSet<NetnsKey>,
    gone: HashSet<NetnsKey>,
    reads: Vec<NetnsKey>,
}

impl FakeKernel {
    fn set(&self, change: impl FnOnce(&mut FakeState)) {
        change(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_all();
    }

    fn reads_of(&self, key: NetnsKey) -> usize {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reads.iter().filter(|read| **read == key).count()
    }
}

impl CounterKernel for FakeKernel {
    fn read(&self, entry: &NetnsCounterTarget) -> Result<Reading, ReadError> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reads.push(entry.key);
        while state.held.contains(&entry.key) {
            state = self
                .0
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.gone.contains(&entry.key) {
            return Err(ReadError::Gone);
        }
        let bytes = state.bytes.get(&entry.key).copied().unwrap_or_default();
        let traffic = Traffic {
            bytes,
            ..Traffic::default()
        };
        let counters = |link: &LinkCounterTarget| LinkCounters {
            ifindex: link.ifindex,
            name: LinkName::new(link.name.as_bytes()),
            rx: traffic,
            tx: traffic,
        };
        let statistics = |link: &LinkCounterTarget| QdiscStatistics {
            ifindex: link.ifindex,
            basic: Some(BasicStats { bytes, packets: 1 }),
            queue: None,
            rate_est: None,
        };
        let netems = entry.links.iter().filter(|link| link.root_netem);
        Ok(Reading {
            links: entry.links.iter().map(counters).collect(),
            qdiscs: netems.map(statistics).collect(),
        })
    }
}

fn key(number: i64) -> NetnsKey {
    NetnsKey::Mounted(MountedNamespaceId::from_parts(4, 1, number, 0))
}

fn name_of(number: i64) -> String {
    format!("n{number}")
}

/// A namespace with one link.
fn entry(number: i64, root_netem: bool) -> NetnsCounterTarget {
    NetnsCounterTarget {
        key: key(number),
        nsid: None,
        name: NamespaceName::named(name_of(number)).unwrap(),
        netns_refs: Vec::new(),
        links: [LinkCounterTarget {
            ifindex: 1,
            name: InterfaceName::new("lo").unwrap(),
            root_netem,
        }]
        .into(),
    }
}

fn counter_targets(numbers: impl IntoIterator<Item = i64>) -> Arc<CounterTargets> {
    let namespaces = numbers
        .into_iter()
        .map(|number| Arc::new(entry(number, false)));
    Arc::new(CounterTargets {
        namespaces: namespaces.collect(),
    })
}

struct Actor {
    kernel: FakeKernel,
    counter_targets: watch::Sender<Arc<CounterTargets>>,
    samples: mpsc::Receiver<Vec<Sample>>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    started: Instant,
}

impl Drop for Actor {
    fn drop(&mut self) {
        // If a test fails, the runtime waits for its blocking threads.
        self.kernel.set(|state| state.held.clear());
    }
}

/// Starts the actor. The channel to the bus has room for one batch.
#[expect(clippy::disallowed_methods, reason = "the test is the supervisor")]
async fn start(first: Arc<CounterTargets>) -> Actor {
    let kernel = FakeKernel::default();
    let (counter_targets, counter_targets_rx) = watch::channel(first);
    let (sender, samples) = mpsc::channel(1);
    let name = "edge1".parse().unwrap();
    let task = open(kernel.clone(), &name, INTERVAL, counter_targets_rx, sender);
    let stop = CancellationToken::new();
    let running = tokio::spawn(task.run(stop.clone()));
    // The first interval begins when the actor is polled.
    tokio::task::yield_now().await;
    Actor {
        kernel,
        counter_targets,
        samples,
        running,
        stop,
        started: Instant::now(),
    }
}

impl Actor {
    /// Waits for the next batch. Returns its time of arrival, and the bytes per second that each namespace received.
    async fn batch(&mut self) -> (Duration, Vec<(String, f64)>) {
        let batch = timeout(INTERVAL * 10, self.samples.recv()).await;
        let batch = batch.expect("samples in time").expect("the actor runs");
        (self.started.elapsed(), rates(&batch))
    }

    /// Waits until the condition holds without moving the clock.
    async fn until(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        let began = RealInstant::now();
        while !so(self) {
            assert!(began.elapsed() < REAL_DEADLINE, "never: {what}");
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
    }

    /// Waits for the samples of these namespaces without moving the clock.
    async fn until_sampled(&mut self, numbers: impl IntoIterator<Item = i64>) {
        let mut missing: HashSet<_> = numbers.into_iter().map(name_of).collect();
        self.until("samples of all others", |actor| {
            while let Ok(batch) = actor.samples.try_recv() {
                for (name, _) in rates(&batch) {
                    missing.remove(&name);
                }
            }
            missing.is_empty()
        })
        .await;
    }

    async fn until_read(&mut self, number: i64, times: usize) {
        self.until("reading", |actor| {
            actor.kernel.reads_of(key(number)) == times
        })
        .await;
    }
}

fn rates(batch: &[Sample]) -> Vec<(String, f64)> {
    let rate = |sample: &Sample| match sample {
        Sample::Bandwidth(netns, _, update) => {
            assert_eq!(update.namespace, netns.to_wire());
            assert_eq!(update.backend_name, "edge1");
            Some((netns.to_wire(), update.stats.rx_bytes_per_sec))
        }
        Sample::TcStatistics(..) => None,
    };
    batch.iter().filter_map(rate).collect()
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[tokio::test(start_paused = true)]
async fn every_tick_publishes_samples() {
    let mut actor = start(counter_targets([1])).await;
    assert_eq!(actor.batch().await, (secs(2), vec![("n1".into(), 0.0)]));
    actor.kernel.set(|state| {
        state.bytes.insert(key(1), 3000);
    });
    assert_eq!(actor.batch().await, (secs(4), vec![("n1".into(), 1500.0)]));
    assert_eq!(actor.batch().await, (secs(6), vec![("n1".into(), 0.0)]));
}

#[tokio::test(start_paused = true)]
async fn missed_ticks_are_skipped() {
    let mut actor = start(counter_targets([1])).await;
    advance(secs(7)).await;
    assert_eq!(actor.batch().await.0, secs(7));
    assert_eq!(actor.batch().await.0, secs(8), "in step again");
    assert_eq!(actor.kernel.reads_of(key(1)), 2);
}

#[tokio::test(start_paused = true)]
async fn the_newest_counter_targets_are_read() {
    let mut actor = start(Arc::default()).await;
    actor.counter_targets.send_replace(counter_targets([1, 2]));
    let names = |batch: (Duration, Vec<(String, f64)>)| -> Vec<_> {
        batch.1.into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(actor.batch().await), ["n1", "n2"]);
    actor.kernel.set(|state| {
        state.bytes = HashMap::from([(key(1), 500), (key(2), 500), (key(3), 500)]);
    });
    actor.counter_targets.send_replace(counter_targets([3, 2]));
    let (_, changed) = actor.batch().await;
    assert_eq!(changed, [("n3".into(), 0.0), ("n2".into(), 250.0)]);
    actor.counter_targets.send_replace(counter_targets([1, 2]));
    let (_, back) = actor.batch().await;
    assert_eq!(back[0], ("n1".into(), 0.0), "it was forgotten meanwhile");
}

#[tokio::test(start_paused = true)]
async fn netem_statistics_follow_the_counters() {
    let namespaces = vec![Arc::new(entry(1, true)), Arc::new(entry(2, false))];
    let mut actor = start(Arc::new(CounterTargets { namespaces })).await;
    let batch = actor.samples.recv().await.expect("the actor runs");
    let [
        Sample::Bandwidth(..),
        Sample::TcStatistics(netns, _, update),
        Sample::Bandwidth(..),
    ] = &batch[..]
    else {
        panic!("{batch:?}")
    };
    assert_eq!(netns.to_wire(), "n1");
    assert_eq!(update.stats_basic.map(|basic| basic.packets), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_failing_namespace_loses_only_its_own_samples() {
    let mut actor = start(counter_targets([1, 2])).await;
    actor.batch().await;
    actor.kernel.set(|state| {
        state.gone.insert(key(1));
        state.bytes.insert(key(1), 4000);
    });
    assert_eq!(actor.batch().await.1, [("n2".into(), 0.0)]);
    actor.kernel.set(|state| state.gone.clear());
    let (_, recovered) = actor.batch().await;
    assert_eq!(
        recovered[0],
        ("n1".into(), 1000.0),
        "since the sample before"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_namespace_delays_only_its_own_samples() {
    let mut actor = start(counter_targets(1..=100)).await;
    actor.kernel.set(|state| {
        state.held.insert(key(1));
    });
    advance(INTERVAL).await;
    actor.until_read(1, 1).await;
    // Advance twice: the first check still sees that this namespace was taken.
    advance(READING_TIMEOUT).await;
    tokio::task::yield_now().await;
    advance(READING_TIMEOUT).await;
    actor.until_sampled(2..=100).await;
    let elapsed = actor.started.elapsed();
    assert!(elapsed < INTERVAL + secs(1) / 5, "{elapsed:?}");

    advance(INTERVAL - READING_TIMEOUT * 2).await;
    actor.until_sampled(2..=100).await;
    assert_eq!(actor.kernel.reads_of(key(1)), 1, "never twice at once");
    actor.kernel.set(|state| state.held.clear());
    actor.until_sampled([1]).await;
    advance(INTERVAL).await;
    actor.until_sampled(1..=100).await;
}

#[tokio::test(start_paused = true)]
async fn finished_readings_are_published_before_the_last_one_ends() {
    let mut actor = start(counter_targets(1..=5)).await;
    actor.kernel.set(|state| {
        state.held.insert(key(5));
    });
    advance(INTERVAL).await;
    actor.until_read(5, 1).await;
    advance(READING_TIMEOUT).await;
    actor.until_sampled(1..=4).await;
    assert_eq!(actor.started.elapsed(), INTERVAL + READING_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn slow_readings_do_not_accumulate() {
    let mut actor = start(counter_targets(1..=10)).await;
    actor
        .kernel
        .set(|state| state.held = (1..=10).map(key).collect());
    for _ in 0..20 {
        advance(INTERVAL / 2).await;
        tokio::task::yield_now().await;
    }
    actor.until_read(3, 1).await;
    assert_eq!(actor.kernel.reads_of(key(4)), 0, "three readers, not more");
    actor.kernel.set(|state| state.held.clear());
    actor.until_sampled(1..=10).await;
    assert_eq!(actor.kernel.reads_of(key(1)), 1, "no tick is made up for");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_bus_receives_only_the_newest_samples() {
    let mut actor = start(counter_targets([1])).await;
    for round in 1..=20_usize {
        actor.kernel.set(|state| {
            state.bytes.insert(key(1), 1000 * round as u64);
        });
        advance(INTERVAL).await;
        actor.until_read(1, round).await;
    }
    actor
        .until("the last reading is done", |actor| actor.samples.len() == 1)
        .await;
    // One batch is in the channel, and the last one waits in the outbox.
    actor.batch().await;
    let newest = actor.samples.recv().await.expect("the actor runs");
    let Sample::Bandwidth(_, _, update) = &newest[0] else {
        panic!("{newest:?}")
    };
    assert_eq!(update.stats.rx_bytes, 20_000);
    assert!(actor.samples.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_actor_ends_on_stop_or_when_the_bus_has_ended() {
    let mut actor = start(counter_targets(1..=3)).await;
    actor.kernel.set(|state| {
        state.held.insert(key(1));
    });
    advance(INTERVAL).await;
    actor.until_read(1, 1).await;
    actor.stop.cancel();
    actor
        .until("the end", |actor| actor.running.is_finished())
        .await;
    actor.kernel.set(|state| state.held.clear());

    let mut actor = start(counter_targets([1])).await;
    actor.samples.close();
    advance(INTERVAL).await;
    actor
        .until("the end", |actor| actor.running.is_finished())
        .await;
}
