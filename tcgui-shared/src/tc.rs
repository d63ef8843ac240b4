//! Netem on an interface: configurations, counters, and the queries that change them.

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
    /// The installed configuration. `None` if there is none.
    pub configuration: Option<TcConfiguration>,
    /// Whether a configuration is installed. On `false` without a configuration a frontend switches all features off. On `true`
    /// without a configuration it changes nothing.
    pub has_tc: bool,
}

/// An installed configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcConfiguration {
    /// The numbers. In JSON they are on the same level as `command`.
    #[serde(flatten)]
    pub netem: FlatNetem,
    /// An equivalent `tc` command line, for display only.
    pub command: String,
    /// Notes for people: where the kernel behaves differently than the numbers suggest. Released frontends ignore them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
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
    /// `TCA_STATS_RATE_EST`. The released backend omits it if both rates are 0.
    pub stats_rate_est: Option<RateEstimate>,
}

/// Traffic through a qdisc (`struct gnet_stats_basic` in `linux/gen_stats.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BasicStats {
    /// Bytes sent.
    pub bytes: u64,
    /// Packets sent.
    pub packets: u64,
}

/// Queue counters (`struct gnet_stats_queue` in `linux/gen_stats.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueStats {
    /// Packets waiting.
    pub qlen: u32,
    /// Bytes waiting.
    pub backlog: u32,
    /// Packets dropped.
    pub drops: u32,
    /// Packets requeued after a failed send.
    pub requeues: u32,
    /// How often a limit was hit.
    pub overlimits: u32,
}

/// The kernel's rate estimate (`struct gnet_stats_rate_est` in `linux/gen_stats.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RateEstimate {
    /// Bytes per second, despite the name.
    pub bps: u32,
    /// Packets per second.
    pub pps: u32,
}

/// Requests a change of the netem of one interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcRequest {
    /// The wire text of the namespace.
    pub namespace: String,
    /// The wire text of the interface.
    pub interface: String,
    /// The operation.
    pub operation: TcOperation,
    /// Lifetime of the change in ms. Afterwards the earlier configuration is restored. If absent, the backend's default
    /// applies: normally the change is permanent. Released frontends never send it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::optional_integer"
    )]
    pub ttl_ms: Option<u64>,
    /// Time in ms within which [`TcOperation::Confirm`] must arrive. Otherwise the change is undone. Released frontends
    /// never send it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::optional_integer"
    )]
    pub confirm_within_ms: Option<u64>,
    /// Names the change, so that [`TcOperation::Renew`] can only extend this change and no later one. Chosen by the
    /// client: 1 to [`LONGEST_TOKEN`] ASCII letters, digits, `-`, `_` and `.`. Needs a [`ttl_ms`](Self::ttl_ms).
    /// Released frontends never send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_token: Option<String>,
    /// What the client calls itself, for people: at most [`LONGEST_CLIENT`] bytes without control characters.
    /// Released frontends never send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// The longest [`TcRequest::lease_token`], in bytes.
pub const LONGEST_TOKEN: usize = 64;

/// The longest [`TcRequest::client`], in bytes.
pub const LONGEST_CLIENT: usize = 200;

impl TcRequest {
    /// Returns a request without conditions.
    pub fn new(
        namespace: impl Into<String>,
        interface: impl Into<String>,
        operation: TcOperation,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            interface: interface.into(),
            operation,
            ttl_ms: None,
            confirm_within_ms: None,
            lease_token: None,
            client: None,
        }
    }
}

/// An operation on the netem of an interface.
///
/// Both forms of apply contain the complete configuration: absent features are removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TcOperation {
    /// Installs a flat configuration. Without an active feature it removes the netem. This is the only apply that released
    /// frontends send.
    Apply(FlatNetem),
    /// Installs a structured configuration. If no number is above zero, it removes the netem. There is one exception:
    /// with a `limit`, it installs a netem that only queues.
    ApplyConfig {
        /// The configuration.
        config: TcNetemConfig,
    },
    /// Removes the netem.
    Remove,
    /// Keeps a change that was requested with [`confirm_within_ms`](TcRequest::confirm_within_ms). Released frontends never send
    /// it.
    Confirm,
    /// Lets the change with this [`lease_token`](TcRequest::lease_token) end [`ttl_ms`](TcRequest::ttl_ms) from now
    /// instead. Fails with [`ErrorKind::NotFound`] if that change is not in force any more. Released frontends never
    /// send it.
    Renew,
}

/// The answer to a [`TcRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcResponse {
    /// Whether the operation took effect.
    pub success: bool,
    /// Human-readable text.
    pub message: String,
    /// The installed configuration. `None` after a removal and after a failure.
    pub applied_config: Option<TcConfiguration>,
    /// `None` on success, [`FAILURE_CODE`] otherwise.
    pub error_code: Option<i32>,
    /// The reason for a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
    /// Time at which the configuration expires, in ms since the Unix epoch. Absent if it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

impl TcResponse {
    /// Returns the reply to a successful operation.
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

    /// Returns the reply to a failed operation.
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
