//! Limits for each engine. Engines are not trusted, and some belong to users.

use std::time::Duration;

use crate::token_bucket::TokenBucket;

/// Containers of one engine that are followed at a time. Others are ignored, which is logged once.
pub(super) const MAX_CONTAINERS: usize = 1024;
/// Concurrent inspections of one engine: enough to hide the latency of an engine, and too few to load it.
pub(super) const MAX_LOOKS: usize = 4;
/// The longest event, in bytes. An event of a container with many labels has a few thousand.
pub(super) const MAX_EVENT: usize = 64 * 1024;
/// The longest list, in bytes. A list of a thousand containers with labels and mounts has two million.
pub(super) const MAX_LIST: usize = 8 * 1024 * 1024;
/// The longest description of one container, in bytes. Usually it has a few thousand.
pub(super) const MAX_INSPECT: usize = 2 * 1024 * 1024;
/// The longest reply to a ping, in bytes. The usual reply is `OK`.
pub(super) const MAX_PING: usize = 4 * 1024;
/// Limit of hyper's buffer for a connection, in bytes. It bounds the headers in particular.
pub(super) const MAX_BUFFER: usize = 64 * 1024;
/// The most headers of a reply. Engines send about ten.
pub(super) const MAX_HEADERS: usize = 64;
/// The longest image name that is reported, in bytes.
pub(super) const MAX_IMAGE: usize = 256;
/// The longest container name that is reported, in bytes, as for a directory entry.
pub(super) const MAX_NAME: usize = 255;
/// Names of one container in a list that are read.
pub(super) const MAX_NAMES: usize = 8;

/// Timeout of a reply. It does not apply to events, because an engine may be idle for any time.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// How long the first list waits for the reply to the subscription. Engines reply within milliseconds, or not
/// before the first event.
pub(super) const SUBSCRIPTION: Duration = Duration::from_millis(100);
/// First and longest delay before the next attempt to connect to an engine that failed.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Age at which a session counts as stable. Shorter sessions count as failures in a row.
pub(super) const STABLE: Duration = Duration::from_secs(5);
/// Interval of the lists of an engine that refuses to send events.
pub(super) const LIST_WITHOUT_EVENTS: Duration = Duration::from_secs(2);
/// Delay before the subscription to such an engine is retried.
pub(super) const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(30);
/// The shortest interval between two lists of one engine, also for a shorter `--sweep-interval`.
pub(super) const SHORTEST_LIST_INTERVAL: Duration = Duration::from_secs(1);
/// Delay of the next list after containers did not fit or could not be inspected.
pub(super) const LIST_AGAIN: Duration = Duration::from_secs(5);
/// Interval of the checks for sockets while changes are not reported.
pub(super) const UNWATCHED: Duration = Duration::from_secs(2);
/// Inspections of one engine: a burst of 1024, one for each container, then one every 5 ms. No engine starts
/// containers faster, and false events cannot cause more load than this.
pub(super) const LOOKS: TokenBucket = TokenBucket::new(1024, Duration::from_millis(1024 * 5));
/// Bytes of events: 1 MiB at once, and as much again after a pause of 100 ms. This is a hundred times what a busy
/// engine sends.
pub(super) const EVENT_BYTES: TokenBucket =
    TokenBucket::new(1024 * 1024, Duration::from_millis(100)).resume_with(1024 * 1024);
/// The most that is read of an events file at once, in bytes. If there is more, the rest is skipped and the
/// containers are listed.
pub(super) const MAX_UNREAD: u64 = 256 * 1024;
/// Capacity of the queue of engine reports. Sessions wait while it is full.
pub(super) const REPORTS: usize = 16;
/// Log lines for one engine: eight at once, then eight a minute. This is enough for every change of an engine that
/// restarts occasionally. More frequent changes are logged only with `--verbose`.
pub(super) const LINES: TokenBucket = TokenBucket::new(8, Duration::from_secs(60));

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Returns the amount that is spent within `time`, if portions are spent as soon as the limit allows it.
    fn spent_within(mut limit: TokenBucket, portion: u32, time: Duration) -> u32 {
        let begin = Instant::now();
        let (mut now, mut spent) = (begin, 0);
        while now <= begin + time {
            limit.spend(now, portion);
            spent += portion;
            now = limit.not_before().map_or(now, |at| now.max(at));
        }
        spent
    }

    #[test]
    fn limits_are_as_documented() {
        let (moment, minute) = (Duration::ZERO, Duration::from_secs(60));
        assert_eq!(spent_within(LOOKS, 1, moment), 1024);
        assert_eq!(spent_within(LOOKS, 1, minute), 1024 + 200 * 60);
        assert_eq!(spent_within(LINES, 1, moment), 8);
        assert_eq!(spent_within(LINES, 1, minute), 8 + 8);
        let second = Duration::from_secs(1);
        let bytes = spent_within(EVENT_BYTES, 64 * 1024, second);
        assert_eq!(bytes, 11 * 1024 * 1024, "10 MiB/s and the first MiB");
    }
}
