//! Request sockets inside namespaces, opened on demand.
//!
//! What the kernel does not do by namespace id (qdiscs, switching links) needs a socket inside. Such a
//! socket keeps its namespace alive after `ip netns del`, so at most one is kept for each, only while the
//! namespace is [`kept`](NetnsSockets::keep) or [`used`](NetnsSockets::used), and it is closed the moment the last
//! way to it is gone.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::kernel::netns::{NetnsFiles, NetnsKey, OpenError, Way, inside};
use crate::kernel::rtnetlink::{RequestSocket, Rtnetlink, RtnetlinkError};

/// How long a socket is kept after its use. A client that has switched a link often switches another one soon, and entering the
/// namespace takes 0.3 of 1.1 ms.
const USED: Duration = Duration::from_secs(10);
/// In so many namespaces at once.
const MOST_USED: usize = 16;

/// A namespace and the references to it. The host needs none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The namespace.
    pub key: NetnsKey,
    /// Ways to try.
    pub ways: Vec<Way>,
    /// The way that whoever asked has named. The kernel may have given the inode number to another namespace
    /// to which other ways lead, while nobody has said so of this one.
    pub named: Option<Way>,
}

impl Place {
    /// Returns whether the namespace that is open is the one that was named. While it is open, no other
    /// one can have its inode number.
    pub fn is_named(&self, files: &NetnsFiles) -> bool {
        self.named.as_ref().is_none_or(|way| files.leads(way))
    }
}

/// Why there is no socket inside a namespace.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No way leads to the namespace any more.
    #[error("the namespace is gone")]
    Gone,
    /// The namespace file was refused.
    #[error("cannot open the namespace")]
    Open(#[source] io::Error),
    /// It cannot be entered.
    #[error("cannot enter the namespace")]
    Enter(#[source] io::Error),
    /// The kernel gives no socket.
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

/// One namespace to which a way leads.
#[derive(Debug, Default)]
struct Inside {
    idle: Option<RequestSocket>,
    kept: bool,
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

    /// Reads the clock only where it matters: it is a system call on machines without vDSO.
    fn is_wanted_now(&self) -> bool {
        self.kept || self.used_until.is_some() && self.is_used(Instant::now())
    }
}

/// The sockets of all namespaces; clones share them.
#[derive(Debug, Clone)]
pub struct NetnsSockets {
    host: Rtnetlink,
    files: NetnsFiles,
    others: Arc<Mutex<HashMap<NetnsKey, Inside>>>,
    running: Arc<Semaphore>,
    /// How many links are being switched.
    switching: Arc<AtomicUsize>,
}

/// A link is being switched, for as long as it lives.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Switching(Arc<AtomicUsize>);

impl Drop for Switching {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl NetnsSockets {
    /// Opens nothing inside any namespace yet. `host` serves the daemon's own; `parallel` bounds the
    /// operations inside others that run at once.
    pub fn new(host: Rtnetlink, files: NetnsFiles, parallel: usize) -> Self {
        Self {
            host,
            files,
            others: Arc::default(),
            running: Arc::new(Semaphore::new(parallel)),
            switching: Arc::default(),
        }
    }

    /// Notes that a link is switched from now on, and then read back.
    pub fn switching(&self) -> Switching {
        self.switching.fetch_add(1, Ordering::Release);
        Switching(Arc::clone(&self.switching))
    }

    /// Returns whether a link is being switched.
    pub fn is_switching(&self) -> bool {
        self.switching.load(Ordering::Acquire) > 0
    }

    /// A way leads to a namespace.
    pub fn admit(&self, key: NetnsKey) {
        self.lock().entry(key).or_default();
    }

    /// The last way to it is gone: its socket is closed, and what runs inside hears it.
    pub fn forget(&self, key: NetnsKey) {
        let forgotten = self.lock().remove(&key);
        if let Some(inside) = forgotten {
            inside.gone.cancel();
        }
    }

    /// Keeps an idle socket inside for a while, as long as that is so in few others: somebody works there. It is
    /// closed by the first look after that, or when another takes its place.
    pub fn used(&self, key: NetnsKey) {
        let now = Instant::now();
        let mut others = self.lock();
        let used = others
            .iter()
            .filter(|(it, inside)| **it != key && inside.is_used(now));
        if used.count() >= MOST_USED {
            return;
        }
        if let Some(inside) = others.get_mut(&key) {
            inside.used_until = Some(now + USED);
        }
        let unwanted = others.values_mut().filter(|inside| !inside.is_wanted(now));
        let closed: Vec<_> = unwanted.filter_map(|inside| inside.idle.take()).collect();
        drop(others);
        drop(closed);
    }

    /// Says whether an idle socket inside is worth having: there is something to be read again and again.
    pub fn keep(&self, key: NetnsKey, kept: bool) {
        let mut others = self.lock();
        let Some(inside) = others.get_mut(&key) else {
            return;
        };
        inside.kept = kept;
        let is_wanted = inside.is_wanted_now();
        let closed = inside.idle.take_if(|_| !is_wanted);
        drop(others);
        drop(closed);
    }

    /// Returns what is cancelled when the last way to the namespace goes, as soon as it does.
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

    /// Returns what bounds the operations that run at once, apart for the daemon's own namespace and for all others.
    pub fn running(&self, key: NetnsKey) -> Arc<Semaphore> {
        match key {
            NetnsKey::Host => self.host.running(),
            _ => Arc::clone(&self.running),
        }
    }

    /// Runs `request` on this thread, which may block, with a socket inside `place`. Whoever calls it counts it among
    /// those that [run](Self::running).
    ///
    /// # Errors
    /// What `request` returns, or [`SocketError`] when no socket is to be had.
    pub fn run_here<T, E>(
        &self,
        place: &Place,
        request: impl FnOnce(&mut RequestSocket) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<SocketError> + From<RtnetlinkError>,
    {
        if place.key == NetnsKey::Host {
            return self.host.run_here(request);
        }
        self.inside(place.key, &place.ways, |socket| {
            if place.is_named(&self.files) {
                request(socket)
            } else {
                Err(SocketError::Gone.into())
            }
        })
    }

    /// Runs `request` on this thread, which may block, with a socket inside another namespace than the
    /// daemon's own.
    ///
    /// # Errors
    /// As [`Self::run_here`].
    pub fn inside<T, E: From<SocketError>>(
        &self,
        key: NetnsKey,
        ways: &[Way],
        request: impl FnOnce(&mut RequestSocket) -> Result<T, E>,
    ) -> Result<T, E> {
        let idle = self.lock().get_mut(&key).and_then(|it| it.idle.take());
        let mut socket = match idle {
            Some(socket) => socket,
            None => self.open(ways)?,
        };
        let answer = request(&mut socket);
        self.put_back(key, socket);
        answer
    }

    fn open(&self, ways: &[Way]) -> Result<RequestSocket, SocketError> {
        let netns = self.files.open_any(ways)?;
        let socket = inside(netns, RequestSocket::open).map_err(SocketError::Enter)?;
        Ok(socket?)
    }

    /// Keeps a socket for the next time, if it is good for that and there is not one already.
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
    use crate::kernel::netns::MountedNamespaceId;

    #[test]
    fn few_are_kept_for_use_and_not_for_ever() {
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
        let now = Instant::now();
        assert_eq!(wanted(now), MOST_USED);
        assert_eq!(wanted(now + USED), 0);
        sockets.keep(key(0), true);
        assert_eq!(wanted(now + USED), 1);
    }
}
