//! `show`: what is in force.

use std::collections::HashMap;
use std::time::Duration;

use tcgui_backend::cli::target::Target;
use tcgui_backend::cli::verbs::ShowArgs;
use tcgui_shared::bandwidth::{BandwidthStats, BandwidthUpdate};
use tcgui_shared::state::{BackendState, StateRequest};
use tcgui_shared::tc::{QueueStats, TcStatisticsUpdate};
use tokio::time::Instant;

use super::apply::selected;
use super::documents::{InterfaceDocument, SCHEMA, ShowDocument, StatsDocument};
use super::failure::{Failure, Status};
use super::impairment::{describe, number};
use super::names::{interface, who};
use super::output::{Output, print, table};
use super::progress::Progress;
use super::session::Session;
use super::targets::matches;
use super::times::{clock_of, rfc3339};

/// How long samples may take: the default interval of the daemon is 2 s.
const SAMPLES_WITHIN: Duration = Duration::from_secs(5);
/// How often the state is read with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Counters by namespace and interface.
type Counters = HashMap<(String, String), (BandwidthStats, Option<QueueStats>)>;

/// Prints the state of interfaces, once or whenever it changes.
pub(super) async fn show(args: ShowArgs) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    let session = Session::open(&args.client).await?;
    let request = request(&args);
    if args.watch {
        return watch(&session, output, &request, &args).await;
    }
    let state = session.state(&request).await?;
    let mut document = document(&state, &args.targets, args.impaired);
    if args.stats {
        let counters = counters(&session, &document, output.quiet).await?;
        for it in &mut document.interfaces {
            it.stats = stats(&counters, it);
        }
    }
    let missing = missing(&state, &args.targets, args.impaired);
    if output.is_table() {
        if !document.interfaces.is_empty() {
            print(&text(&document, args.stats))?;
        } else if missing.is_none() {
            output.note(if args.impaired {
                "no interface is impaired"
            } else {
                "the daemon lists no interface; `tcgui-backend explain NAMESPACE` says why"
            });
        }
    }
    output.document(&document, &document.interfaces)?;
    session.close().await;
    missing.map_or(Ok(()), Err)
}

/// Returns the smallest request for what is to be shown.
fn request(args: &ShowArgs) -> StateRequest {
    let one = match &args.targets[..] {
        [target] => target.exact(),
        _ => None,
    };
    // An interface that is not impaired is not one that does not exist.
    let impaired = args.impaired && args.targets.is_empty();
    StateRequest {
        namespace: one.map(|(namespace, _)| namespace.to_owned()),
        interface: one.map(|(_, interface)| interface.to_owned()),
        impaired,
    }
}

/// Returns what is wrong with targets that name nothing.
fn missing(state: &BackendState, targets: &[Target], impaired: bool) -> Option<Failure> {
    let is_missing = |target: &&Target| !state.interfaces.iter().any(|it| matches(target, it));
    let missing: Vec<_> = targets
        .iter()
        .filter(is_missing)
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() || (impaired && targets.is_empty()) {
        return None;
    }
    let status = match missing.len() == targets.len() {
        true => Status::NotFound,
        false => Status::Partial,
    };
    let message = format!(
        "no interface {}; `tcgui-backend show` lists the interfaces",
        missing.join(", ")
    );
    Some(Failure::new(status, message))
}

fn document(state: &BackendState, targets: &[Target], impaired: bool) -> ShowDocument {
    let mut interfaces = selected(&state.interfaces, targets);
    interfaces.retain(|it| !impaired || it.has_tc_qdisc || it.scenario.is_some());
    ShowDocument {
        schema: SCHEMA,
        backend: state.backend_name.clone(),
        read_at: rfc3339(state.timestamp),
        interfaces: interfaces.into_iter().map(interface).collect(),
    }
}

/// Prints the state again whenever it differs.
async fn watch(
    session: &Session,
    output: Output,
    request: &StateRequest,
    args: &ShowArgs,
) -> Result<(), Failure> {
    let mut last = None;
    loop {
        let state = session.state(request).await?;
        let document = document(&state, &args.targets, args.impaired);
        if last.as_ref() != Some(&document.interfaces) {
            let is_read = if output.is_table() {
                let separator = if last.is_some() { "\n" } else { "" };
                print(&format!("{separator}{}", text(&document, false)))?
            } else {
                output.document(&document, &document.interfaces)?
            };
            if !is_read {
                return Ok(());
            }
            last = Some(document.interfaces);
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// Waits for a sample of each interface. Those without one within the deadline have none.
async fn counters(
    session: &Session,
    document: &ShowDocument,
    quiet: bool,
) -> Result<Counters, Failure> {
    let keys = format!("tcgui/{}", session.backend);
    let rates = format!("{keys}/bandwidth/*/**");
    let queues = format!("{keys}/tc/stats/*/*");
    let mut rates = session.client.subscribe::<BandwidthUpdate>(&rates).await?;
    let mut queues = session
        .client
        .subscribe::<TcStatisticsUpdate>(&queues)
        .await?;
    let progress = Progress::new(None, quiet);
    let deadline = Instant::now() + SAMPLES_WITHIN;
    let mut counters = Counters::new();
    let mut queued = HashMap::new();
    let key = |it: &InterfaceDocument| (it.namespace.clone(), it.interface.clone());
    let rates_of = |counters: &Counters| {
        document
            .interfaces
            .iter()
            .all(|it| counters.contains_key(&key(it)))
    };
    let queues_of = |queued: &HashMap<(String, String), QueueStats>| {
        let impaired = document.interfaces.iter().filter(|it| it.netem.is_some());
        impaired.map(key).all(|key| queued.contains_key(&key))
    };
    while !(rates_of(&counters) && queues_of(&queued)) {
        progress.say("waiting for the next sample");
        tokio::select! {
            Some(update) = rates.next() => {
                counters.insert((update.namespace, update.interface), (update.stats, None));
            }
            Some(update) = queues.next() => {
                if let Some(queue) = update.stats_queue {
                    queued.insert((update.namespace, update.interface), queue);
                }
            }
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    for (key, queue) in queued {
        if let Some(entry) = counters.get_mut(&key) {
            entry.1 = Some(queue);
        }
    }
    Ok(counters)
}

fn stats(counters: &Counters, interface: &InterfaceDocument) -> Option<StatsDocument> {
    let key = (interface.namespace.clone(), interface.interface.clone());
    let (stats, queue) = counters.get(&key)?;
    Some(StatsDocument {
        rx_bytes_per_s: stats.rx_bytes_per_sec,
        tx_bytes_per_s: stats.tx_bytes_per_sec,
        rx_bytes: stats.rx_bytes,
        tx_bytes: stats.tx_bytes,
        rx_packets: stats.rx_packets,
        tx_packets: stats.tx_packets,
        dropped: stats.rx_dropped.saturating_add(stats.tx_dropped),
        netem_dropped: queue.map(|queue| queue.drops),
        netem_queued: queue.map(|queue| queue.qlen),
    })
}

/// Returns the table for people.
fn text(document: &ShowDocument, with_stats: bool) -> String {
    let mut heading = vec!["INTERFACE", "STATE", "IN FORCE", "ENDS", "SET BY"];
    if with_stats {
        heading.extend([">RX/S", ">TX/S", ">DROPPED", ">QUEUED"]);
    }
    let rows = document.interfaces.iter().map(|it| {
        let state = match (it.up, it.carrier) {
            (false, _) => "down",
            (true, false) => "no carrier",
            (true, true) => "up",
        };
        let in_force = match &it.netem {
            Some(netem) => describe(netem),
            None if it.unreadable => "netem (not readable)".to_owned(),
            None => "-".to_owned(),
        };
        let ends = match (&it.expires_at, &it.confirm_by) {
            (_, Some(at)) => format!("{} unless confirmed", clock_of(at)),
            (Some(at), None) => clock_of(at),
            (None, None) => String::new(),
        };
        let mut row = vec![it.target.clone(), state.to_owned(), in_force, ends, who(it)];
        if with_stats {
            row.extend(stats_cells(it.stats.as_ref()));
        }
        row
    });
    table(&heading, rows.collect())
}

fn stats_cells(stats: Option<&StatsDocument>) -> [String; 4] {
    let Some(stats) = stats else {
        return ["?", "?", "?", "?"].map(str::to_owned);
    };
    let count =
        |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    [
        bytes(stats.rx_bytes_per_s),
        bytes(stats.tx_bytes_per_s),
        count(stats.netem_dropped),
        count(stats.netem_queued),
    ]
}

/// Returns a number of bytes with the largest unit in which it is at least 1.
fn bytes(value: f64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let unit = units.into_iter().find(|(factor, _)| value >= *factor);
    let (factor, unit) = unit.unwrap_or((1.0, "B"));
    let value = value / factor;
    let text = if value >= 100.0 {
        format!("{value:.0}")
    } else {
        number((value * 10.0).round() / 10.0)
    };
    format!("{text} {unit}")
}

#[cfg(test)]
mod tests {
    use tcgui_shared::interface::InterfaceType;
    use tcgui_shared::state::{InterfaceState, SetBy};

    use super::*;

    fn state(interfaces: Vec<InterfaceState>) -> BackendState {
        BackendState {
            backend_name: "lab".to_owned(),
            version: "1".to_owned(),
            hostname: None,
            started_at: 0,
            timestamp: 1_767_300_000_000,
            namespace_count: 1,
            interface_count: interfaces.len(),
            interfaces,
        }
    }

    fn eth0() -> InterfaceState {
        InterfaceState {
            namespace: "lab".to_owned(),
            namespace_aliases: vec!["container:web".to_owned()],
            interface: "eth0".to_owned(),
            is_up: true,
            is_oper_up: true,
            interface_type: InterfaceType::Veth,
            has_tc_qdisc: true,
            configuration: None,
            since: None,
            expires_at: None,
            confirm_by: None,
            scenario: None,
            set_by: Some(SetBy::Client { name: None }),
        }
    }

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn a_netem_that_cannot_be_read_is_not_nothing() {
        let document = document(&state(vec![eth0()]), &[], true);
        let text = text(&document, false);
        assert!(text.contains("not readable"), "{text}");
        assert!(text.contains("a frontend"), "{text}");
        let json = serde_json::to_value(&document).unwrap();
        assert_eq!(json["schema"], "tcgui.cli/1");
        assert_eq!(json["interfaces"][0]["unreadable"], true);
        assert!(json["interfaces"][0].get("netem").is_none());
    }

    #[test]
    fn targets_that_name_nothing_are_reported() {
        let state = state(vec![eth0()]);
        let status = |targets: &[&str]| {
            let targets: Vec<_> = targets.iter().map(|text| target(text)).collect();
            missing(&state, &targets, false).map(|failure| failure.status)
        };
        assert_eq!(status(&["container:web/eth0"]), None);
        assert_eq!(status(&["l*/*"]), None);
        assert_eq!(status(&["lab/eth1"]), Some(Status::NotFound));
        assert_eq!(status(&["lab/eth0", "x/*"]), Some(Status::Partial));
    }

    #[test]
    fn rates_have_units() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1_234.0), "1.2 kB");
        assert_eq!(bytes(250_000_000.0), "250 MB");
    }
}
