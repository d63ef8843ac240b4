//! The command of `run`, and the signals that are passed on to it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::oneshot;

/// Signals that end a program, or that programs use to talk to each other.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Stream,
    terminate: Stream,
    hangup: Stream,
    quit: Stream,
    user1: Stream,
    user2: Stream,
}

impl Signals {
    /// Catches signals from now on.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for a signal. Cancel-safe.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::SIGINT,
            Some(()) = self.terminate.recv() => Signal::SIGTERM,
            Some(()) = self.hangup.recv() => Signal::SIGHUP,
            Some(()) = self.quit.recv() => Signal::SIGQUIT,
            Some(()) = self.user1.recv() => Signal::SIGUSR1,
            Some(()) = self.user2.recv() => Signal::SIGUSR2,
            else => std::future::pending().await,
        }
    }
}

/// The command while it runs.
#[derive(Debug)]
pub(super) struct Running {
    pid: Pid,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
}

/// Starts the command with the streams and the process group of this program.
pub(super) fn spawn(command: &[OsString]) -> io::Result<Running> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut child = Command::new(program).args(arguments).spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let (sender, ended) = oneshot::channel();
    let wait = move || {
        // The receiver is gone only if this program ends.
        sender.send(child.wait()).ok();
    };
    std::thread::Builder::new()
        .name("wait".to_owned())
        .spawn(wait)?;
    Ok(Running {
        pid: Pid::from_raw(pid),
        ended,
    })
}

impl Running {
    /// Waits for the end of the command, and returns its exit status as a shell reports it. Cancel-safe.
    pub(super) async fn ended(&mut self) -> io::Result<u8> {
        let status = (&mut self.ended).await.map_err(io::Error::other)??;
        let code = match (status.code(), status.signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 1,
        };
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }

    /// Passes a signal on, unless the terminal has sent it to the command too.
    pub(super) fn pass_on(&self, signal: Signal) {
        let is_of_terminal = matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
        if is_of_terminal && is_in_foreground().unwrap_or(false) {
            return;
        }
        // It fails only if the command has ended.
        kill(self.pid, signal).ok();
    }
}

/// Returns whether the terminal sends its signals to the process group of this program.
fn is_in_foreground() -> Option<bool> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // man 5 proc_pid_stat: state, ppid, pgrp, session, tty_nr and tpgid follow the name in parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    Some(fields.get(2)? == fields.get(5)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn status_of(script: &str) -> u8 {
        let command = ["sh", "-c", script].map(OsString::from);
        spawn(&command).unwrap().ended().await.unwrap()
    }

    #[tokio::test]
    async fn the_exit_status_is_that_of_a_shell() {
        assert_eq!(status_of("exit 3").await, 3);
        assert_eq!(status_of("kill -TERM $$").await, 128 + 15);
    }

    #[test]
    fn a_command_that_is_missing_is_not_one_that_cannot_be_executed() {
        let kind = |name: &str| spawn(&[OsString::from(name)]).unwrap_err().kind();
        assert_eq!(kind("/no/such/command"), io::ErrorKind::NotFound);
        assert_eq!(kind("/etc/passwd"), io::ErrorKind::PermissionDenied);
    }
}
