//! The namespace of a lease, as it is written.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::kernel::boot;
use crate::kernel::netns::{MountedNamespaceId, NetnsFiles, NetnsKey, ProcessNetnsId};

/// A namespace as the kernel tells it from all others of one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum LeaseNetns {
    /// The one that the daemon ran in. No mount keeps its inode's times, but it has a cookie.
    Own {
        /// Of nsfs.
        device: u64,
        /// Its inode.
        inode: u64,
        /// The kernel's number for it, since Linux 5.14.
        cookie: Option<u64>,
    },
    /// One that a name led to.
    Mounted {
        /// Of nsfs.
        device: u64,
        /// Its inode.
        inode: u64,
        /// When the entry came to be, in s …
        ctime_s: i64,
        /// … and ns.
        ctime_ns: i64,
        /// The entry was a symbolic link.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        link: bool,
    },
    /// One that a process held.
    Held {
        /// Of nsfs.
        device: u64,
        /// Its inode.
        inode: u64,
        /// The process.
        pid: i32,
        /// When it started, in clock ticks since boot.
        started: u64,
    },
}

impl LeaseNetns {
    /// Returns the device and the inode number; `None` for the namespace of a daemon.
    pub const fn inode(self) -> Option<(u64, u64)> {
        match self {
            Self::Own { .. } => None,
            Self::Mounted { device, inode, .. } | Self::Held { device, inode, .. } => {
                Some((device, inode))
            }
        }
    }

    /// Returns the key of a namespace to which this led first; `None` for that of a daemon.
    pub const fn key(self) -> Option<NetnsKey> {
        match self {
            Self::Own { .. } => None,
            Self::Mounted {
                device,
                inode,
                ctime_s,
                ctime_ns,
                link,
            } => {
                let id = MountedNamespaceId::from_parts(device, inode, ctime_s, ctime_ns);
                let id = if link { id.through_link() } else { id };
                Some(NetnsKey::Mounted(id))
            }
            Self::Held {
                device,
                inode,
                pid,
                started,
            } => Some(NetnsKey::Held(ProcessNetnsId::from_parts(
                device, inode, pid, started,
            ))),
        }
    }
}

impl From<MountedNamespaceId> for LeaseNetns {
    fn from(id: MountedNamespaceId) -> Self {
        let (device, inode, ctime_s, ctime_ns) = id.parts();
        Self::Mounted {
            device,
            inode,
            ctime_s,
            ctime_ns,
            link: id.is_link(),
        }
    }
}

impl From<ProcessNetnsId> for LeaseNetns {
    fn from(id: ProcessNetnsId) -> Self {
        let (device, inode, pid, started) = id.parts();
        Self::Held {
            device,
            inode,
            pid,
            started,
        }
    }
}

impl fmt::Display for LeaseNetns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { inode, .. } => write!(f, "the daemon's own namespace (inode {inode})"),
            Self::Mounted { inode, .. } => write!(f, "namespace with inode {inode}"),
            Self::Held { inode, pid, .. } => {
                write!(f, "namespace with inode {inode} of process {pid}")
            }
        }
    }
}

/// Where the daemon is: this boot, this namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    pub(super) boot_id: String,
    own: LeaseNetns,
}

impl Home {
    /// Asks the kernel.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn learn(files: &NetnsFiles) -> io::Result<Self> {
        Ok(Self {
            boot_id: boot::boot_id()?,
            own: LeaseNetns::Own {
                device: files.device(),
                inode: files.own_inode(),
                cookie: boot::netns_cookie(),
            },
        })
    }

    /// Returns what is written of a namespace.
    pub fn netns(&self, key: NetnsKey) -> LeaseNetns {
        match key {
            NetnsKey::Host => self.own,
            NetnsKey::Mounted(id) => id.into(),
            NetnsKey::Held(id) => id.into(),
        }
    }

    /// Returns the namespace of what was written; `None` when it was that of a daemon elsewhere.
    pub fn key(&self, netns: LeaseNetns) -> Option<NetnsKey> {
        match netns {
            LeaseNetns::Own { .. } => (netns == self.own).then_some(NetnsKey::Host),
            LeaseNetns::Mounted { .. } | LeaseNetns::Held { .. } => netns.key(),
        }
    }
}
