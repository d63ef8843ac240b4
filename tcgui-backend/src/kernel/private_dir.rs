//! Directories that only root, or the user of the daemon, can change, and the files in them.
//!
//! A directory is opened component by component, and each component is checked before the next one is
//! opened relative to it. Files are opened relative to the checked directory. A path that another user
//! could replace is refused, because the daemon would act on what that user wrote.
//!
//! A component is accepted when it belongs to root or to the user of the daemon. Ancestors must not be
//! writable by group or others, unless the sticky bit keeps them from renaming what is in there (`/tmp`). The
//! directory itself must not be writable by group or others at all. Symbolic links on the way are followed
//! if they belong to root or to the user of the daemon: systemd makes `/var/lib/NAME` such a link for
//! `DynamicUser=`.

mod distrust;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{LinkatFlags, UnlinkatFlags, linkat, unlinkat};

use distrust::{Flaw, Inode, Role};

pub use distrust::Distrust;

/// As many symbolic links as the kernel follows in one path (`man 7 path_resolution`).
const MAX_LINKS: u32 = 40;
/// Only the owner may use the files of the daemon.
const DIRECTORY_MODE: Mode = Mode::S_IRWXU;
const FILE_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateDirError {
    /// Another user could change it, or a directory or link in its path.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// The kernel refused.
    #[error("cannot open the directory {path:?}")]
    Open {
        /// The component that could not be opened.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        err: io::Error,
    },
}

impl PrivateDirError {
    /// Returns whether there is no such directory.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Distrust(_) => false,
            Self::Open { err, .. } => err.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Returns the error of the kernel; that of a refusal is `EPERM`.
    pub fn into_io(self) -> io::Error {
        match self {
            Self::Open { err, .. } => err,
            Self::Distrust(distrust) => distrust.into(),
        }
    }
}

/// What to do about a directory that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Fail,
    Create,
}

/// A directory that only root or the user of the daemon can change.
#[derive(Debug)]
pub struct PrivateDir {
    path: PathBuf,
    fd: OwnedFd,
}

impl PrivateDir {
    /// Opens a directory that exists.
    ///
    /// # Errors
    /// [`PrivateDirError::Distrust`] when another user could change it; [`PrivateDirError::Open`] when it
    /// does not exist or is no directory.
    pub fn open(path: &Path) -> Result<Self, PrivateDirError> {
        walk(path, Missing::Fail, Role::Directory)
    }

    /// Opens a directory, which is made with its ancestors if it is missing.
    ///
    /// # Errors
    /// As [`Self::open`]; also when it cannot be made.
    pub fn create(path: &Path) -> Result<Self, PrivateDirError> {
        walk(path, Missing::Create, Role::Directory)
    }

    /// Returns the path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of an entry, for messages.
    pub fn path_of(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Returns the names of all entries.
    ///
    /// # Errors
    /// The directory was not read to its end.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::openat(&self.fd, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    /// Opens a regular file for reading, without waiting for anything.
    ///
    /// # Errors
    /// As `open(2)`; an error that holds a [`Distrust`] when the entry is a link, a FIFO or a device, or
    /// another user could have written it.
    pub fn open_file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let name = name.as_ref();
        let flags = OFlag::O_RDONLY
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        let distrust = |flaw| Distrust::new(self.path_of(name), Role::File, flaw);
        let fd = match openat(&self.fd, name, flags, Mode::empty()) {
            Err(Errno::ELOOP) => return Err(distrust(Flaw::Kind("a symbolic link")).into()),
            // Nobody listens on a socket that is opened as a file.
            Err(Errno::ENXIO) => return Err(distrust(Flaw::Kind("a socket")).into()),
            opened => opened?,
        };
        match Inode::of(&fstat(&fd)?).flaw_as_file() {
            Some(flaw) => Err(distrust(flaw).into()),
            None => Ok(File::from(fd)),
        }
    }

    /// Makes a file for writing, which must not exist in any form.
    ///
    /// # Errors
    /// As `open(2)` with `O_EXCL`.
    pub fn create_file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, name.as_ref(), flags, FILE_MODE)?;
        Ok(File::from(fd))
    }

    /// Writes a file and synchronises it. What has the name already is removed, never written into.
    ///
    /// # Errors
    /// As `open(2)`, `write(2)` and `fsync(2)`.
    pub fn write_file(&self, name: impl AsRef<Path>, content: &[u8]) -> io::Result<()> {
        let name = name.as_ref();
        let mut file = match self.create_file(name) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(name)?;
                self.create_file(name)?
            }
            created => created?,
        };
        file.write_all(content)?;
        file.sync_all()
    }

    /// Renames an entry over another one.
    ///
    /// # Errors
    /// As `rename(2)`.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        Ok(renameat(&self.fd, from.as_ref(), &self.fd, to.as_ref())?)
    }

    /// Gives a file another name beside its own, which must be free. A link is not followed.
    ///
    /// # Errors
    /// As `link(2)`.
    pub fn link(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        Ok(linkat(&self.fd, from, &self.fd, to, LinkatFlags::empty())?)
    }

    /// Removes an entry that is no directory.
    ///
    /// # Errors
    /// As `unlink(2)`.
    pub fn remove(&self, name: impl AsRef<Path>) -> io::Result<()> {
        let name = name.as_ref();
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Returns whether there is an entry of any kind; a link is not followed.
    pub fn has(&self, name: impl AsRef<Path>) -> bool {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::sys::stat::fstatat(&self.fd, name.as_ref(), flags).is_ok()
    }

    /// Writes changes of the entries to the disk.
    ///
    /// # Errors
    /// As `fsync(2)`.
    pub fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(&self.fd)?)
    }
}

/// Checks that no other user can replace what root makes in a directory. Others may add entries to it, as to `/tmp`.
///
/// # Errors
/// As [`PrivateDir::open`].
pub fn check_parent(path: &Path) -> Result<(), PrivateDirError> {
    walk(path, Missing::Fail, Role::Ancestor).map(drop)
}

/// Opens and checks each component of a path; the last one has the role `last`.
fn walk(path: &Path, missing: Missing, last: Role) -> Result<PrivateDir, PrivateDirError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |errno: Errno| PrivateDirError::Open {
            path,
            err: errno.into(),
        }
    };
    // An empty path, which cannot be made absolute, leads nowhere.
    let absolute = std::path::absolute(path).map_err(|_| failed(path)(Errno::ENOENT))?;
    let mut left: VecDeque<OsString> = steps(&absolute).collect();
    let (mut here, mut at) = (root()?, PathBuf::from("/"));
    let role = |left: &VecDeque<OsString>| match left.is_empty() {
        true => last,
        false => Role::Ancestor,
    };
    let mut links = 0;
    check(&here, &at, role(&left))?;
    while let Some(step) = left.pop_front() {
        let next = match step.as_bytes() {
            b".." => at.parent().unwrap_or(&at).to_owned(),
            _ => at.join(&step),
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let entry = match openat(&here, step.as_os_str(), flags, Mode::empty()) {
            Err(Errno::ENOENT) if missing == Missing::Create => {
                make(&here, &step).map_err(failed(&next))?;
                openat(&here, step.as_os_str(), flags, Mode::empty()).map_err(failed(&next))?
            }
            opened => opened.map_err(failed(&next))?,
        };
        let inode = Inode::of(&fstat(&entry).map_err(failed(&next))?);
        if inode.kind == SFlag::S_IFLNK {
            links += 1;
            if links > MAX_LINKS {
                return Err(failed(&next)(Errno::ELOOP));
            }
            if let Some(flaw) = inode.flaw_as_link() {
                return Err(Distrust::new(next, Role::Link, flaw).into());
            }
            let target = PathBuf::from(readlinkat(&entry, "").map_err(failed(&next))?);
            if target.is_absolute() {
                (here, at) = (root()?, PathBuf::from("/"));
            }
            for step in steps(&target).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(step);
            }
            continue;
        }
        if inode.kind != SFlag::S_IFDIR {
            return Err(failed(&next)(Errno::ENOTDIR));
        }
        check(&entry, &next, role(&left))?;
        (here, at) = (entry, next);
    }
    // The kernel gives no content of a directory to a descriptor that is a path alone.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = openat(&here, ".", flags, Mode::empty()).map_err(failed(&at))?;
    Ok(PrivateDir { path: absolute, fd })
}

fn check(directory: &OwnedFd, path: &Path, role: Role) -> Result<(), PrivateDirError> {
    let stat = fstat(directory).map_err(|errno| PrivateDirError::Open {
        path: path.to_owned(),
        err: errno.into(),
    })?;
    match Inode::of(&stat).flaw_as_directory(role) {
        Some(flaw) => Err(Distrust::new(path.to_owned(), role, flaw).into()),
        None => Ok(()),
    }
}

fn root() -> Result<OwnedFd, PrivateDirError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open("/", flags, Mode::empty()).map_err(|errno| PrivateDirError::Open {
        path: PathBuf::from("/"),
        err: errno.into(),
    })
}

/// Returns the components below the root that lead somewhere.
fn steps(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Makes a directory whose name survives a power failure.
fn make(parent: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    match mkdirat(parent, name, DIRECTORY_MODE) {
        // Another process made it. It is checked as any other directory.
        Err(Errno::EEXIST) => return Ok(()),
        made => made?,
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = openat(parent, ".", flags, Mode::empty())?;
    nix::unistd::fsync(&parent)
}

/// Opens a regular file at a path that other users may control, for reading, without side effects.
///
/// The kind is looked at before, so a FIFO is not waited for and a device is not opened. A symbolic link of root or of
/// the user of the daemon is followed. A link of another user is followed only to a file of the same user. Otherwise
/// that user could let root read a file that is closed to the user.
///
/// # Errors
/// As `open(2)`; `InvalidInput` when it is no regular file, `PermissionDenied` when the link is not followed.
pub fn open_foreign(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let parent = open(parent, flags | OFlag::O_DIRECTORY, Mode::empty())?;
    let mut entry = openat(&parent, name, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    let mut inode = Inode::of(&fstat(&entry)?);
    if inode.kind == SFlag::S_IFLNK {
        let link = inode;
        // The target of the open link, because another user may replace the name at any time.
        let target = readlinkat(&entry, "")?;
        entry = openat(&parent, target.as_os_str(), flags, Mode::empty())?;
        inode = Inode::of(&fstat(&entry)?);
        if link.flaw_as_link().is_some() && link.owner != inode.owner {
            let text = "a link of one user to a file of another one is not followed";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    if inode.kind != SFlag::S_IFREG {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    reopen(&entry)
}

/// Opens for reading what an `O_PATH` descriptor refers to, whatever its name leads to by now.
fn reopen(entry: &OwnedFd) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    Ok(File::from(open(path.as_str(), flags, Mode::empty())?))
}
