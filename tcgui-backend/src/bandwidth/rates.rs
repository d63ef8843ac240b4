//! Computes rates from two consecutive samples and the time between them. Pure.
//!
//! A link is the same as in the earlier sample if namespace, index and name are equal and none of its traffic counters decreased.
//! Otherwise it starts with a rate of 0. This is the case for another namespace under the same name, for an interface that was
//! recreated with the same index, and after a reset of the counters.

use std::collections::HashMap;
use std::time::Instant;

use crate::kernel::link::{LinkCounters, Traffic};
use crate::kernel::netns::NetnsKey;

/// The counters of one link and its rates since the earlier sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rated {
    pub(super) counters: LinkCounters,
    pub(super) rx_bytes_per_s: f64,
    pub(super) tx_bytes_per_s: f64,
}

/// One sample of a namespace.
#[derive(Debug)]
struct Sampled {
    at: Instant,
    /// In the order of their indices.
    links: Vec<LinkCounters>,
}

/// The last sample of every namespace.
#[derive(Debug, Default)]
pub(super) struct Rates {
    last: HashMap<NetnsKey, Sampled>,
}

impl Rates {
    /// Removes the samples of namespaces that are not `present`.
    pub(super) fn keep(&mut self, present: impl Fn(&NetnsKey) -> bool) {
        self.last.retain(|key, _| present(key));
    }

    /// Stores a sample and returns its links with their rates, in the order of their indices. Links that are not in the sample
    /// are removed.
    pub(super) fn sample(
        &mut self,
        key: NetnsKey,
        at: Instant,
        mut links: Vec<LinkCounters>,
    ) -> Vec<Rated> {
        // The kernel sends links in this order, but does not guarantee it.
        links.sort_unstable_by_key(|link| link.ifindex);
        let before = self.last.get(&key);
        let rated = links
            .iter()
            .map(|now| rate(before.and_then(|before| before.of(now)), now, at))
            .collect();
        self.last.insert(key, Sampled { at, links });
        rated
    }

    #[cfg(test)]
    pub(super) fn namespaces(&self) -> usize {
        self.last.len()
    }
}

impl Sampled {
    /// Returns the earlier counters of the same link, and when they were read.
    fn of(&self, now: &LinkCounters) -> Option<(LinkCounters, Instant)> {
        let found = self
            .links
            .binary_search_by_key(&now.ifindex, |link| link.ifindex);
        let before = *self.links.get(found.ok()?)?;
        let same =
            before.name == now.name && has_grown(before.rx, now.rx) && has_grown(before.tx, now.tx);
        same.then_some((before, self.at))
    }
}

/// Returns whether no traffic counter decreased. Errors and drops are not compared: drivers sum them from several sources and may
/// correct them.
fn has_grown(before: Traffic, now: Traffic) -> bool {
    now.bytes >= before.bytes && now.packets >= before.packets
}

fn rate(before: Option<(LinkCounters, Instant)>, now: &LinkCounters, at: Instant) -> Rated {
    let per_second = |bytes: fn(&LinkCounters) -> u64| {
        let Some((before, then)) = &before else {
            return 0.0;
        };
        let seconds = at.saturating_duration_since(*then).as_secs_f64();
        if seconds > 0.0 {
            (bytes(now) - bytes(before)) as f64 / seconds
        } else {
            0.0
        }
    };
    Rated {
        counters: *now,
        rx_bytes_per_s: per_second(|link| link.rx.bytes),
        tx_bytes_per_s: per_second(|link| link.tx.bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::link::LinkName;
    use crate::namespace_watcher::MountedNamespaceId;

    fn link(ifindex: u32, name: &str, rx: u64, tx: u64) -> LinkCounters {
        let traffic = |bytes| Traffic {
            bytes,
            packets: bytes / 100,
            ..Traffic::default()
        };
        LinkCounters {
            ifindex,
            name: LinkName::new(name.as_bytes()),
            rx: traffic(rx),
            tx: traffic(tx),
        }
    }

    fn key(number: i64) -> NetnsKey {
        NetnsKey::Mounted(MountedNamespaceId::from_parts(4, 1, number, 0))
    }

    fn rates_of(rated: &[Rated]) -> Vec<(f64, f64)> {
        let pair = |rated: &Rated| (rated.rx_bytes_per_s, rated.tx_bytes_per_s);
        rated.iter().map(pair).collect()
    }

    /// Returns the rates of two samples of the host that are one second apart.
    fn second_of(before: &[LinkCounters], now: &[LinkCounters]) -> Vec<(f64, f64)> {
        let start = Instant::now();
        let mut rates = Rates::default();
        let first = rates.sample(NetnsKey::Host, start, before.to_vec());
        assert!(rates_of(&first).iter().all(|rates| *rates == (0.0, 0.0)));
        let later = start + Duration::from_secs(1);
        rates_of(&rates.sample(NetnsKey::Host, later, now.to_vec()))
    }

    #[test]
    fn a_rate_is_the_difference_divided_by_the_time() {
        let start = Instant::now();
        let mut rates = Rates::default();
        let mut sample = |ms, rx, tx| {
            let at = start + Duration::from_millis(ms);
            let links = vec![link(3, "v1", 7, 7), link(2, "v0", rx, tx)];
            rates_of(&rates.sample(NetnsKey::Host, at, links))[0]
        };
        assert_eq!(sample(0, 1000, 50), (0.0, 0.0), "the first");
        assert_eq!(sample(2000, 3000, 50), (1000.0, 0.0));
        assert_eq!(sample(2500, 4000, 150), (2000.0, 200.0));
        assert_eq!(sample(2500, 5000, 150), (0.0, 0.0), "no time between");
        let longest = sample(4500, u64::MAX, u64::MAX);
        assert!(longest.0 < 1e19 && longest.1 < 1e19, "{longest:?}");
    }

    #[test]
    fn a_replaced_link_starts_with_rate_zero() {
        let before = [link(2, "v0", 1000, 1000)];
        let cases = [
            ("reset", link(2, "v0", 0, 0)),
            (
                "recreated and busy in one direction",
                link(2, "v0", 10, 5000),
            ),
            ("renamed, or another one", link(2, "v1", 2000, 2000)),
            ("another index", link(3, "v0", 2000, 2000)),
        ];
        for (what, now) in cases {
            assert_eq!(second_of(&before, &[now]), [(0.0, 0.0)], "{what}");
        }
        assert_eq!(
            second_of(&before, &[link(2, "v0", 1500, 1000)]),
            [(500.0, 0.0)]
        );
    }

    #[test]
    fn samples_are_kept_by_key_and_removed_with_the_namespace() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut rates = Rates::default();
        rates.sample(key(1), start, vec![link(1, "lo", 10, 10)]);
        let other = rates.sample(key(2), later, vec![link(1, "lo", 90, 90)]);
        assert_eq!(
            rates_of(&other),
            [(0.0, 0.0)],
            "recreated under the same name"
        );
        rates.keep(|present| *present == key(2));
        assert_eq!(rates.namespaces(), 1);
        let forgotten = rates.sample(key(1), later, vec![link(1, "lo", 90, 90)]);
        assert_eq!(rates_of(&forgotten), [(0.0, 0.0)]);
    }

    #[test]
    fn a_link_missing_in_one_sample_starts_with_rate_zero() {
        let start = Instant::now();
        let mut rates = Rates::default();
        let mut sample = |s, links| {
            rates_of(&rates.sample(NetnsKey::Host, start + Duration::from_secs(s), links))
        };
        sample(0, vec![link(2, "v0", 10, 10)]);
        assert!(sample(1, vec![]).is_empty());
        assert_eq!(sample(2, vec![link(2, "v0", 90, 90)]), [(0.0, 0.0)]);
    }

    fn any_link() -> impl Strategy<Value = LinkCounters> {
        // Few indices and names, so that links of different samples match. The counters have any size.
        let counter = prop_oneof![any::<u64>(), 0..1000_u64];
        let traffic = (counter.clone(), counter).prop_map(|(bytes, packets)| Traffic {
            bytes,
            packets,
            errors: packets,
            dropped: bytes,
        });
        (0..4_u32, "[ab]", traffic.clone(), traffic).prop_map(|(ifindex, name, rx, tx)| {
            LinkCounters {
                ifindex,
                name: LinkName::new(name.as_bytes()),
                rx,
                tx,
            }
        })
    }

    fn any_samples() -> impl Strategy<Value = Vec<(i64, Duration, Vec<LinkCounters>)>> {
        let step = (0..5_000_000_000_u64).prop_map(Duration::from_nanos);
        let sample = (0..2_i64, step, vec(any_link(), 0..5));
        let unique = sample.prop_map(|(key, step, mut links)| {
            links.sort_by_key(|link| link.ifindex);
            links.dedup_by_key(|link| link.ifindex);
            (key, step, links)
        });
        vec(unique, 0..12)
    }

    proptest! {
        #[test]
        fn a_rate_never_exceeds_the_counter_difference(samples in any_samples()) {
            let mut now = Instant::now();
            let mut rates = Rates::default();
            let mut last: HashMap<_, (Instant, Vec<LinkCounters>)> = HashMap::new();
            for (number, step, links) in samples {
                now += step;
                let rated = rates.sample(key(number), now, links.clone());
                prop_assert_eq!(rated.len(), links.len());
                for one in &rated {
                    let earlier = last.get(&number).and_then(|(at, links)| {
                        let ifindex = one.counters.ifindex;
                        Some((at, links.iter().find(|link| link.ifindex == ifindex)?))
                    });
                    let before = earlier.map(|(_, before)| before);
                    let passed = |now: u64, before: Option<u64>| {
                        now.saturating_sub(before.unwrap_or(now))
                    };
                    let (rx, tx) = (one.counters.rx.bytes, one.counters.tx.bytes);
                    for (rate, passed) in [
                        (one.rx_bytes_per_s, passed(rx, before.map(|link| link.rx.bytes))),
                        (one.tx_bytes_per_s, passed(tx, before.map(|link| link.tx.bytes))),
                    ] {
                        prop_assert!(rate.is_finite() && rate >= 0.0, "{}", rate);
                        let time = earlier.map_or(0.0, |(at, _)| (now - *at).as_secs_f64());
                        // Rate × time is at most the counter difference, apart from rounding.
                        prop_assert!(
                            rate * time <= passed as f64 * (1.0 + 1e-9),
                            "{} over {} s of {}", rate, time, passed
                        );
                    }
                }
                last.insert(number, (now, links));
            }
        }

        #[test]
        fn growing_counters_are_measured_exactly(
            growth in vec((0..1_000_000_u64, 1..5_000_u64), 1..20)
        ) {
            let mut now = Instant::now();
            let mut rates = Rates::default();
            let mut bytes = 0;
            rates.sample(NetnsKey::Host, now, vec![link(1, "lo", 0, 0)]);
            for (more, ms) in growth {
                now += Duration::from_millis(ms);
                bytes += more;
                let rated = rates.sample(NetnsKey::Host, now, vec![link(1, "lo", bytes, bytes)]);
                let expected = more as f64 * 1000.0 / ms as f64;
                for (rx, tx) in rates_of(&rated) {
                    prop_assert!((rx - expected).abs() <= expected * 1e-9);
                    prop_assert!((tx - expected).abs() <= expected * 1e-9);
                }
            }
        }

        #[test]
        fn the_order_of_the_dump_does_not_matter(mut links in vec(any_link(), 0..5)) {
            links.sort_by_key(|link| link.ifindex);
            links.dedup_by_key(|link| link.ifindex);
            let start = Instant::now();
            let (mut forward, mut backward) = (Rates::default(), Rates::default());
            for s in 0..2 {
                let at = start + Duration::from_secs(s);
                links.reverse();
                let one = forward.sample(NetnsKey::Host, at, links.clone());
                links.reverse();
                let other = backward.sample(NetnsKey::Host, at, links.clone());
                prop_assert_eq!(one, other);
            }
        }
    }
}
