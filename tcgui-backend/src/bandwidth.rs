//! Counters and rates of all interfaces, published at a constant interval.
//!
//! The actor owns the last sample of every link. Its inputs are the ticks of a clock, the newest [`CounterTargets`] and
//! finished readings. The counter targets list what to read, and the names under which it is published. Its outputs are
//! batches of [`Sample`]s to the bus. It ends when it is stopped, or when the bus has ended.
//!
//! ```text
//! targets (watch) ─▶ task.rs ──next──▶ readers.rs (blocking threads) ──▶ CounterKernel
//! tick ────────────▶   │ ◀───done────────┘
//!                      ├─▶ rates.rs (pure): counters → rates
//!                      └─▶ wire.rs (pure): rates → Samples ──▶ bus
//! ```
//!
//! A reading blocks its thread while another process holds the rtnl lock, and a thousand readings must be cheap.
//! Therefore one thread reads the namespaces one after the other. A second thread takes over the rest only if one
//! namespace takes long.

mod kernel;
mod rates;
mod readers;
mod task;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tcgui_shared::names::{BackendName, InterfaceName, NamespaceName};
use tcgui_shared::tc::{BasicStats, QueueStats, RateEstimate};
use tokio::sync::{mpsc, watch};

use crate::bus::Sample;
use crate::kernel::link::LinkCounters;
use crate::kernel::netns::{NetnsKey, NetnsRef};
use crate::kernel::rtnetlink::{Nsid, RtnetlinkError};

pub use kernel::KernelCounters;
pub use task::Task;

/// The namespaces to read and publish: every namespace that is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CounterTargets {
    /// Each namespace once, even if it has several names.
    pub namespaces: Vec<Arc<NetnsCounterTarget>>,
}

/// One namespace to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetnsCounterTarget {
    /// The namespace. A new namespace of the same name has another key.
    pub key: NetnsKey,
    /// The id through which the host socket reads it. `None` for the host, and for a namespace that a thread must enter.
    pub nsid: Option<Nsid>,
    /// The name under which it is shown.
    pub name: NamespaceName,
    /// References through which a thread can enter the namespace. Empty for the host.
    pub netns_refs: Vec<NetnsRef>,
    /// The interfaces that are shown.
    pub links: Arc<[LinkCounterTarget]>,
}

impl NetnsCounterTarget {
    /// Returns whether there are qdisc statistics to be read.
    pub fn has_netem(&self) -> bool {
        self.links.iter().any(|link| link.root_netem)
    }
}

/// One shown interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkCounterTarget {
    /// The kernel's index.
    pub ifindex: u32,
    /// Its name. A link with this index and another name is another interface.
    pub name: InterfaceName,
    /// Whether the root qdisc is a netem. Then its statistics are published.
    pub root_netem: bool,
}

/// The result of reading one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The counters of its links, in any order.
    pub links: Vec<LinkCounters>,
    /// The statistics of its root netems; empty where there are none.
    pub qdiscs: Vec<QdiscStatistics>,
}

/// The statistics of the root qdisc of one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QdiscStatistics {
    /// The link.
    pub ifindex: u32,
    /// Bytes and packets that passed.
    pub basic: Option<BasicStats>,
    /// Queue length, backlog, drops, requeues and overlimits.
    pub queue: Option<QueueStats>,
    /// The kernel's own estimate, where an estimator is configured.
    pub rate_est: Option<RateEstimate>,
}

/// Why a namespace was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The namespace was deleted. The next counter targets do not list it.
    #[error("the namespace is gone")]
    Gone,
    /// It cannot be entered.
    #[error("cannot enter the namespace")]
    Enter(#[source] io::Error),
    /// The kernel refused the dump or sent an invalid reply.
    #[error("cannot read counters")]
    Dump(#[from] RtnetlinkError),
}

/// The kernel interface of the actor. Tests use an in-memory kernel.
pub trait CounterKernel: Send + Sync + 'static {
    /// Reads one namespace on the calling thread, which may block. There is at most one call for a namespace at a time.
    ///
    /// # Errors
    /// [`ReadError`]. The next tick reads the namespace again.
    fn read(&self, entry: &NetnsCounterTarget) -> Result<Reading, ReadError>;
}

/// Builds the actor. It reads once in each `interval`, for the first time after one interval.
pub fn open<K: CounterKernel>(
    kernel: K,
    name: &BackendName,
    interval: Duration,
    counter_targets: watch::Receiver<Arc<CounterTargets>>,
    samples: mpsc::Sender<Vec<Sample>>,
) -> Task<K> {
    Task::new(kernel, name, interval, counter_targets, samples)
}
