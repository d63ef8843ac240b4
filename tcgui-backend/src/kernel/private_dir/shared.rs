//! Files that other users may read but not change, such as configuration files.
//!
//! The rules are those of [`PrivateDir`](super::PrivateDir), with two differences. Other users may read the files. A symbolic link to a file is
//! followed if it belongs to root or to the daemon's user, because some systems link the files in `/etc`.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::distrust::{Distrust, Inode, Role};
use super::{MAX_LINKS, Missing, PrivateDirError, reopen, walk};

/// Opens a regular file for reading that only root or the daemon's user can change, without blocking.
///
/// Every directory and link of its path is checked too.
///
/// # Errors
/// As `open(2)`. The error contains a [`Distrust`] if another user could change the file, or if it is not a regular file.
pub fn open_shared_file(path: &Path) -> io::Result<File> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..=MAX_LINKS {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::EISDIR.into());
        };
        let parent = walk(parent, Missing::Fail, Role::Ancestor);
        let parent = parent.map_err(PrivateDirError::into_io)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let entry = openat(&parent.fd, name, flags, Mode::empty())?;
        let inode = Inode::of(&fstat(&entry)?);
        if inode.kind == SFlag::S_IFLNK {
            if let Some(flaw) = inode.flaw_as_link() {
                return Err(Distrust::new(path, Role::Link, flaw).into());
            }
            path = parent.path().join(readlinkat(&entry, "")?);
            continue;
        }
        return match inode.flaw_as_file() {
            Some(flaw) => Err(Distrust::new(path, Role::SharedFile, flaw).into()),
            None => reopen(&entry),
        };
    }
    Err(Errno::ELOOP.into())
}

/// Returns the names of all entries of a directory that only root or the daemon's user can change.
///
/// # Errors
/// As [`super::PrivateDir::open`] and [`super::PrivateDir::names`].
pub fn list_shared_directory(path: &Path) -> io::Result<Vec<OsString>> {
    let directory = walk(path, Missing::Fail, Role::SharedDirectory);
    directory.map_err(PrivateDirError::into_io)?.names()
}
