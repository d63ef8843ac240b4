//! One socket that receives changes of links and qdiscs, and the deletion of namespaces, for every namespace with
//! an id.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, NetlinkAddr, SockFlag, recvmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

use super::message::{Message, for_each, take};
use super::observer::{Observer, ObserverIds};
use super::socket::{DATAGRAM, is_kernel, is_own_port, open, set_option};
use super::{Nsid, RtnetlinkError};

/// Size of the queue in bytes. A thousand namespaces created at once cause a few thousand messages, each under 2
/// KiB. The kernel charges the memory only while it is used. Messages that do not fit are reported as lost.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// Multicast groups (`enum rtnetlink_groups`, `include/uapi/linux/rtnetlink.h`).
const GROUPS: [u32; 3] = [libc::RTNLGRP_LINK, libc::RTNLGRP_TC, RTNLGRP_NSID];
const RTNLGRP_NSID: u32 = 28;
const RTM_NEWNSID: u16 = 88;
const RTM_DELNSID: u16 = 89;
/// The address family of messages about the link itself.
const AF_UNSPEC: u8 = 0;
/// Limit of the datagrams that [`EventSocket::pending`] takes. Each takes a few microseconds, in which other work
/// waits.
const MOST_PENDING: usize = 4096;

/// An event of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelEvent {
    /// A link or qdisc of this namespace changed. `None`: the host's namespace.
    Changed(Option<Nsid>),
    /// As `Changed`, but by this daemon: a qdisc was changed over a [`RequestSocket`](super::RequestSocket), and
    /// the worker reads it back itself.
    ChangedHere(Option<Nsid>),
    /// The link with this index was deleted or moved to another namespace. A later link with this index is another
    /// link.
    Deleted(Option<Nsid>, u32),
    /// The kernel itself assigned a namespace an id in the observer's table, because a dump contained a link whose
    /// other end is there.
    NsidAssigned(Nsid),
    /// The kernel itself assigned a namespace an id in the host's table, for instance because a link moved there.
    /// The id is from the host's table.
    MetByHost(Nsid),
    /// The namespace was deleted. Its id may be assigned to another one.
    NsidRemoved(Nsid),
    /// Events were lost. Any state may have changed.
    Lost,
}

/// The events that the kernel had queued.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// The oldest first. Empty if no message was an event.
    pub events: Vec<KernelEvent>,
    /// The queue may contain more.
    pub has_more: bool,
}

/// The namespace of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The host's namespace, or that of a socket that receives events of its own namespace only.
    Host,
    /// The namespace with this id in the observer's table.
    Other(Nsid),
    /// The observer itself.
    Observer,
}

/// Receives events of every namespace that has an id in the observer's table, without a descriptor inside any of
/// them.
///
/// With `NETLINK_LISTEN_ALL_NSID` (`man 7 netlink`) a control message contains the origin of an event. Without
/// `CAP_NET_BROADCAST`, the kernel silently withholds events of other namespaces.
#[derive(Debug)]
pub struct EventSocket {
    fd: AsyncFd<OwnedFd>,
    /// `None`: the socket receives events of its own namespace only.
    ids: Option<ObserverIds>,
}

impl EventSocket {
    /// Opens the socket inside the observer. From then on events of all these namespaces and the host's arrive, or
    /// are reported as lost.
    ///
    /// # Errors
    /// The kernel refuses the socket, the option or a group, or the observer cannot be entered.
    pub fn open_in(observer: &Observer) -> Result<Self, RtnetlinkError> {
        let runtime = Handle::current();
        observer.run(|| {
            let _context = runtime.enter();
            Self::listen(Some(observer.ids()))
        })?
    }

    /// Opens a socket that receives only events of the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel refuses the socket or a group.
    pub fn open_here() -> Result<Self, RtnetlinkError> {
        Self::listen(None)
    }

    fn listen(ids: Option<ObserverIds>) -> Result<Self, RtnetlinkError> {
        let fd = open(SockFlag::SOCK_NONBLOCK).map_err(RtnetlinkError::Open)?;
        if ids.is_some() {
            set_option(&fd, libc::NETLINK_LISTEN_ALL_NSID, 1).map_err(RtnetlinkError::Open)?;
        }
        for group in GROUPS {
            set_option(&fd, libc::NETLINK_ADD_MEMBERSHIP, group.cast_signed())
                .map_err(RtnetlinkError::Open)?;
        }
        // Refused in a user namespace. Then the default size is used.
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).ok();
        #[expect(
            unsafe_code,
            reason = "tokio asks its callers to vouch for the descriptor"
        )]
        // SAFETY: the descriptor is moved into the `AsyncFd`, which gives out only shared references and closes it when it is
        // dropped. Until then it is open and has no other owner.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        fd.map(|fd| Self { fd, ids })
            .map_err(|err| RtnetlinkError::Open(err.into()))
    }

    /// Waits for events and returns those of one datagram. Cancel-safe: an event that was not returned stays in
    /// the socket.
    ///
    /// # Errors
    /// The socket failed. Lost events are no error but [`KernelEvent::Lost`].
    pub async fn next(&self) -> Result<Vec<KernelEvent>, RtnetlinkError> {
        let receive = |fd: &OwnedFd| receive(fd, self.ids);
        let received = self.fd.async_io(Interest::READABLE, receive).await;
        match received {
            Ok(events) => Ok(events),
            Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => Ok(vec![KernelEvent::Lost]),
            Err(err) => Err(RtnetlinkError::Exchange(err)),
        }
    }

    /// Takes the events that the kernel has queued, at most those of 4096 messages. Does not wait. `None`: no
    /// message was queued.
    ///
    /// # Errors
    /// As [`Self::next`]. The events that were taken before are dropped.
    pub fn pending(&self) -> Result<Option<Queued>, RtnetlinkError> {
        let mut queued = None;
        for _ in 0..MOST_PENDING {
            let events = match receive(self.fd.get_ref(), self.ids) {
                Ok(events) => events,
                Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => vec![KernelEvent::Lost],
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(queued),
                Err(err) => return Err(RtnetlinkError::Exchange(err)),
            };
            queued
                .get_or_insert_with(Queued::default)
                .events
                .extend(events);
        }
        if let Some(queued) = &mut queued {
            queued.has_more = true;
        }
        Ok(queued)
    }

    /// Limits the queue to about this many bytes.
    #[cfg(test)]
    pub(crate) fn limit_queue(&self, bytes: usize) {
        setsockopt(self.fd.get_ref(), sockopt::RcvBufForce, &bytes).unwrap();
    }

    /// Waits until there may be events for [`Self::pending`]. Cancel-safe.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn readable(&self) -> Result<(), RtnetlinkError> {
        let ready = self.fd.readable().await;
        ready.map_err(RtnetlinkError::Exchange)?.clear_ready();
        Ok(())
    }
}

/// Takes one datagram from the socket.
fn receive(fd: &OwnedFd, ids: Option<ObserverIds>) -> io::Result<Vec<KernelEvent>> {
    // Events are small. The buffer fits the largest datagram of the kernel.
    let mut buffer = [0; DATAGRAM];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut control = nix::cmsg_space!(libc::c_int, libc::ucred);
    let received = recvmsg::<NetlinkAddr>(
        fd.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let from_kernel = is_kernel(received.address);
    let whole = !received
        .flags
        .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    let marked = received.cmsgs()?.find_map(|message| origin_id(&message));
    let origin = Origin::new(marked, ids);
    let length = received.bytes;
    if !from_kernel {
        return Ok(Vec::new());
    }
    let mut events = Vec::new();
    let parsed = for_each(&buffer[..length], |message| {
        events.extend(event(message, origin));
        Ok::<(), RtnetlinkError>(())
    });
    if !whole || parsed.is_err() {
        events.push(KernelEvent::Lost);
    }
    events.dedup();
    Ok(events)
}

impl Origin {
    /// Returns the origin of an event that is marked with this id.
    fn new(marked: Option<Nsid>, ids: Option<ObserverIds>) -> Self {
        match (ids, marked) {
            (None, _) => Self::Host,
            (Some(ids), Some(id)) if id == ids.host => Self::Host,
            (Some(ids), Some(id)) if id != ids.observer => Self::Other(id),
            (Some(_), _) => Self::Observer,
        }
    }

    /// Returns the namespace, unless it is the observer, which has no links of interest.
    fn namespace(self) -> Option<Option<Nsid>> {
        match self {
            Self::Host => Some(None),
            Self::Other(id) => Some(Some(id)),
            Self::Observer => None,
        }
    }
}

/// Returns the id that the control message names.
fn origin_id(message: &ControlMessageOwned) -> Option<Nsid> {
    let ControlMessageOwned::Unknown(unknown) = message else {
        return None;
    };
    let header = unknown.cmsg_header;
    let matches =
        header.cmsg_level == libc::SOL_NETLINK && header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID;
    matches
        .then(|| {
            take(&unknown.data_bytes, 0)
                .ok()
                .map(i32::from_ne_bytes)
                .map(Nsid)
        })
        .flatten()
}

fn event(message: Message<'_>, origin: Origin) -> Option<KernelEvent> {
    match message.kind {
        // `qdisc_notify` (`net/sched/sch_api.c`) repeats the port of the request.
        libc::RTM_NEWQDISC | libc::RTM_DELQDISC if is_own_port(message.port) => {
            origin.namespace().map(KernelEvent::ChangedHere)
        }
        // A bridge reports with the same message, but another address family, that a port has left it
        // (`br_ifinfo_notify`, `net/bridge/br_netlink.c`).
        libc::RTM_DELLINK if message.payload.first() == Some(&AF_UNSPEC) => {
            let netns = origin.namespace()?;
            let ifindex = take(message.payload, 4).map(u32::from_ne_bytes);
            Some(ifindex.map_or(KernelEvent::Lost, |ifindex| {
                KernelEvent::Deleted(netns, ifindex)
            }))
        }
        libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWQDISC | libc::RTM_DELQDISC => {
            origin.namespace().map(KernelEvent::Changed)
        }
        RTM_DELNSID if origin == Origin::Observer => {
            let id = message.nsid().map(Nsid);
            Some(id.map_or(KernelEvent::Lost, KernelEvent::NsidRemoved))
        }
        // An id with another port was requested by this daemon, or by a program that has a reference to the
        // namespace.
        RTM_NEWNSID if message.port == 0 => {
            let id = message.nsid().ok().map(Nsid)?;
            match origin {
                Origin::Observer => Some(KernelEvent::NsidAssigned(id)),
                Origin::Host => Some(KernelEvent::MetByHost(id)),
                // Ids in the tables of other namespaces are not used.
                Origin::Other(_) => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: i32 = 7;
    const IDS: ObserverIds = ObserverIds {
        host: Nsid(0),
        observer: Nsid(1),
    };
    const ELSEWHERE: Nsid = Nsid(3);

    /// Returns the event for a kernel message about an id, with `port` in its header.
    fn heard(kind: u16, port: u32, origin: Origin) -> Option<KernelEvent> {
        const NETNSA_NSID: u16 = 1;
        let mut bytes = 28_u32.to_ne_bytes().to_vec();
        for word in [kind, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        // No sequence number, the port, and an unused family.
        for word in [0, port, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in [8, NETNSA_NSID] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(ID.to_ne_bytes());
        let mut events = Vec::new();
        for_each(&bytes, |message| {
            events.push(event(message, origin));
            Ok::<(), RtnetlinkError>(())
        })
        .unwrap();
        assert_eq!(events.len(), 1, "one message");
        events.pop().flatten()
    }

    /// Returns the event for a message about a link, with `family` in its `struct ifinfomsg`.
    fn told_of_link(kind: u16, family: u8) -> Option<KernelEvent> {
        let mut payload = [0; 16];
        payload[0] = family;
        payload[4..8].copy_from_slice(&5_u32.to_ne_bytes());
        event(Message::sample(kind, &payload), Origin::Host)
    }

    #[test]
    fn a_deleted_link_has_an_event_and_a_port_leaving_a_bridge_has_not() {
        const AF_BRIDGE: u8 = 7;
        let changed = Some(KernelEvent::Changed(None));
        let deleted = Some(KernelEvent::Deleted(None, 5));
        assert_eq!(told_of_link(libc::RTM_DELLINK, AF_UNSPEC), deleted);
        assert_eq!(told_of_link(libc::RTM_DELLINK, AF_BRIDGE), changed);
        assert_eq!(told_of_link(libc::RTM_NEWLINK, AF_UNSPEC), changed);
    }

    #[test]
    fn the_id_in_the_control_message_is_the_origin() {
        for (marked, ids, expected) in [
            (Some(IDS.host), Some(IDS), Origin::Host),
            (Some(IDS.observer), Some(IDS), Origin::Observer),
            (None, Some(IDS), Origin::Observer),
            (Some(ELSEWHERE), Some(IDS), Origin::Other(ELSEWHERE)),
            (None, None, Origin::Host),
            // Such a socket receives only its own namespace, which may have an id in its own table.
            (Some(ELSEWHERE), None, Origin::Host),
        ] {
            assert_eq!(Origin::new(marked, ids), expected, "{marked:?} {ids:?}");
        }
    }

    #[test]
    fn only_ids_that_the_kernel_assigned_itself_are_events() {
        let elsewhere = Origin::Other(ELSEWHERE);
        let met = Some(KernelEvent::NsidAssigned(Nsid(ID)));
        let met_by_host = Some(KernelEvent::MetByHost(Nsid(ID)));
        let died = Some(KernelEvent::NsidRemoved(Nsid(ID)));
        for (kind, port, origin, expected) in [
            (RTM_NEWNSID, 0, Origin::Observer, met),
            (RTM_NEWNSID, 4711, Origin::Observer, None),
            (RTM_NEWNSID, 0, Origin::Host, met_by_host),
            (RTM_NEWNSID, 4711, Origin::Host, None),
            (RTM_NEWNSID, 0, elsewhere, None),
            (RTM_DELNSID, 0, Origin::Observer, died),
            (RTM_DELNSID, 4711, Origin::Observer, died),
            // The host may have assigned the id to a namespace other than the observer.
            (RTM_DELNSID, 0, Origin::Host, None),
            (RTM_DELNSID, 0, elsewhere, None),
        ] {
            let heard = heard(kind, port, origin);
            assert_eq!(heard, expected, "{kind} {port} {origin:?}");
        }
    }
}
