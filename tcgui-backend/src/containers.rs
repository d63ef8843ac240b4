//! Finds the running containers, and the process that holds the network namespace of each.
//!
//! One actor follows every engine (Docker, Podman) whose socket it finds. It reports holders of namespaces
//! ([`HeldEvent`]). The inventory detects containers that share a namespace, and namespaces that also have a name.
//!
//! ```text
//!  directories of sockets ──notify──▶ watches.rs ─▶ engine_sockets.rs: which sockets, when to try
//!  engine ◀── session.rs: /events, then /containers/json, then events continuously
//!  engine ◀── /containers/json again at every interval, for events that were lost
//!     ▲              │ doorbells                                        ┌───────────────┐ HeldEvent
//!     │              └─────────────────────▶ task.rs: select ──────────▶│ registry.rs   │─────────▶ backend
//!     └── look.rs: inspect ONE container ◀───────┘  ▲   what to look at │ (pure)        │
//!  kernel ◀── its process: namespace, pidfd ────────┘ the exit of a     └───────────────┘
//!                                                     process
//! ```
//!
//! Podman delivers its events late. `events_file.rs` reads them from the file to which Podman writes them.
//!
//! Inputs: replies and events of engines, exits of processes, new sockets. Output: the difference to the state
//! that the consumer has received. The actor ends when its token is cancelled or the consumer is dropped. It never
//! fails. `limits.rs` bounds the cost of an engine that sends false data, hangs or floods. Other engines are not
//! affected.

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

/// Builds the actor that sends changes of containers to `events`. It does nothing before [`Task::run`] is polled.
///
/// Other actors may send to the same receiver. While the channel is full, changes are merged.
pub fn open(config: ContainersConfig, files: NetnsFiles, events: mpsc::Sender<HeldEvent>) -> Task {
    Task::new(config, files, events)
}
