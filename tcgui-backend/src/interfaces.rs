//! What each namespace holds: its links, kept true by one event socket for all namespaces.
//!
//! The actor owns the list of tracked namespaces. A kernel event names a namespace; its links are then dumped again, and
//! reported if they differ. The inputs are commands of the [`InterfacesHandle`], kernel events, finished dumps and a slow sweep.
//! The outputs are [`InterfacesEvent`]s, which are merged while the consumer is busy. The actor ends when it is told to stop,
//! when its handles are gone, or when the event socket fails.
//!
//! ```text
//!  kernel events ──▶ task.rs ──input──▶ tracker.rs (pure) ──▶ look at K ──▶ kernel (blocking thread)
//!  commands ───────▶   │  ◀──────────── result ◀──────────────────────────────────┘
//!                      └──▶ InterfacesEvent to the backend
//! ```

mod generations;
mod inside;
mod kernel;
mod strangers;
mod task;
#[cfg(test)]
mod tests;
mod tracked;
mod tracker;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use crate::kernel::link::Link;
use crate::kernel::netns::{NetnsRef, OpenError};
use crate::kernel::rtnetlink::{Nsid, RtnetlinkError};
use crate::sockets::SocketError;

pub use crate::kernel::netns::NetnsKey;
pub use kernel::{KernelLinks, LinkEvent, LinkKernel, LookOrder, Seen};
pub use strangers::Strangers;
pub use task::Task;

/// Commands that wait while the actor works through a burst; the sender then waits, which is safe
/// because the actor never waits for the sender.
const COMMANDS: usize = 256;
/// Reports that wait for the backend; beyond that they are merged by namespace.
const EVENTS: usize = 64;

/// The links of one namespace, shared between all who look at them.
pub type Links = Arc<[Link]>;

/// What a look has seen.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The id by which the namespace can be read; `None` for the host, and for one that is entered.
    pub nsid: Option<Nsid>,
    /// All its links.
    pub links: Links,
    /// When the look began: what was read back after that is newer.
    pub began: Instant,
}

/// What changed in a tracked namespace.
#[derive(Debug, Clone)]
pub enum InterfacesEvent {
    /// The links as they are now.
    Links {
        /// Which namespace.
        key: NetnsKey,
        /// What it holds.
        snapshot: Snapshot,
    },
    /// Nothing is known of it: the first look failed, or nothing leads there any more. The actor goes on
    /// trying for as long as it is tracked.
    Unreadable {
        /// Which namespace.
        key: NetnsKey,
    },
    /// There is a namespace to which no way is tracked. Only with [`Strangers::Report`].
    UnknownNsid,
}

/// Why the links of a namespace could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// No way leads to the namespace any more.
    #[error("the namespace is gone")]
    Gone,
    /// The id the kernel had given it is no longer valid; the next look asks for a new one.
    #[error("the namespace id is stale")]
    StaleId,
    /// The namespace file was refused.
    #[error("cannot open the namespace")]
    Open(#[source] io::Error),
    /// The kernel did not answer as asked.
    #[error("cannot read links")]
    Dump(#[from] RtnetlinkError),
}

impl From<OpenError> for LookError {
    fn from(err: OpenError) -> Self {
        match err {
            OpenError::Gone => Self::Gone,
            OpenError::Open(err) => Self::Open(err),
        }
    }
}

impl From<SocketError> for LookError {
    fn from(err: SocketError) -> Self {
        match err {
            SocketError::Gone => Self::Gone,
            SocketError::Open(err) | SocketError::Enter(err) => Self::Open(err),
            SocketError::Socket(err) => Self::Dump(err),
        }
    }
}

/// What is asked of the actor.
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
        reply: oneshot::Sender<Result<Snapshot, Arc<LookError>>>,
    },
    Recheck {
        key: NetnsKey,
    },
}

/// To ask the actor. The actor ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct InterfacesHandle {
    commands: mpsc::Sender<Command>,
    heard: watch::Receiver<Option<Instant>>,
}

impl InterfacesHandle {
    /// Reports the links of the daemon's own namespace from now on.
    pub async fn track_host(&self) {
        self.send(Command::Track {
            key: NetnsKey::Host,
            netns_ref: None,
        })
        .await;
    }

    /// Reports the links of a namespace from now on; `way` is one of those that lead to it.
    pub async fn track(&self, key: NetnsKey, netns_ref: NetnsRef) {
        let netns_ref = Some(netns_ref);
        self.send(Command::Track { key, netns_ref }).await;
    }

    /// Takes a way back; with the last one the namespace is forgotten.
    pub async fn untrack(&self, key: NetnsKey, netns_ref: NetnsRef) {
        self.send(Command::Untrack { key, netns_ref }).await;
    }

    /// Looks again, at once, and returns what a look that began after this call has seen.
    ///
    /// # Errors
    /// [`LookError::Gone`] when the namespace is not tracked (any more).
    pub async fn refresh(&self, key: NetnsKey) -> Result<Snapshot, Arc<LookError>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Refresh { key, reply }).await;
        answer
            .await
            .unwrap_or_else(|_| Err(Arc::new(LookError::Gone)))
    }

    /// Dumps the links again within a few milliseconds, and reports them even if they equal the last report. The consumer has
    /// read back a change since, and must hear if that is no longer true.
    pub async fn recheck(&self, key: NetnsKey) {
        self.send(Command::Recheck { key }).await;
    }

    /// Returns the time of the last kernel event, of any namespace. `None`: there was none yet.
    pub fn last_heard(&self) -> Option<Instant> {
        *self.heard.borrow()
    }

    async fn send(&self, command: Command) {
        // A closed channel means that the daemon is stopping.
        self.commands.send(command).await.ok();
    }
}

/// Builds the actor; `sweep_interval` is how often everything is looked at though nothing rang.
pub fn open<K: LinkKernel>(
    kernel: K,
    sweep_interval: Duration,
    strangers: Strangers,
) -> (InterfacesHandle, mpsc::Receiver<InterfacesEvent>, Task<K>) {
    let (commands, command_rx) = mpsc::channel(COMMANDS);
    let (event_tx, events) = mpsc::channel(EVENTS);
    let (heard_tx, heard) = watch::channel(None);
    let task = Task::new(
        kernel,
        sweep_interval,
        strangers,
        command_rx,
        event_tx,
        heard_tx,
    );
    (InterfacesHandle { commands, heard }, events, task)
}
