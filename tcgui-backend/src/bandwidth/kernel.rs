//! The running kernel: link counters by namespace id, netem statistics over a socket inside the namespace.

use tcgui_shared::tc::{BasicStats, QueueStats, RateEstimate};

use super::{CounterKernel, NetnsCounterTarget, QdiscStatistics, ReadError, Reading};
use crate::kernel::link::LinkCounters;
use crate::kernel::netns::NetnsKey;
use crate::kernel::qdisc::Qdisc;
use crate::kernel::rtnetlink::{RequestSocket, Rtnetlink, RtnetlinkError};
use crate::sockets::{NetnsSockets, SocketError};

/// The kernel's error for an id without a namespace: `EINVAL` (`rtnl_get_net_ns_capable`).
const INVALID_NSID: i32 = 22;

/// Reads counters by namespace id. Enters the namespace if it has no id.
#[derive(Debug, Clone)]
pub struct KernelCounters {
    requests: Rtnetlink,
    sockets: NetnsSockets,
}

impl KernelCounters {
    /// Creates a reader that reads by id over `requests`. No other part may use this socket, because a reading must not wait for
    /// a dump.
    pub fn new(requests: Rtnetlink, sockets: NetnsSockets) -> Self {
        Self { requests, sockets }
    }

    fn links(&self, entry: &NetnsCounterTarget) -> Result<Vec<LinkCounters>, ReadError> {
        let nsid = match entry.key {
            NetnsKey::Host => self.requests.host(),
            NetnsKey::Mounted(_) | NetnsKey::Held(_) => entry.nsid,
        };
        let Some(nsid) = nsid else {
            return self.inside(entry, |socket| Ok(socket.link_counters(None)?));
        };
        self.requests
            .run_here(|socket| socket.link_counters(Some(nsid)))
            .map_err(|err: RtnetlinkError| match err.errno() {
                Some(INVALID_NSID) => ReadError::Gone,
                _ => ReadError::Dump(err),
            })
    }

    fn qdiscs(&self, entry: &NetnsCounterTarget) -> Result<Vec<Qdisc>, ReadError> {
        self.inside(entry, |socket| Ok(socket.qdiscs()?))
    }

    fn inside<T>(
        &self,
        entry: &NetnsCounterTarget,
        read: impl FnOnce(&mut RequestSocket) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        self.sockets.inside(entry.key, &entry.netns_refs, read)
    }
}

impl CounterKernel for KernelCounters {
    fn read(&self, entry: &NetnsCounterTarget) -> Result<Reading, ReadError> {
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
