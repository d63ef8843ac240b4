//! Measured values: summaries and reports. They are also printed for tests that pass.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;

/// The prefix of output lines that are always printed, whether the test passes or fails.
pub(crate) const PREFIX: &str = "measured: ";

/// Prints a measured value to the terminal of the test run.
///
/// # Errors
///
/// When standard error is closed.
pub fn report(text: impl fmt::Display) -> io::Result<()> {
    writeln!(io::stderr(), "\n{PREFIX}{text}")
}

/// Durations of one kind of event.
#[derive(Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds a duration.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Number of durations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no durations yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The duration that this percentage of them does not exceed.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub fn percentile(&self, percent: usize) -> anyhow::Result<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted.get(rank).copied().context("nothing was measured")
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |percent| self.percentile(percent).unwrap_or_default();
        write!(
            f,
            "n={} p50 {:.1?} p90 {:.1?} max {:.1?}",
            self.0.len(),
            at(50),
            at(90),
            at(100)
        )
    }
}
