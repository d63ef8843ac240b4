//! What netem does on an interface: configurations, counters, and the queries that change them.

use serde::{Deserialize, Serialize};

use crate::error_kind::{ErrorKind, FAILURE_CODE};
use crate::netem::{FlatNetem, TcNetemConfig};

/// The netem configuration of one interface after a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcConfigUpdate {
    /// The wire text of the namespace.
    pub namespace: String,
    /// The wire text of the interface.
    pub interface: String,
    /// The backend that publishes, as in the key.
    pub backend_name: String,
    /// Seconds since the Unix epoch.
    pub timestamp: u64,
    /// What is installed; `None` when nothing is.
    pub configuration: Option<TcConfiguration>,
    /// Whether a configuration is present. A frontend switches all features off on `false`
    /// without a configuration, and changes nothing on `true` without one.
    pub has_tc: bool,
}

/// An installed configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcConfiguration {
    /// The numbers, on the same level as `command` in JSON.
    #[serde(flatten)]
    pub netem: FlatNetem,
    /// An equivalent `tc` command line, for display only.
    pub command: String,
}

/// The counters of the root qdisc of one interface.
///
/// A frontend replaces all three parts with each message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcStatisticsUpdate {
    /// The wire text of the namespace.
    pub namespace: String,
    /// The wire text of the interface.
    pub interface: String,
    /// The backend that publishes, as in the key.
    pub backend_name: String,
    /// Seconds since the Unix epoch.
    pub timestamp: u64,
    /// `TCA_STATS_BASIC`.
    pub stats_basic: Option<BasicStats>,
    /// `TCA_STATS_QUEUE`.
    pub stats_queue: Option<QueueStats>,
    /// `TCA_STATS_RATE_EST`; the released backend leaves it out when both rates are 0.
    pub stats_rate_est: Option<RateEstimate>,
}

/// What passed through a qdisc (`struct gnet_stats_basic` of `linux/gen_stats.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BasicStats {
    /// Bytes sent.
    pub bytes: u64,
    /// Packets sent.
    pub packets: u64,
}

/// What happened in the queue (`struct gnet_stats_queue` of `linux/gen_stats.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueStats {
    /// Packets waiting.
    pub qlen: u32,
    /// Bytes waiting.
    pub backlog: u32,
    /// Packets dropped.
    pub drops: u32,
    /// Packets queued again after a failed send.
    pub requeues: u32,
    /// How often a limit was hit.
    pub overlimits: u32,
}

/// The kernel's own estimate (`struct gnet_stats_rate_est` of `linux/gen_stats.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RateEstimate {
    /// Bytes per second, in spite of the name.
    pub bps: u32,
    /// Packets per second.
    pub pps: u32,
}

/// Asks for a change of the netem of one interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcRequest {
    /// The wire text of the namespace.
    pub namespace: String,
    /// The wire text of the interface.
    pub interface: String,
    /// What to do.
    pub operation: TcOperation,
    /// The change ends after this many ms, and what was there before comes back. Released frontends
    /// never send it; absent, the change stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// The change ends after this many ms unless [`TcOperation::Confirm`] comes first. Released
    /// frontends never send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_ms: Option<u64>,
}

/// What to do to the netem of an interface.
///
/// Both forms of apply state the complete wish: a feature that is absent is to be removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TcOperation {
    /// Installs a flat configuration; the only apply that released frontends send. With no
    /// feature on it removes the netem.
    Apply(FlatNetem),
    /// Installs a structured configuration, an empty netem when every feature is off.
    ApplyConfig {
        /// The configuration.
        config: TcNetemConfig,
    },
    /// Removes the netem.
    Remove,
    /// Keeps what was asked for with [`confirm_within_ms`](TcRequest::confirm_within_ms). Released
    /// frontends never send it.
    Confirm,
}

/// The answer to a [`TcRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcResponse {
    /// Whether the operation took effect.
    pub success: bool,
    /// A text for people.
    pub message: String,
    /// What is installed now; `None` after a removal and after a failure.
    pub applied_config: Option<TcConfiguration>,
    /// `None` on success, [`FAILURE_CODE`] otherwise.
    pub error_code: Option<i32>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
    /// When what is installed ends by itself, in ms since the Unix epoch; absent when it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

impl TcResponse {
    /// Returns the reply to an operation that took effect.
    pub fn success(message: impl Into<String>, applied_config: Option<TcConfiguration>) -> Self {
        Self {
            success: true,
            message: message.into(),
            applied_config,
            error_code: None,
            error_kind: None,
            expires_at: None,
        }
    }

    /// Returns the reply to an operation that failed.
    pub fn failure(message: impl Into<String>, kind: ErrorKind) -> Self {
        Self {
            success: false,
            message: message.into(),
            applied_config: None,
            error_code: Some(FAILURE_CODE),
            error_kind: Some(kind),
            expires_at: None,
        }
    }
}
