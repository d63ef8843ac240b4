//! Engines that send false data, hang, flood, or send data that no engine sends.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::engine::{Answer, FakeEngine};
use super::{DB, Follower, Process, WEB, new_socket, until};
use crate::containers::limits::{ANSWER, MAX_EVENT, MAX_LIST};
use crate::netns_holders::HeldEvent;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn false_data_is_not_reported() {
    let (_directory, socket) = new_socket();
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
    // One process is one holder, even if several containers claim it.
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

/// Replies of a hostile engine to any request.
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
async fn malformed_replies_do_no_harm_and_the_engine_recovers() {
    let process = Arc::new(Process::start());
    // All cases run at once, because a failed inspection is retried after seconds.
    let mut cases = JoinSet::new();
    for path in ["/_ping", "/events", "/containers/json", "/containers/a"] {
        for (what, answer) in nonsense() {
            let process = Arc::clone(&process);
            cases.spawn(async move {
                let (_directory, socket) = new_socket();
                let engine = FakeEngine::start(&socket);
                engine.put(WEB, "web", process.pid());
                engine.answer(path, answer);
                let mut follower = Follower::start(&[&socket]);
                until(what, || engine.was_asked(path)).await;
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
async fn overlong_replies_are_not_read() {
    let (_directory, socket) = new_socket();
    let process = Process::start();
    let space = vec![b' '; 64 * 1024];
    let head = "HTTP/1.1 200 OK\r\nApi-Version: 1\r\nContent-Length: 104857600\r\n\r\n";
    for path in ["/_ping", "/containers/json", "/containers/a", "/events"] {
        let engine = FakeEngine::start(&socket);
        engine.put(WEB, "web", process.pid());
        engine.answer(path, Answer::Endless(head, space.clone()));
        let mut follower = Follower::start(&[&socket]);
        until(path, || engine.was_asked(path)).await;
        if path == "/events" {
            // Spaces are not a line. They are read until the line would be too long.
            until("the session ends", || engine.state().requests.len() > 5).await;
        }
        engine.state().answers.clear();
        follower.expect("web", &process).await;
        let written = engine.state().written;
        // Includes the bytes in the socket buffers.
        assert!(written < MAX_LIST + 2 * 1024 * 1024, "{path}: {written}");
        follower.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_hangs_delays_only_itself() {
    let (directory, socket) = new_socket();
    let process = Process::start();
    let mut engines = Vec::new();
    for (number, path) in ["/_ping", "/containers/json", "/containers/a"]
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
    // The first one that recovers reports the container, and the others report the same.
    let (id, _) = follower.added().await;
    assert_eq!(id, process.id());
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_head_of_events_ends_the_session() {
    let (_directory, socket) = new_socket();
    let process = Process::start();
    let engine = FakeEngine::start(&socket);
    let interim = b"HTTP/1.1 103 Early\r\n\r\n".to_vec();
    engine.answer("/events", Answer::Endless("", interim));
    engine.put(WEB, "web", process.pid());
    let mut follower = Follower::start(&[&socket]);
    follower.expect("web", &process).await;
    until("it gives up", || engine.requests("/events") > 1).await;
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_events_delays_real_events_only_briefly() {
    let (directory, socket) = new_socket();
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
        let started = Instant::now();
        honest.tell(DB, "start");
        follower.expect("db", &web).await;
        slowest = slowest.max(started.elapsed());
        let id = web.id();
        drop(web);
        assert_eq!(follower.next().await, HeldEvent::Removed(id));
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // Events are read at the rate of the limit, not at the rate at which they are sent.
    let rate = flooding.state().written / 2;
    assert!(rate < 20 * 1024 * 1024, "{rate} bytes a second");
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_event_ends_the_session() {
    let (_directory, socket) = new_socket();
    let process = Process::start();
    let engine = FakeEngine::start(&socket);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n";
    engine.answer("/events", Answer::Endless(head, vec![b'x'; 1000]));
    engine.put(WEB, "web", process.pid());
    let mut follower = Follower::start(&[&socket]);
    follower.expect("web", &process).await;
    let sessions = || engine.requests("/_ping");
    until("it is tried again", || sessions() >= 3).await;
    let written = engine.state().written;
    assert!(
        written < sessions() * (MAX_EVENT + 1024 * 1024),
        "{written}"
    );
    assert_eq!(engine.inspections(WEB), 1);
    follower.stop().await;
}
