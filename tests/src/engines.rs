//! Real container engines that run inside the lab, and operations of their users.
//!
//! They need a process namespace ([`Kind::Engines`](crate::lab::Kind)), because the helpers of an engine outlive it and must end
//! with the test. The lab has no network for pulling images. An image is built from the busybox of the machine.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::{self, bound_to_parent, run};
use crate::wait::wait_for;

/// The image that [`Engine::start`] builds.
pub const IMAGE: &str = "tiny";

/// Timeout for the start of an engine. It takes a second on an idle machine.
const READY: Duration = Duration::from_secs(60);

/// Timeout for the stop of an engine. It first stops its containers, each within ten seconds.
const STOPPED: Duration = Duration::from_secs(60);

/// The container engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `dockerd`, whose containers stop with it.
    Docker,
    /// `podman system service`. Its containers do not depend on a daemon.
    Podman,
}

impl Kind {
    /// The path of its API socket.
    #[must_use]
    pub fn socket(self) -> &'static Path {
        Path::new(match self {
            Self::Docker => "/run/docker.sock",
            Self::Podman => "/run/podman/podman.sock",
        })
    }

    fn log(self) -> PathBuf {
        PathBuf::from(format!("/run/{self:?}.log"))
    }

    fn daemon(self) -> Command {
        let listen = format!("unix://{}", self.socket().display());
        match self {
            Self::Docker => {
                let mut command = bound_to_parent("dockerd");
                let data = ["--data-root", "/run/docker-data"];
                let state = ["--exec-root", "/run/docker-exec", "-p", "/run/docker.pid"];
                command.args(data).args(state).args(["-H", &listen]);
                command
            }
            Self::Podman => {
                let mut command = bound_to_parent("podman");
                command.args(["system", "service", "-t", "0", &listen]);
                configure(&mut command);
                command
            }
        }
    }

    fn client(self) -> Command {
        match self {
            Self::Docker => {
                let mut command = Command::new("docker");
                let host = format!("unix://{}", self.socket().display());
                command.env("DOCKER_HOST", host);
                command
            }
            Self::Podman => {
                let mut command = Command::new("podman");
                configure(&mut command);
                command
            }
        }
    }
}

/// Sets Podman's storage and limits to those of the lab.
fn configure(podman: &mut Command) {
    podman
        .env("CONTAINERS_CONF", "/run/containers.conf")
        .env("CONTAINERS_STORAGE_CONF", "/run/storage.conf");
}

const CONTAINERS_CONF: &str = r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"#;

const STORAGE_CONF: &str = r#"
[storage]
driver = "vfs"
graphroot = "/run/podman-data"
runroot = "/run/podman-run"
"#;

/// A running engine. It is killed when this value is dropped. Its containers end with the lab.
#[derive(Debug)]
pub struct Engine {
    kind: Kind,
    daemon: Child,
}

impl Engine {
    /// Starts the engine, waits until it replies, and builds the image if it does not exist.
    ///
    /// # Errors
    ///
    /// When it is not installed or does not start. The message contains the end of its log.
    pub fn start(kind: Kind) -> anyhow::Result<Self> {
        Self::start_with(kind, &[])
    }

    /// [`Self::start`] with options of the engine.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(kind: Kind, options: &[&str]) -> anyhow::Result<Self> {
        if let Some(directory) = kind.socket().parent() {
            fs::create_dir_all(directory)?;
        }
        if kind == Kind::Podman {
            fs::write("/run/containers.conf", CONTAINERS_CONF)?;
            fs::write("/run/storage.conf", STORAGE_CONF)?;
        }
        let log = File::options().create(true).append(true).open(kind.log())?;
        let mut command = kind.daemon();
        command
            .args(options)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let daemon = command.spawn().with_context(|| {
            format!("start {command:?}: packages docker.io, podman and runc; run scripts/test.sh")
        })?;
        let engine = Self { kind, daemon };
        let answers = |answer: &anyhow::Result<String>| {
            answer
                .as_ref()
                .is_ok_and(|it| it.starts_with("HTTP/1.1 200"))
        };
        let ready = wait_for("the engine answers", READY, || ask(kind, "/_ping"), answers);
        ready.with_context(|| engine.complaint())??;
        if engine.run(&["images", "-q", IMAGE])?.trim().is_empty() {
            engine.make_image()?;
        }
        Ok(engine)
    }

    fn complaint(&self) -> String {
        let log = fs::read_to_string(self.kind.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(10).collect();
        format!("{:?}: {}", self.kind, lines.join("\n"))
    }

    fn make_image(&self) -> anyhow::Result<()> {
        let script = "set -e; t=/run/image; mkdir -p $t/bin; cp \"$(command -v busybox)\" $t/bin/busybox; \
                      for a in sh sleep; do ln -sf busybox $t/bin/$a; done; tar -C $t -cf /run/image.tar .";
        run(Command::new("bash").args(["-c", script])).context("busybox-static is needed")?;
        self.run(&["import", "/run/image.tar", IMAGE]).map(drop)
    }

    /// Runs the engine's command line.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        run(self.kind.client().args(args))
    }

    /// Starts an idle container and returns its id.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn start_container(&self, name: &str, options: &[&str]) -> anyhow::Result<String> {
        let parent = format!("/{}", cgroup()?);
        let run = ["run", "-d", "--cgroup-parent", &parent, "--name", name];
        let args = [&run, options, &[IMAGE, "sleep", "600"]].concat();
        Ok(self.run(&args)?.trim().to_owned())
    }

    /// Removes containers, running or not, without a grace period.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn remove(&self, names: &[&str]) -> anyhow::Result<()> {
        let now: &[&str] = match self.kind {
            Kind::Docker => &["rm", "-f"],
            Kind::Podman => &["rm", "-f", "-t", "0"],
        };
        self.run(&[now, names].concat()).map(drop)
    }

    /// The pid of the first process of a container, as reported by its engine.
    ///
    /// # Errors
    ///
    /// When there is no such container, or it does not run.
    pub fn pid_of(&self, container: &str) -> anyhow::Result<u32> {
        let pid = self.run(&["inspect", "-f", "{{.State.Pid}}", container])?;
        let pid = pid.trim().parse().context("read a process id")?;
        ensure!(pid != 0, "{container} does not run");
        Ok(pid)
    }

    /// Sends a signal to the engine itself.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        process::signal(self.daemon.id(), signal)
    }

    /// Stops the engine in order. Docker also stops its containers.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let look = || self.daemon.try_wait().ok().flatten();
        wait_for("the engine ends", STOPPED, look, Option::is_some)?;
        fs::remove_file(self.kind.socket()).ok();
        Ok(())
    }

    /// Subscribes to the container events of the engine, beginning now.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn events(&self) -> anyhow::Result<Receiver<Event>> {
        let filter = "%7B%22type%22%3A%5B%22container%22%5D%7D";
        let stream = connect(self.kind, &format!("/events?filters={filter}"))?;
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next().context("the engine closed the connection")??;
        ensure!(status.starts_with("HTTP/1.1 200"), "{status}");
        let (sender, receiver) = channel();
        thread::spawn(move || {
            // Chunk sizes are on separate lines between the events.
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line)
                    .ok()
                    .and_then(|it| Event::read(&it));
                if let Some(event) = event
                    && sender.send(event).is_err()
                {
                    break;
                }
            }
        });
        Ok(receiver)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Fails only if the process has already ended.
        self.daemon.kill().ok();
        self.daemon.wait().ok();
        remove_cgroups();
    }
}

/// The name of the control group of the lab's containers. Control groups are not separated by the lab.
fn cgroup() -> anyhow::Result<String> {
    let lab = fs::metadata("/proc/self/ns/mnt")?.ino();
    Ok(format!("tcgui-lab-{lab}"))
}

/// Removes that control group and its children from every hierarchy. Groups that still have processes stay.
fn remove_cgroups() {
    let root = Path::new("/sys/fs/cgroup");
    if let Ok(cgroup) = cgroup() {
        for hierarchy in directories(root).chain([root.to_owned()]) {
            let cgroup = hierarchy.join(&cgroup);
            for below in directories(&cgroup) {
                fs::remove_dir(below).ok();
            }
            fs::remove_dir(cgroup).ok();
        }
    }
}

fn directories(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|it| it.path()).filter(|it| it.is_dir())
}

/// A proxy between an engine and its clients that records the time of each event.
#[derive(Debug)]
pub struct Tap {
    socket: PathBuf,
    events: Receiver<Event>,
    is_losing: Arc<AtomicBool>,
}

impl Tap {
    /// Starts the proxy at its own path. The socket of the engine is moved, so that clients can only connect to the proxy.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn start(kind: Kind) -> anyhow::Result<Self> {
        let socket = PathBuf::from("/run/tap.sock");
        let behind = Path::new("/run/behind-tap.sock");
        fs::rename(kind.socket(), behind)?;
        let listener = UnixListener::bind(&socket)?;
        let (sender, events) = channel();
        let is_losing = Arc::new(AtomicBool::new(false));
        let losing = Arc::clone(&is_losing);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // While the engine does not run, connections are closed.
                if let Ok(engine) = UnixStream::connect(behind) {
                    pass(client, engine, &sender, &losing).ok();
                }
            }
        });
        Ok(Self {
            socket,
            events,
            is_losing,
        })
    }

    /// Drops all events from now on. Replies to other requests still pass.
    pub fn lose_events(&self) {
        self.is_losing.store(true, Ordering::Relaxed);
    }

    /// The path of the proxy's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The events that passed. `at` is the time.
    #[must_use]
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }
}

fn pass(
    client: UnixStream,
    engine: UnixStream,
    events: &Sender<Event>,
    is_losing: &Arc<AtomicBool>,
) -> io::Result<()> {
    let (mut asks, mut is_asked) = (client.try_clone()?, engine.try_clone()?);
    thread::spawn(move || {
        io::copy(&mut asks, &mut is_asked).ok();
        is_asked.shutdown(Shutdown::Both).ok();
    });
    let (events, mut to, mut from) = (events.clone(), client, engine);
    let is_losing = Arc::clone(is_losing);
    thread::spawn(move || {
        let (mut piece, mut rest) = ([0; 65536], Vec::new());
        while let Ok(len @ 1..) = from.read(&mut piece) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.unwrap_or_default();
            // An engine writes each event as one chunk. Only events have this field.
            let field: &[u8] = b"\"timeNano\"";
            let mut windows = piece[..len].windows(field.len());
            let is_lost = is_losing.load(Ordering::Relaxed) && windows.any(|it| it == field);
            if !is_lost && to.write_all(&piece[..len]).is_err() {
                break;
            }
            rest.extend_from_slice(&piece[..len]);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = rest.drain(..=end).collect();
                let event = serde_json::from_slice(&line).ok();
                if let Some(mut event) = event.and_then(|it| Event::read(&it)) {
                    event.at = now;
                    // The receiver may have been dropped.
                    events.send(event).ok();
                }
            }
        }
        to.shutdown(Shutdown::Both).ok();
    });
    Ok(())
}

/// An event as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The action.
    pub action: String,
    /// The name of the container.
    pub name: String,
    /// Time since the Unix epoch, by the clock of the engine, which is that of this machine.
    pub at: Duration,
}

impl Event {
    fn read(event: &Value) -> Option<Self> {
        Some(Self {
            action: event["Action"].as_str()?.to_owned(),
            name: event["Actor"]["Attributes"]["name"].as_str()?.to_owned(),
            at: Duration::from_nanos(event["timeNano"].as_u64()?),
        })
    }
}

fn connect(kind: Kind, path: &str) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(kind.socket()).context("connect to the engine")?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    Ok(stream)
}

/// Sends one request and returns the beginning of the reply.
fn ask(kind: Kind, path: &str) -> anyhow::Result<String> {
    let mut stream = connect(kind, path)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answer = [0; 512];
    match stream.read(&mut answer)? {
        0 => bail!("no answer"),
        len => Ok(String::from_utf8_lossy(&answer[..len]).into_owned()),
    }
}
