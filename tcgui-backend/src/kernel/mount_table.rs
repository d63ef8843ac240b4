//! The mount table as a doorbell: it reports at once that a namespace was mounted or unmounted.

use std::fs::File;
use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Reports changes of the caller's mount namespace, including propagated ones.
///
/// `/proc/self/mountinfo` raises `POLLPRI` when the table has changed since the last poll
/// (`man 5 proc_pid_mountinfo`, `fs/proc_namespace.c` `mounts_poll`). It needs no privilege, cannot overflow, and
/// does not have to be read.
#[derive(Debug)]
pub struct MountTable(AsyncFd<File>);

impl MountTable {
    /// Opens the table. Every later change is reported.
    ///
    /// # Errors
    /// `/proc` is not mounted, or the process has no free descriptor.
    pub fn open() -> io::Result<Self> {
        let file = File::open("/proc/self/mountinfo")?;
        #[expect(
            unsafe_code,
            reason = "tokio asks its callers to vouch for the descriptor"
        )]
        // SAFETY: the file is moved into the `AsyncFd`, which lends it out only shared and closes it
        // when it is dropped; until then the descriptor stays open and is this file's alone.
        let registered = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) };
        Ok(Self(registered?))
    }

    /// Waits for a change that was not cleared. Cancel-safe: it stays until [`Self::clear`].
    ///
    /// # Errors
    /// The runtime shuts down.
    pub async fn changed(&self) -> io::Result<()> {
        // The guard is dropped without clearing the readiness. [`Self::clear`] does that just before the next
        // look.
        self.0.ready(Interest::PRIORITY).await.map(drop)
    }

    /// Clears the changes so far. Call it before looking, so that no change is missed in between.
    pub fn clear(&self) {
        let cleared: io::Result<()> =
            self.0.try_io(
                Interest::PRIORITY,
                |_| Err(io::ErrorKind::WouldBlock.into()),
            );
        debug_assert!(cleared.is_err(), "the closure always would block");
    }
}
