//! Converts a netem to the published form: the numbers, the extensions, and a `tc` command line.

mod command;

use tcgui_shared::netem::{
    Distribution as WireDistribution, FlatNetem, LossModel, NetemExtensions, QueueConfig,
    RateOverhead, SlotConfig, TcNetemConfig, rounded_kbps,
};
use tcgui_shared::tc::TcConfiguration;

use super::note::Note;
use crate::kernel::netem::{Distribution, Loss, Netem, Probability, Random, Slot};
use crate::kernel::tbf::Tbf;

pub use command::command;

/// Returns the published form of a netem on the interface `ifname`.
pub fn configuration(ifname: &str, netem: &Netem) -> TcConfiguration {
    TcConfiguration {
        netem: flat(netem),
        command: command(ifname, netem),
        notes: Note::of_netem(netem).iter().map(Note::to_string).collect(),
    }
}

/// Returns the structured form, in which every feature has a switch.
pub fn structured(netem: &Netem) -> TcNetemConfig {
    super::desired::structured(&flat(netem))
}

/// Returns the flat form. A number is present only if it has an effect.
pub fn flat(netem: &Netem) -> FlatNetem {
    let loss = match netem.loss {
        Loss::Random(random) => random,
        // Frontends that do not know models show the share that the model loses.
        model => Random {
            probability: model.share().unwrap_or_default(),
            ..Random::default()
        },
    };
    let rate = netem.rate_in_force();
    let delayed = netem.latency_ns > 0;
    let varies = delayed && netem.jitter_ns > 0;
    let reorder = if netem.reorders() {
        netem.reorder
    } else {
        Random::default()
    };
    FlatNetem {
        loss: loss.probability.percent(),
        correlation: correlation(loss),
        delay_ms: delayed.then(|| milliseconds(netem.latency_ns)),
        delay_jitter_ms: varies.then(|| milliseconds(netem.jitter_ns)),
        delay_correlation: positive(netem.delay_correlation).filter(|_| varies),
        duplicate_percent: positive(netem.duplicate.probability),
        duplicate_correlation: correlation(netem.duplicate),
        reorder_percent: positive(reorder.probability),
        reorder_correlation: correlation(reorder),
        reorder_gap: netem.reorders().then_some(netem.gap),
        corrupt_percent: positive(netem.corrupt.probability),
        corrupt_correlation: correlation(netem.corrupt),
        rate_limit_kbps: (rate > 0).then(|| kbps(rate)),
        extensions: NetemExtensions {
            distribution: netem.distribution.map(to_wire),
            loss_model: loss_model(netem.loss),
            ecn: netem.ecn.then_some(true),
            rate_overhead: rate_overhead(netem),
            rate_limit_bps: fractional_bps(rate),
            queue: netem.bottleneck.map(queue),
            slot: netem.slot.map(slot),
            seed: netem.seed,
            limit: Some(netem.limit),
        },
    }
}

fn positive(probability: Probability) -> Option<f64> {
    (!probability.is_zero()).then(|| probability.percent())
}

/// Returns the correlation of an event, if the event can happen.
fn correlation(random: Random) -> Option<f64> {
    positive(random.probability).and_then(|_| positive(random.correlation))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "whole nanoseconds up to 104 days are exact"
)]
fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn kbps(bytes_per_s: u64) -> u32 {
    rounded_kbps(bytes_per_s.saturating_mul(8))
}

/// Returns the rate in bit/s, if the field in kbit/s cannot hold it: it is not a whole number of kbit/s, or too large.
fn fractional_bps(bytes_per_s: u64) -> Option<u64> {
    let bps = bytes_per_s.saturating_mul(8);
    (u64::from(kbps(bytes_per_s)) * 1000 != bps && bps > 0).then_some(bps)
}

/// Describes the length of the queue: `its queue holds 1000 packets`.
pub fn queue_text(netem: &Netem) -> String {
    match netem.bottleneck.map(queue) {
        Some(QueueConfig {
            ms: Some(ms),
            bytes: Some(bytes),
        }) => {
            format!("the queue of its rate limit holds {bytes} bytes, {ms} ms at the rate")
        }
        _ => format!("its queue holds {} packets", netem.limit),
    }
}

/// Returns the length of the queue of a bottleneck: the bytes that the kernel reports, and their time at the rate.
#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn queue(bottleneck: Tbf) -> QueueConfig {
    let seconds = f64::from(bottleneck.limit) / bottleneck.bytes_per_s.max(1) as f64;
    QueueConfig {
        ms: Some((seconds * 1e6).round() / 1e3),
        bytes: Some(bottleneck.limit),
    }
}

fn rate_overhead(netem: &Netem) -> Option<RateOverhead> {
    let rate = netem.rate;
    let overhead = RateOverhead {
        packet: rate.packet_overhead,
        cell_size: rate.cell_size,
        cell: rate.cell_overhead,
    };
    let is_in_force = netem.bottleneck.is_none() && rate.bytes_per_s > 0;
    (is_in_force && overhead != RateOverhead::default()).then_some(overhead)
}

fn loss_model(loss: Loss) -> Option<LossModel> {
    match loss {
        Loss::Random(_) => None,
        Loss::FourState {
            p13,
            p31,
            p32,
            p14,
            p23,
        } => Some(LossModel::FourState {
            p13: p13.percent(),
            p31: p31.percent(),
            p32: p32.percent(),
            p23: p23.percent(),
            p14: p14.percent(),
        }),
        Loss::GilbertElliott { p, r, h, k1 } => Some(LossModel::GilbertElliott {
            p: p.percent(),
            r: r.percent(),
            bad_loss: h.contrary().percent(),
            good_loss: k1.percent(),
        }),
    }
}

fn slot(slot: Slot) -> SlotConfig {
    let drawn = slot.delay_ns > 0 || slot.jitter_ns > 0;
    let positive = |count: u32| (count > 0).then_some(count);
    SlotConfig {
        min_ms: (!drawn).then(|| milliseconds(slot.min_ns)),
        max_ms: (!drawn).then(|| milliseconds(slot.max_ns)),
        distribution: slot.distribution.map(to_wire),
        delay_ms: drawn.then(|| milliseconds(slot.delay_ns)),
        jitter_ms: drawn.then(|| milliseconds(slot.jitter_ns)),
        packets: positive(slot.max_packets),
        bytes: positive(slot.max_bytes),
    }
}

fn to_wire(distribution: Distribution) -> WireDistribution {
    match distribution {
        Distribution::Normal => WireDistribution::Normal,
        Distribution::Pareto => WireDistribution::Pareto,
        Distribution::ParetoNormal => WireDistribution::ParetoNormal,
    }
}
