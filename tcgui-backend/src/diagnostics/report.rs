//! Converts the result of a check to a wire response. Pure.

use std::time::Duration;

use tcgui_shared::diagnostics::{
    Connectivity, DiagnosticsResponse, DiagnosticsResults, Latency, LinkStatus, QdiscStats,
};

use super::echo::Summary;
use super::target::Target;
use crate::kernel::link::Link;
use crate::tc::observed::Observed;
use crate::tc::report::structured;

/// The check method, in the words of released backends.
const PING: &str = "ping";
const LINK_DOWN: &str = "skipped (link down)";

/// Whether the target is reachable.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reachability {
    /// Echoes were sent, with this result.
    Asked(Summary),
    /// The link is down or has no carrier. No echo was sent.
    LinkDown,
    /// No echo could be sent, for this reason.
    Unknown(String),
}

/// Returns the response to a completed check.
pub(super) fn response(
    link: &Link,
    qdisc: Option<&Observed>,
    target: &Target,
    reachability: &Reachability,
) -> DiagnosticsResponse {
    let netem = qdisc.and_then(Observed::netem);
    let results = DiagnosticsResults {
        link_status: LinkStatus {
            is_up: link.up,
            has_carrier: link.carrier,
            mtu: link.mtu,
        },
        connectivity: connectivity(target, reachability),
        latency: latency(target, reachability),
        configured_tc: netem.map(structured),
        tc_stats: qdisc.filter(|_| netem.is_some()).map(statistics),
    };
    DiagnosticsResponse::success(message(target, reachability, &results), results)
}

fn statistics(qdisc: &Observed) -> QdiscStats {
    let statistics = &qdisc.statistics;
    QdiscStats {
        drops: statistics.drops,
        overlimits: statistics.overlimits,
        qlen: statistics.qlen,
        backlog: statistics.backlog,
        bps: statistics.rate.map(|rate| rate.bytes_per_s),
        pps: statistics.rate.map(|rate| rate.packets_per_s),
    }
}

fn connectivity(target: &Target, reachability: &Reachability) -> Option<Connectivity> {
    let (reachable, method) = match reachability {
        Reachability::Asked(summary) => (summary.received > 0, PING),
        Reachability::LinkDown => (false, LINK_DOWN),
        Reachability::Unknown(_) => return None,
    };
    Some(Connectivity {
        target: target.to_string(),
        reachable,
        method: method.to_owned(),
    })
}

fn latency(target: &Target, reachability: &Reachability) -> Option<Latency> {
    let Reachability::Asked(summary) = reachability else {
        return None;
    };
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    summary.latency.map(|(min, mean, max)| Latency {
        target: target.to_string(),
        min_ms: ms(min),
        avg_ms: ms(mean),
        max_ms: ms(max),
        packet_loss_percent: summary.loss_percent(),
        samples: summary.sent,
    })
}

/// Returns the human-readable summary: the main results, separated by commas.
fn message(target: &Target, reachability: &Reachability, results: &DiagnosticsResults) -> String {
    let link = match results.link_status {
        LinkStatus { is_up: false, .. } => "Link DOWN",
        LinkStatus {
            has_carrier: false, ..
        } => "Link UP without carrier",
        _ => "Link UP",
    };
    let mut parts = vec![link.to_owned()];
    parts.extend(results.connectivity.as_ref().map(|connectivity| {
        let state = if connectivity.reachable {
            "reachable"
        } else {
            "unreachable"
        };
        format!("{target} {state}")
    }));
    if let Reachability::Unknown(why) = reachability {
        parts.push(format!("{target} not asked: {why}"));
    }
    if let Some(latency) = &results.latency {
        parts.push(format!("avg latency: {:.1}ms", latency.avg_ms));
        if latency.packet_loss_percent > 0.0 {
            parts.push(format!("packet loss: {:.1}%", latency.packet_loss_percent));
        }
    }
    if results.configured_tc.is_some() {
        parts.push("TC active".to_owned());
    }
    if let Some(QdiscStats {
        drops, overlimits, ..
    }) = results.tc_stats
    {
        parts.extend((drops > 0).then(|| format!("drops: {drops}")));
        parts.extend((overlimits > 0).then(|| format!("overlimits: {overlimits}")));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use tcgui_shared::names::InterfaceName;

    use super::*;
    use crate::diagnostics::target::gateway;
    use crate::kernel::netem::Netem;
    use crate::kernel::qdisc::QdiscStatistics;
    use crate::tc::observed::Root;

    const MS: Duration = Duration::from_millis(1);

    fn link(up: bool, carrier: bool) -> Link {
        Link {
            up,
            carrier,
            ..Link::sample(2, "v0")
        }
    }

    fn report(
        link: &Link,
        qdisc: Option<&Observed>,
        reachability: &Reachability,
    ) -> DiagnosticsResponse {
        let target = gateway(&[], &InterfaceName::new("v0").unwrap(), 2);
        response(link, qdisc, &target, reachability)
    }

    fn replies(received: u32) -> Reachability {
        Reachability::Asked(Summary {
            sent: 5,
            received,
            latency: (received > 0).then_some((MS, 2 * MS, 4 * MS)),
        })
    }

    #[test]
    fn a_reachable_target_has_a_latency() {
        let response = report(&link(true, true), None, &replies(5));
        assert_eq!(
            response.message,
            "Link UP, 8.8.8.8 reachable, avg latency: 2.0ms"
        );
        assert!(response.success && response.error_code.is_none());
        let results = response.results;
        assert_eq!(
            results.link_status,
            LinkStatus {
                is_up: true,
                has_carrier: true,
                mtu: 1500
            }
        );
        let connectivity = results.connectivity.unwrap();
        assert_eq!(
            (connectivity.reachable, &*connectivity.method),
            (true, "ping")
        );
        let latency = results.latency.unwrap();
        assert_eq!(
            (latency.min_ms, latency.avg_ms, latency.max_ms),
            (1.0, 2.0, 4.0)
        );
        assert_eq!((latency.packet_loss_percent, latency.samples), (0.0, 5));
    }

    #[test]
    fn an_unreachable_target_has_no_latency() {
        let response = report(&link(true, true), None, &replies(0));
        assert_eq!(response.message, "Link UP, 8.8.8.8 unreachable");
        assert!(response.success && response.results.latency.is_none());
        assert!(!response.results.connectivity.unwrap().reachable);
    }

    #[test]
    fn no_echo_is_sent_over_a_link_that_is_down() {
        for (link, words) in [
            (link(false, true), "Link DOWN, 8.8.8.8 unreachable"),
            (
                link(true, false),
                "Link UP without carrier, 8.8.8.8 unreachable",
            ),
        ] {
            let response = report(&link, None, &Reachability::LinkDown);
            assert_eq!(response.message, words);
            let connectivity = response.results.connectivity.unwrap();
            assert_eq!(connectivity.method, "skipped (link down)");
        }
    }

    #[test]
    fn a_target_that_cannot_be_checked_is_not_reported_as_unreachable() {
        let refused = Reachability::Unknown("no socket".to_owned());
        let response = report(&link(true, true), None, &refused);
        assert_eq!(response.message, "Link UP, 8.8.8.8 not asked: no socket");
        assert!(response.success && response.results.connectivity.is_none());
    }

    #[test]
    fn impairments_are_reported() {
        let mut qdisc = Observed {
            root: Root::Own {
                handle: 0x7c60_0000,
                netem: Netem {
                    latency_ns: 5_000_000,
                    ..Netem::default()
                },
            },
            in_use: Vec::new(),
            bottleneck: None,
            bottleneck_qlen: 0,
            below: Vec::new(),
            netems_below: Vec::new(),
            statistics: QdiscStatistics {
                drops: 3,
                overlimits: 1,
                ..QdiscStatistics::default()
            },
        };
        let impaired = report(&link(true, true), Some(&qdisc), &replies(4));
        assert_eq!(
            impaired.message,
            "Link UP, 8.8.8.8 reachable, avg latency: 2.0ms, packet loss: 20.0%, TC active, drops: 3, \
             overlimits: 1"
        );
        let configured = impaired.results.configured_tc.expect("a netem");
        assert!(configured.delay.enabled && !configured.loss.enabled);
        assert_eq!(impaired.results.tc_stats.map(|it| it.drops), Some(3));
        qdisc.statistics = QdiscStatistics::default();
        let quiet = report(&link(true, true), Some(&qdisc), &replies(5));
        assert!(quiet.message.ends_with("TC active"), "{}", quiet.message);
        // The counters of another qdisc must not be reported as those of an impairment.
        qdisc.root = Root::Default {
            kind: "noqueue".to_owned(),
        };
        let free = report(&link(true, true), Some(&qdisc), &replies(5)).results;
        assert!(free.configured_tc.is_none() && free.tc_stats.is_none());
    }
}
