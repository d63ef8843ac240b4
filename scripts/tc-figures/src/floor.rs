//! The minimum time of any program: one netlink replace and one dump on an open socket.
//!
//! It is measured in a namespace without a name, which the daemon does not know. That namespace has the same links as the one in
//! which the daemon is measured.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use tcgui_backend::kernel::netem::Netem;
use tcgui_backend::kernel::qdisc::{BottleneckChange, Install, RootChange};
use tcgui_backend::kernel::rtnetlink::RequestSocket;

use crate::bench::veth_pair;

/// `10:`, a usual choice with `tc`.
const HANDLE: u32 = 0x10_0000;

/// A socket in the namespace. It keeps the namespace alive.
#[derive(Debug)]
pub(crate) struct Floor {
    socket: RequestSocket,
    ifindex: u32,
    turn: u32,
}

impl Floor {
    /// Creates the namespace on a thread that ends afterwards.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let visitor = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("make a namespace for the floor")?;
            veth_pair(None, "va", "vb")?;
            let ifindex = if_nametoindex("va").context("find the link of the floor")?;
            let socket = RequestSocket::open()?;
            anyhow::Ok(Self {
                socket,
                ifindex,
                turn: 0,
            })
        });
        let mut floor = visitor
            .join()
            .map_err(|_| anyhow!("the visitor panicked"))??;
        // The first call creates the netem that the others replace.
        floor.replace_and_dump()?;
        Ok(floor)
    }

    /// Replaces the netem and reads all qdiscs. Returns the duration of both.
    pub(crate) fn replace_and_dump(&mut self) -> anyhow::Result<Duration> {
        self.turn += 1;
        let netem = Netem {
            limit: 1000,
            latency_ns: u64::from(10 + self.turn % 2) * 1_000_000,
            ..Netem::default()
        };
        let replace = RootChange::Install {
            install: Install::Replace,
            handle: HANDLE,
            netem,
            bottleneck: BottleneckChange::Keep,
        };
        let start = Instant::now();
        self.socket.change_root(self.ifindex, &replace)?;
        let qdiscs = self.socket.qdiscs()?;
        let elapsed = start.elapsed();
        let in_force = qdiscs
            .iter()
            .any(|it| it.is_root() && it.netem.is_some_and(|it| it.latency_ns == netem.latency_ns));
        ensure!(in_force, "the netem of the floor is not there: {qdiscs:?}");
        Ok(elapsed)
    }
}
