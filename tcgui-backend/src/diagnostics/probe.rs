//! Reads the link and the gateway inside the namespace, and opens a socket there.

use std::io;

use tcgui_shared::error_kind::ErrorKind;

use super::Order;
use super::target::{RequestedTarget, Target, gateway};
use crate::error::kind_of;
use crate::kernel::icmp::{EchoSocket, IcmpError};
use crate::kernel::link::Link;
use crate::kernel::netns::{NetnsFiles, NetnsKey, OpenError, inside};
use crate::kernel::rtnetlink::{RequestSocket, RtnetlinkError};
use crate::tc::observed::Observed;

/// The kernel's error for a link that does not exist: `ENODEV`.
const NO_SUCH_LINK: i32 = 19;

/// Why the interface cannot be checked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("the interface or its namespace is gone")]
    Vanished,
    #[error("cannot open the namespace")]
    Open(#[source] io::Error),
    #[error("cannot enter the namespace")]
    Enter(#[source] io::Error),
    #[error("cannot read the interface")]
    Link(#[source] RtnetlinkError),
    #[error("cannot read the qdiscs")]
    Qdiscs(#[source] RtnetlinkError),
    #[error("cannot read the routes")]
    Routes(#[source] RtnetlinkError),
}

impl ProbeError {
    pub(super) fn kind(&self) -> ErrorKind {
        let errno = match self {
            Self::Vanished => return ErrorKind::NotFound,
            Self::Open(err) | Self::Enter(err) => err.raw_os_error(),
            Self::Link(err) | Self::Qdiscs(err) | Self::Routes(err) => err.errno(),
        };
        kind_of(errno)
    }
}

/// The result of a probe.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) link: Link,
    /// Read only if the root qdisc is a netem.
    pub(super) qdisc: Option<Observed>,
    pub(super) target: Target,
    pub(super) echo_access: EchoAccess,
}

/// Whether echoes can be sent to the target.
#[derive(Debug)]
pub(super) enum EchoAccess {
    /// Send them over this socket.
    Socket(EchoSocket),
    /// There is no route to the target.
    NoRoute(IcmpError),
    /// The socket could not be opened.
    Failed(IcmpError),
    /// The link is down or has no carrier, so no packet would leave.
    LinkDown,
}

/// Reads the interface from inside its namespace. Blocks.
///
/// The descriptor of the namespace is closed before this function returns. Only the socket stays open.
pub(super) fn examine(
    files: NetnsFiles,
    order: &Order,
    requested: RequestedTarget,
) -> Result<Found, ProbeError> {
    match order.place.key {
        NetnsKey::Host => examine_here(order, requested),
        NetnsKey::Mounted(_) | NetnsKey::Held(_) => {
            let netns = files.open_any(&order.place.netns_refs);
            let netns = netns.map_err(|err| match err {
                OpenError::Gone => ProbeError::Vanished,
                OpenError::Open(err) => ProbeError::Open(err),
            })?;
            if !order.place.is_named(&files) {
                return Err(ProbeError::Vanished);
            }
            inside(netns, || examine_here(order, requested)).map_err(ProbeError::Enter)?
        }
    }
}

/// Reads the interface in the namespace of the calling thread.
fn examine_here(order: &Order, requested: RequestedTarget) -> Result<Found, ProbeError> {
    let mut socket = RequestSocket::open().map_err(ProbeError::Link)?;
    let link = match socket.link(order.ifindex) {
        Err(err) if err.errno() == Some(NO_SUCH_LINK) => return Err(ProbeError::Vanished),
        link => link.map_err(ProbeError::Link)?,
    };
    if link.ifname != order.interface.as_os_str() {
        // The link was renamed, or another link has its index.
        return Err(ProbeError::Vanished);
    }
    let qdisc = if link.root_netem {
        let qdiscs = socket.qdiscs().map_err(ProbeError::Qdiscs)?;
        Some(Observed::new(&qdiscs, order.ifindex))
    } else {
        None
    };
    let target = match requested {
        RequestedTarget::Target(target) => target,
        RequestedTarget::Gateway => {
            let routes = socket.default_routes().map_err(ProbeError::Routes)?;
            gateway(&routes, &order.interface, order.ifindex)
        }
    };
    let echo_access = if link.up && link.carrier {
        match EchoSocket::open(&link.ifname, target.address()) {
            Ok(socket) => EchoAccess::Socket(socket),
            Err(err @ IcmpError::Connect(_)) => EchoAccess::NoRoute(err),
            Err(err) => EchoAccess::Failed(err),
        }
    } else {
        EchoAccess::LinkDown
    };
    Ok(Found {
        link,
        qdisc,
        target,
        echo_access,
    })
}
