//! Bringing links up and down, in the daemon's own namespace or inside another one.

use std::io;
use std::path::PathBuf;

use tcgui_shared::error_kind::ErrorKind;

use crate::interfaces::NetnsKey;
use crate::kernel::netns::{MountedNamespaceId, NetnsFiles, OpenError, inside};
use crate::kernel::rtnetlink::{RequestSocket, Rtnetlink, RtnetlinkError};

/// Which link, and whether it is to be up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkOrder {
    pub(super) key: NetnsKey,
    /// Leads to the namespace; the host needs none.
    pub(super) path: Option<PathBuf>,
    pub(super) ifindex: u32,
    pub(super) up: bool,
}

/// Why a link was not switched.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkControlError {
    #[error("the namespace is gone")]
    Gone,
    #[error("cannot open the namespace")]
    Open(#[source] io::Error),
    #[error("cannot enter the namespace")]
    Enter(#[source] io::Error),
    #[error("cannot switch the interface")]
    Switch(#[from] RtnetlinkError),
}

impl LinkControlError {
    pub(super) fn kind(&self) -> ErrorKind {
        let errno = match self {
            Self::Gone => return ErrorKind::NotFound,
            Self::Open(err) | Self::Enter(err) => err.raw_os_error(),
            Self::Switch(err) => err.errno(),
        };
        match errno
            .map(io::Error::from_raw_os_error)
            .map(|err| err.kind())
        {
            Some(io::ErrorKind::PermissionDenied) => ErrorKind::Denied,
            Some(io::ErrorKind::NotFound) => ErrorKind::NotFound,
            Some(io::ErrorKind::ResourceBusy) => ErrorKind::Busy,
            Some(io::ErrorKind::Unsupported) => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        }
    }
}

/// Switches links through the kernel.
#[derive(Debug, Clone)]
pub(super) struct LinkControl {
    requests: Rtnetlink,
    files: NetnsFiles,
}

impl LinkControl {
    pub(super) fn new(requests: Rtnetlink, files: NetnsFiles) -> Self {
        Self { requests, files }
    }

    /// Switches a link and returns when the kernel has done it.
    ///
    /// `RTM_SETLINK` takes `IFLA_TARGET_NETNSID` as the place to move the link to, so a link of
    /// another namespace is switched over a socket inside it, which is closed at once.
    pub(super) async fn switch(&self, order: LinkOrder) -> Result<(), LinkControlError> {
        let files = self.files;
        self.requests
            .run(move |socket| match (order.key, order.path) {
                (NetnsKey::Host, _) => Ok(socket.set_up(order.ifindex, order.up)?),
                (NetnsKey::Mounted(_), None) => Err(LinkControlError::Gone),
                (NetnsKey::Mounted(id), Some(path)) => {
                    switch_inside(files, &path, id, order.ifindex, order.up)
                }
            })
            .await
    }
}

fn switch_inside(
    files: NetnsFiles,
    path: &std::path::Path,
    id: MountedNamespaceId,
    ifindex: u32,
    up: bool,
) -> Result<(), LinkControlError> {
    let netns = files.open(path, id).map_err(|err| match err {
        OpenError::Gone => LinkControlError::Gone,
        OpenError::Open(err) => LinkControlError::Open(err),
    })?;
    let mut socket = inside(netns, RequestSocket::open).map_err(LinkControlError::Enter)??;
    Ok(socket.set_up(ifindex, up)?)
}
