//! Sends UDP packets through a router, so that no sender is stopped by its own socket buffer, and records when each was sent and
//! received.
//!
//! ```text
//!  source ── s0 ── r0 [router] r1 (netem and filter) ── d0 ── sink
//! ```

use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::sys::socket::{setsockopt, sockopt};
use tcgui_tests::netns;

use crate::bench::{Target, inside_named, ip_batch, rest};

const SOURCE: &str = "source";
const ROUTER: &str = "router";
const SINK: &str = "sink";
/// The interface that is impaired.
pub(super) const LINK: Target<'static> = (ROUTER, "r1");

/// Length of the Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;
/// Receive buffer in bytes for the packets that arrive while the receiver does not run.
const ROOM: usize = 8 * 1024 * 1024;
/// The time between two bursts of the sender.
const APART: Duration = Duration::from_millis(2);
/// How often the receiver looks whether the sender has ended.
const LOOK: Duration = Duration::from_millis(100);

/// The packets to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// The size of a packet on the wire.
    pub(super) bytes: usize,
    /// The rate of the frames in kbit/s.
    pub(super) kbps: f64,
    pub(super) time: Duration,
    /// How many packets the sender passes to the kernel at once, as one GSO packet. 1: without GSO.
    pub(super) segments: usize,
}

/// A packet that arrived: when it was sent and when it came, since the start, and its size on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// Only the first packet of a GSO packet has it.
    sent: Duration,
    pub(super) came: Duration,
    pub(super) bytes: usize,
}

impl Arrival {
    pub(super) fn delay(self) -> Duration {
        self.came.saturating_sub(self.sent)
    }
}

/// The two ends of the path.
#[derive(Debug)]
pub(super) struct Path {
    source: UdpSocket,
    sink: UdpSocket,
    began: Instant,
}

/// Makes the namespaces and links.
pub(super) fn build() -> anyhow::Result<()> {
    for name in [SOURCE, ROUTER, SINK] {
        netns::add(name)?;
    }
    let end = |link: &str, address: &str| {
        [
            format!("addr add {address}/24 dev {link}"),
            format!("link set {link} up"),
        ]
    };
    let pair = |here: &str, there: &str, netns: &str| {
        vec![format!(
            "link add {here} type veth peer name {there} netns {netns}"
        )]
    };
    let mut router = pair("r0", "s0", SOURCE);
    router.extend(pair("r1", "d0", SINK));
    router.extend(end("r0", "10.8.0.1"));
    router.extend(end("r1", "10.8.1.1"));
    ip_batch(Some(ROUTER), &router)?;
    for (netns, link, address, gateway) in [
        (SOURCE, "s0", "10.8.0.2", "10.8.0.1"),
        (SINK, "d0", "10.8.1.2", "10.8.1.1"),
    ] {
        let mut lines = end(link, address).to_vec();
        lines.push(format!("route add default via {gateway}"));
        ip_batch(Some(netns), &lines)?;
    }
    inside_named(ROUTER, || {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("make a router")
    })
}

impl Path {
    pub(super) fn open() -> anyhow::Result<Self> {
        let source = inside_named(SOURCE, || {
            UdpSocket::bind("10.8.0.2:0").context("open the source")
        })?;
        let sink = inside_named(SINK, || {
            let socket = UdpSocket::bind("10.8.1.2:7000").context("open the sink")?;
            setsockopt(&socket, sockopt::RcvBufForce, &ROOM).context("make room for packets")?;
            Ok(socket)
        })?;
        source.connect("10.8.1.2:7000")?;
        sink.set_read_timeout(Some(LOOK))?;
        Ok(Self {
            source,
            sink,
            began: Instant::now(),
        })
    }

    /// Returns the time since the path was opened, on which all times of arrivals count.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Sends a load, calls `meanwhile` beside that, and receives until nothing has come for as long as `patience`. Returns the
    /// number of packets that were sent, and those that arrived.
    pub(super) fn send(
        &self,
        load: Load,
        patience: Duration,
        meanwhile: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<(usize, Vec<Arrival>)> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let receiver = scope.spawn(|| self.receive(&over, patience));
            let sender = scope.spawn(|| {
                let sent = self.flood(load);
                over.store(true, Ordering::Relaxed);
                sent
            });
            let done = meanwhile();
            let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
            let arrived = receiver
                .join()
                .map_err(|_| anyhow!("the receiver panicked"))?;
            done?;
            Ok((sent?, arrived?))
        })
    }

    fn receive(&self, over: &AtomicBool, patience: Duration) -> anyhow::Result<Vec<Arrival>> {
        let mut buffer = [0; 2048];
        let mut arrivals = Vec::new();
        let mut last = Instant::now();
        loop {
            match self.sink.recv(&mut buffer) {
                Ok(length) => {
                    last = Instant::now();
                    let [a, b, c, d, e, f, g, h, ..] = buffer;
                    let us = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
                    arrivals.push(Arrival {
                        sent: Duration::from_micros(us),
                        came: self.now(),
                        bytes: length + HEADERS,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if over.load(Ordering::Relaxed) && last.elapsed() > patience {
                        return Ok(arrivals);
                    }
                }
                Err(error) => return Err(error).context("receive a packet"),
            }
        }
    }

    fn flood(&self, load: Load) -> anyhow::Result<usize> {
        let payload = load.bytes - HEADERS;
        // The kernel splits what is written at once into packets of this size. 0: it does not.
        let segment = if load.segments > 1 { payload } else { 0 };
        let segment = i32::try_from(segment)?;
        setsockopt(&self.source, sockopt::UdpGsoSegment, &segment).context("set the GSO size")?;
        let per_s = load.kbps * 125.0 / load.bytes as f64;
        let start = Instant::now();
        let mut packets = vec![0; payload * load.segments];
        let mut sent = 0;
        while start.elapsed() < load.time {
            while (sent as f64) < start.elapsed().as_secs_f64() * per_s {
                let us = u64::try_from(self.now().as_micros())?;
                if let Some(time) = packets.get_mut(..size_of::<u64>()) {
                    time.copy_from_slice(&us.to_ne_bytes());
                }
                self.source.send(&packets).context("send a packet")?;
                sent += load.segments;
            }
            rest(APART);
        }
        Ok(sent)
    }
}
