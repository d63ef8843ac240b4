//! Measures other operations during a diagnostics run against a target that never replies.
//!
//! The target is an address in the subnet of a veth. It has a neighbour entry, but no host has that link address. Therefore
//! packets to it are sent and dropped, and the run lasts until its timeout.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use tcgui_tests::client::Client;
use tcgui_tests::frontend::Route;
use zenoh::Wait;

use crate::bench::{Bench, Target, ip_batch, rest, veth_pair, with_daemon};
use crate::figure::{Figure, Unit};

const PROBED: Target<'static> = ("default", "pa");
const SWITCHED: Target<'static> = ("default", "va");
const TARGET: &str = "10.99.0.99";
const TIMEOUT_MS: u32 = 5000;

/// Minimum duration of a run. A shorter run did not wait for its target.
const SHORTEST: Duration = Duration::from_millis(200);

/// Number of trials for each diagnostics run.
const TRIALS_PER_RUN: u32 = 100;

/// Interval of the counter samples, short enough for a sufficient number of them.
const INTERVAL: Duration = Duration::from_millis(100);
const REST: Duration = Duration::from_millis(25);

/// The times of other operations during a run, or without one.
#[derive(Debug, Default)]
struct Beside {
    empty: Vec<Duration>,
    switch: Vec<Duration>,
    /// The time by which the interval between samples of one interface was too long.
    late: Vec<Duration>,
}

pub(crate) fn measure(trials: u32) -> anyhow::Result<Vec<Figure>> {
    veth_pair(None, "va", "vb")?;
    veth_pair(None, "pa", "pb")?;
    ip_batch(
        None,
        &[
            "addr add 10.99.0.1/24 dev pa".to_owned(),
            format!("neigh add {TARGET} lladdr 02:00:00:00:00:99 dev pa nud permanent"),
        ],
    )?;
    let interval = format!("{}ms", INTERVAL.as_millis());
    with_daemon(&["--bandwidth-interval", &interval], |bench| {
        bench.wait_up(&[PROBED, SWITCHED])?;
        let samples = Samples::subscribe()?;
        rest(Duration::from_secs(1));
        let (mut without, mut during) = (Beside::default(), Beside::default());
        let mut runs = Vec::new();
        for _ in 0..trials.div_ceil(TRIALS_PER_RUN) {
            let period = Duration::from_millis(TIMEOUT_MS.into());
            let end = Instant::now() + period;
            beside(bench, &samples, &mut without, || Instant::now() >= end)?;
            let (reply, taken) = beside_a_run(bench, &samples, &mut during)?;
            if taken < SHORTEST {
                let why = format!("the run ended after {taken:.1?}: {}", reply["message"]);
                return Ok(figures(&without, None, &why));
            }
            runs.push(taken);
        }
        Ok(figures(&without, Some((&during, &runs)), ""))
    })
}

fn beside_a_run(
    bench: &Bench,
    samples: &Samples,
    during: &mut Beside,
) -> anyhow::Result<(Value, Duration)> {
    let client = bench.asker();
    thread::scope(|scope| {
        let run = scope.spawn(|| diagnose(client));
        beside(bench, samples, during, || run.is_finished())?;
        run.join().map_err(|_| anyhow!("the thread panicked"))?
    })
}

fn diagnose(client: &Client) -> anyhow::Result<(Value, Duration)> {
    let (namespace, interface) = PROBED;
    let request = json!({"namespace": namespace, "interface": interface, "target": TARGET,
        "timeout_ms": TIMEOUT_MS});
    client.ask("diagnostics", &request)
}

/// Sends queries of several kinds until the run is over.
fn beside(
    bench: &Bench,
    samples: &Samples,
    times: &mut Beside,
    is_over: impl Fn() -> bool,
) -> anyhow::Result<()> {
    samples.take();
    let mut up = false;
    while !is_over() {
        times.empty.push(bench.ask_for_nothing()?);
        rest(REST);
        times.switch.push(bench.switch(SWITCHED, up)?);
        up = !up;
        rest(REST);
    }
    let arrivals = samples.take();
    let gaps = arrivals.windows(2).map(|pair| pair[1] - pair[0]);
    times
        .late
        .extend(gaps.map(|gap| gap.saturating_sub(INTERVAL)));
    bench.switch(SWITCHED, true)?;
    Ok(())
}

fn figures(without: &Beside, during: Option<(&Beside, &Vec<Duration>)>, why: &str) -> Vec<Figure> {
    let mut figures = vec![match during {
        Some((_, runs)) => Figure::times("a run, its target silent", runs),
        None => Figure::missing("a run, its target silent", Unit::Milliseconds, why),
    }];
    type Pick = fn(&Beside) -> &Vec<Duration>;
    let kinds: [(&str, Pick); 3] = [
        ("empty query", |it| &it.empty),
        ("Enable/Disable", |it| &it.switch),
        ("samples, lateness", |it| &it.late),
    ];
    for (name, pick) in kinds {
        let quiet = Figure::times(format!("{name}, without a run"), pick(without));
        let added = format!("{name}, p99 during a run − without");
        match during {
            Some((during, _)) => {
                let beside = Figure::times(format!("{name}, during a run"), pick(during));
                let p99 = |figure: &Figure| figure.summary().map_or(f64::NAN, |it| it.p99);
                let more = p99(&beside) - p99(&quiet);
                figures.extend([
                    quiet,
                    beside,
                    Figure::value(added, Unit::Milliseconds, more),
                ]);
            }
            None => figures.extend([quiet, Figure::missing(added, Unit::Milliseconds, "no run")]),
        }
    }
    figures
}

/// The arrivals of samples of one interface, received over a separate session.
#[derive(Debug)]
struct Samples {
    arrivals: Arc<Mutex<Vec<Instant>>>,
    _session: zenoh::Session,
}

impl Samples {
    fn subscribe() -> anyhow::Result<Self> {
        let session = Route::default().open()?;
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&arrivals);
        let (namespace, interface) = PROBED;
        session
            .declare_subscriber(format!("tcgui/default/bandwidth/{namespace}/{interface}"))
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
        Ok(Self {
            arrivals,
            _session: session,
        })
    }

    /// Removes and returns the arrivals since the last call.
    fn take(&self) -> Vec<Instant> {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut arrivals)
    }
}
