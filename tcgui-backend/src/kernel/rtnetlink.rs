//! rtnetlink: request sockets, and one event socket for all namespaces.
//!
//! Both are opened inside the [`Observer`], so that reading assigns no ids in other namespaces. Requests that must
//! be made in the host's namespace use sockets there.
//!
//! A request blocks its thread while the kernel holds the rtnl lock. The deletion of a namespace holds it for tens
//! of milliseconds. So requests run on blocking threads, a few at a time, each with a socket from a small pool
//! ([`Rtnetlink`]). Only events are asynchronous ([`EventSocket`]).
//!
//! Sources: `man 7 netlink`, `man 7 rtnetlink`, `Documentation/userspace-api/netlink/intro.rst`.

mod events;
mod message;
mod observer;
mod pending;
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

/// An id of one namespace in the table of another one (`man 8 ip-netns`, `list-id`). Unless stated otherwise, it
/// is from the table of the [`Observer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nsid(pub(super) i32);

impl Nsid {
    /// Returns the id with this number. For tests only.
    pub const fn from_raw(id: i32) -> Self {
        Self(id)
    }
}

/// Why a request to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum RtnetlinkError {
    /// No socket could be opened or configured.
    #[error("cannot open an rtnetlink socket")]
    Open(#[source] io::Error),
    /// The private network namespace could not be created or entered.
    #[error("cannot use a private network namespace")]
    Observer(#[source] io::Error),
    /// The request could not be sent, or the reply did not arrive within the timeout.
    #[error("cannot exchange messages with the kernel")]
    Exchange(#[source] io::Error),
    /// The kernel refused the request. `text` is its extended error message, if there is one.
    #[error("{}", .text.as_deref().unwrap_or("the kernel refused"))]
    Refused {
        /// The message of the extended acknowledgement.
        text: Option<String>,
        /// The error number.
        #[source]
        err: io::Error,
    },
    /// The dump was interrupted by changes in every attempt.
    #[error("the dump was interrupted {attempts} times")]
    Interrupted {
        /// Number of attempts.
        attempts: u32,
    },
    /// The reply does not follow the protocol.
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

    /// Returns the meaning of a refusal. `None`: the error is not a refusal.
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

/// The error numbers of refusals to which callers react.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// `ENODEV`: there is no such link.
    NoDevice,
    /// `ENOENT`: the object does not exist, or the kernel does not know its kind. Only the text distinguishes the
    /// two.
    NotFound,
    /// `EEXIST`: the object exists already.
    Exists,
    /// `EINVAL`: the request does not match the existing object, or is malformed.
    Invalid,
    /// Anything else.
    Other,
}

/// Requests to the kernel from asynchronous code.
#[derive(Debug, Clone)]
pub struct Rtnetlink {
    /// The namespace of the sockets. `None`: the host's.
    observer: Option<Observer>,
    idle: Arc<Mutex<Vec<RequestSocket>>>,
    running: Arc<Semaphore>,
}

impl Rtnetlink {
    /// Opens the first socket in the host's namespace. `parallel` limits the sockets and the blocking threads in
    /// use.
    ///
    /// # Errors
    /// The kernel refuses an rtnetlink socket.
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

    /// Returns the namespace of the sockets. `None`: the host's.
    pub fn observer(&self) -> Option<&Observer> {
        self.observer.as_ref()
    }

    /// Returns the host's id for requests over these sockets. `None`: the sockets are in the host's namespace.
    pub fn host(&self) -> Option<Nsid> {
        self.observer.as_ref().map(Observer::host)
    }

    /// Runs `request` on a blocking thread with one of the sockets.
    ///
    /// # Errors
    /// The error of `request`, or [`RtnetlinkError::Open`] if no socket can be opened.
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

    /// Returns the semaphore of concurrent requests.
    pub(crate) fn running(&self) -> Arc<Semaphore> {
        Arc::clone(&self.running)
    }

    /// Runs `request` on the calling thread, which may block. Not for asynchronous code. It is not counted among the
    /// concurrent requests of [`Self::run`].
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
        // A socket with an incomplete exchange may still receive the rest of that reply.
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
