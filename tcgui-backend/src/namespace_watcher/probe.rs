//! Looking: one entry, the whole directory, the directory's identity. Keeps nothing open.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

use crate::kernel::netns::{Entry, NetnsDirectory, NetnsFiles};

/// Which directory the path names at the moment.
///
/// The birth time is part of it because ext4 gives a recreated directory the inode number of the
/// deleted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirectoryKey {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

/// Looks at the netns directory and its entries.
#[derive(Debug)]
pub(super) struct Probe {
    directory: PathBuf,
    files: NetnsFiles,
}

impl Probe {
    pub(super) fn new(directory: PathBuf, files: NetnsFiles) -> Self {
        Self { directory, files }
    }

    /// Tells whether the path is a directory that can be listed, or nothing.
    pub(super) fn check(&self) -> io::Result<()> {
        match fs::read_dir(&self.directory) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    /// Returns the directory's identity, `None` when there is no directory at the path.
    pub(super) fn directory_key(&self) -> io::Result<Option<DirectoryKey>> {
        match fs::metadata(&self.directory) {
            Ok(found) if found.is_dir() => Ok(Some(DirectoryKey {
                device: found.dev(),
                inode: found.ino(),
                born: found.created().ok(),
            })),
            Ok(_) => Ok(None),
            Err(err) if absent(&err) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Returns what the entry `name` is now.
    pub(super) fn entry(&self, name: &OsStr, known: Option<Entry>) -> Entry {
        self.files.look(&self.directory.join(name), known)
    }

    /// Returns whether `name` is an empty file as `ip netns add` makes it to mount a namespace on.
    pub(super) fn is_placeholder(&self, name: &OsStr) -> bool {
        fs::symlink_metadata(self.directory.join(name)).is_ok_and(|found| {
            found.is_file() && found.len() == 0 && found.permissions().mode() & 0o777 == 0
        })
    }

    /// Returns every entry, `None` when there is no directory.
    ///
    /// `known` gives the answer of an earlier look at a name.
    ///
    /// # Errors
    /// The directory is there but was not read to its end: what was not seen may still be there.
    pub(super) fn sweep(
        &self,
        known: impl Fn(&OsStr) -> Option<Entry>,
    ) -> io::Result<Option<Vec<(OsString, Entry)>>> {
        let mut directory = match NetnsDirectory::open(&self.directory) {
            Ok(directory) => directory,
            Err(err) if absent(&err) => return Ok(None),
            Err(err) => return Err(err),
        };
        let names = directory.names()?;
        let look = |name: OsString| {
            let entry = self.files.look_at(&directory, &name, known(&name));
            (name, entry)
        };
        Ok(Some(names.into_iter().map(look).collect()))
    }
}

fn absent(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
