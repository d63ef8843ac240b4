//! Scenarios that run on interfaces: sequences of netem configurations, each in force for its time.
//!
//! The actor owns every execution. Its inputs are [`Command`]s from the backend, replies of the traffic-control port, and timers.
//! A command is a client's request, already resolved to an interface, or reports the loss of an interface. The outputs are calls
//! of the port, one at a time for each execution, and updates to the bus. When the actor is stopped it restores nothing:
//! executions whose interfaces are to be restored must be stopped before.
//!
//! ```text
//!  backend ── Command ──▶ task.rs ─▶ executions.rs (pure: all) ─▶ machine.rs (pure: one)
//!     ▲                     │  ▲                │
//!     │                     │  └── answers ─────┤ effects
//!     └────── TcPort ◀──────┴───────────────────┘──▶ UpdateSink (bus)
//! ```
//!
//! The backend may wait until this actor takes a command. The actor never waits for a call or a publication: these run in their
//! own tasks.

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

/// Capacity of the command channel. The actor takes each command within microseconds.
const COMMANDS: usize = 64;

/// Identifies an interface in the kernel. A recreated interface of the same name has another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InterfaceKey {
    /// The namespace.
    pub netns: NetnsKey,
    /// The kernel's index of the link.
    pub ifindex: u32,
}

/// The names of an interface in wire messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceNames {
    /// The namespace.
    pub netns: NamespaceName,
    /// The interface in it.
    pub interface: InterfaceName,
}

/// The interface of an execution: its identity and the names that clients use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Selects the interface to change.
    pub key: InterfaceKey,
    /// Selects the bus key of the publications.
    pub names: InterfaceNames,
}

/// Looks up the scenario at the start of an execution.
pub trait ScenarioSource: Send + Sync + 'static {
    /// Returns the current version of the scenario with this id.
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
