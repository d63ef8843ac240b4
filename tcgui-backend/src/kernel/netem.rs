//! netem as the kernel has it: every parameter of the qdisc, its bytes both ways, its tables.
//!
//! Sources: `net/sched/sch_netem.c` (`netem_change`, `netem_dump`), `include/uapi/linux/pkt_sched.h`,
//! `man 8 tc-netem`. A change of an existing netem overwrites the base fields and the loss model, but
//! each other attribute only if it is sent. So [`Netem::to_options`] sends all of them, zeros for what is off.
//! Only the distribution tables cannot be cleared that way, nor read back: a netem that must lose one
//! has to be made anew.

mod codec;
mod distribution;
mod probability;
mod share;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::tbf::Tbf;
pub use distribution::Distribution;
pub use probability::Probability;

/// The largest jitter, 2.1 s: the kernel's draw takes an `int` of nanoseconds. Newer kernels cap
/// what is larger, older ones cut off its upper half (`netem_change`, `tabledist`).
pub const MAX_JITTER_NS: u64 = i32::MAX as u64;

/// Everything that a netem does to packets; its default does nothing, not even queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Netem {
    /// The longest queue, in packets; what does not fit is dropped.
    pub limit: u32,
    /// How long packets are held.
    pub latency_ns: u64,
    /// How far that varies to both sides, at most [`MAX_JITTER_NS`].
    pub jitter_ns: u64,
    /// How much each delay depends on the one before.
    pub delay_correlation: Probability,
    /// How delays are spread; `None` is evenly. Not read back.
    pub distribution: Option<Distribution>,
    /// Which packets are lost.
    pub loss: Loss,
    /// Packets that are sent twice.
    pub duplicate: Random,
    /// Packets in which one bit is flipped.
    pub corrupt: Random,
    /// Packets that are not held.
    pub reorder: Random,
    /// Only each such packet may overtake; 0 switches reordering off.
    pub gap: u32,
    /// How fast packets leave.
    pub rate: Rate,
    /// Packets leave in bursts.
    pub slot: Option<Slot>,
    /// Marks packets that can be marked, instead of losing them.
    pub ecn: bool,
    /// What the random numbers begin with (Linux 6.6); the kernel picks one when it is not given.
    pub seed: Option<u64>,
    /// The token bucket filter below it, through which packets leave after their delay. A qdisc of its own: the bytes of the
    /// netem do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bottleneck: Option<Tbf>,
}

impl Netem {
    /// Returns the rate in force in bytes per second, wherever it is configured; 0 is none.
    pub fn rate_in_force(&self) -> u64 {
        let bottleneck = self.bottleneck.map(|it| it.bytes_per_s);
        bottleneck.unwrap_or_else(|| match self.rate {
            rate if rate == Rate::ORDER => 0,
            rate => rate.bytes_per_s,
        })
    }

    /// Returns whether it does anything to packets but queue them.
    pub fn impairs(&self) -> bool {
        self.bottleneck.is_some()
            || self.latency_ns > 0
            || self.jitter_ns > 0
            || self.rate.bytes_per_s > 0
            || self.slot.is_some()
            || !self.corrupt.probability.is_zero()
            || self.loses()
            || self.duplicates()
            || self.reorders()
    }

    /// Returns whether some packets are lost.
    pub fn loses(&self) -> bool {
        let never = |probabilities: [Probability; 2]| probabilities.iter().all(|it| it.is_zero());
        match self.loss {
            Loss::Random(loss) => !loss.probability.is_zero(),
            Loss::FourState { p13, p14, .. } => !never([p13, p14]),
            // Without a way into the bad state, the loss there does not matter.
            Loss::GilbertElliott { p, h, k1, .. } => {
                !k1.is_zero() || !(p.is_zero() || h == Probability::ONE)
            }
        }
    }

    /// Returns whether some packets are sent twice.
    pub fn duplicates(&self) -> bool {
        !self.duplicate.probability.is_zero()
    }

    /// Returns whether some packets overtake others.
    pub fn reorders(&self) -> bool {
        self.gap > 0 && !self.reorder.probability.is_zero()
    }
}

/// An event that hits packets at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Random {
    /// How likely it is for each packet.
    pub probability: Probability,
    /// How much each draw depends on the one before.
    pub correlation: Probability,
}

/// How it is decided which packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// Each with the same probability.
    Random(Random),
    /// By a Markov chain of four states (`NETEM_LOSS_GI`): 1 good reception in a gap, 2 good reception
    /// in a burst, 3 loss in a burst, 4 loss in a gap.
    FourState {
        /// From 1 to 3.
        p13: Probability,
        /// From 3 to 1.
        p31: Probability,
        /// From 3 to 2.
        p32: Probability,
        /// From 1 to 4.
        p14: Probability,
        /// From 2 to 3.
        p23: Probability,
    },
    /// By a chain of a good and a bad state (`NETEM_LOSS_GE`).
    GilbertElliott {
        /// From good to bad.
        p: Probability,
        /// From bad to good.
        r: Probability,
        /// That a packet passes in the bad state.
        h: Probability,
        /// That a packet is lost in the good state: 1 − k.
        k1: Probability,
    },
}

impl Default for Loss {
    fn default() -> Self {
        Self::Random(Random::default())
    }
}

/// A rate limit; 0 bytes per second is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// The rate.
    pub bytes_per_s: u64,
    /// Bytes that each packet counts more, or less.
    pub packet_overhead: i32,
    /// The payload of one cell in bytes, for links that send cells; 0 for others.
    pub cell_size: u32,
    /// Bytes that each cell counts more.
    pub cell_overhead: i32,
}

impl Rate {
    /// A rate so high that packets do not wait for it, but stay in order: with a rate, no packet leaves before the one that was
    /// queued before it (`netem_enqueue`).
    pub const ORDER: Self = Self {
        bytes_per_s: 1 << 40,
        packet_overhead: 0,
        cell_size: 0,
        cell_overhead: 0,
    };
}

/// Packets wait for a slot and then leave together.
///
/// The time between slots is drawn between `min_ns` and `max_ns`, or with a table around `delay_ns`.
/// The kernel tells about a slot only if one of `min_ns`, `max_ns` and `jitter_ns` is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// The shortest time between two slots.
    pub min_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// The mean time where a table is used.
    pub delay_ns: u64,
    /// How far it varies, at most [`MAX_JITTER_NS`].
    pub jitter_ns: u64,
    /// The table. Not read back, and as long as the kernel has one, `min_ns` and `max_ns` are not used.
    pub distribution: Option<Distribution>,
    /// The most packets in one slot; 0 is any number.
    pub max_packets: u32,
    /// The most bytes in one slot; 0 is any number.
    pub max_bytes: u32,
}
