//! Named netem configurations that a frontend offers for selection.

use serde::{Deserialize, Serialize};

use crate::netem::TcNetemConfig;

/// All presets of a backend.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PresetList {
    /// The presets in display order.
    pub presets: Vec<CustomPreset>,
}

/// A netem configuration with a name.
///
/// To use a preset, a frontend sends its numbers in an apply request. It does not send the id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomPreset {
    /// Unique within the backend.
    pub id: String,
    /// The display name.
    pub name: String,
    /// The purpose. May be empty.
    #[serde(default)]
    pub description: String,
    /// The configuration. In JSON its members are on the same level as `id`.
    #[serde(flatten)]
    pub config: TcNetemConfig,
}
