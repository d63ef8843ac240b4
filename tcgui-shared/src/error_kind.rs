//! Machine-readable reasons for a failure.
//!
//! Failure replies keep the released form: `error_code` −1 and a human-readable text. The kind is an addition that released
//! frontends ignore.

use serde::{Deserialize, Serialize};

/// The `error_code` of every failure reply. Released backends use only this value.
pub const FAILURE_CODE: i32 = -1;

/// The kind of a failure, for callers that react to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request itself is wrong and will fail again: malformed, or a value out of range.
    Invalid,
    /// The namespace, interface or object does not exist (any more).
    NotFound,
    /// The kernel refused for lack of privilege, or an option of the backend forbids it.
    Denied,
    /// Something else holds the object or the backend is saturated; a later try may succeed.
    Busy,
    /// The kernel or the backend has no such feature.
    Unsupported,
    /// The backend failed in a way that the request did not cause.
    Internal,
}
