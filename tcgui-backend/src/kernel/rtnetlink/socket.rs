//! One blocking request socket: sends requests, and receives until the replies are complete.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_packet_core::Emitable;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, NetlinkAddr, SockFlag, SockProtocol, SockType, bind,
    connect, recvmmsg, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::RtnetlinkError;
use super::message::{Message, for_each};
use super::pending::{Exchanged, Pending, acknowledged};

/// Timeout of one datagram in seconds. The kernel holds the rtnl lock for long only while it deletes many
/// namespaces at once.
const TIMEOUT_S: i64 = 5;
/// Number of attempts of a dump that is interrupted by changes.
const DUMP_ATTEMPTS: u32 = 8;
/// The kernel fills at most 32 KiB per datagram of a dump (`netlink_dump`, `net/netlink/af_netlink.c`).
pub(super) const DATAGRAM: usize = 64 * 1024;
/// Datagrams read in one call, for example an object with its acknowledgement, or one part of a dump with its end.
const DATAGRAMS: usize = 4;

/// The upper bits of the ports of request sockets: an event contains the port of the request that caused it. The
/// kernel itself chooses the process id as a port, or a negative number if that is in use (`netlink_autobind`,
/// `net/netlink/af_netlink.c`). These ports are positive and above all process ids (`man 5 proc`, `pid_max`).
const OWN_PORTS: u32 = 0x7c60_0000;
const OWN_PORTS_MASK: u32 = 0xffff_0000;
/// Number of ports that are tried before the kernel chooses one.
const PORT_ATTEMPTS: u32 = 16;

thread_local! {
    /// The receive buffer of this thread. Empty while it is in use. It is not part of a socket, because a socket
    /// is kept for each namespace with a netem. It is not allocated for each request either, because the page
    /// faults of new memory cost more than the request.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
const NLM_F_ECHO: u16 = 8;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

/// The effect of a request on existing objects (`man 7 netlink`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum Change {
    /// Changes or deletes the object, which must exist.
    Existing,
    /// Creates the object, which must not exist.
    Create,
    /// Creates the object, or changes an existing object of the same kind and handle.
    CreateOrAlter,
    /// Creates the object or replaces an existing one. The reply contains the notifications of the change, including
    /// the replaced object.
    Replace,
}

impl Change {
    pub(super) fn flags(self) -> u16 {
        match self {
            Self::Existing => 0,
            Self::Create => NLM_F_CREATE | NLM_F_EXCL,
            Self::CreateOrAlter => NLM_F_CREATE | NLM_F_REPLACE,
            Self::Replace => NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ECHO,
        }
    }
}

/// A request for a change.
type ChangeRequest<'a, B> = (u16, Change, &'a B);
/// The parsed notifications of a change, and the result of the second change in the same datagram.
type Reported<T> = (Vec<T>, Result<(), RtnetlinkError>);
/// The same, and the dump after both.
type ReportedAndDumped<T, U> = (
    Vec<T>,
    Result<(), RtnetlinkError>,
    Result<Vec<U>, RtnetlinkError>,
);

/// A blocking rtnetlink socket, bound to the namespace it was opened in.
#[derive(Debug)]
pub struct RequestSocket {
    fd: OwnedFd,
    sequence: u32,
    in_step: bool,
}

impl RequestSocket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel refuses an rtnetlink socket.
    pub fn open() -> Result<Self, RtnetlinkError> {
        let socket = Self::open_to_all()?;
        connect_to_kernel(&socket.fd).map_err(RtnetlinkError::Open)?;
        Ok(socket)
    }

    /// Opens a socket to which other programs can send. Outside tests, only [`Self::open`] calls this.
    pub(super) fn open_to_all() -> Result<Self, RtnetlinkError> {
        let fd = unbound(SockFlag::empty()).map_err(RtnetlinkError::Open)?;
        bind_own(&fd).map_err(RtnetlinkError::Open)?;
        let limit = TimeVal::seconds(TIMEOUT_S);
        setsockopt(&fd, sockopt::ReceiveTimeout, &limit)
            .map_err(|errno| RtnetlinkError::Open(errno.into()))?;
        Ok(Self {
            fd,
            sequence: 0,
            in_step: true,
        })
    }

    /// Returns whether all replies so far were received completely.
    pub fn is_in_step(&self) -> bool {
        self.in_step
    }

    /// Returns the descriptor for requests that are not netlink messages.
    pub(in crate::kernel) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends a request whose reply is only an acknowledgement.
    pub(in crate::kernel) fn change(
        &mut self,
        kind: u16,
        change: Change,
        body: &impl Emitable,
    ) -> Result<(), RtnetlinkError> {
        let reported = self.change_and_report((kind, change, body), |_| Ok(()));
        reported.map(drop)
    }

    /// Sends a request for a change, and returns the results of `read` for its notifications.
    pub(in crate::kernel) fn change_and_report<T>(
        &mut self,
        (kind, change, body): (u16, Change, &impl Emitable),
        read: impl FnMut(Message<'_>) -> Result<T, RtnetlinkError>,
    ) -> Result<Vec<T>, RtnetlinkError> {
        let mut changing = Pending::change(kind, change, body, read);
        self.exchange(&mut [&mut changing])?;
        changing.objects()
    }

    /// Sends a request for one object and returns the result of `read`.
    pub(in crate::kernel) fn get<T>(
        &mut self,
        kind: u16,
        body: &impl Emitable,
        read: impl FnMut(Message<'_>) -> Result<T, RtnetlinkError>,
    ) -> Result<T, RtnetlinkError> {
        let mut getting = Pending::get(kind, body, read);
        self.exchange(&mut [&mut getting])?;
        getting.object()
    }

    /// Dumps all objects and returns the results of `read`. A dump that was interrupted by a change is repeated
    /// until one is consistent, up to [`DUMP_ATTEMPTS`] times.
    pub(in crate::kernel) fn dump<T>(
        &mut self,
        kind: u16,
        body: &impl Emitable,
        read: impl FnMut(Message<'_>) -> Result<T, RtnetlinkError>,
    ) -> Result<Vec<T>, RtnetlinkError> {
        self.dump_after(Vec::new(), kind, body, read)
    }

    /// Sends a request for a change, and in the same datagram a request for the object after it. The outer result
    /// is that of the change, the inner one that of the read-back.
    pub(in crate::kernel) fn change_and_get<T>(
        &mut self,
        (kind, change, body): (u16, Change, &impl Emitable),
        (get_kind, get_body): (u16, &impl Emitable),
        read: impl FnMut(Message<'_>) -> Result<T, RtnetlinkError>,
    ) -> Result<Result<T, RtnetlinkError>, RtnetlinkError> {
        let mut changing = Pending::change(kind, change, body, |_| Ok(()));
        let mut getting = Pending::get(get_kind, get_body, read);
        let exchanged = self.exchange(&mut [&mut changing, &mut getting]);
        let (_, exchanged) = changing.objects_and(exchanged)?;
        Ok(exchanged.and_then(|()| getting.object()))
    }

    /// Sends two requests for changes in one datagram. Returns the results of `read` for the notifications of the first
    /// change. The inner result is that of the second change.
    pub(in crate::kernel) fn change_both<T, B: Emitable>(
        &mut self,
        (kind, change, body): ChangeRequest<'_, B>,
        read: impl FnMut(Message<'_>) -> Result<T, RtnetlinkError>,
        second: Option<ChangeRequest<'_, B>>,
    ) -> Result<Reported<T>, RtnetlinkError> {
        let mut first = Pending::change(kind, change, body, read);
        let mut second = second.map(|(kind, change, body)| acknowledged(kind, change, body));
        let mut all: Vec<&mut dyn Exchanged> = vec![&mut first];
        if let Some(second) = &mut second {
            all.push(second);
        }
        let exchanged = self.exchange(&mut all);
        let (objects, exchanged) = first.objects_and(exchanged)?;
        let second = second.map_or(Ok(()), Pending::done);
        Ok((objects, exchanged.and(second)))
    }

    /// Sends two requests for changes and a request for a dump after them in one datagram. Returns the results of
    /// `read` for the notifications of the first change. The inner results are those of the second change and of the
    /// dump.
    pub(in crate::kernel) fn change_both_and_dump<T, U, B: Emitable>(
        &mut self,
        (kind, change, body): ChangeRequest<'_, B>,
        read: impl FnMut(Message<'_>) -> Result<T, RtnetlinkError>,
        second: Option<ChangeRequest<'_, B>>,
        (dump_kind, dump_body): (u16, &impl Emitable),
        read_each: impl FnMut(Message<'_>) -> Result<U, RtnetlinkError>,
    ) -> Result<ReportedAndDumped<T, U>, RtnetlinkError> {
        let mut first = Pending::change(kind, change, body, read);
        let mut second = second.map(|(kind, change, body)| acknowledged(kind, change, body));
        let mut before: Vec<&mut dyn Exchanged> = vec![&mut first];
        if let Some(second) = &mut second {
            before.push(second);
        }
        let dumped = self.dump_after(before, dump_kind, dump_body, read_each);
        let (objects, dumped) = first.objects_and(dumped)?;
        // If the reply to the second request is missing, the dump has failed too.
        let second = second.map_or(Ok(()), Pending::done);
        Ok((objects, second, dumped))
    }

    /// Sends a request for one object, and in the same datagram a request for a dump of another kind. The inner
    /// result is that of the dump.
    pub(in crate::kernel) fn get_and_dump<T, U>(
        &mut self,
        (kind, body): (u16, &impl Emitable),
        read: impl FnMut(Message<'_>) -> Result<T, RtnetlinkError>,
        (dump_kind, dump_body): (u16, &impl Emitable),
        read_each: impl FnMut(Message<'_>) -> Result<U, RtnetlinkError>,
    ) -> Result<(T, Result<Vec<U>, RtnetlinkError>), RtnetlinkError> {
        let mut getting = Pending::get(kind, body, read);
        let dumped = self.dump_after(vec![&mut getting], dump_kind, dump_body, read_each);
        let (mut objects, dumped) = getting.objects_and(dumped)?;
        let object = objects.pop().ok_or(RtnetlinkError::Malformed)?;
        Ok((object, dumped))
    }

    /// Dumps all objects. The requests in `before` are sent in the same datagram as the first attempt. The kernel
    /// handles them before the dump.
    fn dump_after<T>(
        &mut self,
        mut before: Vec<&mut dyn Exchanged>,
        kind: u16,
        body: &impl Emitable,
        mut read: impl FnMut(Message<'_>) -> Result<T, RtnetlinkError>,
    ) -> Result<Vec<T>, RtnetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut dumping = Pending::new(kind, NLM_F_DUMP, body, &mut read);
            let mut all: Vec<&mut dyn Exchanged> = Vec::with_capacity(before.len() + 1);
            for request in &mut before {
                all.push(&mut **request);
            }
            all.push(&mut dumping);
            self.exchange(&mut all)?;
            before.clear();
            if !dumping.interrupted {
                return dumping.objects();
            }
            dumping.done()?;
        }
        Err(RtnetlinkError::Interrupted {
            attempts: DUMP_ATTEMPTS,
        })
    }

    /// Sends requests in one datagram, which the kernel handles in order, and reads their replies completely. At
    /// most one may be a dump: a socket runs one at a time (`__netlink_dump_start`).
    fn exchange(&mut self, requests: &mut [&mut dyn Exchanged]) -> Result<(), RtnetlinkError> {
        let mut bytes = Vec::new();
        for request in requests.iter_mut() {
            self.sequence = self.sequence.wrapping_add(1);
            request.push(self.sequence, &mut bytes);
        }
        let mut buffer = BUFFER.take();
        if buffer.is_empty() {
            // Unlike `resize`, this does not touch the pages.
            buffer = vec![0; DATAGRAM * DATAGRAMS];
        }
        let answered = self.exchange_bytes(&bytes, &mut buffer, requests);
        BUFFER.set(buffer);
        answered
    }

    fn exchange_bytes(
        &mut self,
        bytes: &[u8],
        buffer: &mut [u8],
        requests: &mut [&mut dyn Exchanged],
    ) -> Result<(), RtnetlinkError> {
        self.in_step = false;
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map_err(failed)?;
        while !requests.iter().all(|request| request.is_answered()) {
            receive(&self.fd, buffer, |message| {
                let mut requests = requests.iter_mut();
                requests.try_for_each(|request| request.take(message))
            })?;
        }
        self.in_step = true;
        Ok(())
    }
}

fn failed(errno: Errno) -> RtnetlinkError {
    RtnetlinkError::Exchange(errno.into())
}

/// Waits for a datagram, and reads further ones that are queued: usually one call reads the whole reply. Ignores
/// datagrams of other programs.
fn receive(
    fd: &OwnedFd,
    buffer: &mut [u8],
    mut each: impl FnMut(Message<'_>) -> Result<(), RtnetlinkError>,
) -> Result<(), RtnetlinkError> {
    let mut headers = MultiHeaders::<NetlinkAddr>::preallocate(DATAGRAMS, None);
    let parts = buffer.chunks_exact_mut(DATAGRAM);
    let mut parts: Vec<_> = parts.map(|part| [IoSliceMut::new(part)]).collect();
    let flags = MsgFlags::MSG_WAITFORONE;
    let received = match recvmmsg(fd.as_raw_fd(), &mut headers, &mut parts, flags, None) {
        Err(Errno::EINTR) => return Ok(()),
        received => received.map_err(failed)?,
    };
    for datagram in received {
        if !is_kernel(datagram.address) {
            continue;
        }
        if datagram.flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(RtnetlinkError::Malformed);
        }
        datagram
            .iovs()
            .try_for_each(|part| for_each(part, &mut each))?;
    }
    Ok(())
}

/// Returns whether the kernel is the sender of a datagram (`man 7 netlink`, `nl_pid`).
pub(super) fn is_kernel(sender: Option<NetlinkAddr>) -> bool {
    sender.is_some_and(|sender| sender.pid() == 0)
}

/// Refuses datagrams of other programs: `CAP_NET_ADMIN` in the namespace is enough to send to the port of a
/// socket, and the root of a container has it. To a connected socket the kernel delivers only datagrams of its
/// peer (`netlink_getsockbyportid`, `net/netlink/af_netlink.c`). Multicasts still arrive from any sender.
fn connect_to_kernel(fd: &OwnedFd) -> io::Result<()> {
    connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(io::Error::from)
}

/// Returns whether a port is that of a request socket of this program. Another program may have such a port by
/// chance.
pub(super) fn is_own_port(port: u32) -> bool {
    port & OWN_PORTS_MASK == OWN_PORTS
}

/// Opens an rtnetlink socket for events, and lets the kernel choose its port.
pub(super) fn open(flags: SockFlag) -> io::Result<OwnedFd> {
    let fd = unbound(flags)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    connect_to_kernel(&fd)?;
    Ok(fd)
}

/// Opens an rtnetlink socket with extended errors and strict checks.
fn unbound(flags: SockFlag) -> io::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags | SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    for option in [
        libc::NETLINK_EXT_ACK,
        libc::NETLINK_CAP_ACK,
        libc::NETLINK_GET_STRICT_CHK,
    ] {
        set_option(&fd, option, 1)?;
    }
    Ok(fd)
}

/// Binds a socket to a port that identifies this daemon's changes in events.
fn bind_own(fd: &OwnedFd) -> io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORT_ATTEMPTS {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) & !OWN_PORTS_MASK;
        if bind(fd.as_raw_fd(), &NetlinkAddr::new(OWN_PORTS | number, 0)).is_ok() {
            return Ok(());
        }
    }
    // Without such a port, the daemon's own changes are treated like those of other programs.
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(io::Error::from)
}

/// Sets a netlink socket option (`man 7 netlink`), which `nix` does not know.
#[expect(unsafe_code, reason = "nix has no wrapper for SOL_NETLINK options")]
pub(super) fn set_option(fd: &OwnedFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).expect("an int is small");
    // SAFETY: the pointer and length describe `value`, which lives until the call returns; the kernel
    // only reads it. The descriptor is open, borrowed from its owner.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            std::ptr::from_ref(&value).cast(),
            length,
        )
    };
    Errno::result(result).map(drop).map_err(io::Error::from)
}
