//! Converts a request to a netem: checks its values, applies the rules of the protocol, and calculates the length of
//! the queue.

mod extensions;
mod fields;
mod limit;

use tcgui_shared::netem::{
    DelayConfig, Distribution as WireDistribution, FlatNetem, NetemExtensions, PercentageConfig,
    QueueConfig, RateLimitConfig, ReorderConfig, TcNetemConfig, rounded_kbps,
};
use tcgui_shared::tc::TcOperation;

use super::note::Note;
use crate::kernel::netem::{Distribution, Loss, MAX_JITTER_NS, Netem, Random, Rate};
use extensions::{queue_length, rate_overhead};
use fields::{FLAT, Fields, STRUCTURED, at_least, integer, number, percentage};

pub use extensions::share_of_model;
pub use fields::{TcInputError, Unit};
pub use limit::{LinkFacts, fitted};

/// A link for checks of a configuration that do not depend on the link.
pub const ANY_LINK: LinkFacts = LinkFacts {
    mtu: 1500,
    speed: None,
    bottleneck: true,
};

/// The largest delay, in ms.
const MAX_DELAY_MS: f64 = 10_000.0;
/// The largest jitter that is accepted, in ms. The kernel's maximum is smaller: see [`MAX_JITTER_NS`].
const MAX_JITTER_MS: f64 = 5_000.0;
/// The largest gap. Released frontends offer up to 10. A much larger gap reorders hardly any packets.
const MAX_GAP: u32 = 1_000_000;
/// The delay that is added to reordering without a delay. Otherwise packets have nothing to overtake.
const ADDED_DELAY_NS: u64 = 1_000_000;
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
