//! Preset files: a netem configuration with a name, in JSON5, as the wire has it.
//!
//! Pure: text in, [`CustomPreset`] out. `features` and `rate` are shared with scenario files, whose
//! steps hold the same keys.

mod features;
mod limits;
mod rate;

use serde::Deserialize;
use tcgui_shared::netem::{Distribution, TcNetemConfig};
use tcgui_shared::preset::CustomPreset;

use crate::document::{Document, DocumentError};

pub(crate) use features::Features;
pub(crate) use limits::{
    Flaw, MAX_DESCRIPTION, MAX_NAME, Problem, check_config, check_id, check_text,
};
pub(crate) use rate::kbps;

use features::{Delay, LossModelKeys, Percentage, RateLimit, RateOverheadKeys, Reorder, SlotKeys};

/// Short names for shipped presets, which documentation of released backends promises.
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

/// What a preset file may say. The features are spelt out, because flattening would lose positions.
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
    slot: Option<SlotKeys>,
    seed: Option<u64>,
    limit: Option<u32>,
}

/// Reads a preset file.
///
/// # Errors
/// It is no JSON5, says something that presets do not have, or asks for what netem cannot do.
pub fn read(bytes: &[u8]) -> Result<CustomPreset, DocumentError> {
    let document = Document::new(bytes)?;
    let keys: Keys = document.read()?;
    preset(keys).map_err(|Flaw { place, problem }| document.error(place, &problem))
}

fn preset(keys: Keys) -> Result<CustomPreset, Flaw> {
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
        slot: keys.slot,
        seed: keys.seed,
        limit: keys.limit,
    };
    let config = features.into_config()?;
    check_config(&config)?;
    Ok(CustomPreset {
        id: keys.id,
        name: keys.name,
        description: keys.description,
        config,
    })
}

/// Returns what a scenario means by `preset: "id"`: an id, or a short name of a shipped preset.
pub fn find(presets: &[CustomPreset], id: &str) -> Option<TcNetemConfig> {
    let of_id = |id: &str| presets.iter().find(|preset| preset.id == id);
    let alias = || ALIASES.iter().find(|(alias, _)| *alias == id);
    let preset = of_id(id).or_else(|| of_id(alias()?.1))?;
    Some(preset.config)
}

#[cfg(test)]
mod tests;
