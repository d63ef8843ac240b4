//! Scenarios that run on interfaces: sequences of netem configurations, each in force for its time.
//!
//! The actor owns every execution. Inputs: [`Command`]s from the backend (requests of clients, already
//! resolved to an interface, and losses of interfaces); answers of the traffic-control port; the clock.
//! Outputs: calls of the port, one at a time for each execution; updates to the bus. It ends when it is
//! told to, and then leaves everything as it is: what is to be restored is stopped before.
//!
//! ```text
//!  backend ── Command ──▶ task.rs ─▶ executions.rs (pure: all) ─▶ machine.rs (pure: one)
//!     ▲                     │  ▲                │
//!     │                     │  └── answers ─────┤ effects
//!     └────── TcPort ◀──────┴───────────────────┘──▶ UpdateSink (bus)
//! ```
//!
//! The backend may wait for this actor to take a command. The actor itself never waits: calls and
//! publications run in tasks of their own.

mod executions;
mod handle;
mod machine;
mod port;
mod task;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tcgui_shared::names::{BackendName, InterfaceName, NamespaceName};
use tcgui_shared::scenario::NetworkScenario;
use tokio::sync::mpsc;

use crate::kernel::netns::NetnsKey;

pub use handle::{Action, Command, ScenarioHandle, Start};
pub use machine::Loss;
pub use port::{Claim, Impairment, PortError, TcPort, UpdateSink};
pub use task::Task;

/// Commands that wait for the actor, which takes each in microseconds.
const COMMANDS: usize = 64;

/// An interface as the kernel knows it. A new interface of the same name is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InterfaceKey {
    /// The namespace.
    pub netns: NetnsKey,
    /// The kernel's index of the link.
    pub ifindex: u32,
}

/// An interface in the words of the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceNames {
    /// The namespace.
    pub netns: NamespaceName,
    /// The interface in it.
    pub interface: InterfaceName,
}

/// The interface that an execution runs on: which one it is, and how clients called it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Decides what is changed.
    pub key: InterfaceKey,
    /// Decides where it is published.
    pub names: InterfaceNames,
}

/// Where scenarios are looked up when one is started.
pub trait ScenarioSource: Send + Sync + 'static {
    /// Returns the scenario of that id as it is now.
    fn scenario(&self, id: &str) -> Option<Arc<NetworkScenario>>;
}

impl<F> ScenarioSource for F
where
    F: Fn(&str) -> Option<Arc<NetworkScenario>> + Send + Sync + 'static,
{
    fn scenario(&self, id: &str) -> Option<Arc<NetworkScenario>> {
        self(id)
    }
}

/// Builds the actor.
pub fn open<P: TcPort, S: UpdateSink>(
    name: &BackendName,
    source: Arc<dyn ScenarioSource>,
    port: P,
    sink: S,
) -> (ScenarioHandle, Task<P, S>) {
    let (commands, commands_rx) = mpsc::channel(COMMANDS);
    let executions = executions::Executions::new(name, source);
    let task = Task::new(executions, commands_rx, port, sink);
    (ScenarioHandle::new(commands), task)
}
