//! The services of the daemon for executions. Their calls pass through the main loop like client requests. Their updates are
//! published on the bus.

use std::time::Duration;

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::tc::{TcOperation, TcResponse};
use tokio::sync::mpsc;

use super::state::{Asked, TcCall};
use crate::bus::{BusHandle, ExecutionPublication, Publication, Reply};
use crate::execution::{Claim, Impairment, PortError, TcPort, UpdateSink};

/// Capacity of the call channel. The main loop takes each call within microseconds. An execution has one call at a time.
const CALLS: usize = 256;
/// Timeout of a call: the time that a released frontend waits for a reply.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends tc calls of executions to the main loop.
#[derive(Debug, Clone)]
pub(super) struct MainLoopPort {
    calls: mpsc::Sender<TcCall>,
}

impl MainLoopPort {
    /// Returns the port and the receiver for the main loop.
    pub(super) fn channel() -> (Self, mpsc::Receiver<TcCall>) {
        let (calls, calls_rx) = mpsc::channel(CALLS);
        (Self { calls }, calls_rx)
    }

    async fn call(&self, claim: &Claim, asked: Asked) -> Result<TcResponse, PortError> {
        let (reply, answer) = Reply::channel();
        let call = TcCall {
            claim: claim.clone(),
            asked,
            reply,
        };
        let answered = async {
            self.calls.send(call).await.ok()?;
            answer.await.ok()
        };
        let response = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
        let response = response.map_err(|_| PortError::Unanswered)?;
        match response {
            Some(response) if response.success => Ok(response),
            Some(TcResponse {
                message,
                error_kind,
                ..
            }) => Err(PortError::Refused {
                kind: error_kind.unwrap_or(ErrorKind::Internal),
                message,
            }),
            None => Err(PortError::Unanswered),
        }
    }
}

impl TcPort for MainLoopPort {
    async fn capture(&self, claim: &Claim) -> Result<(), PortError> {
        self.call(claim, Asked::Look).await.map(drop)
    }

    async fn set(&self, claim: &Claim, wanted: Impairment) -> Result<(), PortError> {
        let operation = match wanted {
            Impairment::None => TcOperation::Remove,
            Impairment::Netem(config) => TcOperation::ApplyConfig { config: *config },
        };
        self.call(claim, Asked::Change(Box::new(operation)))
            .await
            .map(drop)
    }

    async fn restore(&self, claim: &Claim) -> Result<(), PortError> {
        self.call(claim, Asked::Restore).await.map(drop)
    }

    async fn release(&self, claim: &Claim, owed: bool) {
        // An error means that the main loop is ending.
        self.call(claim, Asked::Release { owed }).await.ok();
    }
}

impl UpdateSink for BusHandle {
    async fn publish(&self, updates: Vec<ExecutionPublication>) {
        let publication = Publication {
            executions: updates,
            ..Publication::default()
        };
        // If the reply is missing, the bus has ended, which ends the daemon.
        self.publish(publication).await;
    }
}
