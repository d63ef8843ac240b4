//! Progress messages. No other module writes to standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use crate::plan::Situation;

/// Prints one line that is updated on a terminal, or a line for each situation elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    started: Instant,
}

impl Progress {
    /// Creates it for the standard error of this process.
    pub(crate) fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            started: Instant::now(),
        }
    }

    /// Reports that a situation is being prepared.
    pub(crate) fn preparing(&mut self, what: impl fmt::Display) {
        self.started = Instant::now();
        if self.terminal {
            write(format_args!("\r\x1b[K{what}: preparing"));
        }
    }

    /// Reports the progress of a long preparation.
    pub(crate) fn prepared(&self, what: impl fmt::Display, done: usize, of: usize) {
        // Printing is slow compared with an order.
        if self.terminal && done.is_multiple_of(50) {
            write(format_args!("\r\x1b[K{what}: preparing, {done} of {of}"));
        }
    }

    /// Reports that a trial begins.
    pub(crate) fn trial(&self, situation: Situation, trial: usize, of: u32) {
        if self.terminal {
            write(format_args!(
                "\r\x1b[K{situation}: trial {} of {of}",
                trial + 1
            ));
        }
    }

    /// Reports that a situation is complete.
    pub(crate) fn done(&self, situation: Situation, trials: u32) {
        let seconds = self.started.elapsed().as_secs();
        if self.terminal {
            write(format_args!("\r\x1b[K"));
        } else {
            write(format_args!(
                "{situation}: {trials} trials in {seconds} s\n"
            ));
        }
    }
}

/// Prints an error.
pub(crate) fn complain(error: &anyhow::Error) {
    print(format_args!("netns-latency: {error:#}"));
}

/// Prints a message on separate lines.
pub(crate) fn print(text: impl fmt::Display) {
    let start = if io::stderr().is_terminal() {
        "\r\x1b[K"
    } else {
        ""
    };
    write(format_args!("{start}{text}\n"));
}

/// Errors are ignored: standard error may be closed.
fn write(text: fmt::Arguments<'_>) {
    let mut stderr = io::stderr().lock();
    stderr.write_fmt(text).and_then(|()| stderr.flush()).ok();
}
