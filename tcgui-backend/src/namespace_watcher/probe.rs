//! Reads one entry, the whole directory, or the route to it. Keeps no descriptor.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::PathBuf;

use super::route::{Route, is_absent};
use crate::kernel::inode::{FileKind, Inode, Links};
use crate::kernel::netns::{Entry, NetnsDirectory, NetnsFiles};
use crate::kernel::pidfd::{ProcessEnd, ProcessHandle};
use crate::kernel::proc_link::ProcTask;

/// Reads the netns directory and its entries.
#[derive(Debug)]
pub(super) struct Probe {
    directory: PathBuf,
    files: NetnsFiles,
}

impl Probe {
    pub(super) fn new(directory: PathBuf, files: NetnsFiles) -> Self {
        Self { directory, files }
    }

    /// Checks that the path is a directory that can be listed, or does not exist.
    pub(super) fn check(&self) -> io::Result<()> {
        match fs::read_dir(&self.directory) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    /// Returns the current route to the directory.
    pub(super) fn route(&self) -> io::Result<Route> {
        Route::of(&self.directory)
    }

    /// Returns the current state of the entry `name`.
    pub(super) fn entry(&self, name: &OsStr, known: Option<Entry>) -> Entry {
        self.files.look(&self.directory.join(name), known)
    }

    /// Returns an exit watch on the process that the symbolic link `name` leads through. `None`: it leads through
    /// no other process.
    ///
    /// # Errors
    /// The process cannot be watched, or has ended.
    pub(super) fn process_behind(&self, name: &OsStr) -> io::Result<Option<ProcessEnd>> {
        let Some(task) = ProcTask::behind(&self.directory.join(name)) else {
            return Ok(None);
        };
        ProcessHandle::of_task(task)?.end().map(Some)
    }

    /// Returns whether `name` is an empty file without permissions, as `ip netns add` creates it as a mount point.
    pub(super) fn is_placeholder(&self, name: &OsStr) -> bool {
        let found = Inode::at(&self.directory.join(name), Links::Stay);
        found.is_ok_and(|found| {
            let is_empty = found.kind() == FileKind::Regular && found.len == 0;
            is_empty && found.permissions() & 0o777 == 0
        })
    }

    /// Lists the directory. `None`: it does not exist.
    ///
    /// # Errors
    /// The directory exists but was not read to its end. Entries that were not read may still exist.
    pub(super) fn list(&self) -> io::Result<Option<Listing>> {
        let mut directory = match NetnsDirectory::open(&self.directory) {
            Ok(directory) => directory,
            Err(err) if is_absent(&err) => return Ok(None),
            Err(err) => return Err(err),
        };
        let names = directory.names()?;
        Ok(Some(Listing {
            names,
            directory,
            files: self.files,
        }))
    }
}

/// The names in the directory, and the open directory to look at them.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) names: Vec<OsString>,
    directory: NetnsDirectory,
    files: NetnsFiles,
}

impl Listing {
    /// Returns the current state of the entry `name`.
    pub(super) fn entry(&self, name: &OsStr, known: Option<Entry>) -> Entry {
        self.files.look_at(&self.directory, name, known)
    }
}
