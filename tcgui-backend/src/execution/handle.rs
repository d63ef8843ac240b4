//! The handle through which the backend sends commands to the actor.

use tcgui_shared::names::{InterfaceName, NamespaceName};
use tcgui_shared::scenario::ScenarioExecutionResponse;
use tokio::sync::{mpsc, oneshot};

use super::{InterfaceKey, InterfaceNames, Loss, Target};
use crate::bus::Reply;
use crate::kernel::netns::NetnsKey;

/// Sends commands to the actor. Clones are cheap.
#[derive(Debug, Clone)]
pub struct ScenarioHandle {
    commands: mpsc::Sender<Command>,
}

/// A client's request to start a scenario on an existing interface.
#[derive(Debug)]
pub struct Start {
    /// The id of the scenario.
    pub scenario_id: String,
    /// Whether to start over after the last step. `None` uses the setting of the scenario.
    pub looped: Option<bool>,
    /// The interface to run on.
    pub target: Target,
    /// Receives the result once the execution has begun or was refused.
    pub reply: Reply<ScenarioExecutionResponse>,
}

/// A command to the actor.
#[derive(Debug)]
pub enum Command {
    /// Begin an execution.
    Start(Box<Start>),
    /// Act on the execution of an interface, or query it.
    On {
        /// The names in the client's request.
        names: InterfaceNames,
        /// The interface that has these names now. `None` if there is none.
        key: Option<InterfaceKey>,
        /// What to do.
        action: Action,
        /// Receives the response.
        reply: Reply<ScenarioExecutionResponse>,
    },
    /// List all executions.
    ListActive(Reply<ScenarioExecutionResponse>),
    /// An execution has lost its interface.
    Lost {
        /// The interface.
        key: InterfaceKey,
        /// The execution that had it.
        number: u64,
        /// The reason.
        loss: Loss,
    },
    /// The display name of a namespace has changed.
    Renamed {
        /// The namespace.
        netns: NetnsKey,
        /// The new name.
        name: NamespaceName,
    },
    /// The link of an execution was renamed.
    LinkRenamed {
        /// The interface.
        key: InterfaceKey,
        /// The new name.
        interface: InterfaceName,
    },
    /// End all executions and refuse new ones, because the daemon stops.
    End {
        /// Whether to restore the interfaces. Otherwise they keep their configuration.
        restore: bool,
        /// Receives a signal when all executions have ended and all updates are published.
        done: oneshot::Sender<()>,
    },
}

/// A client's operation on an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// End it and restore the interface.
    Stop,
    /// Keep the current step in force.
    Pause,
    /// Continue the current step.
    Resume,
    /// Return its state.
    Status,
}

impl ScenarioHandle {
    pub(super) fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }

    /// Sends a command. If the actor has ended, the command and its reply are dropped, and the supervisor stops the daemon.
    pub async fn send(&self, command: Command) {
        self.commands.send(command).await.ok();
    }

    /// Ends all executions. The receiver resolves when they have ended, or with an error if the actor has ended.
    pub async fn end(&self, restore: bool) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel();
        self.send(Command::End { restore, done }).await;
        ended
    }
}
