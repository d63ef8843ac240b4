//! Watches on the directories in which sockets of engines may appear.
//!
//! inotify reports changes in the directory of each socket, or in the nearest existing directory above it. It also
//! reports changes in the directory above that one, to detect that the watched directory itself disappears. An event is
//! a doorbell: the sockets are then looked at.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::{EventKind, ModifyKind};
use notify::{Config, Event, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::engine_sockets::SocketKey;

/// Creation, removal, and changes of names and permissions. Opening a file causes no event.
const KINDS: EventKindMask = EventKindMask::CREATE
    .union(EventKindMask::REMOVE)
    .union(EventKindMask::MODIFY_NAME)
    .union(EventKindMask::MODIFY_META);

/// Selects the events that matter. Runs in the thread of notify and never blocks.
struct Handler {
    sockets: BTreeSet<OsString>,
    directories: BTreeSet<OsString>,
    moved: Arc<AtomicBool>,
    sockets_changed: Arc<Notify>,
}

impl Handler {
    fn moved(&self) {
        self.moved.store(true, Ordering::Relaxed);
        self.sockets_changed.notify_one();
    }

    fn handle_path(&self, kind: EventKind, path: &Path) {
        let comes_or_goes = matches!(
            kind,
            EventKind::Create(_)
                | EventKind::Remove(_)
                | EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_))
        );
        let Some(name) = path.file_name().filter(|_| comes_or_goes) else {
            return;
        };
        if self.directories.contains(name) {
            self.moved();
        } else if self.sockets.contains(name) {
            self.sockets_changed.notify_one();
        }
    }
}

impl notify::EventHandler for Handler {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        match event {
            Ok(event) if !event.need_rescan() => {
                for path in &event.paths {
                    self.handle_path(event.kind, path);
                }
            }
            // Events were lost: a watched directory may have been replaced.
            _ => self.moved(),
        }
    }
}

/// The paths of sockets, and the watches on the directories of these paths.
pub(super) struct SocketWatches {
    sockets: Vec<PathBuf>,
    sockets_changed: Arc<Notify>,
    moved: Arc<AtomicBool>,
    watcher: Option<RecommendedWatcher>,
    placed: BTreeSet<PathBuf>,
    failure: Option<notify::Error>,
}

impl fmt::Debug for SocketWatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketWatches")
            .field("sockets", &self.sockets)
            .field("placed", &self.placed)
            .finish_non_exhaustive()
    }
}

impl SocketWatches {
    /// Prepares watches. `sockets_changed` is notified when the sockets should be looked at.
    pub(super) fn new(sockets: Vec<PathBuf>, sockets_changed: Arc<Notify>) -> Self {
        Self {
            sockets,
            sockets_changed,
            moved: Arc::default(),
            watcher: None,
            placed: BTreeSet::new(),
            failure: None,
        }
    }

    /// Returns why a watch is missing, if one is.
    pub(super) fn failure(&self) -> Option<&notify::Error> {
        self.failure.as_ref()
    }

    /// Places the watches on the current directories, then looks at each socket. Later changes notify `sockets_changed`.
    pub(super) fn look(&mut self) -> Vec<Option<SocketKey>> {
        self.failure = self.place().err();
        self.sockets.iter().map(|path| key(path)).collect()
    }

    fn place(&mut self) -> notify::Result<()> {
        if self.sockets.is_empty() {
            return Ok(());
        }
        let mut watcher = match self.watcher.take() {
            Some(watcher) => watcher,
            None => {
                self.placed.clear();
                RecommendedWatcher::new(self.handler(), Config::default().with_event_kinds(KINDS))?
            }
        };
        let moved = self.moved.swap(false, Ordering::Relaxed);
        let wanted: BTreeSet<_> = self.sockets.iter().flat_map(|path| anchors(path)).collect();
        let mut result = Ok(());
        self.placed.retain(|path| {
            let stays = !moved && wanted.contains(path);
            if !stays {
                // The same path may now be another directory. An error means that the watch was already removed.
                watcher.unwatch(path).ok();
            }
            stays
        });
        for path in wanted {
            if self.placed.contains(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.placed.insert(path)),
                // The directory was deleted in the meantime. The watch on the one above reports that.
                Err(err) if matches!(err.kind, notify::ErrorKind::PathNotFound) => {}
                Err(err) => result = Err(err),
            }
        }
        self.watcher = Some(watcher);
        result
    }

    fn handler(&self) -> Handler {
        let name = |path: &Path| path.file_name().map(OsString::from);
        let above = |path: &PathBuf| {
            path.ancestors()
                .skip(1)
                .filter_map(name)
                .collect::<Vec<_>>()
        };
        // A path through a symbolic link, such as `/var/run`, has other names.
        let paths = self.sockets.iter().cloned();
        let real = self.sockets.iter().filter_map(|path| nearest(path));
        Handler {
            sockets: self.sockets.iter().filter_map(|path| name(path)).collect(),
            directories: paths
                .flat_map(|path| above(&path))
                .chain(real.filter_map(|path| name(&path)))
                .collect(),
            moved: Arc::clone(&self.moved),
            sockets_changed: Arc::clone(&self.sockets_changed),
        }
    }
}

/// Returns the nearest directory above a path that exists, without links in its own path.
fn nearest(path: &Path) -> Option<PathBuf> {
    let resolved = |path: &Path| path.canonicalize().ok().filter(|real| real.is_dir());
    path.ancestors().skip(1).find_map(resolved)
}

/// Returns the directories that change when a socket appears or disappears.
fn anchors(socket: &Path) -> Vec<PathBuf> {
    let Some(nearest) = nearest(socket) else {
        return Vec::new();
    };
    let above = nearest.parent().map(Path::to_owned);
    above.into_iter().chain([nearest]).collect()
}

fn key(path: &Path) -> Option<SocketKey> {
    let metadata = fs::metadata(path).ok()?;
    let socket = metadata.file_type().is_socket();
    socket.then(|| SocketKey {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Looks after each notification, until the sockets are as expected.
    async fn settle(watches: &mut SocketWatches, expected: &[bool]) {
        let sockets_changed = Arc::clone(&watches.sockets_changed);
        let settled = async {
            loop {
                let seen: Vec<_> = watches.look().iter().map(Option::is_some).collect();
                if seen == expected {
                    break;
                }
                sockets_changed.notified().await;
            }
        };
        let settled = timeout(Duration::from_secs(5), settled).await;
        settled.unwrap_or_else(|_| panic!("not notified: {expected:?} of {watches:?}"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_socket_is_seen_in_any_directory_of_its_path() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        fs::create_dir(&run).unwrap();
        symlink(&run, root.path().join("link")).unwrap();
        let near = run.join("docker.sock");
        let far = run.join("user/1000/podman/podman.sock");
        let linked = root.path().join("link/docker.sock");
        let sockets = vec![near.clone(), far.clone(), linked];
        let mut watches = SocketWatches::new(sockets, Arc::default());
        settle(&mut watches, &[false, false, false]).await;
        for _ in 0..3 {
            let listener = UnixListener::bind(&near).unwrap();
            settle(&mut watches, &[true, false, true]).await;
            let seen = watches.look();
            assert_eq!(seen[0], seen[2], "the same socket through another path");
            fs::create_dir_all(far.parent().unwrap()).unwrap();
            let other = UnixListener::bind(&far).unwrap();
            settle(&mut watches, &[true, true, true]).await;
            fs::remove_file(&near).unwrap();
            settle(&mut watches, &[false, true, false]).await;
            fs::remove_dir_all(run.join("user")).unwrap();
            settle(&mut watches, &[false, false, false]).await;
            drop((listener, other));
        }
        fs::write(&near, "no socket").unwrap();
        assert_eq!(watches.look()[0], None);
    }
}
