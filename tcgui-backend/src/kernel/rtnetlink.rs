//! rtnetlink: requests that are answered, and the one event socket that hears every namespace.
//!
//! Both are opened inside the [`Observer`], so that looking leaves no ids in other namespaces. What has to be done
//! in the host's namespace itself is done over request sockets there.
//!
//! A request blocks its thread for as long as the kernel holds the rtnl lock, which the teardown of a
//! namespace does for tens of milliseconds. So requests run on blocking threads, a few at a time, each
//! with a socket of its own from a small pool ([`Rtnetlink`]); only events are asynchronous
//! ([`EventSocket`]).
//!
//! Sources: `man 7 netlink`, `man 7 rtnetlink`, `Documentation/userspace-api/netlink/intro.rst`.

mod events;
mod message;
mod observer;
mod socket;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::libc;
use tokio::sync::Semaphore;

use crate::blocking;

pub use events::{EventSocket, KernelEvent, Queued};
pub(super) use message::{Attributes, Message, push_attribute, string, take};
pub use observer::Observer;
pub(super) use socket::Change;
pub use socket::RequestSocket;

/// A number by which one namespace knows another one (`man 8 ip-netns`, `list-id`). Unless stated otherwise, it is from
/// the table of the [`Observer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nsid(pub(super) i32);

impl Nsid {
    /// Returns the id with this number; only tests make ids up.
    pub const fn from_raw(id: i32) -> Self {
        Self(id)
    }
}

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RtnetlinkError {
    /// No socket could be opened or configured.
    #[error("cannot open an rtnetlink socket")]
    Open(#[source] io::Error),
    /// The private network namespace could not be made or entered.
    #[error("cannot use a private network namespace")]
    Observer(#[source] io::Error),
    /// The request was not taken, or its answer did not come within the time limit.
    #[error("cannot exchange messages with the kernel")]
    Exchange(#[source] io::Error),
    /// The kernel said no; `text` is its extended error message where it gave one.
    #[error("{}", .text.as_deref().unwrap_or("the kernel refused"))]
    Refused {
        /// What the kernel wrote into the extended acknowledgement.
        text: Option<String>,
        /// Its error number.
        #[source]
        err: io::Error,
    },
    /// The dump was interrupted by changes every time it was tried.
    #[error("the dump was interrupted {attempts} times")]
    Interrupted {
        /// How often it was tried.
        attempts: u32,
    },
    /// The answer does not follow the protocol.
    #[error("malformed message from the kernel")]
    Malformed,
}

impl RtnetlinkError {
    /// Returns the error number of a refusal.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { err, .. } => err.raw_os_error(),
            _ => None,
        }
    }

    /// Returns what a refusal means; `None` when it is none.
    pub fn refused(&self) -> Option<Refused> {
        self.errno().map(|errno| match errno {
            libc::ENODEV => Refused::NoDevice,
            libc::ENOENT => Refused::NotFound,
            libc::EEXIST => Refused::Exists,
            libc::EINVAL => Refused::Invalid,
            _ => Refused::Other,
        })
    }
}

/// The error numbers of refusals that mean something to those who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// `ENODEV`: there is no such link.
    NoDevice,
    /// `ENOENT`: there is no such object, or the kernel has no such kind; only the text tells which.
    NotFound,
    /// `EEXIST`: something is there already.
    Exists,
    /// `EINVAL`: the request does not fit to what is there, or is malformed.
    Invalid,
    /// Anything else.
    Other,
}

/// Requests to the kernel from asynchronous code.
#[derive(Debug, Clone)]
pub struct Rtnetlink {
    /// Where the sockets are; `None`: in the host's namespace.
    observer: Option<Observer>,
    idle: Arc<Mutex<Vec<RequestSocket>>>,
    running: Arc<Semaphore>,
}

impl Rtnetlink {
    /// Opens the first socket in the host's namespace; `parallel` bounds the sockets and the blocking threads in use.
    ///
    /// # Errors
    /// The kernel gives no rtnetlink socket.
    pub fn open(parallel: usize) -> Result<Self, RtnetlinkError> {
        Self::open_from(None, parallel)
    }

    /// Opens the first socket inside the observer, or in the host's namespace if there is none.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_from(observer: Option<Observer>, parallel: usize) -> Result<Self, RtnetlinkError> {
        let first = open_socket(observer.as_ref())?;
        Ok(Self {
            observer,
            idle: Arc::new(Mutex::new(vec![first])),
            running: Arc::new(Semaphore::new(parallel)),
        })
    }

    /// Returns the namespace in which the sockets are; `None`: the host's.
    pub fn observer(&self) -> Option<&Observer> {
        self.observer.as_ref()
    }

    /// Returns the id by which requests reach the host's namespace; `None`: the sockets are there.
    pub fn host(&self) -> Option<Nsid> {
        self.observer.as_ref().map(Observer::host)
    }

    /// Runs `request` on a blocking thread with one of the sockets.
    ///
    /// # Errors
    /// What `request` returns, or [`RtnetlinkError::Open`] when no socket is to be had.
    pub async fn run<T, E>(
        &self,
        request: impl FnOnce(&mut RequestSocket) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<RtnetlinkError> + Send + 'static,
    {
        let permit = self.running().acquire_owned().await;
        let pool = self.clone();
        blocking::run(move || {
            let _permit = permit;
            pool.run_here(request)
        })
        .await
    }

    /// Returns what bounds the requests that run at once.
    pub(crate) fn running(&self) -> Arc<Semaphore> {
        Arc::clone(&self.running)
    }

    /// Runs `request` on the calling thread, which may block: not for asynchronous code, and not
    /// counted among the parallel ones.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_here<T, E: From<RtnetlinkError>>(
        &self,
        request: impl FnOnce(&mut RequestSocket) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut socket = match self.idle().pop() {
            Some(socket) => socket,
            None => open_socket(self.observer.as_ref())?,
        };
        let answer = request(&mut socket);
        // A socket whose last exchange broke off may still receive the rest of that answer.
        if socket.is_in_step() {
            self.idle().push(socket);
        }
        answer
    }

    fn idle(&self) -> MutexGuard<'_, Vec<RequestSocket>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_socket(observer: Option<&Observer>) -> Result<RequestSocket, RtnetlinkError> {
    match observer {
        Some(observer) => observer.socket(),
        None => RequestSocket::open(),
    }
}
