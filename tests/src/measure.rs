//! Measured values: summarised, and reported also when the test passes.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;

/// Lines of a test's output that reach the terminal whatever the outcome.
pub(crate) const PREFIX: &str = "measured: ";

/// Writes a measured value where a person who runs the tests sees it.
///
/// # Errors
///
/// When standard error is closed.
pub fn report(text: impl fmt::Display) -> io::Result<()> {
    writeln!(io::stderr(), "\n{PREFIX}{text}")
}

/// Times of one kind of event.
#[derive(Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that this share of them (in percent) does not exceed.
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
