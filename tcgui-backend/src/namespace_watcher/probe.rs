//! Looking: one entry, the whole directory, the directory's identity. Keeps nothing open.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::kernel::inode::{FileKind, Inode, Links};
use crate::kernel::netns::{Entry, NetnsDirectory, NetnsFiles};
use crate::kernel::pidfd::{ProcessEnd, ProcessHandle};
use crate::kernel::proc_link::ProcTask;

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

impl DirectoryKey {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            born: found.created().ok(),
        }
    }
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
            Ok(found) if found.is_dir() => Ok(Some(DirectoryKey::of(&found))),
            Ok(_) => Ok(None),
            Err(err) if absent(&err) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Returns what the entry `name` is now.
    pub(super) fn entry(&self, name: &OsStr, known: Option<Entry>) -> Entry {
        self.files.look(&self.directory.join(name), known)
    }

    /// Returns the end of the process that the symbolic link `name` leads through. `None`: it leads through no
    /// other process.
    ///
    /// # Errors
    /// The process cannot be watched, or has ended.
    pub(super) fn process_behind(&self, name: &OsStr) -> io::Result<Option<ProcessEnd>> {
        let Some(task) = ProcTask::behind(&self.directory.join(name)) else {
            return Ok(None);
        };
        ProcessHandle::of_task(task)?.end().map(Some)
    }

    /// Returns whether `name` is an empty file as `ip netns add` makes it to mount a namespace on.
    pub(super) fn is_placeholder(&self, name: &OsStr) -> bool {
        let found = Inode::at(&self.directory.join(name), Links::Stay);
        found.is_ok_and(|found| {
            let is_empty = found.kind() == FileKind::Regular && found.len == 0;
            is_empty && found.permissions() & 0o777 == 0
        })
    }

    /// Lists the directory, `None` when there is none.
    ///
    /// # Errors
    /// The directory is there but was not read to its end: what was not seen may still be there.
    pub(super) fn list(&self) -> io::Result<Option<Listing>> {
        let mut directory = match NetnsDirectory::open(&self.directory) {
            Ok(directory) => directory,
            Err(err) if absent(&err) => return Ok(None),
            Err(err) => return Err(err),
        };
        let names = directory.names()?;
        Ok(Some(Listing {
            names,
            directory,
            files: self.files,
        }))
    }

    /// Returns the identity of the directory's parent, `None` when there is none.
    pub(super) fn parent_key(&self) -> Option<DirectoryKey> {
        fs::metadata(self.directory.parent()?)
            .ok()
            .map(|found| DirectoryKey::of(&found))
    }
}

/// The names that were in the directory, and the way to look at them there.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) names: Vec<OsString>,
    directory: NetnsDirectory,
    files: NetnsFiles,
}

impl Listing {
    /// Returns what the entry `name` is now.
    pub(super) fn entry(&self, name: &OsStr, known: Option<Entry>) -> Entry {
        self.files.look_at(&self.directory, name, known)
    }
}

fn absent(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
