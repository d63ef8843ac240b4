//! What a reply says beside success: where the kernel got something else than the words of the request.

use std::fmt;

use crate::kernel::netem::{Loss, Netem, Probability, Random};

/// A hint for the client that asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Packets cannot overtake where none is held.
    DelayAdded,
    /// The jitter is the kernel's largest.
    JitterCapped,
    /// A value was left out because it does nothing on its own.
    NoEffect {
        /// The value.
        field: &'static str,
        /// What it would need.
        needs: &'static str,
    },
    /// Because of a correlation, the kernel hits another share of the packets.
    OtherShare {
        /// The feature, for instance `loss`.
        feature: &'static str,
        /// What was asked for.
        asked: Random,
        /// The share that the kernel hits.
        share: Probability,
    },
    /// A correlation of 100 %: the first random number decides for all packets.
    AllOrNone {
        /// The feature, for instance `loss`.
        feature: &'static str,
        /// The probability that it hits all packets.
        probability: Probability,
    },
    /// A correlation of the delay is set, but the kernel does not use it.
    DelayCorrelation,
    /// The rate is that of the netem, not of a bottleneck below it.
    OwnRate {
        /// The limit of the netem, in packets.
        limit: u32,
    },
    /// A bottleneck was wanted, but the kernel cannot have one.
    NoBottleneck,
    /// Packets waited while the netem was changed. The kernel has fixed already when they leave.
    LeaveAsBefore {
        /// How many.
        packets: u32,
    },
    /// Packets waited in the netem that was removed or replaced.
    Dropped {
        /// How many.
        packets: u32,
    },
    /// The kernel is older than seeds.
    SeedUnknown,
    /// Nothing was removed: the root qdisc is no netem.
    LeftAlone {
        /// The root qdisc, by kind and handle.
        qdisc: String,
    },
}

impl Note {
    /// Returns what a netem does otherwise than its numbers seem to say.
    pub fn of_netem(netem: &Netem) -> Vec<Self> {
        let loss = match netem.loss {
            Loss::Random(random) => random,
            Loss::FourState { .. } | Loss::GilbertElliott { .. } => Random::default(),
        };
        let shares = [
            ("loss", loss),
            ("duplication", netem.duplicate),
            ("corruption", netem.corrupt),
        ];
        let shares = shares
            .into_iter()
            .filter_map(|(feature, asked)| Self::of_share(feature, asked));
        let delay = has_useless_correlation(netem).then_some(Self::DelayCorrelation);
        let limit = netem.limit;
        let is_own = netem.bottleneck.is_none() && netem.rate_in_force() > 0;
        let rate = is_own.then_some(Self::OwnRate { limit });
        shares.chain(delay).chain(rate).collect()
    }

    /// Returns the field of a structured configuration that it is about.
    pub fn field(&self) -> &'static str {
        match self {
            Self::DelayAdded => "reorder",
            Self::JitterCapped => "delay.jitter_ms",
            Self::NoEffect { field, .. } => field,
            Self::OtherShare { feature, .. } | Self::AllOrNone { feature, .. } => match *feature {
                "duplication" => "duplicate.correlation",
                "corruption" => "corrupt.correlation",
                _ => "loss.correlation",
            },
            Self::DelayCorrelation => "delay.correlation",
            Self::OwnRate { .. } | Self::NoBottleneck => "rate_limit",
            Self::LeaveAsBefore { .. } | Self::Dropped { .. } | Self::LeftAlone { .. } => "",
            Self::SeedUnknown => "seed",
        }
    }

    fn of_share(feature: &'static str, asked: Random) -> Option<Self> {
        let Random {
            probability,
            correlation,
        } = asked;
        let is_certain = probability.is_zero() || probability == Probability::ONE;
        if correlation.is_zero() || is_certain {
            return None;
        }
        Some(if correlation == Probability::ONE {
            Self::AllOrNone {
                feature,
                probability,
            }
        } else {
            Self::OtherShare {
                feature,
                asked,
                share: asked.share(),
            }
        })
    }
}

/// Returns whether a correlation of the delay is lost. The kernel takes the correlated number modulo the range of the
/// jitter, or modulo the length of the table (`tabledist`, `net/sched/sch_netem.c`). What is left is independent of the
/// number before if the uncorrelated part of the number is larger than the range.
fn has_useless_correlation(netem: &Netem) -> bool {
    let uncorrelated = u64::from(netem.delay_correlation.contrary().raw());
    let range = match netem.distribution {
        Some(distribution) => distribution.table().len() as u64,
        None => netem.jitter_ns.saturating_mul(2),
    };
    netem.jitter_ns > 0 && !netem.delay_correlation.is_zero() && uncorrelated >= range
}

/// Writes a percentage with four significant digits.
fn shown(share: Probability) -> String {
    let percent = share.percent();
    if percent < 1e-6 {
        return "less than 0.000001 %".to_owned();
    }
    #[expect(clippy::cast_possible_truncation, reason = "between -6 and 2")]
    let magnitude = percent.log10().floor() as i32;
    let scale = 10_f64.powi(3 - magnitude);
    format!("{} %", (percent * scale).round() / scale)
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DelayAdded => f.write_str("delay 1 ms added, reordering needs one"),
            Self::JitterCapped => f.write_str("jitter set to 2147.483647 ms, the kernel's maximum"),
            Self::NoEffect { field, needs } => write!(f, "{field} left out, it needs {needs}"),
            Self::OtherShare {
                feature,
                asked,
                share,
            } => write!(
                f,
                "{feature} of {} % with a correlation of {} % hits {} of the packets in the kernel; for bursts of \
                 loss use loss_model",
                asked.probability.percent(),
                asked.correlation.percent(),
                shown(*share)
            ),
            Self::AllOrNone {
                feature,
                probability,
            } => write!(
                f,
                "{feature} with a correlation of 100 % hits all packets (with a probability of {}) or none",
                shown(*probability)
            ),
            Self::DelayCorrelation => {
                f.write_str("the correlation of the delay has no effect in the kernel")
            }
            Self::OwnRate { limit } => write!(
                f,
                "netem itself limits the rate: up to {limit} packets wait for it, and a change does not reach packets \
                 that already wait"
            ),
            Self::NoBottleneck => f.write_str(
                "a token bucket filter below netem does not work here, see the log of the backend",
            ),
            Self::LeaveAsBefore { packets } => write!(
                f,
                "{packets} packets that already wait leave as before the change"
            ),
            Self::Dropped { packets } => write!(f, "{packets} packets that waited are dropped"),
            Self::SeedUnknown => f.write_str("seed not used, it needs Linux 6.6"),
            Self::LeftAlone { qdisc } => {
                write!(f, "{qdisc} left alone, it is no netem")
            }
        }
    }
}
