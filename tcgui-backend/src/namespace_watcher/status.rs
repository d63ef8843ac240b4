//! The status of the watcher: its doorbells with their last events, and the state of one entry.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::{Doorbell, MountedNamespaceId};

/// Requests the status of a watcher. Cheap to clone.
///
/// ```
/// use tcgui_backend::namespace_watcher::{DoorbellState, EntryStatus, WatchConfig, list_and_watch};
/// use tokio_util::sync::CancellationToken;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let netns = tempfile::tempdir()?;
/// # let config = WatchConfig { directory: netns.path().to_owned(), ..WatchConfig::default() };
/// std::fs::write(netns.path().join("placeholder"), "")?;
/// let (_, watcher) = list_and_watch(config, CancellationToken::new()).await?;
/// let status = watcher.status().ask(Some("placeholder".into())).await.expect("it runs");
/// assert!(matches!(status.entry, EntryStatus::Pending { .. }));
/// assert!(status.doorbells.iter().all(|bell| bell.state == DoorbellState::Works));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StatusHandle {
    questions: mpsc::Sender<Question>,
}

/// A status request and its reply channel.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) name: Option<OsString>,
    pub(super) reply: oneshot::Sender<WatcherStatus>,
}

impl StatusHandle {
    pub(super) fn new(questions: mpsc::Sender<Question>) -> Self {
        Self { questions }
    }

    /// Returns the status, including that of the entry `name`. `None`: the watcher has ended.
    ///
    /// The watcher replies only while [`Task::run`](super::Task::run) is polled, between two looks. A sweep of a
    /// directory with thousands of entries delays the reply by milliseconds. Cancel-safe: the reply to a cancelled
    /// request is dropped.
    pub async fn ask(&self, name: Option<OsString>) -> Option<WatcherStatus> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(Question { name, reply }).await.ok()?;
        answer.await.ok()
    }
}

/// The status of a watcher.
#[derive(Debug, Clone)]
pub struct WatcherStatus {
    /// Whether the netns directory existed at the last look.
    pub directory_exists: bool,
    /// Whether the last sweep could not read the directory.
    pub unreadable: bool,
    /// Every doorbell, including the missing ones.
    pub doorbells: Vec<DoorbellStatus>,
    /// The current time between sweeps without an event.
    pub sweep_interval: Duration,
    /// When the last sweep ended.
    pub last_sweep: Option<Instant>,
    /// The status of the entry that was requested.
    pub entry: EntryStatus,
}

/// The status of one doorbell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorbellStatus {
    /// The doorbell.
    pub doorbell: Doorbell,
    /// Whether it works.
    pub state: DoorbellState,
    /// When its last event arrived, including events without effect.
    pub last_rang: Option<Instant>,
}

/// Whether a doorbell works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DoorbellState {
    /// It reports changes.
    Works,
    /// There is nothing to watch: the directory does not exist.
    NothingToWatch,
    /// It is not available. Sweeps replace it, and opening it is retried.
    Missing {
        /// The error with all its causes, if there was one.
        reason: Option<String>,
    },
}

/// The state of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryStatus {
    /// The entry did not exist at the last look, or no name was requested.
    Unknown,
    /// A network namespace, which was reported or will be reported next.
    Network(MountedNamespaceId),
    /// A namespace of another type, which is not reported.
    OtherNamespace(MountedNamespaceId),
    /// Not a namespace yet. The watcher waits for the mount.
    Pending {
        /// Number of looks so far.
        looks: u32,
    },
    /// Not a namespace. The watcher no longer looks at it repeatedly; doorbells and sweeps still cause a look.
    GivenUp,
}
