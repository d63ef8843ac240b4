//! The least that any program could need: one netlink replace and one dump, on a socket that is open.
//!
//! In a namespace without a name, of which the daemon knows nothing, with the same links as the one in
//! which the daemon is measured.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use tcgui_backend::kernel::netem::Netem;
use tcgui_backend::kernel::qdisc::{Install, RootChange};
use tcgui_backend::kernel::rtnetlink::RequestSocket;

use crate::bench::veth_pair;

/// `10:`, as somebody with `tc` would choose.
const HANDLE: u32 = 0x10_0000;

/// A socket in the namespace, which lives as long.
#[derive(Debug)]
pub(crate) struct Floor {
    socket: RequestSocket,
    ifindex: u32,
    turn: u32,
}

impl Floor {
    /// Makes the namespace, on a thread that ends there.
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
        // The first one makes what the others replace.
        floor.replace_and_dump()?;
        Ok(floor)
    }

    /// Replaces the netem by another one and reads all qdiscs; returns how long both took.
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
