//! Daemon and client together, and the check that ends every test.

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

/// Generous: machines that run tests are busy. What must be fast is measured instead.
pub const SOON: Duration = Duration::from_secs(5);

/// Idle threads of a runtime's blocking pool live for 10 s.
const CALM: Duration = Duration::from_secs(15);

/// Pools of request sockets grow to a small bound and stay there; a leak grows with the work.
const SPARE_FDS: usize = 6;

/// The pools grow to their limit once and stay there.
const SPARE_THREADS: usize = 4;

/// What a test works with; empty until [`Scene::start`].
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
    /// Starts the daemon through a program that becomes it, such as `unshare -m`.
    pub fn wrap_daemon(&mut self, wrapper: &'static [&'static str]) {
        self.wrapper = wrapper;
    }

    /// Starts the daemon as an operator does, and a client, and waits for the first list.
    ///
    /// # Errors
    ///
    /// When one of them does not get there.
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

    /// [`Self::start_with`] with a client of one's own, and a callback for every list.
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

    /// Starts the daemon once more for the client that is there, and waits for its first list.
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

    /// Takes what the daemon holds now as what it may hold at the end.
    ///
    /// # Errors
    ///
    /// When the daemon is gone.
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

    /// Takes the daemon away, to end it; unless another is started, the end has nothing to check.
    ///
    /// # Errors
    ///
    /// When the test has not started it.
    pub fn take_daemon(&mut self) -> anyhow::Result<Daemon> {
        self.daemon
            .take()
            .context("the test has not started the daemon")
    }

    /// The client that listens since before the daemon started.
    ///
    /// # Errors
    ///
    /// When the test has not started it.
    pub fn client(&self) -> anyhow::Result<&Client> {
        self.client
            .as_ref()
            .context("the test has not started the client")
    }

    /// Waits until the client has received what the predicate wants.
    ///
    /// # Errors
    ///
    /// When that does not happen soon.
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
    /// When that does not happen soon.
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

    /// Waits until one *named* namespace is listed, or is not.
    ///
    /// # Errors
    ///
    /// When that does not happen soon.
    pub fn wait_listed(&self, name: &str, listed: bool) -> anyhow::Result<()> {
        self.wait_for(&format!("{name} is listed: {listed}"), |state| {
            state.named().contains(name) == listed
        })
        .map(drop)
    }

    /// How often a *named* namespace has appeared and how often it has gone, over all lists.
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

    /// A query that every daemon answers without touching the kernel, and how long it took.
    ///
    /// # Errors
    ///
    /// When the answer is not a list of scenarios.
    pub fn ping(&self) -> anyhow::Result<Duration> {
        let (reply, elapsed) = self.client()?.ask("scenario", &json!("List"))?;
        ensure!(
            reply["Listed"]["scenarios"].is_array(),
            "not a list of scenarios: {reply}"
        );
        Ok(elapsed)
    }

    /// The end of every test: the namespaces go, the daemon is healthy and nothing leaked.
    ///
    /// # Errors
    ///
    /// When something leaked, or the daemon does not answer.
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

    /// Waits until the daemon holds no more than at the start, but for pools that stay small.
    ///
    /// # Errors
    ///
    /// When it keeps more than that.
    pub fn wait_calm(&self) -> anyhow::Result<()> {
        let daemon = self.daemon()?;
        let baseline = self
            .baseline
            .context("nobody took the footprint at the start")?;
        wait_for(
            &format!("descriptors and threads are back at {baseline:?}"),
            CALM,
            || Footprint::of(daemon),
            |now| now.as_ref().is_ok_and(|now| is_back_at(*now, baseline)),
        )
        .map(drop)
    }

    /// Writes what is known about a failure: the client's picture and the daemon's log.
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
