//! One inspection of one container: the engine's description, and the kernel's data about its process.

use std::io;

use nix::libc;

use super::answers::{self, ContainerId};
use super::client::{Client, EngineError, Reply};
use crate::blocking;
use crate::kernel::netns::{NetnsFiles, ProcessNetnsId};
use crate::kernel::pidfd::ProcessHandle;
use crate::netns_holders::{Container, Runtime};

/// Why an inspection failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// The request to the engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine's description is invalid.
    #[error("the description of a container makes no sense")]
    Strange(#[source] serde_json::Error),
    /// The namespace of the process cannot be read.
    #[error("cannot read the namespace of process {pid}: is CAP_SYS_PTRACE missing?")]
    Namespace {
        /// The process id from the engine's description.
        pid: i32,
        /// The error of the system call.
        #[source]
        err: io::Error,
    },
}

/// A container with a process.
#[derive(Debug)]
pub(super) struct Sighting {
    pub(super) id: ProcessNetnsId,
    /// Whether the namespace is the daemon's own: the container uses the host's network.
    pub(super) own: bool,
    pub(super) container: Container,
    /// The process, for the exit watch.
    pub(super) process: io::Result<ProcessHandle>,
}

/// Inspects a container. `None`: it has no process.
pub(super) async fn look(
    client: Client,
    runtime: Runtime,
    files: NetnsFiles,
    id: ContainerId,
) -> Result<Option<Sighting>, LookError> {
    let Some(Reply { content, of_root }) = client.inspect(&id).await? else {
        return Ok(None);
    };
    // On a blocking thread: reading `/proc` may be slow, and parsing a long description too.
    blocking::run(move || {
        let described = answers::description(&content, &id, runtime).map_err(LookError::Strange)?;
        match described.pid {
            Some(pid) => {
                let container = Container {
                    of_root,
                    ..described.container
                };
                observe(files, pid, container)
            }
            None => Ok(None),
        }
    })
    .await
}

fn observe(
    files: NetnsFiles,
    pid: i32,
    container: Container,
) -> Result<Option<Sighting>, LookError> {
    // Open the process first. If it ends before its namespace is read, its exit is reported, and the result for a
    // later process with the same id is removed again.
    let process = ProcessHandle::open(pid);
    if process.as_ref().is_err_and(is_no_process) {
        return Ok(None);
    }
    match files.held_by(pid) {
        Ok(id) => Ok(Some(Sighting {
            id,
            own: id.inode() == files.own_inode(),
            container,
            process,
        })),
        Err(err) if is_no_process(&err) => Ok(None),
        Err(err) => Err(LookError::Namespace { pid, err }),
    }
}

/// Returns whether the error means that no process has this id. `EINVAL` means that the id is that of a thread.
fn is_no_process(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(libc::ESRCH | libc::ENOENT | libc::EINVAL)
    )
}
