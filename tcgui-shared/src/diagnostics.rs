//! Checks of an interface from inside its namespace: link state, reachability, latency.
//!
//! A frontend shows a spinner until a reply arrives and has no timeout of its own. Therefore every request must be answered well
//! within Zenoh's query timeout of 10 s. Releases before 0.6 do not support this query.

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
    /// The address or host to reach. If absent, the backend chooses one. Frontends never set it.
    pub target: Option<String>,
    /// Maximum duration of the check in ms. Frontends send 5000.
    pub timeout_ms: u32,
}

/// The answer to a [`DiagnosticsRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiagnosticsResponse {
    /// Whether the check was carried out, not whether the target replied.
    pub success: bool,
    /// Human-readable text. Frontends show it.
    pub message: String,
    /// The results. Mandatory, also after a failure.
    pub results: DiagnosticsResults,
    /// `None` on success, [`FAILURE_CODE`] otherwise.
    pub error_code: Option<i32>,
    /// The reason for a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
}

impl DiagnosticsResponse {
    /// Returns the reply to a completed check.
    pub fn success(message: impl Into<String>, results: DiagnosticsResults) -> Self {
        Self {
            success: true,
            message: message.into(),
            results,
            error_code: None,
            error_kind: None,
        }
    }

    /// Returns the reply to a failed check, with empty results.
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

/// The results of a check. The default is empty, with the link down.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DiagnosticsResults {
    /// The state of the link.
    pub link_status: LinkStatus,
    /// Whether the target replied. `None` if no target was checked.
    pub connectivity: Option<Connectivity>,
    /// The latency. `None` if there was no reply.
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
    /// The MTU in bytes.
    pub mtu: u32,
}

/// Whether a target replied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connectivity {
    /// The address or host that was checked.
    pub target: String,
    /// Whether it replied.
    pub reachable: bool,
    /// The check method, such as `ping`.
    pub method: String,
}

/// The latency of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The address or host that was checked.
    pub target: String,
    /// The shortest latency in ms.
    #[serde(serialize_with = "crate::number::finite")]
    pub min_ms: f64,
    /// The mean, in ms.
    #[serde(serialize_with = "crate::number::finite")]
    pub avg_ms: f64,
    /// The longest latency in ms.
    #[serde(serialize_with = "crate::number::finite")]
    pub max_ms: f64,
    /// Percentage of requests without a reply, 0 to 100.
    #[serde(serialize_with = "crate::number::finite")]
    pub packet_loss_percent: f64,
    /// Number of requests sent.
    pub samples: u32,
}

/// Counters of the root qdisc in a diagnostics reply.
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
    /// Bytes per second, despite the name.
    pub bps: Option<u32>,
    /// Packets per second.
    pub pps: Option<u32>,
}
