//! Checks the accuracy of netem: packets are sent in one namespace and received in another, with a netem between them.
//!
//! ```text
//!  left ── va (netem, by Apply over the bus) ──── vb ── right
//! ```
//!
//! Sender and receiver are threads of this process, so they use the same clock.

mod flight;
mod frames;
mod stream;

use std::time::Duration;

use serde_json::{Value, json};
use tcgui_tests::netns;

use crate::bench::{Bench, Target, ip_batch, with_daemon};
use crate::figure::{Figure, Unit};
use flight::{Flight, Path};

const LEFT: &str = "left";
const RIGHT: &str = "right";
const LINK: Target<'static> = (LEFT, "va");
const LEFT_ADDRESS: &str = "10.7.0.1";
const RIGHT_ADDRESS: &str = "10.7.0.2";

/// The checked delays in ms.
const DELAYS: [f64; 4] = [0.5, 10.0, 100.0, 1000.0];

/// Number of packets for the check of loss, independent of the number of trials. With fewer packets three standard deviations
/// would be too wide.
const LOSS_PACKETS: u32 = 2000;
const LOSS: f64 = 0.1;

/// The checked rates in kbit/s.
const RATES: [u32; 4] = [64, 1000, 8000, 20_000];
/// At the lowest rate, a segment takes 190 ms, so more time is needed for the same accuracy.
const LONGER: u32 = 3;

/// Interval of packets whose delay is measured, so that sender and receiver are idle before each.
const APART: Duration = Duration::from_millis(10);
/// Interval of packets of which many must be in flight.
const CLOSE: Duration = Duration::from_millis(2);

pub(crate) fn measure(trials: u32) -> anyhow::Result<Vec<Figure>> {
    netns::add(LEFT)?;
    netns::add(RIGHT)?;
    join()?;
    with_daemon(&[], |bench| {
        bench.wait_up(&[LINK, (RIGHT, "vb")])?;
        let path = Path::open()?;
        let mut figures = delays(bench, &path, (trials / 2).clamp(20, 200))?;
        figures.push(loss(bench, &path)?);
        figures.extend(events(bench, &path, trials.max(100))?);
        for rate in RATES {
            let period = Duration::from_secs(if trials < 100 { 4 } else { 10 });
            let period = if rate == 64 { period * LONGER } else { period };
            figures.extend(stream::rate(bench, rate, period)?);
        }
        Ok(figures)
    })
}

/// Joins the two namespaces by a veth pair. Both have permanent neighbour entries, so that no neighbour request is lost.
fn join() -> anyhow::Result<()> {
    let mac = |last: u8| format!("02:00:00:00:07:0{last}");
    let end = |link: &str, own: &str, other: &str, other_mac: u8| {
        vec![
            format!("addr add {own}/24 dev {link}"),
            format!("link set {link} up"),
            format!(
                "neigh add {other} lladdr {} dev {link} nud permanent",
                mac(other_mac)
            ),
        ]
    };
    let pair = format!(
        "link add va address {} type veth peer name vb address {} netns {RIGHT}",
        mac(1),
        mac(2)
    );
    let mut left = vec![pair];
    left.extend(end("va", LEFT_ADDRESS, RIGHT_ADDRESS, 2));
    ip_batch(Some(LEFT), &left)?;
    ip_batch(Some(RIGHT), &end("vb", RIGHT_ADDRESS, LEFT_ADDRESS, 1))
}

fn impair(bench: &Bench, netem: &Value) -> anyhow::Result<()> {
    bench.apply(LINK, netem).map(drop)
}

fn delays(bench: &Bench, path: &Path, packets: u32) -> anyhow::Result<Vec<Figure>> {
    let quiet = path
        .fly(packets, APART, Duration::from_millis(500))?
        .delays();
    // The time to wake up sender and receiver, about a millisecond on an emulated processor.
    let mut sorted = quiet.clone();
    sorted.sort_unstable();
    let base = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let mut figures = vec![Figure::times("one-way delay, no netem", &quiet)];
    for delay_ms in DELAYS {
        impair(bench, &json!({"delay_ms": delay_ms}))?;
        let patience = Duration::from_secs_f64(delay_ms / 1e3) + Duration::from_millis(500);
        let flight = path.fly(packets, APART, patience)?;
        let name = format!("added one-way delay, netem {delay_ms} ms");
        let added = flight
            .delays()
            .into_iter()
            .map(|delay| delay.saturating_sub(base));
        figures.push(Figure::times(name, &added.collect::<Vec<_>>()));
    }
    Ok(figures)
}

fn loss(bench: &Bench, path: &Path) -> anyhow::Result<Figure> {
    impair(bench, &json!({"loss": LOSS * 100.0}))?;
    let flight = path.fly(LOSS_PACKETS, Duration::ZERO, Duration::from_secs(1))?;
    let (lost, sent) = (f64::from(flight.lost()), f64::from(LOSS_PACKETS));
    let deviation = (lost - sent * LOSS) / (sent * LOSS * (1.0 - LOSS)).sqrt();
    let note = format!("lost {lost} of {sent}");
    Ok(Figure::value("loss 10 %, off by", Unit::Deviations, deviation.abs()).noted(note))
}

/// Counts packets that are overtaken, duplicated or corrupted. The limits only require that each of these occurs.
fn events(bench: &Bench, path: &Path, packets: u32) -> anyhow::Result<Vec<Figure>> {
    let count = |name: &str, count: u32| {
        Figure::value(name, Unit::Count, f64::from(count)).noted(format!("of {packets} packets"))
    };
    let fly = |netem: Value| -> anyhow::Result<Flight> {
        impair(bench, &netem)?;
        path.fly(packets, CLOSE, Duration::from_secs(1))
    };
    let reordered = fly(json!({"delay_ms": 20.0, "reorder_percent": 25.0, "reorder_gap": 1}))?;
    let duplicated = fly(json!({"duplicate_percent": 25.0}))?;
    impair(bench, &json!({"corrupt_percent": 25.0}))?;
    let corrupted = frames::corrupted(path, packets, CLOSE)?;
    Ok(vec![
        count("overtaken (reorder 25 %)", reordered.overtaken()),
        count("twice (duplicate 25 %)", duplicated.repeated()),
        count("one bit flipped (corrupt 25 %)", corrupted),
    ])
}
