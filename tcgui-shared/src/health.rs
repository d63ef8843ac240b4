//! The state of the backend itself.
//!
//! For operators and logs: a frontend decides by the liveliness token and the interface list
//! whether a backend is there, and only notes when it saw a health message.

use serde::{Deserialize, Serialize};

/// What a backend says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendHealthStatus {
    /// The backend that publishes, as in the key.
    pub backend_name: String,
    /// A short text for people, such as `Backend started`.
    pub status: String,
    /// Seconds since the Unix epoch.
    pub timestamp: u64,
    /// Facts that do not change while the backend runs.
    pub metadata: BackendMetadata,
    /// How many namespaces the backend knows.
    pub namespace_count: usize,
    /// How many interfaces the backend knows, listed or not.
    pub interface_count: usize,
    /// The host of another backend of this name that is on the bus. An addition of 0.9; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_conflict: Option<String>,
}

/// What a backend is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BackendMetadata {
    /// The version of the backend.
    pub version: Option<String>,
    /// The name of its host.
    pub hostname: Option<String>,
    /// When it started, in seconds since the Unix epoch.
    pub started_at: Option<u64>,
    /// What it can do: `tc_netem`, `interface_control`, ….
    pub capabilities: Vec<String>,
}
