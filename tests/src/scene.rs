//! A daemon with a client, and the leak check at the end of every test.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::client::{self, Client, State};
use crate::daemon::{Daemon, Footprint};
use crate::names;
use crate::netns;
use crate::process::run;
use crate::wait::wait_for;

/// Wide, because test machines are busy. Tests that need a narrow limit measure.
pub const SOON: Duration = Duration::from_secs(5);

/// Maximum time until resources are released. Idle threads of a blocking pool end after 10 s.
const CALM: Duration = Duration::from_secs(15);

/// Number of file descriptors that pools of request sockets may add. A leak grows with the work.
const SPARE_FDS: usize = 6;

/// Number of threads that the pools may add.
const SPARE_THREADS: usize = 4;

/// The environment of a test. Empty until [`Scene::start`].
#[derive(Debug, Default)]
pub struct Scene {
    wrapper: &'static [&'static str],
    daemon: Option<Daemon>,
    client: Option<Client>,
    baseline: Option<Footprint>,
    history: History,
}

/// The named namespaces of every list, in order of arrival.
#[derive(Debug, Default, Clone)]
struct History(Arc<Mutex<Vec<BTreeSet<String>>>>);

fn is_back_at(now: Footprint, baseline: Footprint) -> bool {
    now.fds <= baseline.fds + SPARE_FDS && now.threads <= baseline.threads + SPARE_THREADS
}

impl Scene {
    /// Starts the daemon through a program that executes it, such as `unshare -m`.
    pub fn wrap_daemon(&mut self, wrapper: &'static [&'static str]) {
        self.wrapper = wrapper;
    }

    /// Starts the daemon like an operator, starts a client, and waits for the first list.
    ///
    /// # Errors
    ///
    /// When one of them does not start.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.start_with::<&str>(&[])
    }

    /// [`Self::start`] with options of the daemon.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with<S: AsRef<OsStr>>(&mut self, args: &[S]) -> anyhow::Result<()> {
        self.start_watched(args, client::Options::default(), |_| ())
    }

    /// Does the same as [`Self::start_with`] with the given client options and a callback for every list.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_watched<S: AsRef<OsStr>>(
        &mut self,
        args: &[S],
        options: client::Options,
        on_list: impl Fn(&Value) + Send + Sync + 'static,
    ) -> anyhow::Result<()> {
        let history = self.history.clone();
        let client = options
            .on_list(move |_, list| {
                history
                    .0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(client::named(list));
                on_list(list);
            })
            .open()?;
        self.client = Some(client);
        self.start_daemon(args)
    }

    /// Starts the daemon again for the existing client, and waits for its first list.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_daemon<S: AsRef<OsStr>>(&mut self, args: &[S]) -> anyhow::Result<()> {
        let before = self.client()?.state().lists();
        self.daemon = Some(Daemon::start(self.wrapper, args)?);
        self.client()?.wait_for(
            "the daemon is present and sends a list",
            SOON * 2,
            |state| state.alive() && state.lists() > before,
        )?;
        self.accept_footprint()
    }

    /// Takes the current resource usage of the daemon as the limit for the final check.
    ///
    /// # Errors
    ///
    /// When the daemon has ended.
    pub fn accept_footprint(&mut self) -> anyhow::Result<()> {
        self.baseline = Some(Footprint::of(self.daemon()?)?);
        Ok(())
    }

    /// The running daemon.
    ///
    /// # Errors
    ///
    /// When the test has not started it.
    pub fn daemon(&self) -> anyhow::Result<&Daemon> {
        self.daemon
            .as_ref()
            .context("the test has not started the daemon")
    }

    /// Removes the daemon from the scene. If no other one is started, the final check is skipped.
    ///
    /// # Errors
    ///
    /// When the test has not started it.
    pub fn take_daemon(&mut self) -> anyhow::Result<Daemon> {
        self.daemon
            .take()
            .context("the test has not started the daemon")
    }

    /// The client, which subscribed before the daemon started.
    ///
    /// # Errors
    ///
    /// When the test has not started it.
    pub fn client(&self) -> anyhow::Result<&Client> {
        self.client
            .as_ref()
            .context("the test has not started the client")
    }

    /// Waits until the received state satisfies the predicate.
    ///
    /// # Errors
    ///
    /// When that does not happen within [`SOON`].
    pub fn wait_for(
        &self,
        what: &str,
        predicate: impl Fn(&State) -> bool,
    ) -> anyhow::Result<State> {
        self.client()?.wait_for(what, SOON, predicate)
    }

    /// Waits until exactly these *named* namespaces are listed.
    ///
    /// # Errors
    ///
    /// When that does not happen within [`SOON`].
    pub fn wait_named<S: AsRef<OsStr>>(&self, names: &[S]) -> anyhow::Result<()> {
        let names: BTreeSet<_> = names
            .iter()
            .map(|name| names::on_wire(name.as_ref()))
            .collect();
        self.wait_for(&format!("{names:?} are listed"), |state| {
            state.named() == names
        })
        .map(drop)
    }

    /// Waits until a *named* namespace is listed or not listed.
    ///
    /// # Errors
    ///
    /// When that does not happen within [`SOON`].
    pub fn wait_listed(&self, name: &str, listed: bool) -> anyhow::Result<()> {
        self.wait_for(&format!("{name} is listed: {listed}"), |state| {
            state.named().contains(name) == listed
        })
        .map(drop)
    }

    /// How often a *named* namespace appeared and disappeared, over all lists.
    #[must_use]
    pub fn comings_and_goings(&self, name: &str) -> (usize, usize) {
        let history = self
            .history
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut present = false;
        let mut counts = (0, 0);
        for names in history.iter() {
            match (present, names.contains(name)) {
                (false, true) => counts.0 += 1,
                (true, false) => counts.1 += 1,
                _ => {}
            }
            present = names.contains(name);
        }
        counts
    }

    /// Whether a *named* namespace was in any list ever received.
    #[must_use]
    pub fn was_ever_listed(&self, name: &str) -> bool {
        self.comings_and_goings(name).0 > 0
    }

    /// Sends a query that every daemon answers without the kernel, and returns the duration.
    ///
    /// # Errors
    ///
    /// When the reply is not a list of scenarios.
    pub fn ping(&self) -> anyhow::Result<Duration> {
        let (reply, elapsed) = self.client()?.ask("scenario", &json!("List"))?;
        ensure!(
            reply["Listed"]["scenarios"].is_array(),
            "not a list of scenarios: {reply}"
        );
        Ok(elapsed)
    }

    /// The end of every test: removes the namespaces, and checks that the daemon is healthy and has leaked nothing.
    ///
    /// # Errors
    ///
    /// When something leaked, or the daemon does not reply.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let Some(daemon) = self.daemon.as_mut() else {
            return Ok(());
        };
        daemon.ensure_alive()?;
        netns::clear()?;
        self.ping()?;
        self.wait_named::<&str>(&[])?;
        let faults = self.client()?.state().faults().to_vec();
        ensure!(faults.is_empty(), "not JSON: {faults:?}");
        let log = self.daemon()?.stderr();
        ensure!(!log.contains("panicked"), "a task panicked: {log}");
        let qdiscs = run(Command::new("tc").args(["qdisc", "show"]))?;
        ensure!(!qdiscs.contains("netem"), "a qdisc is left: {qdiscs}");
        self.wait_calm()
    }

    /// Waits until the daemon holds no more than at the start, apart from small pools.
    ///
    /// # Errors
    ///
    /// When it holds more.
    pub fn wait_calm(&self) -> anyhow::Result<()> {
        let daemon = self.daemon()?;
        let baseline = self
            .baseline
            .context("no resource usage was recorded at the start")?;
        wait_for(
            &format!("descriptors and threads are back at {baseline:?}"),
            CALM,
            || Footprint::of(daemon),
            |now| now.as_ref().is_ok_and(|now| is_back_at(*now, baseline)),
        )
        .map(drop)
    }

    /// Prints the state of the client and the log of the daemon after a failure.
    pub fn describe(&self) {
        let log = self.daemon.as_ref().map(Daemon::stderr).unwrap_or_default();
        let first = log.lines().count().saturating_sub(80);
        let tail: Vec<_> = log.lines().skip(first).collect();
        // Standard error may be closed.
        writeln!(
            io::stderr(),
            "client: {:?}\ndaemon's log from line {first}:\n{}",
            self.client,
            tail.join("\n")
        )
        .ok();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.describe();
        }
    }
}
