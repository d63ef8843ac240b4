//! How long the queue of a netem has to be so that it loses nothing by itself.

use crate::kernel::netem::Netem;

/// What a queue never is shorter than, in packets: the default of `tc`.
const SHORTEST: u64 = 1_000;
/// What it never is longer than: at 1 500 bytes this is 300 MB of kernel memory.
const LONGEST: u64 = 200_000;
/// The smallest frame that is counted on, in bytes.
const SMALLEST_FRAME: u128 = 64;
/// The rate of a link that does not know its own, in bits per second.
const ASSUMED_SPEED: u64 = 1_000_000_000;
const NS_PER_S: u128 = 1_000_000_000;

/// What matters of a link for the queue in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFacts {
    /// The largest packet in bytes.
    pub mtu: u32,
    /// In bits per second; virtual links have none.
    pub speed: Option<u64>,
}

impl LinkFacts {
    /// Returns the limit in packets: what is under way at full rate while a packet is held the longest, if all packets are
    /// of the smallest size. The MTU does not matter.
    pub(super) fn limit(self, netem: &Netem) -> u32 {
        let rate = match netem.rate.bytes_per_s {
            0 => self.speed.unwrap_or(ASSUMED_SPEED) / 8,
            limited => limited,
        };
        // A slot holds packets on top of their delay.
        let slot = netem.slot.map_or(0, |slot| {
            slot.max_ns
                .max(slot.delay_ns.saturating_add(slot.jitter_ns))
        });
        let held = [netem.latency_ns, netem.jitter_ns, slot];
        let held: u128 = held.into_iter().map(u128::from).sum();
        let packets = (u128::from(rate) * held).div_ceil(SMALLEST_FRAME * NS_PER_S);
        let packets = u64::try_from(packets).unwrap_or(LONGEST);
        let packets = packets.clamp(SHORTEST, LONGEST);
        u32::try_from(packets).expect("two hundred thousand fit")
    }
}
