//! What is published of a netem.

use proptest::prelude::*;
use tcgui_shared::netem::{FlatNetem, NetemExtensions, SlotConfig};

use super::*;
use crate::kernel::netem::{Distribution, Loss, Rate, Slot};
use crate::kernel::tbf::Tbf;
use crate::tc::desired::Desired;
use crate::tc::report::{command, configuration, flat};

#[test]
fn a_number_is_present_only_where_it_has_an_effect() {
    let silent = Netem {
        delay_correlation: percent(1.0),
        jitter_ns: 5,
        loss: Loss::Random(random(0.0, 2.0)),
        duplicate: random(0.0, 3.0),
        corrupt: random(0.0, 4.0),
        reorder: random(5.0, 6.0),
        rate: Rate {
            packet_overhead: 7,
            ..Rate::default()
        },
        ..short()
    };
    let expected = FlatNetem {
        extensions: NetemExtensions {
            limit: Some(1000),
            ..NetemExtensions::default()
        },
        ..FlatNetem::default()
    };
    assert_eq!(flat(&silent), expected);
}

#[test]
fn the_example_of_the_protocol() {
    let netem = Netem {
        latency_ns: 40 * MS,
        jitter_ns: 5 * MS,
        loss: Loss::Random(random(1.5, 0.0)),
        rate: Rate {
            bytes_per_s: 250_000,
            ..Rate::default()
        },
        ..short()
    };
    let configuration = configuration("v-a1", &netem);
    assert_eq!(
        configuration.command,
        "tc qdisc replace dev v-a1 root netem loss 1.5% delay 40ms 5ms rate 2mbit"
    );
    let mut expected = FlatNetem {
        loss: 1.5,
        delay_ms: Some(40.0),
        delay_jitter_ms: Some(5.0),
        rate_limit_kbps: Some(2000),
        ..FlatNetem::default()
    };
    expected.extensions.limit = Some(1000);
    assert_eq!(configuration.netem, expected);
}

#[test]
fn a_command_has_each_word() {
    let netem = Netem {
        limit: 42,
        latency_ns: 1_500,
        jitter_ns: 1_234_567,
        delay_correlation: percent(25.0),
        distribution: Some(Distribution::Normal),
        loss: Loss::GilbertElliott {
            p: percent(1.0),
            r: percent(10.0),
            h: percent(70.0).contrary(),
            k1: percent(0.5),
        },
        duplicate: random(2.0, 3.0),
        corrupt: random(0.1, 0.0),
        reorder: random(4.0, 5.0),
        gap: 6,
        rate: Rate {
            bytes_per_s: 1,
            packet_overhead: -14,
            cell_size: 48,
            cell_overhead: 5,
        },
        slot: Some(Slot {
            delay_ns: MS,
            jitter_ns: 2 * MS,
            distribution: Some(Distribution::Pareto),
            max_packets: 7,
            max_bytes: 8,
            ..Slot::default()
        }),
        ecn: true,
        seed: Some(9),
        bottleneck: None,
    };
    assert_eq!(
        command("it's", &netem),
        r"tc qdisc replace dev 'it'\''s' root netem loss gemodel 1% 10% 70% 0.5% delay 1.500us 1234.567us 25% distribution normal duplicate 2% 3% reorder 4% 5% gap 6 corrupt 0.1% rate 8bit -14 48 5 slot distribution pareto 1ms 2ms packets 7 bytes 8 ecn limit 42"
    );
    let extensions = flat(&netem).extensions;
    assert_eq!((extensions.seed, extensions.ecn), (Some(9), Some(true)));
    let slot = SlotConfig {
        distribution: Some(tcgui_shared::netem::Distribution::Pareto),
        delay_ms: Some(1.0),
        jitter_ms: Some(2.0),
        packets: Some(7),
        bytes: Some(8),
        ..SlotConfig::default()
    };
    assert_eq!(extensions.slot, Some(slot));
    assert_eq!(flat(&netem).rate_limit_kbps, Some(1));
    assert_eq!(extensions.rate_limit_bps, Some(8));
    // The share that the model loses: 1 of 11 packets in the bad state.
    assert!((flat(&netem).loss - (70.0 + 5.0) / 11.0).abs() < 1e-6);
}

#[test]
fn a_bottleneck_is_published_as_the_rate_and_its_queue() {
    let netem = Netem {
        latency_ns: 40 * MS,
        jitter_ns: MS,
        rate: Rate::ORDER,
        bottleneck: Some(Tbf {
            bytes_per_s: 64_000,
            burst: 1_838,
            limit: 12_800,
        }),
        ..short()
    };
    let configuration = configuration("v", &netem);
    assert_eq!(
        configuration.command,
        "tc qdisc replace dev v root handle 1: netem delay 40ms 1ms rate 8796093022208bit && \
         tc qdisc add dev v parent 1: tbf rate 512kbit burst 1838 limit 12800"
    );
    let published = configuration.netem;
    assert_eq!(published.rate_limit_kbps, Some(512));
    assert_eq!(published.extensions.rate_overhead, None);
    let queue = published.extensions.queue.unwrap();
    assert_eq!((queue.ms, queue.bytes), (Some(200.0), Some(12_800)));
    assert_eq!(configuration.notes, Vec::<String>::new());
    let own = Netem {
        rate: Rate {
            bytes_per_s: 64_000,
            ..Rate::default()
        },
        bottleneck: None,
        ..netem
    };
    let configuration = super::super::report::configuration("v", &own);
    assert_eq!(configuration.netem.rate_limit_kbps, Some(512));
    assert!(configuration.notes[0].starts_with("netem itself limits the rate"));
}

#[test]
fn the_share_that_a_correlation_leaves_is_published() {
    let netem = Netem {
        loss: Loss::Random(random(2.0, 25.0)),
        latency_ns: 50 * MS,
        jitter_ns: 5 * MS,
        delay_correlation: percent(25.0),
        ..short()
    };
    let notes = configuration("v", &netem).notes;
    assert_eq!(
        notes,
        [
            "loss of 2 % with a correlation of 25 % hits 0.005706 % of the packets in the kernel; for bursts of loss \
             use loss_model",
            "the correlation of the delay has no effect in the kernel"
        ]
    );
    // With a correlation this high, successive delays do depend on each other.
    let smooth = Netem {
        loss: Loss::default(),
        delay_correlation: percent(99.9),
        ..netem
    };
    assert_eq!(configuration("v", &smooth).notes, Vec::<String>::new());
}

proptest! {
    /// A client that sends a published configuration back requests the netem that is in force.
    #[test]
    fn a_published_configuration_requests_the_same_netem(config in configs::config()) {
        let desired = Desired::from_config(&config, LINK).unwrap();
        let Some(netem) = desired.netem else {
            return Ok(());
        };
        let published = flat(&netem);
        let again = Desired::from_flat(&published, LINK).unwrap();
        match again.netem {
            Some(again) => prop_assert_eq!(again, netem),
            None => prop_assert!(!netem.impairs()),
        }
    }
}
