//! Looking at an interface from inside its namespace: link, reachability, latency.
//!
//! A frontend shows a spinner until a reply comes and has no timeout of its own, so every request
//! deserves an answer well inside Zenoh's 10 s. Releases before 0.6 do not know this query.

use serde::{Deserialize, Serialize};

use crate::error_kind::{ErrorKind, FAILURE_CODE};
use crate::netem::TcNetemConfig;

/// Asks for a check of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticsRequest {
    /// The wire text of the namespace.
    pub namespace: String,
    /// The wire text of the interface.
    pub interface: String,
    /// The address or host to reach; the backend chooses one when absent, as frontends leave it.
    pub target: Option<String>,
    /// How long the check may take, in ms; frontends send 5000.
    pub timeout_ms: u32,
}

/// The answer to a [`DiagnosticsRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiagnosticsResponse {
    /// Whether the check could be made, not whether the target answered.
    pub success: bool,
    /// A text for people; frontends show it.
    pub message: String,
    /// What was found; mandatory for the reader even after a failure.
    pub results: DiagnosticsResults,
    /// `None` on success, [`FAILURE_CODE`] otherwise.
    pub error_code: Option<i32>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
}

impl DiagnosticsResponse {
    /// Returns the reply to a check that was made.
    pub fn success(message: impl Into<String>, results: DiagnosticsResults) -> Self {
        Self {
            success: true,
            message: message.into(),
            results,
            error_code: None,
            error_kind: None,
        }
    }

    /// Returns the reply to a check that could not be made, with empty results.
    pub fn failure(message: impl Into<String>, kind: ErrorKind) -> Self {
        Self {
            success: false,
            message: message.into(),
            results: DiagnosticsResults::default(),
            error_code: Some(FAILURE_CODE),
            error_kind: Some(kind),
        }
    }
}

/// What a check found; empty by default, with the link down.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DiagnosticsResults {
    /// The state of the link.
    pub link_status: LinkStatus,
    /// Whether the target answered; `None` when there was none to ask.
    pub connectivity: Option<Connectivity>,
    /// How fast the target answered; `None` when it did not.
    pub latency: Option<Latency>,
    /// The netem on the interface.
    pub configured_tc: Option<TcNetemConfig>,
    /// The counters of the root qdisc.
    pub tc_stats: Option<QdiscStats>,
}

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The administrative state, `IFF_UP`.
    pub is_up: bool,
    /// Whether there is a carrier.
    pub has_carrier: bool,
    /// The largest packet, in bytes.
    pub mtu: u32,
}

/// Whether a target answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connectivity {
    /// The address or host that was asked.
    pub target: String,
    /// Whether it answered.
    pub reachable: bool,
    /// How it was asked, such as `ping`.
    pub method: String,
}

/// How fast a target answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The address or host that was asked.
    pub target: String,
    /// The fastest answer, in ms.
    #[serde(serialize_with = "crate::number::finite")]
    pub min_ms: f64,
    /// The mean, in ms.
    #[serde(serialize_with = "crate::number::finite")]
    pub avg_ms: f64,
    /// The slowest answer, in ms.
    #[serde(serialize_with = "crate::number::finite")]
    pub max_ms: f64,
    /// The share of questions without an answer, 0 to 100.
    #[serde(serialize_with = "crate::number::finite")]
    pub packet_loss_percent: f64,
    /// How many questions were asked.
    pub samples: u32,
}

/// Counters of the root qdisc, as diagnostics show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QdiscStats {
    /// Packets dropped.
    pub drops: u32,
    /// How often a limit was hit.
    pub overlimits: u32,
    /// Packets waiting.
    pub qlen: u32,
    /// Bytes waiting.
    pub backlog: u32,
    /// Bytes per second, in spite of the name.
    pub bps: Option<u32>,
    /// Packets per second.
    pub pps: Option<u32>,
}
