//! Converts a request to a netem: checks its values, applies the rules of the protocol, and calculates the length of
//! the queue.

mod fields;
mod limit;

use tcgui_shared::netem::{
    DelayConfig, Distribution as WireDistribution, FlatNetem, LossModel, NetemExtensions,
    PercentageConfig, QueueConfig, RateLimitConfig, RateOverhead, ReorderConfig, SlotConfig,
    TcNetemConfig, rounded_kbps,
};
use tcgui_shared::tc::TcOperation;

use super::note::Note;
use crate::kernel::netem::{
    Distribution, Loss, MAX_JITTER_NS, Netem, Probability, Random, Rate, Slot,
};
use fields::{FLAT, Fields, STRUCTURED, at_least, integer, number, percentage};
use limit::QueueLength;

pub use fields::{TcInputError, Unit};
pub use limit::{LinkFacts, fitted};

/// A link for checks of a configuration that do not depend on the link.
pub const ANY_LINK: LinkFacts = LinkFacts {
    mtu: 1500,
    speed: None,
    bottleneck: true,
};

/// The longest queue, in ms.
const MAX_QUEUE_MS: f64 = 60_000.0;
/// The largest delay, in ms.
const MAX_DELAY_MS: f64 = 10_000.0;
/// The largest jitter that is accepted, in ms. The kernel's maximum is smaller: see [`MAX_JITTER_NS`].
const MAX_JITTER_MS: f64 = 5_000.0;
/// The largest gap. Released frontends offer up to 10. A much larger gap reorders hardly any packets.
const MAX_GAP: u32 = 1_000_000;
/// The delay that is added to reordering without a delay. Otherwise packets have nothing to overtake.
const ADDED_DELAY_NS: u64 = 1_000_000;
/// The largest difference between the random loss beside a loss model and the share that the model loses, in percentage
/// points.
const LOSS_TOLERANCE: f64 = 0.01;
/// The wire has the rate in kbit/s of 1000 bit, the kernel in bytes per second.
const BYTES_PER_S: u64 = 125;

/// The desired root of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The netem. `None`: the kernel's default qdisc.
    pub netem: Option<Netem>,
    /// The differences between the netem and the request.
    pub notes: Vec<Note>,
}

impl Desired {
    /// Returns the netem that an operation requests on a link with these properties.
    ///
    /// If no number of a configuration is above zero, the result has no netem. There is one exception: a structured
    /// configuration with a `limit` requests a netem that only queues.
    ///
    /// # Errors
    /// A value is not a number or is out of range, or two fields contradict each other.
    pub fn from_operation(operation: &TcOperation, link: LinkFacts) -> Result<Self, TcInputError> {
        match operation {
            TcOperation::Apply(flat) => Self::from_flat(flat, link),
            TcOperation::ApplyConfig { config } => Self::from_config(config, link),
            TcOperation::Remove => Ok(Self {
                netem: None,
                notes: Vec::new(),
            }),
            TcOperation::Confirm | TcOperation::Renew => Err(TcInputError::Missing {
                field: "configuration",
            }),
        }
    }

    /// Returns the netem that a structured configuration requests.
    ///
    /// # Errors
    /// See [`Self::from_operation`].
    pub fn from_config(config: &TcNetemConfig, link: LinkFacts) -> Result<Self, TcInputError> {
        let built = Builder::new(&STRUCTURED).build(config, link)?;
        let queues = config.extensions.limit.is_some();
        Ok(built.if_any(|netem| netem.impairs() || queues))
    }

    /// Returns the netem that a flat configuration requests.
    ///
    /// # Errors
    /// See [`Self::from_operation`].
    pub fn from_flat(flat: &FlatNetem, link: LinkFacts) -> Result<Self, TcInputError> {
        let config = structured(flat);
        let built = Builder::new(&FLAT).build(&config, link)?;
        Ok(built.if_any(Netem::impairs))
    }

    /// Removes the netem if it is not wanted. The notes stay.
    fn if_any(self, is_wanted: impl Fn(&Netem) -> bool) -> Self {
        Self {
            netem: self.netem.filter(is_wanted),
            ..self
        }
    }
}

/// Returns whether an operation requests a rate limit.
pub fn has_rate(operation: &TcOperation) -> bool {
    match operation {
        TcOperation::Apply(flat) => structured(flat).rate_limit.enabled,
        TcOperation::ApplyConfig { config } => config.rate_limit.enabled,
        TcOperation::Remove | TcOperation::Confirm | TcOperation::Renew => false,
    }
}

/// Converts a flat configuration to the structured form. A feature is switched on if its number is above zero.
pub fn structured(flat: &FlatNetem) -> TcNetemConfig {
    let percentage = |percentage: Option<f64>, correlation: Option<f64>| PercentageConfig {
        enabled: percentage.is_some_and(|percentage| percentage > 0.0),
        percentage: percentage.unwrap_or_default(),
        correlation: correlation.unwrap_or_default(),
    };
    let delay_ms = flat.delay_ms.unwrap_or_default();
    let reorder = percentage(flat.reorder_percent, flat.reorder_correlation);
    let default_rate = RateLimitConfig::default();
    let exact_rate = flat.extensions.rate_limit_bps;
    let rate_kbps = flat.rate_limit_kbps.or(exact_rate.map(rounded_kbps));
    TcNetemConfig {
        loss: percentage(Some(flat.loss), flat.correlation),
        delay: DelayConfig {
            enabled: delay_ms > 0.0,
            base_ms: delay_ms,
            jitter_ms: flat.delay_jitter_ms.unwrap_or_default(),
            correlation: flat.delay_correlation.unwrap_or_default(),
        },
        duplicate: percentage(flat.duplicate_percent, flat.duplicate_correlation),
        reorder: ReorderConfig {
            enabled: reorder.enabled,
            percentage: reorder.percentage,
            correlation: reorder.correlation,
            gap: flat.reorder_gap.unwrap_or(ReorderConfig::default().gap),
        },
        corrupt: percentage(flat.corrupt_percent, flat.corrupt_correlation),
        rate_limit: RateLimitConfig {
            enabled: rate_kbps.is_some_and(|rate| rate > 0),
            rate_kbps: rate_kbps.unwrap_or(default_rate.rate_kbps),
        },
        extensions: flat.extensions,
    }
}

/// Fills a netem feature by feature. A feature is on if it is switched on and its number is above zero. Values of
/// features that are off are also checked, except the gap: released frontends may send any value for it.
struct Builder {
    fields: &'static Fields,
    netem: Netem,
    notes: Vec<Note>,
}

impl Builder {
    fn new(fields: &'static Fields) -> Self {
        Self {
            fields,
            netem: Netem::default(),
            notes: Vec::new(),
        }
    }

    fn build(mut self, config: &TcNetemConfig, link: LinkFacts) -> Result<Desired, TcInputError> {
        let fields = self.fields;
        let extensions = &config.extensions;
        let loss = random(fields.loss, fields.loss_correlation, &config.loss)?;
        self.netem.loss = Loss::Random(loss);
        self.delay(&config.delay, extensions.distribution)?;
        self.netem.duplicate = random(
            fields.duplicate,
            fields.duplicate_correlation,
            &config.duplicate,
        )?;
        self.reorder(&config.reorder)?;
        self.netem.corrupt = random(fields.corrupt, fields.corrupt_correlation, &config.corrupt)?;
        self.rate(config.rate_limit, extensions)?;
        self.extensions(extensions, loss)?;
        self.bottleneck(link, extensions.queue)?;
        if self.netem.reorders() && self.netem.latency_ns == 0 {
            self.netem.latency_ns = ADDED_DELAY_NS;
            self.notes.push(Note::DelayAdded);
        }
        self.netem.limit = match extensions.limit {
            Some(limit) => at_least("limit", limit, 1)?,
            None => link.limit(&self.netem),
        };
        self.notes.extend(Note::of_netem(&self.netem));
        Ok(Desired {
            netem: Some(self.netem),
            notes: self.notes,
        })
    }

    fn delay(
        &mut self,
        delay: &DelayConfig,
        distribution: Option<WireDistribution>,
    ) -> Result<(), TcInputError> {
        let fields = self.fields;
        let base = nanoseconds(fields.delay, delay.base_ms, MAX_DELAY_MS)?;
        let jitter = nanoseconds(fields.jitter, delay.jitter_ms, MAX_JITTER_MS)?;
        let correlation = percentage(fields.delay_correlation, delay.correlation)?;
        let on = delay.enabled && base > 0;
        if on {
            self.netem.latency_ns = base;
            self.netem.jitter_ns = self.capped(jitter);
        } else if delay.enabled && jitter > 0 {
            self.no_effect(fields.jitter, "a delay");
        }
        if on && jitter > 0 {
            self.netem.delay_correlation = correlation;
            self.netem.distribution = distribution.map(from_wire);
        } else if distribution.is_some() {
            self.no_effect("distribution", "a delay with jitter");
        }
        Ok(())
    }

    fn reorder(&mut self, reorder: &ReorderConfig) -> Result<(), TcInputError> {
        let fields = self.fields;
        let drawn = PercentageConfig {
            enabled: reorder.enabled,
            percentage: reorder.percentage,
            correlation: reorder.correlation,
        };
        let drawn = random(fields.reorder, fields.reorder_correlation, &drawn)?;
        if !drawn.probability.is_zero() {
            self.netem.gap = integer(fields.gap, reorder.gap, 1, MAX_GAP.into())?;
            self.netem.reorder = drawn;
        }
        Ok(())
    }

    fn rate(
        &mut self,
        limit: RateLimitConfig,
        extensions: &NetemExtensions,
    ) -> Result<(), TcInputError> {
        let overhead = extensions.rate_overhead.map(rate_overhead).transpose()?;
        let exact = extensions.rate_limit_bps.filter(|bps| *bps > 0);
        if limit.enabled && limit.rate_kbps > 0 {
            if exact.is_some_and(|bps| rounded_kbps(bps) != limit.rate_kbps) {
                return Err(TcInputError::Excluded {
                    field: "rate_limit_bps",
                    other: self.fields.rate,
                });
            }
            self.netem.rate = Rate {
                bytes_per_s: match exact {
                    Some(bps) => (bps.saturating_add(4) / 8).max(1),
                    None => u64::from(limit.rate_kbps) * BYTES_PER_S,
                },
                ..overhead.unwrap_or_default()
            };
            return Ok(());
        }
        if overhead.is_some() {
            self.no_effect("rate_overhead", "a rate limit");
        }
        if exact.is_some() {
            self.no_effect("rate_limit_bps", "a rate limit");
        }
        Ok(())
    }

    /// Moves the rate to a bottleneck below the netem. Packets then wait in the bottleneck and are dropped there, and a
    /// change of the rate also applies to waiting packets. A bottleneck cannot count cells, so a rate with an overhead
    /// stays in the netem.
    fn bottleneck(
        &mut self,
        link: LinkFacts,
        queue: Option<QueueConfig>,
    ) -> Result<(), TcInputError> {
        let queue = queue.map(queue_length).transpose()?;
        let rate = self.netem.rate;
        let plain = Rate {
            bytes_per_s: rate.bytes_per_s,
            ..Rate::default()
        };
        if rate.bytes_per_s == 0 || rate != plain {
            if queue.is_some() {
                self.no_effect("queue", "a rate limit without rate_overhead");
            }
            return Ok(());
        }
        let bottleneck = link.bottleneck(rate.bytes_per_s, queue);
        if !link.bottleneck || !bottleneck.can_be_read_back() {
            self.notes.push(Note::NoBottleneck);
            return Ok(());
        }
        self.netem.bottleneck = Some(bottleneck);
        // Jitter alone must not reorder packets. The same is true for a rate of netem itself.
        let keeps_order = self.netem.jitter_ns > 0 && !self.netem.reorders();
        self.netem.rate = if keeps_order {
            Rate::ORDER
        } else {
            Rate::default()
        };
        Ok(())
    }

    /// Sets the features that released frontends do not know.
    fn extensions(
        &mut self,
        extensions: &NetemExtensions,
        loss: Random,
    ) -> Result<(), TcInputError> {
        if let Some(model) = &extensions.loss_model {
            let model = loss_model(model)?;
            if !loss.probability.is_zero() && !is_share_of(loss.probability, model) {
                return Err(TcInputError::Excluded {
                    field: "loss_model",
                    other: self.fields.loss,
                });
            }
            self.netem.loss = model;
        }
        if let Some(slot) = &extensions.slot {
            self.netem.slot = Some(self.slot(slot)?);
        }
        if extensions.ecn == Some(true) {
            self.netem.ecn = self.netem.loses();
            if !self.netem.ecn {
                self.no_effect("ecn", "loss");
            }
        }
        self.netem.seed = extensions.seed;
        Ok(())
    }

    fn slot(&mut self, slot: &SlotConfig) -> Result<Slot, TcInputError> {
        let time =
            |field, ms: Option<f64>| nanoseconds(field, ms.unwrap_or_default(), MAX_DELAY_MS);
        let min_ns = time("slot.min_ms", slot.min_ms)?;
        let max_ns = time("slot.max_ms", slot.max_ms)?;
        let delay_ns = time("slot.delay_ms", slot.delay_ms)?;
        let jitter_ms = slot.jitter_ms.unwrap_or_default();
        let jitter_ns = nanoseconds("slot.jitter_ms", jitter_ms, MAX_JITTER_MS)?;
        // The kernel has both counts as signed numbers.
        let count = |field, count: Option<u32>| match count {
            Some(count) => integer(field, count, 1, i32::MAX.into()),
            None => Ok(0),
        };
        let unspaced = Slot {
            max_packets: count("slot.packets", slot.packets)?,
            max_bytes: count("slot.bytes", slot.bytes)?,
            ..Slot::default()
        };
        if let Some(distribution) = slot.distribution {
            if min_ns > 0 || max_ns > 0 {
                return Err(TcInputError::Excluded {
                    field: "slot.distribution",
                    other: "slot.min_ms and slot.max_ms",
                });
            }
            if jitter_ns == 0 {
                return Err(TcInputError::Missing {
                    field: "slot.jitter_ms",
                });
            }
            return Ok(Slot {
                delay_ns,
                jitter_ns: self.capped(jitter_ns),
                distribution: Some(from_wire(distribution)),
                ..unspaced
            });
        }
        if delay_ns > 0 || jitter_ns > 0 {
            return Err(TcInputError::Missing {
                field: "slot.distribution",
            });
        }
        if min_ns == 0 && max_ns == 0 {
            return Err(TcInputError::Missing {
                field: "slot.min_ms",
            });
        }
        Ok(Slot {
            min_ns,
            max_ns: max_ns.max(min_ns),
            ..unspaced
        })
    }

    fn capped(&mut self, jitter_ns: u64) -> u64 {
        if jitter_ns > MAX_JITTER_NS {
            self.notes.push(Note::JitterCapped);
        }
        jitter_ns.min(MAX_JITTER_NS)
    }

    fn no_effect(&mut self, field: &'static str, needs: &'static str) {
        self.notes.push(Note::NoEffect { field, needs });
    }
}

/// Returns the share of packets that a loss model loses, in percent. `None`: its probabilities are out of range or
/// contradict each other.
pub fn share_of_model(model: &LossModel) -> Option<f64> {
    let share = loss_model(model).ok()?.share()?;
    Some(share.percent())
}

/// Returns whether the random loss is the share that the model loses. Frontends that do not know models get this share
/// as `loss`, and send it back.
fn is_share_of(loss: Probability, model: Loss) -> bool {
    let difference = |share: Probability| (share.percent() - loss.percent()).abs();
    model
        .share()
        .is_some_and(|share| difference(share) <= LOSS_TOLERANCE)
}

/// Returns the probability and correlation of a feature, or zeros if the feature is off.
fn random(
    field: &'static str,
    correlation: &'static str,
    config: &PercentageConfig,
) -> Result<Random, TcInputError> {
    let random = Random {
        probability: percentage(field, config.percentage)?,
        correlation: percentage(correlation, config.correlation)?,
    };
    if config.enabled && !random.probability.is_zero() {
        Ok(random)
    } else {
        Ok(Random::default())
    }
}

fn loss_model(model: &LossModel) -> Result<Loss, TcInputError> {
    Ok(match *model {
        LossModel::GilbertElliott {
            p,
            r,
            bad_loss,
            good_loss,
        } => Loss::GilbertElliott {
            p: percentage("loss_model.p", p)?,
            r: percentage("loss_model.r", r)?,
            h: percentage("loss_model.bad_loss", bad_loss)?.contrary(),
            k1: percentage("loss_model.good_loss", good_loss)?,
        },
        LossModel::FourState {
            p13,
            p31,
            p32,
            p23,
            p14,
        } => Loss::FourState {
            p13: percentage("loss_model.p13", p13)?,
            p31: percentage("loss_model.p31", p31)?,
            p32: percentage("loss_model.p32", p32)?,
            p14: percentage("loss_model.p14", p14)?,
            p23: percentage("loss_model.p23", p23)?,
        },
    })
}

/// Checks the overhead. The kernel adds it to the length of a packet and does not check whether the result is negative
/// (`packet_time_ns`). So at most 20 bytes are subtracted: the length of the shortest packet, an IP header.
fn rate_overhead(overhead: RateOverhead) -> Result<Rate, TcInputError> {
    const SHORTEST: i64 = 20;
    const LONGEST: i64 = u16::MAX as i64;
    let RateOverhead {
        packet,
        cell_size,
        cell,
    } = overhead;
    Ok(Rate {
        bytes_per_s: 0,
        packet_overhead: integer("rate_overhead.packet", packet, -SHORTEST, LONGEST)?,
        cell_size: integer("rate_overhead.cell_size", cell_size, 0, LONGEST)?,
        cell_overhead: integer("rate_overhead.cell", cell, 0, LONGEST)?,
    })
}

/// `bytes` takes precedence over `ms`, because the published `ms` is rounded.
fn queue_length(queue: QueueConfig) -> Result<QueueLength, TcInputError> {
    match (queue.bytes, queue.ms) {
        (Some(bytes), _) => at_least("queue.bytes", bytes, 1).map(QueueLength::Bytes),
        (None, Some(ms)) => nanoseconds("queue.ms", ms, MAX_QUEUE_MS).map(QueueLength::Time),
        (None, None) => Err(TcInputError::Missing { field: "queue.ms" }),
    }
}

/// Returns a time in whole nanoseconds.
fn nanoseconds(field: &'static str, ms: f64, max: f64) -> Result<u64, TcInputError> {
    let ms = number(field, ms, max, "ms")?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and sixty thousand ms"
    )]
    let ns = (ms * 1e6).round() as u64;
    Ok(ns)
}

fn from_wire(distribution: WireDistribution) -> Distribution {
    match distribution {
        WireDistribution::Normal => Distribution::Normal,
        WireDistribution::Pareto => Distribution::Pareto,
        WireDistribution::ParetoNormal => Distribution::ParetoNormal,
    }
}
