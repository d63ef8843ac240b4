//! Makes the system calls of `ip netns` on `/run/netns`, and records the time just before the decisive call.
//!
//! The system calls and their order are those of iproute2 6.1 under strace (`ip/ipnetns.c`). The process keeps running, so that
//! no program start delays the call. It has one thread, because `unshare` and `setns` affect only the caller.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tcgui_tests::client::monotonic_ns;
use tcgui_tests::netns;

use super::containers::Containers;
use super::holders::Holders;
use super::links::Socket;
use crate::protocol::{self, Order};

/// The network namespace of the calling thread, which is the only thread of this process.
const OWN: &str = "/proc/self/ns/net";

/// State that orders keep for later orders.
#[derive(Debug, Default)]
struct Mounter {
    /// The socket in the namespace of [`Order::Enter`].
    socket: Option<Socket>,
    holders: Holders,
    containers: Option<Containers>,
}

pub(super) fn play() -> anyhow::Result<()> {
    let mut mounter = Mounter::default();
    protocol::serve(|order: Order| carry_out(&order, &mut mounter))
}

/// Carries out an order and returns its time zero.
fn carry_out(order: &Order, mounter: &mut Mounter) -> anyhow::Result<u64> {
    let Mounter {
        socket,
        holders,
        containers,
    } = mounter;
    let inside = || anyhow!("no namespace entered");
    let no_engine = || anyhow!("no engine started");
    match order {
        Order::Add { name } => add(name),
        Order::Del { name } => del(name),
        Order::AddAll { names } => last(names.iter().map(|name| add(name))),
        Order::DelAll { names } => last(names.iter().map(|name| del(name))),
        Order::Clear => netns::clear().and_then(|()| monotonic_ns()),
        Order::Recreate { name } => netns::clear().and_then(|()| add(name)),
        Order::IpAdd { name } => netns::add(name).and_then(|()| monotonic_ns()),
        Order::IpDel { name } => netns::del(name).and_then(|()| monotonic_ns()),
        Order::Enter { netns } => {
            *socket = Some(enter(netns)?);
            monotonic_ns()
        }
        Order::Leave => {
            *socket = None;
            monotonic_ns()
        }
        Order::LinkAdd { name } => socket.as_mut().ok_or_else(inside)?.add_veth(name),
        Order::LinkUp { name } => socket.as_mut().ok_or_else(inside)?.set_up(name),
        Order::LinkDel { name } => socket.as_mut().ok_or_else(inside)?.delete(name),
        Order::Hold { name } => holders.start(name),
        Order::HoldAndMove { name } => holders.start_and_move(name),
        Order::Release { name } => holders.end(name),
        Order::StartEngine { engine } => {
            *containers = Some(Containers::start(*engine)?);
            monotonic_ns()
        }
        Order::StopEngine => {
            containers.take().ok_or_else(no_engine)?.stop()?;
            monotonic_ns()
        }
        Order::Run { name } => containers.as_ref().ok_or_else(no_engine)?.run(name),
        Order::Remove { name } => containers.as_ref().ok_or_else(no_engine)?.remove(name),
    }
}

/// Returns the time zero of the last of several orders. Stops at the first failure.
fn last(mut each: impl Iterator<Item = anyhow::Result<u64>>) -> anyhow::Result<u64> {
    let first = each.next().context("nothing to do")??;
    each.try_fold(first, |_, next| next)
}

/// `ip netns add`. Returns the time just before the namespace is mounted.
fn add(name: &str) -> anyhow::Result<u64> {
    make_directory().context("make the netns directory")?;
    let path = netns::path(name);
    OpenOptions::new()
        .read(true)
        .mode(0o000)
        .custom_flags(nix::libc::O_CREAT | nix::libc::O_EXCL)
        .open(&path)
        .with_context(|| format!("make {}", path.display()))?;
    let home = File::open(OWN)?;
    unshare(CloneFlags::CLONE_NEWNET).context("make a namespace")?;
    let start = monotonic_ns()?;
    let mounted = netns::bind(Path::new(OWN), &path);
    setns(home, CloneFlags::CLONE_NEWNET).context("return from the namespace")?;
    mounted.context("mount the namespace")?;
    Ok(start)
}

/// `ip netns del`. Returns the time just before the namespace is unmounted.
fn del(name: &str) -> anyhow::Result<u64> {
    let path = netns::path(name);
    let start = monotonic_ns()?;
    umount2(&path, MntFlags::MNT_DETACH).context("unmount the namespace")?;
    fs::remove_file(&path).context("remove the file of the namespace")?;
    Ok(start)
}

/// Creates the directory, and binds it on itself so that its mounts propagate to other mount namespaces.
fn make_directory() -> anyhow::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(netns::DIR) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let directory = File::open(netns::DIR)?;
    directory.lock()?;
    if share() == Err(Errno::EINVAL) {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        let none = None::<&str>;
        mount(Some(netns::DIR), netns::DIR, none, flags, none).map_err(io::Error::from)?;
        share().map_err(io::Error::from)?;
    }
    Ok(())
}

/// Makes the directory shared. `EINVAL` means that it is not a mount point.
fn share() -> nix::Result<()> {
    let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
    mount(None::<&str>, netns::DIR, None::<&str>, flags, None::<&str>)
}

fn enter(name: &str) -> anyhow::Result<Socket> {
    let home = File::open(OWN)?;
    let there = File::open(netns::path(name)).context("open the namespace")?;
    setns(there, CloneFlags::CLONE_NEWNET).context("enter the namespace")?;
    let socket = Socket::open(0);
    setns(home, CloneFlags::CLONE_NEWNET).context("return from the namespace")?;
    socket
}
