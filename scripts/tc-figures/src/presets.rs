//! Compares the shipped presets and scenarios with their files: the shares of lost, duplicated and corrupted packets.

use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tcgui_backend::{preset, scenario};
use tcgui_shared::netem::{LossModel, TcNetemConfig};
use tcgui_tests::netns;

use crate::bench::{Bench, Target, inside_named, ip_batch, with_daemon};
use crate::figure::{Figure, Unit};
use crate::progress;

const NETNS: &str = "measured";
const LINK: Target<'static> = (NETNS, "lo");
/// The shipped files.
const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tcgui-backend/assets");

/// Number of packets for each feature, and in a run with few trials.
const PACKETS: u32 = 100_000;
const FEW_PACKETS: u32 = 20_000;
/// Packets that are sent before the receiver reads.
const CHUNK: u32 = 50;
/// Large, so that few flipped bits are in the header of the frame, where nothing checks them.
const PAYLOAD: usize = 1_200;
/// The last packets may still be in the backlog of the processor.
const LAST: Duration = Duration::from_millis(200);

/// One feature of one configuration, and the share of packets in percent that its file promises.
struct Promise {
    name: String,
    config: TcNetemConfig,
    percent: f64,
    /// By how much the dependence of packets on each other raises the variance.
    clustering: f64,
}

pub(crate) fn measure(trials: u32) -> anyhow::Result<Vec<Figure>> {
    let packets = if trials < 100 { FEW_PACKETS } else { PACKETS };
    netns::add(NETNS)?;
    ip_batch(Some(NETNS), &["link set lo up".to_owned()])?;
    let promises = shipped()?;
    ensure!(promises.len() > 20, "only {} features", promises.len());
    with_daemon(&[], |bench| {
        bench.wait_up(&[LINK])?;
        let socket = inside_named(NETNS, || {
            let socket = UdpSocket::bind("127.0.0.1:0").context("open a socket")?;
            socket.connect(socket.local_addr()?)?;
            Ok(socket)
        })?;
        let mut figures = Vec::new();
        for promise in &promises {
            figures.push(kept(bench, &socket, promise, packets)?);
        }
        let deviations = figures.iter().flat_map(|figure| figure.samples.clone());
        let largest = deviations.fold(0.0, f64::max);
        figures.push(Figure::value(
            "largest deviation",
            Unit::Deviations,
            largest,
        ));
        Ok(figures)
    })
}

/// Counts the packets that a feature hits. Returns by how many standard deviations this is not what was promised.
fn kept(
    bench: &Bench,
    socket: &UdpSocket,
    promise: &Promise,
    packets: u32,
) -> anyhow::Result<Figure> {
    let request = json!({
        "namespace": LINK.0, "interface": LINK.1, "operation": {"ApplyConfig": {"config": promise.config}},
    });
    let (reply, _) = bench.tc(&request)?;
    ensure!(
        reply["success"] == true && !reply["applied_config"].is_null(),
        "{reply}"
    );
    let arrived = f64::from(fly(socket, packets)?);
    let packets = f64::from(packets);
    let share = promise.percent / 100.0;
    let hit = (arrived - packets).abs() / packets;
    let variance = share * (1.0 - share) * promise.clustering / packets;
    let deviations = ((hit - share) / variance.sqrt()).abs();
    let note = format!(
        "asked {} %, measured {:.3} % of {packets}",
        promise.percent,
        hit * 100.0
    );
    progress::say(format_args!("{}: {note}, {deviations:.2} σ", promise.name));
    Ok(Figure::value(
        format!("{}, off by", promise.name),
        Unit::Deviations,
        deviations,
    )
    .noted(note))
}

/// Sends packets to the own address. Returns how many arrived intact.
fn fly(socket: &UdpSocket, packets: u32) -> anyhow::Result<u32> {
    let mut buffer = [0; PAYLOAD];
    let mut arrived = 0;
    let mut drain = || loop {
        match socket.recv(&mut buffer) {
            Ok(_) => arrived += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("receive a packet"),
        }
    };
    socket.set_nonblocking(true)?;
    for _ in 0..packets / CHUNK {
        for _ in 0..CHUNK {
            socket.send(&[0; PAYLOAD]).context("send a packet")?;
        }
        drain()?;
    }
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(LAST))?;
    drain()?;
    Ok(arrived)
}

/// Returns the promises of a configuration, each with all other features off: a delay would hold the packets.
fn promises(place: &str, config: &TcNetemConfig) -> Vec<Promise> {
    let off = TcNetemConfig::default;
    let mut promises = Vec::new();
    let mut push = |feature: &str, config: TcNetemConfig, percent: f64, clustering: f64| {
        promises.push(Promise {
            name: format!("{place}: {feature}"),
            config,
            percent,
            clustering,
        });
    };
    if config.loss.enabled {
        let mut alone = off();
        alone.loss = config.loss;
        alone.extensions.loss_model = config.extensions.loss_model;
        let clustering = match config.extensions.loss_model {
            Some(LossModel::GilbertElliott { p, r, .. }) => {
                let memory = 1.0 - (p + r) / 100.0;
                (1.0 + memory) / (1.0 - memory)
            }
            _ => 1.0,
        };
        push("loss", alone, config.loss.percentage, clustering);
    }
    if config.duplicate.enabled {
        let mut alone = off();
        alone.duplicate = config.duplicate;
        push("duplicate", alone, config.duplicate.percentage, 1.0);
    }
    if config.corrupt.enabled {
        let mut alone = off();
        alone.corrupt = config.corrupt;
        push("corrupt", alone, config.corrupt.percentage, 1.0);
    }
    promises
}

/// Returns the promises of all shipped files, each share of a feature once.
fn shipped() -> anyhow::Result<Vec<Promise>> {
    let mut all = Vec::new();
    for bytes in files("presets")? {
        let preset = preset::read(&bytes)?.value;
        all.extend(promises(&preset.id, &preset.config));
    }
    for bytes in files("scenarios")? {
        let scenario = scenario::read(&bytes, &[], 0)?.value;
        for (index, step) in scenario.steps.iter().enumerate() {
            let place = format!("{} step {index}", scenario.id);
            all.extend(promises(&place, &step.tc_config));
        }
    }
    let mut unique: Vec<Promise> = Vec::new();
    for promise in all {
        if !unique.iter().any(|it| it.config == promise.config) {
            unique.push(promise);
        }
    }
    Ok(unique)
}

fn files(kind: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let directory = Path::new(ASSETS).join(kind);
    let listed =
        fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
    let paths: Result<Vec<_>, _> = listed.map(|entry| entry.map(|it| it.path())).collect();
    let mut paths = paths?;
    paths.sort();
    let read = |path: std::path::PathBuf| fs::read(&path).context("read a shipped file");
    paths.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_share_is_measured_once() {
        let promises = shipped().unwrap();
        assert!(promises.len() > 20);
        let bursts = promises.iter().filter(|it| it.clustering > 1.5);
        assert!(bursts.count() > 3, "losses come in bursts");
        for promise in &promises {
            assert!(promise.percent > 0.0, "{}", promise.name);
        }
    }
}
