//! The parameters of a netem, their encoding in netlink attributes, and the distribution tables.
//!
//! Sources: `net/sched/sch_netem.c` (`netem_change`, `netem_dump`), `include/uapi/linux/pkt_sched.h`, `man 8 tc-netem`.
//!
//! A change of an existing netem overwrites the base fields and the loss model. It changes any other attribute only if
//! the request contains it. So [`Netem::to_options`] writes all attributes, with zeros for features that are off. A
//! change cannot clear a distribution table, and the kernel does not report tables. To lose a table, the netem must be
//! replaced.

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

/// The largest jitter, 2.1 s: the kernel uses the jitter as an `int` of nanoseconds. Newer kernels cap a larger value.
/// Older kernels cut off its upper 32 bits (`netem_change`, `tabledist`).
pub const MAX_JITTER_NS: u64 = i32::MAX as u64;

/// All parameters of a netem. The default has no impairment and a queue of length 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Netem {
    /// The length of the queue in packets. Further packets are dropped.
    pub limit: u32,
    /// The delay of a packet.
    pub latency_ns: u64,
    /// The delay varies by this time in both directions, at most [`MAX_JITTER_NS`].
    pub jitter_ns: u64,
    /// How much a delay depends on the delay before it.
    pub delay_correlation: Probability,
    /// The distribution of the delay. `None` is uniform. The kernel does not report it.
    pub distribution: Option<Distribution>,
    /// Which packets are lost.
    pub loss: Loss,
    /// Packets that are sent twice.
    pub duplicate: Random,
    /// Packets in which one bit is flipped.
    pub corrupt: Random,
    /// Packets that are sent at once, without the delay.
    pub reorder: Random,
    /// After a packet that was sent at once, `gap` − 1 packets are delayed. 0 switches reordering off.
    pub gap: u32,
    /// The rate limit of the netem itself.
    pub rate: Rate,
    /// Packets wait for slots and leave together.
    pub slot: Option<Slot>,
    /// Packets that support ECN are marked instead of lost.
    pub ecn: bool,
    /// The seed of the random numbers (Linux 6.6). If it is absent, the kernel chooses one.
    pub seed: Option<u64>,
    /// The token bucket filter below the netem, which limits the rate of packets after their delay. It is a separate
    /// qdisc, so [`Self::to_options`] does not contain it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bottleneck: Option<Tbf>,
}

impl Netem {
    /// Returns the rate limit in bytes per second: that of the bottleneck, or else that of the netem itself. 0: no
    /// limit.
    pub fn rate_in_force(&self) -> u64 {
        let bottleneck = self.bottleneck.map(|it| it.bytes_per_s);
        bottleneck.unwrap_or_else(|| match self.rate {
            rate if rate == Rate::ORDER => 0,
            rate => rate.bytes_per_s,
        })
    }

    /// Returns whether the netem does more than queue packets.
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
            // If the chain never enters the bad state, the loss there has no effect.
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
    /// The probability that it hits a packet.
    pub probability: Probability,
    /// How much a random number depends on the one before it.
    pub correlation: Probability,
}

/// How netem chooses the packets that it loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// Each packet with the same probability.
    Random(Random),
    /// By a Markov chain with four states (`NETEM_LOSS_GI`): 1: good reception in a gap, 2: good reception in a burst,
    /// 3: loss in a burst, 4: loss in a gap.
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
    /// By a Markov chain with a good and a bad state (`NETEM_LOSS_GE`).
    GilbertElliott {
        /// From good to bad.
        p: Probability,
        /// From bad to good.
        r: Probability,
        /// The probability that a packet passes in the bad state.
        h: Probability,
        /// The probability that a packet is lost in the good state: 1 − k.
        k1: Probability,
    },
}

impl Default for Loss {
    fn default() -> Self {
        Self::Random(Random::default())
    }
}

/// A rate limit. A rate of 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// The rate.
    pub bytes_per_s: u64,
    /// Bytes added to the length of each packet. May be negative.
    pub packet_overhead: i32,
    /// The payload of one cell in bytes, for links that send cells. 0 for other links.
    pub cell_size: u32,
    /// Bytes added for each cell.
    pub cell_overhead: i32,
}

impl Rate {
    /// Keeps packets in order: with a rate, netem sends no packet before the packets that were queued earlier
    /// (`netem_enqueue`). This rate is so high that packets do not wait for it.
    pub const ORDER: Self = Self {
        bytes_per_s: 1 << 40,
        packet_overhead: 0,
        cell_size: 0,
        cell_overhead: 0,
    };
}

/// Packets wait for a slot and then leave together.
///
/// The time between slots is random between `min_ns` and `max_ns`, or follows a distribution table around `delay_ns`.
/// The kernel reports a slot only if `min_ns`, `max_ns` or `jitter_ns` is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// The shortest time between two slots.
    pub min_ns: u64,
    /// The longest time between two slots.
    pub max_ns: u64,
    /// The mean time between two slots, if there is a distribution table.
    pub delay_ns: u64,
    /// The time varies by this much in both directions, at most [`MAX_JITTER_NS`].
    pub jitter_ns: u64,
    /// The distribution table. The kernel does not report it. If there is one, `min_ns` and `max_ns` have no effect.
    pub distribution: Option<Distribution>,
    /// The number of packets in one slot. 0: no limit.
    pub max_packets: u32,
    /// The number of bytes in one slot. 0: no limit.
    pub max_bytes: u32,
}
