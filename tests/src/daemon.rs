//! The built daemon: starts it like an operator, stops it, and reads its resource usage.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, process::Output};

use anyhow::{Context, anyhow, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};
use tempfile::TempDir;

use crate::process;
use crate::wait::wait_for;

/// An orderly stop must take at most 2 s.
pub const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// The path of another binary to test, for example an installed one.
const OTHER: &str = "TCGUI_BACKEND";

/// The path of the built `tcgui-backend`: beside this program, or above `deps/`.
///
/// `TCGUI_BACKEND` overrides it.
///
/// # Errors
///
/// When it has not been built.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(other) = env::var_os(OTHER) {
        return Ok(PathBuf::from(other));
    }
    let program = env::current_exe().context("find the path of this program")?;
    let near = program.ancestors().skip(1).take(2);
    near.map(|directory| directory.join("tcgui-backend"))
        .find(|candidate| candidate.is_file())
        .with_context(|| {
            let program = program.display();
            format!("no tcgui-backend near {program}: run scripts/test.sh or cargo build first")
        })
}

/// Whether the binary was built with optimisation, judged by its path.
///
/// # Errors
///
/// As [`binary`].
pub fn is_optimised() -> anyhow::Result<bool> {
    let path = binary()?;
    Ok(!path.components().any(|part| part.as_os_str() == "debug"))
}

/// Runs the daemon's command line to its end, for commands that do not use the bus.
///
/// `privileges` are options of setpriv(1). At the deadline the process is killed and an error is returned.
///
/// # Errors
///
/// When the binary is missing or still runs at the deadline.
pub fn run(privileges: &[&str], args: &[&OsStr], deadline: Duration) -> anyhow::Result<Output> {
    let binary = readable_by_all(&binary()?)?;
    let mut command = Command::new("setpriv");
    command.args(privileges).args(["--pdeathsig", "KILL", "--"]);
    let mut daemon = Daemon::spawn(command.arg(binary.path().join("tcgui-backend")).args(args))?;
    let status = daemon.wait(deadline)?;
    Ok(Output {
        status,
        stdout: daemon.stdout().into_bytes(),
        stderr: daemon.stderr().into_bytes(),
    })
}

/// Returns a directory with a link to the binary that every user may enter, because the home of root is often closed.
fn readable_by_all(binary: &Path) -> anyhow::Result<TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let target = directory.path().join("tcgui-backend");
    fs::hard_link(binary, &target).or_else(|_| fs::copy(binary, &target).map(drop))?;
    Ok(directory)
}

/// A running daemon. It is killed by its pid when this value is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    started: Instant,
    /// Working directory and log. It is outside `/run`, which the daemon watches.
    scratch: TempDir,
}

impl Daemon {
    /// Starts the built binary with these arguments, through a wrapper that executes it.
    ///
    /// The wrapper, such as `unshare -m`, must keep the pid. It may be empty.
    ///
    /// # Errors
    ///
    /// When the binary is missing or cannot be started.
    pub fn start<S: AsRef<OsStr>>(wrapper: &[&str], args: &[S]) -> anyhow::Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(wrapper);
        Self::spawn(command.arg(binary()?).args(args))
    }

    fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let scratch = TempDir::new().context("make a directory for the daemon's log")?;
        let started = Instant::now();
        let child = command
            .current_dir(scratch.path())
            .env("HOME", scratch.path())
            .stdin(Stdio::null())
            .stdout(File::create(scratch.path().join("stdout"))?)
            .stderr(File::create(scratch.path().join("stderr"))?)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self {
            child,
            started,
            scratch,
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When the process was started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The complete standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.written("stderr")
    }

    /// The complete standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.written("stdout")
    }

    fn written(&self, file: &str) -> String {
        let bytes = fs::read(self.scratch.path().join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        process::signal(self.pid(), signal)
    }

    /// Fails when the process has ended.
    ///
    /// # Errors
    ///
    /// When it has ended. The message contains its status and output.
    pub fn ensure_alive(&mut self) -> anyhow::Result<()> {
        let status = self.child.try_wait()?;
        ensure!(
            status.is_none(),
            "the daemon ended: {status:?}\n{}",
            self.stderr()
        );
        Ok(())
    }

    /// Stops it with SIGTERM and returns its exit status.
    ///
    /// # Errors
    ///
    /// When it had ended before, or still runs after [`STOP_DEADLINE`].
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.ensure_alive()?;
        self.signal(Signal::SIGTERM)?;
        self.wait(STOP_DEADLINE)
    }

    /// Kills it with SIGKILL, like a crash.
    ///
    /// # Errors
    ///
    /// When it had ended by itself.
    pub fn crash(mut self) -> anyhow::Result<()> {
        self.ensure_alive()?;
        self.signal(Signal::SIGKILL)?;
        let status = self.wait(STOP_DEADLINE)?;
        ensure!(status.signal() == Some(9), "not killed: {status}");
        Ok(())
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    ///
    /// When it still runs at the deadline. The message contains its output.
    pub fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let child = &mut self.child;
        let look = || child.try_wait().ok().flatten();
        let ended = wait_for("the daemon ends", deadline, look, Option::is_some)
            .map_err(|error| anyhow!("{error}; it wrote:\n{}", self.stderr()))?;
        ended.context("ended without a status")
    }

    /// Number of open file descriptors.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn fds(&self) -> anyhow::Result<usize> {
        Ok(fs::read_dir(self.proc("fd"))
            .context("list the daemon's descriptors")?
            .count())
    }

    /// Number of threads.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn threads(&self) -> anyhow::Result<usize> {
        Ok(usize::try_from(self.status("Threads:")?)?)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn rss(&self) -> anyhow::Result<u64> {
        Ok(self.status("VmRSS:")? * 1024)
    }

    /// Processor time used so far by all its threads, in steps of 10 ms.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(self.proc("stat")).context("read the daemon's times")?;
        // proc(5): the command may contain any character, and its closing parenthesis is the last one. utime and stime are the
        // 12th and 13th field after it.
        let (_, fields) = stat.rsplit_once(')').context("no command in stat")?;
        let ticks = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse::<u64>)
            .sum::<Result<u64, _>>()?;
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
        Ok(Duration::from_millis(
            ticks * 1000 / u64::try_from(per_second)?,
        ))
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid()))
    }

    fn status(&self, field: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(self.proc("status")).context("read the daemon's status")?;
        status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.split_whitespace().next())
            .with_context(|| format!("no {field} in the status"))?
            .parse()
            .with_context(|| format!("parse {field}"))
    }
}

/// The resource usage of a daemon.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    /// File descriptors.
    pub fds: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory in bytes.
    pub rss: u64,
    /// Processor time.
    pub cpu: Duration,
}

impl Footprint {
    /// Reads the current resource usage of a daemon.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn of(daemon: &Daemon) -> anyhow::Result<Self> {
        Ok(Self {
            fds: daemon.fds()?,
            threads: daemon.threads()?,
            rss: daemon.rss()?,
            cpu: daemon.cpu_time()?,
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails only if the process has already ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
