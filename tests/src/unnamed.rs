//! Processes in network namespaces without a name, and their entries in lists. Only for use in the lab.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::libc;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{array, monotonic_ns};
use crate::netns;
use crate::process::{Companion, bound_to_parent};
use crate::wait::wait_for;

/// Wide, because test machines are busy.
const SOON: Duration = Duration::from_secs(5);

/// Maximum length in bytes of a program name in the kernel.
const PROGRAM: usize = 15;

/// The wire name of the namespace of a process. The program name must be UTF-8 without backslashes.
#[must_use]
pub fn title(process: &Companion, program: &str) -> String {
    format!("pid:{}({program})", process.pid())
}

/// The namespace of a process, as shown by its link in `/proc`.
///
/// # Errors
///
/// When the process has ended.
pub fn namespace_of(pid: u32) -> anyhow::Result<PathBuf> {
    fs::read_link(netns::of_process(pid)).context("read the link of a process's namespace")
}

/// Waits until a process is in another namespace than `home`.
fn wait_away(process: &Companion, home: &PathBuf) -> anyhow::Result<()> {
    wait_for(
        "a process is elsewhere",
        SOON,
        || namespace_of(process.pid()).ok(),
        |now| now.as_ref().is_some_and(|now| now != home),
    )
    .map(drop)
}

/// Waits until a process runs this program, because `unshare` and `nsenter` execute it.
fn wait_program(process: &Companion, program: &OsStr) -> anyhow::Result<()> {
    let program = program.as_encoded_bytes();
    let shown = &program[..program.len().min(PROGRAM)];
    wait_for(
        "a process runs its program",
        SOON,
        || fs::read(format!("/proc/{}/comm", process.pid())).ok(),
        |comm| comm.as_ref().and_then(|comm| comm.strip_suffix(b"\n")) == Some(shown),
    )
    .map(drop)
}

/// Starts `sleep` in the namespace of another process.
///
/// # Errors
///
/// When it does not enter the namespace.
pub fn beside(other: &Companion) -> anyhow::Result<Companion> {
    let target = format!("--target={}", other.pid());
    let guest =
        Companion::start(bound_to_parent("nsenter").args([&target, "--net", "sleep", "infinity"]))?;
    wait_program(&guest, OsStr::new("sleep"))?;
    let (theirs, here) = (namespace_of(other.pid())?, namespace_of(guest.pid())?);
    ensure!(theirs == here, "{theirs:?} is not {here:?}");
    Ok(guest)
}

/// Starts `sleep` under another name in a new namespace.
///
/// # Errors
///
/// When it does not enter a new namespace.
pub fn called(program: &OsStr) -> anyhow::Result<Companion> {
    // Outside `/run`, which the daemon watches. A deleted program can still run.
    let directory = TempDir::new()?;
    let path = directory.path().join(program);
    fs::copy("/bin/sleep", &path).with_context(|| format!("make {}", path.display()))?;
    let home = namespace_of(std::process::id())?;
    let mut command = bound_to_parent("unshare");
    let holder = Companion::start(command.arg("-n").arg(&path).arg("infinity"))?;
    wait_away(&holder, &home)?;
    wait_program(&holder, program)?;
    Ok(holder)
}

/// A process that creates a namespace on request and does nothing else. It starts no program and no child, so that the kernel
/// announces nothing.
#[derive(Debug)]
pub struct Restless(Companion);

impl Restless {
    /// Starts it in the namespace of the caller.
    ///
    /// # Errors
    ///
    /// When perl is not installed.
    pub fn start() -> anyhow::Result<Self> {
        let script = "$SIG{USR1} = sub { syscall(0+$ARGV[0], 0+$ARGV[1]) == 0 or die }; \
                      $| = 1; print \"ready\\n\"; sleep 1 while 1";
        let numbers = [libc::SYS_unshare, libc::c_long::from(libc::CLONE_NEWNET)];
        let mut command = bound_to_parent("perl");
        command.args(["-e", script]);
        command.args(numbers.map(|number| number.to_string()));
        let (process, output) = Companion::start_piped(&mut command)?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "ready\n", "perl printed {line:?}");
        Ok(Self(process))
    }

    /// Makes it create a namespace.
    ///
    /// # Errors
    ///
    /// When it does not create one.
    pub fn rouse(&self) -> anyhow::Result<()> {
        let before = namespace_of(self.0.pid())?;
        self.0.signal(Signal::SIGUSR1)?;
        wait_away(&self.0, &before)
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Companion {
        &self.0
    }
}

/// A record of every list and its names. Clones share it.
#[derive(Debug, Default, Clone)]
pub struct Record(Arc<Mutex<Vec<Listed>>>);

/// The arrival of a list on `CLOCK_MONOTONIC` in ns, and the names in it.
type Listed = (u64, BTreeSet<String>);

impl Record {
    /// Records a list. Suitable as the callback of a scene.
    pub fn take(&self, list: &Value) {
        let names = array(list, "namespaces").flat_map(|namespace| {
            let names = array(namespace, "aliases").chain([&namespace["name"]]);
            names.filter_map(Value::as_str).map(str::to_owned)
        });
        let entry = (monotonic_ns().unwrap_or_default(), names.collect());
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(entry);
    }

    /// Number of recorded lists.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no list was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of lists from index `first` on that contain none of these names, also not as aliases.
    #[must_use]
    pub fn without(&self, first: usize, names: &[&str]) -> usize {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lacks = |(_, listed): &&Listed| !names.iter().any(|name| listed.contains(*name));
        lists.iter().skip(first).filter(lacks).count()
    }

    /// The arrival of the first list from index `first` on that contains this name, or does not contain it.
    #[must_use]
    pub fn first(&self, first: usize, name: &str, listed: bool) -> Option<u64> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists
            .iter()
            .skip(first)
            .find(|(_, names)| names.contains(name) == listed)
            .map(|(at, _)| *at)
    }
}

/// Runs `tc` or `ip` in the network namespace of a process.
///
/// # Errors
///
/// When it fails.
pub fn inside(process: &Companion, line: &str) -> anyhow::Result<String> {
    let target = format!("--target={}", process.pid());
    let mut command = Command::new("nsenter");
    command
        .args([&target, "--net"])
        .args(line.split_whitespace());
    crate::process::run(&mut command)
}
