//! Converts rates and qdisc statistics to the types of the wire. Pure.

use tcgui_shared::bandwidth::{BandwidthStats, BandwidthUpdate};
use tcgui_shared::tc::{RateEstimate, TcStatisticsUpdate};

use super::rates::Rated;
use super::{NetnsCounterTarget, QdiscStatistics};
use crate::bus::Sample;

/// The publishing backend, and the time at which the counters were read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp<'a> {
    pub(super) backend_name: &'a str,
    /// Seconds since the Unix epoch.
    pub(super) unix_s: u64,
}

/// Adds the samples of one namespace: all links first, then all qdiscs.
///
/// A link is published only if the counter targets have a link with the same index and name. The next targets contain the links
/// that were renamed or recreated. `rated` is sorted by index.
pub(super) fn add_samples(
    samples: &mut Vec<Sample>,
    entry: &NetnsCounterTarget,
    rated: &[Rated],
    qdiscs: &[QdiscStatistics],
    stamp: Stamp<'_>,
) {
    let shown = entry.links.iter().filter_map(|link| {
        let found = rated.binary_search_by_key(&link.ifindex, |rated| rated.counters.ifindex);
        let rated = rated.get(found.ok()?)?;
        (rated.counters.name.as_bytes() == link.name.as_bytes()).then_some((link, rated))
    });
    let netns = &entry.name;
    let namespace = netns.to_wire();
    for (link, rated) in shown.clone() {
        let update = BandwidthUpdate {
            namespace: namespace.clone(),
            interface: link.name.to_wire(),
            stats: stats(rated, stamp),
            backend_name: stamp.backend_name.to_owned(),
        };
        samples.push(Sample::Bandwidth(netns.clone(), link.name.clone(), update));
    }
    for (link, _) in shown.filter(|(link, _)| link.root_netem) {
        let of_link = |qdisc: &&QdiscStatistics| qdisc.ifindex == link.ifindex;
        let Some(qdisc) = qdiscs.iter().find(of_link) else {
            continue;
        };
        let update = TcStatisticsUpdate {
            namespace: namespace.clone(),
            interface: link.name.to_wire(),
            backend_name: stamp.backend_name.to_owned(),
            timestamp: stamp.unix_s,
            stats_basic: qdisc.basic,
            stats_queue: qdisc.queue,
            stats_rate_est: qdisc
                .rate_est
                .filter(|rate| *rate != RateEstimate::default()),
        };
        samples.push(Sample::TcStatistics(
            netns.clone(),
            link.name.clone(),
            update,
        ));
    }
}

fn stats(rated: &Rated, stamp: Stamp<'_>) -> BandwidthStats {
    let (rx, tx) = (rated.counters.rx, rated.counters.tx);
    BandwidthStats {
        rx_bytes: rx.bytes,
        rx_packets: rx.packets,
        rx_errors: rx.errors,
        rx_dropped: rx.dropped,
        tx_bytes: tx.bytes,
        tx_packets: tx.packets,
        tx_errors: tx.errors,
        tx_dropped: tx.dropped,
        timestamp: stamp.unix_s,
        rx_bytes_per_sec: rated.rx_bytes_per_s,
        tx_bytes_per_sec: rated.tx_bytes_per_s,
    }
}

#[cfg(test)]
mod tests {
    use tcgui_shared::names::{InterfaceName, NamespaceName};
    use tcgui_shared::tc::{BasicStats, QueueStats};

    use super::*;
    use crate::bandwidth::LinkCounterTarget;
    use crate::kernel::link::{LinkCounters, LinkName, Traffic};
    use crate::kernel::netns::NetnsKey;

    fn link(ifindex: u32, name: &str, root_netem: bool) -> LinkCounterTarget {
        LinkCounterTarget {
            ifindex,
            name: InterfaceName::new(name).unwrap(),
            root_netem,
        }
    }

    fn rated(ifindex: u32, name: &str) -> Rated {
        let traffic = |base| Traffic {
            bytes: base,
            packets: base + 1,
            errors: base + 2,
            dropped: base + 3,
        };
        Rated {
            counters: LinkCounters {
                ifindex,
                name: LinkName::new(name.as_bytes()),
                rx: traffic(10),
                tx: traffic(20),
            },
            rx_bytes_per_s: 1250.5,
            tx_bytes_per_s: 310.0,
        }
    }

    fn qdisc(ifindex: u32, rate: u32) -> QdiscStatistics {
        QdiscStatistics {
            ifindex,
            basic: Some(BasicStats::default()),
            queue: Some(QueueStats::default()),
            rate_est: Some(RateEstimate { bps: rate, pps: 0 }),
        }
    }

    fn samples(
        entry: &NetnsCounterTarget,
        rated: &[Rated],
        qdiscs: &[QdiscStatistics],
    ) -> Vec<Sample> {
        let stamp = Stamp {
            backend_name: "edge1",
            unix_s: 1000,
        };
        let mut samples = Vec::new();
        add_samples(&mut samples, entry, rated, qdiscs, stamp);
        samples
    }

    fn summary(samples: &[Sample]) -> Vec<String> {
        let line = |sample: &Sample| match sample {
            Sample::Bandwidth(netns, link, _) => format!("{netns}/{link}"),
            Sample::TcStatistics(netns, link, _) => format!("{netns}/{link} tc"),
        };
        samples.iter().map(line).collect()
    }

    #[test]
    fn the_links_come_first_then_their_netems() {
        let entry = NetnsCounterTarget {
            key: NetnsKey::Host,
            nsid: None,
            name: NamespaceName::Host,
            netns_refs: Vec::new(),
            links: [
                link(1, "lo", true),
                link(2, "v0", false),
                link(3, "v1", true),
            ]
            .into(),
        };
        let all = [
            rated(1, "lo"),
            rated(2, "v0"),
            rated(3, "v1"),
            rated(4, "hidden"),
        ];
        assert_eq!(
            summary(&samples(
                &entry,
                &all,
                &[qdisc(3, 0), qdisc(1, 0), qdisc(2, 0)]
            )),
            [
                "default/lo",
                "default/v0",
                "default/v1",
                "default/lo tc",
                "default/v1 tc",
            ]
        );
        let changed = [rated(1, "lo"), rated(2, "renamed")];
        assert_eq!(
            summary(&samples(&entry, &changed, &[qdisc(3, 0)])),
            ["default/lo"],
            "what vanished or was renamed is left out, with its qdisc"
        );
    }

    #[test]
    fn each_counter_is_in_its_wire_field() {
        let entry = NetnsCounterTarget {
            key: NetnsKey::Host,
            nsid: None,
            name: NamespaceName::Host,
            netns_refs: Vec::new(),
            links: [link(1, "lo", true)].into(),
        };
        let samples = samples(&entry, &[rated(1, "lo")], &[qdisc(1, 9)]);
        let [
            Sample::Bandwidth(_, _, bandwidth),
            Sample::TcStatistics(_, _, statistics),
        ] = &samples[..]
        else {
            panic!("{samples:?}")
        };
        let json = serde_json::to_value(bandwidth).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "namespace": "default", "interface": "lo", "backend_name": "edge1",
                "stats": {
                    "rx_bytes": 10, "rx_packets": 11, "rx_errors": 12, "rx_dropped": 13,
                    "tx_bytes": 20, "tx_packets": 21, "tx_errors": 22, "tx_dropped": 23,
                    "timestamp": 1000, "rx_bytes_per_sec": 1250.5, "tx_bytes_per_sec": 310.0,
                }
            })
        );
        assert_eq!(
            statistics.stats_rate_est,
            Some(RateEstimate { bps: 9, pps: 0 })
        );
        assert_eq!((statistics.timestamp, &*statistics.interface), (1000, "lo"));
        let quiet = super::tests::samples(&entry, &[rated(1, "lo")], &[qdisc(1, 0)]);
        let Sample::TcStatistics(_, _, quiet) = &quiet[1] else {
            panic!("{quiet:?}")
        };
        assert_eq!(quiet.stats_rate_est, None, "as the released backend does");
    }
}
