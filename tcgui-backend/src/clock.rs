//! The clocks: the monotonic clock for decisions, the wall clock only for times in messages.

use std::time::Instant;
#[cfg(feature = "daemon")]
use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time of Tokio's monotonic clock, which tests can pause.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns the wall clock in seconds since the Unix epoch. 0: the clock is set to an earlier time.
#[cfg(feature = "daemon")]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Returns the wall clock in milliseconds since the Unix epoch. 0: the clock is set to an earlier time.
#[cfg(feature = "daemon")]
pub(crate) fn unix_milliseconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
