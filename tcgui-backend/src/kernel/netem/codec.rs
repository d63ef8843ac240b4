//! Encodes and decodes `TCA_OPTIONS` of a netem: `struct tc_netem_qopt`, followed by attributes.

use super::{Distribution, Loss, MAX_JITTER_NS, Netem, Probability, Random, Rate, Slot};
use crate::kernel::rtnetlink::{Attributes, push_attribute};

/// Attributes (`include/uapi/linux/pkt_sched.h`).
const TCA_NETEM_CORR: u16 = 1;
const TCA_NETEM_DELAY_DIST: u16 = 2;
const TCA_NETEM_REORDER: u16 = 3;
const TCA_NETEM_CORRUPT: u16 = 4;
const TCA_NETEM_LOSS: u16 = 5;
const TCA_NETEM_RATE: u16 = 6;
const TCA_NETEM_ECN: u16 = 7;
const TCA_NETEM_RATE64: u16 = 8;
const TCA_NETEM_LATENCY64: u16 = 10;
const TCA_NETEM_JITTER64: u16 = 11;
const TCA_NETEM_SLOT: u16 = 12;
const TCA_NETEM_SLOT_DIST: u16 = 13;
const TCA_NETEM_PRNG_SEED: u16 = 14;
/// Loss models in `TCA_NETEM_LOSS`: four states ("general, intuitive") and Gilbert-Elliott.
const NETEM_LOSS_GI: u16 = 1;
const NETEM_LOSS_GE: u16 = 2;
const NLA_F_NESTED: u16 = 0x8000;
/// Size of `struct tc_netem_qopt`.
const QOPT: usize = 24;
/// A tick of the packet scheduler is 64 ns (`PSCHED_SHIFT`, `include/net/pkt_sched.h`).
const TICK_SHIFT: u32 = 6;

impl Netem {
    /// Returns the value of `TCA_OPTIONS` that turns any netem into this one. It cannot remove a distribution table.
    pub fn to_options(&self) -> Vec<u8> {
        let (loss, loss_model) = match self.loss {
            Loss::Random(random) => (random, None),
            model => (Random::default(), Some(model)),
        };
        let mut options = words([
            ticks(self.latency_ns),
            self.limit,
            loss.probability.raw(),
            self.gap,
            self.duplicate.probability.raw(),
            ticks(self.jitter_ns),
        ]);
        let mut push = |kind, value: &[u8]| push_attribute(&mut options, kind, value);
        push(TCA_NETEM_LATENCY64, &self.latency_ns.to_ne_bytes());
        push(TCA_NETEM_JITTER64, &self.jitter_ns.to_ne_bytes());
        push(
            TCA_NETEM_CORR,
            &words([
                self.delay_correlation.raw(),
                loss.correlation.raw(),
                self.duplicate.correlation.raw(),
            ]),
        );
        push(TCA_NETEM_REORDER, &random(self.reorder));
        push(TCA_NETEM_CORRUPT, &random(self.corrupt));
        // Random loss has no attribute: it is the kernel's default.
        if let Some(model) = loss_model {
            push(TCA_NETEM_LOSS | NLA_F_NESTED, &encode_loss(model));
        }
        if self.rate.bytes_per_s > u32::MAX.into() {
            push(TCA_NETEM_RATE64, &self.rate.bytes_per_s.to_ne_bytes());
        }
        push(TCA_NETEM_RATE, &encode_rate(self.rate));
        push(TCA_NETEM_ECN, &u32::from(self.ecn).to_ne_bytes());
        push(TCA_NETEM_SLOT, &encode_slot(self.slot.unwrap_or_default()));
        if let Some(distribution) = self.distribution {
            push(TCA_NETEM_DELAY_DIST, &table(distribution));
        }
        if let Some(distribution) = self.slot.and_then(|slot| slot.distribution) {
            push(TCA_NETEM_SLOT_DIST, &table(distribution));
        }
        if let Some(seed) = self.seed {
            push(TCA_NETEM_PRNG_SEED, &seed.to_ne_bytes());
        }
        options
    }

    /// Parses the value of `TCA_OPTIONS` from a dump. `None`: it is not that of a netem. The order of the attributes
    /// does not matter. Unknown attributes are ignored. A feature whose attribute is missing is off. Distribution
    /// tables are not included.
    pub fn from_options(options: &[u8]) -> Option<Self> {
        let qopt = read_words::<6>(options)?;
        let [latency, limit, loss, gap, duplicate, jitter] = qopt;
        let mut netem = Self {
            limit,
            gap,
            latency_ns: u64::from(latency) << TICK_SHIFT,
            jitter_ns: u64::from(jitter) << TICK_SHIFT,
            ..Self::default()
        };
        netem.duplicate.probability = Probability::from_raw(duplicate);
        let mut random_loss = Random {
            probability: Probability::from_raw(loss),
            ..Random::default()
        };
        let mut loss_model = None;
        let mut rate64 = None;
        for (kind, value) in Attributes(options.get(QOPT..)?).iter() {
            match kind {
                TCA_NETEM_CORR => {
                    if let Some([delay, loss, duplicate]) = read_words(value) {
                        netem.delay_correlation = Probability::from_raw(delay);
                        random_loss.correlation = Probability::from_raw(loss);
                        netem.duplicate.correlation = Probability::from_raw(duplicate);
                    }
                }
                TCA_NETEM_REORDER => netem.reorder = read_random(value).unwrap_or_default(),
                TCA_NETEM_CORRUPT => netem.corrupt = read_random(value).unwrap_or_default(),
                TCA_NETEM_LOSS => loss_model = read_loss(value),
                TCA_NETEM_RATE => netem.rate = read_rate(value).unwrap_or_default(),
                TCA_NETEM_RATE64 => rate64 = read_u64(value),
                TCA_NETEM_ECN => netem.ecn = read_words(value).is_some_and(|[ecn]| ecn != 0),
                TCA_NETEM_LATENCY64 => netem.latency_ns = read_ns(value, netem.latency_ns),
                TCA_NETEM_JITTER64 => netem.jitter_ns = read_ns(value, netem.jitter_ns),
                TCA_NETEM_SLOT => netem.slot = read_slot(value),
                TCA_NETEM_PRNG_SEED => netem.seed = read_u64(value),
                _ => {}
            }
        }
        netem.loss = loss_model.unwrap_or(Loss::Random(random_loss));
        netem.rate.bytes_per_s = rate64.unwrap_or(netem.rate.bytes_per_s);
        Some(netem)
    }
}

/// Returns the 32-bit form of a time. The kernel prefers the 64-bit attribute, which also holds longer times.
fn ticks(ns: u64) -> u32 {
    u32::try_from(ns >> TICK_SHIFT).unwrap_or(u32::MAX)
}

fn words<const N: usize>(words: [u32; N]) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

fn random(random: Random) -> Vec<u8> {
    words([random.probability.raw(), random.correlation.raw()])
}

fn encode_loss(model: Loss) -> Vec<u8> {
    let (kind, probabilities) = match model {
        Loss::Random(_) => return Vec::new(),
        Loss::FourState {
            p13,
            p31,
            p32,
            p14,
            p23,
        } => (NETEM_LOSS_GI, vec![p13, p31, p32, p14, p23]),
        Loss::GilbertElliott { p, r, h, k1 } => (NETEM_LOSS_GE, vec![p, r, h, k1]),
    };
    let value: Vec<u8> = probabilities
        .into_iter()
        .flat_map(|probability| probability.raw().to_ne_bytes())
        .collect();
    let mut nested = Vec::new();
    push_attribute(&mut nested, kind, &value);
    nested
}

fn encode_rate(rate: Rate) -> Vec<u8> {
    words([
        u32::try_from(rate.bytes_per_s).unwrap_or(u32::MAX),
        rate.packet_overhead.cast_unsigned(),
        rate.cell_size,
        rate.cell_overhead.cast_unsigned(),
    ])
}

/// `struct tc_netem_slot`.
fn encode_slot(slot: Slot) -> Vec<u8> {
    [
        &slot.min_ns.to_ne_bytes()[..],
        &slot.max_ns.to_ne_bytes(),
        &slot.max_packets.to_ne_bytes(),
        &slot.max_bytes.to_ne_bytes(),
        &slot.delay_ns.to_ne_bytes(),
        &slot.jitter_ns.to_ne_bytes(),
    ]
    .concat()
}

fn table(distribution: Distribution) -> Vec<u8> {
    let table = distribution.table();
    table.iter().flat_map(|entry| entry.to_ne_bytes()).collect()
}

/// Reads the words at the start of a value. Newer kernels may append further words.
fn read_words<const N: usize>(value: &[u8]) -> Option<[u32; N]> {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(value.get(..4 * N)?.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().ok()?);
    }
    Some(words)
}

fn read_u64(value: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(value.get(..8)?.try_into().ok()?))
}

/// Reads a signed time. Negative times do not occur.
fn read_ns(value: &[u8], otherwise: u64) -> u64 {
    read_u64(value).map_or(otherwise, |ns| {
        u64::try_from(ns.cast_signed()).unwrap_or_default()
    })
}

fn read_random(value: &[u8]) -> Option<Random> {
    let [probability, correlation] = read_words(value)?.map(Probability::from_raw);
    Some(Random {
        probability,
        correlation,
    })
}

fn read_loss(value: &[u8]) -> Option<Loss> {
    Attributes(value)
        .iter()
        .find_map(|(kind, value)| match kind {
            NETEM_LOSS_GI => {
                let [p13, p31, p32, p14, p23] = read_words(value)?.map(Probability::from_raw);
                Some(Loss::FourState {
                    p13,
                    p31,
                    p32,
                    p14,
                    p23,
                })
            }
            NETEM_LOSS_GE => {
                let [p, r, h, k1] = read_words(value)?.map(Probability::from_raw);
                Some(Loss::GilbertElliott { p, r, h, k1 })
            }
            _ => None,
        })
}

fn read_rate(value: &[u8]) -> Option<Rate> {
    let [rate, packet_overhead, cell_size, cell_overhead] = read_words(value)?;
    Some(Rate {
        bytes_per_s: rate.into(),
        packet_overhead: packet_overhead.cast_signed(),
        cell_size,
        cell_overhead: cell_overhead.cast_signed(),
    })
}

fn read_slot(value: &[u8]) -> Option<Slot> {
    let [max_packets, max_bytes] = read_words(value.get(16..)?)?;
    let slot = Slot {
        min_ns: read_ns(value, 0),
        max_ns: read_ns(value.get(8..)?, 0),
        delay_ns: read_ns(value.get(24..)?, 0),
        jitter_ns: read_ns(value.get(32..)?, 0).min(MAX_JITTER_NS),
        distribution: None,
        max_packets,
        max_bytes,
    };
    let spaced = slot.min_ns > 0 || slot.max_ns > 0 || slot.jitter_ns > 0;
    spaced.then_some(slot)
}
