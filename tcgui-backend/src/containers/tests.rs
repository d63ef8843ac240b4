//! The actor with fake engines, honest and hostile, and with real processes.

mod engine;
mod hostile;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tcgui_shared::names::ContainerName;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::limits::{ANSWER, SHORTEST_LIST_INTERVAL};
use super::*;
use crate::kernel::netns::ProcessNetnsId;
use crate::netns_holders::{Container, Holder, HolderKind, Runtime};
use engine::{Answer, Described, FakeEngine};

/// Generous: other tests run at the same time.
const SOON: Duration = Duration::from_secs(20);
const WEB: &str = "aaaaaaaaaaaa0001";
const DB: &str = "bbbbbbbbbbbb0002";

/// A process in a network namespace of its own, like that of a container. It is killed when this value is dropped.
struct Process(Child);

impl Process {
    fn start() -> Self {
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "--",
            "unshare",
            "--net",
            "sleep",
            "600",
        ]);
        command.stdin(Stdio::null());
        let process = Self(command.spawn().expect("util-linux is installed"));
        let files = NetnsFiles::new().unwrap();
        let begun = Instant::now();
        // `unshare` needs root, and fails without.
        while files.held_by(process.pid()).unwrap().inode() == files.own_inode() {
            assert!(begun.elapsed() < SOON, "tests of the kernel need root");
            std::thread::yield_now();
        }
        process
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn id(&self) -> ProcessNetnsId {
        NetnsFiles::new().unwrap().held_by(self.pid()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A running actor and its events.
struct Follower {
    events: mpsc::Receiver<HeldEvent>,
    actor: JoinSet<()>,
    stop: CancellationToken,
}

impl Follower {
    /// Starts an actor that does not list again unless a list is required.
    fn start(sockets: &[&Path]) -> Self {
        Self::start_with(sockets, Duration::from_secs(3600))
    }

    fn start_with(sockets: &[&Path], list_interval: Duration) -> Self {
        let config = ContainersConfig {
            sockets: sockets.iter().map(PathBuf::from).collect(),
            unusable: Vec::new(),
            list_interval,
        };
        let (sender, events) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let task = open(config, NetnsFiles::new().unwrap(), sender);
        let mut actor = JoinSet::new();
        actor.spawn(task.run(stop.clone()));
        Self {
            events,
            actor,
            stop,
        }
    }

    async fn next(&mut self) -> HeldEvent {
        let next = timeout(SOON, self.events.recv()).await;
        next.expect("an event in time").expect("the actor runs")
    }

    async fn added(&mut self) -> (ProcessNetnsId, std::sync::Arc<Container>) {
        match self.next().await {
            HeldEvent::Added(Holder {
                id,
                kind: HolderKind::Container(container),
            }) => (id, container),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the event of a container with this name and this process.
    async fn expect(&mut self, name: &str, process: &Process) {
        let (id, container) = self.added().await;
        assert_eq!((id, container.name.as_str()), (process.id(), name));
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let ended = timeout(SOON, self.actor.join_next()).await;
        ended.expect("it ends").unwrap().unwrap();
        assert_eq!(self.events.try_recv().ok(), None, "no further event");
    }
}

/// Waits until a condition of the fake engine holds, with a timeout.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = timeout(SOON, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

fn new_socket() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("engine.sock");
    (directory, socket)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_reported_and_removed_with_its_process() {
    let (_directory, socket) = new_socket();
    let engine = FakeEngine::start(&socket);
    let web = Process::start();
    engine.put(WEB, "web", web.pid());
    let mut follower = Follower::start(&[&socket]);
    let (id, container) = follower.added().await;
    assert_eq!(id, web.id());
    let expected = Container {
        name: ContainerName::new("web").unwrap(),
        runtime: Runtime::Docker,
        of_root: true,
        short_id: WEB[..12].into(),
        image: "tiny:1".into(),
    };
    assert_eq!(*container, expected);

    engine.put(WEB, "other", web.pid());
    engine.tell(WEB, "rename");
    follower.expect("other", &web).await;
    for ignored in ["pause", "exec_start: sh", "health_status: healthy", "kill"] {
        engine.tell(WEB, ignored);
    }
    // No event reports the end, but the kernel does.
    drop(web);
    assert_eq!(follower.next().await, HeldEvent::Removed(id));
    assert_eq!(
        engine.inspections(WEB),
        2,
        "the first look and the new name"
    );

    let again = Process::start();
    engine.put(WEB, "other", again.pid());
    engine.tell(WEB, "die");
    engine.tell(WEB, "start");
    follower.expect("other", &again).await;
    // Another start without an end in between: the container has another process.
    let third = Process::start();
    engine.put(WEB, "other", third.pid());
    engine.tell(WEB, "start");
    assert_eq!(follower.next().await, HeldEvent::Removed(again.id()));
    follower.expect("other", &third).await;
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_between_subscription_and_list_is_not_missed() {
    let (_directory, socket) = new_socket();
    let engine = FakeEngine::start(&socket);
    let (web, db) = (Process::start(), Process::start());
    engine.put(WEB, "web", web.pid());
    engine.state().started_by_list = Some((
        DB.into(),
        Described {
            name: "/db".into(),
            pid: db.pid().into(),
        },
    ));
    let mut follower = Follower::start(&[&socket]);
    let mut names = [follower.added().await, follower.added().await].map(|(_, it)| it.name.clone());
    names.sort_unstable();
    assert_eq!(
        names,
        ["db", "web"].map(|it| ContainerName::new(it).unwrap())
    );
    let requests = engine.state().requests.clone();
    let position = |path| requests.iter().position(|it| it.starts_with(path)).unwrap();
    assert!(
        position("/events") < position("/containers/json"),
        "{requests:?}"
    );
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_may_start_later_stop_and_start_again() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("podman/podman.sock");
    let mut follower = Follower::start(&[&socket]);
    std::fs::create_dir(socket.parent().unwrap()).unwrap();
    let engine = FakeEngine::start(&socket);
    let (web, db) = (Process::start(), Process::start());
    engine.put(WEB, "web", web.pid());
    engine.put(DB, "db", db.pid());
    // The result is the same whether the engine is listed before or after these events.
    engine.tell(WEB, "start");
    engine.tell(DB, "start");
    let reported = [follower.added().await.0, follower.added().await.0];
    assert!(reported.contains(&web.id()) && reported.contains(&db.id()));

    // A container that ends while the engine is stopped is removed. One that runs stays.
    let state = engine.stop();
    let gone = web.id();
    drop(web);
    assert_eq!(follower.next().await, HeldEvent::Removed(gone));
    let web = Process::start();
    state.lock().unwrap().containers.get_mut(WEB).unwrap().pid = web.pid().into();
    let engine = FakeEngine::resume(&socket, state);
    follower.expect("web", &web).await;
    assert_eq!(engine.inspections(DB), 1, "the list has the known name");

    // The engine is killed: its socket stays, and no process listens. Then another engine replaces it.
    let state = engine.stop();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    // A refused attempt has no visible effect. Several are made within this time.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let id = db.id();
    state.lock().unwrap().containers.remove(DB);
    drop(db);
    assert_eq!(follower.next().await, HeldEvent::Removed(id));
    let engine = FakeEngine::resume(&socket, state);
    let db = Process::start();
    engine.put(DB, "db2", db.pid());
    engine.tell(DB, "start");
    follower.expect("db2", &db).await;
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_paths_to_one_engine_have_one_session() {
    let (directory, socket) = new_socket();
    let linked = directory.path().join("link.sock");
    std::os::unix::fs::symlink(&socket, &linked).unwrap();
    let engine = FakeEngine::start(&socket);
    let web = Process::start();
    engine.put(WEB, "web", web.pid());
    let mut follower = Follower::start(&[&linked, &socket]);
    follower.expect("web", &web).await;
    assert_eq!(engine.requests("/_ping"), 1);
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_may_be_silent_until_its_first_event() {
    let (_directory, socket) = new_socket();
    let engine = FakeEngine::start(&socket);
    engine.answer("/events", Answer::HeadWithFirstEvent);
    let (web, db) = (Process::start(), Process::start());
    engine.put(WEB, "web", web.pid());
    let begun = Instant::now();
    let mut follower = Follower::start(&[&socket]);
    follower.expect("web", &web).await;
    assert!(
        begun.elapsed() < ANSWER,
        "the list does not wait for events"
    );
    // Longer than the timeout of every other request.
    tokio::time::sleep(ANSWER + Duration::from_millis(500)).await;
    engine.put(DB, "db", db.pid());
    engine.tell(DB, "start");
    follower.expect("db", &db).await;
    let asked = ["/_ping", "/events", "/containers/json"].map(|path| engine.requests(path));
    assert_eq!(asked, [1, 1, 1], "silence is no reason to connect again");
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_event_is_found_with_one_list() {
    let (_directory, socket) = new_socket();
    let engine = FakeEngine::start(&socket);
    let (web, db) = (Process::start(), Process::start());
    engine.put(WEB, "web", web.pid());
    // A container on the network of the host.
    engine.put("cccccccccccc0003", "host", std::process::id());
    let mut follower = Follower::start_with(&[&socket], SHORTEST_LIST_INTERVAL);
    follower.expect("web", &web).await;
    until("the host's container is inspected", || {
        engine.inspections("cccccccccccc0003") == 1
    })
    .await;
    let before = engine.state().requests.len();
    until("it lists again", || {
        engine.requests("/containers/json") >= 4
    })
    .await;
    let lists = engine.state().requests.split_off(before);
    assert!(lists.iter().all(|it| it == "/containers/json"), "{lists:?}");
    // It starts without an event.
    engine.put(DB, "db", db.pid());
    follower.expect("db", &db).await;
    // The engine no longer has it, but its process still runs, so the kernel reports nothing.
    engine.state().containers.remove(DB);
    assert_eq!(follower.next().await, HeldEvent::Removed(db.id()));
    assert_eq!(engine.requests("/_ping"), 1, "in one session");
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_hangs_at_a_later_list_is_lost_and_reconnected() {
    let (_directory, socket) = new_socket();
    let engine = FakeEngine::start(&socket);
    let (web, db) = (Process::start(), Process::start());
    engine.put(WEB, "web", web.pid());
    let mut follower = Follower::start_with(&[&socket], SHORTEST_LIST_INTERVAL);
    follower.expect("web", &web).await;
    engine.answer("/containers/json", Answer::Silence);
    until("it gives up", || engine.requests("/_ping") > 1).await;
    engine.state().answers.clear();
    engine.put(DB, "db", db.pid());
    follower.expect("db", &db).await;
    assert_eq!(engine.inspections(WEB), 1, "it is the same");
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_without_events_is_listed_regularly() {
    let (_directory, socket) = new_socket();
    let engine = FakeEngine::start(&socket);
    let refusal = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
    engine.answer("/events", Answer::Raw(refusal.to_vec()));
    let mut follower = Follower::start(&[&socket]);
    for _ in 0..2 {
        let processes: Vec<_> = (0..6).map(|_| Process::start()).collect();
        for (n, process) in processes.iter().enumerate() {
            engine.put(&format!("{n:012x}"), "one", process.pid());
        }
        for _ in &processes {
            follower.added().await;
        }
        drop(processes);
        for _ in 0..6 {
            assert!(matches!(follower.next().await, HeldEvent::Removed(_)));
        }
    }
    until("it lists again", || {
        engine.requests("/containers/json") >= 4
    })
    .await;
    let asked = ["/_ping", "/events"].map(|path| engine.requests(path));
    assert_eq!(asked, [1, 1], "in one session");
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_refuses_a_list_is_retried() {
    let (_directory, socket) = new_socket();
    let engine = FakeEngine::start(&socket);
    let refusal = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
    engine.answer("/containers/json", Answer::Raw(refusal.to_vec()));
    let mut follower = Follower::start(&[&socket]);
    until("it tries again", || engine.requests("/_ping") > 1).await;
    let asked = ["/_ping", "/containers/json"].map(|path| engine.requests(path));
    assert!(asked[1] <= asked[0], "one list in each session: {asked:?}");
    engine.state().answers.clear();
    let web = Process::start();
    engine.put(WEB, "web", web.pid());
    engine.tell(WEB, "start");
    follower.expect("web", &web).await;
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listening_process_decides_whether_an_engine_is_roots() {
    let (directory, socket) = new_socket();
    let of_user = FakeEngine::start_as_nobody(&socket);
    let owner = std::fs::metadata(&socket).unwrap().uid();
    assert_eq!(owner, 0, "root owns the file");
    let (web, db) = (Process::start(), Process::start());
    of_user.put(WEB, "web", web.pid());
    let mut follower = Follower::start(&[&socket]);
    let (id, container) = follower.added().await;
    assert_eq!((id, container.of_root), (web.id(), false));
    follower.stop().await;

    let other_socket = directory.path().join("root.sock");
    let of_root = FakeEngine::start(&other_socket);
    std::os::unix::fs::chown(&other_socket, Some(65534), None).unwrap();
    of_root.put(DB, "db", db.pid());
    let mut follower = Follower::start(&[&other_socket]);
    let (id, container) = follower.added().await;
    assert_eq!((id, container.of_root), (db.id(), true));
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_cannot_replace_the_socket_of_roots_engine_between_two_requests() {
    let (directory, socket) = new_socket();
    let of_root = FakeEngine::start(&socket);
    let mut follower = Follower::start(&[&socket]);
    until("it lists", || of_root.requests("/containers/json") == 1).await;
    // The session with root's engine continues. The path of its socket now leads to another engine.
    let other_socket = directory.path().join("other.sock");
    let of_user = FakeEngine::start_as_nobody(&other_socket);
    let web = Process::start();
    of_user.put(WEB, "web", web.pid());
    std::fs::rename(&other_socket, &socket).unwrap();
    of_root.tell(WEB, "start");
    let (id, container) = follower.added().await;
    assert_eq!((id, container.of_root), (web.id(), false));
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_consumer_ends_the_actor() {
    let (_directory, socket) = new_socket();
    let mut follower = Follower::start(&[&socket]);
    drop(follower.events);
    let ended = timeout(SOON, follower.actor.join_next()).await;
    ended.expect("it ends").unwrap().unwrap();
}
