//! The status of the watcher: its doorbells, when they rang, and its view of a name.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::{Doorbell, MountedNamespaceId};

/// To ask a watcher about itself; cheap to clone.
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

/// A question, and where the answer goes.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) name: Option<OsString>,
    pub(super) reply: oneshot::Sender<WatcherStatus>,
}

impl StatusHandle {
    pub(super) fn new(questions: mpsc::Sender<Question>) -> Self {
        Self { questions }
    }

    /// Asks for the status, with what is known of the entry `name`; `None` once the watcher has ended.
    ///
    /// A watcher answers while [`Task::run`](super::Task::run) is polled, and not before. It does so between two looks, so while it sweeps a directory of thousands this takes milliseconds.
    /// Cancel-safe: the reply to a cancelled question is dropped.
    pub async fn ask(&self, name: Option<OsString>) -> Option<WatcherStatus> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(Question { name, reply }).await.ok()?;
        answer.await.ok()
    }
}

/// A watcher at one moment.
#[derive(Debug, Clone)]
pub struct WatcherStatus {
    /// Whether the netns directory was there at the last look.
    pub directory_exists: bool,
    /// Whether the last sweep could not read the directory.
    pub unreadable: bool,
    /// Every doorbell, there or not.
    pub doorbells: Vec<DoorbellStatus>,
    /// How soon everything is looked at though nothing rings, as things are.
    pub sweep_interval: Duration,
    /// When everything was looked at the last time.
    pub last_sweep: Option<Instant>,
    /// What is known of the name that was asked about.
    pub entry: EntryStatus,
}

/// One doorbell at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorbellStatus {
    /// Which.
    pub doorbell: Doorbell,
    /// Whether it can ring.
    pub state: DoorbellState,
    /// When it last rang, for any reason.
    pub last_rang: Option<Instant>,
}

/// Whether a doorbell can ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DoorbellState {
    /// It rings when something happens.
    Works,
    /// There is nothing to hang it on: the directory does not exist.
    NothingToWatch,
    /// It could not be had; sweeps stand in for it, and it is tried again.
    Missing {
        /// Why, with all causes, where the kernel said.
        reason: Option<String>,
    },
}

/// What a watcher makes of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryStatus {
    /// Nothing of that name was there at the last look, or no name was asked about.
    Unknown,
    /// A network namespace, which was reported or is about to be.
    Network(MountedNamespaceId),
    /// A namespace of another type, which is not reported.
    OtherNamespace(MountedNamespaceId),
    /// No namespace yet: its mount is waited for.
    Pending {
        /// How often it was looked at so far.
        looks: u32,
    },
    /// No namespace, and it is not waited for any more. Doorbells and sweeps still look at it.
    GivenUp,
}
