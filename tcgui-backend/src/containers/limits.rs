//! Limits for each engine. Engines are not trusted, and some belong to users.

use std::time::Duration;

use crate::token_bucket::TokenBucket;

/// Containers of one engine that are followed at a time. The rest is left out, and said once.
pub(super) const MAX_CONTAINERS: usize = 1024;
/// Inspections of one engine that run at a time: enough to hide the latency of an engine, too few to be a
/// load on it.
pub(super) const MAX_LOOKS: usize = 4;
/// The longest event, in bytes: one of a container with many labels has a few thousand.
pub(super) const MAX_EVENT: usize = 64 * 1024;
/// The longest list, in bytes: a thousand containers with their labels and mounts take two million.
pub(super) const MAX_LIST: usize = 8 * 1024 * 1024;
/// The longest description of one container, in bytes; usually a few thousand.
pub(super) const MAX_INSPECT: usize = 2 * 1024 * 1024;
/// The longest answer to a ping, in bytes; it is `OK`.
pub(super) const MAX_PING: usize = 4 * 1024;
/// What hyper keeps of a connection at most, in bytes, headers in particular.
pub(super) const MAX_BUFFER: usize = 64 * 1024;
/// The most headers of an answer; engines send about ten.
pub(super) const MAX_HEADERS: usize = 64;
/// The longest image name that is passed on, in bytes.
pub(super) const MAX_IMAGE: usize = 256;
/// The longest container name that is passed on, in bytes; as a directory entry may be.
pub(super) const MAX_NAME: usize = 255;
/// Names of one container in a list that are compared.
pub(super) const MAX_NAMES: usize = 8;

/// How long an engine may take to answer a question; what takes longer hangs. Events are different: an engine may
/// be silent for as long as nothing happens.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// How long the first list waits for the answer to the subscription. Engines answer within milliseconds, or not before
/// the first event.
pub(super) const SUBSCRIPTION: Duration = Duration::from_millis(100);
/// First and longest pause before the next attempt to talk to an engine that failed.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A session that lasted this long was none of a series of failures.
pub(super) const STABLE: Duration = Duration::from_secs(5);
/// How often an engine is listed that refuses to send events.
pub(super) const LIST_WITHOUT_EVENTS: Duration = Duration::from_secs(2);
/// How soon such an engine is asked for events again.
pub(super) const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(30);
/// The shortest interval between two lists of one engine, whatever `--sweep-interval` is.
pub(super) const SHORTEST_LIST_INTERVAL: Duration = Duration::from_secs(1);
/// How soon is listed again what did not fit or could not be inspected.
pub(super) const LIST_AGAIN: Duration = Duration::from_secs(5);
/// Time between two looks for sockets while the kernel cannot announce them.
pub(super) const UNWATCHED: Duration = Duration::from_secs(2);
/// Looks at the containers of one engine: one at each container at once, then one every 5 ms. This is more often than
/// any engine starts containers, and too seldom for inventions to be a load.
pub(super) const LOOKS: TokenBucket = TokenBucket::new(1024, Duration::from_millis(1024 * 5));
/// Bytes of events: 1 MiB at once, and as much again after a pause of 100 ms. This is a hundred times what a busy
/// engine sends.
pub(super) const EVENT_BYTES: TokenBucket =
    TokenBucket::new(1024 * 1024, Duration::from_millis(100)).resume_with(1024 * 1024);
/// The most that is read of a file of events at once, in bytes; more means that something is missed, and listed.
pub(super) const MAX_UNREAD: u64 = 256 * 1024;
/// Reports of engines that wait for the actor; engines wait beyond that.
pub(super) const REPORTS: usize = 16;
/// Lines of the log for one engine: eight at once, then eight a minute. This is enough for every change of an engine
/// that restarts now and then. What changes more often is logged with `--verbose`.
pub(super) const LINES: TokenBucket = TokenBucket::new(8, Duration::from_secs(60));

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Returns how much is spent in a time, in portions, as soon as the limit allows it.
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
