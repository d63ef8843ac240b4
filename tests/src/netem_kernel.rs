//! Tests on another kernel, through `scripts/with-netem.sh`.
//!
//! Tests that need netem are marked as ignored, because the kernel of the machine may not have it. A test of the same
//! program starts the program again on a kernel that has it, and runs the ignored tests there. A test that does not
//! run there has failed.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::measure;
use crate::process::{bound_to_parent, run};

/// The script that runs a command on a kernel with netem.
pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/with-netem.sh");

/// Time limit for a suite; a quiet machine with an emulated processor needs a quarter of it.
pub const LIMIT: Duration = Duration::from_secs(1200);

/// Factor for the deadlines of tests. An emulated processor is about ten times slower, and twice as slow beside another one.
/// A deadline costs no time where its condition holds.
const PATIENCE: &str = "30";

/// How many tests of one program use another kernel at a time. With more machines on two processors, an emulated processor
/// is too slow for the deadlines.
const AT_ONCE: usize = 2;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// Directories that are private to the command that the script runs.
const PRIVATE: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];

/// Which kernel the script may use.
#[derive(Debug, Clone, Copy)]
enum Kernel {
    /// The first that works: that of this machine, or one in a virtual machine.
    Any,
    /// Linux 6.1 in a virtual machine, also if the kernel of this machine has netem.
    Virtual,
}

/// Returns a command that runs a program through the script, with a time limit and longer deadlines. Arguments that are
/// added are those of the program.
///
/// # Errors
///
/// When the program is in a directory that the script makes private.
pub fn command(options: &[&str], limit: Duration, program: &Path) -> anyhow::Result<Command> {
    let private = PRIVATE.iter().find(|private| program.starts_with(private));
    ensure!(
        private.is_none(),
        "{} is not visible on the other kernel: choose another CARGO_TARGET_DIR",
        program.display()
    );
    let mut command = bound_to_parent(SCRIPT);
    command
        .args(options)
        .args(["--time", &limit.as_secs().to_string(), "--"])
        .arg(program)
        .env("TCGUI_PATIENCE", PATIENCE);
    Ok(command)
}

/// Runs the ignored tests of a module of this test program on a kernel with netem, and reports what they measured.
///
/// # Errors
///
/// When no test is chosen, or one fails or does not run.
pub fn run_ignored(module: &str, limit: Duration) -> anyhow::Result<()> {
    let program = env::current_exe()?;
    let chosen = ["--ignored", module];
    let count = count_tests(&program, &chosen)?;
    run_tests(Kernel::Any, limit, &program, &chosen, count)
}

/// Runs tests of a test program in a virtual machine with Linux 6.1, an older kernel. `arguments` chooses the tests;
/// exactly `count` tests must pass.
///
/// # Errors
///
/// When one fails or does not run.
pub fn run_in_vm(program: &Path, arguments: &[&str], count: usize) -> anyhow::Result<()> {
    run_tests(Kernel::Virtual, LIMIT, program, arguments, count)
}

fn run_tests(
    kernel: Kernel,
    limit: Duration,
    program: &Path,
    arguments: &[&str],
    count: usize,
) -> anyhow::Result<()> {
    let options: &[&str] = match kernel {
        Kernel::Any => &[],
        Kernel::Virtual => &["--kernel", "vm"],
    };
    let mut command = command(options, limit, program)?;
    let _place = Place::wait();
    let start = Instant::now();
    command
        .args(["--color=never", "--test-threads=1"])
        .args(arguments)
        .stdin(Stdio::null());
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .with_context(|| format!("start {SCRIPT}"))?;
    let stdout = String::from_utf8_lossy(&stdout);
    let stderr = String::from_utf8_lossy(&stderr);
    // Which kernel is used, and why.
    if let Some(line) = stderr
        .lines()
        .find(|line| line.starts_with("with-netem.sh: kernel"))
    {
        writeln!(io::stderr(), "{line}")?;
    }
    let passed = format!("test result: ok. {count} passed");
    ensure!(
        status.success() && stdout.contains(&passed),
        "{status}, expected {passed:?}:\n{stdout}{stderr}"
    );
    measure::report(format!(
        "{count} tests on that kernel, with its start, in {:.0?}: {arguments:?}",
        start.elapsed()
    ))?;
    for line in stdout.lines().filter(|line| line.contains(measure::PREFIX)) {
        measure::report(line)?;
    }
    Ok(())
}

/// One of the [`AT_ONCE`] slots.
struct Place;

impl Place {
    fn wait() -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running = ENDED.wait_while(running, |running| *running >= AT_ONCE);
        *running.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

/// Returns the directory with the unpacked kernel, which the script makes in cargo's target directory.
///
/// # Errors
///
/// When this program is not in a target directory.
pub fn cache_directory() -> anyhow::Result<PathBuf> {
    let program = env::current_exe()?;
    // TARGET/PROFILE/deps/PROGRAM
    let target = program.ancestors().nth(3).context("no target directory")?;
    Ok(target.join("with-netem"))
}

/// Returns how many tests of a program these arguments choose, at least one.
fn count_tests(program: &Path, arguments: &[&str]) -> anyhow::Result<usize> {
    let listed = run(Command::new(program).args(arguments).arg("--list"))?;
    let is_test = |line: &&str| line.ends_with(": test");
    let count = listed.lines().filter(is_test).count();
    ensure!(count > 0, "no test is chosen by {arguments:?}: {listed}");
    Ok(count)
}
