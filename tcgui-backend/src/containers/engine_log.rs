//! Logs the state of engines: one line when an engine is lost and one when it is back, regardless of the number of
//! retries.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use tracing::{debug, info, warn};

use super::answers::Listing;
use super::client::EngineError;
use super::engine_sockets::{Ended, SocketKey};
use super::limits::{LINES, MAX_CONTAINERS};
use super::look::LookError;
use super::registry::Key;
use crate::error::chain;
use crate::netns_holders::Runtime;
use crate::token_bucket::TokenBucket;

/// The state of one engine that was logged last.
#[derive(Debug, Clone, Copy)]
struct Logged {
    connected: bool,
    /// Sessions start and fail shortly after. The engine counts as back when a session is stable.
    flapping: bool,
    failed: bool,
    full: bool,
    look_failed: bool,
    lines: TokenBucket,
}

impl Logged {
    const NEW: Self = Self {
        connected: false,
        flapping: false,
        failed: false,
        full: false,
        look_failed: false,
        lines: LINES,
    };

    /// Returns whether another line may be written, and counts it.
    fn may_log(&mut self, now: Instant) -> bool {
        let may_log = self.lines.allows(now);
        if may_log {
            self.lines.spend(now, 1);
        }
        may_log
    }

    /// Records that the engine has listed its containers. Returns whether to log that.
    fn listed(&mut self, now: Instant) -> bool {
        if self.connected || self.flapping {
            return false;
        }
        self.connected = true;
        self.failed = false;
        self.may_log(now)
    }

    /// Records that a session is stable. Returns whether to log that the engine is back.
    fn stable(&mut self, now: Instant) -> bool {
        self.flapping = false;
        self.listed(now)
    }

    /// Records that a session has ended or could not begin. Returns whether to log that.
    fn lost(&mut self, session: Ended, now: Instant) -> bool {
        self.flapping |= session.listed && !session.stable;
        self.connected = false;
        let was_failed = std::mem::replace(&mut self.failed, true);
        !was_failed && self.may_log(now)
    }
}

/// The states of all engines that were logged last.
#[derive(Debug)]
pub(super) struct EngineLog {
    sockets: Vec<PathBuf>,
    engines: Vec<Logged>,
    none: bool,
    unwatched_sockets: bool,
    unwatched_process: bool,
}

impl EngineLog {
    pub(super) fn new(sockets: Vec<PathBuf>) -> Self {
        Self {
            engines: vec![Logged::NEW; sockets.len()],
            sockets,
            none: false,
            unwatched_sockets: false,
            unwatched_process: false,
        }
    }

    /// Logs if there is no socket, or if changes of the sockets are not reported.
    pub(super) fn sockets(&mut self, seen: &[Option<SocketKey>], failure: Option<&notify::Error>) {
        let none = seen.iter().all(Option::is_none);
        if none && !self.none {
            debug!("no container engine");
        }
        self.none = none;
        for (logged, _) in self
            .engines
            .iter_mut()
            .zip(seen)
            .filter(|(_, logged)| logged.is_none())
        {
            // The next engine at this path is another one, so its failure is logged again.
            logged.failed = false;
        }
        if let Some(err) = failure
            && !self.unwatched_sockets
        {
            warn!(error = %chain(err), "sockets of container engines are not announced, looking every 2 s");
        }
        self.unwatched_sockets = failure.is_some();
    }

    /// Logs that an engine has listed its containers, if it was not connected before.
    pub(super) fn listed(&mut self, engine: usize, runtime: Runtime, list: &Listing, now: Instant) {
        let logged = &mut self.engines[engine];
        if logged.listed(now) {
            let (socket, count) = (self.sockets[engine].display(), list.containers.len());
            info!(%socket, ?runtime, count, "container engine connected");
        }
        if list.more {
            self.full(engine, now);
        } else {
            self.engines[engine].full = false;
        }
    }

    /// Returns whether earlier sessions with this engine ended soon. Only then [`Self::stable`] has an effect.
    pub(super) fn is_flapping(&self, engine: usize) -> bool {
        self.engines[engine].flapping
    }

    /// Logs that the engine is back, because a session with it is stable.
    pub(super) fn stable(&mut self, engine: usize, runtime: Runtime, now: Instant) {
        if self.engines[engine].stable(now) {
            let socket = self.sockets[engine].display();
            info!(%socket, ?runtime, "container engine connected");
        }
    }

    /// Logs that a session has ended, or could not begin.
    pub(super) fn lost(&mut self, engine: usize, err: &EngineError, session: Ended, now: Instant) {
        let (socket, error) = (self.sockets[engine].display(), chain(err));
        let is_news = self.engines[engine].lost(session, now);
        match err {
            _ if !is_news => debug!(%socket, %error, "container engine still not usable"),
            // An engine that shuts down cleanly closes the connection.
            EngineError::Closed => info!(%socket, "container engine gone"),
            _ => warn!(%socket, %error, "container engine not usable, trying again"),
        }
    }

    /// Logs that an engine refuses to send events. A session calls this once.
    pub(super) fn no_events(&mut self, engine: usize, err: &EngineError, now: Instant) {
        if self.engines[engine].may_log(now) {
            let (socket, error) = (self.sockets[engine].display(), chain(err));
            warn!(%socket, %error, "container engine sends no events, listing its containers every 2 s");
        }
    }

    /// Logs that there are more containers than the limit.
    pub(super) fn full(&mut self, engine: usize, now: Instant) {
        let logged = &mut self.engines[engine];
        if !logged.full && logged.may_log(now) {
            let socket = self.sockets[engine].display();
            warn!(%socket, "more than {MAX_CONTAINERS} containers, the rest is not shown");
        }
        logged.full = true;
    }

    /// Logs that a container could not be inspected. Later failures before [`Self::inspected_all`] are logged only
    /// with `--verbose`.
    pub(super) fn looked(&mut self, key: &Key, failure: Option<&LookError>, now: Instant) {
        let logged = &mut self.engines[key.engine];
        if let Some(err) = failure {
            let (socket, error) = (self.sockets[key.engine].display(), chain(err));
            if logged.look_failed || !logged.may_log(now) {
                debug!(%socket, container = %key.id, %error, "container not inspected");
            } else {
                warn!(%socket, container = %key.id, %error, "container not inspected, trying again");
            }
        }
        logged.look_failed |= failure.is_some();
    }

    /// Records that all inspections since the last list have succeeded.
    pub(super) fn inspected_all(&mut self, engine: usize) {
        self.engines[engine].look_failed = false;
    }

    /// Logs once that the exit of a process cannot be watched.
    pub(super) fn unwatched(&mut self, err: &io::Error) {
        if !self.unwatched_process {
            self.unwatched_process = true;
            warn!(error = %chain(err), "the end of containers is known from their engine only");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Ended = Ended {
        listed: false,
        stable: false,
    };
    const SHORT: Ended = Ended {
        listed: true,
        stable: false,
    };
    const LONG: Ended = Ended {
        listed: true,
        stable: true,
    };

    #[test]
    fn a_restarted_engine_is_logged_as_lost_once_and_as_back_once() {
        let now = Instant::now();
        let mut logged = Logged::NEW;
        assert!(logged.listed(now) && !logged.listed(now), "later lists");
        assert!(logged.lost(LONG, now));
        for _ in 0..10 {
            assert!(!logged.lost(REFUSED, now), "retries");
        }
        assert!(logged.listed(now));
        assert!(logged.lost(LONG, now), "the next loss");
    }

    #[test]
    fn a_flapping_engine_is_back_when_a_session_is_stable() {
        let now = Instant::now();
        let mut logged = Logged::NEW;
        assert!(logged.listed(now));
        assert!(logged.lost(SHORT, now));
        for _ in 0..100 {
            assert!(!logged.listed(now) && !logged.lost(SHORT, now));
        }
        assert!(!logged.listed(now) && logged.stable(now));
        assert!(!logged.listed(now) && !logged.stable(now));
        assert!(logged.lost(LONG, now) && logged.listed(now));
    }
}
