//! The kernel operations that the actor needs, as a trait, and their implementation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::runtime::Handle;
use tracing::{debug, warn};

use super::inside::InsideSockets;
use super::{DumpError, NetnsKey};
use crate::clock::now;
use crate::error::chain;
use crate::kernel::link::Link;
use crate::kernel::netns::{NetnsFiles, NetnsRef};
use crate::kernel::rtnetlink::{
    EventSocket, KernelEvent, Nsid, RequestSocket, Rtnetlink, RtnetlinkError,
};
use crate::sockets::NetnsSockets;
use crate::tc::observed::Observed;

/// `EINVAL`: the kernel's error for an id that names no namespace (`rtnl_get_net_ns_capable`).
const INVALID_NSID: i32 = 22;

/// `EPERM`, `EINVAL` and `EOPNOTSUPP`: the errors if the kernel gives no ids, or gives none to this process.
const NO_IDS: [i32; 3] = [1, 22, 95];

/// A request to dump one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpRequest {
    /// The namespace.
    pub key: NetnsKey,
    /// Number of the tracker's entry for this namespace. A namespace that is tracked again gets a new one.
    pub generation: u64,
    /// Its id, once known.
    pub nsid: Option<Nsid>,
    /// The references that may still lead to it.
    pub netns_refs: Vec<NetnsRef>,
}

/// The result of one dump.
#[derive(Debug)]
pub struct DumpedLinks {
    /// The id by which the namespace was dumped. `None`: the host's namespace, or one that is read over a socket
    /// inside.
    pub nsid: Option<Nsid>,
    /// Its links.
    pub links: Vec<Link>,
}

/// An event that requires a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEvent {
    /// From the socket that receives the events of every namespace with an id.
    Kernel(KernelEvent),
    /// From a socket inside this namespace.
    Inside(NetnsKey),
    /// From a socket inside this namespace: the link with this index was deleted.
    DeletedInside(NetnsKey, u32),
    /// Events of this namespace were lost, or have not been read yet.
    Missed(NetnsKey),
}

/// The kernel operations of the actor. Tests use a fake.
pub trait LinkKernel: Send + Sync + 'static {
    /// Dumps one namespace.
    fn dump(
        &self,
        request: DumpRequest,
    ) -> impl Future<Output = Result<DumpedLinks, DumpError>> + Send;

    /// Waits for events. Cancel-safe.
    fn events(&self) -> impl Future<Output = Result<Vec<LinkEvent>, RtnetlinkError>> + Send;

    /// Looks up the namespaces that have these ids in the host's table. Each result is the id of the namespace in
    /// the observer's table, or `None` if it has no id there. Ids that are no longer in the host's table are left
    /// out.
    fn observer_ids(&self, ids: Vec<Nsid>) -> impl Future<Output = Vec<Option<Nsid>>> + Send;

    /// Returns the events that the kernel has queued by now, at least those of namespace `key`, or [`LinkEvent::Missed`] if
    /// they are too many. Does not wait. `None`: no message was queued.
    fn pending(&self, key: NetnsKey) -> Result<Option<Vec<LinkEvent>>, RtnetlinkError>;

    /// Closes the resources of a namespace that is no longer tracked.
    fn forget(&self, key: NetnsKey);
}

/// The running kernel.
#[derive(Debug)]
pub struct KernelLinks {
    events: EventSocket,
    requests: Rtnetlink,
    files: NetnsFiles,
    inside: InsideSockets,
    sockets: NetnsSockets,
    ids: Arc<AtomicBool>,
}

impl KernelLinks {
    /// Opens the event socket. Every change after that is reported, so no change after a later dump is missed.
    ///
    /// Qdiscs are read over `sockets`. If `requests` has no observer, the kernel gives no ids, and sockets are
    /// opened inside the namespaces instead.
    ///
    /// # Errors
    /// The event socket cannot be opened.
    pub fn open(
        requests: Rtnetlink,
        files: NetnsFiles,
        sockets: NetnsSockets,
    ) -> Result<Self, RtnetlinkError> {
        let (events, ids) = match requests.observer() {
            Some(observer) => (EventSocket::open_in(observer)?, true),
            None => (EventSocket::open_here()?, false),
        };
        Ok(Self {
            events,
            requests,
            files,
            inside: InsideSockets::default(),
            sockets,
            ids: Arc::new(AtomicBool::new(ids)),
        })
    }
}

impl LinkKernel for KernelLinks {
    async fn dump(&self, request: DumpRequest) -> Result<DumpedLinks, DumpError> {
        let dump = Dump {
            files: self.files,
            inside: self.inside.clone(),
            sockets: self.sockets.clone(),
            host: self.requests.host(),
            ids: Arc::clone(&self.ids),
            runtime: Handle::current(),
        };
        self.requests
            .run(move |socket| dump.run(socket, &request))
            .await
    }

    async fn events(&self) -> Result<Vec<LinkEvent>, RtnetlinkError> {
        tokio::select! {
            // Both are cancel-safe: an event that was not returned was not taken.
            events = self.events.next() => Ok(mark_own_changes(events?, self.sockets.is_switching())),
            events = self.inside.events() => Ok(events),
        }
    }

    async fn observer_ids(&self, ids: Vec<Nsid>) -> Vec<Option<Nsid>> {
        let Some(host) = self.requests.host() else {
            return vec![None; ids.len()];
        };
        let given = self
            .requests
            .run(move |socket| socket.ids_given_by(host))
            .await;
        match given {
            Ok(given) => {
                let known = given.into_iter().filter(|(id, _)| ids.contains(id));
                known.map(|(_, here)| here).collect()
            }
            Err(err) => {
                debug!(error = %chain(&err), "namespace ids of the host not read");
                vec![None; ids.len()]
            }
        }
    }

    fn pending(&self, key: NetnsKey) -> Result<Option<Vec<LinkEvent>>, RtnetlinkError> {
        let (queued, inside) = (self.events.pending()?, self.inside.pending(key));
        if queued.is_none() && inside.is_empty() {
            return Ok(None);
        }
        let queued = queued.unwrap_or_default();
        let mut events = mark_own_changes(queued.events, self.sockets.is_switching());
        events.extend(inside);
        events.extend(queued.has_more.then_some(LinkEvent::Missed(key)));
        Ok(Some(events))
    }

    fn forget(&self, key: NetnsKey) {
        self.inside.forget(key);
    }
}

/// Marks events as our own changes while the daemon switches a link up or down. An event does not contain its
/// origin, and it arrives before the change was read back. A dump of this namespace, or of the other end of a
/// veth, would hold the rtnl lock that the read-back needs.
fn mark_own_changes(events: Vec<KernelEvent>, switching: bool) -> Vec<LinkEvent> {
    let mark = |event| match event {
        KernelEvent::Changed(origin) if switching => KernelEvent::ChangedHere(origin),
        other => other,
    };
    events
        .into_iter()
        .map(mark)
        .map(LinkEvent::Kernel)
        .collect()
}

/// One dump, on a blocking thread.
struct Dump {
    files: NetnsFiles,
    inside: InsideSockets,
    sockets: NetnsSockets,
    /// The host's id in the namespace of the request socket. `None`: the request socket is in the host's
    /// namespace.
    host: Option<Nsid>,
    ids: Arc<AtomicBool>,
    runtime: Handle,
}

impl Dump {
    fn run(
        &self,
        socket: &mut RequestSocket,
        request: &DumpRequest,
    ) -> Result<DumpedLinks, DumpError> {
        let began = now();
        let mut seen = self.links(socket, request)?;
        self.netems(request, began, &mut seen.links);
        Ok(seen)
    }

    /// Reads the parameters of root netems and the speeds of their links, if there are any. This needs a socket in the namespace, which is then
    /// kept.
    fn netems(&self, request: &DumpRequest, began: Instant, links: &mut [Link]) {
        let any = links.iter().any(|link| link.root_netem);
        if request.key != NetnsKey::Host {
            self.sockets.keep_as_seen(request.key, any, began);
        }
        if !any {
            return;
        }
        let read = |socket: &mut RequestSocket| {
            let qdiscs = socket.qdiscs()?;
            for link in links.iter_mut().filter(|link| link.root_netem) {
                link.netem = Observed::new(&qdiscs, link.ifindex).netem().copied();
                link.speed = socket.speed_of(link);
            }
            Ok(())
        };
        let done: Result<(), DumpError> =
            self.sockets.inside(request.key, &request.netns_refs, read);
        match done {
            Ok(()) => {}
            // The namespace may be about to be deleted. If it is not, the link is reported as impaired, without
            // the parameters.
            Err(err) => debug!(key = ?request.key, error = %chain(&err), "netems not read"),
        }
    }

    fn links(
        &self,
        socket: &mut RequestSocket,
        request: &DumpRequest,
    ) -> Result<DumpedLinks, DumpError> {
        if request.key == NetnsKey::Host {
            return Ok(DumpedLinks {
                nsid: None,
                links: socket.links(self.host)?,
            });
        }
        if let Some(nsid) = request.nsid {
            return by_id(socket, nsid);
        }
        if let Some(links) = self.inside.links(request.key) {
            return Ok(DumpedLinks {
                nsid: None,
                links: links?,
            });
        }
        let netns = self.files.open_any(&request.netns_refs)?;
        if self.ids.load(Ordering::Relaxed) {
            match socket.namespace_id(&netns) {
                Ok(nsid) => {
                    // Close the descriptor: it keeps the namespace alive, and the dump by id does not need it.
                    drop(netns);
                    return by_id(socket, nsid);
                }
                Err(err) if err.errno().is_some_and(|errno| NO_IDS.contains(&errno)) => {
                    if self.ids.swap(false, Ordering::Relaxed) {
                        warn!(error = %chain(&err), "no namespace ids, entering namespaces instead");
                    }
                }
                Err(err) => return Err(err.into()),
            }
        }
        Ok(DumpedLinks {
            nsid: None,
            links: self.inside.open(request.key, netns, &self.runtime)?,
        })
    }
}

fn by_id(socket: &mut RequestSocket, nsid: Nsid) -> Result<DumpedLinks, DumpError> {
    match socket.links(Some(nsid)) {
        Ok(links) => Ok(DumpedLinks {
            nsid: Some(nsid),
            links,
        }),
        Err(err) if err.errno() == Some(INVALID_NSID) => Err(DumpError::StaleId),
        Err(err) => Err(err.into()),
    }
}
