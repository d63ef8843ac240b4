//! Which named network namespaces exist and are usable, known the moment it becomes true.
//!
//! One actor owns the `notify` watches (on the netns directory and on every directory that its path leads
//! through), the mount-table doorbell, the watches on the ends of processes behind symbolic links, and the
//! fallback poll. Every event is only a doorbell: the actor looks again, compares with what it knew, and
//! reports the difference.
//!
//! ```text
//!  /, /run         notify ─┐
//!  /run/netns      notify ─┤ doorbell.rs   ring   ┌────────────────┐  look   ┌──────────┐
//!  /proc/self/mountinfo  ──┼─────────────────────▶│ task.rs: select│────────▶│ probe.rs │
//!  ends of processes     ──┤ link_processes.rs    └───────┬────────┘◀────────│ route.rs │
//!  backoff, sweep timers ──┘                              │                  └──────────┘
//!                                                 ring,   │    ▲          observations
//!                                                 observe ▼    │ what next, when to wake
//!                                                 ┌────────────┴───┐  NamespaceEvent
//!                                                 │ directory.rs   │────────────────▶ consumer
//!                                                 └────────────────┘
//! ```
//!
//! Inputs: doorbells and timers. Outputs: [`NamespaceEvent`]s, at the consumer's pace: what it has not
//! taken yet is merged, and it then gets the difference to the present. It ends when its token is
//! cancelled or its handle is dropped.
//!
//! # As a library
//!
//! The module needs neither the bus nor the rest of the daemon. A program that uses only the watcher depends on the crate with
//! `default-features = false`. It then needs tokio, tokio-util, notify, tracing and nix, with their dependencies 31 crates. A
//! debug build of them takes about 20 s of processor time.
//!
//! | function | who runs the actor | for |
//! |---|---|---|
//! | [`list_and_watch`] | the handle that it returns | most programs |
//! | [`open`] | the caller, by polling [`Task::run`] | programs with a supervisor of their own |
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
//! ## What holds
//!
//! - The snapshot and the events after it make one gapless story: listening begins before looking.
//! - For one name, [`Added`](NamespaceEvent::Added) and [`Removed`](NamespaceEvent::Removed) alternate, and
//!   a recreated name is removed with its old identity before it is added with the new one.
//! - A namespace that was added can be entered: a placeholder file is not reported, nor a namespace of
//!   another type. When the event is read it may be gone again; its `Removed` is then still to come.
//! - A consumer that is slow gets the difference to the present when it comes back, not each step; nothing
//!   grows meanwhile. An entry that came and went between two of its looks is not told.
//! - A doorbell may be missing, because of inotify limits or a mount table without propagation. Sweeps then find the changes:
//!   within [`degraded_sweep_interval`](WatchConfig) while a doorbell is missing, within [`sweep_interval`](WatchConfig)
//!   otherwise. [`StatusHandle::ask`] names the missing ones.
//! - Nothing that is found is kept open: `ip netns del` frees a namespace at once.
//!
//! ## Privileges and limits
//!
//! None of the capabilities is needed to learn names and identities of a directory that may be read. The
//! watcher takes one inotify instance with a watch on each directory of the path, the thread that notify reads it
//! on, a descriptor for each process behind a symbolic link (at most 256), and a handful of others. Without the
//! inotify instance (`fs.inotify.max_user_instances`) it sweeps. It runs on Linux 4.11 or later (the
//! ends of processes need 5.3), in a tokio runtime with I/O and time enabled.

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

/// How many events wait for a busy consumer; beyond that they are merged in the actor.
const EVENTS: usize = 256;
/// How many may ask for the status at once; each is answered within one look.
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

/// A difference between what the consumer was told and what is.
///
/// For one name, events alternate: `Removed` of the old identity comes before `Added` of a new one. For the
/// directory likewise, and a directory that vanishes takes its namespaces along first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceEvent {
    /// The netns directory exists (again).
    DirectoryAppeared,
    /// The netns directory is gone; all its namespaces were reported removed before.
    DirectoryVanished,
    /// The namespace can be entered from now on.
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

/// What to watch, and how often to look when nothing rings.
#[derive(Debug, Clone)]
pub struct WatchConfig {
    /// The netns directory; it need not exist.
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

/// Why watching could not begin.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// `/proc` does not show the caller's own namespace.
    #[error("cannot read /proc/self/ns/net: is /proc mounted?")]
    OwnNamespace(#[source] io::Error),
    /// The path names no directory that could be watched.
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
        /// What the kernel said.
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

/// Looks once and returns what is there, with the actor that will report every later change.
///
/// Nothing happens before [`Task::run`] is polled, and nothing is lost until then: the doorbells are
/// hung up before the first look.
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
/// [`WatchError`] when the directory exists but is unreadable, when the path can name no directory below
/// `/`, or when `/proc` is missing. A directory that does not exist, or doorbells that cannot be had, are
/// no errors.
///
/// # Cancellation
/// Dropping the future before it is ready removes all doorbells.
pub async fn open(
    config: WatchConfig,
) -> Result<(Vec<Namespace>, NamespaceWatcherHandle, Task), WatchError> {
    let (tx, events) = mpsc::channel(EVENTS);
    let (asked, questions) = mpsc::channel(QUESTIONS);
    let (namespaces, directory, task) = Task::open(config, tx, questions).await?;
    let handle = NamespaceWatcherHandle::new(events, directory, StatusHandle::new(asked));
    Ok((namespaces, handle, task))
}

/// Snapshot and stream with nothing lost and nothing twice between them.
///
/// The actor runs as a task of the current runtime, owned by the handle. It ends when `stop` is cancelled or the handle is
/// dropped. If it panics, the call that waits for its events panics too.
///
/// # Errors
/// As [`open`].
///
/// # Cancellation
/// As [`open`]; the actor is not there before the future is ready.
pub async fn list_and_watch(
    config: WatchConfig,
    stop: CancellationToken,
) -> Result<(Vec<Namespace>, NamespaceWatcherHandle), WatchError> {
    let (namespaces, mut handle, task) = open(config).await?;
    handle.own(task.run(stop));
    Ok((namespaces, handle))
}
