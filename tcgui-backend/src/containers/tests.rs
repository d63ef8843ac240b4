//! The actor with engines of the test's own, honest and hostile, and with processes that are real.

mod engine;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tcgui_shared::names::ContainerName;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::limits::{ANSWER, MAX_EVENT, MAX_LIST};
use super::*;
use crate::held::{Container, Holder, HolderKind, Runtime};
use crate::kernel::netns::HeldNamespaceId;
use engine::{Answer, Described, FakeEngine};

/// Generous: other tests run at the same time.
const SOON: Duration = Duration::from_secs(20);
const WEB: &str = "aaaaaaaaaaaa0001";
const DB: &str = "bbbbbbbbbbbb0002";

/// A process in a network namespace of its own, as a container has one. Killed when this value goes.
struct Process(Child);

impl Process {
    fn start() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "600"]).stdin(Stdio::null());
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

    fn id(&self) -> HeldNamespaceId {
        NetnsFiles::new().unwrap().held_by(self.pid()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A running actor and what it tells.
struct Follower {
    events: mpsc::Receiver<HeldEvent>,
    actor: JoinSet<()>,
    stop: CancellationToken,
}

impl Follower {
    fn start(sockets: &[&Path]) -> Self {
        let config = ContainersConfig {
            sockets: sockets.iter().map(PathBuf::from).collect(),
            unusable: Vec::new(),
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

    async fn added(&mut self) -> (HeldNamespaceId, std::sync::Arc<Container>) {
        match self.next().await {
            HeldEvent::Added(Holder {
                id,
                kind: HolderKind::Container(container),
            }) => (id, container),
            other => panic!("{other:?}"),
        }
    }

    /// Expects a container of this name that this process holds.
    async fn expect(&mut self, name: &str, process: &Process) {
        let (id, container) = self.added().await;
        assert_eq!((id, container.name.as_str()), (process.id(), name));
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let ended = timeout(SOON, self.actor.join_next()).await;
        ended.expect("it ends").unwrap().unwrap();
        assert_eq!(self.events.try_recv().ok(), None, "nothing more was told");
    }
}

/// Waits for something that the fake engine sees; the deadline is the test's.
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

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("engine.sock");
    (directory, socket)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_told_with_all_that_is_known_and_gone_with_its_process() {
    let (_directory, socket) = place();
    let engine = FakeEngine::start(&socket);
    let web = Process::start();
    engine.put(WEB, "web", web.pid());
    let mut follower = Follower::start(&[&socket]);
    let (id, container) = follower.added().await;
    assert_eq!(id, web.id());
    let expected = Container {
        name: ContainerName::new("web").unwrap(),
        runtime: Runtime::Docker,
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
    // No event tells the end: the kernel does.
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
    // Another start without an end between them: the process is another one.
    let third = Process::start();
    engine.put(WEB, "other", third.pid());
    engine.tell(WEB, "start");
    assert_eq!(follower.next().await, HeldEvent::Removed(again.id()));
    follower.expect("other", &third).await;
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_starts_between_subscription_and_list_is_not_missed() {
    let (_directory, socket) = place();
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
    // Whether it is asked before or after that.
    engine.tell(WEB, "start");
    engine.tell(DB, "start");
    let told = [follower.added().await.0, follower.added().await.0];
    assert!(told.contains(&web.id()) && told.contains(&db.id()));

    // A container that ends while the engine is away is gone; one that runs stays.
    let state = engine.stop();
    let gone = web.id();
    drop(web);
    assert_eq!(follower.next().await, HeldEvent::Removed(gone));
    let web = Process::start();
    state.lock().unwrap().containers.get_mut(WEB).unwrap().pid = web.pid().into();
    let engine = FakeEngine::resume(&socket, state);
    follower.expect("web", &web).await;
    assert_eq!(
        engine.inspections(DB),
        1,
        "the list says that it is the same"
    );

    // Killed: the socket stays, and nobody answers. The next one comes in its place.
    let state = engine.stop();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
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
async fn two_paths_to_one_engine_are_asked_once() {
    let (directory, socket) = place();
    let linked = directory.path().join("link.sock");
    std::os::unix::fs::symlink(&socket, &linked).unwrap();
    let engine = FakeEngine::start(&socket);
    let web = Process::start();
    engine.put(WEB, "web", web.pid());
    let mut follower = Follower::start(&[&linked, &socket]);
    follower.expect("web", &web).await;
    let pings = engine
        .state()
        .requests
        .iter()
        .filter(|it| *it == "/_ping")
        .count();
    assert_eq!(pings, 1);
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_are_told_to_nobody() {
    let (_directory, socket) = place();
    let engine = FakeEngine::start(&socket);
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let lies: [Value; 12] = [
        0.into(),
        (-1).into(),
        std::process::id().into(),
        gone.id().into(),
        i32::MAX.into(),
        i64::MAX.into(),
        1e300.into(),
        "17".into(),
        Value::Null,
        json!([1]),
        json!({"Pid": 1}),
        true.into(),
    ];
    let ids = (0..lies.len()).map(|n| format!("{n:012x}"));
    for (id, lie) in ids.clone().zip(lies) {
        engine.put(&id, "liar", lie);
    }
    let web = Process::start();
    engine.put(WEB, "../../etc", web.pid());
    engine.put(DB, "same-process", web.pid());
    let mut follower = Follower::start(&[&socket]);
    // One process is one holder, whatever the number of containers that claim it.
    let (id, container) = follower.added().await;
    assert_eq!(id, web.id());
    if container.name.as_str() == "same-process" {
        assert_eq!(follower.added().await.1.name.as_str(), &WEB[..12]);
    } else {
        assert_eq!(container.name.as_str(), &WEB[..12], "no path, but the id");
    }
    for id in ids {
        until("every lie was looked at", || engine.inspections(&id) > 0).await;
    }
    follower.stop().await;
}

/// What a hostile engine may answer to any question.
fn nonsense() -> Vec<(&'static str, Answer)> {
    let raw = |text: &str| Answer::Raw(text.as_bytes().to_vec());
    let chunked = "HTTP/1.1 200 OK\r\nApi-Version: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let many = "X: y\r\n".repeat(10_000);
    vec![
        ("nothing", raw("")),
        ("no HTTP", raw("SSH-2.0-OpenSSH_9\r\n\r\n")),
        ("zeros", Answer::Raw(vec![0; 100_000])),
        ("cut head", raw("HTTP/1.1 200 OK\r\nContent-")),
        (
            "cut body",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n[{\"Id\""),
        ),
        ("bad chunk", raw(&format!("{chunked}zz\r\n[]\r\n0\r\n\r\n"))),
        (
            "huge chunk",
            raw(&format!("{chunked}ffffffffffffffffff\r\n[]")),
        ),
        ("cut chunk", raw(&format!("{chunked}5\r\n[]"))),
        (
            "negative length",
            raw("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        ),
        (
            "huge length",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"),
        ),
        (
            "many headers",
            raw(&format!("HTTP/1.1 200 OK\r\n{many}\r\n[]")),
        ),
        (
            "an error",
            raw("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
        ),
        (
            "a redirect",
            raw("HTTP/1.1 301 Moved\r\nLocation: http://192.0.2.1/\r\n\r\n"),
        ),
        (
            "an upgrade",
            raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"),
        ),
        ("no JSON", Answer::Body("<html></html>\n".into())),
        ("deep JSON", Answer::Body("[".repeat(60_000) + "\n")),
        ("other JSON", Answer::Body("{\"message\":\"no\"}\n".into())),
        (
            "endless header",
            Answer::Endless("HTTP/1.1 200 OK\r\nX: ", vec![b'x'; 4096]),
        ),
        (
            "endless headers",
            Answer::Endless("HTTP/1.1 200 OK\r\n", b"X: y\r\n".repeat(100)),
        ),
        (
            "endless interim",
            Answer::Endless("", b"HTTP/1.1 103 Early\r\n\r\n".repeat(100)),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_harms_nothing_and_is_recovered_from() {
    let process = std::sync::Arc::new(Process::start());
    // All at once: what could not be inspected is tried again after seconds.
    let mut cases = JoinSet::new();
    for path in ["/_ping", "/events", "/containers/json", "/containers/a"] {
        for (what, answer) in nonsense() {
            let process = std::sync::Arc::clone(&process);
            cases.spawn(async move {
                let (_directory, socket) = place();
                let engine = FakeEngine::start(&socket);
                engine.put(WEB, "web", process.pid());
                engine.answer(path, answer);
                let mut follower = Follower::start(&[&socket]);
                let asked = || {
                    engine
                        .state()
                        .requests
                        .iter()
                        .any(|it| it.starts_with(path))
                };
                until(what, asked).await;
                engine.state().answers.clear();
                follower.expect("web", &process).await;
                follower.stop().await;
            });
        }
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_are_not_read() {
    let (_directory, socket) = place();
    let process = Process::start();
    let space = vec![b' '; 64 * 1024];
    let head = "HTTP/1.1 200 OK\r\nApi-Version: 1\r\nContent-Length: 104857600\r\n\r\n";
    for path in ["/_ping", "/containers/json", "/containers/a", "/events"] {
        let engine = FakeEngine::start(&socket);
        engine.put(WEB, "web", process.pid());
        engine.answer(path, Answer::Endless(head, space.clone()));
        let mut follower = Follower::start(&[&socket]);
        let asked = || {
            engine
                .state()
                .requests
                .iter()
                .any(|it| it.starts_with(path))
        };
        until(path, asked).await;
        if path == "/events" {
            // Blanks are no line: they are read until one would be too long.
            until("the session ends", || engine.state().requests.len() > 5).await;
        }
        engine.state().answers.clear();
        follower.expect("web", &process).await;
        let written = engine.state().written;
        // What the sockets hold, too.
        assert!(written < MAX_LIST + 2 * 1024 * 1024, "{path}: {written}");
        follower.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_hangs_delays_only_itself() {
    let (directory, socket) = place();
    let process = Process::start();
    let mut engines = Vec::new();
    for (number, path) in ["/_ping", "/events", "/containers/json", "/containers/a"]
        .into_iter()
        .enumerate()
    {
        let engine = FakeEngine::start(&directory.path().join(format!("{number}.sock")));
        engine.put(WEB, "hangs", process.pid());
        engine.answer(path, Answer::Silence);
        engines.push(engine);
    }
    let honest = FakeEngine::start(&socket);
    let mut sockets: Vec<_> = engines.iter().map(|it| it.socket.as_path()).collect();
    sockets.push(&socket);
    let mut follower = Follower::start(&sockets);
    until("all are asked", || {
        engines.iter().all(|it| !it.state().requests.is_empty())
    })
    .await;
    let begun = Instant::now();
    for round in 0..3 {
        let web = Process::start();
        honest.put(DB, "db", web.pid());
        honest.tell(DB, "start");
        follower.expect("db", &web).await;
        let id = web.id();
        drop(web);
        assert_eq!(follower.next().await, HeldEvent::Removed(id), "{round}");
    }
    assert!(begun.elapsed() < ANSWER, "{:?}", begun.elapsed());
    for engine in &engines {
        engine.state().answers.clear();
    }
    // The first of them that recovers tells the container, the others tell the same.
    let (id, _) = follower.added().await;
    assert_eq!(id, process.id());
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_events_hides_nothing_for_long() {
    let (directory, socket) = place();
    let flooding = FakeEngine::start(&directory.path().join("flood.sock"));
    let process = Process::start();
    let line = |n: u32| {
        let event =
            json!({"Type": "container", "Action": "start", "Actor": {"ID": format!("{n:064x}")}});
        format!("{event}\n")
    };
    let lines: String = (0..500).map(line).collect();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 104857600000\r\n\r\n";
    flooding.answer("/events", Answer::Endless(head, lines.into_bytes()));
    flooding.put(WEB, "among-them", process.pid());
    let honest = FakeEngine::start(&socket);
    let mut follower = Follower::start(&[&flooding.socket, &socket]);
    follower.expect("among-them", &process).await;
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(2) {
        let web = Process::start();
        honest.put(DB, "db", web.pid());
        let told = Instant::now();
        honest.tell(DB, "start");
        follower.expect("db", &web).await;
        slowest = slowest.max(told.elapsed());
        let id = web.id();
        drop(web);
        assert_eq!(follower.next().await, HeldEvent::Removed(id));
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // Read at the rate that is promised, not at the one that is offered.
    let rate = flooding.state().written / 2;
    assert!(rate < 20 * 1024 * 1024, "{rate} bytes a second");
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_end_ends_the_session() {
    let (_directory, socket) = place();
    let process = Process::start();
    let engine = FakeEngine::start(&socket);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n";
    engine.answer("/events", Answer::Endless(head, vec![b'x'; 1000]));
    engine.put(WEB, "web", process.pid());
    let mut follower = Follower::start(&[&socket]);
    follower.expect("web", &process).await;
    let sessions = || {
        engine
            .state()
            .requests
            .iter()
            .filter(|it| *it == "/_ping")
            .count()
    };
    until("it is tried again", || sessions() >= 3).await;
    let written = engine.state().written;
    assert!(
        written < sessions() * (MAX_EVENT + 1024 * 1024),
        "{written}"
    );
    assert_eq!(engine.inspections(WEB), 1);
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_without_events_is_listed_now_and_then() {
    let (_directory, socket) = place();
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
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_goes_ends_it() {
    let (_directory, socket) = place();
    let mut follower = Follower::start(&[&socket]);
    drop(follower.events);
    let ended = timeout(SOON, follower.actor.join_next()).await;
    ended.expect("it ends").unwrap().unwrap();
}
