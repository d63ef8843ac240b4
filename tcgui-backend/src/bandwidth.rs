//! Counters and rates: what passes through every interface, published at a steady pace.
//!
//! The actor owns the last sample of every link. Its inputs are the ticks of a clock, the newest [`CounterTargets`] and finished
//! readings. The counter targets list what to read, and the names under which it is published. Its outputs are batches of
//! [`Sample`]s to the bus. It ends when it is told to stop, or when the bus is gone.
//!
//! ```text
//!  targets (watch) ─▶ task.rs ──next──▶ readers.rs (blocking threads) ──▶ CounterKernel
//!  tick ────────────▶   │ ◀───done────────┘
//!                       ├─▶ rates.rs (pure): counters → rates
//!                       └─▶ wire.rs (pure): rates → Samples ──▶ bus
//! ```
//!
//! A reading blocks its thread for as long as the kernel holds the rtnl lock, and a thousand of them
//! must cost little. So one thread reads one namespace after the other, and another one goes on with
//! the rest only when a namespace takes long.

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

/// What is to be read and published: every namespace that is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CounterTargets {
    /// The namespaces, each once whatever the number of its names.
    pub namespaces: Vec<Arc<NetnsCounterTarget>>,
}

/// One namespace of the counter targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetnsCounterTarget {
    /// The namespace. A new namespace of the same name has another key.
    pub key: NetnsKey,
    /// The id by which it is read; `None` for the host, and for one that is entered.
    pub nsid: Option<Nsid>,
    /// The name under which it is shown.
    pub name: NamespaceName,
    /// What leads to it; the host needs nothing.
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
    /// A netem is its root qdisc, whose statistics are to be published.
    pub root_netem: bool,
}

/// What one look at a namespace has read.
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
    /// What passed.
    pub basic: Option<BasicStats>,
    /// What happened in the queue.
    pub queue: Option<QueueStats>,
    /// The kernel's own estimate, where an estimator is configured.
    pub rate_est: Option<RateEstimate>,
}

/// Why a namespace was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is gone, which the roster will say soon.
    #[error("the namespace is gone")]
    Gone,
    /// It cannot be entered.
    #[error("cannot enter the namespace")]
    Enter(#[source] io::Error),
    /// The kernel did not answer as asked.
    #[error("cannot read counters")]
    Dump(#[from] RtnetlinkError),
}

/// The kernel as the actor uses it; tests put a small one in its place.
pub trait CounterKernel: Send + Sync + 'static {
    /// Reads one namespace, on the calling thread, which may block. Never called for the same
    /// namespace twice at once.
    ///
    /// # Errors
    /// [`ReadError`]; the namespace is read again with the next tick.
    fn read(&self, entry: &NetnsCounterTarget) -> Result<Reading, ReadError>;
}

/// Builds the actor, which reads every `interval` for the first time after one.
pub fn open<K: CounterKernel>(
    kernel: K,
    name: &BackendName,
    interval: Duration,
    counter_targets: watch::Receiver<Arc<CounterTargets>>,
    samples: mpsc::Sender<Vec<Sample>>,
) -> Task<K> {
    Task::new(kernel, name, interval, counter_targets, samples)
}
