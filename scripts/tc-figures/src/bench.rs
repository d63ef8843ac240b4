//! The measured daemon, a client, and the times that both report for a query.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tcgui_backend::kernel::netns::inside;
use tcgui_tests::client::{Client, Options};
use tcgui_tests::daemon::Daemon;
use tcgui_tests::netns;
use tcgui_tests::process::run as run_program;
use tcgui_tests::scene::{SOON, Scene};
use tcgui_tests::wait::wait_for;

use crate::run::TUNABLES;

/// A wrapper with which the daemon logs the time of each query to standard error, after it has replied.
const TRACED: &[&str] = &[
    "env",
    "-u",
    TUNABLES.0,
    "RUST_LOG=warn,tcgui_backend::bus::queries=trace",
];

/// The message and the fields of that log line.
const ANSWERED: &str = "query answered";
const KEY: &str = "key=\"tcgui/default/query/";
const ELAPSED: &str = "elapsed_us=";

/// The kind of an empty query.
pub(crate) const EMPTY: &str = "interface";

/// Timeout for a thousand operations.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// An interface: its namespace, and its name there.
pub(crate) type Target<'a> = (&'a str, &'a str);

/// Daemon and client.
#[derive(Debug)]
pub(crate) struct Bench {
    scene: Scene,
    /// A client with its own session, so that no reply waits behind a list.
    asker: Client,
    /// Number of traffic-control queries so far.
    asked: Cell<usize>,
}

/// Runs a measurement with a daemon that is started with these arguments and stopped in order.
pub(crate) fn with_daemon<T>(
    arguments: &[&str],
    measure: impl FnOnce(&Bench) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut bench = Bench {
        scene: Scene::default(),
        asker: Options::default().deaf().open()?,
        asked: Cell::new(0),
    };
    bench.scene.wrap_daemon(TRACED);
    let measured = (bench.scene.start_with(arguments)).and_then(|()| measure(&bench));
    if measured.is_err() {
        bench.scene.describe();
    }
    let ended = bench.end();
    let measured = measured?;
    ended.map(|()| measured)
}

impl Bench {
    /// Returns the client that has the subscriptions of released frontends.
    pub(crate) fn client(&self) -> anyhow::Result<&Client> {
        self.scene.client()
    }

    /// Returns the client that only sends queries.
    pub(crate) fn asker(&self) -> &Client {
        &self.asker
    }

    /// Returns the daemon, for its resource usage.
    pub(crate) fn daemon(&self) -> anyhow::Result<&Daemon> {
        self.scene.daemon()
    }

    /// Waits until this number of *named* namespaces is listed.
    pub(crate) fn wait_namespaces(&self, count: usize) -> anyhow::Result<()> {
        let what = format!("{count} namespaces are listed");
        let client = self.client()?;
        client.wait_for(&what, LONG, |state| state.named().len() == count)?;
        Ok(())
    }

    /// Waits until interfaces are listed as up.
    pub(crate) fn wait_up(&self, targets: &[Target<'_>]) -> anyhow::Result<()> {
        let what = format!("{targets:?} are up");
        let is_up = |state: &tcgui_tests::client::State| {
            targets.iter().all(|(namespace, interface)| {
                let interface = state.interface(namespace, interface);
                interface.is_some_and(|it| it["is_up"] == true)
            })
        };
        self.client()?.wait_for(&what, SOON, is_up).map(drop)
    }

    /// Sends an empty query and returns its duration, which is the time of the transport and the main loop.
    pub(crate) fn ask_for_nothing(&self) -> anyhow::Result<Duration> {
        let (reply, elapsed) = self.asker.ask(EMPTY, &empty_request())?;
        ensure!(is_nothing(&reply), "an answer to an empty query: {reply}");
        Ok(elapsed)
    }

    /// Sends a traffic-control request. Returns the reply and the duration.
    pub(crate) fn tc(&self, request: &Value) -> anyhow::Result<(Value, Duration)> {
        self.asked.set(self.asked.get() + 1);
        self.asker.ask("tc", request)
    }

    /// Impairs an interface and returns the duration.
    pub(crate) fn apply(&self, target: Target<'_>, netem: &Value) -> anyhow::Result<Duration> {
        let (reply, elapsed) = self.tc(&apply_request(target, netem))?;
        ensure!(reply["success"] == true, "Apply {netem}: {reply}");
        Ok(elapsed)
    }

    /// Removes the netem of an interface.
    pub(crate) fn remove(&self, (namespace, interface): Target<'_>) -> anyhow::Result<()> {
        let request =
            json!({"namespace": namespace, "interface": interface, "operation": "Remove"});
        let (reply, _) = self.tc(&request)?;
        ensure!(reply["success"] == true, "Remove: {reply}");
        Ok(())
    }

    /// Brings an interface up or down and returns the duration.
    pub(crate) fn switch(
        &self,
        (namespace, interface): Target<'_>,
        up: bool,
    ) -> anyhow::Result<Duration> {
        let operation = if up { "Enable" } else { "Disable" };
        let request =
            json!({"namespace": namespace, "interface": interface, "operation": operation});
        let (reply, elapsed) = self.asker.ask("interface", &request)?;
        ensure!(
            reply["success"] == true && reply["new_state"] == up,
            "{operation}: {reply}"
        );
        Ok(elapsed)
    }

    /// Returns the number of traffic-control queries so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.get()
    }

    /// Returns the daemon's time for each query of one kind so far, in the order of its replies.
    pub(crate) fn answered(&self, what: &str) -> anyhow::Result<Vec<Duration>> {
        Ok(answered(&self.daemon()?.stderr(), what))
    }

    /// Returns the daemon's time for each traffic-control query from this number on.
    pub(crate) fn answered_since(&self, first: usize) -> anyhow::Result<Vec<Duration>> {
        // A reply arrives before the daemon has logged it.
        let times = wait_for(
            "the daemon has logged the time of each query",
            SOON,
            || self.answered("tc").unwrap_or_default(),
            |times| times.len() >= self.asked(),
        )?;
        Ok(times.get(first..).unwrap_or_default().to_vec())
    }

    /// Removes all namespaces and stops the daemon in order.
    fn end(&mut self) -> anyhow::Result<()> {
        let Ok(daemon) = self.scene.take_daemon() else {
            return Ok(());
        };
        let log = daemon.stderr();
        daemon.stop().context("stop the daemon")?;
        netns::clear()?;
        ensure!(!log.contains("panicked"), "a task panicked: {log}");
        Ok(())
    }
}

/// Returns the request of an empty query: to switch an interface that does not exist. The main loop decodes it, searches the
/// interface, and refuses the request without a worker.
pub(crate) fn empty_request() -> Value {
    json!({"namespace": "default", "interface": "nothing", "operation": "Enable"})
}

/// Returns whether a reply is that of an empty query.
pub(crate) fn is_nothing(reply: &Value) -> bool {
    let message = reply["message"].as_str();
    reply["success"] == false && message.is_some_and(|it| it.starts_with("no interface nothing"))
}

/// Returns a frontend's request for a flat configuration. Features that it does not contain are off.
pub(crate) fn apply_request((namespace, interface): Target<'_>, netem: &Value) -> Value {
    let mut flat = json!({"loss": 0.0});
    if let (Some(flat), Some(netem)) = (flat.as_object_mut(), netem.as_object()) {
        flat.extend(netem.clone());
    }
    json!({"namespace": namespace, "interface": interface, "operation": {"Apply": flat}})
}

/// Returns the times of queries of one kind in the log.
fn answered(log: &str, what: &str) -> Vec<Duration> {
    let lines = log.lines().filter(|line| line.contains(ANSWERED));
    let elapsed = |line: &str| {
        let (_, rest) = line.split_once(KEY)?;
        rest.strip_prefix(what)?.strip_prefix('"')?;
        let (_, rest) = line.split_once(ELAPSED)?;
        let digits = rest.split(|it: char| !it.is_ascii_digit()).next()?;
        Some(Duration::from_micros(digits.parse().ok()?))
    };
    lines.filter_map(elapsed).collect()
}

/// Waits until all processes are idle before the next measurement.
pub(crate) fn rest(period: Duration) {
    let end = Instant::now() + period;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        // park_timeout may return early.
        thread::park_timeout(left);
    }
}

/// Runs lines of `ip` in a namespace with one process.
pub(crate) fn ip_batch(namespace: Option<&str>, lines: &[String]) -> anyhow::Result<()> {
    let batch = tempfile::NamedTempFile::new().context("make a file for ip")?;
    fs::write(batch.path(), lines.join("\n") + "\n")?;
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    run_program(command.arg("-batch").arg(batch.path())).map(drop)
}

/// Creates a veth pair in one namespace, both ends up.
pub(crate) fn veth_pair(namespace: Option<&str>, here: &str, there: &str) -> anyhow::Result<()> {
    let lines = [
        format!("link add {here} type veth peer name {there}"),
        format!("link set {here} up"),
        format!("link set {there} up"),
    ];
    ip_batch(namespace, &lines)
}

/// Runs work on a thread inside a *named* namespace. A socket that it opens stays in the namespace.
pub(crate) fn inside_named<T: Send>(
    name: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let file = File::open(netns::path(name)).with_context(|| format!("open namespace {name}"))?;
    inside(OwnedFd::from(file), work).with_context(|| format!("enter namespace {name}"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_the_log() {
        let log = "\
2026-11-24T23:00:00.1Z TRACE query answered key=\"tcgui/default/query/tc\" elapsed_us=1234
2026-11-24T23:00:00.2Z TRACE query answered key=\"tcgui/default/query/scenario\" elapsed_us=5
2026-11-24T23:00:00.3Z  INFO namespace appeared netns=\"x\"
2026-11-24T23:00:00.4Z TRACE query answered key=\"tcgui/default/query/tc\" elapsed_us=7
";
        let times = [1234, 7].map(Duration::from_micros);
        assert_eq!(answered(log, "tc"), times);
    }

    #[test]
    fn a_request_contains_the_complete_state() {
        let request = apply_request(("n", "v"), &json!({"delay_ms": 5.0}));
        let apply = &request["operation"]["Apply"];
        assert_eq!(apply["loss"], 0.0);
        assert_eq!(apply["delay_ms"], 5.0);
    }
}
