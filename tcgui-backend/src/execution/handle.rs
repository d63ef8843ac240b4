//! How the backend talks to the actor.

use tcgui_shared::names::{InterfaceName, NamespaceName};
use tcgui_shared::scenario::ScenarioExecutionResponse;
use tokio::sync::{mpsc, oneshot};

use super::{InterfaceKey, InterfaceNames, Loss, Target};
use crate::bus::Reply;
use crate::kernel::netns::NetnsKey;

/// To talk to the actor. Clones are cheap.
#[derive(Debug, Clone)]
pub struct ScenarioHandle {
    commands: mpsc::Sender<Command>,
}

/// A client's wish to start a scenario on an interface that exists.
#[derive(Debug)]
pub struct Start {
    /// Which scenario.
    pub scenario_id: String,
    /// Whether it starts over after the last step; the scenario decides if it is not said.
    pub looped: Option<bool>,
    /// Where.
    pub target: Target,
    /// Answered when it is known whether it begins.
    pub reply: Reply<ScenarioExecutionResponse>,
}

/// Asked of the actor.
#[derive(Debug)]
pub enum Command {
    /// Begin an execution.
    Start(Box<Start>),
    /// Do something to, or tell about, the execution on an interface.
    On {
        /// The interface, as the client called it.
        names: InterfaceNames,
        /// Which one that is now, if there is one.
        key: Option<InterfaceKey>,
        /// What to do.
        action: Action,
        /// Where the answer goes.
        reply: Reply<ScenarioExecutionResponse>,
    },
    /// Tell about all executions.
    ListActive(Reply<ScenarioExecutionResponse>),
    /// An interface is no longer an execution's to change.
    Lost {
        /// The interface.
        key: InterfaceKey,
        /// The execution that had it.
        number: u64,
        /// How.
        loss: Loss,
    },
    /// A namespace is shown under another name.
    Renamed {
        /// The namespace.
        netns: NetnsKey,
        /// Its name now.
        name: NamespaceName,
    },
    /// The link of an execution has another name.
    LinkRenamed {
        /// The interface.
        key: InterfaceKey,
        /// Its name now.
        interface: InterfaceName,
    },
    /// End all executions, because the daemon stops; begin none.
    End {
        /// Whether interfaces are restored or stay as they are.
        restore: bool,
        /// Hears when everything is done and published.
        done: oneshot::Sender<()>,
    },
}

/// What a client wants of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// End it and restore the interface.
    Stop,
    /// Hold the present step.
    Pause,
    /// Go on with it.
    Resume,
    /// Tell about it.
    Status,
}

impl ScenarioHandle {
    pub(super) fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }

    /// Hands a command over. A reply in it is dropped if the actor is gone, which the supervisor notices.
    pub async fn send(&self, command: Command) {
        self.commands.send(command).await.ok();
    }

    /// Ends all executions, and returns what is resolved when that is done or the actor is gone.
    pub async fn end(&self, restore: bool) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel();
        self.send(Command::End { restore, done }).await;
        ended
    }
}
