//! Sends numbered UDP packets from the left to the right namespace, and records when each was sent and received.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::sys::socket::{setsockopt, sockopt};

use super::{LEFT, LEFT_ADDRESS, RIGHT, RIGHT_ADDRESS};
use crate::bench::{inside_named, rest};

/// The port of the packets. No other program uses it in these namespaces.
const PORT: u16 = 7001;

/// The value of each payload byte after the number. Any other value is a corruption.
pub(super) const PATTERN: u8 = 0xa5;
pub(super) const NUMBER: usize = 4;
pub(super) const PAYLOAD: usize = 1000;

/// Receive buffer in bytes for all packets that are sent without a pause, because the receiver may be asleep.
const ROOM: usize = 8 * 1024 * 1024;

/// Number of packets that are sent without a pause before the sender yields.
const CHUNK: u32 = 20;

/// Two sockets, one in each namespace.
#[derive(Debug)]
pub(super) struct Path {
    left: UdpSocket,
    right: UdpSocket,
}

/// The packets of one measurement.
#[derive(Debug)]
pub(super) struct Flight {
    sent: Vec<Instant>,
    /// Numbers and times in order of arrival.
    arrived: Vec<(u32, Instant)>,
}

impl Path {
    pub(super) fn open() -> anyhow::Result<Self> {
        let left = inside_named(LEFT, || {
            let socket = UdpSocket::bind((LEFT_ADDRESS, 0)).context("open the left socket")?;
            Ok(socket)
        })?;
        let right = inside_named(RIGHT, || {
            let socket = UdpSocket::bind((RIGHT_ADDRESS, PORT)).context("open the right socket")?;
            setsockopt(&socket, sockopt::RcvBufForce, &ROOM).context("make room for packets")?;
            Ok(socket)
        })?;
        left.connect((RIGHT_ADDRESS, PORT))?;
        Ok(Self { left, right })
    }

    /// Sends packets, and receives until none has arrived for `patience`.
    pub(super) fn fly(
        &self,
        packets: u32,
        apart: Duration,
        patience: Duration,
    ) -> anyhow::Result<Flight> {
        self.right.set_read_timeout(Some(patience))?;
        thread::scope(|scope| {
            let receiver = scope.spawn(|| receive(&self.right));
            let sent = self.send(packets, apart)?;
            let arrived = receiver
                .join()
                .map_err(|_| anyhow!("the receiver panicked"))?;
            Ok(Flight {
                sent,
                arrived: arrived?,
            })
        })
    }

    /// Sends packets. Returns the time of each.
    pub(super) fn send(&self, packets: u32, apart: Duration) -> anyhow::Result<Vec<Instant>> {
        let mut packet = [PATTERN; NUMBER + PAYLOAD];
        let mut sent = Vec::new();
        for number in 0..packets {
            if !apart.is_zero() {
                rest(apart);
            } else if number % CHUNK == 0 {
                rest(Duration::from_millis(1));
            }
            packet[..NUMBER].copy_from_slice(&number.to_be_bytes());
            sent.push(Instant::now());
            self.left.send(&packet).context("send a packet")?;
        }
        Ok(sent)
    }
}

fn receive(socket: &UdpSocket) -> anyhow::Result<Vec<(u32, Instant)>> {
    let mut buffer = [0; NUMBER + PAYLOAD + 1];
    let mut arrived = Vec::new();
    loop {
        let received = socket.recv(&mut buffer);
        let now = Instant::now();
        match received {
            Ok(_) => {
                let [a, b, c, d, ..] = buffer;
                arrived.push((u32::from_be_bytes([a, b, c, d]), now));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(arrived),
            Err(error) => return Err(error).context("receive a packet"),
        }
    }
}

impl Flight {
    /// Returns the delay of each packet that arrived.
    pub(super) fn delays(&self) -> Vec<Duration> {
        let delay = |(number, at): &(u32, Instant)| {
            let sent = self.sent.get(usize::try_from(*number).ok()?)?;
            Some(at.saturating_duration_since(*sent))
        };
        self.arrived.iter().filter_map(delay).collect()
    }

    fn numbers(&self) -> BTreeSet<u32> {
        self.arrived.iter().map(|(number, _)| *number).collect()
    }

    /// Returns the number of packets that never arrived.
    pub(super) fn lost(&self) -> u32 {
        count(self.sent.len() - self.numbers().len())
    }

    /// Returns the number of packets that arrived again.
    pub(super) fn repeated(&self) -> u32 {
        count(self.arrived.len() - self.numbers().len())
    }

    /// Returns the number of packets that arrived after one that was sent later.
    pub(super) fn overtaken(&self) -> u32 {
        let mut last = 0;
        let mut overtaken = 0;
        for (number, _) in &self.arrived {
            if *number < last {
                overtaken += 1;
            }
            last = last.max(*number);
        }
        overtaken
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_repeated_and_overtaken_packets_are_counted() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let flight = Flight {
            sent: (0..6).map(at).collect(),
            arrived: vec![(0, at(3)), (2, at(4)), (1, at(5)), (5, at(6)), (5, at(6))],
        };
        assert_eq!(flight.lost(), 2);
        assert_eq!(flight.repeated(), 1);
        assert_eq!(flight.overtaken(), 1);
        let delays: Vec<_> = flight.delays().iter().map(Duration::as_millis).collect();
        assert_eq!(delays, [3, 2, 4, 1, 1]);
    }
}
