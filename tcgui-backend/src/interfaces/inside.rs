//! The fallback where the kernel gives no namespace ids: sockets inside each namespace.
//!
//! A socket inside keeps its namespace alive after `ip netns del`, so it is opened when a namespace is
//! first looked at and closed when the last way to it is gone.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::kernel::LinkEvent;
use super::{LookError, NetnsKey};
use crate::kernel::link::Link;
use crate::kernel::netns::inside;
use crate::kernel::rtnetlink::{EventSocket, KernelEvent, RequestSocket};

/// The sockets inside namespaces, shared between those who look and the one who hears.
#[derive(Debug, Clone, Default)]
pub(super) struct InsideSockets(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    rung: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<NetnsKey, Inside>,
    rung: HashSet<NetnsKey>,
    deleted: HashSet<(NetnsKey, u32)>,
}

impl State {
    /// Takes what the kernel has queued. The lock is held meanwhile, so that nobody misses what another thread has
    /// taken and not noted yet.
    fn take_events(&mut self, key: NetnsKey, socket: &EventSocket) {
        for event in socket.pending().ok().flatten().unwrap_or_default() {
            self.rung.insert(key);
            if let KernelEvent::Deleted(_, ifindex) = event {
                self.deleted.insert((key, ifindex));
            }
        }
    }

    fn drain(&mut self) -> Vec<LinkEvent> {
        let deleted = self.deleted.drain();
        let deleted = deleted.map(|(key, ifindex)| LinkEvent::DeletedInside(key, ifindex));
        let rung = self.rung.drain().map(LinkEvent::Inside);
        deleted.chain(rung).collect()
    }
}

/// One namespace's sockets; dropping it closes both.
#[derive(Debug)]
struct Inside {
    requests: Option<RequestSocket>,
    events: Arc<EventSocket>,
    listener: AbortHandle,
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl InsideSockets {
    /// Returns the links of a namespace whose sockets are open; `None`: they are not.
    pub(super) fn links(&self, key: NetnsKey) -> Option<Result<Vec<Link>, LookError>> {
        let mut socket = self.lock().open.get_mut(&key)?.requests.take()?;
        let links = socket.links(None).map_err(LookError::from);
        // Forgotten meanwhile: the socket closes here.
        if let (Some(inside), Ok(_)) = (self.lock().open.get_mut(&key), &links) {
            inside.requests = Some(socket);
        }
        Some(links)
    }

    /// Opens the sockets inside `netns`, listening first, and returns its links.
    ///
    /// # Errors
    /// The namespace cannot be entered, or gives no sockets.
    pub(super) fn open(
        &self,
        key: NetnsKey,
        netns: OwnedFd,
        runtime: &Handle,
    ) -> Result<Vec<Link>, LookError> {
        let (events, requests) = inside(netns, || {
            let _context = runtime.enter();
            (EventSocket::open_here(), RequestSocket::open())
        })
        .map_err(LookError::Open)?;
        let (events, mut requests) = (Arc::new(events?), requests?);
        let links = requests.links(None)?;
        let (sockets, listening) = (self.clone(), Arc::clone(&events));
        let listener = runtime.spawn(async move {
            // An error is found out about by the next look.
            while listening.readable().await.is_ok() {
                sockets.lock().take_events(key, &listening);
                sockets.0.rung.notify_one();
            }
        });
        let requests = Some(requests);
        let inside = Inside {
            requests,
            events,
            listener: listener.abort_handle(),
        };
        self.lock().open.insert(key, inside);
        Ok(links)
    }

    /// Closes the sockets inside a namespace, which may then go.
    pub(super) fn forget(&self, key: NetnsKey) {
        let forgotten = self.lock().open.remove(&key);
        drop(forgotten);
    }

    /// Waits until a namespace rings, and returns what was heard of all. Cancel-safe.
    pub(super) async fn rung(&self) -> Vec<LinkEvent> {
        loop {
            let heard = self.lock().drain();
            if !heard.is_empty() {
                return heard;
            }
            self.0.rung.notified().await;
        }
    }

    /// Returns what was heard by now, with what the kernel has queued for namespace `key`.
    pub(super) fn pending(&self, key: NetnsKey) -> Vec<LinkEvent> {
        let mut state = self.lock();
        if let Some(events) = state.open.get(&key).map(|it| Arc::clone(&it.events)) {
            state.take_events(key, &events);
        }
        state.drain()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
