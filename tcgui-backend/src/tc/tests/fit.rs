//! The sizes of a netem on a link whose MTU or speed changes.

use tcgui_shared::netem::{FlatNetem, QueueConfig};

use super::LINK;
use crate::kernel::netem::Netem;
use crate::tc::desired::{Desired, LinkFacts, fitted};

const GIGABIT: u64 = 1_000_000_000;

fn link(mtu: u32, speed: Option<u64>) -> LinkFacts {
    LinkFacts { mtu, speed, ..LINK }
}

fn asked(flat: FlatNetem, on: LinkFacts) -> Netem {
    Desired::from_flat(&flat, on).unwrap().netem.unwrap()
}

fn delay() -> FlatNetem {
    FlatNetem {
        delay_ms: Some(1.0),
        ..FlatNetem::default()
    }
}

fn slow() -> FlatNetem {
    FlatNetem {
        rate_limit_kbps: Some(512),
        ..delay()
    }
}

/// Checks that a netem that was made before the change becomes the one that the same request makes after it.
fn follows(flat: FlatNetem, before: LinkFacts, now: LinkFacts) {
    let (old, new) = (asked(flat, before), asked(flat, now));
    assert_ne!(old, new);
    assert_eq!(fitted(&old, before, now), Some(new));
    assert_eq!(fitted(&new, now, now), None);
}

#[test]
fn the_limit_follows_the_speed() {
    let speeds = [
        Some(10 * GIGABIT),
        Some(100 * GIGABIT),
        Some(GIGABIT * 25 / 10),
    ];
    for speed in speeds {
        follows(delay(), link(1500, None), link(1500, speed));
        follows(delay(), link(1500, speed), link(1500, Some(GIGABIT)));
    }
    // 10 Gbit/s for 1 ms are 19 532 packets of 64 bytes.
    let fast = fitted(&asked(delay(), LINK), LINK, link(1500, Some(10 * GIGABIT)));
    assert_eq!(fast.unwrap().limit, 19_532);
}

#[test]
fn a_link_without_a_carrier_keeps_its_limit() {
    let up = link(1500, Some(10 * GIGABIT));
    assert_eq!(fitted(&asked(delay(), up), up, link(1500, None)), None);
}

#[test]
fn with_a_rate_limit_the_speed_does_not_matter() {
    let now = link(1500, Some(10 * GIGABIT));
    assert_eq!(fitted(&asked(slow(), LINK), LINK, now), None);
}

#[test]
fn the_bottleneck_follows_the_mtu_in_both_directions() {
    for (before, now) in [
        (1_500, 9_000),
        (9_000, 1_500),
        (1_500, 65_536),
        (65_536, 576),
    ] {
        follows(slow(), link(before, None), link(now, None));
    }
}

#[test]
fn requested_sizes_stay() {
    let now = link(1500, Some(10 * GIGABIT));
    let mut limited = delay();
    limited.extensions.limit = Some(77);
    assert_eq!(fitted(&asked(limited, LINK), LINK, now), None);
    // A requested queue stays, unless a frame does not fit.
    let mut queued = slow();
    queued.extensions.queue = Some(QueueConfig {
        ms: None,
        bytes: Some(30_000),
    });
    for (mtu, limit) in [(9_000, 30_000), (65_536, 65_554)] {
        let fitted = fitted(&asked(queued, LINK), LINK, link(mtu, None)).unwrap();
        let bottleneck = fitted.bottleneck.unwrap();
        assert!(bottleneck.holds(mtu + 18), "{bottleneck:?}");
        assert_eq!(bottleneck.limit, limit);
    }
}

/// The MTU was changed while the daemon did not run.
#[test]
fn frames_pass_on_a_link_that_is_seen_for_the_first_time() {
    let jumbo = link(9_000, None);
    let fitted = fitted(&asked(slow(), LINK), jumbo, jumbo).unwrap();
    assert!(fitted.bottleneck.unwrap().holds(9_018));
}
