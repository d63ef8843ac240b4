//! Named netem configurations that a frontend offers for choice.

use serde::{Deserialize, Serialize};

use crate::netem::TcNetemConfig;

/// All presets of a backend.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PresetList {
    /// The presets in the order of display.
    pub presets: Vec<CustomPreset>,
}

/// A netem configuration with a name.
///
/// A frontend that picks it sends the numbers back in an apply request; the id does not return.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomPreset {
    /// Unique within the backend.
    pub id: String,
    /// What people see.
    pub name: String,
    /// What it is for; may be empty.
    #[serde(default)]
    pub description: String,
    /// The configuration; its members are on the level of `id` in JSON.
    #[serde(flatten)]
    pub config: TcNetemConfig,
}
