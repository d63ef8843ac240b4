//! Netem features beyond the released protocol: optional fields that released frontends ignore.
//!
//! A field is omitted from the JSON if it is `None`. Therefore a configuration without extensions has the same form as in
//! released backends.

use serde::{Deserialize, Serialize};

/// The optional fields of [`TcNetemConfig`](super::TcNetemConfig) and [`FlatNetem`](super::FlatNetem). In JSON they are on the
/// same level as the other fields.
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
    /// The distribution of the delay around its mean. Uniform if absent. Needs a jitter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// A model of bursty loss, used instead of random loss. `loss` must then be off, or be the share of packets that
    /// the model loses. Frontends that do not know models show this share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_model: Option<LossModel>,
    /// Whether ECN-capable packets are marked instead of dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecn: Option<bool>,
    /// The overhead that counts towards the rate. Needs a rate limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_overhead: Option<RateOverhead>,
    /// The exact rate in bit/s, if it is not a whole number of kbit/s. `rate_kbps` or `rate_limit_kbps` must then be
    /// absent or be the nearest number of kbit/s, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit_bps: Option<u64>,
    /// The length of the queue in front of the rate limit. Needs a rate limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueConfig>,
    /// Slots: packets wait for a slot and leave together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotConfig>,
    /// The seed of the random numbers, for reproducible runs. Needs Linux 6.6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Maximum queue length in packets. If absent, the backend chooses a length at which the queue itself drops nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A delay distribution (tc-netem(8)). Lower-case spellings are also accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Distribution {
    /// Normal distribution.
    #[serde(alias = "normal")]
    Normal,
    /// Pareto distribution: many short and few long delays.
    #[serde(alias = "pareto")]
    Pareto,
    /// One part normal, three parts Pareto distribution.
    #[serde(alias = "paretonormal")]
    ParetoNormal,
}

/// A loss model with states. All probabilities are in percent, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum LossModel {
    /// A good and a bad state (`loss gemodel` of `tc`).
    GilbertElliott {
        /// Probability of a change from good to bad, for each packet.
        #[serde(serialize_with = "crate::number::finite")]
        p: f64,
        /// Probability of a change from bad to good.
        #[serde(serialize_with = "crate::number::finite")]
        r: f64,
        /// The loss in the bad state (1 − h in the literature).
        #[serde(default = "always", serialize_with = "crate::number::finite")]
        bad_loss: f64,
        /// The loss in the good state (1 − k in the literature).
        #[serde(default, serialize_with = "crate::number::finite")]
        good_loss: f64,
    },
    /// Four states (`loss state` of `tc`): 1 reception in a gap, 2 reception in a burst, 3 loss in a
    /// burst, 4 loss in a gap.
    FourState {
        /// Probability of a change from state 1 to 3.
        #[serde(serialize_with = "crate::number::finite")]
        p13: f64,
        /// Probability of a change from state 3 to 1.
        #[serde(serialize_with = "crate::number::finite")]
        p31: f64,
        /// Probability of a change from state 3 to 2.
        #[serde(default, serialize_with = "crate::number::finite")]
        p32: f64,
        /// Probability of a change from state 2 to 3.
        #[serde(default = "always", serialize_with = "crate::number::finite")]
        p23: f64,
        /// Probability of a change from state 1 to 4.
        #[serde(default, serialize_with = "crate::number::finite")]
        p14: f64,
    },
}

/// The default of a probability that `tc` treats as 100 %.
fn always() -> f64 {
    100.0
}

/// Overhead that counts towards the rate, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RateOverhead {
    /// Bytes added to the length of each packet. May be negative.
    #[serde(default, deserialize_with = "crate::number::integer")]
    pub packet: i32,
    /// The payload of one cell, for links that send cells. 0 for other links.
    #[serde(default, deserialize_with = "crate::number::integer")]
    pub cell_size: u32,
    /// Bytes added for each cell.
    #[serde(default, deserialize_with = "crate::number::integer")]
    pub cell: i32,
}

/// The length of the queue in front of a rate limit. A request has one of the fields. If it has both, `bytes` takes
/// precedence. A publication has both: the bytes that the kernel reports, and their time at the rate.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct QueueConfig {
    /// The longest time that a packet waits in the queue, in ms, at most 60 000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
    /// The length of the queue in bytes, at least 1.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::optional_integer"
    )]
    pub bytes: Option<u32>,
}

/// The time between slots. With a `distribution` it is distributed around `delay_ms`. Otherwise it is uniform between
/// `min_ms` and `max_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SlotConfig {
    /// Minimum time between slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ms: Option<f64>,
    /// Maximum time between slots. If absent, the minimum applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<f64>,
    /// The distribution of the time between slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// Mean time between slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// The jitter of the time. Must be above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// Maximum number of packets in one slot.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::optional_integer"
    )]
    pub packets: Option<u32>,
    /// Maximum number of bytes in one slot.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::optional_integer"
    )]
    pub bytes: Option<u32>,
}
