//! Measures counters and rates of a thousand interfaces: the processor time, and the duration of a tick.
//!
//! The daemon does not publish its ticks. Ticks are exactly one interval apart, so the earliest first arrival of all ticks gives
//! their times, except for the time to read the first chunk of namespaces. The last arrival of each tick is measured from there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use tcgui_tests::frontend::Route;
use tcgui_tests::netns;
use zenoh::Wait;

use crate::bench::{Bench, ip_batch, rest, with_daemon};
use crate::figure::{Figure, Unit, milliseconds};

/// The default interval.
const INTERVAL: Duration = Duration::from_secs(2);

/// Number of trials for each observed tick.
const TRIALS_PER_TICK: u32 = 20;

/// No sweeps, which are the other activity of an idle daemon.
const ARGUMENTS: [&str; 2] = ["--sweep-interval", "1h"];

/// Number of links between two namespaces. Each namespace also has a loopback link.
const LINKS: usize = 19;
const FEW: usize = 50;
const MANY: usize = 1000;

pub(crate) fn measure(trials: u32) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    // The host's loopback is an additional interface.
    figures.extend(situation(trials, "50 namespaces", FEW, LINKS)?);
    figures.extend(situation(trials, "1000 namespaces", MANY, 0)?);
    Ok(figures)
}

/// Measures a new daemon with a thousand interfaces in this number of namespaces.
fn situation(
    trials: u32,
    name: &str,
    namespaces: usize,
    links: usize,
) -> anyhow::Result<Vec<Figure>> {
    netns::add_burst((0..namespaces).map(|it| format!("n{it}")).collect())?;
    if links > 0 {
        for pair in 0..namespaces / 2 {
            let (here, there) = (format!("n{}", 2 * pair), format!("n{}", 2 * pair + 1));
            let veth = |link| format!("link add v{link} type veth peer name v{link} netns {there}");
            let lines: Vec<_> = (0..links).map(veth).collect();
            ip_batch(Some(&here), &lines)?;
        }
    }
    let expected = namespaces * (links + 1) + 1;
    with_daemon(&ARGUMENTS, |bench| {
        bench.wait_namespaces(namespaces)?;
        watch(bench, trials.div_ceil(TRIALS_PER_TICK), expected, name)
    })
}

fn watch(bench: &Bench, ticks: u32, expected: usize, name: &str) -> anyhow::Result<Vec<Figure>> {
    let session = Route::default().open()?;
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&arrivals);
    session
        .declare_subscriber("tcgui/default/bandwidth/*/**")
        .callback(move |_| {
            let now = Instant::now();
            sink.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(now);
        })
        .background()
        .wait()
        .map_err(|error| anyhow!(error))
        .context("subscribe to samples")?;
    // Wait for the remaining work of the start.
    rest(INTERVAL * 2);
    let daemon = bench.daemon()?;
    let (began, before) = (Instant::now(), daemon.cpu_time()?);
    rest(INTERVAL * ticks);
    let used = daemon.cpu_time()? - before;
    let share = used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    rest(INTERVAL);
    let arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
    let rounds = rounds(&arrivals);
    ensure!(rounds.len() > 2, "{} ticks seen", rounds.len());
    // Skip the first and the last tick, which may be incomplete.
    let rounds = rounds.get(1..rounds.len() - 1).unwrap_or_default();
    let missing = rounds
        .iter()
        .map(|round| expected as f64 - round.len() as f64);
    Ok(vec![
        Figure::value(format!("processor time, {name}"), Unit::Percent, share),
        Figure::new(
            format!("samples missing, {name}"),
            Unit::Count,
            missing.collect(),
        )
        .noted(format!("of {expected} in a tick")),
        Figure::new(
            format!("last sample after the tick, {name}"),
            Unit::Milliseconds,
            lateness(rounds),
        ),
    ])
}

/// Groups arrivals by tick. Between two ticks there is a long pause.
fn rounds(arrivals: &[Instant]) -> Vec<&[Instant]> {
    let pause = |a: &Instant, b: &Instant| *b - *a < INTERVAL / 4;
    arrivals.chunk_by(pause).collect()
}

/// Returns the time from each tick to its last arrival in ms.
fn lateness(rounds: &[&[Instant]]) -> Vec<f64> {
    let Some(origin) = rounds.first().and_then(|round| round.first()) else {
        return Vec::new();
    };
    let ends = (0..).zip(rounds).filter_map(|(number, round)| {
        let due = *origin + INTERVAL * number;
        let first = *round.first()?;
        let last = *round.last()?;
        // Either may be before the tick of the first round, if that round was late.
        let ms = |at: Instant| {
            milliseconds(at.saturating_duration_since(due))
                - milliseconds(due.saturating_duration_since(at))
        };
        Some((ms(first), ms(last)))
    });
    let ends: Vec<_> = ends.collect();
    let soonest = ends.iter().map(|(first, _)| *first).fold(0.0, f64::min);
    ends.iter().map(|(_, last)| last - soonest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_counts_from_the_soonest_tick() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let arrivals = [at(30), at(40), at(2010), at(2020), at(4110), at(4111)];
        let rounds = rounds(&arrivals);
        assert_eq!(rounds.len(), 3);
        let late: Vec<_> = lateness(&rounds).iter().map(|it| it.round()).collect();
        assert_eq!(late, [30.0, 10.0, 101.0]);
    }
}
