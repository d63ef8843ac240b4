//! What an engine may cost, whatever it says. Engines are programs of others, some of them of users.

use std::time::Duration;

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
/// The shortest interval between two lists of one engine, whatever `--sweep-interval` is.
pub(super) const SHORTEST_LIST_INTERVAL: Duration = Duration::from_secs(1);
/// How soon is listed again what did not fit or could not be inspected.
pub(super) const LIST_AGAIN: Duration = Duration::from_secs(5);
/// Time between two looks for sockets while the kernel cannot announce them.
pub(super) const UNWATCHED: Duration = Duration::from_secs(2);
/// How many looks at an engine may begin at once, after quiet: one at each container.
pub(super) const LOOKS_BURST: u32 = 1024;
/// How soon one more may begin when those are used up: more often than any engine starts containers, and too
/// seldom for inventions to be a load.
pub(super) const LOOKS_PAUSE: Duration = Duration::from_millis(5);
/// How many bytes of events are read within each [`BUDGET_WINDOW`]: a hundred times what a busy engine says.
pub(super) const BUDGET: usize = 1024 * 1024;
/// See [`BUDGET`].
pub(super) const BUDGET_WINDOW: Duration = Duration::from_millis(100);
/// The most that is read of a file of events at once, in bytes; more means that something is missed, and listed.
pub(super) const MAX_UNREAD: u64 = 256 * 1024;
/// Reports of engines that wait for the actor; engines wait beyond that.
pub(super) const REPORTS: usize = 16;
/// Lines of the log for one engine within each [`LINES_WINDOW`]: enough for every change of one that restarts now
/// and then. What changes more often is still said with `--verbose`.
pub(super) const LINES: u32 = 8;
/// See [`LINES`].
pub(super) const LINES_WINDOW: Duration = Duration::from_secs(60);
