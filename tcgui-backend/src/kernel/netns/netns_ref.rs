//! References to a namespace, and the key that identifies it.
//!
//! A namespace may have several names, and several processes may hold it. Namespaces that exist at the same time
//! have different inode numbers. The identity of the first reference is the key of a namespace for as long as any
//! reference leads to it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::{Entry, MountedNamespaceId, NetnsFiles, OpenError, ProcessNetnsId};

/// Identifies a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NetnsKey {
    /// The daemon's own namespace.
    Host,
    /// The first reference was a name.
    Mounted(MountedNamespaceId),
    /// The first reference was a process.
    Held(ProcessNetnsId),
}

/// A reference to a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NetnsRef {
    /// An entry of the netns directory.
    Name {
        /// The path of the entry.
        path: PathBuf,
        /// The namespace to which it led when it was seen.
        id: MountedNamespaceId,
    },
    /// A process that holds the namespace.
    Process(ProcessNetnsId),
}

impl NetnsRef {
    /// Returns the key of a namespace with this first reference.
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
    /// Returns whether a reference still leads to the same namespace. Keeps no descriptor.
    pub fn leads(&self, netns_ref: &NetnsRef) -> bool {
        match netns_ref {
            NetnsRef::Name { path, id } => {
                let seen = Entry::Network(*id);
                self.look(path, Some(seen)) == seen
            }
            NetnsRef::Process(id) => self.held_by(id.pid()).is_ok_and(|held| held == *id),
        }
    }

    /// Opens the namespace by the first of `netns_refs` that still leads there.
    ///
    /// The descriptor keeps the namespace alive: use it and close it.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::open_held`]. If one of the references failed with another error than
    /// [`OpenError::Gone`], that error is returned.
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
    fn the_first_valid_reference_is_used() {
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
