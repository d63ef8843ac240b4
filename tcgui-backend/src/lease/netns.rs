//! The namespace of a lease, in the form of its file.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::kernel::boot;
use crate::kernel::netns::{MountedNamespaceId, NetnsFiles, NetnsKey, ProcessNetnsId};

/// The kernel's identity of a namespace. It is unique within a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum LeaseNetns {
    /// The namespace of the daemon. No mount keeps the times of its inode, but it has a cookie.
    Own {
        /// The device number of nsfs.
        device: u64,
        /// The inode number.
        inode: u64,
        /// The cookie (Linux 5.14).
        cookie: Option<u64>,
    },
    /// A namespace with a name.
    Mounted {
        /// The device number of nsfs.
        device: u64,
        /// The inode number.
        inode: u64,
        /// The change time of the entry, in s …
        ctime_s: i64,
        /// … and ns.
        ctime_ns: i64,
        /// Whether the entry was a symbolic link.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        link: bool,
    },
    /// A namespace that a process held.
    Held {
        /// The device number of nsfs.
        device: u64,
        /// The inode number.
        inode: u64,
        /// The process id.
        pid: i32,
        /// The start time of the process, in clock ticks since boot.
        started: u64,
    },
}

impl LeaseNetns {
    /// Returns the device and the inode number. `None`: the namespace of a daemon.
    pub const fn inode(self) -> Option<(u64, u64)> {
        match self {
            Self::Own { .. } => None,
            Self::Mounted { device, inode, .. } | Self::Held { device, inode, .. } => {
                Some((device, inode))
            }
        }
    }

    /// Returns the key of a namespace whose first reference this is. `None`: the namespace of a daemon.
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

/// The boot and the namespace of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    pub(super) boot_id: String,
    own: LeaseNetns,
}

impl Home {
    /// Reads both from the kernel.
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

    /// Returns the identity of a namespace for a lease file.
    pub fn netns(&self, key: NetnsKey) -> LeaseNetns {
        match key {
            NetnsKey::Host => self.own,
            NetnsKey::Mounted(id) => id.into(),
            NetnsKey::Held(id) => id.into(),
        }
    }

    /// Returns the key of a namespace in a lease file. `None`: it was the namespace of a daemon that ran in another
    /// one.
    pub fn key(&self, netns: LeaseNetns) -> Option<NetnsKey> {
        match netns {
            LeaseNetns::Own { .. } => (netns == self.own).then_some(NetnsKey::Host),
            LeaseNetns::Mounted { .. } | LeaseNetns::Held { .. } => netns.key(),
        }
    }
}
