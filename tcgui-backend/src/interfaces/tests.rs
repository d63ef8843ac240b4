//! The actor over a fake kernel that can lose events, fail dumps and invalidate ids.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::tracker::{AFTER_OWN, DumpDone, MAX_DUMPS, Tracker};
use super::*;
use crate::kernel::netns::{MountedNamespaceId, ProcessNetnsId};
use crate::kernel::rtnetlink::{KernelEvent, Nsid};

mod generations;
mod held;
mod unknown_namespaces;

const SWEEP: Duration = Duration::from_secs(30);
/// No sweep begins within twice this time: the first part of a sweep is due after 1.875 s.
const UNSWEPT: Duration = Duration::from_millis(900);
const A: MountedNamespaceId = MountedNamespaceId::from_parts(4, 1, 1, 1);
const B: MountedNamespaceId = MountedNamespaceId::from_parts(4, 2, 1, 1);

/// A kernel in memory. Clones share their state.
#[derive(Debug, Clone, Default)]
struct FakeKernel(Arc<Fake>);

#[derive(Debug, Default)]
struct Fake {
    state: Mutex<FakeState>,
    wakeup: Notify,
}

#[derive(Debug, Default)]
struct FakeState {
    links: BTreeMap<NetnsKey, Vec<&'static str>>,
    nsids: BTreeMap<NetnsKey, i32>,
    /// Ids in the host's table, with the ids of the same namespaces in the observer's table.
    given_by_host: BTreeMap<i32, Option<i32>>,
    queries: usize,
    events: VecDeque<KernelEvent>,
    lose_events: bool,
    fail_dumps: usize,
    dumps: usize,
    forgotten: Vec<NetnsKey>,
}

impl FakeKernel {
    fn change(&self, key: NetnsKey, links: &[&'static str]) {
        let mut state = self.0.state.lock().unwrap();
        state.links.insert(key, links.to_vec());
        let nsid = state.nsids.get(&key).copied().map(Nsid::from_raw);
        if (key == NetnsKey::Host || nsid.is_some()) && !state.lose_events {
            state.events.push_back(KernelEvent::Changed(nsid));
        }
        self.0.wakeup.notify_one();
    }

    fn send(&self, event: KernelEvent) {
        self.0.state.lock().unwrap().events.push_back(event);
        self.0.wakeup.notify_one();
    }

    fn set(&self, change: impl FnOnce(&mut FakeState)) {
        change(&mut self.0.state.lock().unwrap());
    }

    fn take_events(&self) -> Vec<LinkEvent> {
        let mut state = self.0.state.lock().unwrap();
        state.events.drain(..).map(LinkEvent::Kernel).collect()
    }

    fn dumps(&self) -> usize {
        self.0.state.lock().unwrap().dumps
    }
}

impl LinkKernel for FakeKernel {
    async fn dump(&self, request: DumpRequest) -> Result<DumpedLinks, DumpError> {
        tokio::time::sleep(Duration::from_micros(100)).await;
        let mut state = self.0.state.lock().unwrap();
        state.dumps += 1;
        if let Some(left) = state.fail_dumps.checked_sub(1) {
            state.fail_dumps = left;
            return Err(DumpError::Open(io::ErrorKind::OutOfMemory.into()));
        }
        let links = state
            .links
            .get(&request.key)
            .ok_or(DumpError::Gone)?
            .iter()
            .zip(1..)
            .map(|(name, ifindex)| Link::sample(ifindex, name))
            .collect();
        let next = i32::try_from(state.nsids.len()).unwrap();
        let nsid = match request.key {
            NetnsKey::Host => None,
            key => Some(Nsid::from_raw(*state.nsids.entry(key).or_insert(next))),
        };
        if request.nsid.is_some() && request.nsid != nsid {
            return Err(DumpError::StaleId);
        }
        Ok(DumpedLinks { nsid, links })
    }

    async fn events(&self) -> Result<Vec<LinkEvent>, RtnetlinkError> {
        loop {
            let events = self.take_events();
            if !events.is_empty() {
                return Ok(events);
            }
            self.0.wakeup.notified().await;
        }
    }

    async fn observer_ids(&self, ids: Vec<Nsid>) -> Vec<Option<Nsid>> {
        tokio::time::sleep(Duration::from_micros(100)).await;
        let mut state = self.0.state.lock().unwrap();
        state.queries += 1;
        let given = state.given_by_host.iter();
        let known = given.filter(|(id, _)| ids.contains(&Nsid::from_raw(**id)));
        known.map(|(_, here)| here.map(Nsid::from_raw)).collect()
    }

    fn pending(&self, _key: NetnsKey) -> Result<Option<Vec<LinkEvent>>, RtnetlinkError> {
        let events = self.take_events();
        Ok((!events.is_empty()).then_some(events))
    }

    fn forget(&self, key: NetnsKey) {
        self.set(|state| state.forgotten.push(key));
    }
}

struct Actor {
    kernel: FakeKernel,
    handle: InterfacesHandle,
    events: mpsc::Receiver<InterfacesEvent>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), RtnetlinkError>>,
}

fn start() -> Actor {
    start_with(UnknownNamespaces::Report)
}

#[expect(clippy::disallowed_methods, reason = "the test is the supervisor")]
fn start_with(unknown_namespaces: UnknownNamespaces) -> Actor {
    let kernel = FakeKernel::default();
    let (handle, events, task) = open(kernel.clone(), SWEEP, unknown_namespaces);
    let stop = CancellationToken::new();
    let running = tokio::spawn(task.run(stop.clone()));
    Actor {
        kernel,
        handle,
        events,
        stop,
        running,
    }
}

impl Actor {
    async fn track(&self, id: MountedNamespaceId, path: &str) {
        let key = NetnsKey::Mounted(id);
        self.handle.track(key, name(id, path)).await;
    }

    /// Waits for the next report, and returns the namespace and the names of its links.
    async fn report(&mut self) -> (NetnsKey, Option<Vec<String>>) {
        let event = timeout(SWEEP * 2, self.events.recv())
            .await
            .expect("a report in time");
        match event.expect("the actor runs") {
            InterfacesEvent::Links { key, snapshot } => {
                let name = |link: &Link| link.ifname.to_string_lossy().into_owned();
                (key, Some(snapshot.links.iter().map(name).collect()))
            }
            InterfacesEvent::UnknownNsid => panic!("no unknown namespace"),
            InterfacesEvent::Unreadable { key } => (key, None),
        }
    }

    async fn nothing_for(&mut self, time: Duration) {
        assert!(
            timeout(time, self.events.recv()).await.is_err(),
            "an unexpected report"
        );
    }
}

fn name(id: MountedNamespaceId, path: &str) -> NetnsRef {
    let path = path.into();
    NetnsRef::Name { path, id }
}

fn names(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test(start_paused = true)]
async fn reports_the_first_dump_and_every_change() {
    let mut actor = start();
    let key = NetnsKey::Mounted(A);
    actor.kernel.change(key, &["lo"]);
    actor.kernel.change(NetnsKey::Host, &["eth0"]);
    actor.handle.track_host().await;
    assert_eq!(actor.report().await, (NetnsKey::Host, names(&["eth0"])));
    actor.track(A, "/run/netns/a").await;
    assert_eq!(actor.report().await, (key, names(&["lo"])));
    actor.kernel.change(key, &["lo", "v0"]);
    assert_eq!(actor.report().await, (key, names(&["lo", "v0"])));
    actor
        .kernel
        .send(KernelEvent::Changed(Some(Nsid::from_raw(0))));
    actor.nothing_for(SWEEP / 2).await;
}

#[tokio::test(start_paused = true)]
async fn lost_events_are_found_by_a_resync_and_by_the_sweep() {
    let mut actor = start_with(UnknownNamespaces::Ignore);
    let key = NetnsKey::Mounted(A);
    actor.kernel.change(key, &["lo"]);
    actor.track(A, "/run/netns/a").await;
    assert_eq!(actor.report().await, (key, names(&["lo"])));
    // After the id becomes known, one more dump follows. It must not be the dump that finds the change.
    actor.nothing_for(UNSWEPT).await;
    actor.kernel.set(|state| state.lose_events = true);
    actor.kernel.change(key, &["lo", "unheard"]);
    actor.nothing_for(UNSWEPT).await;
    actor.kernel.send(KernelEvent::Lost);
    assert_eq!(actor.report().await, (key, names(&["lo", "unheard"])));
    actor.kernel.change(key, &["lo"]);
    assert_eq!(
        actor.report().await,
        (key, names(&["lo"])),
        "the sweep finds it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_first_dump_is_reported_once_and_retried() {
    let mut actor = start();
    let key = NetnsKey::Mounted(A);
    actor.kernel.change(key, &["lo"]);
    actor.kernel.set(|state| state.fail_dumps = 5);
    actor.track(A, "/run/netns/a").await;
    assert_eq!(actor.report().await, (key, None));
    assert_eq!(actor.report().await, (key, names(&["lo"])));
}

#[tokio::test(start_paused = true)]
async fn a_stale_id_is_requested_again() {
    let mut actor = start();
    let key = NetnsKey::Mounted(A);
    actor.kernel.change(key, &["lo"]);
    actor.track(A, "/run/netns/a").await;
    assert_eq!(actor.report().await, (key, names(&["lo"])));
    actor.kernel.set(|state| {
        state.nsids.insert(key, 77);
    });
    actor
        .kernel
        .send(KernelEvent::NsidRemoved(Nsid::from_raw(0)));
    actor.kernel.change(key, &["lo", "later"]);
    assert_eq!(actor.report().await, (key, names(&["lo", "later"])));
    actor.kernel.change(key, &["lo"]);
    assert_eq!(
        actor.report().await,
        (key, names(&["lo"])),
        "the event has the new id"
    );
}

#[tokio::test(start_paused = true)]
async fn a_namespace_with_two_names_is_tracked_until_both_are_removed() {
    let mut actor = start();
    let key = NetnsKey::Mounted(A);
    actor.kernel.change(key, &["lo"]);
    actor.track(A, "/run/netns/a").await;
    actor.track(A, "/run/netns/b").await;
    assert_eq!(actor.report().await, (key, names(&["lo"])));
    actor.handle.untrack(key, name(A, "/run/netns/a")).await;
    actor.kernel.change(key, &["v0"]);
    assert_eq!(actor.report().await, (key, names(&["v0"])));
    actor.handle.untrack(key, name(A, "/run/netns/b")).await;
    assert!(matches!(
        *actor.handle.refresh(key).await.unwrap_err(),
        DumpError::Gone
    ));
    actor.kernel.set(|state| assert_eq!(state.forgotten, [key]));
    actor.kernel.change(key, &["v1"]);
    actor.nothing_for(SWEEP * 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_keeps_a_namespace_whose_name_was_deleted() {
    let mut actor = start();
    let key = NetnsKey::Mounted(A);
    let process = NetnsRef::Process(ProcessNetnsId::from_parts(4, A.inode(), 7, 1));
    actor.kernel.change(key, &["lo"]);
    actor.track(A, "/run/netns/a").await;
    assert_eq!(actor.report().await, (key, names(&["lo"])));
    actor.handle.track(key, process.clone()).await;
    actor.handle.untrack(key, name(A, "/run/netns/a")).await;
    actor.kernel.change(key, &["v0"]);
    assert_eq!(actor.report().await, (key, names(&["v0"])));
    actor.handle.untrack(key, process).await;
    actor.handle.refresh(key).await.unwrap_err();
    actor.kernel.set(|state| assert_eq!(state.forgotten, [key]));
}

#[tokio::test(start_paused = true)]
async fn a_dead_namespace_is_unreadable_until_a_reference_leads_to_it() {
    let mut actor = start();
    let key = NetnsKey::Mounted(A);
    actor.kernel.change(key, &["lo"]);
    actor.track(A, "/run/netns/a").await;
    assert_eq!(actor.report().await, (key, names(&["lo"])));
    actor.kernel.set(|state| {
        state.links.remove(&key);
    });
    actor
        .kernel
        .send(KernelEvent::NsidRemoved(Nsid::from_raw(0)));
    let report = timeout(UNSWEPT, actor.report()).await;
    assert_eq!(report.expect("before the sweep"), (key, None));
    actor.kernel.change(key, &["lo"]);
    assert_eq!(
        actor.report().await,
        (key, names(&["lo"])),
        "the same again"
    );
    // Other errors do not change the known links.
    actor.kernel.set(|state| state.fail_dumps = 3);
    actor.handle.refresh(key).await.unwrap_err();
    actor.nothing_for(SWEEP).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_reference_is_tried_at_once_if_the_others_fail() {
    let mut actor = start();
    let process = |pid| NetnsRef::Process(ProcessNetnsId::from_parts(4, A.inode(), pid, 1));
    let key = process(7).key();
    actor.handle.track(key, process(7)).await;
    assert_eq!(actor.report().await, (key, None));
    // By now the retry delay is long.
    tokio::time::sleep(SWEEP).await;
    actor.kernel.change(key, &["lo"]);
    actor.handle.track(key, process(8)).await;
    let report = timeout(Duration::from_millis(10), actor.report()).await;
    assert_eq!(report.expect("at once"), (key, names(&["lo"])));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_returns_a_dump_that_began_after_the_request() {
    let mut actor = start();
    actor.kernel.change(NetnsKey::Host, &["old"]);
    actor.handle.track_host().await;
    assert_eq!(actor.report().await, (NetnsKey::Host, names(&["old"])));
    actor.kernel.set(|state| state.lose_events = true);
    for round in ["r0", "r1", "r2"] {
        actor.kernel.change(NetnsKey::Host, &[round]);
        let links = actor.handle.refresh(NetnsKey::Host).await.unwrap();
        assert_eq!(links.links[0].ifname, round);
    }
    assert_eq!(actor.report().await.0, NetnsKey::Host);
}

#[tokio::test(start_paused = true)]
async fn constant_events_of_a_namespace_take_a_tenth_of_the_time() {
    let mut actor = start();
    actor.kernel.change(NetnsKey::Host, &["lo"]);
    actor.kernel.change(NetnsKey::Mounted(B), &["lo"]);
    actor.handle.track_host().await;
    actor.report().await;
    let before = actor.kernel.dumps();
    for _ in 0..1000 {
        actor.kernel.send(KernelEvent::Changed(None));
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    let dumps = actor.kernel.dumps() - before;
    assert!(
        (10..200).contains(&dumps),
        "{dumps} dumps during a tenth of a second of events"
    );
}

#[test]
fn no_wake_up_while_the_maximum_of_dumps_is_under_way() {
    const NAMESPACES: u64 = 2 * MAX_DUMPS as u64;
    let mut now = Instant::now();
    let mut tracker = Tracker::<()>::new(now, SWEEP, UnknownNamespaces::Ignore);
    for inode in 0..NAMESPACES {
        let id = MountedNamespaceId::from_parts(4, inode, 1, 1);
        tracker.track(NetnsKey::Mounted(id), Some(name(id, "/run/netns/x")));
    }
    let dump = |tracker: &mut Tracker<()>, now: Instant| {
        let requests = tracker.next_dumps(now);
        for DumpRequest {
            key, generation, ..
        } in &requests
        {
            tracker.dump_done(
                now,
                DumpDone {
                    key: *key,
                    generation: *generation,
                    began: now,
                    cost: Duration::from_millis(1),
                    result: Ok(DumpedLinks {
                        nsid: None,
                        links: Vec::new(),
                    }),
                },
            );
        }
        requests.len()
    };
    while dump(&mut tracker, now) > 0 {}
    tracker.kernel(KernelEvent::Lost, now);
    now += SWEEP / 100;
    assert!(tracker.wake_at() <= now, "all are due");
    assert_eq!(tracker.next_dumps(now).len(), MAX_DUMPS);
    assert!(tracker.wake_at() > now, "others are due and have to wait");
}

#[tokio::test(start_paused = true)]
async fn a_dump_after_an_own_change_is_delayed_unless_a_client_waits() {
    let mut actor = start();
    actor.kernel.change(NetnsKey::Host, &["lo"]);
    actor.handle.track_host().await;
    actor.report().await;
    tokio::time::sleep(UNSWEPT / 9).await;
    let mut dumps = actor.kernel.dumps();
    let mut dumped = || std::mem::replace(&mut dumps, actor.kernel.dumps()) < actor.kernel.dumps();
    actor.kernel.send(KernelEvent::ChangedHere(None));
    tokio::time::sleep(AFTER_OWN / 2).await;
    assert!(!dumped(), "the change is read back first");
    tokio::time::sleep(AFTER_OWN * 2).await;
    assert!(dumped(), "the dump comes after the delay");
    actor.kernel.send(KernelEvent::ChangedHere(None));
    tokio::time::sleep(AFTER_OWN / 2).await;
    actor.handle.refresh(NetnsKey::Host).await.unwrap();
    assert!(dumped(), "a refresh is not kept waiting");
    for _ in 0..8 {
        actor.kernel.send(KernelEvent::ChangedHere(None));
        tokio::time::sleep(AFTER_OWN / 2).await;
    }
    assert!(dumped(), "many changes do not delay it without limit");
}

#[tokio::test(start_paused = true)]
async fn an_own_change_is_rechecked_once_and_always_reported() {
    let mut actor = start();
    actor.kernel.change(NetnsKey::Host, &["lo"]);
    actor.handle.track_host().await;
    actor.report().await;
    tokio::time::sleep(UNSWEPT / 9).await;
    let dumps = actor.kernel.dumps();
    // The event arrives before the change has been read back.
    actor.kernel.send(KernelEvent::ChangedHere(None));
    tokio::time::sleep(AFTER_OWN / 5).await;
    actor.handle.recheck(NetnsKey::Host).await;
    actor.nothing_for(AFTER_OWN / 5).await;
    let report = timeout(AFTER_OWN, actor.report()).await.expect("a report");
    assert_eq!(report, (NetnsKey::Host, names(&["lo"])));
    actor.nothing_for(UNSWEPT / 9).await;
    assert_eq!(actor.kernel.dumps(), dumps + 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_gets_the_newest_links_of_each_namespace() {
    let mut actor = start();
    actor.kernel.change(NetnsKey::Host, &["0"]);
    actor.handle.track_host().await;
    let last = EVENTS * 3;
    for round in 1..=last {
        let name: &'static str = Box::leak(round.to_string().into_boxed_str());
        actor.kernel.change(NetnsKey::Host, &[name]);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut reports = 0;
    loop {
        reports += 1;
        if actor.report().await.1 == names(&[&last.to_string()]) {
            break;
        }
    }
    assert!(reports <= EVENTS + 2, "{reports} reports");
}

#[tokio::test(start_paused = true)]
async fn the_actor_ends_on_stop_and_without_handles() {
    let actor = start();
    actor.stop.cancel();
    timeout(SWEEP, actor.running)
        .await
        .expect("it ends")
        .unwrap()
        .unwrap();
    let Actor {
        handle,
        running,
        events: _events,
        ..
    } = start();
    drop(handle);
    timeout(SWEEP, running)
        .await
        .expect("it ends")
        .unwrap()
        .unwrap();
}
