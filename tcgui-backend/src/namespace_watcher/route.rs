//! The route of the configured path to the netns directory: the names that the kernel looks up, and the
//! directories in which it does so.
//!
//! Each of these names can be replaced: a symbolic link gets another target, or a directory is renamed. So the
//! watcher watches every directory in which a name is looked up, and compares the whole route before and after
//! each sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use nix::libc;

/// The kernel follows at most 40 symbolic links in one path (`MAXSYMLINKS`, `include/linux/namei.h`).
const MAX_LINKS: u32 = 40;
/// Limit of the watched directories of a route. Sweeps find changes in the others.
const MAX_PARENTS: usize = 64;

/// The identity of the directory that a path currently leads to.
///
/// The birth time is part of it because ext4 gives a recreated directory the inode number of the deleted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirectoryKey {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl DirectoryKey {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            born: found.created().ok(),
        }
    }
}

/// The current route of a path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Route {
    /// The directories in which a name is looked up, by their paths without symbolic links.
    pub(super) parents: BTreeMap<PathBuf, DirectoryKey>,
    /// The names, as paths in those directories. The last one may not exist.
    pub(super) names: BTreeSet<PathBuf>,
    /// The directory at the end. `None`: it does not exist.
    pub(super) directory: Option<(PathBuf, DirectoryKey)>,
}

impl Route {
    /// Follows a path as the kernel does.
    ///
    /// # Errors
    /// As `stat(2)`, except that a missing directory is no error.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let (mut route, end) = Self::follow(path)?;
        let found = match fs::metadata(path) {
            Ok(found) if found.is_dir() => DirectoryKey::of(&found),
            Ok(_) => return Ok(route),
            Err(err) if is_absent(&err) => return Ok(route),
            Err(err) => return Err(err),
        };
        route.directory = match end {
            Some(end) if end.1 == found => Some(end),
            // The kernel does not follow the text of a link such as `/proc/PID/root`. Its own directory and the
            // target are watched; sweeps find other changes.
            _ => {
                route.look_up(path.parent().unwrap_or(path), path.to_owned())?;
                Some((path.to_owned(), found))
            }
        };
        Ok(route)
    }

    /// Returns the names in the path, and the directory at its end.
    fn follow(path: &Path) -> io::Result<(Self, Option<(PathBuf, DirectoryKey)>)> {
        let mut route = Self::default();
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        let mut rest = parts(path);
        while let Some(part) = rest.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            let here = at.join(&part);
            route.look_up(&at, here.clone())?;
            let found = match fs::symlink_metadata(&here) {
                Ok(found) => found,
                Err(err) if is_absent(&err) => return Ok((route, None)),
                Err(err) => return Err(err),
            };
            if found.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return Ok((route, None));
                }
                let target = fs::read_link(&here)?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                rest.extend(parts(&target));
            } else {
                at = here;
            }
        }
        let end = match fs::metadata(&at) {
            Ok(found) => Some((at, DirectoryKey::of(&found))),
            Err(err) if is_absent(&err) => None,
            Err(err) => return Err(err),
        };
        Ok((route, end))
    }

    /// Notes that a name is looked up in a directory.
    fn look_up(&mut self, parent: &Path, name: PathBuf) -> io::Result<()> {
        if !self.parents.contains_key(parent) {
            if self.parents.len() >= MAX_PARENTS {
                return Ok(());
            }
            let found = match fs::metadata(parent) {
                Ok(found) if found.is_dir() => found,
                Ok(_) => return Ok(()),
                Err(err) if is_absent(&err) => return Ok(()),
                Err(err) => return Err(err),
            };
            let key = DirectoryKey::of(&found);
            self.parents.insert(parent.to_owned(), key);
        }
        self.names.insert(name);
        Ok(())
    }
}

/// Returns the components of a path in reverse order.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev();
    let names = parts.filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.map(|name| name.as_os_str().to_owned()).collect()
}

/// Returns whether the error means that the path leads to no file, including a loop of symbolic links.
pub(super) fn is_absent(err: &io::Error) -> bool {
    let is_missing = matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    );
    is_missing || err.raw_os_error() == Some(libc::ELOOP)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_route_has_every_name_of_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        fs::create_dir_all(at("v1/netns")).unwrap();
        fs::create_dir(at("links")).unwrap();
        symlink("../v1", at("links/current")).unwrap();
        symlink(at("links/current"), at("absolute")).unwrap();
        let of = |path: &str| Route::of(&at(path)).unwrap();
        let below = |paths: Vec<&PathBuf>| -> Vec<String> {
            let below = paths
                .into_iter()
                .filter_map(|it| it.strip_prefix(&root).ok());
            below.map(|it| it.to_string_lossy().into_owned()).collect()
        };

        let route = of("absolute/netns");
        let key = DirectoryKey::of(&fs::metadata(at("v1/netns")).unwrap());
        assert_eq!(route.directory, Some((at("v1/netns"), key)));
        let names = ["absolute", "links", "links/current", "v1", "v1/netns"];
        let names = [""].iter().chain(&names).copied().collect::<Vec<_>>();
        assert_eq!(below(route.names.iter().collect()), names);
        assert_eq!(
            below(route.parents.keys().collect()),
            ["", "links", "v1"],
            "{route:?}"
        );
        assert!(route.parents.contains_key(Path::new("/")));
        assert_eq!(route, of("links/../absolute/./netns"));

        // A missing name is watched in the directory in which it would appear.
        let route = of("absolute/other/netns");
        assert_eq!(route.directory, None);
        assert!(route.names.contains(&at("v1/other")));
        assert!(route.parents.contains_key(&at("v1")));
        fs::write(at("file"), "").unwrap();
        for path in ["file", "file/netns"] {
            assert_eq!(of(path).directory, None, "{path}");
        }

        symlink("loop", at("loop")).unwrap();
        let route = of("loop/netns");
        assert_eq!(route.directory, None);
        assert!(route.names.contains(&at("loop")));
        let deep: PathBuf = (0..200).map(|n| format!("d{n}")).collect();
        fs::create_dir_all(root.join(&deep)).unwrap();
        let route = Route::of(&root.join(&deep)).unwrap();
        assert_eq!(route.parents.len(), MAX_PARENTS);
        assert!(route.directory.is_some());
    }

    #[test]
    fn a_proc_link_leads_to_its_real_target() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("removed");
        fs::create_dir(&path).unwrap();
        let open = fs::File::open(&path).unwrap();
        let key = DirectoryKey::of(&open.metadata().unwrap());
        fs::remove_dir(&path).unwrap();
        // The text of the link is `PATH (deleted)`, and no such file exists.
        let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        let route = Route::of(&path).unwrap();
        assert_eq!(route.directory, Some((path, key)));
    }
}
