//! Checks the paths at which Unix sockets are to listen, before Zenoh uses them.
//!
//! Zenoh removes whatever is at the path and opens `PATH.lock` through any link (`zenoh-link-unixsock_stream`). The
//! daemon does that as root, so only a stale socket may be there, in a directory in which no other user can replace
//! files.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::private_dir::{PrivateDirError, check_parent};
use crate::kernel::socket_file::{self, SocketFile};

/// Why there can be no socket at a path.
#[derive(Debug, thiserror::Error)]
pub enum UnixSocketError {
    /// Something is there that is not to be replaced.
    #[error(
        "{path:?} is {kind}, which is not replaced by a socket: remove it or choose another path"
    )]
    Occupied {
        /// As given.
        path: PathBuf,
        /// What is there.
        kind: &'static str,
    },
    /// Another process has it.
    #[error(
        "another process listens on the socket {path:?}: stop it, or choose another path with --zenoh-listen"
    )]
    InUse {
        /// As given.
        path: PathBuf,
    },
    /// What is there cannot be found out.
    #[error("cannot look at the socket {path:?}")]
    Look {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        err: io::Error,
    },
    /// Its directory is missing, or other users can replace files in it.
    #[error("cannot use the directory of the socket {path:?}")]
    Directory {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        err: PrivateDirError,
    },
    /// The lock file beside it cannot be made, or is something else.
    #[error("cannot use the lock file {path:?}: remove it if it is no regular file of root")]
    Lock {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        err: io::Error,
    },
}

/// Checks every Unix socket among the endpoints to listen on.
///
/// # Errors
/// [`UnixSocketError`]: what is in the way, and what to do about it.
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
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
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
    fn only_what_is_free_or_stale_is_used() {
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
