//! Waits for a condition, never for a fixed duration.

use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::bail;

/// Interval between checks: short compared with every deadline, long compared with the cost of a check.
const INTERVAL: Duration = Duration::from_millis(5);

/// The variable with the factor of all deadlines, for machines with slow system calls. Limits are not changed.
const PATIENCE: &str = "TCGUI_PATIENCE";

/// The factor of all deadlines: the value of `TCGUI_PATIENCE`, by default 1.
#[must_use]
pub fn patience() -> u32 {
    static FACTOR: LazyLock<u32> = LazyLock::new(|| {
        let factor = env::var(PATIENCE).ok();
        factor.and_then(|text| text.parse().ok()).unwrap_or(1)
    });
    *FACTOR
}

/// Checks repeatedly until the predicate holds, and returns the state that satisfied it.
///
/// # Errors
///
/// When the deadline passes first. The message contains the last state.
pub fn wait_for<S: Debug>(
    what: &str,
    deadline: Duration,
    look: impl FnMut() -> S,
    predicate: impl FnMut(&S) -> bool,
) -> anyhow::Result<S> {
    wait_every(INTERVAL, what, deadline, look, predicate)
}

/// [`wait_for`] with another interval, for measurements finer than 5 ms.
///
/// # Errors
///
/// As [`wait_for`].
pub fn wait_every<S: Debug>(
    interval: Duration,
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> S,
    mut predicate: impl FnMut(&S) -> bool,
) -> anyhow::Result<S> {
    let deadline = deadline * patience();
    let end = Instant::now() + deadline;
    loop {
        let state = look();
        if predicate(&state) {
            return Ok(state);
        }
        if Instant::now() >= end {
            bail!("not within {deadline:?}: {what}; last state: {state:?}");
        }
        pause(interval);
    }
}

/// Checks repeatedly for a period, and fails at the first state that does not satisfy the predicate.
///
/// For conditions that must always hold. Here the period is the subject of the test, not a synchronisation.
///
/// # Errors
///
/// When the predicate does not hold at one check.
pub fn holds_for<S: Debug>(
    what: &str,
    period: Duration,
    mut look: impl FnMut() -> S,
    mut predicate: impl FnMut(&S) -> bool,
) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let state = look();
        if !predicate(&state) {
            bail!(
                "broken after {:?} of {period:?}: {what}; state: {state:?}",
                start.elapsed()
            );
        }
        if start.elapsed() >= period {
            return Ok(());
        }
        pause(INTERVAL);
    }
}

/// Runs an action at a fixed rate for a period, without drift, and returns the number of runs.
///
/// # Errors
///
/// The first error of the action.
pub fn at_rate(
    per_second: u32,
    period: Duration,
    mut action: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<u32> {
    let start = Instant::now();
    let step = Duration::from_secs(1) / per_second;
    let mut count = 0;
    while start.elapsed() < period {
        action()?;
        count += 1;
        pause((step * count).saturating_sub(start.elapsed()));
    }
    Ok(count)
}

/// Pauses. These threads are never unparked. An early return would only cause one more check.
fn pause(duration: Duration) {
    thread::park_timeout(duration);
}
