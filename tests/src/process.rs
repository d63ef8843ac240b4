//! Runs programs to their end, and starts programs that run until the end of the test.

use std::ffi::OsStr;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Returns a command whose process the kernel kills when the thread that started it ends.
///
/// Therefore no process is left behind by a test that was killed. The program replaces `setpriv` and keeps its pid.
#[must_use]
pub fn bound_to_parent(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Runs a program to its end and returns its standard output.
///
/// # Errors
///
/// When it cannot be started or fails. The message contains its output.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {command:?}"))?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        bail!(
            "{command:?}: {status}: {stdout}{}",
            String::from_utf8_lossy(&stderr)
        );
    }
    Ok(stdout)
}

/// Sends a signal to a process that has not been waited for.
///
/// # Errors
///
/// When the process has ended.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let to = Pid::from_raw(i32::try_from(pid)?);
    kill(to, signal).with_context(|| format!("send {signal} to {pid}"))
}

/// A process that is killed by its pid when this value is dropped.
#[derive(Debug)]
pub struct Companion(Child);

impl Companion {
    /// Starts a program that runs until this value is dropped or [`Self::kill`]ed.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        Self::spawn(command.stdout(Stdio::null()))
    }

    /// Does the same as [`Self::start`], and returns its standard output as well.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start_piped(command: &mut Command) -> anyhow::Result<(Self, ChildStdout)> {
        let mut started = Self::spawn(command.stdout(Stdio::piped()))?;
        let output = started.0.stdout.take().context("no pipe was made")?;
        Ok((started, output))
    }

    fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self(child))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// When the signal cannot be delivered.
    pub fn signal(&self, which: Signal) -> anyhow::Result<()> {
        signal(self.pid(), which)
    }

    /// Kills the process and waits for its end.
    ///
    /// # Errors
    ///
    /// When it had already ended, which is an error in the test.
    pub fn kill(mut self) -> anyhow::Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "ended before it was killed: {ended:?}");
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        // Fails only if the process has already ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
