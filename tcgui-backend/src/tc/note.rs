//! Notes for the client in a successful reply: the differences between the request and what the kernel does.

use std::fmt;

use crate::kernel::netem::{Loss, Netem, Probability, Random};

/// A note for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A delay was added, because without one reordered packets have nothing to overtake.
    DelayAdded,
    /// The jitter was reduced to the kernel's maximum.
    JitterCapped,
    /// A value was left out because it has no effect on its own.
    NoEffect {
        /// The field of the value.
        field: &'static str,
        /// The field or feature that is missing.
        needs: &'static str,
    },
    /// Because of a correlation, the kernel hits another share of the packets.
    OtherShare {
        /// The feature, for instance `loss`.
        feature: &'static str,
        /// The requested probability and correlation.
        asked: Random,
        /// The share that the kernel hits.
        share: Probability,
    },
    /// A correlation of 100 %: the first random number decides for all packets.
    AllOrNone {
        /// The feature, for instance `loss`.
        feature: &'static str,
        /// The probability that the event hits all packets.
        probability: Probability,
    },
    /// The request has a correlation of the delay, but it has no effect in the kernel.
    DelayCorrelation,
    /// The netem itself limits the rate, not a bottleneck below it.
    OwnRate {
        /// The limit of the netem, in packets.
        limit: u32,
    },
    /// No bottleneck is possible, because this kernel does not support it or the rate is too low.
    NoBottleneck,
    /// Packets waited while the netem was changed. The kernel had already fixed the times at which they leave.
    LeaveAsBefore {
        /// Their number.
        packets: u32,
    },
    /// Packets that waited in the netem were dropped, because it was removed or replaced.
    Dropped {
        /// Their number.
        packets: u32,
    },
    /// The kernel does not support a seed.
    SeedUnknown,
    /// Nothing was removed, because the root qdisc is not a netem.
    LeftAlone {
        /// The root qdisc, by kind and handle.
        qdisc: String,
    },
}

impl Note {
    /// Returns the differences between the numbers of a netem and its effect in the kernel.
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

    /// Returns the field of the structured configuration to which the note applies. Empty: none.
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

/// Returns whether the correlation of the delay has no effect. The kernel takes the correlated number modulo the range
/// of the jitter, or modulo the length of the table (`tabledist`, `net/sched/sch_netem.c`). If the uncorrelated part of
/// the number is larger than that range, the remainder is independent of the number before it.
fn has_useless_correlation(netem: &Netem) -> bool {
    let uncorrelated = u64::from(netem.delay_correlation.contrary().raw());
    let range = match netem.distribution {
        Some(distribution) => distribution.table().len() as u64,
        None => netem.jitter_ns.saturating_mul(2),
    };
    netem.jitter_ns > 0 && !netem.delay_correlation.is_zero() && uncorrelated >= range
}

/// Returns a percentage with four significant digits.
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
