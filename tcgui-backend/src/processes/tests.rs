//! The actor on the running kernel. It sees all processes of the machine; each test checks its own.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::probe::{Probe, Scan};
use super::*;
use crate::kernel::lab::{Inhabitant, PrivateNetns, without_ptrace};
use crate::kernel::netns::{NetnsFiles, ProcessNetnsId};
use crate::netns_holders::{Holder, HolderKind};

/// Generous, because other tests start a thousand processes at the same time and the budget delays scans.
/// `tests/process_storm.rs` measures the latency on an idle machine.
const SOON: Duration = Duration::from_secs(60);
const NEVER: ProcessesConfig = ProcessesConfig {
    sweep_interval: Duration::from_secs(3600),
    degraded_sweep_interval: Duration::from_secs(3600),
};

/// The actor, and the consumer's view of its events.
struct Watched {
    events: mpsc::Receiver<HeldEvent>,
    handle: ProcessesHandle,
    running: JoinHandle<()>,
    stop: CancellationToken,
    view: BTreeMap<u64, Vec<Holder>>,
}

impl Watched {
    fn start(config: ProcessesConfig) -> Self {
        let (tx, events) = mpsc::channel(16);
        let (handle, task) = open(config, tx).unwrap();
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the test is the supervisor")]
        let running = tokio::spawn(task.run(stop.clone()));
        let view = BTreeMap::new();
        Self {
            events,
            handle,
            running,
            stop,
            view,
        }
    }

    /// Waits for one event, and applies it to the view.
    async fn next_event(&mut self) -> HeldEvent {
        let event = timeout(SOON, self.events.recv()).await.expect("in time");
        let event = event.expect("it runs");
        match event.clone() {
            HeldEvent::Added(holder) => {
                let of_inode = self.view.entry(holder.id.inode()).or_default();
                of_inode.retain(|known| known.id != holder.id);
                of_inode.push(holder);
                assert!(of_inode.len() <= 2, "{of_inode:?}");
            }
            HeldEvent::Removed(id) => {
                let of_inode = self.view.get_mut(&id.inode()).expect("it was added");
                let before = of_inode.len();
                of_inode.retain(|known| known.id != id);
                assert!(of_inode.len() < before, "{id} was added");
                if of_inode.is_empty() {
                    self.view.remove(&id.inode());
                }
            }
        }
        event
    }

    /// Waits until the process is the only reported holder of its namespace, under this name.
    async fn wait_for(&mut self, id: ProcessNetnsId, comm: &str) {
        let kind = HolderKind::Process(std::ffi::OsStr::new(comm).into());
        let wanted = Holder { id, kind };
        while self.view.get(&id.inode()).map(Vec::as_slice) != Some(std::slice::from_ref(&wanted)) {
            self.next_event().await;
        }
    }

    async fn wait_for_end(&mut self, id: ProcessNetnsId) {
        let holds = |holders: &Vec<Holder>| holders.iter().any(|holder| holder.id == id);
        while self.view.get(&id.inode()).is_some_and(holds) {
            self.next_event().await;
        }
    }

    /// Returns whether the namespace is reported by the time that a newer one is.
    async fn knows(&mut self, id: ProcessNetnsId) -> bool {
        let marker = Inhabitant::unshared();
        self.wait_for(marker.wait_until_moved(), "cat").await;
        self.view.contains_key(&id.inode())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_creating_process_holds_its_namespace_until_it_ends() {
    let there_before = Inhabitant::unshared();
    let before = there_before.wait_until_moved();
    let mut watched = Watched::start(NEVER);
    watched.wait_for(before, "cat").await;
    for _ in 0..5 {
        let process = Inhabitant::unshared();
        let id = process.wait_until_moved();
        watched.wait_for(id, "cat").await;
        drop(process);
        watched.wait_for_end(id).await;
    }
    drop(there_before);
    watched.wait_for_end(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_oldest_process_succeeds_the_holder_without_a_gap() {
    let mut watched = Watched::start(NEVER);
    let first = Inhabitant::unshared();
    let id = first.wait_until_moved();
    let second = Inhabitant::beside(&first);
    let successor = second.wait_until_moved();
    assert_eq!(successor.inode(), id.inode());
    watched.wait_for(id, "cat").await;
    drop(first);
    loop {
        let event = watched.next_event().await;
        assert!(watched.view.contains_key(&id.inode()), "{event:?}");
        if event == HeldEvent::Removed(id) {
            break;
        }
    }
    watched.wait_for(successor, "cat").await;
    drop(second);
    watched.wait_for_end(successor).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unannounced_move_is_found_after_a_start_and_on_request() {
    let mut watched = Watched::start(NEVER);
    let mut restless = Inhabitant::restless();
    restless.rouse();
    let first = restless.wait_until_moved();
    // This is just after the exec: the process is looked at again within a second.
    watched.wait_for(first, "perl").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    restless.rouse();
    let mut second = restless.wait_until_moved();
    while second == first {
        second = restless.wait_until_moved();
    }
    // The kernel does not announce this; only a requested scan finds it.
    assert!(!watched.knows(second).await);
    watched.handle.request_scan();
    watched.wait_for(second, "perl").await;
    watched.wait_for_end(first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeps_find_unannounced_namespaces() {
    let interval = Duration::from_millis(300);
    let mut watched = Watched::start(ProcessesConfig {
        sweep_interval: interval,
        ..NEVER
    });
    let mut restless = Inhabitant::restless();
    restless.rouse();
    let mut last = restless.wait_until_moved();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    for _ in 0..3 {
        restless.rouse();
        let mut id = restless.wait_until_moved();
        while id == last {
            id = restless.wait_until_moved();
        }
        watched.wait_for(id, "perl").await;
        last = id;
    }
}

#[test]
fn without_announcements_it_sweeps_more_often() {
    let netns = PrivateNetns::new();
    netns.inside(|| {
        // The kernel announces processes only in the host's namespace, which this thread has left.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let mut watched = Watched::start(ProcessesConfig {
                degraded_sweep_interval: Duration::from_millis(200),
                ..NEVER
            });
            let process = Inhabitant::unshared();
            let id = process.wait_until_moved();
            watched.wait_for(id, "cat").await;
            drop(process);
            watched.wait_for_end(id).await;
        });
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_on_stop_and_without_a_consumer() {
    let watched = Watched::start(NEVER);
    watched.stop.cancel();
    timeout(SOON, watched.running).await.unwrap().unwrap();
    let watched = Watched::start(NEVER);
    drop(watched.events);
    timeout(SOON, watched.running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_gets_the_difference() {
    let (tx, mut events) = mpsc::channel(1);
    let (_handle, task) = open(NEVER, tx).unwrap();
    let stop = CancellationToken::new();
    #[expect(clippy::disallowed_methods, reason = "the test is the supervisor")]
    let running = tokio::spawn(task.run(stop.clone()));
    for _ in 0..20 {
        Inhabitant::unshared().wait_until_moved();
    }
    let last = Inhabitant::unshared();
    let id = last.wait_until_moved();
    loop {
        let event = timeout(SOON, events.recv()).await.unwrap().unwrap();
        if matches!(event, HeldEvent::Added(holder) if holder.id == id) {
            break;
        }
    }
    stop.cancel();
    timeout(SOON, running).await.unwrap().unwrap();
}

#[test]
fn six_hundred_processes_are_looked_at_within_milliseconds() {
    let crowd = Inhabitant::crowd(300);
    let home: Vec<Inhabitant> = (0..300).map(|_| Inhabitant::in_own_netns()).collect();
    let inode = crowd.wait_until_moved().inode();
    let began = Instant::now();
    while crowd.children() < 300 {
        assert!(began.elapsed() < SOON, "all processes have started");
        std::thread::yield_now();
    }
    let mut probe = Probe::open(NetnsFiles::new().unwrap()).unwrap();
    let mut look = || {
        let scan = probe.look_at_all(&Default::default());
        let processes = scan.in_other_netns.unwrap().into_iter();
        (
            scan.cost,
            processes.filter(|p| p.id.inode() == inode).count(),
        )
    };
    let (first, crowded) = look();
    assert_eq!(crowded, 301);
    let again = (0..9).map(|_| look().0).collect();
    report(
        "first look at 600 processes, half of them in another namespace",
        vec![first],
    );
    let again = report("… and later ones", again);
    assert!(again < Duration::from_millis(15), "{again:?}");
    drop(home);
}

#[test]
fn unreadable_processes_are_counted() {
    let process = Inhabitant::unshared();
    let id = process.wait_until_moved();
    let mut probe = Probe::open(NetnsFiles::new().unwrap()).unwrap();
    let sees = |scan: Scan| {
        let processes = scan.in_other_netns.unwrap();
        let sees = processes.iter().any(|process| process.id == id);
        (sees, scan.denied)
    };
    let (without, many) = sees(without_ptrace(|| probe.look_at_all(&Default::default())));
    let (with, few) = sees(probe.look_at_all(&Default::default()));
    assert!(with && !without, "{with} {without}");
    assert!(many > few, "{many} {few}");
}

/// Prints the measured times and returns the median.
fn report(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
    let count = times.len();
    writeln!(
        std::io::stderr(),
        "measured: {what}: n={count} p50 {median:.1?} max {last:.1?}"
    )
    .unwrap();
    median
}
