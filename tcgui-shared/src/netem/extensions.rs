//! What netem can do beyond the released protocol: optional fields that released frontends ignore.
//!
//! Each is absent from the JSON while it is `None`, so that a configuration without extensions is
//! written as released backends write it.

use serde::{Deserialize, Serialize};

/// The optional fields of [`TcNetemConfig`](super::TcNetemConfig) and [`FlatNetem`](super::FlatNetem),
/// on the same level as their own in JSON.
///
/// ```
/// use tcgui_shared::netem::{Distribution, NetemExtensions};
///
/// let bell: NetemExtensions = serde_json::from_str(r#"{"distribution":"normal"}"#)?;
/// assert_eq!(bell.distribution, Some(Distribution::Normal));
/// assert_eq!(serde_json::to_string(&NetemExtensions::default())?, "{}");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct NetemExtensions {
    /// How the delay is spread around its mean; without, evenly. Needs a jitter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// Loss that comes in bursts, instead of random loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_model: Option<LossModel>,
    /// Whether packets that can be marked are marked instead of lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecn: Option<bool>,
    /// How the length of packets counts against the rate. Needs a rate limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_overhead: Option<RateOverhead>,
    /// Packets wait for a slot and leave together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotConfig>,
    /// What the random numbers begin with, for runs that are alike. Needs Linux 6.6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The longest queue in packets; without, the backend chooses one that loses nothing by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// How a delay is spread (`man 8 tc-netem`). Read in lower case too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Distribution {
    /// The bell.
    #[serde(alias = "normal")]
    Normal,
    /// Many short and few long ones.
    #[serde(alias = "pareto")]
    Pareto,
    /// One part normal, three parts Pareto.
    #[serde(alias = "paretonormal")]
    ParetoNormal,
}

/// Loss with a memory; all probabilities in percent, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum LossModel {
    /// A good and a bad state (`loss gemodel` of `tc`).
    GilbertElliott {
        /// From good to bad, for each packet.
        #[serde(serialize_with = "crate::number::finite")]
        p: f64,
        /// From bad to good.
        #[serde(serialize_with = "crate::number::finite")]
        r: f64,
        /// The loss in the bad state, 1 − h of the literature.
        #[serde(default = "always", serialize_with = "crate::number::finite")]
        bad_loss: f64,
        /// The loss in the good state, 1 − k.
        #[serde(default, serialize_with = "crate::number::finite")]
        good_loss: f64,
    },
    /// Four states (`loss state` of `tc`): 1 reception in a gap, 2 reception in a burst, 3 loss in a
    /// burst, 4 loss in a gap.
    FourState {
        /// From 1 to 3.
        #[serde(serialize_with = "crate::number::finite")]
        p13: f64,
        /// From 3 to 1.
        #[serde(serialize_with = "crate::number::finite")]
        p31: f64,
        /// From 3 to 2.
        #[serde(default, serialize_with = "crate::number::finite")]
        p32: f64,
        /// From 2 to 3.
        #[serde(default = "always", serialize_with = "crate::number::finite")]
        p23: f64,
        /// From 1 to 4.
        #[serde(default, serialize_with = "crate::number::finite")]
        p14: f64,
    },
}

/// The default of a probability that `tc` takes as certain.
fn always() -> f64 {
    100.0
}

/// How the length of packets counts against the rate, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RateOverhead {
    /// What each packet counts more, or less.
    #[serde(default)]
    pub packet: i32,
    /// The payload of one cell, for links that send cells; 0 for others.
    #[serde(default)]
    pub cell_size: u32,
    /// What each cell counts more.
    #[serde(default)]
    pub cell: i32,
}

/// When packets leave together: with a `distribution`, around `delay_ms`; without, evenly between
/// `min_ms` and `max_ms` after the slot before.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SlotConfig {
    /// The shortest time between slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ms: Option<f64>,
    /// The longest; without, the shortest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<f64>,
    /// How the time is spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// The mean time between slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// How far it varies; has to be above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// The most packets in one slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u32>,
    /// The most bytes in one slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
}
