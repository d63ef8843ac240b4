//! Which containers are shown, as a program sees them that follows the engines.
//!
//! The view is that of the example `watch_containers`, which prints what the daemon's actor tells.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nix::unistd::{SysconfVar, sysconf};

use crate::process::{Companion, bound_to_parent};
use crate::wait::wait_for;

/// Generous: engines are slow when the machine is busy. What must be fast is measured instead.
pub const SOON: Duration = Duration::from_secs(20);

/// A container as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// `Docker` or `Podman`.
    pub runtime: String,
    /// The first digits of its id.
    pub short_id: String,
    /// Its first process.
    pub pid: u32,
    /// The inode of its network namespace.
    pub inode: u64,
    /// Its image.
    pub image: String,
}

/// When something was seen, since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The container of this name, or with this new name.
    Added(String, Duration),
    /// The container that was shown under this name.
    Removed(String, Duration),
}

#[derive(Debug, Default)]
struct State {
    shown: BTreeMap<String, Shown>,
    history: Vec<Seen>,
}

/// A running program that shows containers.
#[derive(Debug)]
pub struct View {
    program: Companion,
    state: Arc<Mutex<State>>,
}

impl View {
    /// Starts to follow all engines of the lab, those that start later too.
    ///
    /// # Errors
    ///
    /// When the program has not been built.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_at(&[])
    }

    /// Starts to follow the engines at these sockets only.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_at(sockets: &[&Path]) -> anyhow::Result<Self> {
        let mut command = bound_to_parent(example()?);
        let (program, output) = Companion::start_piped(command.args(sockets))?;
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                state.take(&line, now.unwrap_or_default());
            }
        });
        Ok(Self { program, state })
    }

    /// What is shown now, by name.
    #[must_use]
    pub fn shown(&self) -> BTreeMap<String, Shown> {
        self.lock().shown.clone()
    }

    /// Everything that was seen so far.
    #[must_use]
    pub fn history(&self) -> Vec<Seen> {
        self.lock().history.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until these containers are shown and no others, and returns them.
    ///
    /// # Errors
    ///
    /// When the deadline passes first.
    pub fn wait_names(&self, names: &[&str]) -> anyhow::Result<BTreeMap<String, Shown>> {
        let what = format!("exactly {names:?} are shown");
        wait_for(&what, SOON, || self.shown(), |shown| shown.keys().eq(names))
    }

    /// Processor time, descriptors, threads and memory (in KiB) of the program.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn footprint(&self) -> anyhow::Result<Footprint> {
        Footprint::of(self.program.pid())
    }
}

impl State {
    fn take(&mut self, line: &str, now: Duration) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["+", name, runtime, short_id, pid, inode, image] => {
                let shown = Shown {
                    runtime: runtime.to_owned(),
                    short_id: short_id.to_owned(),
                    pid: pid.parse().unwrap_or_default(),
                    inode: inode.parse().unwrap_or_default(),
                    image: image.to_owned(),
                };
                // Under a new name it is not shown under the old one.
                self.shown.retain(|_, it| it.pid != shown.pid);
                self.shown.insert(name.to_owned(), shown);
                self.history.push(Seen::Added(name.to_owned(), now));
            }
            ["-", pid, _] => {
                let holds = |it: &Shown| it.pid.to_string() == pid;
                let name = self.shown.iter().find(|(_, it)| holds(it));
                if let Some(name) = name.map(|(name, _)| name.clone()) {
                    self.shown.remove(&name);
                    self.history.push(Seen::Removed(name, now));
                }
            }
            _ => {}
        }
    }
}

/// What a program holds and has used.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    /// Processor time.
    pub cpu: Duration,
    /// Open descriptors.
    pub fds: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory.
    pub rss_kib: u64,
}

impl Footprint {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let count = |of: &str| anyhow::Ok(fs::read_dir(proc.join(of))?.count());
        let status = fs::read_to_string(proc.join("status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|rss| rss.trim().strip_suffix(" kB"));
        let stat = fs::read_to_string(proc.join("stat"))?;
        let (_, fields) = stat
            .rsplit_once(')')
            .context("read the stat of a process")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(str::parse::<u64>).sum::<Result<_, _>>()?;
        let rate = sysconf(SysconfVar::CLK_TCK)?.context("ticks of the clock")?;
        Ok(Self {
            cpu: Duration::from_millis(ticks * 1000 / u64::try_from(rate)?),
            fds: count("fd")?,
            threads: count("task")?,
            rss_kib: rss.context("read the memory of a process")?.parse()?,
        })
    }
}

/// The path of the built example, beside the directory of this program.
fn example() -> anyhow::Result<PathBuf> {
    let program = env::current_exe().context("find the path of this program")?;
    let mut near = program.ancestors().skip(1).take(2);
    near.find_map(|directory| {
        let candidate = directory.join("examples/watch_containers");
        candidate.is_file().then_some(candidate)
    })
    .context("no examples/watch_containers: run scripts/test.sh or cargo build --examples first")
}
