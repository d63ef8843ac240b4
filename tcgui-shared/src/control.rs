//! Brings an interface up or down.
//!
//! Frontends ignore the reply and use the next interface list. Other clients read the reply.

use serde::{Deserialize, Serialize};

use crate::error_kind::{ErrorKind, FAILURE_CODE};

/// Requests a change of the administrative state of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceControlRequest {
    /// The wire text of the namespace.
    pub namespace: String,
    /// The wire text of the interface.
    pub interface: String,
    /// The operation.
    pub operation: InterfaceControlOperation,
}

/// An operation on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InterfaceControlOperation {
    /// Brings it up.
    Enable,
    /// Brings it down.
    Disable,
}

/// The reply to an [`InterfaceControlRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceControlResponse {
    /// Whether the interface is in the requested state.
    pub success: bool,
    /// Human-readable text.
    pub message: String,
    /// Whether the interface is up. After a success this is the requested state. After a failure it is assumed to be the
    /// opposite.
    pub new_state: bool,
    /// `None` on success, [`FAILURE_CODE`] otherwise.
    pub error_code: Option<i32>,
    /// The reason for a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
}

impl InterfaceControlResponse {
    /// Returns the reply to an operation that took effect.
    pub fn success(operation: InterfaceControlOperation, message: impl Into<String>) -> Self {
        Self {
            success: true,
            message: message.into(),
            new_state: operation == InterfaceControlOperation::Enable,
            error_code: None,
            error_kind: None,
        }
    }

    /// Returns the reply to an operation that failed, with the state assumed to be unchanged.
    pub fn failure(
        operation: InterfaceControlOperation,
        message: impl Into<String>,
        kind: ErrorKind,
    ) -> Self {
        Self {
            success: false,
            message: message.into(),
            new_state: operation == InterfaceControlOperation::Disable,
            error_code: Some(FAILURE_CODE),
            error_kind: Some(kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::InterfaceControlOperation::{Disable, Enable};
    use super::*;

    #[test]
    fn new_state_follows_operation_and_outcome() {
        for (operation, ok, failed) in [(Enable, true, false), (Disable, false, true)] {
            let success = InterfaceControlResponse::success(operation, "");
            let failure = InterfaceControlResponse::failure(operation, "", ErrorKind::Denied);
            assert_eq!(
                (success.new_state, failure.new_state),
                (ok, failed),
                "{operation:?}"
            );
        }
    }
}
