//! The services that an execution uses, as traits. Tests implement them in memory.

use std::sync::Arc;

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::netem::TcNetemConfig;

use super::Target;
use crate::bus::ExecutionPublication;
use crate::tc::desired::{ANY_LINK, Desired};

/// The impairment that a step sets at the root of an interface.
#[derive(Debug, Clone, PartialEq)]
pub enum Impairment {
    /// No impairment: the kernel's default qdisc.
    None,
    /// A netem with all its parameters.
    Netem(Box<TcNetemConfig>),
}

impl Impairment {
    /// Returns the impairment of a step. A step in which no number is above zero has none.
    pub fn of_step(config: &TcNetemConfig) -> Self {
        // An invalid configuration is refused when it is applied.
        let desired = Desired::from_config(config, ANY_LINK);
        match desired {
            Ok(desired) if !desired.netem.is_some_and(|netem| netem.impairs()) => Self::None,
            _ => Self::Netem(Box::new(*config)),
        }
    }
}

/// The right of one execution to change its interface. It ends when the backend gives the interface to another owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Unique for each execution.
    pub number: u64,
    /// The id of the scenario, for messages.
    pub scenario: Arc<str>,
    /// The interface.
    pub target: Target,
}

/// Why the port did not carry out a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The call was refused. The text is the same as in a client's error.
    #[error("{message}")]
    Refused {
        /// The kind of the error.
        kind: ErrorKind,
        /// The reason.
        message: String,
    },
    /// The reply did not arrive in time. The result is unknown.
    #[error("traffic control did not answer in time")]
    Unanswered,
}

impl PortError {
    /// Returns whether the interface no longer exists.
    pub fn is_gone(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                kind: ErrorKind::NotFound,
                ..
            }
        )
    }
}

/// Traffic control. Each call completes after the kernel has made the change and the daemon has read it back.
pub trait TcPort: Clone + Send + Sync + 'static {
    /// Reads the root qdisc after all earlier calls, and assigns the interface to the claim. Fails in the same cases as a change,
    /// for example if the root qdisc was configured by another program.
    fn capture(&self, claim: &Claim) -> impl Future<Output = Result<(), PortError>> + Send;

    /// Sets the root qdisc.
    fn set(
        &self,
        claim: &Claim,
        wanted: Impairment,
    ) -> impl Future<Output = Result<(), PortError>> + Send;

    /// Restores the root qdisc from before the first change of the claim: every parameter and the handle. A qdisc that another
    /// program has installed since stays.
    fn restore(&self, claim: &Claim) -> impl Future<Output = Result<(), PortError>> + Send;

    /// Releases the interface. `owed` means that the earlier state was not restored.
    fn release(&self, claim: &Claim, owed: bool) -> impl Future<Output = ()> + Send;
}

/// Publishes updates of executions.
pub trait UpdateSink: Clone + Send + Sync + 'static {
    /// Publishes all updates. Returns when that is done or when the main loop has ended.
    fn publish(&self, updates: Vec<ExecutionPublication>) -> impl Future<Output = ()> + Send;
}
