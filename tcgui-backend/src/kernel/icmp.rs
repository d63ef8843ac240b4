//! Echo requests and their replies, over one socket that is bound to an interface and an address.
//!
//! The socket is opened in the namespace of the calling thread and keeps it alive until it is dropped. A raw
//! socket is tried first. A ping socket (`man 7 icmp`) is refused where `ping_group_range` is `1 0`, as in every
//! new namespace. Where it is allowed, it needs no `CAP_NET_RAW`.

mod packet;

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, recv,
    send, setsockopt, socket, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use packet::{Format, Marks};

/// `ICMP_FILTER` (`include/uapi/linux/icmp.h`): types whose bit is set are dropped.
const ICMP_FILTER: libc::c_int = 1;
const ONLY_ECHO_REPLY: [u32; 1] = [!(1 << packet::ECHO_REPLY)];
/// `ICMPV6_FILTER` (`include/uapi/linux/icmpv6.h`), with one bit for each of the 256 types.
const ICMPV6_FILTER: libc::c_int = 1;
const ONLY_ECHO_REPLY_V6: [u32; 8] = {
    let mut blocked = [u32::MAX; 8];
    blocked[packet::ECHO_REPLY_V6 as usize / 32] &= !(1 << (packet::ECHO_REPLY_V6 % 32));
    blocked
};
/// Size of the longest IPv4 header and one of our echoes, in bytes.
const LARGEST: usize = 60 + packet::LENGTH;

/// Why no echo request can be sent.
#[derive(Debug, thiserror::Error)]
pub enum IcmpError {
    /// Neither kind of socket can be opened.
    #[error("cannot open an ICMP socket")]
    Open(#[source] io::Error),
    /// The socket was not bound to the interface.
    #[error("cannot bind an ICMP socket to the interface")]
    Bind(#[source] io::Error),
    /// There is no route to the address.
    #[error("cannot address the target")]
    Connect(#[source] io::Error),
    /// The runtime cannot register the socket.
    #[error("cannot wait for replies")]
    Register(#[source] io::Error),
}

/// A socket for the echoes of one interface and one target.
#[derive(Debug)]
pub struct EchoSocket {
    fd: OwnedFd,
    format: Format,
    marks: Marks,
}

impl EchoSocket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`IcmpError::Connect`] if the target cannot be reached, for instance because there is no route.
    pub fn open(ifname: &OsStr, target: SocketAddr) -> Result<Self, IcmpError> {
        let (fd, format) = any_socket(target)?;
        setsockopt(&fd, sockopt::BindToDevice, &ifname.to_owned())
            .map_err(|errno| IcmpError::Bind(errno.into()))?;
        filter(&fd, format).map_err(IcmpError::Open)?;
        // From here on the kernel passes on only packets from the target.
        connect(fd.as_raw_fd(), &SockaddrStorage::from(target))
            .map_err(|errno| IcmpError::Connect(errno.into()))?;
        Ok(Self {
            fd,
            format,
            marks: new_marks(),
        })
    }

    /// Registers the socket for asynchronous use. Call it in the context of a runtime.
    ///
    /// # Errors
    /// [`IcmpError::Register`].
    pub fn into_channel(self) -> Result<EchoChannel, IcmpError> {
        #[expect(
            unsafe_code,
            reason = "tokio asks its callers to vouch for the descriptor"
        )]
        // SAFETY: the descriptor is moved into the `AsyncFd`, which gives out only shared references and closes it when it is
        // dropped. Until then it is open and has no other owner.
        let fd = unsafe { AsyncFd::register_with_interest(self.fd, Interest::READABLE) };
        Ok(EchoChannel {
            fd: fd.map_err(|err| IcmpError::Register(err.into()))?,
            format: self.format,
            marks: self.marks,
        })
    }
}

/// Sends echo requests and receives the replies to them.
#[derive(Debug)]
pub struct EchoChannel {
    fd: AsyncFd<OwnedFd>,
    format: Format,
    marks: Marks,
}

impl EchoChannel {
    /// Sends one request. Never waits.
    ///
    /// # Errors
    /// The request was not sent: the queue is full, or the kernel knows that the target cannot be reached.
    pub fn send(&self, sequence: u16) -> io::Result<()> {
        let request = packet::request(self.format, self.marks, sequence);
        let send = || send(self.fd.as_raw_fd(), &request, MsgFlags::empty()).map(drop);
        // `send` first returns a pending error of an earlier request, once, and sends nothing.
        Ok(send().or_else(|_| send())?)
    }

    /// Waits for a reply to one of our requests and returns its sequence number. Cancel-safe: a packet that was
    /// not returned stays in the socket.
    ///
    /// # Errors
    /// An ICMP error that the kernel received for the target. Later replies may still arrive.
    pub async fn reply(&self) -> io::Result<u16> {
        let mut buffer = [0; LARGEST];
        loop {
            let receive = |fd: &OwnedFd| {
                let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
                let received = buffer.get(..length).unwrap_or_default();
                Ok(packet::reply(self.format, self.marks, received))
            };
            if let Some(sequence) = self.fd.async_io(Interest::READABLE, receive).await? {
                return Ok(sequence);
            }
        }
    }
}

/// Opens a raw socket, or a ping socket where that is refused.
fn any_socket(target: SocketAddr) -> Result<(OwnedFd, Format), IcmpError> {
    let (family, protocol) = match target {
        SocketAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        SocketAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let open = |kind| {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        socket(family, kind, flags, protocol)
    };
    let v6 = target.is_ipv6();
    match open(SockType::Raw) {
        Ok(fd) => Ok((fd, Format { v6, raw: true })),
        Err(refused) => match open(SockType::Datagram) {
            Ok(fd) => Ok((fd, Format { v6, raw: false })),
            Err(_) => Err(IcmpError::Open(refused.into())),
        },
    }
}

/// Drops everything except echo replies on a raw socket, which otherwise receives all ICMP packets of the target.
fn filter(fd: &OwnedFd, format: Format) -> io::Result<()> {
    match (format.raw, format.v6) {
        (false, _) => Ok(()),
        (true, false) => set_option(fd, libc::SOL_RAW, ICMP_FILTER, &ONLY_ECHO_REPLY),
        (true, true) => set_option(fd, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &ONLY_ECHO_REPLY_V6),
    }
}

/// Returns marks that distinguish the echoes of one socket from those of other sockets and programs.
fn new_marks() -> Marks {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let [.., high, low] = std::process::id().to_ne_bytes();
    Marks {
        identifier: NEXT
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(u16::from_ne_bytes([high, low])),
        token: since.map_or(0, |since| {
            u64::from(since.subsec_nanos()) << 32 | since.as_secs()
        }),
    }
}

/// Sets a socket option that `nix` does not know.
#[expect(unsafe_code, reason = "nix has no wrapper for the ICMP filters")]
fn set_option(
    fd: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &[u32],
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).expect("filters are small");
    // SAFETY: the pointer and length describe `value`, which lives until the call returns; the kernel
    // only reads it. The descriptor is open, borrowed from its owner.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value.as_ptr().cast(), length) };
    nix::errno::Errno::result(result)
        .map(drop)
        .map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::lab::PrivateNetns;

    /// Opens a socket on the loopback inside and sends one request to the target.
    async fn ask(netns: &PrivateNetns, target: &str) -> io::Result<u16> {
        let target = target.parse().unwrap();
        let socket = netns.inside(|| EchoSocket::open(OsStr::new("lo"), target));
        let channel = socket.unwrap().into_channel().unwrap();
        channel.send(7).unwrap();
        channel.reply().await
    }

    #[tokio::test]
    async fn the_loopback_replies() {
        let netns = PrivateNetns::new();
        netns.ip("link set lo up");
        assert_eq!(ask(&netns, "127.0.0.1:0").await.unwrap(), 7);
        assert_eq!(ask(&netns, "[::1]:0").await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_ping_socket_is_used_if_raw_sockets_are_refused() {
        let netns = PrivateNetns::new();
        netns.ip("link set lo up");
        for target in ["127.0.0.1:0", "[::1]:0"] {
            let target: SocketAddr = target.parse().unwrap();
            let v6 = target.is_ipv6();
            let fd = netns.inside(|| {
                std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
                let (family, protocol) = if v6 {
                    (AddressFamily::Inet6, SockProtocol::IcmpV6)
                } else {
                    (AddressFamily::Inet, SockProtocol::Icmp)
                };
                let fd = socket(
                    family,
                    SockType::Datagram,
                    SockFlag::SOCK_NONBLOCK,
                    protocol,
                )
                .unwrap();
                connect(fd.as_raw_fd(), &SockaddrStorage::from(target)).unwrap();
                fd
            });
            let socket = EchoSocket {
                fd,
                format: Format { v6, raw: false },
                marks: new_marks(),
            };
            let channel = socket.into_channel().unwrap();
            channel.send(9).unwrap();
            assert_eq!(channel.reply().await.unwrap(), 9);
        }
    }

    #[tokio::test]
    async fn echoes_of_other_sockets_are_ignored() {
        let netns = PrivateNetns::new();
        netns.ip("link set lo up");
        let target = "127.0.0.1:0".parse().unwrap();
        let open = || {
            let socket = netns.inside(|| EchoSocket::open(OsStr::new("lo"), target));
            socket.unwrap().into_channel().unwrap()
        };
        let (one, other) = (open(), open());
        other.send(1).unwrap();
        assert_eq!(other.reply().await.unwrap(), 1);
        // By now the reply to the request of the other socket is in this socket too.
        one.send(2).unwrap();
        assert_eq!(one.reply().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_missing_link_or_route_is_reported_at_once() {
        let netns = PrivateNetns::new();
        netns.ip("link set lo up");
        let open = |ifname: &'static str, target: &str| {
            let target = target.parse().unwrap();
            netns.inside(|| EchoSocket::open(OsStr::new(ifname), target))
        };
        let no_link = open("absent", "127.0.0.1:0").unwrap_err();
        assert!(matches!(no_link, IcmpError::Bind(_)), "{no_link}");
        let no_route = open("lo", "[2001:db8::1]:0").unwrap_err();
        assert!(matches!(no_route, IcmpError::Connect(_)), "{no_route}");
    }
}
