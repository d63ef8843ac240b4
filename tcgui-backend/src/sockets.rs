//! Request sockets inside namespaces, opened on demand.
//!
//! Some requests cannot be made by namespace id (qdiscs, switching links) and need a socket inside. Such a socket
//! keeps its namespace alive after `ip netns del`, so at most one is kept for each namespace, and only while the
//! namespace is [`kept`](NetnsSockets::keep) or [`used`](NetnsSockets::used). It is closed when the last reference
//! to the namespace is removed, or when it has not been used for 10 s ([`NetnsSockets::close_unused`]).
//!
//! Reading a link over such a socket has one side effect: if the other end of a veth is in another namespace, the
//! kernel gives that namespace an id in the table of the socket's namespace (`rtnl_fill_link_netnsid`,
//! `net/core/rtnetlink.c`). `ip link` does the same, and almost always the kernel has done it when it announced
//! the link. So links are read over these sockets only before and after a change. Dumps of links use the
//! [`Observer`](crate::kernel::rtnetlink::Observer). A dump of qdiscs gives no ids.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::clock::now;
use crate::kernel::netns::{NetnsFiles, NetnsKey, NetnsRef, OpenError, inside};
use crate::kernel::rtnetlink::{RequestSocket, Rtnetlink, RtnetlinkError};

/// How long a socket is kept after its use. Link changes come in clusters, and entering the namespace takes 0.3 ms
/// of the 1.1 ms of a change.
const USED: Duration = Duration::from_secs(10);
/// Limit of the namespaces with such a socket.
const MOST_USED: usize = 16;

/// A namespace and the references to it. The host needs none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetnsTarget {
    /// The namespace.
    pub key: NetnsKey,
    /// References to try, in this order.
    pub netns_refs: Vec<NetnsRef>,
    /// The reference of the name that the client used. The kernel may have given the inode number to another namespace. Other
    /// references may lead to that one before the watcher reports the end of this reference.
    pub named: Option<NetnsRef>,
}

impl NetnsTarget {
    /// Returns whether the open namespace is the one that the client named. While it is open, no other namespace
    /// can have its inode number.
    pub fn is_named(&self, files: &NetnsFiles) -> bool {
        self.named
            .as_ref()
            .is_none_or(|netns_ref| files.leads(netns_ref))
    }
}

/// Why there is no socket inside a namespace.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No reference leads to the namespace any more.
    #[error("the namespace is gone")]
    Gone,
    /// The namespace file could not be opened.
    #[error("cannot open the namespace")]
    Open(#[source] io::Error),
    /// The namespace cannot be entered.
    #[error("cannot enter the namespace")]
    Enter(#[source] io::Error),
    /// A request or the opening of the socket failed.
    #[error("cannot talk to the kernel")]
    Socket(#[from] RtnetlinkError),
}

impl From<OpenError> for SocketError {
    fn from(err: OpenError) -> Self {
        match err {
            OpenError::Gone => Self::Gone,
            OpenError::Open(err) => Self::Open(err),
        }
    }
}

/// The state of one namespace to which a reference leads.
#[derive(Debug, Default)]
struct Inside {
    idle: Option<RequestSocket>,
    kept: bool,
    /// When a worker last called [`NetnsSockets::keep`]. Looks do not set it.
    said_at: Option<Instant>,
    used_until: Option<Instant>,
    gone: CancellationToken,
}

impl Inside {
    fn is_used(&self, now: Instant) -> bool {
        self.used_until.is_some_and(|until| until > now)
    }

    fn is_wanted(&self, now: Instant) -> bool {
        self.kept || self.is_used(now)
    }

    /// As [`Self::is_wanted`], but reads the clock only if needed: it is a system call on machines without vDSO.
    fn is_wanted_now(&self) -> bool {
        self.kept || self.used_until.is_some() && self.is_used(now())
    }
}

/// The sockets of all namespaces. Clones share them.
#[derive(Debug, Clone)]
pub struct NetnsSockets {
    host: Rtnetlink,
    files: NetnsFiles,
    others: Arc<Mutex<HashMap<NetnsKey, Inside>>>,
    running: Arc<Semaphore>,
    /// Notified when a namespace is used while no other one is.
    first_used: Arc<Notify>,
    /// Number of links that are being switched.
    switching: Arc<AtomicUsize>,
}

/// Marks a link as being switched until it is dropped.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Switching(Arc<AtomicUsize>);

impl Drop for Switching {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl NetnsSockets {
    /// Returns an empty set of sockets. `host` serves the daemon's own namespace. `parallel` is the limit of
    /// concurrent operations in other namespaces.
    pub fn new(host: Rtnetlink, files: NetnsFiles, parallel: usize) -> Self {
        Self {
            host,
            files,
            others: Arc::default(),
            running: Arc::new(Semaphore::new(parallel)),
            first_used: Arc::default(),
            switching: Arc::default(),
        }
    }

    /// Notes that a link is being switched and read back. Drop the result afterwards.
    pub fn switching(&self) -> Switching {
        self.switching.fetch_add(1, Ordering::Release);
        Switching(Arc::clone(&self.switching))
    }

    /// Returns whether a link is being switched.
    pub fn is_switching(&self) -> bool {
        self.switching.load(Ordering::Acquire) > 0
    }

    /// Records that a reference leads to a namespace.
    pub fn admit(&self, key: NetnsKey) {
        self.lock().entry(key).or_default();
    }

    /// Records that the last reference to a namespace was removed: closes its socket and cancels [`Self::gone`].
    pub fn forget(&self, key: NetnsKey) {
        let forgotten = self.lock().remove(&key);
        if let Some(inside) = forgotten {
            inside.gone.cancel();
        }
    }

    /// Keeps an idle socket inside for 10 s, unless 16 other namespaces have one for this reason.
    pub fn used(&self, key: NetnsKey) {
        let now = now();
        let mut others = self.lock();
        let used = others
            .iter()
            .filter(|(other, inside)| **other != key && inside.is_used(now));
        let used = used.count();
        if used >= MOST_USED {
            return;
        }
        if let Some(inside) = others.get_mut(&key) {
            inside.used_until = Some(now + USED);
        }
        drop(others);
        // Otherwise a timer for an earlier time is running already.
        if used == 0 {
            self.first_used.notify_one();
        }
    }

    /// Closes each idle socket when its time has passed, until `stop` is cancelled.
    pub async fn close_unused(self, stop: CancellationToken) {
        loop {
            let next = self.close_expired(now());
            let expired = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                // Cancel-safe: cancellation is a state.
                () = stop.cancelled() => return,
                // Cancel-safe: a notification stays until it is taken.
                () = self.first_used.notified() => {}
                // Cancel-safe: the deadline is computed again each time.
                () = expired => {}
            }
        }
    }

    /// Closes the idle sockets whose time has passed, and returns when the next one is due.
    fn close_expired(&self, now: Instant) -> Option<Instant> {
        let mut others = self.lock();
        let mut closed = Vec::new();
        for inside in others.values_mut() {
            if !inside.is_used(now) {
                inside.used_until = None;
            }
            if !inside.is_wanted(now) {
                closed.extend(inside.idle.take());
            }
        }
        let next = others.values().filter_map(|inside| inside.used_until).min();
        drop(others);
        drop(closed);
        next
    }

    /// Sets whether to keep an idle socket inside, because the namespace has a netem whose parameters are read
    /// repeatedly.
    pub fn keep(&self, key: NetnsKey, kept: bool) {
        self.set_kept(key, kept, None);
    }

    /// As [`Self::keep`], from a look that began at `began`. Has no effect if `keep` was called later than that,
    /// because the look may not have seen the newer state.
    pub fn keep_as_seen(&self, key: NetnsKey, kept: bool, began: Instant) {
        self.set_kept(key, kept, Some(began));
    }

    fn set_kept(&self, key: NetnsKey, kept: bool, began: Option<Instant>) {
        let mut others = self.lock();
        let Some(inside) = others.get_mut(&key) else {
            return;
        };
        match began {
            Some(began) if inside.said_at.is_some_and(|said| said > began) => return,
            Some(_) => {}
            None => inside.said_at = Some(now()),
        }
        inside.kept = kept;
        let is_wanted = inside.is_wanted_now();
        let closed = inside.idle.take_if(|_| !is_wanted);
        drop(others);
        drop(closed);
    }

    /// Returns a token that is cancelled when the last reference to the namespace is removed. It is cancelled
    /// already if there is no reference.
    pub fn gone(&self, key: NetnsKey) -> CancellationToken {
        if key == NetnsKey::Host {
            return CancellationToken::new();
        }
        match self.lock().get(&key) {
            Some(inside) => inside.gone.clone(),
            None => {
                let gone = CancellationToken::new();
                gone.cancel();
                gone
            }
        }
    }

    /// Returns the semaphore of concurrent operations: one for the daemon's own namespace, and one for all others.
    pub fn running(&self, key: NetnsKey) -> Arc<Semaphore> {
        match key {
            NetnsKey::Host => self.host.running(),
            _ => Arc::clone(&self.running),
        }
    }

    /// Runs `request` on this thread, which may block, with a socket inside `place`. The caller must hold a permit
    /// of [`Self::running`].
    ///
    /// # Errors
    /// The error of `request`, or [`SocketError`] if no socket can be opened.
    pub fn run_here<T, E>(
        &self,
        place: &NetnsTarget,
        request: impl FnOnce(&mut RequestSocket) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<SocketError> + From<RtnetlinkError>,
    {
        self.inside(place.key, &place.netns_refs, |socket| {
            if place.key == NetnsKey::Host || place.is_named(&self.files) {
                request(socket)
            } else {
                Err(SocketError::Gone.into())
            }
        })
    }

    /// Runs `request` on this thread, which may block, with a socket inside a namespace. `netns_refs` lead to the
    /// namespace; they are not used for the host's.
    ///
    /// # Errors
    /// As [`Self::run_here`].
    pub fn inside<T, E>(
        &self,
        key: NetnsKey,
        netns_refs: &[NetnsRef],
        request: impl FnOnce(&mut RequestSocket) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<SocketError> + From<RtnetlinkError>,
    {
        if key == NetnsKey::Host {
            return self.host.run_here(request);
        }
        let idle = self
            .lock()
            .get_mut(&key)
            .and_then(|inside| inside.idle.take());
        let mut socket = match idle {
            Some(socket) => socket,
            None => self.open(netns_refs)?,
        };
        let answer = request(&mut socket);
        self.put_back(key, socket);
        answer
    }

    fn open(&self, netns_refs: &[NetnsRef]) -> Result<RequestSocket, SocketError> {
        let netns = self.files.open_any(netns_refs)?;
        let socket = inside(netns, RequestSocket::open).map_err(SocketError::Enter)?;
        Ok(socket?)
    }

    /// Keeps a socket for later use if its last exchange was complete, the namespace wants one, and there is none
    /// yet.
    fn put_back(&self, key: NetnsKey, socket: RequestSocket) {
        if !socket.is_in_step() {
            return;
        }
        let mut others = self.lock();
        let surplus = match others.get_mut(&key) {
            Some(inside) if inside.idle.is_none() && inside.is_wanted_now() => {
                inside.idle.replace(socket)
            }
            _ => Some(socket),
        };
        drop(others);
        drop(surplus);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NetnsKey, Inside>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::lab::PrivateNetns;
    use crate::kernel::netns::MountedNamespaceId;

    #[test]
    fn used_sockets_are_limited_in_number_and_time() {
        let sockets = NetnsSockets::new(Rtnetlink::open(1).unwrap(), NetnsFiles::new().unwrap(), 1);
        let key = |inode| NetnsKey::Mounted(MountedNamespaceId::from_parts(4, inode, 1, 1));
        let count = u64::try_from(MOST_USED).unwrap() + 4;
        for inode in 0..count {
            sockets.admit(key(inode));
            sockets.used(key(inode));
            sockets.used(key(inode));
        }
        let wanted = |now| {
            let others = sockets.lock();
            others.values().filter(|it| it.is_wanted(now)).count()
        };
        let now = now();
        assert_eq!(wanted(now), MOST_USED);
        assert_eq!(wanted(now + USED), 0);
        sockets.keep(key(0), true);
        assert_eq!(wanted(now + USED), 1);
    }

    #[test]
    fn a_look_that_began_before_a_netem_was_installed_does_not_close_the_socket() {
        let sockets = NetnsSockets::new(Rtnetlink::open(1).unwrap(), NetnsFiles::new().unwrap(), 1);
        let key = NetnsKey::Mounted(MountedNamespaceId::from_parts(4, 1, 1, 1));
        sockets.admit(key);
        let is_kept = || sockets.lock()[&key].kept;
        let (before, second) = (now(), Duration::from_secs(1));
        sockets.keep(key, true);
        sockets.keep_as_seen(key, false, before - second);
        assert!(is_kept());
        sockets.keep_as_seen(key, false, before + second);
        assert!(!is_kept());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_socket_is_closed_after_its_time_by_a_timer() {
        let sockets = NetnsSockets::new(Rtnetlink::open(1).unwrap(), NetnsFiles::new().unwrap(), 1);
        let netns = PrivateNetns::new();
        let (path, id) = netns.path();
        let (key, netns_refs) = (NetnsKey::Mounted(id), [NetnsRef::Name { path, id }]);
        let switch = || {
            sockets.used(key);
            sockets.inside::<_, SocketError>(key, &netns_refs, |socket| {
                Ok(socket.link(1).map(drop)?)
            })
        };
        let is_open = || sockets.lock()[&key].idle.is_some();
        let (stop, moment) = (CancellationToken::new(), Duration::from_millis(10));
        let mut actor = tokio::task::JoinSet::new();
        actor.spawn(sockets.clone().close_unused(stop.clone()));
        sockets.admit(key);
        // Once more after it was closed. The time counts from the last use.
        for _ in 0..2 {
            switch().unwrap();
            tokio::time::sleep(USED / 2).await;
            switch().unwrap();
            tokio::time::sleep(USED - moment).await;
            assert!(is_open());
            tokio::time::sleep(moment * 2).await;
            assert!(!is_open());
        }
        sockets.keep(key, true);
        switch().unwrap();
        tokio::time::sleep(USED * 2).await;
        assert!(is_open(), "there is something to be read again and again");
        stop.cancel();
        actor.join_next().await.unwrap().unwrap();
    }
}
