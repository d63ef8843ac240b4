//! What a request asks for, and what it must not ask for.

use proptest::prelude::*;
use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::netem::{
    Distribution as WireDistribution, FlatNetem, LossModel, QueueConfig, RateOverhead, SlotConfig,
    TcNetemConfig,
};
use tcgui_shared::tc::TcOperation;

use super::*;
use crate::kernel::netem::{Distribution, Loss, MAX_JITTER_NS, Rate, Slot};
use crate::kernel::tbf::Tbf;
use crate::tc::desired::{Desired, TcInputError};
use crate::tc::note::Note;

fn from_flat(flat: FlatNetem) -> Desired {
    Desired::from_flat(&flat, LINK).unwrap()
}

/// Changes a configuration in which nothing is on, and returns what it asks for then.
fn changed(change: impl FnOnce(&mut TcNetemConfig)) -> Result<Desired, TcInputError> {
    changed_on(LINK, change)
}

fn changed_on(
    link: LinkFacts,
    change: impl FnOnce(&mut TcNetemConfig),
) -> Result<Desired, TcInputError> {
    let mut config = TcNetemConfig::default();
    change(&mut config);
    Desired::from_config(&config, link)
}

/// Returns the field that the error is about, after checking that its text names it.
fn wrong(result: Result<Desired, TcInputError>) -> &'static str {
    let err = result.unwrap_err();
    assert!(err.to_string().starts_with(err.field()), "{err}");
    assert_eq!(err.kind(), ErrorKind::Invalid);
    err.field()
}

#[test]
fn a_full_flat_request_becomes_a_full_netem() {
    let desired = from_flat(FlatNetem {
        loss: 1.5,
        correlation: Some(10.0),
        delay_ms: Some(40.25),
        delay_jitter_ms: Some(0.000_001),
        delay_correlation: Some(20.0),
        duplicate_percent: Some(2.0),
        duplicate_correlation: Some(30.0),
        reorder_percent: Some(3.0),
        reorder_correlation: Some(40.0),
        reorder_gap: Some(7),
        corrupt_percent: Some(4.0),
        corrupt_correlation: Some(50.0),
        rate_limit_kbps: Some(u32::MAX),
        ..FlatNetem::default()
    });
    let expected = Netem {
        limit: 200_000,
        latency_ns: 40_250_000,
        jitter_ns: 1,
        delay_correlation: percent(20.0),
        loss: Loss::Random(random(1.5, 10.0)),
        duplicate: random(2.0, 30.0),
        reorder: random(3.0, 40.0),
        gap: 7,
        corrupt: random(4.0, 50.0),
        // 200 ms at this rate do not fit into the 32 bits of the queue.
        bottleneck: Some(Tbf {
            bytes_per_s: 536_870_911_875,
            burst: 2_684_356_077,
            limit: u32::MAX,
        }),
        ..Netem::default()
    };
    assert_eq!(desired.netem, Some(expected));
    let notes: Vec<_> = desired.notes.iter().map(Note::field).collect();
    assert_eq!(
        notes,
        [
            "loss.correlation",
            "duplicate.correlation",
            "corrupt.correlation",
            "delay.correlation"
        ]
    );
}

#[test]
fn a_flat_request_with_nothing_on_asks_for_no_netem() {
    let correlations = FlatNetem {
        correlation: Some(10.0),
        delay_jitter_ms: Some(5.0),
        delay_correlation: Some(10.0),
        reorder_gap: Some(3),
        rate_limit_kbps: Some(0),
        delay_ms: Some(0.0),
        ..FlatNetem::default()
    };
    for flat in [FlatNetem::default(), correlations] {
        assert_eq!(from_flat(flat).netem, None);
        let operation = TcOperation::Apply(flat);
        let desired = Desired::from_operation(&operation, LINK).unwrap();
        assert_eq!(desired.netem, None);
    }
    let removed = Desired::from_operation(&TcOperation::Remove, LINK).unwrap();
    assert_eq!(removed.netem, None);
    let mut config = TcNetemConfig::default();
    let structured = |config| {
        let operation = TcOperation::ApplyConfig { config };
        Desired::from_operation(&operation, LINK).unwrap().netem
    };
    assert_eq!(structured(config), None);
    // A queue alone can be asked for, so that one of another program can be restored.
    config.extensions.limit = Some(1000);
    assert_eq!(structured(config), Some(short()));
}

#[test]
fn a_feature_is_on_only_above_zero() {
    let on = |config: &mut TcNetemConfig| {
        config.loss.enabled = true;
        config.delay.enabled = true;
        config.duplicate.enabled = true;
        config.reorder.enabled = true;
        config.corrupt.enabled = true;
        config.rate_limit.enabled = true;
        config.rate_limit.rate_kbps = 0;
    };
    assert_eq!(changed(on).unwrap().netem, None);
    for never in [
        LossModel::GilbertElliott {
            p: 0.0,
            r: 10.0,
            bad_loss: 100.0,
            good_loss: 0.0,
        },
        LossModel::GilbertElliott {
            p: 10.0,
            r: 10.0,
            bad_loss: 0.0,
            good_loss: 0.0,
        },
        LossModel::FourState {
            p13: 0.0,
            p31: 1.0,
            p32: 1.0,
            p23: 1.0,
            p14: 0.0,
        },
    ] {
        let desired = changed(|config| config.extensions.loss_model = Some(never)).unwrap();
        assert_eq!(desired.netem, None, "{never:?}");
    }
    let mut alone = TcNetemConfig::default();
    on(&mut alone);
    alone.rate_limit.rate_kbps = 1;
    let netem = Desired::from_config(&alone, LINK).unwrap().netem.unwrap();
    assert!(!netem.loses() && !netem.reorders() && netem.latency_ns == 0);
}

#[test]
fn a_rate_is_exact_to_the_byte() {
    let flat = |kbps: Option<u32>, bps: Option<u64>| {
        let mut flat = FlatNetem {
            rate_limit_kbps: kbps,
            ..FlatNetem::default()
        };
        flat.extensions.rate_limit_bps = bps;
        Desired::from_flat(&flat, LINK)
    };
    let bytes = |kbps, bps| flat(kbps, bps).unwrap().netem.unwrap().rate_in_force();
    assert_eq!(bytes(Some(101), Some(100_500)), 12_563);
    assert_eq!(bytes(None, Some(100_504)), 12_563);
    assert_eq!(bytes(Some(1), Some(3)), 1);
    assert_eq!(wrong(flat(Some(500), Some(100_500))), "rate_limit_bps");
    assert_eq!(flat(Some(0), Some(0)).unwrap().netem, None);
}

#[test]
fn each_feature_alone_asks_for_a_netem() {
    let off = FlatNetem::default();
    let on = Some(1.0);
    let mut modelled = off;
    modelled.extensions.loss_model = Some(LossModel::GilbertElliott {
        p: 1.0,
        r: 10.0,
        bad_loss: 100.0,
        good_loss: 0.0,
    });
    for flat in [
        FlatNetem { loss: 1.0, ..off },
        FlatNetem {
            delay_ms: on,
            ..off
        },
        FlatNetem {
            duplicate_percent: on,
            ..off
        },
        FlatNetem {
            reorder_percent: on,
            ..off
        },
        FlatNetem {
            corrupt_percent: on,
            ..off
        },
        FlatNetem {
            rate_limit_kbps: Some(1),
            ..off
        },
        modelled,
    ] {
        assert!(from_flat(flat).netem.is_some(), "{flat:?}");
    }
}

#[test]
fn reordering_gets_the_delay_that_it_needs() {
    let desired = from_flat(FlatNetem {
        reorder_percent: Some(1.0),
        ..FlatNetem::default()
    });
    let netem = desired.netem.unwrap();
    assert_eq!((netem.latency_ns, netem.gap), (MS, 5));
    assert_eq!(desired.notes, [Note::DelayAdded]);
    assert_eq!(
        desired.notes[0].to_string(),
        "delay 1 ms added, reordering needs one"
    );
}

#[test]
fn values_without_effect_are_left_out_with_a_note() {
    let desired = changed(|config| {
        config.delay.enabled = true;
        config.delay.jitter_ms = 3.0;
        config.extensions.distribution = Some(WireDistribution::Normal);
        config.extensions.rate_overhead = Some(RateOverhead::default());
        config.extensions.ecn = Some(true);
    })
    .unwrap();
    let fields: Vec<_> = desired
        .notes
        .iter()
        .map(|note| match note {
            Note::NoEffect { field, .. } => *field,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        fields,
        ["delay.jitter_ms", "distribution", "rate_overhead", "ecn"]
    );
    assert_eq!(desired.netem, None);
}

#[test]
fn the_ends_of_the_ranges_are_accepted() {
    let desired = from_flat(FlatNetem {
        loss: 100.0,
        delay_ms: Some(10_000.0),
        delay_jitter_ms: Some(5_000.0),
        rate_limit_kbps: Some(1),
        ..FlatNetem::default()
    });
    let netem = desired.netem.unwrap();
    assert_eq!(netem.loss, Loss::Random(random(100.0, 0.0)));
    assert_eq!(netem.latency_ns, 10_000 * MS);
    assert_eq!(netem.jitter_ns, MAX_JITTER_NS);
    assert_eq!(desired.notes, [Note::JitterCapped]);
}

#[test]
fn a_wrong_number_is_named_in_both_forms() {
    type Set<T> = fn(&mut T, f64);
    let structured: [(&str, Set<TcNetemConfig>); 11] = [
        ("loss.percentage", |c, v| c.loss.percentage = v),
        ("loss.correlation", |c, v| c.loss.correlation = v),
        ("delay.base_ms", |c, v| c.delay.base_ms = v),
        ("delay.jitter_ms", |c, v| c.delay.jitter_ms = v),
        ("delay.correlation", |c, v| c.delay.correlation = v),
        ("duplicate.percentage", |c, v| c.duplicate.percentage = v),
        ("duplicate.correlation", |c, v| c.duplicate.correlation = v),
        ("reorder.percentage", |c, v| c.reorder.percentage = v),
        ("reorder.correlation", |c, v| c.reorder.correlation = v),
        ("corrupt.percentage", |c, v| c.corrupt.percentage = v),
        ("corrupt.correlation", |c, v| c.corrupt.correlation = v),
    ];
    let flat: [(&str, Set<FlatNetem>); 11] = [
        ("loss", |f, v| f.loss = v),
        ("correlation", |f, v| f.correlation = Some(v)),
        ("delay_ms", |f, v| f.delay_ms = Some(v)),
        ("delay_jitter_ms", |f, v| f.delay_jitter_ms = Some(v)),
        ("delay_correlation", |f, v| f.delay_correlation = Some(v)),
        ("duplicate_percent", |f, v| f.duplicate_percent = Some(v)),
        ("duplicate_correlation", |f, v| {
            f.duplicate_correlation = Some(v)
        }),
        ("reorder_percent", |f, v| f.reorder_percent = Some(v)),
        ("reorder_correlation", |f, v| {
            f.reorder_correlation = Some(v)
        }),
        ("corrupt_percent", |f, v| f.corrupt_percent = Some(v)),
        ("corrupt_correlation", |f, v| {
            f.corrupt_correlation = Some(v)
        }),
    ];
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.001, 10_000.1] {
        for (field, set) in structured {
            assert_eq!(wrong(changed(|config| set(config, bad))), field, "{bad}");
        }
        for (field, set) in flat {
            let mut request = FlatNetem::default();
            set(&mut request, bad);
            assert_eq!(wrong(Desired::from_flat(&request, LINK)), field, "{bad}");
        }
    }
    let text = changed(|config| config.loss.percentage = 101.0).unwrap_err();
    assert_eq!(
        text.to_string(),
        "loss.percentage is 101, not between 0 and 100 %"
    );
}

#[test]
fn the_gap_is_checked_only_where_packets_are_reordered() {
    for percentage in [0.0, 1.0] {
        let gap = changed(|config| {
            config.reorder.enabled = true;
            config.reorder.percentage = percentage;
            config.reorder.gap = 0;
        });
        if percentage > 0.0 {
            assert_eq!(wrong(gap), "reorder.gap");
        } else {
            assert_eq!(gap.unwrap().netem, None);
        }
    }
}

#[test]
fn the_queue_holds_all_packets_in_flight() {
    let limit = |flat: FlatNetem, link: LinkFacts| {
        Desired::from_flat(&flat, link)
            .unwrap()
            .netem
            .unwrap()
            .limit
    };
    let slow = FlatNetem {
        delay_ms: Some(100.0),
        delay_jitter_ms: Some(20.0),
        rate_limit_kbps: Some(10_000),
        ..FlatNetem::default()
    };
    // 1.25 MB/s for 120 ms are 2 344 frames of 64 bytes. Twice that, and 3 906 in the queue of the bottleneck.
    assert_eq!(limit(slow, LINK), 8_594);
    let without = LinkFacts {
        bottleneck: false,
        ..LINK
    };
    assert_eq!(limit(slow, without), 2_344);
    // 2 s at 4 Mbit/s: 4 000 small packets of the field report, and as many as fit.
    let report = FlatNetem {
        delay_ms: Some(2_000.0),
        rate_limit_kbps: Some(4_000),
        ..FlatNetem::default()
    };
    assert_eq!(limit(report, LINK), 32_812);
    let unlimited = FlatNetem {
        rate_limit_kbps: None,
        ..slow
    };
    assert_eq!(limit(unlimited, LINK), 200_000);
    let thin = LinkFacts {
        speed: Some(10_000_000),
        ..LINK
    };
    assert_eq!(limit(unlimited, thin), 2_344);
    // The MTU does not matter: small packets pass every link.
    let jumbo = LinkFacts { mtu: 9_000, ..thin };
    assert_eq!(limit(unlimited, jumbo), 2_344);
    let lossy = FlatNetem {
        loss: 1.0,
        ..FlatNetem::default()
    };
    assert_eq!(limit(lossy, thin), 1_000);
    let mut own = slow;
    own.extensions.limit = Some(5);
    assert_eq!(limit(own, LINK), 5);
    own.extensions.limit = Some(0);
    assert_eq!(wrong(Desired::from_flat(&own, LINK)), "limit");
}

#[test]
fn extensions_become_netem_attributes() {
    let desired = changed(|config| {
        config.delay.enabled = true;
        config.delay.base_ms = 10.0;
        config.delay.jitter_ms = 2.0;
        config.rate_limit.enabled = true;
        let extensions = &mut config.extensions;
        extensions.distribution = Some(WireDistribution::ParetoNormal);
        extensions.loss_model = Some(LossModel::GilbertElliott {
            p: 1.0,
            r: 10.0,
            bad_loss: 70.0,
            good_loss: 0.1,
        });
        extensions.ecn = Some(true);
        extensions.rate_overhead = Some(RateOverhead {
            packet: -14,
            cell_size: 48,
            cell: 5,
        });
        extensions.slot = Some(SlotConfig {
            distribution: Some(WireDistribution::Pareto),
            delay_ms: Some(3.0),
            jitter_ms: Some(5_000.0),
            packets: Some(8),
            bytes: Some(9),
            ..SlotConfig::default()
        });
        extensions.seed = Some(u64::MAX);
        extensions.limit = Some(77);
    })
    .unwrap();
    let expected = Netem {
        limit: 77,
        latency_ns: 10 * MS,
        jitter_ns: 2 * MS,
        distribution: Some(Distribution::ParetoNormal),
        loss: Loss::GilbertElliott {
            p: percent(1.0),
            r: percent(10.0),
            h: percent(70.0).contrary(),
            k1: percent(0.1),
        },
        rate: Rate {
            bytes_per_s: 125_000,
            packet_overhead: -14,
            cell_size: 48,
            cell_overhead: 5,
        },
        slot: Some(Slot {
            delay_ns: 3 * MS,
            jitter_ns: MAX_JITTER_NS,
            distribution: Some(Distribution::Pareto),
            max_packets: 8,
            max_bytes: 9,
            ..Slot::default()
        }),
        ecn: true,
        seed: Some(u64::MAX),
        ..Netem::default()
    };
    assert_eq!(desired.netem, Some(expected));
    // Cells can be counted only by netem itself.
    let own_rate = Note::OwnRate { limit: 77 };
    assert_eq!(desired.notes, [Note::JitterCapped, own_rate]);
}

#[test]
fn a_rate_is_a_bottleneck_with_a_queue() {
    let with = |link: LinkFacts, change: fn(&mut TcNetemConfig)| {
        changed_on(link, |config| {
            config.rate_limit.enabled = true;
            config.rate_limit.rate_kbps = 512;
            change(config);
        })
    };
    let bottleneck = |link, change| {
        with(link, change)
            .unwrap()
            .netem
            .unwrap()
            .bottleneck
            .unwrap()
    };
    let filter = |burst, limit| Tbf {
        bytes_per_s: 64_000,
        burst,
        limit,
    };
    // A frame, and what is sent in 5 ms; ten frames are more than 200 ms.
    assert_eq!(bottleneck(LINK, |_| {}), filter(1_838, 15_140));
    let queue = |ms, bytes| Some(QueueConfig { ms, bytes });
    let half_a_second = |config: &mut TcNetemConfig| {
        config.extensions.queue = Some(QueueConfig {
            ms: Some(500.0),
            bytes: None,
        });
    };
    assert_eq!(bottleneck(LINK, half_a_second), filter(1_838, 32_000));
    let tiny = |config: &mut TcNetemConfig| {
        config.extensions.queue = Some(QueueConfig {
            ms: Some(500.0),
            bytes: Some(1),
        });
    };
    // The largest frame always fits.
    assert_eq!(bottleneck(LINK, tiny), filter(1_518, 1_518));
    let loopback = LinkFacts {
        mtu: 65_536,
        ..LINK
    };
    assert_eq!(bottleneck(loopback, |_| {}), filter(65_554, 65_554));
    // Jitter alone does not reorder, with or without a bottleneck.
    let jitter = with(LINK, |config| {
        config.delay.enabled = true;
        config.delay.base_ms = 10.0;
        config.delay.jitter_ms = 2.0;
    });
    assert_eq!(jitter.unwrap().netem.unwrap().rate, Rate::ORDER);
    for (wrong_queue, field) in [
        (queue(None, None), "queue.ms"),
        (queue(Some(-1.0), None), "queue.ms"),
        (queue(None, Some(0)), "queue.bytes"),
    ] {
        let result = changed(|config| config.extensions.queue = wrong_queue);
        assert_eq!(wrong(result), field);
    }
    let idle = changed(|config| {
        config.delay.enabled = true;
        config.delay.base_ms = 10.0;
        config.extensions.queue = queue(Some(5.0), None);
    });
    assert_eq!(idle.unwrap().notes[0].field(), "queue");
}

#[test]
fn without_a_bottleneck_netem_limits_the_rate() {
    let without = LinkFacts {
        bottleneck: false,
        ..LINK
    };
    let desired = changed_on(without, |config| {
        config.rate_limit.enabled = true;
        config.rate_limit.rate_kbps = 512;
    });
    let desired = desired.unwrap();
    let netem = desired.netem.unwrap();
    assert_eq!(
        (
            netem.bottleneck,
            netem.rate.bytes_per_s,
            netem.rate_in_force()
        ),
        (None, 64_000, 64_000)
    );
    let limit = netem.limit;
    assert_eq!(desired.notes, [Note::NoBottleneck, Note::OwnRate { limit }]);
}

#[test]
fn wrong_extensions_are_named() {
    let slot = |slot: SlotConfig| wrong(changed(|config| config.extensions.slot = Some(slot)));
    let off = SlotConfig::default();
    let normal = Some(WireDistribution::Normal);
    assert_eq!(slot(off), "slot.min_ms");
    assert_eq!(
        slot(SlotConfig {
            distribution: normal,
            ..off
        }),
        "slot.jitter_ms"
    );
    assert_eq!(
        slot(SlotConfig {
            delay_ms: Some(1.0),
            ..off
        }),
        "slot.distribution"
    );
    assert_eq!(
        slot(SlotConfig {
            max_ms: Some(1e9),
            ..off
        }),
        "slot.max_ms"
    );
    assert_eq!(
        slot(SlotConfig {
            packets: Some(u32::MAX),
            ..off
        }),
        "slot.packets"
    );
    let both = SlotConfig {
        distribution: normal,
        jitter_ms: Some(1.0),
        min_ms: Some(1.0),
        ..off
    };
    assert_eq!(slot(both), "slot.distribution");
    let model = LossModel::FourState {
        p13: 1.0,
        p31: 2.0,
        p32: 3.0,
        p23: 4.0,
        p14: f64::NAN,
    };
    let model = changed(|config| config.extensions.loss_model = Some(model));
    assert_eq!(wrong(model), "loss_model.p14");
    let two_losses = changed(|config| {
        config.loss.enabled = true;
        config.loss.percentage = 1.0;
        config.extensions.loss_model = Some(LossModel::GilbertElliott {
            p: 1.0,
            r: 9.0,
            bad_loss: 100.0,
            good_loss: 0.0,
        });
    });
    assert_eq!(wrong(two_losses), "loss_model");
    let overhead = changed(|config| {
        config.rate_limit.enabled = true;
        config.extensions.rate_overhead = Some(RateOverhead {
            packet: -21,
            ..RateOverhead::default()
        });
    });
    assert_eq!(wrong(overhead), "rate_overhead.packet");
}

#[test]
fn the_loss_beside_a_model_may_be_what_the_model_loses() {
    let with = |percentage: f64| {
        changed(|config| {
            config.loss.enabled = true;
            config.loss.percentage = percentage;
            config.extensions.loss_model = Some(LossModel::GilbertElliott {
                p: 4.0,
                r: 46.0,
                bad_loss: 100.0,
                good_loss: 0.0,
            });
        })
    };
    let netem = with(8.0).unwrap().netem.unwrap();
    assert!(
        matches!(netem.loss, Loss::GilbertElliott { .. }),
        "{netem:?}"
    );
    assert_eq!(wrong(with(8.1)), "loss_model");
}

proptest! {
    #[test]
    fn every_valid_configuration_is_accepted(config in configs::config(), mtu: u32, speed: Option<u64>) {
        let link = LinkFacts { mtu, speed, bottleneck: mtu.is_multiple_of(2) };
        let desired = Desired::from_config(&config, link).unwrap();
        let Some(netem) = desired.netem else {
            return Ok(());
        };
        prop_assert!(netem.limit > 0);
        prop_assert!(netem.jitter_ns <= MAX_JITTER_NS);
        prop_assert!(!netem.reorders() || netem.latency_ns > 0);
    }
}
