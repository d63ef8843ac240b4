//! A `tc` command line that makes the same netem, for people to read and to use elsewhere.
//!
//! A netem with a bottleneck needs two commands. The seed is left out: `tc` accepts it only since 6.6, and the kernel
//! also reports a seed that it chose itself.

use crate::kernel::netem::{Loss, Netem, Probability, Random, Rate, Slot};
use crate::kernel::tbf::Tbf;

/// The default limit of `tc`.
const DEFAULT_LIMIT: u32 = 1000;

/// Returns the command line for an interface.
pub fn command(ifname: &str, netem: &Netem) -> String {
    let dev = quoted(ifname);
    let Some(bottleneck) = netem.bottleneck else {
        return format!("tc qdisc replace dev {dev} root netem{}", arguments(netem));
    };
    let Tbf {
        bytes_per_s,
        burst,
        limit,
    } = bottleneck;
    format!(
        "tc qdisc replace dev {dev} root handle 1: netem{} && tc qdisc add dev {dev} parent 1: tbf {} burst {burst} \
         limit {limit}",
        arguments(netem),
        rate(Rate {
            bytes_per_s,
            ..Rate::default()
        })
        .unwrap_or_default()
    )
}

/// Returns the arguments of netem, each with a leading space.
fn arguments(netem: &Netem) -> String {
    let mut words = vec![String::new()];
    words.extend(loss(netem.loss));
    words.extend(delay(netem));
    words.extend(random("duplicate", netem.duplicate));
    if netem.reorders() {
        words.extend(random("reorder", netem.reorder));
        words.push(format!("gap {}", netem.gap));
    }
    words.extend(random("corrupt", netem.corrupt));
    words.extend(rate(netem.rate));
    words.extend(netem.slot.map(slot));
    words.extend((netem.ecn && netem.loses()).then(|| "ecn".to_owned()));
    if netem.limit != DEFAULT_LIMIT {
        words.push(format!("limit {}", netem.limit));
    }
    words.join(" ")
}

/// Quotes a name that a shell would not read as one word.
fn quoted(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@%+=,".contains(&byte);
    if name.bytes().all(plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    }
}

fn percent(probability: Probability) -> String {
    format!("{}%", probability.percent())
}

/// Returns a probability and its correlation. `None`: the probability is 0.
fn random(word: &str, random: Random) -> Option<String> {
    if random.probability.is_zero() {
        return None;
    }
    let correlation = correlation(random.correlation);
    Some(format!(
        "{word} {}{correlation}",
        percent(random.probability)
    ))
}

fn correlation(correlation: Probability) -> String {
    if correlation.is_zero() {
        String::new()
    } else {
        format!(" {}", percent(correlation))
    }
}

fn loss(loss: Loss) -> Option<String> {
    match loss {
        Loss::Random(drawn) => random("loss", drawn),
        Loss::FourState {
            p13,
            p31,
            p32,
            p14,
            p23,
        } => Some(format!(
            "loss state {}",
            [p13, p31, p32, p23, p14].map(percent).join(" ")
        )),
        Loss::GilbertElliott { p, r, h, k1 } => Some(format!(
            "loss gemodel {}",
            [p, r, h.contrary(), k1].map(percent).join(" ")
        )),
    }
}

fn delay(netem: &Netem) -> Option<String> {
    if netem.latency_ns == 0 && netem.jitter_ns == 0 {
        return None;
    }
    let mut words = format!("delay {}", time(netem.latency_ns));
    if netem.jitter_ns > 0 {
        words += &format!(" {}", time(netem.jitter_ns));
        words += &correlation(netem.delay_correlation);
    }
    if let Some(distribution) = netem.distribution {
        words += &format!(" distribution {}", distribution.name());
    }
    Some(words)
}

/// Returns a time in ms if it is a whole number of ms, because `tc` cuts off fractions and does not know ns.
fn time(ns: u64) -> String {
    const MS: u64 = 1_000_000;
    if ns.is_multiple_of(MS) {
        return format!("{}ms", ns / MS);
    }
    let (us, rest) = (ns / 1000, ns % 1000);
    if rest == 0 {
        format!("{us}us")
    } else {
        format!("{us}.{rest:03}us")
    }
}

fn rate(rate: Rate) -> Option<String> {
    if rate.bytes_per_s == 0 {
        return None;
    }
    let bits = u128::from(rate.bytes_per_s) * 8;
    let mut words = match bits {
        _ if bits.is_multiple_of(1_000_000) => format!("rate {}mbit", bits / 1_000_000),
        _ if bits.is_multiple_of(1_000) => format!("rate {}kbit", bits / 1_000),
        _ => format!("rate {bits}bit"),
    };
    let overhead = (rate.packet_overhead, rate.cell_size, rate.cell_overhead);
    if overhead != (0, 0, 0) {
        words += &format!(" {} {} {}", overhead.0, overhead.1, overhead.2);
    }
    Some(words)
}

fn slot(slot: Slot) -> String {
    let mut words = match slot.distribution {
        Some(distribution) => format!(
            "slot distribution {} {} {}",
            distribution.name(),
            time(slot.delay_ns),
            time(slot.jitter_ns)
        ),
        None => format!("slot {} {}", time(slot.min_ns), time(slot.max_ns)),
    };
    if slot.max_packets > 0 {
        words += &format!(" packets {}", slot.max_packets);
    }
    if slot.max_bytes > 0 {
        words += &format!(" bytes {}", slot.max_bytes);
    }
    words
}
