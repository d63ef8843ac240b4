//! A private network namespace from which the daemon reads all others.
//!
//! The kernel dumps another namespace by an id, and each namespace has its own table of ids. Ids in the host's
//! table are visible: `ip netns list` shows them, and `ip netns set` cannot choose another id. So the daemon uses
//! ids in the table of an empty namespace of its own. This also applies to the ids that the kernel assigns to the
//! peers of veth links during a dump (`rtnl_fill_link_netnsid`, `net/core/rtnetlink.c`): it assigns them in the
//! namespace of the socket.
//!
//! No process is in this namespace and no link is connected to it. One descriptor and the sockets opened inside
//! keep it alive. The kernel removes it when the daemon ends.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::{Nsid, RequestSocket, RtnetlinkError};
use crate::kernel::netns::inside;

/// The namespace of the calling thread. `/proc/self` is the main thread, which may be in another namespace in a
/// test.
const HERE: &str = "/proc/thread-self/ns/net";

/// A private network namespace. Clones share it. It is deleted after the last clone and the last socket inside are
/// dropped.
#[derive(Debug, Clone)]
pub struct Observer {
    netns: Arc<OwnedFd>,
    ids: ObserverIds,
}

/// Two ids in the observer's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ObserverIds {
    /// The id of the host's namespace.
    pub(super) host: Nsid,
    /// The id of the observer itself. The kernel marks its events with this id.
    pub(super) observer: Nsid,
}

impl Observer {
    /// Creates the namespace. From then on the namespace of the calling thread is the host's.
    ///
    /// # Errors
    /// [`RtnetlinkError::Observer`]: the namespace cannot be created (`CAP_SYS_ADMIN`, or the limit
    /// `max_net_namespaces`). [`RtnetlinkError::Refused`]: the host's namespace cannot be read by an id
    /// (`CAP_NET_ADMIN` over it).
    pub fn open() -> Result<Self, RtnetlinkError> {
        let host = File::open(HERE).map_err(RtnetlinkError::Observer)?;
        let netns = make().map_err(RtnetlinkError::Observer)?;
        let mut socket = socket_inside(&netns)?;
        let ids = ObserverIds {
            host: socket.namespace_id(&host.into())?,
            observer: socket.namespace_id(&netns)?,
        };
        // The kernel assigns an id even if the caller may not read by it.
        socket.ids_given_by(ids.host)?;
        Ok(Self {
            netns: Arc::new(netns),
            ids,
        })
    }

    /// Returns the id of the host's namespace.
    pub fn host(&self) -> Nsid {
        self.ids.host
    }

    pub(super) fn ids(&self) -> ObserverIds {
        self.ids
    }

    /// Opens a request socket inside.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel refuses the socket.
    pub fn socket(&self) -> Result<RequestSocket, RtnetlinkError> {
        socket_inside(&self.netns)
    }

    /// Runs `work` inside, on a temporary thread.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub(super) fn run<T: Send>(
        &self,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, RtnetlinkError> {
        run_inside(&self.netns, work)
    }
}

/// Creates an empty namespace on a temporary thread.
fn make() -> io::Result<OwnedFd> {
    let unshared = || -> io::Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(File::open(HERE)?.into())
    };
    let thread = thread::Builder::new().name("observer".into());
    thread
        .spawn(unshared)?
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn socket_inside(netns: &OwnedFd) -> Result<RequestSocket, RtnetlinkError> {
    run_inside(netns, RequestSocket::open)?
}

fn run_inside<T: Send>(
    netns: &OwnedFd,
    work: impl FnOnce() -> T + Send,
) -> Result<T, RtnetlinkError> {
    let netns = netns.try_clone().map_err(RtnetlinkError::Observer)?;
    inside(netns, work).map_err(RtnetlinkError::Observer)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::{self, Command};

    use super::*;
    use crate::kernel::lab::PrivateNetns;

    /// Runs `work` in a private namespace that acts as the host's.
    fn on_a_host(work: impl FnOnce(&PrivateNetns) + Send) {
        let host = PrivateNetns::new();
        host.inside(|| work(&host));
    }

    /// Returns the ids in the table of the calling thread's namespace.
    fn ids_here(observer: &Observer) -> Vec<(Nsid, Option<Nsid>)> {
        let mut socket = observer.socket().unwrap();
        socket.ids_given_by(observer.host()).unwrap()
    }

    #[test]
    fn ids_are_given_in_the_observers_table_only() {
        on_a_host(|_| {
            let observer = Observer::open().unwrap();
            let netns = PrivateNetns::new();
            let mut socket = observer.socket().unwrap();
            let id = socket.namespace_id(&netns.open()).unwrap();
            assert_eq!(socket.namespace_id(&netns.open()).unwrap(), id, "same");
            let links = socket.links(Some(id)).unwrap();
            assert_eq!(links.len(), 1, "{links:?}");
            assert_eq!(ids_here(&observer), []);
        });
    }

    #[test]
    fn a_dump_of_the_host_by_its_id_assigns_no_ids_there() {
        on_a_host(|host| {
            // No event about `near` follows after its peer has moved on, so the host has no id for the second
            // namespace.
            let (first, second) = (PrivateNetns::new(), PrivateNetns::new());
            host.ip("link add near type veth peer name far");
            move_link("far", &first.open());
            first.inside(|| move_link("far", &second.open()));
            let observer = Observer::open().unwrap();
            let mut socket = observer.socket().unwrap();
            let known = ids_here(&observer).len();
            let links = socket.links(Some(observer.host())).unwrap();
            let near = links.iter().any(|link| link.ifname == "near");
            assert!(near, "{links:?}");
            assert_eq!(ids_here(&observer).len(), known, "the dump gave no id");
            // A dump in the host's namespace, like that of `ip link`, does.
            RequestSocket::open().unwrap().links(None).unwrap();
            assert_eq!(ids_here(&observer).len(), known + 1);
        });
    }

    #[test]
    fn ids_of_the_host_are_matched_with_those_of_the_observer() {
        on_a_host(|_| {
            let observer = Observer::open().unwrap();
            let (known, unknown) = (PrivateNetns::new(), PrivateNetns::new());
            let mut host = RequestSocket::open().unwrap();
            let in_host = |socket: &mut RequestSocket, netns: &PrivateNetns| {
                socket.namespace_id(&netns.open()).unwrap()
            };
            let expected = [
                (
                    in_host(&mut host, &known),
                    Some(in_host(&mut observer.socket().unwrap(), &known)),
                ),
                (in_host(&mut host, &unknown), None),
            ];
            let mut ids = ids_here(&observer);
            ids.sort_unstable();
            assert_eq!(ids, expected);
        });
    }

    fn move_link(name: &str, netns: &OwnedFd) {
        let path = format!("/proc/{}/fd/{}", process::id(), netns.as_raw_fd());
        let mut ip = Command::new("ip");
        ip.args(["link", "set", name, "netns", &path]);
        let output = ip.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
