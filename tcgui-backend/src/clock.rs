//! The wall clock, for what is written on the wire. Decisions are made by the monotonic one.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the wall clock in seconds since the Unix epoch; 0 on a clock set before it.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Returns the wall clock in milliseconds since the Unix epoch; 0 on a clock set before it.
pub(crate) fn unix_milliseconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
