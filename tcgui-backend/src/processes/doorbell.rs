//! The kernel's announcements of new processes: had, not to be had, or not wanted for a moment.

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use tracing::{debug, info};

use crate::kernel::process_events::{Heard, ProcessEvents};

/// How long events are not received after some were lost. In a storm, programs that start processes pay for each
/// event, and the queue would be full again before all processes are scanned.
const STORM: Duration = Duration::from_millis(250);
/// How soon to try again what was refused: it takes seven system calls.
const RETRY: Duration = Duration::from_secs(60);

/// The process connector, as far as it can be had.
#[derive(Debug)]
pub(super) struct Doorbell {
    events: Option<ProcessEvents>,
    open_at: Instant,
    refused: bool,
}

impl Doorbell {
    /// Is to be opened at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            events: None,
            open_at: now,
            refused: false,
        }
    }

    /// Returns when it is to be opened.
    pub(super) fn open_at(&self) -> Option<Instant> {
        self.events.is_none().then_some(self.open_at)
    }

    /// Opens it, and returns whether it works. Says once that it does not, and once that it does again.
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

    /// Waits for events. Cancel-safe: what was not returned was not taken.
    pub(super) async fn next(&self) -> io::Result<Heard> {
        match &self.events {
            Some(events) => events.next().await,
            None => pending().await,
        }
    }

    /// Stops listening for a moment.
    pub(super) fn hang_up(&mut self, now: Instant) {
        debug!("announcements of processes lost");
        self.events = None;
        self.open_at = now + STORM;
    }

    /// Stops listening to what does not work.
    pub(super) fn refuse(&mut self, now: Instant, err: &io::Error) {
        if !std::mem::replace(&mut self.refused, true) {
            info!(error = %err, "new processes are not announced, sweeping more often instead");
        }
        self.events = None;
        self.open_at = now + RETRY;
    }
}
