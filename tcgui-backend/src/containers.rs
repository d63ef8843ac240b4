//! Which containers run, and which process holds the network namespace of each.
//!
//! One actor follows every engine (Docker, Podman) whose socket it finds. It reports holders of namespaces ([`HeldEvent`]).
//! The inventory finds out that two containers share a namespace, or that a namespace also has a name.
//!
//! ```text
//!  directories of sockets ──notify──▶ watches.rs ─▶ engine_sockets.rs: which sockets, when to try
//!  engine ◀── session.rs: /events, then /containers/json, then events as they come
//!  engine ◀── /containers/json again at every interval, for events that were lost
//!     ▲              │ doorbells                                        ┌───────────────┐ HeldEvent
//!     │              └─────────────────────▶ task.rs: select ──────────▶│ registry.rs   │─────────▶ backend
//!     └── look.rs: inspect ONE container ◀───────┘  ▲   what to look at │ (pure)        │
//!  kernel ◀── its process: namespace, pidfd ────────┘ the end of a      └───────────────┘
//!                                                     process
//! ```
//!
//! Podman tells its events late; `events_file.rs` reads them where it writes them.
//!
//! Inputs: engines, the ends of processes, sockets that appear. Output: the difference to what the consumer
//! was told, at its pace. It ends when its token is cancelled or the consumer is gone. It never fails: an
//! engine that lies, hangs or floods costs what `limits.rs` says, and others nothing.

mod answers;
mod client;
mod engine_log;
mod engine_sockets;
mod events_file;
mod limits;
mod lines;
mod look;
mod registry;
mod session;
mod sockets;
mod task;
#[cfg(test)]
mod tests;
mod watches;

use tokio::sync::mpsc;

use crate::kernel::netns::NetnsFiles;
use crate::netns_holders::HeldEvent;

pub use sockets::{ContainersConfig, Environment, UnusableHost};
pub use task::Task;

/// Builds the actor that tells `events` about containers. Nothing happens before [`Task::run`] is polled.
///
/// The receiver may be that of other actors too. While it is full, what happens meanwhile is merged.
pub fn open(config: ContainersConfig, files: NetnsFiles, events: mpsc::Sender<HeldEvent>) -> Task {
    Task::new(config, files, events)
}
