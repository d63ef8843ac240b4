//! Which named network namespaces exist and are usable, known the moment it becomes true.
//!
//! One actor owns the two `notify` watches (on the netns directory and on its parent), the mount-table
//! doorbell and the fallback poll. Every event is only a doorbell: the actor looks again, compares with
//! what it knew, and reports the difference.
//!
//! ```text
//!  /run            notify ─┐
//!  /run/netns      notify ─┤ doorbell.rs   ring   ┌────────────────┐  look   ┌──────────┐
//!  /proc/self/mountinfo  ──┼─────────────────────▶│ task.rs: select│────────▶│ probe.rs │
//!  backoff, sweep timers ──┘                      └───────┬────────┘◀────────└──────────┘
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
//! The module needs neither the bus nor the rest of the daemon:
//!
//! ```no_run
//! # async fn run() -> Result<(), tcgui_backend::namespace_watcher::WatchError> {
//! use tcgui_backend::namespace_watcher::{WatchConfig, list_and_watch};
//! use tokio_util::sync::CancellationToken;
//!
//! let stop = CancellationToken::new();
//! let (now, mut watcher) = list_and_watch(WatchConfig::default(), stop).await?;
//! println!("{} namespaces", now.len());
//! while let Some(event) = watcher.next().await {
//!     println!("{event:?}");
//! }
//! # Ok(())
//! # }
//! ```

mod directory;
mod doorbell;
mod probe;
mod task;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use crate::kernel::netns::MountedNamespaceId;
pub use task::Task;

/// How many events wait for a busy consumer; beyond that they are merged in the actor.
const EVENTS: usize = 256;

/// A usable network namespace and the name it has in the directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace {
    /// The bytes of the directory entry: any but `/` and NUL, at most 255.
    pub name: OsString,
    /// Which namespace it is: a name made anew has another identity.
    pub id: MountedNamespaceId,
}

/// A difference between what the consumer was told and what is.
///
/// For one name, events alternate: `Removed` of the old identity comes before `Added` of a new one.
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

/// The consumer's end of a watcher. Dropping it ends the watcher.
#[derive(Debug)]
pub struct NamespaceWatcherHandle {
    events: mpsc::Receiver<NamespaceEvent>,
    directory: PathBuf,
}

impl NamespaceWatcherHandle {
    /// Returns the watched directory with its parent resolved: what the names are relative to.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Waits for the next event; `None` once the watcher has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<NamespaceEvent> {
        self.events.recv().await
    }
}

/// Looks once and returns what is there, with the actor that will report every later change.
///
/// Nothing happens before [`Task::run`] is polled, and nothing is lost until then: the doorbells are
/// hung up before the first look.
///
/// # Errors
/// [`WatchError`] when the directory exists but is unreadable, or `/proc` is missing. A directory that
/// does not exist, or doorbells that cannot be had, are no errors.
pub async fn open(
    config: WatchConfig,
) -> Result<(Vec<Namespace>, NamespaceWatcherHandle, Task), WatchError> {
    let (tx, events) = mpsc::channel(EVENTS);
    let (namespaces, directory, task) = Task::open(config, tx).await?;
    Ok((
        namespaces,
        NamespaceWatcherHandle { events, directory },
        task,
    ))
}

/// Snapshot and stream with nothing lost and nothing twice between them.
///
/// The actor runs as a task of the current runtime until `stop` is cancelled or the handle is dropped.
///
/// # Errors
/// As [`open`].
pub async fn list_and_watch(
    config: WatchConfig,
    stop: CancellationToken,
) -> Result<(Vec<Namespace>, NamespaceWatcherHandle), WatchError> {
    let (namespaces, handle, task) = open(config).await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "its owner sees the end as the end of the stream"
    )]
    tokio::spawn(task.run(stop));
    Ok((namespaces, handle))
}
