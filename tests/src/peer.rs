//! Members of the bus in separate processes, which can be frozen and killed.
//!
//! Their code is in `src/bin/bus-peer.rs`. They print a line for each completed step.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use nix::sys::signal::Signal;

use crate::process::{Companion, bound_to_parent};
use crate::wait::patience;

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<BTreeSet<String>>,
    more: Condvar,
}

/// A process on the bus. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Peer {
    process: Companion,
    output: Arc<Output>,
}

impl Peer {
    /// Starts the program `bus-peer` in one of its roles.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(program: &str, role: &[&str]) -> anyhow::Result<Self> {
        let (process, stdout) = Companion::start_piped(bound_to_parent(program).args(role))?;
        let output = Arc::new(Output::default());
        let listener = Arc::clone(&output);
        // This thread ends with the process, whose end closes the pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut lines = listener
                    .lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                lines.insert(line);
                listener.more.notify_all();
            }
        });
        Ok(Self { process, output })
    }

    /// Waits until it has printed this line.
    ///
    /// # Errors
    ///
    /// When the deadline passes first. The message contains its output.
    pub fn wait_for_line(&self, line: &str, deadline: Duration) -> anyhow::Result<()> {
        let lines = self.output.lines.lock();
        let missing = |lines: &mut BTreeSet<String>| !lines.contains(line);
        let (lines, timeout) = self
            .output
            .more
            .wait_timeout_while(
                lines.unwrap_or_else(PoisonError::into_inner),
                deadline * patience(),
                missing,
            )
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(
            !timeout.timed_out(),
            "did not print {line:?} within {deadline:?}, but: {lines:?}"
        );
        Ok(())
    }

    /// Returns whether it has printed this line.
    #[must_use]
    pub fn has_printed(&self, line: &str) -> bool {
        let lines = self.output.lines.lock();
        lines.unwrap_or_else(PoisonError::into_inner).contains(line)
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// When the signal cannot be delivered.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process.signal(signal)
    }

    /// Kills it.
    ///
    /// # Errors
    ///
    /// When it had already ended.
    pub fn kill(self) -> anyhow::Result<()> {
        self.process.kill()
    }
}
