//! Disables and restores the change notifications of the daemon. Only for use in the lab.
//!
//! Limits are set in the user namespace of the lab ([`lab::Kind::OwnLimits`](crate::lab::Kind) or
//! [`lab::command_with_limits`](crate::lab::command_with_limits)). The limits of the machine are never changed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::netns;

/// The limits of inotify. Without instances the daemon has no inotify descriptor. Without watches it receives no events.
pub const INOTIFY: [&str; 2] = ["max_inotify_instances", "max_inotify_watches"];

/// A wrapper that starts the daemon with a mount table that cannot be polled.
pub const NO_MOUNTS: [&str; 4] = [
    "bash",
    "-c",
    r#"mount --bind /dev/null /proc/$$/mountinfo && exec "$@""#,
    "_",
];

/// The initial user namespace of the machine, `PROC_USER_INIT_INO` in `include/linux/proc_ns.h`.
const MACHINE: &str = "user:[4026531837]";

/// Removes the file with which [`NO_MOUNTS`] covers the mount table of the daemon with this pid.
///
/// # Errors
///
/// When nothing covers it.
pub fn give_mounts(pid: u32) -> anyhow::Result<()> {
    let table = PathBuf::from(format!("/proc/{pid}/mountinfo"));
    netns::detach(&table).context("uncover the mount table")
}

/// A limit of the lab's user namespace that was set to zero, and its former value.
#[derive(Debug)]
pub struct Limit {
    path: PathBuf,
    usual: Vec<u8>,
}

impl Limit {
    /// Sets a limit of `/proc/sys/user` to zero.
    ///
    /// # Errors
    ///
    /// When this is the machine's user namespace, or the kernel has no such limit or refuses.
    pub fn zero(name: &str) -> anyhow::Result<Self> {
        let here = fs::read_link("/proc/self/ns/user").context("find the own user namespace")?;
        ensure!(
            here != Path::new(MACHINE),
            "{name} would be the machine's: only in a user namespace"
        );
        let path = Path::new("/proc/sys/user").join(name);
        let usual = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        fs::write(&path, "0").with_context(|| format!("write {}", path.display()))?;
        Ok(Self { path, usual })
    }

    /// Restores the former value.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn raise(self) -> anyhow::Result<()> {
        fs::write(&self.path, &self.usual).context("give the limit its usual value")
    }
}
