//! The running kernel: counters by namespace id, statistics of netems over a socket inside.

use std::path::PathBuf;

use tcgui_shared::names::NamespaceName;
use tcgui_shared::tc::{BasicStats, QueueStats, RateEstimate};

use super::{CounterKernel, QdiscStatistics, ReadError, Reading, RosterEntry};
use crate::kernel::link::LinkCounters;
use crate::kernel::netns::{MountedNamespaceId, NetnsKey};
use crate::kernel::qdisc::Qdisc;
use crate::kernel::rtnetlink::{RequestSocket, Rtnetlink};
use crate::sockets::{NetnsSockets, SocketError};

/// What the kernel answers for an id that names no namespace: `EINVAL` (`rtnl_get_net_ns_capable`).
const INVALID_NSID: i32 = 22;

/// Reads counters, by namespace id where there is one.
#[derive(Debug, Clone)]
pub struct KernelCounters {
    requests: Rtnetlink,
    sockets: NetnsSockets,
    directory: PathBuf,
}

impl KernelCounters {
    /// Reads by id over `requests`, which should be nobody else's: a reading must not wait for a look.
    /// Named namespaces are in `directory`.
    pub fn new(requests: Rtnetlink, sockets: NetnsSockets, directory: PathBuf) -> Self {
        Self {
            requests,
            sockets,
            directory,
        }
    }

    fn links(&self, entry: &RosterEntry) -> Result<Vec<LinkCounters>, ReadError> {
        let nsid = entry.nsid;
        match entry.key {
            NetnsKey::Mounted(id) if nsid.is_none() => {
                self.inside(id, entry, |socket| Ok(socket.link_counters(None)?))
            }
            _ => self
                .requests
                .run_here(|socket| socket.link_counters(nsid))
                .map_err(|err| match err.errno() {
                    Some(INVALID_NSID) if nsid.is_some() => ReadError::Gone,
                    _ => ReadError::Dump(err),
                }),
        }
    }

    fn qdiscs(&self, entry: &RosterEntry) -> Result<Vec<Qdisc>, ReadError> {
        match entry.key {
            NetnsKey::Host => self.requests.run_here(|socket| Ok(socket.qdiscs()?)),
            NetnsKey::Mounted(id) => self.inside(id, entry, |socket| Ok(socket.qdiscs()?)),
        }
    }

    fn inside<T>(
        &self,
        id: MountedNamespaceId,
        entry: &RosterEntry,
        read: impl FnOnce(&mut RequestSocket) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let paths: Vec<_> = entry
            .names
            .iter()
            .filter_map(|name| match name {
                NamespaceName::Named(name) => Some(self.directory.join(name.as_os_str())),
                NamespaceName::Host | NamespaceName::Container(_) => None,
            })
            .collect();
        self.sockets.inside(id, &paths, read)
    }
}

impl CounterKernel for KernelCounters {
    fn read(&self, entry: &RosterEntry) -> Result<Reading, ReadError> {
        let links = self.links(entry)?;
        let qdiscs = if entry.has_netem() {
            self.qdiscs(entry)?
        } else {
            Vec::new()
        };
        let netems = qdiscs
            .iter()
            .filter(|qdisc| qdisc.is_root() && qdisc.netem.is_some());
        Ok(Reading {
            links,
            qdiscs: netems.map(QdiscStatistics::from).collect(),
        })
    }
}

impl From<SocketError> for ReadError {
    fn from(err: SocketError) -> Self {
        match err {
            SocketError::Gone => Self::Gone,
            SocketError::Open(err) | SocketError::Enter(err) => Self::Enter(err),
            SocketError::Socket(err) => Self::Dump(err),
        }
    }
}

impl From<&Qdisc> for QdiscStatistics {
    fn from(qdisc: &Qdisc) -> Self {
        let statistics = &qdisc.statistics;
        Self {
            ifindex: qdisc.ifindex,
            basic: Some(BasicStats {
                bytes: statistics.bytes,
                packets: statistics.packets,
            }),
            queue: Some(QueueStats {
                qlen: statistics.qlen,
                backlog: statistics.backlog,
                drops: statistics.drops,
                requeues: statistics.requeues,
                overlimits: statistics.overlimits,
            }),
            rate_est: statistics.rate.map(|rate| RateEstimate {
                bps: rate.bytes_per_s,
                pps: rate.packets_per_s,
            }),
        }
    }
}
