//! Deserialisation of both forms. Every field is listed here for two reasons: with `serde(flatten)`, an error would not
//! name the field with the wrong value, and a rate in JSON may have a fraction, which the released field cannot hold.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::{
    CorruptConfig, DelayConfig, Distribution, DuplicateConfig, FlatNetem, LossConfig, LossModel,
    NetemExtensions, QueueConfig, RateLimitConfig, RateOverhead, ReorderConfig, SlotConfig,
    TcNetemConfig,
};
use crate::number::{integer, optional_integer};

/// A rate as it is read from JSON. A rate with a fraction is kept twice: rounded, and exactly in bit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateKbps {
    /// In kbit/s (1000 bit/s), rounded. A rate above 0 never becomes 0.
    pub kbps: u32,
    /// In bit/s, if the rate is not a whole number of kbit/s.
    pub bps: Option<u64>,
}

impl RateKbps {
    /// Converts a rate in kbit/s. A fraction is rounded to the nearest bit per second.
    ///
    /// # Errors
    /// It is not between 0 and 4 294 967 295 kbit/s. The text of the error contains this range.
    pub fn new(kbps: f64) -> Result<Self, String> {
        if !(0.0..=f64::from(u32::MAX)).contains(&kbps) {
            return Err(format!("{kbps} is not between 0 and {} kbit/s", u32::MAX));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 2³² · 1000"
        )]
        let bps = (kbps * 1000.0).round().max(f64::from(u8::from(kbps > 0.0))) as u64;
        Ok(Self {
            kbps: rounded_kbps(bps),
            bps: (!bps.is_multiple_of(1000)).then_some(bps),
        })
    }
}

/// Returns the nearest rate in kbit/s. A rate above 0 never becomes 0.
pub fn rounded_kbps(bps: u64) -> u32 {
    let nearest = bps.saturating_add(500) / 1000;
    let nearest = u32::try_from(nearest).unwrap_or(u32::MAX);
    nearest.max(u32::from(bps > 0))
}

impl<'de> Deserialize<'de> for RateKbps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = RateKbps;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number in kbit/s")
            }

            fn visit_u64<E: Error>(self, kbps: u64) -> Result<RateKbps, E> {
                match u32::try_from(kbps) {
                    Ok(kbps) => Ok(RateKbps { kbps, bps: None }),
                    Err(_) => Err(E::custom(format!(
                        "{kbps} is not between 0 and {} kbit/s",
                        u32::MAX
                    ))),
                }
            }

            #[expect(
                clippy::cast_precision_loss,
                reason = "negative integers come here, all of which are refused"
            )]
            fn visit_i64<E: Error>(self, kbps: i64) -> Result<RateKbps, E> {
                self.visit_f64(kbps as f64)
            }

            fn visit_f64<E: Error>(self, kbps: f64) -> Result<RateKbps, E> {
                RateKbps::new(kbps).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// The fields of [`FlatNetem`] in JSON.
#[derive(Deserialize)]
pub(super) struct FlatKeys {
    loss: f64,
    correlation: Option<f64>,
    delay_ms: Option<f64>,
    delay_jitter_ms: Option<f64>,
    delay_correlation: Option<f64>,
    duplicate_percent: Option<f64>,
    duplicate_correlation: Option<f64>,
    reorder_percent: Option<f64>,
    reorder_correlation: Option<f64>,
    #[serde(default, deserialize_with = "optional_integer")]
    reorder_gap: Option<u32>,
    corrupt_percent: Option<f64>,
    corrupt_correlation: Option<f64>,
    rate_limit_kbps: Option<RateKbps>,
    distribution: Option<Distribution>,
    loss_model: Option<LossModel>,
    ecn: Option<bool>,
    rate_overhead: Option<RateOverhead>,
    #[serde(default, deserialize_with = "optional_integer")]
    rate_limit_bps: Option<u64>,
    queue: Option<QueueConfig>,
    slot: Option<SlotConfig>,
    #[serde(default, deserialize_with = "optional_integer")]
    seed: Option<u64>,
    #[serde(default, deserialize_with = "optional_integer")]
    limit: Option<u32>,
}

impl From<FlatKeys> for FlatNetem {
    fn from(keys: FlatKeys) -> Self {
        let fraction = keys.rate_limit_kbps.and_then(|rate| rate.bps);
        Self {
            loss: keys.loss,
            correlation: keys.correlation,
            delay_ms: keys.delay_ms,
            delay_jitter_ms: keys.delay_jitter_ms,
            delay_correlation: keys.delay_correlation,
            duplicate_percent: keys.duplicate_percent,
            duplicate_correlation: keys.duplicate_correlation,
            reorder_percent: keys.reorder_percent,
            reorder_correlation: keys.reorder_correlation,
            reorder_gap: keys.reorder_gap,
            corrupt_percent: keys.corrupt_percent,
            corrupt_correlation: keys.corrupt_correlation,
            rate_limit_kbps: keys.rate_limit_kbps.map(|rate| rate.kbps),
            extensions: NetemExtensions {
                distribution: keys.distribution,
                loss_model: keys.loss_model,
                ecn: keys.ecn,
                rate_overhead: keys.rate_overhead,
                rate_limit_bps: keys.rate_limit_bps.or(fraction),
                queue: keys.queue,
                slot: keys.slot,
                seed: keys.seed,
                limit: keys.limit,
            },
        }
    }
}

#[derive(Deserialize)]
struct RateLimitKeys {
    enabled: bool,
    rate_kbps: RateKbps,
}

/// The fields of [`TcNetemConfig`] in JSON.
#[derive(Deserialize)]
pub(super) struct ConfigKeys {
    loss: LossConfig,
    delay: DelayConfig,
    duplicate: DuplicateConfig,
    reorder: ReorderConfig,
    corrupt: CorruptConfig,
    rate_limit: RateLimitKeys,
    distribution: Option<Distribution>,
    loss_model: Option<LossModel>,
    ecn: Option<bool>,
    rate_overhead: Option<RateOverhead>,
    #[serde(default, deserialize_with = "optional_integer")]
    rate_limit_bps: Option<u64>,
    queue: Option<QueueConfig>,
    slot: Option<SlotConfig>,
    #[serde(default, deserialize_with = "optional_integer")]
    seed: Option<u64>,
    #[serde(default, deserialize_with = "optional_integer")]
    limit: Option<u32>,
}

impl From<ConfigKeys> for TcNetemConfig {
    fn from(keys: ConfigKeys) -> Self {
        Self {
            loss: keys.loss,
            delay: keys.delay,
            duplicate: keys.duplicate,
            reorder: keys.reorder,
            corrupt: keys.corrupt,
            rate_limit: RateLimitConfig {
                enabled: keys.rate_limit.enabled,
                rate_kbps: keys.rate_limit.rate_kbps.kbps,
            },
            extensions: NetemExtensions {
                distribution: keys.distribution,
                loss_model: keys.loss_model,
                ecn: keys.ecn,
                rate_overhead: keys.rate_overhead,
                rate_limit_bps: keys.rate_limit_bps.or(keys.rate_limit.rate_kbps.bps),
                queue: keys.queue,
                slot: keys.slot,
                seed: keys.seed,
                limit: keys.limit,
            },
        }
    }
}

impl<'de> Deserialize<'de> for ReorderConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "ReorderConfig")]
        struct Keys {
            enabled: bool,
            percentage: f64,
            correlation: f64,
            #[serde(deserialize_with = "integer")]
            gap: u32,
        }
        let keys = Keys::deserialize(deserializer)?;
        Ok(Self {
            enabled: keys.enabled,
            percentage: keys.percentage,
            correlation: keys.correlation,
            gap: keys.gap,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_fractional_rate_is_published_rounded_and_exactly() {
        let flat: FlatNetem =
            serde_json::from_value(json!({"loss": 0.0, "rate_limit_kbps": 100.5})).unwrap();
        assert_eq!(flat.rate_limit_kbps, Some(101));
        assert_eq!(flat.extensions.rate_limit_bps, Some(100_500));
        let written = serde_json::to_value(flat).unwrap();
        assert_eq!(written["rate_limit_kbps"], json!(101));
        assert_eq!(written["rate_limit_bps"], json!(100_500));
        let whole: FlatNetem =
            serde_json::from_value(json!({"loss": 0, "rate_limit_kbps": 100.0})).unwrap();
        assert_eq!(
            (whole.rate_limit_kbps, whole.extensions.rate_limit_bps),
            (Some(100), None)
        );
        let mut config = serde_json::to_value(TcNetemConfig::default()).unwrap();
        config["rate_limit"] = json!({"enabled": true, "rate_kbps": 0.4});
        let config: TcNetemConfig = serde_json::from_value(config).unwrap();
        assert_eq!(config.rate_limit.rate_kbps, 1);
        assert_eq!(config.extensions.rate_limit_bps, Some(400));
    }

    #[test]
    fn the_error_for_a_number_says_which_numbers_are_allowed() {
        let flat = |field: &str, value: Value| {
            let text = json!({"loss": 0.0, field: value}).to_string();
            serde_json::from_str::<FlatNetem>(&text)
                .unwrap_err()
                .to_string()
        };
        for (field, value, expected) in [
            (
                "reorder_gap",
                json!(2.5),
                "`2.5`, expected an integer from 0 to 4294967295",
            ),
            ("reorder_gap", json!(-1), "`-1`, expected an integer from 0"),
            (
                "reorder_gap",
                json!("3"),
                "\"3\", expected an integer from 0",
            ),
            (
                "limit",
                json!(1_u64 << 32),
                "`4294967296`, expected an integer from 0",
            ),
            (
                "seed",
                json!(0.5),
                "expected an integer from 0 to 18446744073709551615",
            ),
            (
                "rate_limit_kbps",
                json!(-5),
                "-5 is not between 0 and 4294967295 kbit/s",
            ),
            (
                "rate_limit_kbps",
                json!(1_u64 << 32),
                "4294967296 is not between 0 and",
            ),
            (
                "rate_limit_kbps",
                json!("1mbit"),
                "\"1mbit\", expected a number in kbit/s",
            ),
        ] {
            let error = flat(field, value.clone());
            assert!(error.contains(expected), "{field} {value}: {error}");
        }
    }

    #[test]
    fn rates_are_rounded_but_never_to_nothing() {
        for (bps, kbps) in [
            (0, 0),
            (1, 1),
            (499, 1),
            (1499, 1),
            (1500, 2),
            (u64::MAX, u32::MAX),
        ] {
            assert_eq!(rounded_kbps(bps), kbps, "{bps}");
        }
    }
}
