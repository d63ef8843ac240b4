//! Does a rate limit do what it says? Delay and throughput under overload, changes of the rate meanwhile, and drops below the
//! capacity.

mod router;

use std::time::Duration;

use serde_json::json;

use crate::bench::{Bench, rest, with_daemon};
use crate::figure::{Figure, Unit, median, milliseconds};
use crate::part::Part;
use crate::progress;
use crate::thresholds::Thresholds;
use router::{Arrival, LINK, Load, Path};

/// A measurement that misses a limit is repeated: on a busy machine, packets leave and arrive late.
const ATTEMPTS: u32 = 4;
const DELAY_MS: f64 = 50.0;
/// The arrivals in this time after the first one are not counted, because the queue is not full yet.
const FILLING: Duration = Duration::from_millis(1_500);
const SECOND: Duration = Duration::from_secs(1);

/// An overload: the rate limit, the queue and the size of packets.
#[derive(Debug, Clone, Copy)]
struct Overload {
    kbps: u32,
    queue_ms: f64,
    bytes: usize,
    /// How much more than the rate is sent.
    factor: f64,
    seconds: u64,
}

const fn overload(kbps: u32, queue_ms: f64, bytes: usize, factor: f64, seconds: u64) -> Overload {
    Overload {
        kbps,
        queue_ms,
        bytes,
        factor,
        seconds,
    }
}

/// With small packets at the lowest rate, because the queue holds whole packets. An emulated processor sends no more than 30 Mbit/s.
const OVERLOADS: [Overload; 4] = [
    overload(64, 500.0, 200, 2.0, 8),
    overload(512, 500.0, 1_000, 2.0, 6),
    overload(4_000, 200.0, 1_000, 2.0, 4),
    overload(20_000, 200.0, 1_514, 1.3, 4),
];

/// Packets below 90 % of the capacity: size, delay in ms, rate in kbit/s, percentage of the rate, packets in one GSO packet.
const BELOW: [(usize, f64, u32, u32, usize); 7] = [
    (64, 200.0, 1_000, 88, 1),
    (100, 2_000.0, 4_000, 28, 1),
    (300, DELAY_MS, 4_000, 88, 1),
    (1_514, DELAY_MS, 8_000, 88, 1),
    (64, 200.0, 1_000, 88, 20),
    (300, DELAY_MS, 4_000, 88, 20),
    (1_514, DELAY_MS, 8_000, 88, 10),
];

pub(crate) fn measure(trials: u32) -> anyhow::Result<Vec<Figure>> {
    // A short run is a test.
    let times = if trials < 100 { 1 } else { 3 };
    router::build()?;
    with_daemon(&[], |bench| {
        bench.wait_up(&[LINK])?;
        let path = Path::open()?;
        let limits = Thresholds::load()?;
        let mut figures = Vec::new();
        let mut add = |measure: &mut dyn FnMut() -> anyhow::Result<Vec<Figure>>| {
            let measured = settled(&limits, measure)?;
            figures.extend(measured);
            anyhow::Ok(())
        };
        for overload in OVERLOADS {
            add(&mut || overloaded(bench, &path, overload, times))?;
        }
        add(&mut || raised(bench, &path))?;
        add(&mut || lowered(bench, &path))?;
        for below in BELOW {
            add(&mut || below_capacity(bench, &path, below, times))?;
        }
        Ok(figures)
    })
}

/// Measures until all limits hold, at most [`ATTEMPTS`] times. Returns the last figures.
fn settled(
    limits: &Thresholds,
    measure: &mut dyn FnMut() -> anyhow::Result<Vec<Figure>>,
) -> anyhow::Result<Vec<Figure>> {
    let mut attempt = 1;
    loop {
        let measured = measure()?.into_iter();
        let figures: Vec<_> = measured
            .map(|figure| Figure {
                part: Some(Part::Rates),
                ..figure
            })
            .collect();
        let held = figures.iter().all(|figure| limits.hold(figure));
        for figure in &figures {
            let verdict = limits.verdict(figure);
            let value = figure.summary().map_or(f64::NAN, |it| it.p50);
            progress::say(format_args!("{}: {value:.3} ({verdict})", figure.name));
        }
        if held || attempt == ATTEMPTS {
            return Ok(figures);
        }
        attempt += 1;
    }
}

/// Sets a delay and a rate limit.
fn line(bench: &Bench, delay_ms: f64, kbps: u32, queue_ms: f64) -> anyhow::Result<()> {
    let netem = json!({
        "delay_ms": delay_ms, "rate_limit_kbps": kbps, "queue": {"ms": queue_ms},
    });
    bench.apply(LINK, &netem).map(drop)
}

/// Returns the rate of the frames between the first and the last arrival in Mbit/s.
fn throughput(arrivals: &[Arrival]) -> f64 {
    let (Some((first, others)), Some(last)) = (arrivals.split_first(), arrivals.last()) else {
        return f64::NAN;
    };
    let bytes: usize = others.iter().map(|it| it.bytes).sum();
    bytes as f64 * 8e-6 / last.came.saturating_sub(first.came).as_secs_f64()
}

fn overloaded(
    bench: &Bench,
    path: &Path,
    overload: Overload,
    times: u32,
) -> anyhow::Result<Vec<Figure>> {
    let Overload {
        kbps,
        queue_ms,
        bytes,
        factor,
        seconds,
    } = overload;
    // Without the netem, nothing waits from before.
    bench.remove(LINK)?;
    line(bench, DELAY_MS, kbps, queue_ms)?;
    let load = Load {
        bytes,
        kbps: f64::from(kbps) * factor,
        time: Duration::from_secs(seconds) * times,
        segments: 1,
    };
    let (_, arrivals) = path.send(load, SECOND, || Ok(()))?;
    let first = arrivals.first().map_or(Duration::ZERO, |it| it.came);
    let is_steady = |it: &&Arrival| it.came > first + FILLING;
    let steady: Vec<_> = arrivals.iter().filter(is_steady).copied().collect();
    let delays: Vec<_> = steady.iter().map(|it| it.delay()).collect();
    let rate = megabits(kbps);
    Ok(vec![
        Figure::value(
            format!("delay under {factor} × {rate} Mbit/s"),
            Unit::Milliseconds,
            median(&delays),
        )
        .noted(format!("asked {} ms", DELAY_MS + queue_ms)),
        Figure::value(
            format!("UDP through {rate} Mbit/s, on the wire"),
            Unit::MegabitsPerSecond,
            throughput(&steady),
        )
        .noted(format!("asked {rate} Mbit/s")),
    ])
}

fn megabits(kbps: u32) -> f64 {
    f64::from(kbps) / 1e3
}

/// Raises the rate while twice as much arrives. The packets that wait leave at the new rate.
fn raised(bench: &Bench, path: &Path) -> anyhow::Result<Vec<Figure>> {
    bench.remove(LINK)?;
    line(bench, DELAY_MS, 512, 500.0)?;
    let load = Load {
        bytes: 1_000,
        kbps: 1_024.0,
        time: 6 * SECOND,
        segments: 1,
    };
    let mut changed = Duration::ZERO;
    let (_, arrivals) = path.send(load, SECOND, || {
        rest(3 * SECOND);
        line(bench, DELAY_MS, 10_000, 500.0)?;
        changed = path.now();
        Ok(())
    })?;
    let is_late = |it: &&Arrival| it.came > changed && milliseconds(it.delay()) > DELAY_MS + 50.0;
    let late = arrivals.iter().filter(is_late);
    let until = late.map(|it| it.came - changed).max().unwrap_or_default();
    let name = "rate raised from 0.512 to 10 Mbit/s: until the delay is as asked";
    let figure = Figure::times(name, &[until]);
    Ok(vec![figure.noted("asked 50 ms, one queue is 500 ms")])
}

/// Lowers the rate while twice the old rate arrives.
fn lowered(bench: &Bench, path: &Path) -> anyhow::Result<Vec<Figure>> {
    /// The throughput is measured in windows of this length.
    const WINDOW: Duration = Duration::from_millis(200);
    const STEP: Duration = Duration::from_millis(50);
    let asked = megabits(1_000);
    bench.remove(LINK)?;
    line(bench, DELAY_MS, 4_000, 200.0)?;
    let load = Load {
        bytes: 1_000,
        kbps: 8_000.0,
        time: 5 * SECOND,
        segments: 1,
    };
    let mut changed = Duration::ZERO;
    let (_, arrivals) = path.send(load, SECOND, || {
        rest(2 * SECOND);
        line(bench, DELAY_MS, 1_000, 200.0)?;
        changed = path.now();
        Ok(())
    })?;
    let mut until = Duration::ZERO;
    let mut begin = changed;
    // Until the load ends.
    while begin < changed + 2 * SECOND {
        let within = |it: &&Arrival| it.came >= begin && it.came < begin + WINDOW;
        let bytes: usize = arrivals.iter().filter(within).map(|it| it.bytes).sum();
        let rate = bytes as f64 * 8e-6 / WINDOW.as_secs_f64();
        if (rate - asked).abs() > asked * 0.15 {
            until = begin + WINDOW - changed;
        }
        begin += STEP;
    }
    let name = "rate lowered from 4 to 1 Mbit/s: until the throughput is as asked";
    let figure = Figure::times(name, &[until]);
    Ok(vec![figure.noted("the old backlog takes 800 ms")])
}

/// Sends less than the capacity, so nothing may be dropped, however small the packets are.
fn below_capacity(
    bench: &Bench,
    path: &Path,
    (bytes, delay_ms, kbps, percent, segments): (usize, f64, u32, u32, usize),
    times: u32,
) -> anyhow::Result<Vec<Figure>> {
    bench.remove(LINK)?;
    line(bench, delay_ms, kbps, 200.0)?;
    let load = Load {
        bytes,
        kbps: f64::from(kbps * percent) / 100.0,
        time: 2 * SECOND * times,
        segments,
    };
    let patience = Duration::from_secs_f64(delay_ms / 1e3) + SECOND;
    let (sent, arrivals) = path.send(load, patience, || Ok(()))?;
    let lost = sent.saturating_sub(arrivals.len());
    let gso = if segments > 1 { "with" } else { "without" };
    let name = format!(
        "dropped, {bytes} B {gso} GSO at {percent} % of {} Mbit/s, delay {delay_ms} ms",
        megabits(kbps)
    );
    let figure = Figure::value(name, Unit::Count, lost as f64);
    Ok(vec![figure.noted(format!("of {sent} packets"))])
}
