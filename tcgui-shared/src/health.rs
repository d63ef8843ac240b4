//! The state of the backend itself.
//!
//! For operators and logs. A frontend uses the liveliness token and the interface list to decide whether a backend is present. It
//! only records the time of a health message.

use serde::{Deserialize, Serialize};

/// The status of a backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendHealthStatus {
    /// The backend that publishes, as in the key.
    pub backend_name: String,
    /// A short human-readable text, such as `Backend started`.
    pub status: String,
    /// Seconds since the Unix epoch.
    pub timestamp: u64,
    /// Facts that do not change while the backend runs.
    pub metadata: BackendMetadata,
    /// Number of known namespaces.
    pub namespace_count: usize,
    /// Number of known interfaces, listed or not.
    pub interface_count: usize,
    /// The host of another backend with the same name on the bus. An addition of 0.9. Absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_conflict: Option<String>,
}

/// The identity and capabilities of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BackendMetadata {
    /// The version of the backend.
    pub version: Option<String>,
    /// The name of its host.
    pub hostname: Option<String>,
    /// When it started, in seconds since the Unix epoch.
    pub started_at: Option<u64>,
    /// Supported features: `tc_netem`, `interface_control`, ….
    pub capabilities: Vec<String>,
}
