//! A network namespace for one test, which ends with it. Nothing of the machine is touched.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::netns::{Entry, HeldNamespaceId, MountedNamespaceId, NetnsFiles, inside};

/// A namespace that lives as long as this does. Needs root, and says so.
#[derive(Debug)]
pub(crate) struct PrivateNetns {
    netns: OwnedFd,
    directory: TempDir,
}

impl PrivateNetns {
    /// Makes an empty namespace, its loopback down, on a thread that ends.
    pub(crate) fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests of the kernel need root");
            std::fs::File::open("/proc/thread-self/ns/net").expect("a namespace is a file")
        };
        let netns: OwnedFd = thread::spawn(make).join().expect("made").into();
        let directory = tempfile::tempdir().expect("a directory");
        let file = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        symlink(file, directory.path().join("netns")).expect("a name for it");
        Self { netns, directory }
    }

    /// Returns a descriptor of it.
    pub(crate) fn open(&self) -> OwnedFd {
        self.netns.try_clone().expect("a descriptor")
    }

    /// Returns a path that leads to it, and its identity there.
    pub(crate) fn path(&self) -> (PathBuf, MountedNamespaceId) {
        let path = self.directory.path().join("netns");
        match NetnsFiles::new().expect("/proc").look(&path, None) {
            Entry::Network(id) => (path, id),
            other => panic!("{path:?} is {other:?}"),
        }
    }

    /// Runs `work` inside.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(self.open(), work).expect("tests of the kernel need root")
    }

    /// Runs `ip` with the words of a line inside.
    pub(crate) fn ip(&self, line: &str) {
        let output = self.inside(|| Command::new("ip").args(line.split_whitespace()).output());
        let output = output.expect("iproute2 is installed");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {line}: {error}");
    }
}

/// A network namespace without a name, of a process that ends with this. Needs root, and says so.
#[derive(Debug)]
pub(crate) struct HeldNetns {
    process: Child,
    id: HeldNamespaceId,
}

impl HeldNetns {
    /// Starts the process, and waits until it is there.
    pub(crate) fn new() -> Self {
        let mut command = Command::new("unshare");
        let process = command.args(["-n", "sleep", "60"]).spawn();
        let mut process = process.expect("util-linux is installed");
        let files = NetnsFiles::new().expect("/proc");
        let pid = i32::try_from(process.id()).expect("a process id");
        loop {
            let id = files.held_by(pid).expect("it lives");
            if id.inode() != files.own_inode() {
                return Self { process, id };
            }
            let ended = process.try_wait().expect("a child");
            assert_eq!(ended, None, "tests of the kernel need root");
            thread::yield_now();
        }
    }

    /// Returns who holds it.
    pub(crate) fn id(&self) -> HeldNamespaceId {
        self.id
    }

    /// Ends the process; the namespace goes unless somebody else keeps it.
    pub(crate) fn end(mut self) {
        self.kill();
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Drop for HeldNetns {
    fn drop(&mut self) {
        self.kill();
    }
}
