//! Tests whether a token bucket filter below a netem works on this kernel.
//!
//! The fix is the commit f8d4bc455047 ("net/sched: netem: account for backlog updates from child qdisc", Linux 6.13 and
//! stable kernels). Without it, a filter that segments a GSO packet makes the netem count packets that it does not
//! have. When the count reaches the limit of the netem, the interface sends no more packets. The version of a kernel does not
//! show whether it has the fix. The daemon therefore tests it once in each run, on the loopback interface of an empty
//! network namespace. This namespace ends with the test.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use tracing::{info, warn};

use super::netem::Netem;
use super::qdisc::{BottleneckChange, Install, RootChange};
use super::rtnetlink::{RequestSocket, RtnetlinkError};
use super::tbf::Tbf;
use crate::error::chain;

/// The index of the loopback interface in every namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
const NETEM: u32 = 0x7c60_0000;
const FILTER: u32 = 0x7c80_0000;
/// The size of a segment in bytes, and the number of segments in one GSO packet. A packet is larger than the burst of
/// the filter, so the filter must segment it.
const SEGMENT: usize = 1000;
const SEGMENTS: usize = 20;
const BURST: u32 = 4000;
/// The limit of the netem in packets. Without the fix, the wrong count reaches it after three GSO packets.
const LIMIT: u32 = 50;
const ROUNDS: usize = 8;
const BYTES_PER_S: u64 = 50_000_000;
const QUEUE: u32 = 1_000_000;
/// The packets of a round take less than a millisecond. An emulated processor is ten times slower.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The reasons not to use a filter below a netem.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("there is no network namespace to try it in")]
    Namespace(#[source] nix::Error),
    #[error("the qdiscs cannot be installed")]
    Install(#[from] RtnetlinkError),
    #[error("packets cannot be sent")]
    Socket(#[from] std::io::Error),
    #[error("GSO packets cannot be sent")]
    Gso(#[source] nix::Error),
    #[error(
        "the interface stops when GSO packets are segmented (fixed in Linux 6.13 and stable kernels)"
    )]
    Stops,
}

/// Returns whether a filter below a netem can limit the rate of an interface. The first call runs the test. It takes
/// some milliseconds, or half a second if the filter does not work.
pub fn bottleneck_support() -> bool {
    static SUPPORT: OnceLock<bool> = OnceLock::new();
    *SUPPORT.get_or_init(|| match try_it() {
        Ok(()) => {
            info!("rates are limited by a token bucket filter below netem");
            true
        }
        Err(err) => {
            warn!(error = %chain(&err), "rates are limited by netem itself, a filter below it does not work here");
            false
        }
    })
}

fn try_it() -> Result<(), ProbeError> {
    let work = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(ProbeError::Namespace)?;
        try_here()
    };
    let thread = thread::Builder::new().name("probe".into()).spawn(work)?;
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Sends GSO packets through a netem and a filter on the loopback interface of this thread's namespace.
fn try_here() -> Result<(), ProbeError> {
    let mut socket = RequestSocket::open()?;
    socket.set_up(LOOPBACK, true)??;
    let change = RootChange::Install {
        install: Install::Add,
        handle: NETEM,
        netem: Netem {
            limit: LIMIT,
            ..Netem::default()
        },
        bottleneck: BottleneckChange::Set {
            handle: FILTER,
            tbf: Tbf {
                bytes_per_s: BYTES_PER_S,
                burst: BURST,
                limit: QUEUE,
            },
        },
    };
    socket.change_root(LOOPBACK, &change)?.bottleneck?;
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    receiver.set_read_timeout(Some(TIMEOUT))?;
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    sender.connect(receiver.local_addr()?)?;
    let size = libc_int(SEGMENT);
    setsockopt(&sender, sockopt::UdpGsoSegment, &size).map_err(ProbeError::Gso)?;
    let packet = [0; SEGMENT * SEGMENTS];
    let mut segment = [0; SEGMENT + 1];
    for _ in 0..ROUNDS {
        sender.send(&packet)?;
        for _ in 0..SEGMENTS {
            // Any error means that the segment did not arrive.
            receiver.recv(&mut segment).map_err(|_| ProbeError::Stops)?;
        }
    }
    Ok(())
}

fn libc_int(size: usize) -> nix::libc::c_int {
    nix::libc::c_int::try_from(size).expect("a thousand fits")
}
