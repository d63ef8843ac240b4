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

use super::{LookError, NetnsKey};
use crate::kernel::link::Link;
use crate::kernel::netns::inside;
use crate::kernel::rtnetlink::{EventSocket, RequestSocket};

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
}

/// One namespace's sockets; dropping it closes both.
#[derive(Debug)]
struct Inside {
    requests: Option<RequestSocket>,
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
        let (events, mut requests) = (events?, requests?);
        let links = requests.links(None)?;
        let shared = Arc::clone(&self.0);
        let listener = runtime.spawn(async move {
            // An error is found out about by the next look.
            while let Ok(heard) = events.next().await {
                if !heard.is_empty() {
                    InsideSockets(Arc::clone(&shared)).lock().rung.insert(key);
                    shared.rung.notify_one();
                }
            }
        });
        let requests = Some(requests);
        let inside = Inside {
            requests,
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

    /// Waits until a namespace rings, and returns all that did. Cancel-safe.
    pub(super) async fn rung(&self) -> Vec<NetnsKey> {
        loop {
            let rung: Vec<_> = self.lock().rung.drain().collect();
            if !rung.is_empty() {
                return rung;
            }
            self.0.rung.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
