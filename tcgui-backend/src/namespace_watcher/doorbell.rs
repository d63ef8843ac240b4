//! What makes the watcher look: the two notify watches, the mount table, their loss and return.
//!
//! A doorbell says that something happened, at best to which name. Rings are merged in a bounded box
//! until the actor looks, so no burst of events can queue up or be lost.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use notify::{Config, Event, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::directory::Hints;
use super::probe::DirectoryKey;
use super::status::{DoorbellState, DoorbellStatus};
use crate::error::chain;
use crate::kernel::mount_table::MountTable;

/// What changes the names in a directory, or the directory itself. The kernel is asked for nothing else:
/// each look, also the watcher's own, would wake notify's thread to be told that a directory was opened.
const KINDS: EventKindMask = EventKindMask::CREATE
    .union(EventKindMask::REMOVE)
    .union(EventKindMask::MODIFY_NAME);

/// More names than this between two looks are cheaper to find by one sweep.
const NAMES: usize = 1024;

/// Where rings are collected until the actor takes them.
#[derive(Debug, Default)]
struct RingBox {
    state: Mutex<Rings>,
    rung: Notify,
    heard: Mutex<Heard>,
}

/// When something was heard the last time, whether or not it mattered.
#[derive(Debug, Default, Clone, Copy)]
struct Heard {
    parent: Option<Instant>,
    directory: Option<Instant>,
    mount_table: Option<Instant>,
}

#[derive(Debug, Default)]
struct Rings {
    hints: Hints,
    /// The notify thread is gone: its watches are dead.
    ended: bool,
}

impl RingBox {
    fn ring(&self, ring: impl FnOnce(&mut Rings)) {
        let mut rings = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        ring(&mut rings);
        drop(rings);
        self.rung.notify_one();
    }

    fn take(&self) -> Rings {
        std::mem::take(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hear(&self, hear: impl FnOnce(&mut Heard)) {
        hear(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The handler that runs in notify's thread: files what matters and never blocks.
struct Handler {
    parent: PathBuf,
    directory: PathBuf,
    rings: Arc<RingBox>,
}

impl notify::EventHandler for Handler {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.rings.ring(|r| r.hints.sweep = true),
            Ok(event) => {
                for path in &event.paths {
                    self.ring_path(path);
                }
            }
            Err(_) => self.rings.ring(|r| r.hints.directory = true),
        }
    }
}

impl Handler {
    fn ring_path(&self, path: &Path) {
        let inside = path.parent() == Some(&self.directory);
        let now = Some(Instant::now());
        self.rings.hear(|heard| {
            if inside {
                heard.directory = now;
            } else {
                heard.parent = now;
            }
        });
        if path == self.directory || path == self.parent {
            self.rings.ring(|r| r.hints.directory = true);
        } else if let (true, Some(name)) = (inside, path.file_name()) {
            self.rings.ring(|r| {
                if r.hints.names.len() < NAMES {
                    r.hints.names.insert(name.to_owned());
                } else {
                    r.hints.sweep = true;
                }
            });
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.rings.ring(|r| r.ended = true);
    }
}

/// A way of hearing about changes that the watcher would rather have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doorbell {
    /// The inotify instance, on which both watches hang; its absence shows as theirs in a status.
    Notify,
    /// The watch on the parent of the netns directory: the directory comes and goes.
    ParentWatch,
    /// The watch on the netns directory: names come and go.
    DirectoryWatch,
    /// The mount table of the caller's mount namespace: mounts come and go.
    MountTable,
}

impl fmt::Display for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notify => "inotify instance",
            Self::ParentWatch => "inotify watch on the parent directory",
            Self::DirectoryWatch => "inotify watch on the netns directory",
            Self::MountTable => "mount table",
        })
    }
}

/// Why a doorbell could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum DoorbellError {
    #[error("cannot watch")]
    Watch(#[source] notify::Error),
    #[error("cannot poll /proc/self/mountinfo")]
    MountTable(#[source] io::Error),
}

/// All doorbells of the watcher, as far as they could be had.
pub(super) struct Doorbells {
    parent: PathBuf,
    directory: PathBuf,
    rings: Arc<RingBox>,
    watcher: Option<RecommendedWatcher>,
    parent_watched: Option<DirectoryKey>,
    watched: Option<DirectoryKey>,
    mount_table: Option<MountTable>,
    failures: HashMap<Doorbell, DoorbellError>,
}

impl fmt::Debug for Doorbells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorbells")
            .field("missing", &self.missing(true))
            .finish_non_exhaustive()
    }
}

impl Doorbells {
    /// Hangs up nothing yet: [`Self::install`] does.
    pub(super) fn new(parent: PathBuf, name: &OsStr) -> Self {
        let directory = parent.join(name);
        Self {
            parent,
            directory,
            rings: Arc::default(),
            watcher: None,
            parent_watched: None,
            watched: None,
            mount_table: None,
            failures: HashMap::new(),
        }
    }

    /// Tries to get every doorbell that is missing, but for the watches, which sweeps place.
    pub(super) fn install(&mut self) {
        if self.mount_table.is_none() {
            let opened = MountTable::open().map_err(DoorbellError::MountTable);
            self.mount_table = self.note(Doorbell::MountTable, opened);
        }
        if self.watcher.is_none() {
            let handler = Handler {
                parent: self.parent.clone(),
                directory: self.directory.clone(),
                rings: Arc::clone(&self.rings),
            };
            let config = Config::default().with_event_kinds(KINDS);
            let created = RecommendedWatcher::new(handler, config);
            self.watcher = self.note(Doorbell::Notify, created.map_err(DoorbellError::Watch));
            // A failed attempt drops its handler too: that was not the loss of a working one.
            self.rings.ring(|rings| rings.ended = false);
        }
    }

    fn note<T>(&mut self, doorbell: Doorbell, got: Result<T, DoorbellError>) -> Option<T> {
        got.map_err(|err| self.failures.insert(doorbell, err)).ok()
    }

    /// Returns why `doorbell` could not be had the last time.
    pub(super) fn failure(&self, doorbell: Doorbell) -> Option<&DoorbellError> {
        self.failures.get(&doorbell)
    }

    /// Returns the doorbells that are not there; one that hangs on a missing directory is not missed.
    pub(super) fn missing(&self, directory_exists: bool) -> Vec<Doorbell> {
        let checks = [
            (Doorbell::MountTable, self.mount_table.is_some()),
            (Doorbell::Notify, self.watcher.is_some()),
            (
                Doorbell::ParentWatch,
                self.watcher.is_none() || self.parent_watched.is_some(),
            ),
            (
                Doorbell::DirectoryWatch,
                self.watcher.is_none() || !directory_exists || self.watched.is_some(),
            ),
        ];
        checks
            .into_iter()
            .filter(|(_, there)| !there)
            .map(|(doorbell, _)| doorbell)
            .collect()
    }

    /// Returns what there is to say of each doorbell.
    pub(super) fn status(&self, directory_exists: bool) -> Vec<DoorbellStatus> {
        let heard = *self
            .rings
            .heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let missing = self.missing(directory_exists);
        let bells = [
            (Doorbell::ParentWatch, heard.parent),
            (Doorbell::DirectoryWatch, heard.directory),
            (Doorbell::MountTable, heard.mount_table),
        ];
        let status = bells.into_iter().map(|(doorbell, last_rang)| {
            let instance = doorbell != Doorbell::MountTable && self.watcher.is_none();
            let cause = if instance { Doorbell::Notify } else { doorbell };
            let state = if missing.contains(&cause) {
                let reason = self.failure(cause).map(|err| chain(err).to_string());
                DoorbellState::Missing { reason }
            } else if doorbell == Doorbell::DirectoryWatch && !directory_exists {
                DoorbellState::NothingToWatch
            } else {
                DoorbellState::Works
            };
            DoorbellStatus {
                doorbell,
                state,
                last_rang,
            }
        });
        status.collect()
    }

    /// Puts the watch on the parent that is at the path now, which `key` names, if it is not there yet.
    pub(super) fn watch_parent(&mut self, key: Option<DirectoryKey>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        if key.is_none() || self.parent_watched != key {
            // As for the directory: an error says that there was no watch.
            watcher.unwatch(&self.parent).ok();
            let placed = watcher.watch(&self.parent, RecursiveMode::NonRecursive);
            let placed = self.note(Doorbell::ParentWatch, placed.map_err(DoorbellError::Watch));
            self.parent_watched = placed.and(key);
        }
    }

    /// Takes the names that rang; the other rings stay.
    pub(super) fn take_names(&self) -> HashSet<OsString> {
        let mut rings = self
            .rings
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut rings.hints.names)
    }

    /// Returns whether the watch on the directory is on the one that `key` names.
    pub(super) fn watches(&self, key: Option<DirectoryKey>) -> bool {
        self.watched == key || self.watcher.is_none()
    }

    /// Returns whether names in the directory ring.
    pub(super) fn ring_by_name(&self) -> bool {
        self.watcher.is_some() && self.watched.is_some()
    }

    /// Says that the watch on the directory cannot be trusted any more.
    pub(super) fn distrust_directory_watch(&mut self) {
        self.watched = None;
    }

    /// Puts the watch on the directory that is at the path now, which `key` names.
    ///
    /// The old watch is removed first. notify does nothing for a path that it already watches, also if another directory is at
    /// the path now, and events of the old directory would still arrive.
    pub(super) fn watch_directory(&mut self, key: Option<DirectoryKey>) {
        self.watched = None;
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        // An error here says that there was no watch: the kernel had removed it with the directory.
        watcher.unwatch(&self.directory).ok();
        if key.is_some() {
            let placed = watcher.watch(&self.directory, RecursiveMode::NonRecursive);
            let placed = self.note(
                Doorbell::DirectoryWatch,
                placed.map_err(DoorbellError::Watch),
            );
            self.watched = placed.and(key);
        }
    }

    /// Waits until something rang in notify's thread. Cancel-safe: a ring stays until it is taken.
    pub(super) async fn notified(&self) {
        self.rings.rung.notified().await;
    }

    /// Takes what rang. When notify's thread has died, everything it watched is missing from now on.
    pub(super) fn take_hints(&mut self) -> Hints {
        let Rings { mut hints, ended } = self.rings.take();
        if ended && self.watcher.take().is_some() {
            self.parent_watched = None;
            self.watched = None;
            hints.sweep = true;
            // Dropping the dead watcher may ring once more.
            self.rings.take();
        }
        hints
    }

    /// Waits until the mount table changed, for ever where it cannot be heard. Cancel-safe: a change
    /// stays until [`Self::clear_mount_table`].
    pub(super) async fn mount_table_changed(&self) {
        match &self.mount_table {
            // An error means that the runtime stops, and this task with it.
            Some(table) if table.changed().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }

    /// Forgets the changes so far; those from here on ring again.
    pub(super) fn clear_mount_table(&self) {
        self.rings
            .hear(|heard| heard.mount_table = Some(Instant::now()));
        if let Some(table) = &self.mount_table {
            table.clear();
        }
    }
}

/// Splits the configured path into its canonical parent and its name.
///
/// The parent is resolved once, so that events arrive under one path whichever way it was written
/// (`/var/run/netns`). A parent that does not exist yet is taken as written.
pub(super) fn split(directory: &Path) -> Option<(PathBuf, OsString)> {
    let name = directory.file_name()?.to_owned();
    let parent = directory.parent().filter(|parent| parent.is_absolute())?;
    let parent = parent.canonicalize().unwrap_or_else(|_| parent.to_owned());
    Some((parent, name))
}
