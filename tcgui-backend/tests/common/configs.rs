//! Random netem configurations for tests of the planner and of the kernel. All of them are valid.

use proptest::option;
use proptest::prelude::*;
use tcgui_shared::netem::{
    DelayConfig, Distribution, LossModel, NetemExtensions, PercentageConfig, RateLimitConfig,
    RateOverhead, ReorderConfig, SlotConfig, TcNetemConfig,
};

/// Any configuration without a seed, because kernels before 6.6 do not support one.
///
/// Its parts are boxed, because a single type would fill the stack of a test thread.
pub(crate) fn config() -> BoxedStrategy<TcNetemConfig> {
    let features = (
        share(),
        delay(),
        share(),
        reorder(),
        share(),
        (any::<bool>(), rate()),
    );
    let all = (features.boxed(), extensions().boxed());
    all.prop_map(|(features, mut extensions)| {
        let (loss, delay, duplicate, reorder, corrupt, (enabled, rate_kbps)) = features;
        if loss.enabled && loss.percentage > 0.0 {
            extensions.loss_model = None;
        }
        TcNetemConfig {
            loss,
            delay,
            duplicate,
            reorder,
            corrupt,
            rate_limit: RateLimitConfig { enabled, rate_kbps },
            extensions,
        }
    })
    .boxed()
}

/// A percentage, often 0 or 100.
fn percent() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        Just(100.0),
        0.0..=100.0_f64,
        (0..=200_u8).prop_map(|half| f64::from(half) / 2.0)
    ]
}

fn share() -> impl Strategy<Value = PercentageConfig> {
    (any::<bool>(), percent(), percent()).prop_map(|(enabled, percentage, correlation)| {
        PercentageConfig {
            enabled,
            percentage,
            correlation,
        }
    })
}

/// A time in ms, often 0, the maximum or a time with a fraction.
fn time(max: f64) -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(max), 0.0..=max, 0.0..=1.0_f64]
}

fn delay() -> impl Strategy<Value = DelayConfig> {
    (any::<bool>(), time(10_000.0), time(5_000.0), percent()).prop_map(
        |(enabled, base_ms, jitter_ms, correlation)| DelayConfig {
            enabled,
            base_ms,
            jitter_ms,
            correlation,
        },
    )
}

fn reorder() -> impl Strategy<Value = ReorderConfig> {
    (share(), 1..=10_u32).prop_map(|(share, gap)| ReorderConfig {
        enabled: share.enabled,
        percentage: share.percentage,
        correlation: share.correlation,
        gap,
    })
}

/// A rate in kbit/s. Above 34 359 738 kbit/s, the rate in bytes per second does not fit into 32 bits.
fn rate() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(1),
        Just(u32::MAX),
        1..=1_000_000_u32,
        34_359_730..=34_359_750_u32
    ]
}

fn distribution() -> impl Strategy<Value = Distribution> {
    prop_oneof![
        Just(Distribution::Normal),
        Just(Distribution::Pareto),
        Just(Distribution::ParetoNormal)
    ]
}

fn loss_model() -> impl Strategy<Value = LossModel> {
    let gilbert_elliott =
        [(); 4]
            .map(|()| percent())
            .prop_map(|[p, r, bad, good]| LossModel::GilbertElliott {
                p,
                r,
                bad_loss: bad,
                good_loss: good,
            });
    let four_state = [(); 5]
        .map(|()| percent())
        .prop_map(|[p13, p31, p32, p23, p14]| LossModel::FourState {
            p13,
            p31,
            p32,
            p23,
            p14,
        });
    prop_oneof![gilbert_elliott, four_state]
}

fn slot() -> impl Strategy<Value = SlotConfig> {
    let times = prop_oneof![
        (0.001..=10_000.0_f64, option::of(time(10_000.0))).prop_map(|(min, max)| SlotConfig {
            min_ms: Some(min),
            max_ms: max,
            ..SlotConfig::default()
        }),
        (distribution(), time(10_000.0), 0.001..=5_000.0_f64).prop_map(
            |(distribution, delay, jitter)| SlotConfig {
                distribution: Some(distribution),
                delay_ms: Some(delay),
                jitter_ms: Some(jitter),
                ..SlotConfig::default()
            }
        )
    ];
    let count = || option::of(1..=i32::MAX.cast_unsigned());
    (times, count(), count()).prop_map(|(times, packets, bytes)| SlotConfig {
        packets,
        bytes,
        ..times
    })
}

fn overhead() -> impl Strategy<Value = RateOverhead> {
    (-20..=65_535_i32, 0..=65_535_u32, 0..=65_535_i32).prop_map(|(packet, cell_size, cell)| {
        RateOverhead {
            packet,
            cell_size,
            cell,
        }
    })
}

fn extensions() -> impl Strategy<Value = NetemExtensions> {
    (
        option::of(distribution()),
        option::of(loss_model()),
        option::of(any::<bool>()),
        option::of(overhead()),
        option::of(slot()),
        option::of(1..=u32::MAX),
    )
        .prop_map(
            |(distribution, loss_model, ecn, rate_overhead, slot, limit)| NetemExtensions {
                distribution,
                loss_model,
                ecn,
                rate_overhead,
                rate_limit_bps: None,
                queue: None,
                slot,
                seed: None,
                limit,
            },
        )
}
