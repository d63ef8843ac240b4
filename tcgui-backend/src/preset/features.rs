//! The features of a preset or of a step. A feature is on if it is present and its number is above zero.

mod numbers;

use serde::Deserialize;
use tcgui_shared::netem::{
    DEFAULT_GAP, DEFAULT_RATE_KBPS, DelayConfig, Distribution, LossModel, NetemExtensions,
    PercentageConfig, QueueConfig, RateLimitConfig, RateOverhead, ReorderConfig, SlotConfig,
    TcNetemConfig, rounded_kbps,
};

use super::limits::{Flaw, Problem};
use super::rate;
use crate::document::JsonPath;
use crate::tc::desired::share_of_model;
use numbers::{FileKbps, RateText};

/// The keys of `tc_config`. Released backends do not know the keys after `rate_limit`.
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
    pub(super) queue: Option<QueueKeys>,
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

/// The keys of `rate_limit`. `rate` takes precedence over `rate_kbps`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RateLimit {
    rate: Option<RateText>,
    rate_kbps: Option<FileKbps>,
}

/// The same as [`LossModel`], but refuses unknown keys.
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

/// The same as [`RateOverhead`], but refuses unknown keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RateOverheadKeys {
    packet: i32,
    cell_size: u32,
    cell: i32,
}

/// The same as [`SlotConfig`], but refuses unknown keys.
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

/// The same as [`QueueConfig`], but refuses unknown keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct QueueKeys {
    ms: Option<f64>,
    bytes: Option<u32>,
}

impl Features {
    /// Returns the configuration in which exactly the given features are on, and a warning if a unit is ambiguous.
    ///
    /// With a loss model and without random loss, `loss` becomes the share that the model loses. Frontends that do not
    /// know models use it.
    pub(crate) fn into_config(self) -> Result<(TcNetemConfig, Option<Flaw>), Flaw> {
        let rate = self.rate_limit.map(rate_limit).transpose()?;
        let (rate_limit, rate_limit_bps, doubt) = rate.unwrap_or_default();
        let loss_model = self.loss_model.map(loss_model);
        let mean = || PercentageConfig {
            enabled: true,
            percentage: loss_model
                .as_ref()
                .and_then(share_of_model)
                .unwrap_or_default(),
            correlation: 0.0,
        };
        let loss = match (self.loss, &loss_model) {
            (None, Some(_)) => mean(),
            (loss, _) => loss.map(percentage).unwrap_or_default(),
        };
        let config = TcNetemConfig {
            loss,
            delay: self.delay.map(delay).unwrap_or_default(),
            duplicate: self.duplicate.map(percentage).unwrap_or_default(),
            reorder: self.reorder.map(reorder).unwrap_or_default(),
            corrupt: self.corrupt.map(percentage).unwrap_or_default(),
            rate_limit,
            extensions: NetemExtensions {
                distribution: self.distribution,
                loss_model,
                ecn: self.ecn,
                rate_overhead: self.rate_overhead.map(|keys| RateOverhead {
                    packet: keys.packet,
                    cell_size: keys.cell_size,
                    cell: keys.cell,
                }),
                rate_limit_bps,
                queue: self.queue.map(|keys| QueueConfig {
                    ms: keys.ms,
                    bytes: keys.bytes,
                }),
                slot: self.slot.map(slot),
                seed: self.seed,
                limit: self.limit,
            },
        };
        Ok((config, doubt))
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

/// The limit in kbit/s, the exact rate in bit/s if it is not a whole number of kbit/s, and a warning if the unit is
/// ambiguous.
type Rate = (RateLimitConfig, Option<u64>, Option<Flaw>);

fn rate_limit(keys: RateLimit) -> Result<Rate, Flaw> {
    let place = || JsonPath::member("rate_limit").then("rate");
    let limit = |rate_kbps| RateLimitConfig {
        enabled: true,
        rate_kbps,
    };
    let Some(RateText(text)) = keys.rate else {
        let (kbps, bps) = match keys.rate_kbps {
            Some(FileKbps(rate)) => (rate.kbps, rate.bps),
            None => (DEFAULT_RATE_KBPS, None),
        };
        return Ok((limit(kbps), bps, None));
    };
    let rate = rate::parse(&text).map_err(|err| Flaw {
        place: place(),
        problem: Problem::Rate(err),
    })?;
    let exact = (!rate.bps.is_multiple_of(1000)).then_some(rate.bps);
    let doubt = rate.is_ambiguous.map(|unit| Flaw {
        place: place(),
        problem: Problem::AmbiguousUnit(unit),
    });
    Ok((limit(rounded_kbps(rate.bps)), exact, doubt))
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
