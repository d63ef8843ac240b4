//! One blocking request socket: send, receive until the answer is complete.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_packet_core::Emitable;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::RtnetlinkError;
use super::message::{Answer, Message, for_each, request};

/// How long the kernel may take for one datagram. It holds the rtnl lock for long only while it tears
/// down many namespaces at once.
const TIMEOUT_S: i64 = 5;
/// How often an interrupted dump is repeated before its caller has to come back later.
const DUMP_ATTEMPTS: u32 = 8;
/// The kernel fills at most 32 KiB per datagram of a dump (`netlink_dump`, `net/netlink/af_netlink.c`).
pub(super) const DATAGRAM: usize = 64 * 1024;

/// Ports of request sockets have these upper bits: events say from which port a change was asked for. Above all
/// process ids (`man 5 proc`, `pid_max`), which the kernel gives out first, and no negative number, as it gives
/// out then (`netlink_autobind`, `net/netlink/af_netlink.c`).
const OWN_PORTS: u32 = 0x7c60_0000;
const OWN_PORTS_MASK: u32 = 0xffff_0000;
/// So many ports are tried before the kernel chooses one.
const PORT_ATTEMPTS: u32 = 16;

thread_local! {
    /// Room for a datagram, while nobody on this thread reads into it. A socket does not hold it, of which one
    /// is kept for each namespace with a netem; nor is it made for each request, because the pages of fresh
    /// memory cost more than the request.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

/// What a request for a change may do to what is there (`man 7 netlink`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum Change {
    /// Alter the object, or delete it; it has to exist.
    Existing,
    /// Make it; it must not exist.
    Create,
    /// Make it in place of what is there.
    Replace,
}

impl Change {
    fn flags(self) -> u16 {
        match self {
            Self::Existing => 0,
            Self::Create => NLM_F_CREATE | NLM_F_EXCL,
            Self::Replace => NLM_F_CREATE | NLM_F_REPLACE,
        }
    }
}

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
    /// The kernel gives no rtnetlink socket.
    pub fn open() -> Result<Self, RtnetlinkError> {
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

    /// Returns whether every answer so far was received to its end.
    pub fn is_in_step(&self) -> bool {
        self.in_step
    }

    /// Lends the descriptor for what is asked in another way than with messages.
    pub(in crate::kernel) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends a request that is only acknowledged.
    pub(in crate::kernel) fn change(
        &mut self,
        kind: u16,
        change: Change,
        body: &impl Emitable,
    ) -> Result<(), RtnetlinkError> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | change.flags();
        self.exchange(kind, flags, body, |_| Ok(()))
            .map(|_interrupted| ())
    }

    /// Sends a request for one object and returns what `read` makes of it.
    pub(in crate::kernel) fn get<T>(
        &mut self,
        kind: u16,
        body: &impl Emitable,
        mut read: impl FnMut(Message<'_>) -> Result<T, RtnetlinkError>,
    ) -> Result<T, RtnetlinkError> {
        let mut object = None;
        self.exchange(kind, NLM_F_REQUEST | NLM_F_ACK, body, |message| {
            object = Some(read(message)?);
            Ok(())
        })?;
        object.ok_or(RtnetlinkError::Malformed)
    }

    /// Dumps all objects and returns what `read` makes of each. A dump that was interrupted by a change
    /// is repeated until one is consistent.
    pub(in crate::kernel) fn dump<T>(
        &mut self,
        kind: u16,
        body: &impl Emitable,
        mut read: impl FnMut(Message<'_>) -> Result<T, RtnetlinkError>,
    ) -> Result<Vec<T>, RtnetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut objects = Vec::new();
            let interrupted = self.exchange(kind, NLM_F_REQUEST | NLM_F_DUMP, body, |message| {
                objects.push(read(message)?);
                Ok(())
            })?;
            if !interrupted {
                return Ok(objects);
            }
        }
        Err(RtnetlinkError::Interrupted {
            attempts: DUMP_ATTEMPTS,
        })
    }

    /// Sends a request and reads its answer to the end; returns whether a dump was interrupted.
    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &impl Emitable,
        object: impl FnMut(Message<'_>) -> Result<(), RtnetlinkError>,
    ) -> Result<bool, RtnetlinkError> {
        let mut buffer = BUFFER.take();
        if buffer.is_empty() {
            // Unlike `resize`, this does not touch the pages.
            buffer = vec![0; DATAGRAM];
        }
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request(kind, flags, self.sequence, body);
        let answered = self.exchange_bytes(&bytes, &mut buffer, object);
        BUFFER.set(buffer);
        answered
    }

    fn exchange_bytes(
        &mut self,
        bytes: &[u8],
        buffer: &mut [u8],
        mut object: impl FnMut(Message<'_>) -> Result<(), RtnetlinkError>,
    ) -> Result<bool, RtnetlinkError> {
        let failed = |errno: nix::Error| RtnetlinkError::Exchange(errno.into());
        self.in_step = false;
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map_err(failed)?;
        let mut interrupted = false;
        let mut done = None;
        while done.is_none() {
            let length = match recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
                Err(nix::Error::EINTR) => continue,
                received => received.map_err(failed)?,
            };
            let datagram = buffer.get(..length).ok_or(RtnetlinkError::Malformed)?;
            for_each(datagram, |message| {
                if message.sequence != self.sequence {
                    return Ok(());
                }
                interrupted |= message.interrupted();
                match message.answer()? {
                    Answer::Object => object(message),
                    Answer::Done(result) => {
                        done = Some(result);
                        Ok(())
                    }
                }
            })?;
        }
        self.in_step = true;
        done.unwrap_or(Err(RtnetlinkError::Malformed))
            .map(|()| interrupted)
    }
}

/// Returns whether a port is that of a request socket of this program. Another one may have it by chance.
pub(super) fn is_own_port(port: u32) -> bool {
    port & OWN_PORTS_MASK == OWN_PORTS
}

/// Opens an rtnetlink socket, and lets the kernel choose its port.
pub(super) fn open(flags: SockFlag) -> io::Result<OwnedFd> {
    let fd = unbound(flags)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(fd)
}

/// Opens an rtnetlink socket that reports errors in the extended form.
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

/// Gives a socket a port by which events are told from those of others.
fn bind_own(fd: &OwnedFd) -> io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORT_ATTEMPTS {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) & !OWN_PORTS_MASK;
        if bind(fd.as_raw_fd(), &NetlinkAddr::new(OWN_PORTS | number, 0)).is_ok() {
            return Ok(());
        }
    }
    // Whatever was wrong with those: its own changes are then looked at as those of others are.
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
