//! Measures Enable and Disable. The reply follows after the link was read back.

use std::time::Duration;

use tcgui_tests::netns;

use crate::bench::{Bench, Target, rest, veth_pair, with_daemon};
use crate::figure::Figure;

const HOST: Target<'static> = ("default", "va");
const NAMED: Target<'static> = ("measured", "va");

/// Number of named namespaces in the second half.
const MANY: usize = 1000;

/// Pause in which the list after a change is published and read.
const REST: Duration = Duration::from_millis(50);

pub(crate) fn measure(trials: u32) -> anyhow::Result<Vec<Figure>> {
    veth_pair(None, "va", "vb")?;
    with_daemon(&[], |bench| {
        bench.wait_up(&[HOST])?;
        let mut figures = vec![empty(bench, trials, "0 namespaces")?];
        figures.extend(series(bench, trials, HOST, "host, 0 namespaces")?);
        netns::add(NAMED.0)?;
        veth_pair(Some(NAMED.0), "va", "vb")?;
        bench.wait_up(&[NAMED])?;
        figures.extend(series(bench, trials, NAMED, "named, 1 namespace")?);
        netns::add_burst((1..MANY).map(|number| format!("n{number}")).collect())?;
        bench.wait_namespaces(MANY)?;
        rest(Duration::from_secs(1));
        figures.push(empty(bench, trials, "1000 namespaces")?);
        figures.extend(series(bench, trials, HOST, "host, 1000 namespaces")?);
        figures.extend(series(bench, trials, NAMED, "named, 1000 namespaces")?);
        Ok(figures)
    })
}

fn empty(bench: &Bench, trials: u32, situation: &str) -> anyhow::Result<Figure> {
    let mut times = Vec::new();
    for _ in 0..trials {
        rest(REST);
        times.push(bench.ask_for_nothing()?);
    }
    Ok(Figure::times(format!("empty query, {situation}"), &times))
}

fn series(
    bench: &Bench,
    trials: u32,
    target: Target<'_>,
    situation: &str,
) -> anyhow::Result<[Figure; 2]> {
    // Earlier queries have been answered, and the daemon has logged them.
    rest(REST);
    let before = bench.answered("interface")?.len();
    let mut times = Vec::new();
    for trial in 0..trials {
        rest(REST);
        times.push(bench.switch(target, trial % 2 == 1)?);
    }
    bench.switch(target, true)?;
    rest(REST);
    let mut daemon = bench.answered("interface")?.split_off(before);
    daemon.truncate(times.len());
    Ok([
        Figure::times(format!("Enable/Disable, {situation}"), &times),
        Figure::times(format!("Enable/Disable, daemon, {situation}"), &daemon),
    ])
}
