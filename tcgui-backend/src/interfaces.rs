//! Reads the links of all tracked namespaces, with one event socket for all namespaces.
//!
//! The actor owns the list of tracked namespaces. A kernel event names a namespace; its links are then dumped
//! again, and reported if they differ. The inputs are commands of the [`InterfacesHandle`], kernel events,
//! finished dumps and a slow sweep. The outputs are [`InterfacesEvent`]s, which are merged while the consumer is
//! busy. The actor ends when its stop token is cancelled, when all handles or the receiver are dropped, or when
//! the event socket fails.
//!
//! ```text
//!  kernel events ──▶ task.rs ──input──▶ tracker.rs (pure) ──▶ dump of K ─▶ kernel (blocking thread)
//!  commands ───────▶   │  ◀──────────── result ◀──────────────────────────────────┘
//!                      └──▶ InterfacesEvent to the backend
//! ```

mod generations;
mod inside;
mod kernel;
mod task;
#[cfg(test)]
mod tests;
mod tracked;
mod tracker;
mod unknown_namespaces;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use crate::kernel::link::Link;
use crate::kernel::netns::{NetnsRef, OpenError};
use crate::kernel::rtnetlink::{Nsid, RtnetlinkError};
use crate::sockets::SocketError;

pub use crate::kernel::netns::NetnsKey;
pub use kernel::{DumpRequest, DumpedLinks, KernelLinks, LinkEvent, LinkKernel};
pub use task::Task;
pub use unknown_namespaces::UnknownNamespaces;

/// Capacity of the command queue. A sender waits while it is full. This cannot deadlock: the actor never waits for
/// a sender.
const COMMANDS: usize = 256;
/// Capacity of the report queue. While it is full, reports are merged by namespace.
const EVENTS: usize = 64;

/// The links of one namespace. Clones share the list.
pub type Links = Arc<[Link]>;

/// The result of one dump.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The id by which the namespace can be dumped. `None`: the host's namespace, or one that is read over a
    /// socket inside.
    pub nsid: Option<Nsid>,
    /// All its links.
    pub links: Links,
    /// When the dump began. A read-back that began later is newer.
    pub began: Instant,
}

/// What changed in a tracked namespace.
#[derive(Debug, Clone)]
pub enum InterfacesEvent {
    /// The links as they are now.
    Links {
        /// Which namespace.
        key: NetnsKey,
        /// Its links.
        snapshot: Snapshot,
    },
    /// The links are unknown: the first dump failed, or no reference leads to the namespace any more. The actor
    /// retries while the namespace is tracked.
    Unreadable {
        /// Which namespace.
        key: NetnsKey,
    },
    /// A namespace exists to which no tracked reference leads. Sent only with [`UnknownNamespaces::Report`].
    UnknownNsid,
}

/// Why the links of a namespace could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// No reference leads to the namespace any more.
    #[error("the namespace is gone")]
    Gone,
    /// The kernel has removed the namespace id. The next dump requests a new one.
    #[error("the namespace id is stale")]
    StaleId,
    /// The namespace file could not be opened.
    #[error("cannot open the namespace")]
    Open(#[source] io::Error),
    /// The rtnetlink request failed.
    #[error("cannot read links")]
    Dump(#[from] RtnetlinkError),
}

impl From<OpenError> for DumpError {
    fn from(err: OpenError) -> Self {
        match err {
            OpenError::Gone => Self::Gone,
            OpenError::Open(err) => Self::Open(err),
        }
    }
}

impl From<SocketError> for DumpError {
    fn from(err: SocketError) -> Self {
        match err {
            SocketError::Gone => Self::Gone,
            SocketError::Open(err) | SocketError::Enter(err) => Self::Open(err),
            SocketError::Socket(err) => Self::Dump(err),
        }
    }
}

/// A command to the actor.
#[derive(Debug)]
enum Command {
    Track {
        key: NetnsKey,
        netns_ref: Option<NetnsRef>,
    },
    Untrack {
        key: NetnsKey,
        netns_ref: NetnsRef,
    },
    Refresh {
        key: NetnsKey,
        reply: oneshot::Sender<Result<Snapshot, Arc<DumpError>>>,
    },
    Recheck {
        key: NetnsKey,
    },
}

/// A handle to the actor, which ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct InterfacesHandle {
    commands: mpsc::Sender<Command>,
    last_event: watch::Receiver<Option<Instant>>,
}

impl InterfacesHandle {
    /// Starts to report the links of the daemon's own namespace.
    pub async fn track_host(&self) {
        self.send(Command::Track {
            key: NetnsKey::Host,
            netns_ref: None,
        })
        .await;
    }

    /// Starts to report the links of a namespace, or adds a reference that leads to it.
    pub async fn track(&self, key: NetnsKey, netns_ref: NetnsRef) {
        let netns_ref = Some(netns_ref);
        self.send(Command::Track { key, netns_ref }).await;
    }

    /// Removes a reference. When the last one is removed, the namespace is no longer tracked.
    pub async fn untrack(&self, key: NetnsKey, netns_ref: NetnsRef) {
        self.send(Command::Untrack { key, netns_ref }).await;
    }

    /// Dumps the links at once, and returns the result of a dump that began after this call.
    ///
    /// # Errors
    /// [`DumpError::Gone`] when the namespace is not tracked (any more). Otherwise the error of the dump.
    pub async fn refresh(&self, key: NetnsKey) -> Result<Snapshot, Arc<DumpError>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Refresh { key, reply }).await;
        answer
            .await
            .unwrap_or_else(|_| Err(Arc::new(DumpError::Gone)))
    }

    /// Dumps the links again within a few milliseconds, and reports them even if they equal the last report. The
    /// consumer has read back a change in the meantime, and needs a report if that read-back is no longer true.
    pub async fn recheck(&self, key: NetnsKey) {
        self.send(Command::Recheck { key }).await;
    }

    /// Returns the time of the last kernel event of any namespace. `None`: no event was received yet.
    pub fn last_event_at(&self) -> Option<Instant> {
        *self.last_event.borrow()
    }

    async fn send(&self, command: Command) {
        // A closed channel means that the daemon is stopping.
        self.commands.send(command).await.ok();
    }
}

/// Builds the actor. Each namespace is dumped at least once in every `sweep_interval`, even without a kernel event.
pub fn open<K: LinkKernel>(
    kernel: K,
    sweep_interval: Duration,
    unknown_namespaces: UnknownNamespaces,
) -> (InterfacesHandle, mpsc::Receiver<InterfacesEvent>, Task<K>) {
    let (commands, command_rx) = mpsc::channel(COMMANDS);
    let (event_tx, events) = mpsc::channel(EVENTS);
    let (last_event_tx, last_event) = watch::channel(None);
    let task = Task::new(
        kernel,
        sweep_interval,
        unknown_namespaces,
        command_rx,
        event_tx,
        last_event_tx,
    );
    (
        InterfacesHandle {
            commands,
            last_event,
        },
        events,
        task,
    )
}
