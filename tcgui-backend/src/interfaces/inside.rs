//! The fallback for kernels that give no namespace ids: sockets inside each namespace.
//!
//! A socket keeps its namespace alive after `ip netns del`. It is opened at the first dump of the namespace and
//! closed when the last reference to the namespace is removed.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tracing::debug;

use super::kernel::LinkEvent;
use super::{DumpError, NetnsKey};
use crate::error::chain;
use crate::kernel::link::Link;
use crate::kernel::netns::inside;
use crate::kernel::rtnetlink::{EventSocket, KernelEvent, Queued, RequestSocket, RtnetlinkError};

/// The sockets inside namespaces. The threads that dump and the actor that waits for events share them.
#[derive(Debug, Clone, Default)]
pub(super) struct InsideSockets(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when `state` has new events.
    wakeup: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<NetnsKey, Inside>,
    /// Namespaces that had an event since the last [`State::drain`].
    changed: HashSet<NetnsKey>,
    deleted: HashSet<(NetnsKey, u32)>,
    /// Namespaces of which events were lost.
    missed: HashSet<NetnsKey>,
}

impl State {
    /// Takes the events that the kernel has queued for a namespace, and returns whether there may be more. The
    /// caller holds the lock until they are noted. Otherwise another thread could find the queue empty before the
    /// events are noted.
    fn take_events(&mut self, key: NetnsKey) -> bool {
        let queued = self.open.get(&key).map(|inside| inside.events.pending());
        queued.is_some_and(|queued| self.note(key, queued))
    }

    /// Notes the events that were taken for a namespace, and returns whether there may be more.
    fn note(&mut self, key: NetnsKey, queued: Result<Option<Queued>, RtnetlinkError>) -> bool {
        let queued = match queued {
            Ok(queued) => queued.unwrap_or_default(),
            Err(err) => {
                // The next dump opens new sockets.
                debug!(?key, error = %chain(&err), "no events from inside a namespace");
                self.open.remove(&key);
                self.missed.insert(key);
                return false;
            }
        };
        for event in queued.events {
            self.changed.insert(key);
            match event {
                KernelEvent::Deleted(_, ifindex) => {
                    self.deleted.insert((key, ifindex));
                }
                KernelEvent::Lost => {
                    self.missed.insert(key);
                }
                _ => {}
            }
        }
        queued.has_more
    }

    /// Stores the sockets and closes older ones of this key, because they may be in an earlier namespace with the
    /// same key.
    fn keep(&mut self, key: NetnsKey, inside: Inside) {
        self.take_events(key);
        if self.open.insert(key, inside).is_some() {
            self.missed.insert(key);
        }
    }

    fn forget(&mut self, key: NetnsKey) -> Option<Inside> {
        self.changed.remove(&key);
        self.deleted.retain(|(deleted_in, _)| *deleted_in != key);
        self.missed.remove(&key);
        self.open.remove(&key)
    }

    fn drain(&mut self) -> Vec<LinkEvent> {
        let deleted = self.deleted.drain();
        let deleted = deleted.map(|(key, ifindex)| LinkEvent::DeletedInside(key, ifindex));
        let changed = self.changed.drain().map(LinkEvent::Inside);
        let missed = self.missed.drain().map(LinkEvent::Missed);
        deleted.chain(changed).chain(missed).collect()
    }
}

/// The sockets of one namespace. Dropping the value closes both.
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
    /// Dumps the links over the open sockets of a namespace. `None`: no sockets are open.
    pub(super) fn links(&self, key: NetnsKey) -> Option<Result<Vec<Link>, DumpError>> {
        let mut socket = self.lock().open.get_mut(&key)?.requests.take()?;
        let links = socket.links(None).map_err(DumpError::from);
        // If the namespace was forgotten during the dump, the socket is closed here.
        if let (Some(inside), Ok(_)) = (self.lock().open.get_mut(&key), &links) {
            inside.requests = Some(socket);
        }
        Some(links)
    }

    /// Opens the sockets inside `netns`, the event socket first, and returns the links.
    ///
    /// # Errors
    /// The namespace cannot be entered, a socket cannot be opened, or the dump fails.
    pub(super) fn open(
        &self,
        key: NetnsKey,
        netns: OwnedFd,
        runtime: &Handle,
    ) -> Result<Vec<Link>, DumpError> {
        let (events, requests) = inside(netns, || {
            let _context = runtime.enter();
            (EventSocket::open_here(), RequestSocket::open())
        })
        .map_err(DumpError::Open)?;
        let (events, mut requests) = (Arc::new(events?), requests?);
        let links = requests.links(None)?;
        let (sockets, listening) = (self.clone(), Arc::clone(&events));
        let listener = runtime.spawn(async move {
            while listening.readable().await.is_ok() {
                while sockets.lock().take_events(key) {
                    tokio::task::yield_now().await;
                }
                sockets.0.wakeup.notify_one();
            }
        });
        let requests = Some(requests);
        let inside = Inside {
            requests,
            events,
            listener: listener.abort_handle(),
        };
        self.lock().keep(key, inside);
        self.0.wakeup.notify_one();
        Ok(links)
    }

    /// Closes the sockets inside a namespace. They no longer keep it alive.
    pub(super) fn forget(&self, key: NetnsKey) {
        let forgotten = self.lock().forget(key);
        drop(forgotten);
    }

    /// Waits for events, and returns those of all namespaces. Cancel-safe.
    pub(super) async fn events(&self) -> Vec<LinkEvent> {
        loop {
            let events = self.lock().drain();
            if !events.is_empty() {
                return events;
            }
            self.0.wakeup.notified().await;
        }
    }

    /// Returns the events noted so far, and those that the kernel has queued for namespace `key`.
    pub(super) fn pending(&self, key: NetnsKey) -> Vec<LinkEvent> {
        let mut state = self.lock();
        if state.take_events(key) {
            state.missed.insert(key);
        }
        state.drain()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::lab::PrivateNetns;

    const MAKE: &str =
        "link add d0 index 7 address 02:00:00:00:00:07 type veth peer name p0 index 8";

    /// Opens the sockets inside a namespace with a link.
    fn start() -> (PrivateNetns, InsideSockets, NetnsKey) {
        let netns = PrivateNetns::new();
        netns.ip(MAKE);
        let key = NetnsKey::Mounted(netns.path().1);
        let sockets = InsideSockets::default();
        sockets.open(key, netns.open(), &Handle::current()).unwrap();
        assert_eq!(sockets.pending(key), []);
        (netns, sockets, key)
    }

    #[tokio::test]
    async fn events_are_not_lost_when_the_sockets_are_opened_again() {
        let (netns, sockets, key) = start();
        netns.ip("link del d0");
        netns.ip(MAKE);
        sockets.open(key, netns.open(), &Handle::current()).unwrap();
        let events = sockets.pending(key);
        assert!(
            events.contains(&LinkEvent::DeletedInside(key, 7)),
            "{events:?}"
        );
        // The new sockets may be in another namespace.
        assert!(events.contains(&LinkEvent::Missed(key)), "{events:?}");
        assert_eq!(sockets.pending(key), []);
    }

    #[tokio::test]
    async fn events_that_do_not_fit_into_the_queue_are_missed() {
        let (netns, sockets, key) = start();
        sockets.lock().open[&key].events.limit_queue(4096);
        for _ in 0..8 {
            netns.ip("link del d0");
            netns.ip(MAKE);
        }
        let events = sockets.pending(key);
        assert!(events.contains(&LinkEvent::Missed(key)), "{events:?}");
    }

    #[tokio::test]
    async fn after_an_error_events_are_missed_and_the_sockets_are_opened_again() {
        let (netns, sockets, key) = start();
        assert!(sockets.links(key).is_some());
        let broken = RtnetlinkError::Exchange(std::io::ErrorKind::InvalidInput.into());
        assert!(!sockets.lock().note(key, Err(broken)));
        assert_eq!(sockets.pending(key), [LinkEvent::Missed(key)]);
        assert!(sockets.links(key).is_none());
        sockets.open(key, netns.open(), &Handle::current()).unwrap();
        netns.ip("link del d0");
        let events = sockets.pending(key);
        assert!(
            events.contains(&LinkEvent::DeletedInside(key, 7)),
            "{events:?}"
        );
    }

    #[tokio::test]
    async fn nothing_is_reported_of_a_forgotten_namespace() {
        let (netns, sockets, key) = start();
        netns.ip("link del d0");
        sockets.lock().take_events(key);
        sockets.forget(key);
        assert_eq!(sockets.pending(key), []);
    }
}
