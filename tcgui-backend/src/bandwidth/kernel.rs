//! The running kernel: counters by namespace id.

use super::{CounterKernel, ReadError, Reading, RosterEntry};
use crate::interfaces::NetnsKey;
use crate::kernel::rtnetlink::Rtnetlink;

/// What the kernel answers for an id that names no namespace: `EINVAL` (`rtnl_get_net_ns_capable`).
const INVALID_NSID: i32 = 22;

/// Reads the counters of links from the daemon's own namespace, entering none.
#[derive(Debug, Clone)]
pub struct KernelCounters {
    requests: Rtnetlink,
}

impl KernelCounters {
    /// Reads over these sockets, which should be nobody else's: a reading must not wait for a look.
    pub fn new(requests: Rtnetlink) -> Self {
        Self { requests }
    }
}

impl CounterKernel for KernelCounters {
    fn read(&self, entry: &RosterEntry) -> Result<Reading, ReadError> {
        if entry.key != NetnsKey::Host && entry.nsid.is_none() {
            return Err(ReadError::Gone);
        }
        let nsid = entry.nsid;
        let links = self
            .requests
            .run_here(|socket| socket.link_counters(nsid))
            .map_err(|err| match err.errno() {
                Some(INVALID_NSID) if nsid.is_some() => ReadError::Gone,
                _ => ReadError::Dump(err),
            })?;
        Ok(Reading {
            links,
            qdiscs: Vec::new(),
        })
    }
}
