//! A TCP stream through a rate limit.
//!
//! netem counts frames, and the receiver counts payload. The segment size converts one to the other.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{getsockopt, sockopt};
use serde_json::json;
use tcgui_backend::kernel::qdisc::QdiscStatistics;
use tcgui_backend::kernel::rtnetlink::RequestSocket;

use super::{LEFT, LINK, RIGHT, RIGHT_ADDRESS, impair};
use crate::bench::{Bench, inside_named};
use crate::figure::{Figure, Unit};

/// Length of the Ethernet, IPv4 and TCP headers with timestamps, in each segment.
const HEADERS: u32 = 14 + 20 + 20 + 12;

/// Time in which the stream fills the queue. It is not part of the measurement.
const BEGINNING: Duration = Duration::from_millis(1000);

/// Sends as fast as possible for a period. Returns the rate on the link and the drops of the queue.
pub(super) fn rate(bench: &Bench, kbps: u32, period: Duration) -> anyhow::Result<Vec<Figure>> {
    // Remove the netem, because its queue may still contain the preceding stream.
    bench.remove(LINK)?;
    impair(bench, &json!({"rate_limit_kbps": kbps}))?;
    let listener = inside_named(RIGHT, || {
        TcpListener::bind((RIGHT_ADDRESS, 0)).context("listen on the right")
    })?;
    let address = listener.local_addr()?;
    let sender = inside_named(LEFT, || {
        TcpStream::connect(address).context("connect from the left")
    })?;
    let (receiver, _) = listener.accept().context("accept on the right")?;
    let segment = getsockopt(&sender, sockopt::TcpMaxSeg).context("ask for the segment size")?;
    let bytes_per_s = thread::scope(|scope| {
        let flow = scope.spawn(|| flow(&receiver, period));
        send(sender, period + BEGINNING)?;
        flow.join().map_err(|_| anyhow!("the receiver panicked"))?
    })?;
    let wire = bytes_per_s * f64::from(segment + HEADERS) / f64::from(segment);
    let statistics = statistics()?;
    // Removing the netem drops the packets that are still in the queue.
    bench.remove(LINK)?;
    let name = format!("{} Mbit/s", f64::from(kbps) / 1e3);
    let drops = f64::from(statistics.drops);
    let note = format!("{} sent, {} waiting", statistics.packets, statistics.qlen);
    Ok(vec![
        Figure::value(
            format!("TCP through rate {name}, on the wire"),
            Unit::MegabitsPerSecond,
            wire * 8.0 / 1e6,
        ),
        Figure::value(
            format!("dropped by the queue, rate {name}"),
            Unit::Count,
            drops,
        )
        .noted(note),
    ])
}

/// Writes until the period is over. After the close, only the data in the queue is sent.
fn send(mut stream: TcpStream, period: Duration) -> anyhow::Result<()> {
    let bytes = [0; 16 * 1024];
    let end = Instant::now() + period;
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    while Instant::now() < end {
        match stream.write(&bytes) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                return Err(error).context("send into the stream");
            }
            // The queue is full, as intended.
            _ => {}
        }
    }
    Ok(())
}

/// Returns the payload per second between two arrivals. The first arrival is not counted, because it was sent before.
fn flow(mut stream: &TcpStream, period: Duration) -> anyhow::Result<f64> {
    let mut buffer = vec![0; 256 * 1024];
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let opened = Instant::now();
    let mut began = None;
    let mut bytes = 0;
    loop {
        let length = stream.read(&mut buffer).context("receive the stream")?;
        let now = Instant::now();
        ensure!(length > 0, "the stream ended too soon");
        match began {
            None if now - opened >= BEGINNING => began = Some(now),
            None => {}
            Some(began) => {
                bytes += length;
                if now - began >= period - BEGINNING {
                    return Ok(bytes as f64 / (now - began).as_secs_f64());
                }
            }
        }
    }
}

/// Returns the statistics of the root qdisc.
fn statistics() -> anyhow::Result<QdiscStatistics> {
    inside_named(LEFT, || {
        let ifindex = if_nametoindex(LINK.1).context("find the link")?;
        let qdiscs = RequestSocket::open()?.qdiscs()?;
        let root = qdiscs
            .iter()
            .find(|it| it.ifindex == ifindex && it.is_root() && it.netem.is_some());
        Ok(root.context("no netem at the root")?.statistics)
    })
}
