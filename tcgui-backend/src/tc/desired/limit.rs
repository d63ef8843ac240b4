//! Calculates the queue of a netem, which must not drop packets by itself, and the bottleneck below the netem.

use crate::kernel::link::Link;
use crate::kernel::netem::Netem;
use crate::kernel::tbf::Tbf;

/// The shortest queue in packets: the default of `tc`.
const SHORTEST: u64 = 1_000;
/// The longest queue in packets. With packets of 1 500 bytes, it needs 300 MB of kernel memory.
const LONGEST: u64 = 200_000;
/// The size of the smallest frame that is expected, in bytes.
const SMALLEST_FRAME: u128 = 64;
/// The speed that is assumed for a link that reports none, in bits per second.
const ASSUMED_SPEED: u64 = 1_000_000_000;
const NS_PER_S: u128 = 1_000_000_000;
/// The largest difference between a frame and its packet, in bytes: an Ethernet header with a VLAN tag.
const HEADER: u32 = 18;
/// The burst of a bottleneck, as a time at the rate, in addition to one frame. The bottleneck may be woken up this much
/// too late.
const BURST_MS: u64 = 5;
/// The default length of the queue as a time, and its smallest length in bytes: ten frames with 1 500 bytes of payload.
const QUEUE_MS: u64 = 200;
const LEAST_QUEUE: u64 = 10 * 1514;
const NS_PER_MS: u64 = 1_000_000;

/// The properties of a link that decide the length of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFacts {
    /// The largest packet in bytes.
    pub mtu: u32,
    /// In bits per second. `None`: the driver reports none.
    pub speed: Option<u64>,
    /// Whether the kernel can limit the rate by a token bucket filter below a netem.
    pub bottleneck: bool,
}

/// The requested length of the queue of a bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueLength {
    /// In nanoseconds at the rate.
    Time(u64),
    /// In bytes.
    Bytes(u32),
}

/// Returns a netem with the sizes for a link whose MTU or speed has changed. `None`: the netem has them already.
///
/// Only calculated sizes change: a limit or a queue that a request has set stays. The sizes are the calculated ones if they are
/// those for the link as it was `before`. The frames of the link pass the bottleneck in any case.
pub fn fitted(netem: &Netem, before: LinkFacts, now: LinkFacts) -> Option<Netem> {
    let now = now.after(before);
    let mut fitted = Netem {
        bottleneck: netem
            .bottleneck
            .map(|it| fitted_bottleneck(it, before, now)),
        ..*netem
    };
    if netem.limit == before.limit(netem) {
        fitted.limit = now.limit(&fitted);
    }
    (fitted != *netem).then_some(fitted)
}

fn fitted_bottleneck(bottleneck: Tbf, before: LinkFacts, now: LinkFacts) -> Tbf {
    if before.mtu == now.mtu && bottleneck.holds(now.frame()) {
        return bottleneck;
    }
    let rate = bottleneck.bytes_per_s;
    let is_calculated = bottleneck.limit == before.bottleneck(rate, None).limit;
    let queue = (!is_calculated).then_some(QueueLength::Bytes(bottleneck.limit));
    let fitted = now.bottleneck(rate, queue);
    // The kernel reports the burst rounded.
    if fitted.is_close_to(&bottleneck) {
        bottleneck
    } else {
        fitted
    }
}

impl LinkFacts {
    /// Returns the properties of a link.
    pub fn of(link: &Link) -> Self {
        Self {
            mtu: link.mtu,
            speed: link.speed,
            ..super::ANY_LINK
        }
    }

    /// Returns the properties of a link that had the properties `before`. A link without a carrier reports no speed: then the
    /// speed of before counts.
    #[must_use]
    pub fn after(self, before: Self) -> Self {
        Self {
            speed: self.speed.or(before.speed),
            ..self
        }
    }

    /// Returns the size of the largest frame in bytes.
    fn frame(self) -> u32 {
        self.mtu.saturating_add(HEADER)
    }

    /// Returns the limit in packets: what is under way at full rate while a packet is held the longest, if all packets are
    /// of the smallest size. The MTU does not matter.
    pub(super) fn limit(self, netem: &Netem) -> u32 {
        let rate = match netem.rate_in_force() {
            0 => self.speed.unwrap_or(ASSUMED_SPEED) / 8,
            limited => limited,
        };
        // A packet waits for a slot after its delay.
        let slot = netem.slot.map_or(0, |slot| {
            slot.max_ns
                .max(slot.delay_ns.saturating_add(slot.jitter_ns))
        });
        let held = [netem.latency_ns, netem.jitter_ns, slot];
        let held: u128 = held.into_iter().map(u128::from).sum();
        let mut packets = (u128::from(rate) * held).div_ceil(SMALLEST_FRAME * NS_PER_S);
        if let Some(bottleneck) = netem.bottleneck {
            // Packets may arrive at twice the rate. Some kernels also count the packets in the bottleneck.
            packets = 2 * packets + u128::from(bottleneck.limit) / SMALLEST_FRAME;
        }
        let packets = u64::try_from(packets).unwrap_or(LONGEST);
        let packets = packets.clamp(SHORTEST, LONGEST);
        u32::try_from(packets).expect("two hundred thousand fit")
    }

    /// Returns the bottleneck for a rate. Its burst is at least one frame, and its queue is at least as long as its
    /// burst (`tbf_enqueue`, `net/sched/sch_tbf.c`).
    pub(super) fn bottleneck(self, bytes_per_s: u64, queue: Option<QueueLength>) -> Tbf {
        let frame = self.frame();
        let in_ns = |ns: u64| {
            let bytes = u128::from(bytes_per_s) * u128::from(ns) / NS_PER_S;
            u64::try_from(bytes).unwrap_or(u64::MAX)
        };
        let limit = match queue {
            None => in_ns(QUEUE_MS * NS_PER_MS).max(LEAST_QUEUE),
            Some(QueueLength::Time(ns)) => in_ns(ns),
            Some(QueueLength::Bytes(bytes)) => bytes.into(),
        };
        let limit = u32::try_from(limit).unwrap_or(u32::MAX).max(frame);
        let late = u32::try_from(in_ns(BURST_MS * NS_PER_MS)).unwrap_or(u32::MAX);
        Tbf {
            bytes_per_s,
            burst: frame.saturating_add(late).min(limit),
            limit,
        }
    }
}
