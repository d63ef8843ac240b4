//! Reports the usable named network namespaces, as soon as the kernel announces a change.
//!
//! One actor owns the `notify` watches (on the netns directory and on every directory that its path leads
//! through), the mount-table doorbell, the exit watches on the processes behind symbolic links, and the fallback
//! sweep. An event is only a doorbell: it shows that something changed, not what. The actor then looks at the
//! entry or the directory, compares the result with the known state, and reports the difference.
//!
//! ```text
//!  /, /run         notify ─┐
//!  /run/netns      notify ─┤ doorbell.rs   ring   ┌────────────────┐  look   ┌──────────┐
//!  /proc/self/mountinfo  ──┼─────────────────────▶│ task.rs: select│────────▶│ probe.rs │
//!  exits of processes    ──┤ link_processes.rs    └───────┬────────┘◀────────│ route.rs │
//!  backoff, sweep timers ──┘                              │                  └──────────┘
//!                                                 ring,   │    ▲          observations
//!                                                 observe ▼    │ next look, wake-up time
//!                                                 ┌────────────┴───┐  NamespaceEvent
//!                                                 │ directory.rs   │────────────────▶ consumer
//!                                                 └────────────────┘
//! ```
//!
//! Inputs: doorbells and timers. Outputs: [`NamespaceEvent`]s, as fast as the consumer takes them. Events that it
//! has not taken yet are merged, and it then gets the difference to the current state. The actor ends when its
//! token is cancelled or its handle is dropped.
//!
//! # As a library
//!
//! The module needs neither the bus nor the rest of the daemon. A program that uses only the watcher depends on the crate with
//! `default-features = false`. It then needs tokio, tokio-util, notify, tracing and nix, with their dependencies 31 crates. A
//! debug build of them takes about 20 s of processor time.
//!
//! | function | the actor runs in | for |
//! |---|---|---|
//! | [`list_and_watch`] | a task that the returned handle owns | most programs |
//! | [`open`] | the caller, which polls [`Task::run`] | programs with a supervisor of their own |
//!
//! Events come from [`NamespaceWatcherHandle::next`], or from the handle as a [`Stream`](futures_core::Stream).
//! Both are cancel-safe.
//!
//! ```
//! use std::os::unix::fs::symlink;
//! use tcgui_backend::namespace_watcher::{NamespaceEvent, WatchConfig, list_and_watch};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let netns = tempfile::tempdir()?;
//! let config = WatchConfig { directory: netns.path().to_owned(), ..WatchConfig::default() };
//! let (now, mut watcher) = list_and_watch(config, CancellationToken::new()).await?;
//! assert!(now.is_empty());
//!
//! // A symbolic link to a namespace is a name of it, and takes no privilege.
//! symlink("/proc/self/ns/net", netns.path().join("own"))?;
//! let event = watcher.next().await;
//! assert!(matches!(event, Some(NamespaceEvent::Added { name, .. }) if name == "own"));
//! # Ok(())
//! # }
//! ```
//!
//! ## Guarantees
//!
//! - The snapshot and the events after it leave no gap: the doorbells are opened before the first look.
//! - For one name, [`Added`](NamespaceEvent::Added) and [`Removed`](NamespaceEvent::Removed) alternate. A
//!   recreated name is removed with its old identity before it is added with the new one.
//! - A namespace that was added can be entered. Placeholder files and namespaces of another type are not reported.
//!   The namespace may be deleted before the consumer reads the event; its `Removed` event then follows.
//! - A slow consumer gets the difference to the current state, not each step, so the memory use is bounded. An
//!   entry that was created and deleted between two looks is not reported.
//! - A doorbell may be missing, because of inotify limits or a mount table without propagation. Sweeps then find
//!   the changes: within [`degraded_sweep_interval`](WatchConfig) while a doorbell is missing, within
//!   [`sweep_interval`](WatchConfig) otherwise. [`StatusHandle::ask`] names the missing ones.
//! - No file descriptor of a namespace stays open: `ip netns del` frees a namespace at once.
//!
//! ## Privileges and limits
//!
//! The watcher needs no capability to read the names and identities of a readable directory. It uses one inotify
//! instance with a watch on each directory of the path, one thread of notify, one descriptor for each process
//! behind a symbolic link (at most 256), and a few other descriptors. Without the inotify instance
//! (`fs.inotify.max_user_instances`) it sweeps. It runs on Linux 4.11 or later (exit watches need 5.3), in a tokio
//! runtime with I/O and time enabled.

mod directory;
mod doorbell;
mod handle;
mod link_processes;
mod probe;
mod route;
mod status;
mod task;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use crate::kernel::netns::MountedNamespaceId;
pub use doorbell::Doorbell;
pub use handle::NamespaceWatcherHandle;
pub use status::{DoorbellState, DoorbellStatus, EntryStatus, StatusHandle, WatcherStatus};
pub use task::Task;

/// Capacity of the event queue. While it is full, events are merged in the actor.
const EVENTS: usize = 256;
/// Capacity of the queue of status requests.
const QUESTIONS: usize = 4;

/// A usable network namespace and the name it has in the directory.
///
/// Ordered by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace {
    /// The bytes of the directory entry: any but `/` and NUL, at most 255.
    pub name: OsString,
    /// The identity of the namespace. A new namespace of the same name has another one.
    pub id: MountedNamespaceId,
}

/// A difference between the reported and the current state.
///
/// For one name, events alternate: `Removed` of the old identity comes before `Added` of a new one. The events of
/// the directory alternate too. Before the directory is reported as vanished, all its namespaces are reported as
/// removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceEvent {
    /// The netns directory exists (again).
    DirectoryAppeared,
    /// The netns directory was deleted. All its namespaces were reported as removed before.
    DirectoryVanished,
    /// The namespace exists and can be entered.
    Added {
        /// The entry's name.
        name: OsString,
        /// Its identity.
        id: MountedNamespaceId,
    },
    /// The name no longer leads to this namespace, though its file may still be there.
    Removed {
        /// The entry's name.
        name: OsString,
        /// The identity it was added with.
        id: MountedNamespaceId,
    },
}

/// The directory to watch, and the sweep intervals.
#[derive(Debug, Clone)]
pub struct WatchConfig {
    /// The netns directory. It does not have to exist.
    pub directory: PathBuf,
    /// Time between full sweeps while every doorbell works.
    pub sweep_interval: Duration,
    /// Time between full sweeps while a doorbell is missing.
    pub degraded_sweep_interval: Duration,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/run/netns"),
            sweep_interval: Duration::from_secs(30),
            degraded_sweep_interval: Duration::from_secs(1),
        }
    }
}

/// Why the watcher cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// `/proc` does not show the caller's own namespace.
    #[error("cannot read /proc/self/ns/net: is /proc mounted?")]
    OwnNamespace(#[source] io::Error),
    /// The path cannot be that of a netns directory.
    #[error("{directory:?} cannot be a netns directory: give an absolute path below /")]
    Unwatchable {
        /// The path as configured.
        directory: PathBuf,
    },
    /// The directory exists but cannot be listed.
    #[error("cannot read the netns directory {directory:?} ({})", advice(err))]
    ReadDirectory {
        /// The path as configured.
        directory: PathBuf,
        /// The error of the system call.
        #[source]
        err: io::Error,
    },
}

fn advice(err: &io::Error) -> &'static str {
    match err.kind() {
        io::ErrorKind::NotADirectory => "it is no directory: point --netns-dir elsewhere",
        io::ErrorKind::PermissionDenied => "grant CAP_DAC_READ_SEARCH, or make it readable",
        _ => "check --netns-dir",
    }
}

/// Looks at the directory once. Returns the namespaces, and the actor that reports every later change.
///
/// The actor does nothing before [`Task::run`] is polled. No change is lost until then, because the doorbells are
/// opened before the first look.
///
/// ```
/// use tcgui_backend::namespace_watcher::{NamespaceEvent, WatchConfig, open};
/// use tokio_util::sync::CancellationToken;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let parent = tempfile::tempdir()?;
/// let directory = parent.path().join("netns");
/// let config = WatchConfig { directory: directory.clone(), ..WatchConfig::default() };
/// let (now, mut watcher, task) = open(config).await?;
/// assert!(now.is_empty(), "a directory that is not there yet is no error");
///
/// let stop = CancellationToken::new();
/// let follow = async {
///     std::fs::create_dir(&directory)?;
///     assert_eq!(watcher.next().await, Some(NamespaceEvent::DirectoryAppeared));
///     stop.cancel();
///     std::io::Result::Ok(())
/// };
/// let ((), followed) = tokio::join!(task.run(stop.clone()), follow);
/// followed?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`WatchError`] if the directory exists but is unreadable, if the path cannot be that of a directory below `/`,
/// or if `/proc` is missing. A missing directory and unavailable doorbells are no errors.
///
/// # Cancellation
/// Dropping the future before it is ready closes all doorbells.
pub async fn open(
    config: WatchConfig,
) -> Result<(Vec<Namespace>, NamespaceWatcherHandle, Task), WatchError> {
    let (tx, events) = mpsc::channel(EVENTS);
    let (asked, questions) = mpsc::channel(QUESTIONS);
    let (namespaces, directory, task) = Task::open(config, tx, questions).await?;
    let handle = NamespaceWatcherHandle::new(events, directory, StatusHandle::new(asked));
    Ok((namespaces, handle, task))
}

/// Returns the namespaces, and a handle that receives every later change exactly once.
///
/// The actor runs as a task of the current runtime, owned by the handle. It ends when `stop` is cancelled or the handle is
/// dropped. If it panics, the call that waits for its events panics too.
///
/// # Errors
/// As [`open`].
///
/// # Cancellation
/// As [`open`]. The actor is not started before the future is ready.
pub async fn list_and_watch(
    config: WatchConfig,
    stop: CancellationToken,
) -> Result<(Vec<Namespace>, NamespaceWatcherHandle), WatchError> {
    let (namespaces, mut handle, task) = open(config).await?;
    handle.own(task.run(stop));
    Ok((namespaces, handle))
}
