//! The features of a preset or of a step: what is there is on.

use serde::Deserialize;
use tcgui_shared::netem::{
    DEFAULT_GAP, DEFAULT_RATE_KBPS, DelayConfig, Distribution, LossModel, NetemExtensions,
    PercentageConfig, RateLimitConfig, RateOverhead, ReorderConfig, SlotConfig, TcNetemConfig,
};

use super::limits::{Flaw, Problem};
use super::rate;
use crate::document::JsonPath;

/// The keys of `tc_config`; those after `rate_limit` are of this version.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Features {
    pub(super) loss: Option<Percentage>,
    pub(super) delay: Option<Delay>,
    pub(super) duplicate: Option<Percentage>,
    pub(super) reorder: Option<Reorder>,
    pub(super) corrupt: Option<Percentage>,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) distribution: Option<Distribution>,
    pub(super) loss_model: Option<LossModelKeys>,
    pub(super) ecn: Option<bool>,
    pub(super) rate_overhead: Option<RateOverheadKeys>,
    pub(super) slot: Option<SlotKeys>,
    pub(super) seed: Option<u64>,
    pub(super) limit: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub(super) struct Percentage {
    percentage: f64,
    correlation: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Delay {
    base_ms: f64,
    jitter_ms: f64,
    correlation: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Reorder {
    percentage: f64,
    correlation: f64,
    gap: Option<u32>,
}

/// The text wins when both are given.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RateLimit {
    rate: Option<String>,
    rate_kbps: Option<u32>,
}

/// As [`LossModel`], which takes keys that it does not know.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum LossModelKeys {
    GilbertElliott {
        p: f64,
        r: f64,
        #[serde(default = "always")]
        bad_loss: f64,
        #[serde(default)]
        good_loss: f64,
    },
    FourState {
        p13: f64,
        p31: f64,
        #[serde(default)]
        p32: f64,
        #[serde(default = "always")]
        p23: f64,
        #[serde(default)]
        p14: f64,
    },
}

fn always() -> f64 {
    100.0
}

/// As [`RateOverhead`], which takes keys that it does not know.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RateOverheadKeys {
    packet: i32,
    cell_size: u32,
    cell: i32,
}

/// As [`SlotConfig`], which takes keys that it does not know.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SlotKeys {
    min_ms: Option<f64>,
    max_ms: Option<f64>,
    distribution: Option<Distribution>,
    delay_ms: Option<f64>,
    jitter_ms: Option<f64>,
    packets: Option<u32>,
    bytes: Option<u32>,
}

impl Features {
    /// Returns the configuration in which exactly the given features are on.
    pub(crate) fn into_config(self) -> Result<TcNetemConfig, Flaw> {
        let rate_limit = self.rate_limit.map(rate_limit).transpose()?;
        Ok(TcNetemConfig {
            loss: self.loss.map(percentage).unwrap_or_default(),
            delay: self.delay.map(delay).unwrap_or_default(),
            duplicate: self.duplicate.map(percentage).unwrap_or_default(),
            reorder: self.reorder.map(reorder).unwrap_or_default(),
            corrupt: self.corrupt.map(percentage).unwrap_or_default(),
            rate_limit: rate_limit.unwrap_or_default(),
            extensions: NetemExtensions {
                distribution: self.distribution,
                loss_model: self.loss_model.map(loss_model),
                ecn: self.ecn,
                rate_overhead: self.rate_overhead.map(|keys| RateOverhead {
                    packet: keys.packet,
                    cell_size: keys.cell_size,
                    cell: keys.cell,
                }),
                slot: self.slot.map(slot),
                seed: self.seed,
                limit: self.limit,
            },
        })
    }
}

fn percentage(keys: Percentage) -> PercentageConfig {
    PercentageConfig {
        enabled: true,
        percentage: keys.percentage,
        correlation: keys.correlation,
    }
}

fn delay(keys: Delay) -> DelayConfig {
    DelayConfig {
        enabled: true,
        base_ms: keys.base_ms,
        jitter_ms: keys.jitter_ms,
        correlation: keys.correlation,
    }
}

fn reorder(keys: Reorder) -> ReorderConfig {
    ReorderConfig {
        enabled: true,
        percentage: keys.percentage,
        correlation: keys.correlation,
        gap: keys.gap.unwrap_or(DEFAULT_GAP),
    }
}

fn rate_limit(keys: RateLimit) -> Result<RateLimitConfig, Flaw> {
    let rate_kbps = match keys.rate {
        Some(text) => rate::kbps(&text).map_err(|err| Flaw {
            place: JsonPath::member("rate_limit").then("rate"),
            problem: Problem::Rate(err),
        })?,
        None => keys.rate_kbps.unwrap_or(DEFAULT_RATE_KBPS),
    };
    Ok(RateLimitConfig {
        enabled: true,
        rate_kbps,
    })
}

fn loss_model(keys: LossModelKeys) -> LossModel {
    match keys {
        LossModelKeys::GilbertElliott {
            p,
            r,
            bad_loss,
            good_loss,
        } => LossModel::GilbertElliott {
            p,
            r,
            bad_loss,
            good_loss,
        },
        LossModelKeys::FourState {
            p13,
            p31,
            p32,
            p23,
            p14,
        } => LossModel::FourState {
            p13,
            p31,
            p32,
            p23,
            p14,
        },
    }
}

fn slot(keys: SlotKeys) -> SlotConfig {
    SlotConfig {
        min_ms: keys.min_ms,
        max_ms: keys.max_ms,
        distribution: keys.distribution,
        delay_ms: keys.delay_ms,
        jitter_ms: keys.jitter_ms,
        packets: keys.packets,
        bytes: keys.bytes,
    }
}
