//! The change notifications of the watcher: the notify watches and the mount table, and how they are lost and
//! restored.
//!
//! A doorbell reports that something happened, at most with a name. Its events are merged in a bounded [`EventBox`]
//! until the actor looks, so a burst cannot fill a queue and no event is lost.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use notify::{Config, Event, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::directory::Hints;
use super::route::{DirectoryKey, Route};
use super::status::{DoorbellState, DoorbellStatus};
use crate::error::chain;
use crate::kernel::mount_table::MountTable;

/// The events that change the names in a directory, or the directory itself. Other events are excluded: with them,
/// each look would wake notify's thread, because a look opens the directory.
const KINDS: EventKindMask = EventKindMask::CREATE
    .union(EventKindMask::REMOVE)
    .union(EventKindMask::MODIFY_NAME);

/// With more names than this between two looks, one sweep is cheaper.
const NAMES: usize = 1024;

/// Collects the events until the actor takes them.
#[derive(Debug, Default)]
struct EventBox {
    /// The route whose directories are watched.
    route: Mutex<Route>,
    state: Mutex<PendingEvents>,
    wakeup: Notify,
    last_events: Mutex<LastEvents>,
}

/// When the last event of each doorbell arrived, including events without effect.
#[derive(Debug, Default, Clone, Copy)]
struct LastEvents {
    parent: Option<Instant>,
    directory: Option<Instant>,
    mount_table: Option<Instant>,
}

/// The merged events that the actor has not taken yet.
#[derive(Debug, Default)]
struct PendingEvents {
    hints: Hints,
    /// Paths at which a file may have been replaced.
    replaced: BTreeSet<PathBuf>,
    /// The notify thread has ended, and its watches with it.
    ended: bool,
}

impl PendingEvents {
    /// Bounded, because all paths are names of the route.
    fn replace(&mut self, path: PathBuf) {
        self.hints.directory = true;
        self.replaced.insert(path);
    }
}

impl EventBox {
    fn record(&self, record: impl FnOnce(&mut PendingEvents)) {
        let mut pending = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        record(&mut pending);
        drop(pending);
        self.wakeup.notify_one();
    }

    fn take(&self) -> PendingEvents {
        std::mem::take(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn route(&self) -> MutexGuard<'_, Route> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_time(&self, record: impl FnOnce(&mut LastEvents)) {
        record(
            &mut self
                .last_events
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// The event handler in notify's thread. It records the events that matter and never blocks.
struct Handler {
    event_box: Arc<EventBox>,
}

impl notify::EventHandler for Handler {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => {
                self.event_box.record(|pending| pending.replace("/".into()))
            }
            Ok(event) => {
                for path in &event.paths {
                    self.handle_path(path);
                }
            }
            Err(_) => self.event_box.record(|pending| pending.replace("/".into())),
        }
    }
}

impl Handler {
    fn handle_path(&self, path: &Path) {
        let (inside, on_the_way) = {
            let route = self.event_box.route();
            let directory = route.directory.as_ref().map(|(path, _)| path.as_path());
            let inside = directory.is_some() && path.parent() == directory;
            (inside, route.names.contains(path))
        };
        let now = Some(Instant::now());
        self.event_box.record_time(|last| {
            if inside {
                last.directory = now;
            } else {
                last.parent = now;
            }
        });
        if on_the_way {
            self.event_box
                .record(|pending| pending.replace(path.to_owned()));
        } else if let (true, Some(name)) = (inside, path.file_name()) {
            self.event_box.record(|pending| {
                if pending.hints.names.len() < NAMES {
                    pending.hints.names.insert(name.to_owned());
                } else {
                    pending.hints.sweep = true;
                }
            });
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.event_box.record(|pending| pending.ended = true);
    }
}

/// A source of change notifications. Without it, the watcher notices changes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doorbell {
    /// The inotify instance of all watches. While it is missing, the status reports all watches as missing.
    Notify,
    /// The watches on the parent of the netns directory, and on every other directory that its path leads through.
    /// They report that the directory is created, deleted or replaced.
    ParentWatch,
    /// The watch on the netns directory. It reports created and deleted names.
    DirectoryWatch,
    /// The mount table of the caller's mount namespace. It reports mounts and unmounts.
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

/// Why a doorbell is not available.
#[derive(Debug, thiserror::Error)]
pub(super) enum DoorbellError {
    #[error("cannot watch")]
    Watch(#[source] notify::Error),
    #[error("cannot poll /proc/self/mountinfo")]
    MountTable(#[source] io::Error),
}

/// All doorbells of the watcher that are available.
pub(super) struct Doorbells {
    event_box: Arc<EventBox>,
    watcher: Option<RecommendedWatcher>,
    /// The watches that were placed. `None`: the path may now lead to another directory.
    watched: HashMap<PathBuf, Option<DirectoryKey>>,
    parents_watched: bool,
    directory_watched: bool,
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
    /// Opens nothing yet. See [`Self::install`] and [`Self::watch`].
    pub(super) fn new() -> Self {
        Self {
            event_box: Arc::default(),
            watcher: None,
            watched: HashMap::new(),
            parents_watched: false,
            directory_watched: false,
            mount_table: None,
            failures: HashMap::new(),
        }
    }

    /// Tries to open every missing doorbell except the watches, which [`Self::watch`] places in each sweep.
    pub(super) fn install(&mut self) {
        if self.mount_table.is_none() {
            let opened = MountTable::open().map_err(DoorbellError::MountTable);
            self.mount_table = self.note(Doorbell::MountTable, opened);
        }
        if self.watcher.is_none() {
            let handler = Handler {
                event_box: Arc::clone(&self.event_box),
            };
            let config = Config::default().with_event_kinds(KINDS);
            let created = RecommendedWatcher::new(handler, config);
            self.watcher = self.note(Doorbell::Notify, created.map_err(DoorbellError::Watch));
            // A failed attempt drops its handler too, which sets `ended` although no working watcher was lost.
            self.event_box.record(|pending| pending.ended = false);
        }
    }

    fn note<T>(&mut self, doorbell: Doorbell, got: Result<T, DoorbellError>) -> Option<T> {
        got.map_err(|err| self.failures.insert(doorbell, err)).ok()
    }

    /// Returns the last error of `doorbell`.
    pub(super) fn failure(&self, doorbell: Doorbell) -> Option<&DoorbellError> {
        self.failures.get(&doorbell)
    }

    /// Returns the missing doorbells. The watch on a directory that does not exist is not missing.
    pub(super) fn missing(&self, directory_exists: bool) -> Vec<Doorbell> {
        let checks = [
            (Doorbell::MountTable, self.mount_table.is_some()),
            (Doorbell::Notify, self.watcher.is_some()),
            (
                Doorbell::ParentWatch,
                self.watcher.is_none() || self.parents_watched,
            ),
            (
                Doorbell::DirectoryWatch,
                self.watcher.is_none() || !directory_exists || self.directory_watched,
            ),
        ];
        checks
            .into_iter()
            .filter(|(_, there)| !there)
            .map(|(doorbell, _)| doorbell)
            .collect()
    }

    /// Returns the status of each doorbell.
    pub(super) fn status(&self, directory_exists: bool) -> Vec<DoorbellStatus> {
        let last = *self
            .event_box
            .last_events
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let missing = self.missing(directory_exists);
        let bells = [
            (Doorbell::ParentWatch, last.parent),
            (Doorbell::DirectoryWatch, last.directory),
            (Doorbell::MountTable, last.mount_table),
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

    /// Takes the names that had events. The other events stay.
    pub(super) fn take_names(&self) -> HashSet<OsString> {
        let mut pending = self
            .event_box
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut pending.hints.names)
    }

    /// Returns whether changes of names in the directory are reported.
    pub(super) fn reports_names(&self) -> bool {
        self.watcher.is_some() && self.directory_watched
    }

    /// Adds the missing watches on the directories of a route, and removes all others.
    ///
    /// The old watch is removed first. notify does nothing for a path that it already watches, also if another directory is at
    /// the path now, and events of the old directory would still arrive.
    pub(super) fn watch(&mut self, route: &Route) {
        *self.event_box.route() = route.clone();
        let Some(mut watcher) = self.watcher.take() else {
            return;
        };
        let parents = route.parents.iter().map(|(path, key)| (path, *key));
        let directory = route.directory.as_ref().map(|(path, key)| (path, *key));
        let wanted: HashMap<_, _> = parents.clone().chain(directory).collect();
        self.watched.retain(|path, key| {
            let stays = key.is_some() && wanted.get(path) == key.as_ref();
            if !stays {
                // The error only means that the kernel has already removed the watch with its directory.
                watcher.unwatch(path).ok();
            }
            stays
        });
        let mut place = |doorbell, (path, key): (&PathBuf, DirectoryKey)| {
            if self.watched.contains_key(path) {
                return true;
            }
            let placed = watcher.watch(path, RecursiveMode::NonRecursive);
            let placed = placed.map_err(|err| {
                self.failures.insert(doorbell, DoorbellError::Watch(err));
            });
            if placed.is_ok() {
                self.watched.insert(path.clone(), Some(key));
            }
            placed.is_ok()
        };
        let mut parents_watched = true;
        for parent in parents {
            parents_watched &= place(Doorbell::ParentWatch, parent);
        }
        self.directory_watched =
            directory.is_some_and(|directory| place(Doorbell::DirectoryWatch, directory));
        self.parents_watched = parents_watched;
        self.watcher = Some(watcher);
    }

    /// Waits for an event from notify's thread. Cancel-safe: an event stays until it is taken.
    pub(super) async fn notified(&self) {
        self.event_box.wakeup.notified().await;
    }

    /// Takes the events. Marks the watches at and below a replaced path as invalid. If notify's thread has ended,
    /// all watches are missing from now on.
    pub(super) fn take_hints(&mut self) -> Hints {
        let PendingEvents {
            mut hints,
            replaced,
            ended,
        } = self.event_box.take();
        for (path, key) in &mut self.watched {
            if replaced.iter().any(|replaced| path.starts_with(replaced)) {
                *key = None;
            }
        }
        if ended && self.watcher.take().is_some() {
            self.watched.clear();
            self.parents_watched = false;
            self.directory_watched = false;
            hints.sweep = true;
            // Dropping the old watcher may set `ended` once more.
            self.event_box.take();
        }
        hints
    }

    /// Waits until the mount table changes. Never returns if the mount table cannot be polled. Cancel-safe: a
    /// change stays until [`Self::clear_mount_table`].
    pub(super) async fn mount_table_changed(&self) {
        match &self.mount_table {
            // An error means that the runtime is shutting down, and this task with it.
            Some(table) if table.changed().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }

    /// Clears the changes so far. Later changes are reported again.
    pub(super) fn clear_mount_table(&self) {
        self.event_box
            .record_time(|last| last.mount_table = Some(Instant::now()));
        if let Some(table) = &self.mount_table {
            table.clear();
        }
    }
}
