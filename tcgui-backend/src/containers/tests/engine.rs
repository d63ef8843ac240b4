//! A fake engine: a small HTTP server on a Unix socket, honest or hostile.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

/// How to reply to a request.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// As a real engine.
    Honest,
    /// No reply.
    Silence,
    /// As a real engine, but nothing, not even the head, is sent before the first event.
    HeadWithFirstEvent,
    /// These bytes instead of a reply, then the connection is closed.
    Raw(Vec<u8>),
    /// This text in a complete reply.
    Body(String),
    /// These bytes repeatedly after a start, until the client closes the connection.
    Endless(&'static str, Vec<u8>),
}

/// A container as the engine describes it.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) pid: Value,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) containers: BTreeMap<String, Described>,
    /// Replies that are not honest, by the start of the path.
    pub(super) answers: BTreeMap<&'static str, Answer>,
    /// Requests so far, by path.
    pub(super) requests: Vec<String>,
    /// Bytes that were written by [`Answer::Endless`].
    pub(super) written: usize,
    /// Added to the containers, with an event, when the list is requested. The list does not contain it.
    pub(super) started_by_list: Option<(String, Described)>,
}

/// The engine. Dropping it is like killing it: its socket stays.
#[derive(Debug)]
pub(super) struct FakeEngine {
    pub(super) socket: PathBuf,
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<String>,
    _server: JoinSet<()>,
}

impl FakeEngine {
    pub(super) fn start(socket: &Path) -> Self {
        Self::resume(socket, Arc::default())
    }

    /// Starts an engine with the state of an earlier one.
    pub(super) fn resume(socket: &Path, state: Arc<Mutex<State>>) -> Self {
        std::fs::remove_file(socket).ok();
        Self::serve_on(UnixListener::bind(socket).unwrap(), socket, state)
    }

    /// Starts an engine that the user `nobody` serves. The owner of the socket file stays root.
    pub(super) fn start_as_nobody(socket: &Path) -> Self {
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        // SO_PEERCRED of a client gives the credentials of the last caller of listen(2).
        let listening = OwnedFd::from(listener.try_clone().unwrap());
        let status = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["perl", "-e", "listen(STDIN, 128) or die"])
            .stdin(listening)
            .status()
            .expect("util-linux and perl are installed");
        assert!(status.success());
        listener.set_nonblocking(true).unwrap();
        let listener = UnixListener::from_std(listener).unwrap();
        Self::serve_on(listener, socket, Arc::default())
    }

    fn serve_on(listener: UnixListener, socket: &Path, state: Arc<Mutex<State>>) -> Self {
        let (events, _) = broadcast::channel(1024);
        let mut server = JoinSet::new();
        let (shared, sender) = (Arc::clone(&state), events.clone());
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, events) = (Arc::clone(&shared), sender.clone());
                connections.spawn(async move {
                    // A client may close the connection at any time.
                    serve(stream, &state, &events).await.ok();
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            socket: socket.to_owned(),
            state,
            events,
            _server: server,
        }
    }

    /// Shuts it down cleanly, and returns its state.
    pub(super) fn stop(self) -> Arc<Mutex<State>> {
        std::fs::remove_file(&self.socket).unwrap();
        Arc::clone(&self.state)
    }

    /// Returns whether there was a request for a path that starts with this.
    pub(super) fn was_asked(&self, path: &str) -> bool {
        let requests = &self.state().requests;
        requests.iter().any(|request| request.starts_with(path))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn answer(&self, path: &'static str, answer: Answer) {
        self.state().answers.insert(path, answer);
    }

    /// Adds or replaces a container, without an event.
    pub(super) fn put(&self, id: &str, name: &str, pid: impl Into<Value>) {
        let described = Described {
            name: format!("/{name}"),
            pid: pid.into(),
        };
        self.state().containers.insert(id.to_owned(), described);
    }

    /// Sends an event to all subscribers, if there are any.
    pub(super) fn tell(&self, id: &str, action: &str) {
        self.events.send(event(id, action)).ok();
    }

    /// Returns the number of requests for exactly this path, with any query.
    pub(super) fn requests(&self, path: &str) -> usize {
        let is = |request: &&String| request.split('?').next() == Some(path);
        self.state().requests.iter().filter(is).count()
    }

    pub(super) fn inspections(&self, id: &str) -> usize {
        self.requests(&format!("/containers/{id}/json"))
    }
}

fn event(id: &str, action: &str) -> String {
    let event =
        json!({"Type": "container", "Action": action, "Actor": {"ID": id, "Attributes": {}}});
    format!("{event}\n")
}

async fn serve(
    mut stream: UnixStream,
    state: &Mutex<State>,
    events: &broadcast::Sender<String>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    // Subscribe before the reply, as a real engine does.
    let subscription = events.subscribe();
    let answer = answer(&path, state, events);
    match answer {
        Answer::Honest => tell_events(stream, subscription, None).await,
        Answer::HeadWithFirstEvent => {
            let mut subscription = subscription;
            let first = subscription.recv().await.ok();
            tell_events(stream, subscription, first).await
        }
        Answer::Silence => std::future::pending().await,
        Answer::Raw(bytes) => stream.write_all(&bytes).await,
        Answer::Body(body) => stream.write_all(&response(&path, &body)).await,
        Answer::Endless(head, bytes) => {
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(&bytes).await?;
                state.lock().unwrap().written += bytes.len();
            }
        }
    }
}

/// Returns the reply. The honest reply to a request for events is a stream.
fn answer(path: &str, state: &Mutex<State>, events: &broadcast::Sender<String>) -> Answer {
    let mut state = state.lock().unwrap();
    state.requests.push(path.to_owned());
    let dishonest = state.answers.iter().find(|(of, _)| path.starts_with(**of));
    if let Some((_, answer)) = dishonest {
        return answer.clone();
    }
    if path == "/_ping" {
        return Answer::Body("OK".into());
    }
    if path.starts_with("/events") {
        return Answer::Honest;
    }
    if path == "/containers/json" {
        let list = state.containers.iter();
        let list: Vec<_> = list
            .map(|(id, it)| json!({"Id": id, "Names": [it.name], "State": "running"}))
            .collect();
        if let Some((id, container)) = state.started_by_list.take() {
            events.send(event(&id, "start")).ok();
            state.containers.insert(id, container);
        }
        return Answer::Body(Value::from(list).to_string());
    }
    let id = path.split('/').nth(2).unwrap_or_default();
    match state.containers.get(id) {
        Some(it) => {
            let config = json!({"Image": "tiny:1"});
            let state = json!({"Running": true, "Pid": it.pid});
            let all = json!({"Id": id, "Name": it.name, "State": state, "Config": config});
            Answer::Body(all.to_string())
        }
        None => Answer::Raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}".to_vec()),
    }
}

fn response(path: &str, body: &str) -> Vec<u8> {
    let version = if path == "/_ping" {
        "Api-Version: 1.41\r\nServer: Fake/1\r\n"
    } else {
        ""
    };
    let len = body.len();
    format!("HTTP/1.1 200 OK\r\n{version}Content-Length: {len}\r\n\r\n{body}").into_bytes()
}

async fn tell_events(
    mut stream: UnixStream,
    mut subscription: broadcast::Receiver<String>,
    first: Option<String>,
) -> std::io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await?;
    let mut next = first;
    loop {
        if let Some(event) = next {
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            stream.write_all(chunk.as_bytes()).await?;
        }
        next = match subscription.recv().await {
            Ok(event) => Some(event),
            Err(_) => return Ok(()),
        };
    }
}
