//! The ways that lead to a namespace, and which of them stands for it.
//!
//! A namespace may have several names and be held by several processes. Those that live at the same time
//! differ by inode number; the first way that was seen is the key of a namespace for as long as any leads
//! there.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::{Entry, MountedNamespaceId, NetnsFiles, OpenError, ProcessNetnsId};

/// Which namespace, as the kernel tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NetnsKey {
    /// The daemon's own.
    Host,
    /// One that a name led to first.
    Mounted(MountedNamespaceId),
    /// One that a process led to first.
    Held(ProcessNetnsId),
}

/// A way that leads to a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NetnsRef {
    /// An entry of the netns directory.
    Name {
        /// Where it is.
        path: PathBuf,
        /// What it led to when it was seen.
        id: MountedNamespaceId,
    },
    /// A process that holds it.
    Process(ProcessNetnsId),
}

impl NetnsRef {
    /// Returns the key of a namespace that this way led to first.
    pub const fn key(&self) -> NetnsKey {
        match self {
            Self::Name { id, .. } => NetnsKey::Mounted(*id),
            Self::Process(id) => NetnsKey::Held(*id),
        }
    }
}

impl fmt::Display for NetnsRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { path, .. } => path.display().fmt(f),
            Self::Process(id) => write!(f, "/proc/{}/ns/net", id.pid()),
        }
    }
}

impl NetnsFiles {
    /// Returns whether a way leads where it led when it was seen. Keeps nothing open.
    pub fn leads(&self, netns_ref: &NetnsRef) -> bool {
        match netns_ref {
            NetnsRef::Name { path, id } => {
                let seen = Entry::Network(*id);
                self.look(path, Some(seen)) == seen
            }
            NetnsRef::Process(id) => self.held_by(id.pid()).is_ok_and(|held| held == *id),
        }
    }

    /// Opens the namespace at the first of `ways` that still leads there.
    ///
    /// The descriptor keeps the namespace alive: use it and close it.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::open_held`]: of the last way, but not that it is gone when another one
    /// was refused.
    pub fn open_any(&self, netns_refs: &[NetnsRef]) -> Result<OwnedFd, OpenError> {
        let mut failed = OpenError::Gone;
        for netns_ref in netns_refs {
            let opened = match netns_ref {
                NetnsRef::Name { path, id } => self.open(path, *id),
                NetnsRef::Process(id) => self.open_held(*id),
            };
            match opened {
                Ok(netns) => return Ok(netns),
                Err(OpenError::Gone) => {}
                Err(refused) => failed = refused,
            }
        }
        Err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::kernel::netns::Entry;

    #[test]
    fn the_first_way_that_still_leads_there_is_taken() {
        let files = NetnsFiles::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net");
        symlink("/proc/self/ns/net", &path).unwrap();
        let Entry::Network(id) = files.look(&path, None) else {
            panic!("not a namespace")
        };
        let name = NetnsRef::Name { path, id };
        let pid = nix::unistd::getpid().as_raw();
        let held = files.held_by(pid).unwrap();
        let (device, inode, pid, started) = held.parts();
        let dead = NetnsRef::Process(ProcessNetnsId::from_parts(device, inode, pid, started + 1));
        let nowhere = NetnsRef::Name {
            path: "/nowhere".into(),
            id,
        };
        let process = NetnsRef::Process(held);
        assert_eq!(name.key(), NetnsKey::Mounted(id));
        assert_eq!(process.key(), NetnsKey::Held(held));
        for netns_refs in [
            vec![name.clone()],
            vec![process.clone()],
            vec![nowhere.clone(), dead.clone(), process],
            vec![dead.clone(), name],
        ] {
            drop(files.open_any(&netns_refs).unwrap());
        }
        for netns_refs in [vec![], vec![dead, nowhere]] {
            assert!(matches!(files.open_any(&netns_refs), Err(OpenError::Gone)));
        }
    }
}
