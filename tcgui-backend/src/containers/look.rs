//! One look at one container: what its engine says, and what the kernel says about the process it names.

use std::io;

use nix::libc;

use super::answers::{self, ContainerId};
use super::client::{Client, EngineError, Reply};
use crate::blocking;
use crate::kernel::netns::{NetnsFiles, ProcessNetnsId};
use crate::kernel::pidfd::ProcessHandle;
use crate::netns_holders::{Container, Runtime};

/// Why a look found nothing out.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// The engine does not tell.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What the engine says makes no sense.
    #[error("the description of a container makes no sense")]
    Strange(#[source] serde_json::Error),
    /// The kernel does not tell in which namespace the process is.
    #[error("cannot read the namespace of process {pid}: is CAP_SYS_PTRACE missing?")]
    Namespace {
        /// The process, as the engine says.
        pid: i32,
        /// What the kernel said.
        #[source]
        err: io::Error,
    },
}

/// A container that has a process.
#[derive(Debug)]
pub(super) struct Sighting {
    pub(super) id: ProcessNetnsId,
    /// The namespace is the daemon's own: the network of the host is not the container's.
    pub(super) own: bool,
    pub(super) container: Container,
    /// The process, to wait for its end.
    pub(super) process: io::Result<ProcessHandle>,
}

/// Looks at a container. Returns `None` if it has no process.
pub(super) async fn look(
    client: Client,
    runtime: Runtime,
    files: NetnsFiles,
    id: ContainerId,
) -> Result<Option<Sighting>, LookError> {
    let Some(Reply { content, of_root }) = client.inspect(&id).await? else {
        return Ok(None);
    };
    // `/proc` may be slow, and a description long.
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
    // The process first: if it has ended by the time that the namespace is read, its end is told, and
    // what was read of a later process with its id is removed again.
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

/// Whether an error says that there is no process of this id; `EINVAL` says that it is a thread.
fn is_no_process(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(libc::ESRCH | libc::ENOENT | libc::EINVAL)
    )
}
