//! Examines the path at which a Unix socket is to listen, and its lock file.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::geteuid;

/// The kind of the file at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketFile {
    /// No file.
    Absent,
    /// A socket of a process that has ended: no process listens.
    Stale,
    /// A socket on which a process listens.
    Live,
    /// Another file, which must not be replaced.
    Other(&'static str),
}

/// Examines a path without waiting. A symbolic link is not followed.
///
/// # Errors
/// As `lstat(2)`. As `connect(2)`, if its error does not show whether a process listens.
pub fn look(path: &Path) -> io::Result<SocketFile> {
    let kind = match fs::symlink_metadata(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(SocketFile::Absent),
        found => found?.file_type(),
    };
    if !kind.is_socket() {
        return Ok(SocketFile::Other(match () {
            () if kind.is_file() => "a regular file",
            () if kind.is_dir() => "a directory",
            () if kind.is_symlink() => "a symbolic link",
            () if kind.is_fifo() => "a FIFO",
            () => "a device",
        }));
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let client = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(client.as_raw_fd(), &UnixAddr::new(path)?) {
        // EAGAIN: the queue of the listener is full. EPROTOTYPE: the socket is for datagrams.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Ok(SocketFile::Live),
        Err(Errno::ECONNREFUSED) => Ok(SocketFile::Stale),
        Err(errno) => Err(errno.into()),
    }
}

/// Creates an empty lock file for a socket, or checks that an existing one is a regular file of root or of the
/// daemon's user.
///
/// # Errors
/// As `open(2)`. `InvalidInput` if the path has another kind of file, or one of another user.
pub fn make_lock(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map(drop),
    }
    let found = fs::symlink_metadata(path)?;
    let is_trusted = found.uid() == 0 || found.uid() == geteuid().as_raw();
    if found.is_file() && is_trusted {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn only_a_socket_without_a_listener_is_stale() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let found = |name: &str| look(&path(name)).unwrap();
        fs::write(path("file"), "").unwrap();
        fs::create_dir(path("directory")).unwrap();
        symlink("nowhere", path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let listener = UnixListener::bind(path("socket")).unwrap();
        let _datagram = UnixDatagram::bind(path("datagram")).unwrap();
        assert_eq!(found("missing"), SocketFile::Absent);
        assert_eq!(found("file"), SocketFile::Other("a regular file"));
        assert_eq!(found("directory"), SocketFile::Other("a directory"));
        assert_eq!(found("link"), SocketFile::Other("a symbolic link"));
        assert_eq!(found("fifo"), SocketFile::Other("a FIFO"));
        assert_eq!(found("datagram"), SocketFile::Live);
        // Also while its queue is full.
        for _ in 0..1000 {
            assert_eq!(found("socket"), SocketFile::Live);
        }
        drop(listener);
        assert_eq!(found("socket"), SocketFile::Stale);
    }

    #[test]
    fn a_lock_is_created_or_checked_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        make_lock(&path("lock")).unwrap();
        make_lock(&path("lock")).unwrap();
        symlink("target", path("link")).unwrap();
        make_lock(&path("link")).unwrap_err();
        assert!(!path("target").exists());
        fs::write(path("foreign"), "").unwrap();
        std::os::unix::fs::chown(path("foreign"), Some(65534), None).expect("tests need root");
        make_lock(&path("foreign")).unwrap_err();
    }
}
