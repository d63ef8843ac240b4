//! The end of a process, told at the moment it happens.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::netns::{HeldNamespaceId, NetnsFiles, OpenError};

/// Waits for the end of one process (`man 2 pidfd_open`, Linux 5.3).
///
/// The descriptor keeps neither the process nor its namespace alive. It becomes readable when the last
/// thread has ended, which is after the process has let go of its namespaces (`do_exit`, `kernel/exit.c`).
#[derive(Debug)]
pub struct ProcessEnd(AsyncFd<OwnedFd>);

impl ProcessEnd {
    /// Watches the process that holds `id`, if it is still the same and still in that namespace.
    ///
    /// # Errors
    /// [`OpenError::Gone`] when it has ended or left; [`OpenError::Open`] when descriptors have run out, or
    /// the kernel does not know how.
    pub fn open(files: NetnsFiles, id: HeldNamespaceId) -> Result<Self, OpenError> {
        let fd = open(id.pid()).map_err(|errno| match errno {
            Errno::ESRCH => OpenError::Gone,
            errno => OpenError::Open(errno.into()),
        })?;
        // Only now: from here on the process id cannot come to mean another process unnoticed.
        if files.held_by(id.pid()).ok() != Some(id) {
            return Err(OpenError::Gone);
        }
        #[expect(
            unsafe_code,
            reason = "tokio asks its callers to vouch for the descriptor"
        )]
        // SAFETY: the descriptor is moved into the `AsyncFd`, which lends it out only shared and
        // closes it when it is dropped; until then it stays open and belongs to nobody else.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        fd.map(Self).map_err(|err| OpenError::Open(err.into()))
    }

    /// Waits until the process has ended. Cancel-safe: having ended is a state.
    ///
    /// # Errors
    /// The runtime shuts down.
    pub async fn wait(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }
}

#[expect(unsafe_code, reason = "libc has no function for this system call")]
fn open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes a process id and flags, and no pointer.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(Errno::result(answer)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made the descriptor for the caller, and nobody else knows it. It is
    // closed on `exec` without being asked to.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_told_and_one_that_has_ended_is_not_watched() {
        let files = NetnsFiles::new().unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let id = files.held_by(pid).unwrap();
        let end = ProcessEnd::open(files, id).unwrap();
        let early = timeout(Duration::from_millis(50), end.wait()).await;
        assert!(early.is_err(), "it lives");

        let (device, inode, pid, started) = id.parts();
        let other = HeldNamespaceId::from_parts(device, inode + 1, pid, started);
        assert!(matches!(
            ProcessEnd::open(files, other),
            Err(OpenError::Gone)
        ));

        drop(child.stdin.take());
        timeout(Duration::from_secs(5), end.wait())
            .await
            .expect("it ends")
            .unwrap();
        assert!(matches!(ProcessEnd::open(files, id), Err(OpenError::Gone)));
        child.wait().unwrap();
        assert!(matches!(ProcessEnd::open(files, id), Err(OpenError::Gone)));
    }
}
