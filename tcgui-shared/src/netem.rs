//! Netem configurations in the two forms of the wire.
//!
//! [`TcNetemConfig`] is the structured form of presets and scenarios: every feature has a switch and keeps its numbers while it
//! is off. [`FlatNetem`] is the form of the requests that frontends send: a feature is on if its number is above zero.
//! Percentages are 0 to 100. Both forms can contain [`NetemExtensions`], which released frontends ignore.

mod extensions;
mod keys;

use serde::{Deserialize, Serialize};

pub use extensions::{
    Distribution, LossModel, NetemExtensions, QueueConfig, RateOverhead, SlotConfig,
};
pub use keys::{RateKbps, rounded_kbps};

/// The gap of a configuration without reordering, in packets.
pub const DEFAULT_GAP: u32 = 5;

/// The rate of a configuration without a rate limit, in kbit/s (1000 bit/s).
pub const DEFAULT_RATE_KBPS: u32 = 1000;

/// A complete netem configuration. By default every feature is off.
///
/// On the wire all members and all their fields are mandatory, except the extensions.
///
/// ```
/// use tcgui_shared::netem::{DelayConfig, TcNetemConfig};
///
/// let slow = TcNetemConfig {
///     delay: DelayConfig { enabled: true, base_ms: 40.0, ..DelayConfig::default() },
///     ..TcNetemConfig::default()
/// };
/// assert!(!slow.loss.enabled);
/// assert_eq!(slow.reorder.gap, 5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "keys::ConfigKeys")]
pub struct TcNetemConfig {
    /// Packet loss.
    pub loss: LossConfig,
    /// Packet delay.
    pub delay: DelayConfig,
    /// Packet duplication.
    pub duplicate: DuplicateConfig,
    /// Reordering: some packets are sent before the delayed ones.
    pub reorder: ReorderConfig,
    /// Corruption: one bit of a packet is flipped.
    pub corrupt: CorruptConfig,
    /// Rate limit.
    pub rate_limit: RateLimitConfig,
    /// Fields that released frontends ignore.
    #[serde(flatten)]
    pub extensions: NetemExtensions,
}

/// A feature that affects a percentage of the packets. Off by default.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PercentageConfig {
    /// Whether the feature is on.
    pub enabled: bool,
    /// Percentage of packets, 0 to 100.
    #[serde(serialize_with = "crate::number::finite")]
    pub percentage: f64,
    /// Correlation with the preceding random number, 0 to 100.
    #[serde(serialize_with = "crate::number::finite")]
    pub correlation: f64,
}

/// Random loss.
pub type LossConfig = PercentageConfig;

/// Duplication.
pub type DuplicateConfig = PercentageConfig;

/// Corruption.
pub type CorruptConfig = PercentageConfig;

/// Delay and jitter. Off by default.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct DelayConfig {
    /// Whether the feature is on.
    pub enabled: bool,
    /// The delay of every packet, in ms.
    #[serde(serialize_with = "crate::number::finite")]
    pub base_ms: f64,
    /// Maximum deviation of the delay in both directions, in ms.
    #[serde(serialize_with = "crate::number::finite")]
    pub jitter_ms: f64,
    /// Correlation with the preceding delay, 0 to 100.
    #[serde(serialize_with = "crate::number::finite")]
    pub correlation: f64,
}

/// Reordering. Off by default, with a gap of [`DEFAULT_GAP`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ReorderConfig {
    /// Whether the feature is on.
    pub enabled: bool,
    /// The probability that a packet after the gap is sent at once, 0 to 100.
    #[serde(serialize_with = "crate::number::finite")]
    pub percentage: f64,
    /// Correlation with the preceding random number, 0 to 100.
    #[serde(serialize_with = "crate::number::finite")]
    pub correlation: f64,
    /// After a packet that was sent at once, `gap` − 1 packets are delayed. Then each packet is sent at once with the
    /// probability `percentage`, until one is sent at once.
    pub gap: u32,
}

impl Default for ReorderConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            percentage: 0.0,
            correlation: 0.0,
            gap: DEFAULT_GAP,
        }
    }
}

/// A rate limit. Off by default, with a rate of [`DEFAULT_RATE_KBPS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimitConfig {
    /// Whether the feature is on.
    pub enabled: bool,
    /// The rate in kbit/s (1000 bit/s). In JSON it may have a fraction. It is rounded when it is read, and
    /// [`NetemExtensions::rate_limit_bps`] then has the exact rate.
    pub rate_kbps: u32,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            rate_kbps: DEFAULT_RATE_KBPS,
        }
    }
}

/// A complete netem configuration as a list of numbers.
///
/// A feature is on if its number is present and above zero. Correlations, jitter and gap have no effect without it: a frontend
/// may send `correlation` with a `loss` of 0.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "keys::FlatKeys")]
pub struct FlatNetem {
    /// Percentage of lost packets, 0 to 100. 0 is off.
    #[serde(serialize_with = "crate::number::finite")]
    pub loss: f64,
    /// The correlation of the loss, 0 to 100.
    pub correlation: Option<f64>,
    /// The delay in ms.
    pub delay_ms: Option<f64>,
    /// The variation of the delay in ms.
    pub delay_jitter_ms: Option<f64>,
    /// The correlation of the delay, 0 to 100.
    pub delay_correlation: Option<f64>,
    /// Percentage of duplicated packets, 0 to 100.
    pub duplicate_percent: Option<f64>,
    /// The correlation of the duplication, 0 to 100.
    pub duplicate_correlation: Option<f64>,
    /// The probability that a packet after the gap is sent at once, 0 to 100.
    pub reorder_percent: Option<f64>,
    /// The correlation of the reordering, 0 to 100.
    pub reorder_correlation: Option<f64>,
    /// See [`ReorderConfig::gap`].
    pub reorder_gap: Option<u32>,
    /// Percentage of corrupted packets, 0 to 100.
    pub corrupt_percent: Option<f64>,
    /// The correlation of the corruption, 0 to 100.
    pub corrupt_correlation: Option<f64>,
    /// The rate in kbit/s (1000 bit/s). In JSON it may have a fraction. It is rounded when it is read, and
    /// [`NetemExtensions::rate_limit_bps`] then has the exact rate.
    pub rate_limit_kbps: Option<u32>,
    /// Fields that released frontends ignore.
    #[serde(flatten)]
    pub extensions: NetemExtensions,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_default_is_off_with_the_documented_numbers() {
        let percentage = json!({"enabled": false, "percentage": 0.0, "correlation": 0.0});
        assert_eq!(
            serde_json::to_value(TcNetemConfig::default()).unwrap(),
            json!({
                "loss": percentage, "duplicate": percentage, "corrupt": percentage,
                "delay": {"enabled": false, "base_ms": 0.0, "jitter_ms": 0.0, "correlation": 0.0},
                "reorder": {"enabled": false, "percentage": 0.0, "correlation": 0.0, "gap": 5},
                "rate_limit": {"enabled": false, "rate_kbps": 1000},
            })
        );
    }

    #[test]
    fn numbers_that_are_not_finite_are_written_as_zero_or_null() {
        let flat = FlatNetem {
            loss: f64::NAN,
            delay_ms: Some(f64::INFINITY),
            ..FlatNetem::default()
        };
        let written = serde_json::to_value(flat).unwrap();
        assert_eq!(written["loss"], json!(0.0));
        assert_eq!(written["delay_ms"], json!(null));
    }
}
