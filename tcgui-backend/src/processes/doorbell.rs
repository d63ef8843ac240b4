//! The kernel's announcements of new processes: open, unavailable, or closed for a short time during a storm.

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use tracing::{debug, info};

use crate::kernel::process_events::{ProcessEventBatch, ProcessEvents};

/// How long the socket stays closed after events were lost. In a storm, programs that start processes pay for each
/// event, and the queue would be full again before all processes are scanned.
const STORM: Duration = Duration::from_millis(250);
/// Delay of the retry after the socket was refused. An attempt takes seven system calls.
const RETRY: Duration = Duration::from_secs(60);

/// The process connector, if it is available.
#[derive(Debug)]
pub(super) struct Doorbell {
    events: Option<ProcessEvents>,
    open_at: Instant,
    refused: bool,
}

impl Doorbell {
    /// Returns a doorbell that is to be opened at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            events: None,
            open_at: now,
            refused: false,
        }
    }

    /// Returns when the socket is to be opened. `None`: it is open.
    pub(super) fn open_at(&self) -> Option<Instant> {
        self.events.is_none().then_some(self.open_at)
    }

    /// Opens the socket, and returns whether it works. Logs only when the result changes.
    pub(super) fn open(&mut self, now: Instant) -> bool {
        match ProcessEvents::open() {
            Ok(events) => {
                if std::mem::take(&mut self.refused) {
                    info!("new processes are announced again");
                }
                self.events = Some(events);
            }
            Err(err) => self.refuse(now, &err),
        }
        self.events.is_some()
    }

    /// Waits for events. Cancel-safe: an event that was not returned stays in the socket.
    pub(super) async fn next(&self) -> io::Result<ProcessEventBatch> {
        match &self.events {
            Some(events) => events.next().await,
            None => pending().await,
        }
    }

    /// Closes the socket for [`STORM`].
    pub(super) fn pause(&mut self, now: Instant) {
        debug!("announcements of processes lost");
        self.events = None;
        self.open_at = now + STORM;
    }

    /// Closes a socket that failed until [`RETRY`] has passed.
    pub(super) fn refuse(&mut self, now: Instant, err: &io::Error) {
        if !std::mem::replace(&mut self.refused, true) {
            info!(error = %err, "new processes are not announced, sweeping more often instead");
        }
        self.events = None;
        self.open_at = now + RETRY;
    }
}
