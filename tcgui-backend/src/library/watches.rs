//! Watches the library's directories and their ancestors for changes.
//!
//! An event only triggers a new read. It does not identify the change. The nearest existing ancestor of each directory is also
//! watched, so that creating and deleting the directory cause events.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind};
use notify::{Config, Event, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::files::EXTENSION;

/// The kinds of events that [`change_of`] distinguishes. Opening is not among them, because reading a directory must not cause an
/// event.
const KINDS: EventKindMask = EventKindMask::CREATE
    .union(EventKindMask::REMOVE)
    .union(EventKindMask::MODIFY_NAME)
    .union(EventKindMask::MODIFY_META)
    .union(EventKindMask::ACCESS_CLOSE);

/// State shared between the watching thread and the actor.
#[derive(Debug, Default)]
struct WatchState {
    /// A directory was created or deleted, or events were lost. The watches may refer to deleted directories.
    moved: AtomicBool,
    /// The thread runs. A handler whose thread never started must not notify: a retry would notify again.
    running: AtomicBool,
    /// The thread has ended, and so have its watches.
    ended: AtomicBool,
}

/// Runs in notify's thread. Decides whether an event matters. Never blocks.
struct Handler {
    directories: Arc<[PathBuf]>,
    state: Arc<WatchState>,
    files_changed: Arc<Notify>,
}

impl Handler {
    fn moved(&self) {
        self.state.moved.store(true, Ordering::Relaxed);
        self.files_changed.notify_one();
    }
}

impl notify::EventHandler for Handler {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.moved(),
            Ok(event) => {
                let change = |path: &PathBuf| change_of(&self.directories, event.kind, path);
                match event.paths.iter().filter_map(change).max() {
                    Some(LibraryChange::Directories) => self.moved(),
                    Some(LibraryChange::File) => self.files_changed.notify_one(),
                    None => {}
                }
            }
            Err(_) => self.moved(),
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        if self.state.running.load(Ordering::Relaxed) {
            self.state.ended.store(true, Ordering::Relaxed);
            self.files_changed.notify_one();
        }
    }
}

/// What an event may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LibraryChange {
    /// A file of the library.
    File,
    /// A directory of the library, or one above it.
    Directories,
}

/// Returns what an event may have changed. `None`: nothing in the library.
fn change_of(directories: &[PathBuf], kind: EventKind, path: &Path) -> Option<LibraryChange> {
    let leads_there = directories
        .iter()
        .any(|directory| directory.starts_with(path));
    let comes_or_goes = matches!(
        kind,
        EventKind::Create(_)
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_))
    );
    if leads_there {
        return comes_or_goes.then_some(LibraryChange::Directories);
    }
    if !directories
        .iter()
        .any(|directory| path.parent() == Some(directory))
    {
        return None;
    }
    match kind {
        // A new file is incomplete until it is closed, and the close causes an event. A link is complete at once.
        EventKind::Create(CreateKind::File) => is_link(path).then_some(LibraryChange::File),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            (path.extension() == Some(OsStr::new(EXTENSION))).then_some(LibraryChange::File)
        }
        _ => comes_or_goes.then_some(LibraryChange::File),
    }
}

fn is_link(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
}

/// The watches on all directories, as far as they could be created.
pub(super) struct Watches {
    directories: Arc<[PathBuf]>,
    files_changed: Arc<Notify>,
    state: Arc<WatchState>,
    watcher: Option<RecommendedWatcher>,
    placed: BTreeSet<PathBuf>,
    failure: Option<notify::Error>,
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches")
            .field("placed", &self.placed)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl Watches {
    /// Prepares watches on directories with absolute paths. An event notifies `files_changed`.
    pub(super) fn new(
        directories: impl IntoIterator<Item = PathBuf>,
        files_changed: Arc<Notify>,
    ) -> Self {
        let directories: BTreeSet<_> = directories.into_iter().collect();
        Self {
            directories: directories.into_iter().collect(),
            files_changed,
            state: Arc::default(),
            watcher: None,
            placed: BTreeSet::new(),
            failure: None,
        }
    }

    /// Returns why a watch is missing, if one is.
    pub(super) fn failure(&self) -> Option<&notify::Error> {
        self.failure.as_ref()
    }

    /// Places the watches on the current directories. Every later change causes an event.
    pub(super) fn place(&mut self) {
        if self.directories.is_empty() {
            return;
        }
        if self.state.ended.swap(false, Ordering::Relaxed) {
            self.watcher = None;
            self.placed.clear();
        }
        let moved = self.state.moved.swap(false, Ordering::Relaxed);
        self.failure = None;
        if self.watcher.is_none() {
            // A new instance: the end of the old thread must not mark the new one as ended.
            self.state = Arc::default();
            let handler = Handler {
                directories: Arc::clone(&self.directories),
                state: Arc::clone(&self.state),
                files_changed: Arc::clone(&self.files_changed),
            };
            match RecommendedWatcher::new(handler, Config::default().with_event_kinds(KINDS)) {
                Ok(watcher) => {
                    self.state.running.store(true, Ordering::Relaxed);
                    self.watcher = Some(watcher);
                }
                Err(err) => {
                    self.failure = Some(err);
                    return;
                }
            }
        }
        self.place_all(moved);
    }

    fn place_all(&mut self, moved: bool) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let wanted: BTreeSet<_> = self
            .directories
            .iter()
            .flat_map(|path| anchors(path))
            .collect();
        for path in &self.placed {
            // The path may be another directory by now. An error means that the watch no longer exists.
            if moved || !wanted.contains(path) {
                watcher.unwatch(path).ok();
            }
        }
        let kept = |path: &PathBuf| !moved && wanted.contains(path);
        let mut placed: BTreeSet<_> = self
            .placed
            .iter()
            .filter(|path| kept(path))
            .cloned()
            .collect();
        for path in wanted {
            if placed.contains(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => drop(placed.insert(path)),
                // Deleted after the check. The deletion causes an event at the ancestor.
                Err(err) if matches!(err.kind, notify::ErrorKind::PathNotFound) => {}
                Err(err) => self.failure = Some(err),
            }
        }
        self.placed = placed;
    }
}

/// Returns the directory, if it exists, and the nearest directory above it that exists.
fn anchors(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let own = directory.is_dir().then(|| directory.to_owned());
    let above = directory.ancestors().skip(1).find(|path| path.is_dir());
    own.into_iter().chain(above.map(Path::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const OPENED: EventKind = EventKind::Access(AccessKind::Open(AccessMode::Any));
    const GONE: EventKind = EventKind::Remove(notify::event::RemoveKind::File);

    #[test]
    fn only_events_that_can_change_the_library_notify() {
        let directories = [PathBuf::from("/etc/x/scenarios")];
        let cases = [
            (
                "/etc/x/scenarios/a.json5",
                CLOSED,
                Some(LibraryChange::File),
            ),
            ("/etc/x/scenarios/a.json5", OPENED, None),
            ("/etc/x/scenarios/a.json5", GONE, Some(LibraryChange::File)),
            ("/etc/x/scenarios/..data", GONE, Some(LibraryChange::File)),
            ("/etc/x/scenarios/a.swp", CLOSED, None),
            ("/etc/x/scenarios/sub/a.json5", CLOSED, None),
            ("/etc/x/scenarios", GONE, Some(LibraryChange::Directories)),
            ("/etc/x", GONE, Some(LibraryChange::Directories)),
            ("/etc/x", OPENED, None),
            ("/etc/y", GONE, None),
        ];
        for (path, kind, expected) in cases {
            let change = change_of(&directories, kind, Path::new(path));
            assert_eq!(change, expected, "{path}: {kind:?}");
        }
    }

    #[test]
    fn a_missing_directory_is_watched_through_its_ancestor() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        let anchors = || anchors(&deep).collect::<Vec<_>>();
        assert_eq!(anchors(), [root.path()]);
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(anchors(), [deep.clone(), root.path().join("a")]);
    }
}
