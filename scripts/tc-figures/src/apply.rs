//! Measures one Apply after the other, in turns with the floor and the empty query.
//!
//! The daemon logs the time of each query, from the call of its queryable until the reply was passed to the session. The client
//! measures the time until the reply arrives. Both are shown. The limits apply to the first one, because it does not depend on
//! the client.

use std::time::Duration;

use serde_json::json;
use tcgui_tests::{links, netns};

use crate::bench::{Bench, EMPTY, Target, rest, veth_pair, with_daemon};
use crate::figure::{Figure, Unit, median, milliseconds};
use crate::floor::Floor;

const NETNS: &str = "measured";
const LINK: Target<'static> = (NETNS, "va");
/// The link with a rate limit.
const LIMITED: Target<'static> = (NETNS, "vb");

/// Number of named namespaces in the second half.
const MANY: usize = 200;

/// Number of namespaces in which a first Apply is measured.
const FIRST: usize = 20;

/// Pause in which the remaining work of an Apply (a dump, a publication) completes, also in the virtual machine.
const REST: Duration = Duration::from_millis(100);
const SHORT_REST: Duration = Duration::from_millis(20);

/// The times of one situation.
#[derive(Debug, Default)]
struct Series {
    floor: Vec<Duration>,
    empty: Vec<Duration>,
    empty_daemon: Vec<Duration>,
    client: Vec<Duration>,
    daemon: Vec<Duration>,
    /// Each was sent as soon as the preceding one was answered.
    at_once: Vec<Duration>,
    empty_at_once: Vec<Duration>,
}

pub(crate) fn measure(trials: u32) -> anyhow::Result<Vec<Figure>> {
    netns::add(NETNS)?;
    veth_pair(Some(NETNS), "va", "vb")?;
    let mut floor = Floor::open()?;
    with_daemon(&[], |bench| {
        bench.wait_up(&[LINK, LIMITED])?;
        let one = series(bench, &mut floor, trials)?;
        let limited = limited(bench, trials)?;
        let names: Vec<_> = (1..MANY).map(|number| format!("n{number}")).collect();
        netns::add_burst(names.clone())?;
        bench.wait_namespaces(MANY)?;
        rest(Duration::from_secs(1));
        let first = first(bench, names.get(..FIRST).unwrap_or_default())?;
        let many = series(bench, &mut floor, trials)?;
        let mut figures = figures(&one, &many, &first);
        figures.extend(limited);
        Ok(figures)
    })
}

fn series(bench: &Bench, floor: &mut Floor, trials: u32) -> anyhow::Result<Series> {
    // After the first Apply the socket is open and the netem is listed.
    bench.apply(LINK, &json!({"delay_ms": 20.0}))?;
    rest(REST);
    let (asked, before) = (bench.asked(), bench.answered(EMPTY)?.len());
    let mut series = Series::default();
    for trial in 0..trials {
        let delay_ms = f64::from(10 + trial % 2);
        series.floor.push(floor.replace_and_dump()?);
        rest(SHORT_REST);
        series.empty.push(bench.ask_for_nothing()?);
        rest(SHORT_REST);
        series
            .client
            .push(bench.apply(LINK, &json!({"delay_ms": delay_ms}))?);
        rest(REST);
    }
    series.daemon = bench.answered_since(asked)?;
    // The last Apply was answered after the last of these queries.
    series.empty_daemon = bench.answered(EMPTY)?.split_off(before);
    for _ in 0..trials {
        series.empty_at_once.push(bench.ask_for_nothing()?);
    }
    rest(REST);
    for trial in 0..trials {
        let netem = json!({"delay_ms": f64::from(10 + trial % 2)});
        series.at_once.push(bench.apply(LINK, &netem)?);
    }
    rest(REST);
    Ok(series)
}

/// Measures an Apply with a rate limit in turns with one without, on two links.
fn limited(bench: &Bench, trials: u32) -> anyhow::Result<Vec<Figure>> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let netem = |trial: u32| json!({"delay_ms": f64::from(10 + trial % 2)});
    let limited = |trial: u32| {
        let mut netem = netem(trial);
        netem["rate_limit_kbps"] = json!(1000 + trial % 2);
        netem
    };
    // The first Apply with a rate tries whether the kernel can have a filter below a netem.
    bench.apply(LIMITED, &limited(1))?;
    rest(REST);
    for trial in 0..trials {
        without.push(bench.apply(LINK, &netem(trial))?);
        rest(REST);
        with.push(bench.apply(LIMITED, &limited(trial))?);
        rest(REST);
    }
    bench.remove(LIMITED)?;
    rest(REST);
    Ok(vec![
        Figure::times("Apply without a rate, client", &without),
        Figure::times("Apply with a rate, client", &with),
        Figure::value(
            "Apply with a rate ÷ Apply without, client",
            Unit::Times,
            median(&with) / median(&without),
        ),
    ])
}

/// Measures the first Apply in each of these namespaces: the times of the client and of the daemon.
fn first(bench: &Bench, names: &[String]) -> anyhow::Result<Series> {
    for name in names {
        links::ip(name, "link set lo up")?;
    }
    let loopbacks: Vec<_> = names.iter().map(|name| (name.as_str(), "lo")).collect();
    bench.wait_up(&loopbacks)?;
    rest(REST);
    let asked = bench.asked();
    let mut series = Series::default();
    for loopback in &loopbacks {
        let netem = json!({"delay_ms": 10.0});
        series.client.push(bench.apply(*loopback, &netem)?);
        rest(REST);
    }
    series.daemon = bench.answered_since(asked)?;
    for loopback in loopbacks {
        bench.remove(loopback)?;
    }
    rest(REST);
    Ok(series)
}

fn figures(one: &Series, many: &Series, first: &Series) -> Vec<Figure> {
    let mut floor = one.floor.clone();
    floor.extend(&many.floor);
    let mut figures = vec![Figure::times("floor: bare replace + dump", &floor)];
    figures.extend(of_situation(one, "1 namespace"));
    figures.extend(of_situation(many, "200 namespaces"));
    figures.extend([
        Figure::value(
            "Apply, daemon, 200 ÷ 1 namespaces",
            Unit::Times,
            median(&many.daemon) / median(&one.daemon),
        ),
        Figure::times("first Apply in a namespace, client", &first.client),
        Figure::times("first Apply in a namespace, daemon", &first.daemon),
    ]);
    figures
}

fn of_situation(series: &Series, name: &str) -> Vec<Figure> {
    let Series {
        floor,
        empty,
        empty_daemon,
        client,
        daemon,
        at_once,
        empty_at_once,
    } = series;
    let total = |times: &[Duration]| milliseconds(times.iter().sum());
    let less = (median(client) - median(empty)).max(0.0);
    let share = |ms: f64| ms / median(floor);
    vec![
        Figure::times(format!("empty query, client, {name}"), empty),
        Figure::times(format!("empty query, daemon, {name}"), empty_daemon),
        Figure::times(format!("Apply, client, {name}"), client),
        Figure::times(format!("Apply, daemon, {name}"), daemon),
        Figure::times(
            format!("Apply at once after another, client, {name}"),
            at_once,
        ),
        Figure::times(
            format!("empty query at once after another, client, {name}"),
            empty_at_once,
        ),
        Figure::value(
            format!("Apply ÷ empty query, all at once, client, {name}"),
            Unit::Times,
            total(at_once) / total(empty_at_once),
        ),
        Figure::value(
            format!("Apply − empty query, client, {name}"),
            Unit::Milliseconds,
            less,
        ),
        Figure::value(
            format!("(Apply − empty query) ÷ floor, client, {name}"),
            Unit::Times,
            share(less),
        ),
        Figure::value(
            format!("Apply ÷ floor, daemon, {name}"),
            Unit::Times,
            share(median(daemon)),
        ),
    ]
}
