//! The bytes of netem: against what `tc` sends, there and back, and against anything else.

use std::collections::BTreeMap;

use proptest::array::uniform5;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::kernel::rtnetlink::{Attributes, push_attribute};

const REQUESTS: &str = include_str!("../../../tests/fixtures/netem/requests.txt");
const MS: u64 = 1_000_000;

fn percent(percent: f64) -> Probability {
    Probability::from_percent(percent)
}

fn random(probability: f64, correlation: f64) -> Random {
    Random {
        probability: percent(probability),
        correlation: percent(correlation),
    }
}

fn tc() -> Netem {
    Netem {
        limit: 1000,
        ..Netem::default()
    }
}

fn loss(loss: Loss) -> Netem {
    Netem { loss, ..tc() }
}

fn delay(latency_ns: u64, jitter_ns: u64, correlation: f64) -> Netem {
    Netem {
        latency_ns,
        jitter_ns,
        delay_correlation: percent(correlation),
        ..tc()
    }
}

fn rate(bits: u64, packet_overhead: i32, cell_size: u32, cell_overhead: i32) -> Netem {
    Netem {
        rate: Rate {
            bytes_per_s: bits / 8,
            packet_overhead,
            cell_size,
            cell_overhead,
        },
        ..tc()
    }
}

fn reorder(probability: f64, correlation: f64, gap: u32) -> Netem {
    Netem {
        reorder: random(probability, correlation),
        gap,
        ..delay(10 * MS, 0, 0.0)
    }
}

fn slot(min_ns: u64, max_ns: u64, max_packets: u32, max_bytes: u32) -> Netem {
    Netem {
        slot: Some(Slot {
            min_ns,
            max_ns,
            max_packets,
            max_bytes,
            ..Slot::default()
        }),
        ..tc()
    }
}

/// What each line of arguments means.
fn meanings() -> Vec<(&'static str, Netem)> {
    [
        delays_and_losses(),
        duplicates_and_corruptions(),
        rates_slots_and_all(),
    ]
    .concat()
}

fn delays_and_losses() -> Vec<(&'static str, Netem)> {
    let four_state = |[p13, p31, p32, p23, p14]: [f64; 5]| {
        loss(Loss::FourState {
            p13: percent(p13),
            p31: percent(p31),
            p32: percent(p32),
            p14: percent(p14),
            p23: percent(p23),
        })
    };
    let gilbert_elliott = |[p, r, bad, good]: [f64; 4]| {
        loss(Loss::GilbertElliott {
            p: percent(p),
            r: percent(r),
            h: percent(bad).contrary(),
            k1: percent(good),
        })
    };
    let random_loss =
        |probability, correlation| loss(Loss::Random(random(probability, correlation)));
    vec![
        ("limit 50", Netem { limit: 50, ..tc() }),
        ("delay 40ms", delay(40 * MS, 0, 0.0)),
        ("delay 10s", delay(10_000 * MS, 0, 0.0)),
        ("delay 40ms 5ms", delay(40 * MS, 5 * MS, 0.0)),
        ("delay 40ms 5ms 25%", delay(40 * MS, 5 * MS, 25.0)),
        ("delay 0.5ms 1.024ms", delay(MS / 2, 1_024_000, 0.0)),
        ("delay 10s 2s 100%", delay(10_000 * MS, 2_000 * MS, 100.0)),
        ("loss 1.5%", random_loss(1.5, 0.0)),
        ("loss 100%", random_loss(100.0, 0.0)),
        ("loss 10% 20%", random_loss(10.0, 20.0)),
        ("loss state 1%", four_state([1.0, 99.0, 0.0, 100.0, 0.0])),
        (
            "loss state 1% 20% 3% 90% 5%",
            four_state([1.0, 20.0, 3.0, 90.0, 5.0]),
        ),
        ("loss gemodel 1%", gilbert_elliott([1.0, 99.0, 100.0, 0.0])),
        (
            "loss gemodel 1% 20% 80% 0.5%",
            gilbert_elliott([1.0, 20.0, 80.0, 0.5]),
        ),
        (
            "loss 3% ecn",
            Netem {
                ecn: true,
                ..random_loss(3.0, 0.0)
            },
        ),
    ]
}

fn duplicates_and_corruptions() -> Vec<(&'static str, Netem)> {
    let duplicate = random(5.0, 0.0);
    let corrupt = random(0.1, 0.0);
    vec![
        ("duplicate 5%", Netem { duplicate, ..tc() }),
        (
            "duplicate 5% 10% delay 1ms 1us 1%",
            Netem {
                duplicate: random(5.0, 10.0),
                ..delay(MS, 1_000, 1.0)
            },
        ),
        ("corrupt 0.1%", Netem { corrupt, ..tc() }),
        (
            "corrupt 0.1% 50%",
            Netem {
                corrupt: random(0.1, 50.0),
                ..tc()
            },
        ),
        ("delay 10ms reorder 25%", reorder(25.0, 0.0, 1)),
        ("delay 10ms reorder 25% 50%", reorder(25.0, 50.0, 1)),
        ("delay 10ms reorder 25% 50% gap 5", reorder(25.0, 50.0, 5)),
    ]
}

fn rates_slots_and_all() -> Vec<(&'static str, Netem)> {
    let everything = Netem {
        limit: 4321,
        latency_ns: 80 * MS,
        jitter_ns: 30 * MS,
        delay_correlation: percent(15.0),
        loss: Loss::Random(random(2.0, 10.0)),
        duplicate: random(1.0, 10.0),
        corrupt: random(0.5, 5.0),
        reorder: random(3.0, 15.0),
        gap: 2,
        ecn: true,
        slot: slot(MS, 2 * MS, 3, 0).slot,
        ..rate(10_000_000, 4, 48, 5)
    };
    vec![
        ("rate 1kbit", rate(1_000, 0, 0, 0)),
        ("rate 2mbit", rate(2_000_000, 0, 0, 0)),
        ("rate 34359738360bit", rate(34_359_738_360, 0, 0, 0)),
        ("rate 34359738368bit", rate(34_359_738_368, 0, 0, 0)),
        ("rate 100gbit", rate(100_000_000_000, 0, 0, 0)),
        ("rate 5mbit 20 100 5", rate(5_000_000, 20, 100, 5)),
        ("rate 5mbit -14", rate(5_000_000, -14, 0, 0)),
        ("slot 10ms", slot(10 * MS, 10 * MS, 0, 0)),
        ("slot 10ms 20ms", slot(10 * MS, 20 * MS, 0, 0)),
        (
            "slot 1ms 20ms packets 10 bytes 15000",
            slot(MS, 20 * MS, 10, 15_000),
        ),
        (
            "loss 2% 10% delay 80ms 30ms 15% duplicate 1% 10% reorder 3% 15% gap 2 corrupt 0.5% 5% \
             rate 10mbit 4 48 5 slot 1ms 2ms packets 3 ecn limit 4321",
            everything,
        ),
    ]
}

fn captured() -> Vec<(&'static str, Vec<u8>)> {
    let lines: Vec<_> = REQUESTS.lines().collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    lines
        .chunks_exact(2)
        .map(|pair| {
            let arguments = pair[0].strip_prefix("# ").unwrap();
            let bytes = pair[1].as_bytes().chunks_exact(2).map(byte).collect();
            (arguments, bytes)
        })
        .collect()
}

/// Returns the base structure and the attributes by their type.
fn parts(options: &[u8]) -> (&[u8], BTreeMap<u16, &[u8]>) {
    let (base, attributes) = options.split_at(24);
    (base, Attributes(attributes).iter().collect())
}

#[test]
fn each_option_is_sent_as_tc_sends_it() {
    const LATENCY64: u16 = 10;
    const JITTER64: u16 = 11;
    let meanings = meanings();
    let captured = captured();
    let arguments = |(arguments, _): &(&'static str, _)| *arguments;
    assert_eq!(
        meanings.iter().map(arguments).collect::<Vec<_>>(),
        captured.iter().map(|(a, _)| *a).collect::<Vec<_>>()
    );
    for ((arguments, netem), (_, bytes)) in meanings.iter().zip(&captured) {
        let options = netem.to_options();
        let ((base, mut ours), (tc_base, theirs)) = (parts(&options), parts(bytes));
        assert_eq!(base, tc_base, "{arguments}");
        for (kind, value) in theirs {
            assert_eq!(ours.remove(&kind), Some(value), "{arguments}: {kind}");
        }
        let latency = ours.remove(&LATENCY64).unwrap();
        assert_eq!(latency, netem.latency_ns.to_ne_bytes(), "{arguments}");
        let jitter = ours.remove(&JITTER64).unwrap();
        assert_eq!(jitter, netem.jitter_ns.to_ne_bytes(), "{arguments}");
        for (kind, value) in ours {
            assert!(value.iter().all(|byte| *byte == 0), "{arguments}: {kind}");
        }
    }
}

#[test]
fn requests_of_tc_are_decoded() {
    let ticks = |ns: u64| ns >> 6 << 6;
    for ((arguments, netem), (_, bytes)) in meanings().into_iter().zip(captured()) {
        let expected = Netem {
            latency_ns: ticks(netem.latency_ns),
            jitter_ns: ticks(netem.jitter_ns),
            ..netem
        };
        assert_eq!(Netem::from_options(&bytes), Some(expected), "{arguments}");
    }
}

#[test]
fn each_parameter_is_sent_also_when_it_is_off() {
    let options = Netem::default().to_options();
    let (_, attributes) = parts(&options);
    let kinds: Vec<_> = attributes.keys().copied().collect();
    assert_eq!(kinds, [1, 3, 4, 6, 7, 10, 11, 12]);
}

#[test]
fn wide_attributes_count_in_any_order() {
    let netem = Netem {
        latency_ns: 300_000 * MS,
        ..rate(80_000_000_000, 0, 0, 0)
    };
    let options = netem.to_options();
    let (base, attributes) = parts(&options);
    // 4 687 500 000 ticks do not fit.
    assert_eq!(base[..4], u32::MAX.to_ne_bytes());
    for reversed in [false, true] {
        let mut order: Vec<_> = attributes.iter().collect();
        if reversed {
            order.reverse();
        }
        let mut bytes = base.to_vec();
        for (kind, value) in order {
            push_attribute(&mut bytes, *kind, value);
        }
        push_attribute(&mut bytes, 999, b"newer");
        assert_eq!(Netem::from_options(&bytes), Some(netem));
    }
}

#[test]
fn tables_are_those_of_tc() {
    // Points of iproute2's normal.dist, pareto.dist and paretonormal.dist, made with the same formulas.
    let points = [0, 1, 3, 100, 2047, 2048, 3000, 4000, 4095];
    for (distribution, expected, tolerance) in [
        (
            Distribution::Normal,
            [-32768, -28307, -25967, -16135, -5, 0, 5081, 16285, 28858],
            1,
        ),
        (
            Distribution::Pareto,
            [-5461, -5460, -5459, -5371, -2625, -2622, 566, 21783, 32767],
            0,
        ),
        (
            Distribution::ParetoNormal,
            [
                -12305, -11171, -10586, -8062, -1970, -1966, 1694, 20408, 31789,
            ],
            2,
        ),
    ] {
        let table = distribution.table();
        assert_eq!(table.len(), 4096);
        for (point, expected) in points.into_iter().zip(expected) {
            let ours: i32 = table[point].into();
            let close = (ours - expected).abs() <= tolerance;
            assert!(close, "{distribution:?}[{point}]: {ours}, not {expected}");
        }
        assert!(table.is_sorted());
    }
}

#[test]
fn tables_are_sent_where_they_are_used() {
    let netem = Netem {
        distribution: Some(Distribution::Normal),
        slot: Some(Slot {
            jitter_ns: MS,
            distribution: Some(Distribution::Pareto),
            ..Slot::default()
        }),
        seed: Some(0x1234_5678_9abc),
        ..tc()
    };
    let options = netem.to_options();
    let (_, attributes) = parts(&options);
    for (kind, distribution) in [(2, Distribution::Normal), (13, Distribution::Pareto)] {
        let table = distribution.table();
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_ne_bytes()).collect();
        assert_eq!(attributes[&kind], bytes);
    }
    assert_eq!(attributes[&14], 0x1234_5678_9abc_u64.to_ne_bytes());
}

#[test]
fn percentages_are_as_short_as_they_can_be() {
    for (written, raw) in [
        (0.0, 0),
        (1.5, 0x03d7_0a3d),
        (33.3, 1_430_224_109),
        (100.0, u32::MAX),
    ] {
        assert_eq!(percent(written).raw(), raw);
        assert!((percent(written).percent() - written).abs() < f64::EPSILON);
    }
    assert_eq!(percent(f64::NAN), Probability::ZERO);
    assert_eq!(percent(1e300), Probability::ONE);
    assert_eq!(percent(-1.0), Probability::ZERO);
}

fn probability() -> impl Strategy<Value = Probability> {
    any::<u32>().prop_map(Probability::from_raw)
}

fn randoms() -> impl Strategy<Value = Random> {
    (probability(), probability()).prop_map(|(probability, correlation)| Random {
        probability,
        correlation,
    })
}

fn losses() -> impl Strategy<Value = Loss> {
    let four_state =
        uniform5(probability()).prop_map(|[p13, p31, p32, p14, p23]| Loss::FourState {
            p13,
            p31,
            p32,
            p14,
            p23,
        });
    let gilbert_elliott =
        uniform5(probability()).prop_map(|[p, r, h, k1, _]| Loss::GilbertElliott { p, r, h, k1 });
    prop_oneof![
        randoms().prop_map(Loss::Random),
        four_state,
        gilbert_elliott
    ]
}

fn rates() -> impl Strategy<Value = Rate> {
    let bytes_per_s = prop_oneof![any::<u64>(), any::<u32>().prop_map(u64::from)];
    (bytes_per_s, any::<(i32, u32, i32)>()).prop_map(|(bytes_per_s, overhead)| Rate {
        bytes_per_s,
        packet_overhead: overhead.0,
        cell_size: overhead.1,
        cell_overhead: overhead.2,
    })
}

fn slots() -> impl Strategy<Value = Slot> {
    let ns = || 1..i64::MAX.cast_unsigned();
    (ns(), ns(), ns(), 0..=MAX_JITTER_NS, any::<(u32, u32)>()).prop_map(
        |(min_ns, max_ns, delay_ns, jitter_ns, (max_packets, max_bytes))| Slot {
            min_ns,
            max_ns,
            delay_ns,
            jitter_ns,
            distribution: None,
            max_packets,
            max_bytes,
        },
    )
}

/// Any netem without tables, which are not read back.
fn netems() -> impl Strategy<Value = Netem> {
    let ns = || 0..i64::MAX.cast_unsigned();
    let packets = (losses(), randoms(), randoms(), randoms(), probability());
    let rest = (any::<(u32, u32, bool, Option<u64>)>(), ns(), ns());
    (packets, rest, rates(), option::of(slots())).prop_map(
        |(
            (loss, duplicate, corrupt, reorder, delay_correlation),
            ((limit, gap, ecn, seed), latency_ns, jitter_ns),
            rate,
            slot,
        )| Netem {
            limit,
            latency_ns,
            jitter_ns,
            delay_correlation,
            distribution: None,
            loss,
            duplicate,
            corrupt,
            reorder,
            gap,
            rate,
            slot,
            ecn,
            seed,
            bottleneck: None,
        },
    )
}

proptest! {
    #[test]
    fn every_netem_is_decoded_as_it_was_encoded(netem in netems()) {
        prop_assert_eq!(Netem::from_options(&netem.to_options()), Some(netem));
    }

    #[test]
    fn no_bytes_cause_a_panic(bytes: Vec<u8>, cut: usize, netem in netems()) {
        Netem::from_options(&bytes);
        let mut options = netem.to_options();
        options.truncate(cut % (options.len() + 1));
        let whole_base = options.len() >= 24;
        prop_assert_eq!(Netem::from_options(&options).is_some(), whole_base);
        for (at, byte) in bytes.iter().enumerate() {
            if let Some(place) = options.get_mut(at * 7) {
                *place = *byte;
            }
        }
        Netem::from_options(&options);
    }

    #[test]
    fn each_probability_survives_its_percentage(raw: u32) {
        let probability = Probability::from_raw(raw);
        prop_assert_eq!(Probability::from_percent(probability.percent()), probability);
    }
}
