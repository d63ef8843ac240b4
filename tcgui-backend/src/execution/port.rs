//! What an execution needs of the rest of the daemon, as traits: tests put small ones in their place.

use std::sync::Arc;

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::netem::TcNetemConfig;

use super::Target;
use crate::bus::ExecutionPublication;

/// What the root of an interface does to packets: as captured, as a step wants it, as it is restored.
#[derive(Debug, Clone, PartialEq)]
pub enum Impairment {
    /// Nothing: the kernel's default qdisc.
    None,
    /// A netem, all of it.
    Netem(Box<TcNetemConfig>),
}

impl Impairment {
    /// Returns what a step asks for: a step with nothing on asks for no netem.
    pub fn of_step(config: &TcNetemConfig) -> Self {
        let TcNetemConfig {
            loss,
            delay,
            duplicate,
            reorder,
            corrupt,
            rate_limit,
            extensions,
        } = config;
        let on = loss.enabled
            || delay.enabled
            || duplicate.enabled
            || reorder.enabled
            || corrupt.enabled
            || rate_limit.enabled
            || extensions.loss_model.is_some()
            || extensions.slot.is_some();
        if on {
            Self::Netem(Box::new(*config))
        } else {
            Self::None
        }
    }
}

/// The right of one execution to change its interface, until the backend gives the interface to
/// somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Another one for each execution.
    pub number: u64,
    /// The id of the scenario, for people.
    pub scenario: Arc<str>,
    /// The interface.
    pub target: Target,
}

/// Why the port did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// It was refused, in the words that a client would get.
    #[error("{message}")]
    Refused {
        /// What it means.
        kind: ErrorKind,
        /// Why.
        message: String,
    },
    /// Whether it was done is unknown.
    #[error("traffic control did not answer in time")]
    Unanswered,
}

impl PortError {
    /// Returns whether there is no such interface any more.
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

/// Traffic control. Each call is answered when the kernel has done it and it was read back.
pub trait TcPort: Clone + Send + Sync + 'static {
    /// Reads what is at the root, after all that was asked before, and takes the interface for the claim.
    /// Fails as a change would if that is somebody else's configuration.
    fn capture(&self, claim: &Claim) -> impl Future<Output = Result<Impairment, PortError>> + Send;

    /// Makes the root what is wanted.
    fn set(
        &self,
        claim: &Claim,
        wanted: Impairment,
    ) -> impl Future<Output = Result<(), PortError>> + Send;

    /// Gives the interface up. `owed`: what was there should have been put back, and was not.
    fn release(&self, claim: &Claim, owed: bool) -> impl Future<Output = ()> + Send;
}

/// Where updates of executions go.
pub trait UpdateSink: Clone + Send + Sync + 'static {
    /// Publishes them all. Returns when that is done, or when the main loop is gone.
    fn publish(&self, updates: Vec<ExecutionPublication>) -> impl Future<Output = ()> + Send;
}
