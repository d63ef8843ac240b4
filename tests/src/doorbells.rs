//! Takes away what tells the daemon of changes, and gives it back. Only inside the lab.
//!
//! Limits are those of the lab's own user namespace ([`lab::Kind::OwnLimits`](crate::lab::Kind) or
//! [`lab::command_with_limits`](crate::lab::command_with_limits)): the machine's are never touched.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::netns;

/// The limits of inotify: without instances there is none at all, without watches it hears nothing.
pub const INOTIFY: [&str; 2] = ["max_inotify_instances", "max_inotify_watches"];

/// A wrapper that starts the daemon with something in place of its mount table that cannot be polled.
pub const NO_MOUNTS: [&str; 4] = [
    "bash",
    "-c",
    r#"mount --bind /dev/null /proc/$$/mountinfo && exec "$@""#,
    "_",
];

/// The machine's own user namespace, `PROC_USER_INIT_INO` in `include/linux/proc_ns.h`.
const MACHINE: &str = "user:[4026531837]";

/// Takes away what [`NO_MOUNTS`] put before the daemon with this pid.
///
/// # Errors
///
/// When nothing is there.
pub fn give_mounts(pid: u32) -> anyhow::Result<()> {
    let table = PathBuf::from(format!("/proc/{pid}/mountinfo"));
    netns::detach(&table).context("uncover the mount table")
}

/// A limit of the lab's user namespace that is zero, and its usual value.
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

    /// Gives it its usual value again.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn raise(self) -> anyhow::Result<()> {
        fs::write(&self.path, &self.usual).context("give the limit its usual value")
    }
}
