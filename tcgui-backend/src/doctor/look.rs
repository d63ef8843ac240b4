//! Reads the facts of a machine. Blocks for a moment, and changes nothing.

use std::io;
use std::path::{Path, PathBuf};

use notify::{RecursiveMode, Watcher};

use super::{NetnsDirectory, StateDirectory};
use crate::kernel::machine;
use crate::kernel::mountinfo::MountInfo;
use crate::kernel::private_dir::{PrivateDir, check_parent};

/// Makes an inotify watch and removes it.
///
/// # Errors
/// The text of the error, for example if a limit is used up.
pub fn watch() -> Result<(), String> {
    let watched = notify::recommended_watcher(|_| {})
        .and_then(|mut watcher| watcher.watch(Path::new("/"), RecursiveMode::NonRecursive));
    watched.map_err(|err| match &err.kind {
        notify::ErrorKind::Io(err) => err.to_string(),
        _ => err.to_string(),
    })
}

/// Reads where the mounts of the directory of named namespaces come from.
#[must_use]
pub fn netns_directory(path: &Path, mounts_of_init: bool) -> NetnsDirectory {
    let table = MountInfo::read().ok();
    // Paths in the mount table contain no symbolic links. A missing directory is created in one that exists.
    let exists = path.is_dir();
    let resolved = resolved(path);
    let mount = table.as_ref().and_then(|table| table.holding(&resolved));
    NetnsDirectory {
        path: path.to_owned(),
        exists,
        propagation: mount.map(|mount| (mount.propagation(), mount.receives())),
        mounts_of_init,
    }
}

/// Resolves the symbolic links of the part of a path that exists.
fn resolved(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|part| {
        let rest = path.strip_prefix(part).ok()?;
        let part = part.canonicalize().ok()?;
        // Joining an empty path would add a slash, which the paths of the mount table do not have.
        Some(part.components().chain(rest.components()).collect())
    });
    existing.unwrap_or_else(|| path.to_owned())
}

/// Reads whether the state directory can be used. If it does not exist, the nearest directory above it is examined.
#[must_use]
pub fn state_directory(path: &Path) -> StateDirectory {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (opened, place) = match PrivateDir::open(&absolute) {
        Ok(_) => (Ok(true), absolute.clone()),
        Err(err) if err.is_absent() => {
            let above = absolute.ancestors().skip(1).find(|part| part.exists());
            let above = above.unwrap_or(Path::new("/")).to_owned();
            (check_parent(&above).map(|()| false), above)
        }
        Err(err) => (Err(err), absolute.clone()),
    };
    let space = match &opened {
        // Reported first.
        Err(_) => Ok(0),
        Ok(_) => machine::free_space(&place),
    };
    StateDirectory {
        path: path.to_owned(),
        opened,
        space,
    }
}

/// Returns the text of an error without the number of the kernel.
#[must_use]
pub fn plain(err: &io::Error) -> String {
    let text = err.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
