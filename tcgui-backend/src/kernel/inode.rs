//! Examines files without waiting for a file server.
//!
//! `stat(2)` waits for the server of a FUSE or network file system, without a limit if it does not answer. With
//! `AT_STATX_DONT_SYNC` the kernel returns cached data (`man 2 statx`; `fuse_update_get_attr` in `fs/fuse/dir.c`).
//! For a mount it always has the type and the device of its root, which are enough to distinguish a namespace from
//! any other file. A path *through* such a file system still waits.

use std::ffi::{CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::libc;

/// Whether a symbolic link as the last component is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// The target of the link is examined.
    Follow,
    /// The link itself is examined.
    Stay,
}

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A device.
    Device,
}

/// An inode, from the kernel's cached data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    /// The device number, as in `st_dev`.
    pub device: u64,
    /// The inode number.
    pub number: u64,
    /// The change time: seconds and nanoseconds.
    pub ctime: (i64, i64),
    /// The type and the permissions, as in `st_mode`.
    pub mode: u32,
    /// The length in bytes.
    pub len: u64,
}

impl Inode {
    /// Returns the inode at a path.
    ///
    /// # Errors
    /// As `stat(2)`.
    pub fn at(path: &Path, links: Links) -> io::Result<Self> {
        Self::beside(AT_FDCWD, path.as_os_str(), links)
    }

    /// Returns the inode `name` of an open directory.
    ///
    /// # Errors
    /// As `fstatat(2)`.
    pub fn beside(directory: BorrowedFd<'_>, name: &OsStr, links: Links) -> io::Result<Self> {
        let flags = match links {
            Links::Follow => 0,
            Links::Stay => libc::AT_SYMLINK_NOFOLLOW,
        };
        statx(directory, name, flags)
    }

    /// Returns the inode of an open file.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn of(open: &impl AsFd) -> io::Result<Self> {
        statx(open.as_fd(), OsStr::new(""), libc::AT_EMPTY_PATH)
    }

    /// Returns the kind of the file.
    pub fn kind(&self) -> FileKind {
        match self.mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::Regular,
            libc::S_IFDIR => FileKind::Directory,
            libc::S_IFLNK => FileKind::Symlink,
            libc::S_IFIFO => FileKind::Fifo,
            libc::S_IFSOCK => FileKind::Socket,
            _ => FileKind::Device,
        }
    }

    /// Returns the permission bits.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }
}

#[expect(unsafe_code, reason = "nix has no statx")]
fn statx(directory: BorrowedFd<'_>, name: &OsStr, flags: libc::c_int) -> io::Result<Inode> {
    let name = CString::new(name.as_bytes())?;
    let flags = flags | libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the descriptor is open and the name is terminated for the duration of the call, and `found` has room for
    // what the kernel writes.
    let answer = unsafe {
        libc::statx(
            directory.as_raw_fd(),
            name.as_ptr(),
            flags,
            libc::STATX_BASIC_STATS,
            found.as_mut_ptr(),
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all fields are integers, for which zeros are values, and the kernel has written those that it knows.
    let found = unsafe { found.assume_init() };
    Ok(Inode {
        device: libc::makedev(found.stx_dev_major, found.stx_dev_minor),
        number: found.stx_ino,
        ctime: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec.into()),
        mode: found.stx_mode.into(),
        len: found.stx_size,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn an_inode_equals_the_result_of_stat() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "four").unwrap();
        symlink(&file, &link).unwrap();
        let own = Path::new("/proc/self/ns/net");
        for (path, links, expected) in [
            (&*file, Links::Stay, fs::symlink_metadata(&file)),
            (&*link, Links::Stay, fs::symlink_metadata(&link)),
            (&*link, Links::Follow, fs::metadata(&link)),
            (own, Links::Follow, fs::metadata(own)),
        ] {
            let expected = expected.unwrap();
            let found = Inode::at(path, links).unwrap();
            let expected = Inode {
                device: expected.dev(),
                number: expected.ino(),
                ctime: (expected.ctime(), expected.ctime_nsec()),
                mode: expected.mode(),
                len: expected.len(),
            };
            assert_eq!(found, expected, "{path:?} {links:?}");
        }
        assert_eq!(
            Inode::at(&link, Links::Stay).unwrap().kind(),
            FileKind::Symlink
        );
        let open = fs::File::open(&file).unwrap();
        assert_eq!(
            Inode::of(&open).unwrap(),
            Inode::at(&file, Links::Stay).unwrap()
        );
        let missing = Inode::at(&dir.path().join("missing"), Links::Stay);
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        let nul = Inode::at(Path::new(OsStr::from_bytes(b"a\0b")), Links::Stay);
        assert_eq!(nul.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
