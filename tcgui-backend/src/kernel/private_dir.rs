//! Directories that only root, or the user of the daemon, can change, and the files in them.
//!
//! A directory is opened component by component. Each component is checked before the next one is opened relative
//! to it. Files are opened relative to the checked directory. A path that another user could replace is refused,
//! because the daemon would act on data of that user.
//!
//! A component is accepted if it belongs to root or to the daemon's user. Ancestors must not be writable by group
//! or others, unless the sticky bit prevents them from renaming its entries (`/tmp`). The directory itself must
//! not be writable by group or others at all. Symbolic links in the path are followed if they belong to root or to
//! the daemon's user: systemd creates `/var/lib/NAME` as such a link for `DynamicUser=`.

mod distrust;
mod shared;
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
pub use shared::{list_shared_directory, open_shared_file};

/// The limit of symbolic links in one path, as in the kernel (`man 7 path_resolution`).
const MAX_LINKS: u32 = 40;
/// Only the owner may use the daemon's files.
const DIRECTORY_MODE: Mode = Mode::S_IRWXU;
const FILE_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateDirError {
    /// Another user could change it, or a directory or link in its path.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// A component could not be opened or created.
    #[error("cannot open the directory {path:?}")]
    Open {
        /// The component that could not be opened.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        err: io::Error,
    },
}

impl PrivateDirError {
    /// Returns whether the directory does not exist.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Distrust(_) => false,
            Self::Open { err, .. } => err.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Returns the error of the system call, or an error that contains the [`Distrust`].
    pub fn into_io(self) -> io::Error {
        match self {
            Self::Open { err, .. } => err,
            Self::Distrust(distrust) => distrust.into(),
        }
    }
}

/// How to treat a directory that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Fail,
    Create,
}

/// A directory that only root or the daemon's user can change.
#[derive(Debug)]
pub struct PrivateDir {
    path: PathBuf,
    fd: OwnedFd,
}

impl PrivateDir {
    /// Opens a directory that exists.
    ///
    /// # Errors
    /// [`PrivateDirError::Distrust`] if another user could change it. [`PrivateDirError::Open`] if it does not
    /// exist or is not a directory.
    pub fn open(path: &Path) -> Result<Self, PrivateDirError> {
        walk(path, Missing::Fail, Role::Directory)
    }

    /// Opens a directory, and creates it with its ancestors if it is missing.
    ///
    /// # Errors
    /// As [`Self::open`]. Also if it cannot be created.
    pub fn create(path: &Path) -> Result<Self, PrivateDirError> {
        walk(path, Missing::Create, Role::Directory)
    }

    /// Returns the path with which it was opened.
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

    /// Opens a regular file for reading, without blocking.
    ///
    /// # Errors
    /// As `open(2)`. The error contains a [`Distrust`] if the entry is a link, a FIFO or a device, or if another
    /// user could have written it.
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
            // `open(2)` of a socket.
            Err(Errno::ENXIO) => return Err(distrust(Flaw::Kind("a socket")).into()),
            opened => opened?,
        };
        match Inode::of(&fstat(&fd)?).flaw_as_file() {
            Some(flaw) => Err(distrust(flaw).into()),
            None => Ok(File::from(fd)),
        }
    }

    /// Creates a file for writing. The name must be free.
    ///
    /// # Errors
    /// As `open(2)` with `O_EXCL`.
    pub fn create_file(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, name.as_ref(), flags, FILE_MODE)?;
        Ok(File::from(fd))
    }

    /// Writes a file and synchronizes it. An existing entry of this name is removed, never written to.
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

    /// Renames an entry, and replaces an existing one of the new name.
    ///
    /// # Errors
    /// As `rename(2)`.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        Ok(renameat(&self.fd, from.as_ref(), &self.fd, to.as_ref())?)
    }

    /// Gives a file an additional name, which must be free. A link is not followed.
    ///
    /// # Errors
    /// As `link(2)`.
    pub fn link(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        Ok(linkat(&self.fd, from, &self.fd, to, LinkatFlags::empty())?)
    }

    /// Removes an entry that is not a directory.
    ///
    /// # Errors
    /// As `unlink(2)`.
    pub fn remove(&self, name: impl AsRef<Path>) -> io::Result<()> {
        let name = name.as_ref();
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Returns whether an entry of any kind exists. A link is not followed.
    pub fn has(&self, name: impl AsRef<Path>) -> bool {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::sys::stat::fstatat(&self.fd, name.as_ref(), flags).is_ok()
    }

    /// Writes changes of the entries to disk.
    ///
    /// # Errors
    /// As `fsync(2)`.
    pub fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(&self.fd)?)
    }
}

/// Checks that no other user can replace files that root creates in a directory. Other users may add entries, as
/// in `/tmp`.
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
    // An empty path cannot be made absolute.
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
    // An `O_PATH` descriptor cannot be used to read a directory.
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

/// Returns the components below the root, without `.`.
fn steps(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Creates a directory, and synchronizes its parent so that it persists after a power failure.
fn make(parent: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    match mkdirat(parent, name, DIRECTORY_MODE) {
        // Another process created it. It is checked as any other directory.
        Err(Errno::EEXIST) => return Ok(()),
        made => made?,
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = openat(parent, ".", flags, Mode::empty())?;
    nix::unistd::fsync(&parent)
}

/// Opens a regular file at a path that other users may control, for reading, without side effects.
///
/// The kind is checked before, so the call does not wait for a FIFO and does not open a device. A symbolic link of
/// root or of the daemon's user is followed. A link of another user is followed only to a file of the same user.
/// Otherwise that user could make root read a file that the user may not read.
///
/// # Errors
/// As `open(2)`. `InvalidInput` if it is not a regular file, `PermissionDenied` if the link is not followed.
pub fn open_foreign(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let parent = open(parent, flags | OFlag::O_DIRECTORY, Mode::empty())?;
    let mut entry = openat(&parent, name, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    let mut inode = Inode::of(&fstat(&entry)?);
    if inode.kind == SFlag::S_IFLNK {
        let link = inode;
        // Read the link that is open, because another user may replace the name at any time.
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

/// Opens the file of an `O_PATH` descriptor for reading. Its name may already lead to another file.
fn reopen(entry: &OwnedFd) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    Ok(File::from(open(path.as_str(), flags, Mode::empty())?))
}
