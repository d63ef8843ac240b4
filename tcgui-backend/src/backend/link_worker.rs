//! Brings links up and down, in the daemon's own namespace or inside another one.

use tcgui_shared::error_kind::ErrorKind;

use super::orders::{LinkOrder, LinkResult};
use crate::error::{chain, kind_of};
use crate::kernel::rtnetlink::{Refused, RtnetlinkError};
use crate::policy::{Denial, Permit};
use crate::sockets::{NetnsSockets, SocketError};

/// Why the state of a link was not changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkControlError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("the interface was renamed")]
    Renamed,
    #[error(transparent)]
    Denied(#[from] Denial),
    #[error("the interface is not switched off, because the routes of the host cannot be read")]
    Routes(#[source] RtnetlinkError),
    #[error("cannot switch the interface")]
    Switch(#[from] RtnetlinkError),
    #[error("the interface was switched, but not read back")]
    ReadBack(#[source] RtnetlinkError),
}

impl LinkControlError {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Socket(err) => err.kind(),
            Self::Renamed => ErrorKind::NotFound,
            Self::Denied(_) => ErrorKind::Denied,
            Self::Routes(err) => kind_of(err.errno()),
            Self::Switch(err) | Self::ReadBack(err) => match err.refused() {
                Some(Refused::NoDevice) => ErrorKind::NotFound,
                _ => kind_of(err.errno()),
            },
        }
    }
}

impl SocketError {
    /// Returns the error kind for the client.
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Gone => ErrorKind::NotFound,
            Self::Open(err) | Self::Enter(err) => kind_of(err.raw_os_error()),
            Self::Socket(err) => kind_of(err.errno()),
        }
    }
}

/// Brings a link up or down, and reads the result back on the same socket. Blocks its thread.
pub(super) fn carry_out(sockets: &NetnsSockets, order: &LinkOrder) -> LinkResult {
    switch_link(sockets, order).map_err(|err| (err.kind(), chain(&err).to_string()))
}

/// Returns whether the link is up.
///
/// `RTM_SETLINK` interprets `IFLA_TARGET_NETNSID` as the namespace to move the link to. Therefore a link of another namespace is
/// changed over a socket inside it.
fn switch_link(sockets: &NetnsSockets, order: &LinkOrder) -> Result<bool, LinkControlError> {
    sockets.run_here(&order.place, |socket| {
        sockets.used(order.place.key);
        if socket.link(order.ifindex)?.ifname != order.ifname {
            return Err(LinkControlError::Renamed);
        }
        if order.permit == Permit::UnlessDefaultRoute {
            let routes = socket.has_default_route(order.ifindex);
            if routes.map_err(LinkControlError::Routes)? {
                return Err(Denial::DefaultRoute.into());
            }
        }
        let _switching = sockets.switching();
        let link = socket.set_up(order.ifindex, order.up)?;
        Ok(link.map_err(LinkControlError::ReadBack)?.up)
    })
}
