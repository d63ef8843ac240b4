//! A network namespace for one test, which ends with it. Nothing of the machine is touched.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::netns::{Entry, MountedNamespaceId, NetnsFiles, inside};

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
