//! The mount table as a doorbell: it rings at the exact moment a namespace is mounted or unmounted.

use std::fs::File;
use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Hears changes of the caller's mount namespace, propagated ones included.
///
/// `/proc/self/mountinfo` raises `POLLPRI` whenever the table changed since the last poll
/// (`man 5 proc_pid_mountinfo`, `fs/proc_namespace.c` `mounts_poll`). Needs no privilege, cannot
/// overflow, and need not be read.
#[derive(Debug)]
pub struct MountTable(AsyncFd<File>);

impl MountTable {
    /// Listens from now on.
    ///
    /// # Errors
    /// `/proc` is not mounted, or descriptors have run out.
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
        // The guard is dropped uncleared: the readiness goes just before looking, not here.
        self.0.ready(Interest::PRIORITY).await.map(drop)
    }

    /// Forgets the changes so far: clear first, look second, and nothing falls between.
    pub fn clear(&self) {
        let cleared: io::Result<()> =
            self.0.try_io(
                Interest::PRIORITY,
                |_| Err(io::ErrorKind::WouldBlock.into()),
            );
        debug_assert!(cleared.is_err(), "the closure always would block");
    }
}
