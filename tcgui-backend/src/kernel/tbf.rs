//! The parameters of a token bucket filter (tbf), and their encoding in netlink attributes.
//!
//! Sources: `net/sched/sch_tbf.c` (`tbf_change`, `tbf_dump`), `include/uapi/linux/pkt_sched.h`, `man 8 tc-tbf`. A
//! change keeps the queue and the counters. A packet that is larger than the burst is dropped, unless it is a GSO
//! packet whose segments fit (`tbf_enqueue`).

use serde::{Deserialize, Serialize};

use super::rtnetlink::{Attributes, push_attribute, take};

/// Attributes (`include/uapi/linux/pkt_sched.h`).
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: the size of a packet is its length.
const ETHERNET: u8 = 1;
/// A tick of the packet scheduler is 64 ns (`PSCHED_SHIFT`, `include/net/pkt_sched.h`).
const TICK_NS: u128 = 64;
const NS_PER_S: u128 = 1_000_000_000;
/// The size of `struct tc_ratespec`, and the position of the rate in it.
const RATESPEC: usize = 12;
const RATE: usize = 8;

/// A token bucket filter without a peak rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tbf {
    /// The rate.
    pub bytes_per_s: u64,
    /// The number of bytes that may leave at once, and the size of the largest packet. The kernel reports it as a time,
    /// so the value that is read may differ a little from the value that was set: see [`Self::is_close_to`].
    pub burst: u32,
    /// The length of the queue in bytes.
    pub limit: u32,
}

impl Tbf {
    /// Returns whether the kernel can report the burst. It reports the time of the burst at the rate, in 32 bits of 64
    /// ns.
    pub fn can_be_read_back(&self) -> bool {
        self.bytes_per_s > 0 && self.ticks() <= u128::from(u32::MAX)
    }

    /// Returns whether one filter may be the read-back of the other. The bursts may differ by rounding.
    pub fn is_close_to(&self, other: &Self) -> bool {
        (self.bytes_per_s, self.limit) == (other.bytes_per_s, other.limit)
            && u128::from(self.burst.abs_diff(other.burst)) <= self.tolerance()
    }

    /// Returns whether the burst is large enough for frames of this size.
    pub fn holds(&self, frame: u32) -> bool {
        u128::from(self.burst) + self.tolerance() >= u128::from(frame)
    }

    fn tolerance(&self) -> u128 {
        2 + 2 * TICK_NS * u128::from(self.bytes_per_s) / NS_PER_S
    }

    fn ticks(&self) -> u128 {
        let ns = u128::from(self.burst) * NS_PER_S / u128::from(self.bytes_per_s.max(1));
        ns / TICK_NS
    }

    /// Returns the value of `TCA_OPTIONS` that turns any filter into this one.
    pub fn to_options(self) -> Vec<u8> {
        let mut parameters = Vec::new();
        // `struct tc_ratespec`: cell_log, linklayer, overhead, cell_align, mpu, rate.
        parameters.extend([0, ETHERNET, 0, 0, 0, 0, 0, 0]);
        let rate = u32::try_from(self.bytes_per_s).unwrap_or(u32::MAX);
        parameters.extend(rate.to_ne_bytes());
        parameters.extend([0; RATESPEC]);
        let ticks = u32::try_from(self.ticks()).unwrap_or(u32::MAX);
        for word in [self.limit, ticks, 0] {
            parameters.extend(word.to_ne_bytes());
        }
        let mut options = Vec::new();
        push_attribute(&mut options, TCA_TBF_PARMS, &parameters);
        if self.bytes_per_s > u32::MAX.into() {
            let rate = self.bytes_per_s.to_ne_bytes();
            push_attribute(&mut options, TCA_TBF_RATE64, &rate);
        }
        push_attribute(&mut options, TCA_TBF_BURST, &self.burst.to_ne_bytes());
        options
    }

    /// Parses the value of `TCA_OPTIONS` from a dump. `None`: it is not that of a token bucket filter.
    pub fn from_options(options: &[u8]) -> Option<Self> {
        let attributes = Attributes(options);
        let parameters = attributes.find(TCA_TBF_PARMS)?;
        let word = |at| take(parameters, at).ok().map(u32::from_ne_bytes);
        let rate64 = attributes
            .find(TCA_TBF_RATE64)
            .and_then(|value| take(value, 0).ok())
            .map(u64::from_ne_bytes);
        let bytes_per_s = match rate64 {
            Some(rate) => rate,
            None => word(RATE)?.into(),
        };
        let ticks = word(2 * RATESPEC + 4)?;
        let half = NS_PER_S / 2;
        let bytes = (u128::from(ticks) * TICK_NS * u128::from(bytes_per_s) + half) / NS_PER_S;
        Some(Self {
            bytes_per_s,
            burst: u32::try_from(bytes).unwrap_or(u32::MAX),
            limit: word(2 * RATESPEC)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The options that `tc qdisc change dev d0 root handle 5: tbf rate 512kbit burst 1600 limit 15000` of iproute2 6.1
    /// sends, without the rate table. The kernel does not need that table.
    const TC: &str = "2800010003010000ffff000000fa0000000000000000000000000000983a0000e1f5050000000000\
                      0800060040060000";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.chars().filter(|c| !c.is_whitespace()).collect();
        let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
        pairs
            .map(|pair| u8::from_str_radix(&pair, 16).unwrap())
            .collect()
    }

    #[test]
    fn the_bytes_are_those_of_tc() {
        let filter = Tbf {
            bytes_per_s: 64_000,
            burst: 1600,
            limit: 15_000,
        };
        let captured = bytes(TC);
        assert_eq!(Tbf::from_options(&captured), Some(filter));
        let mut ours = filter.to_options();
        // cell_log and cell_align describe the rate table. The ticks differ by rounding.
        let cells = |options: &mut Vec<u8>| {
            options[4] = 0;
            options[8..10].fill(0);
            let ticks = u32::from_ne_bytes(options[32..36].try_into().unwrap());
            options[32..36].fill(0);
            ticks
        };
        let mut theirs = captured;
        let (ours_ticks, theirs_ticks) = (cells(&mut ours), cells(&mut theirs));
        assert!(
            ours_ticks.abs_diff(theirs_ticks) <= 1,
            "{ours_ticks} {theirs_ticks}"
        );
        assert_eq!(ours, theirs);
    }

    proptest! {
        #[test]
        fn every_filter_is_decoded_as_it_was_encoded(bytes_per_s in 125..2_000_000_000_000_u64, burst in 64..10_000_000_u32, limit: u32) {
            let filter = Tbf { bytes_per_s, burst, limit };
            prop_assume!(filter.can_be_read_back());
            let read = Tbf::from_options(&filter.to_options()).unwrap();
            prop_assert!(filter.is_close_to(&read), "{read:?}");
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            Tbf::from_options(&bytes);
        }
    }
}
