//! One blocking request socket: send, receive until the answer is complete.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::Emitable;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, send, setsockopt,
    socket, sockopt,
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
    buffer: Vec<u8>,
}

impl RequestSocket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel gives no rtnetlink socket.
    pub fn open() -> Result<Self, RtnetlinkError> {
        let fd = open(SockFlag::empty()).map_err(RtnetlinkError::Open)?;
        let limit = TimeVal::seconds(TIMEOUT_S);
        setsockopt(&fd, sockopt::ReceiveTimeout, &limit)
            .map_err(|errno| RtnetlinkError::Open(errno.into()))?;
        Ok(Self {
            fd,
            sequence: 0,
            in_step: true,
            buffer: Vec::new(),
        })
    }

    /// Returns whether every answer so far was received to its end.
    pub fn is_in_step(&self) -> bool {
        self.in_step
    }

    /// Gives back what the socket needs only while it is used.
    pub fn rest(&mut self) {
        self.buffer = Vec::new();
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
        mut object: impl FnMut(Message<'_>) -> Result<(), RtnetlinkError>,
    ) -> Result<bool, RtnetlinkError> {
        let failed = |errno: nix::Error| RtnetlinkError::Exchange(errno.into());
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.in_step = false;
        self.buffer.resize(DATAGRAM, 0);
        let bytes = request(kind, flags, sequence, body);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(failed)?;
        let mut interrupted = false;
        let mut done = None;
        while done.is_none() {
            let length = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Err(nix::Error::EINTR) => continue,
                received => received.map_err(failed)?,
            };
            let datagram = self.buffer.get(..length).ok_or(RtnetlinkError::Malformed)?;
            for_each(datagram, |message| {
                if message.sequence != sequence {
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

/// Opens and binds an rtnetlink socket that reports errors in the extended form.
pub(super) fn open(flags: SockFlag) -> io::Result<OwnedFd> {
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
    nix::sys::socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(fd)
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
    nix::errno::Errno::result(result)
        .map(drop)
        .map_err(io::Error::from)
}
