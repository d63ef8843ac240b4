//! Preset files in JSON5: a netem configuration with a name.
//!
//! Pure: [`read`] converts text to a [`CustomPreset`]. The modules `features` and `rate` also serve scenario files,
//! whose steps have the same keys.

mod features;
mod limits;
mod rate;

use serde::Deserialize;
use tcgui_shared::netem::{Distribution, TcNetemConfig};
use tcgui_shared::preset::CustomPreset;

use crate::document::{Document, DocumentError};

pub(crate) use features::Features;
pub(crate) use limits::{
    Flaw, MAX_DESCRIPTION, MAX_NAME, Problem, check_config, check_id, check_text, notes,
};
pub(crate) use rate::parse as parse_rate;

use features::{
    Delay, LossModelKeys, Percentage, QueueKeys, RateLimit, RateOverheadKeys, Reorder, SlotKeys,
};

/// Short names of built-in presets. The documentation of released backends promises them.
const ALIASES: [(&str, &str); 8] = [
    ("satellite", "satellite-link"),
    ("cellular", "cellular-network"),
    ("mobile", "cellular-network"),
    ("wifi", "poor-wifi"),
    ("wan", "wan-link"),
    ("unreliable", "unreliable-connection"),
    ("highlatency", "high-latency-low-bandwidth"),
    ("test", "test-all"),
];

/// The keys of a preset file. The features are listed here, because `serde(flatten)` would lose their positions in the
/// file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    id: String,
    name: String,
    #[serde(default)]
    description: String,
    loss: Option<Percentage>,
    delay: Option<Delay>,
    duplicate: Option<Percentage>,
    reorder: Option<Reorder>,
    corrupt: Option<Percentage>,
    rate_limit: Option<RateLimit>,
    distribution: Option<Distribution>,
    loss_model: Option<LossModelKeys>,
    ecn: Option<bool>,
    rate_overhead: Option<RateOverheadKeys>,
    queue: Option<QueueKeys>,
    slot: Option<SlotKeys>,
    seed: Option<u64>,
    limit: Option<u32>,
}

/// A value from a file, with warnings. The value is used, but it may not mean what its author expects.
#[derive(Debug, Clone, PartialEq)]
pub struct FromFile<T> {
    /// The value.
    pub value: T,
    /// The warnings, with their positions in the file.
    pub warnings: Vec<DocumentError>,
}

/// Reads a preset file.
///
/// # Errors
/// It is not JSON5, or has an unknown key or an invalid value.
pub fn read(bytes: &[u8]) -> Result<FromFile<CustomPreset>, DocumentError> {
    let document = Document::new(bytes)?;
    let keys: Keys = document.read()?;
    let place = |Flaw { place, problem }| document.error(place, &problem);
    let mut doubts = Vec::new();
    let value = preset(keys, &mut doubts).map_err(place)?;
    let warnings = doubts.into_iter().map(place).collect();
    Ok(FromFile { value, warnings })
}

fn preset(keys: Keys, doubts: &mut Vec<Flaw>) -> Result<CustomPreset, Flaw> {
    check_id(&keys.id)?;
    check_text("name", &keys.name, 1..=MAX_NAME)?;
    check_text("description", &keys.description, 0..=MAX_DESCRIPTION)?;
    let features = Features {
        loss: keys.loss,
        delay: keys.delay,
        duplicate: keys.duplicate,
        reorder: keys.reorder,
        corrupt: keys.corrupt,
        rate_limit: keys.rate_limit,
        distribution: keys.distribution,
        loss_model: keys.loss_model,
        ecn: keys.ecn,
        rate_overhead: keys.rate_overhead,
        queue: keys.queue,
        slot: keys.slot,
        seed: keys.seed,
        limit: keys.limit,
    };
    let (config, doubt) = features.into_config()?;
    doubts.extend(doubt);
    doubts.extend(notes(&config)?);
    Ok(CustomPreset {
        id: keys.id,
        name: keys.name,
        description: keys.description,
        config,
    })
}

/// Returns the configuration for `preset: "id"` in a scenario. The id may be a short name of a built-in preset.
pub fn find(presets: &[CustomPreset], id: &str) -> Option<TcNetemConfig> {
    let of_id = |id: &str| presets.iter().find(|preset| preset.id == id);
    let alias = || ALIASES.iter().find(|(alias, _)| *alias == id);
    let preset = of_id(id).or_else(|| of_id(alias()?.1))?;
    Some(preset.config)
}

#[cfg(test)]
mod tests;
