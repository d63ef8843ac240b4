//! Checks the paths of Unix sockets before Zenoh listens on them.
//!
//! Zenoh removes any file at the path and opens `PATH.lock` through any link (`zenoh-link-unixsock_stream`). The
//! daemon does that as root. So only a stale socket is accepted at the path, in a directory in which no other user
//! can replace files.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::private_dir::{PrivateDirError, check_parent};
use crate::kernel::socket_file::{self, SocketFile};

/// Why a path cannot be used for a socket.
#[derive(Debug, thiserror::Error)]
pub enum UnixSocketError {
    /// Another file is at the path.
    #[error(
        "{path:?} is {kind}, which is not replaced by a socket: remove it or choose another path"
    )]
    Occupied {
        /// The path as given.
        path: PathBuf,
        /// The kind of the file.
        kind: &'static str,
    },
    /// Another process listens on the socket.
    #[error(
        "another process listens on the socket {path:?}: stop it, or choose another path with --zenoh-listen"
    )]
    InUse {
        /// The path as given.
        path: PathBuf,
    },
    /// The file at the path cannot be examined.
    #[error("cannot look at the socket {path:?}")]
    Look {
        /// The path as given.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        err: io::Error,
    },
    /// The directory is missing, or other users can replace files in it.
    #[error("cannot use the directory of the socket {path:?}")]
    Directory {
        /// The path as given.
        path: PathBuf,
        /// The cause.
        #[source]
        err: PrivateDirError,
    },
    /// The lock file next to the socket cannot be created, or is not a regular file of root.
    #[error("cannot use the lock file {path:?}: remove it if it is no regular file of root")]
    Lock {
        /// Its path.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        err: io::Error,
    },
}

/// Checks every Unix socket among the endpoints to listen on.
///
/// # Errors
/// [`UnixSocketError`] names the obstacle and the remedy.
pub fn check(listen: &[String]) -> Result<(), UnixSocketError> {
    let sockets = listen
        .iter()
        .filter_map(|endpoint| endpoint.strip_prefix("unixsock-stream/"));
    for path in sockets.map(Path::new) {
        check_path(path)?;
    }
    Ok(())
}

fn check_path(path: &Path) -> Result<(), UnixSocketError> {
    let owned = || path.to_owned();
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    check_parent(parent.unwrap_or(Path::new(".")))
        .map_err(|err| UnixSocketError::Directory { path: owned(), err })?;
    let found =
        socket_file::look(path).map_err(|err| UnixSocketError::Look { path: owned(), err })?;
    match found {
        SocketFile::Absent | SocketFile::Stale => {}
        SocketFile::Live => return Err(UnixSocketError::InUse { path: owned() }),
        SocketFile::Other(kind) => {
            return Err(UnixSocketError::Occupied {
                path: owned(),
                kind,
            });
        }
    }
    let lock = lock_of(path);
    socket_file::make_lock(&lock).map_err(|err| UnixSocketError::Lock { path: lock, err })
}

fn lock_of(path: &Path) -> PathBuf {
    let mut lock = OsString::from(path);
    lock.push(".lock");
    PathBuf::from(lock)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_free_path_or_a_stale_socket_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let checked = |name: &str| {
            let endpoint = format!("unixsock-stream/{}", path(name).display());
            check(&["tcp/127.0.0.1:7447".to_owned(), endpoint])
        };
        let refusal = |name: &str| checked(name).unwrap_err().to_string();
        checked("free").unwrap();
        checked("free").unwrap();
        drop(UnixListener::bind(path("stale")).unwrap());
        checked("stale").unwrap();
        fs::write(path("file"), "precious").unwrap();
        assert!(refusal("file").contains("a regular file"));
        assert_eq!(fs::read(path("file")).unwrap(), b"precious");
        let _live = UnixListener::bind(path("live")).unwrap();
        assert!(refusal("live").contains("another process listens"));
        symlink("target", path("linked.lock")).unwrap();
        assert!(refusal("linked").contains("linked.lock"));
        assert!(!path("target").exists());
        assert!(refusal("no/socket").contains("directory"));
        fs::create_dir(path("open")).unwrap();
        fs::set_permissions(path("open"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(refusal("open/socket").contains("directory"));
        assert!(!path("open/socket.lock").exists());
    }
}
