//! A process of a lab. It receives orders on its standard input and sends messages on its standard output.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::Serialize;
use tcgui_tests::wait::wait_for;
use tokio::signal::unix::{SignalKind, signal};

use crate::plan::{Observer, Surroundings};
use crate::protocol::{self, Message};
use crate::role::Role;

/// Time after which a process that does not end is killed. The daemon has 2 s of its own.
pub(super) const END: Duration = Duration::from_secs(5);

/// An event for the main thread.
#[derive(Debug)]
pub(super) enum Event {
    Message(Party, Message),
    /// The output of the process has ended (`None`) or cannot be parsed.
    OutputEnded(Party, Option<anyhow::Error>),
    Interrupted,
}

/// A process of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Party {
    Mounter(Observer),
    Observer(Observer),
}

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Closing it ends the process.
    stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts a role of this program in its own process group. Therefore Ctrl-C reaches only the parent, which ends the others in
    /// order.
    pub(super) fn start(
        mut command: Command,
        (role, surroundings): (Role, Surroundings),
        party: Party,
        events: &SyncSender<Event>,
    ) -> anyhow::Result<Self> {
        let role = role.to_possible_value().context("a role has a name")?;
        let around = surroundings.to_possible_value();
        let around = around.context("surroundings have a name")?;
        let mut child = command
            .args(["--role", role.get_name()])
            .args(["--surroundings", around.get_name()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start the {}", role.get_name()))?;
        let stdin = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .context("standard output of a process")?;
        let events = events.clone();
        thread::spawn(move || listen(party, stdout, &events));
        Ok(Self { child, stdin })
    }

    /// Returns the process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a message to the process.
    pub(super) fn tell(&mut self, what: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        let stdin = self.stdin.as_mut().context("its input is already closed")?;
        stdin
            .write_all(&line)
            .context("the process does not listen")
    }

    /// Closes its standard input, so that it ends.
    pub(super) fn dismiss(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end after [`Self::dismiss`].
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        let child = &mut self.child;
        let look = || child.try_wait().ok().flatten();
        let status = wait_for("the process ends", END, look, Option::is_some)?;
        ensure!(
            status.is_some_and(|it| it.success()),
            "it failed: {status:?}"
        );
        Ok(())
    }
}

impl Drop for Process {
    /// Lets the process end by itself, so that it can clean up. Kills it at the timeout.
    fn drop(&mut self) {
        self.dismiss();
        if self.end().is_err() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Forwards the output of a process until the receiver is dropped or the process ends.
fn listen(party: Party, stdout: ChildStdout, events: &SyncSender<Event>) {
    for line in BufReader::new(stdout).lines() {
        let message = line
            .map_err(anyhow::Error::from)
            .and_then(|line| protocol::parse(&line));
        let event = match message {
            Ok(message) => Event::Message(party, message),
            Err(error) => Event::OutputEnded(party, Some(error)),
        };
        if events.send(event).is_err() {
            return;
        }
    }
    events.send(Event::OutputEnded(party, None)).ok();
}

/// Starts a thread that converts termination signals to an event.
pub(super) fn heed_signals(events: SyncSender<Event>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime for signals")?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        events.send(Event::Interrupted).ok();
    });
    Ok(())
}
