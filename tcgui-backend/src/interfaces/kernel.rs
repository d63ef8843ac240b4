//! What the actor needs of the kernel, and the real one.

use std::path::PathBuf;

use crate::kernel::link::Link;
use crate::kernel::netns::NetnsFiles;
use crate::kernel::rtnetlink::{
    EventSocket, KernelEvent, Nsid, RequestSocket, Rtnetlink, RtnetlinkError,
};

use super::{LookError, NetnsKey};

/// Which namespace to look at, and the ways that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookOrder {
    /// The namespace.
    pub key: NetnsKey,
    /// Its id, once known.
    pub nsid: Option<Nsid>,
    /// Names that may still lead to it.
    pub paths: Vec<PathBuf>,
}

/// What one look has seen.
#[derive(Debug)]
pub struct Seen {
    /// The id by which the namespace was dumped; `None` for the host.
    pub nsid: Option<Nsid>,
    /// Its links.
    pub links: Vec<Link>,
}

/// The kernel as the actor uses it; tests put a small one in its place.
pub trait LinkKernel: Send + Sync + 'static {
    /// Looks at one namespace.
    fn look(&self, order: LookOrder) -> impl Future<Output = Result<Seen, LookError>> + Send;

    /// Waits for events. Cancel-safe.
    fn events(&self) -> impl Future<Output = Result<Vec<KernelEvent>, RtnetlinkError>> + Send;
}

/// The running kernel.
#[derive(Debug)]
pub struct KernelLinks {
    events: EventSocket,
    requests: Rtnetlink,
    files: NetnsFiles,
}

impl KernelLinks {
    /// Listens from now on: what is looked at later cannot have changed unheard.
    ///
    /// # Errors
    /// The event socket is refused.
    pub fn open(requests: Rtnetlink, files: NetnsFiles) -> Result<Self, RtnetlinkError> {
        Ok(Self {
            events: EventSocket::open()?,
            requests,
            files,
        })
    }
}

impl LinkKernel for KernelLinks {
    async fn look(&self, order: LookOrder) -> Result<Seen, LookError> {
        let files = self.files;
        self.requests
            .run(move |socket| look(socket, files, &order))
            .await
    }

    async fn events(&self) -> Result<Vec<KernelEvent>, RtnetlinkError> {
        self.events.next().await
    }
}

fn look(
    socket: &mut RequestSocket,
    files: NetnsFiles,
    order: &LookOrder,
) -> Result<Seen, LookError> {
    let nsid = match order.key {
        NetnsKey::Host => None,
        NetnsKey::Mounted(id) => match order.nsid {
            Some(known) => Some(known),
            None => {
                let mut opened = Err(LookError::Gone);
                for path in &order.paths {
                    opened = files.open(path, id).map_err(LookError::from);
                    if opened.is_ok() {
                        break;
                    }
                }
                // Closed at the end of the statement: the id does not need the descriptor.
                Some(socket.namespace_id(&opened?)?)
            }
        },
    };
    match socket.links(nsid) {
        Ok(links) => Ok(Seen { nsid, links }),
        Err(err) if nsid.is_some() && err.errno() == Some(INVALID_NSID) => Err(LookError::StaleId),
        Err(err) => Err(err.into()),
    }
}

/// What the kernel answers for an id that names no namespace: `EINVAL` (`rtnl_get_net_ns_capable`).
const INVALID_NSID: i32 = 22;
