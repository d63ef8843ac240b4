//! What is said about engines: each change of state once, however often it is tried again.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use tracing::{debug, info, warn};

use super::answers::Listing;
use super::client::EngineError;
use super::limits::{LINES, LINES_WINDOW, MAX_CONTAINERS};
use super::look::LookError;
use super::places::SocketKey;
use super::registry::Key;
use crate::error::chain;
use crate::held::Runtime;

/// What was said last about one engine.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    connected: bool,
    failed: bool,
    full: bool,
    look_failed: bool,
    /// When the present window began, and how many lines there were in it.
    lines: Option<(Instant, u32)>,
}

impl Said {
    /// Returns whether another line may be written, and counts it.
    fn may_speak(&mut self, now: Instant) -> bool {
        let recent =
            |(since, _): &(Instant, u32)| now.saturating_duration_since(*since) < LINES_WINDOW;
        let (since, count) = self.lines.filter(recent).unwrap_or((now, 0));
        self.lines = Some((since, count.saturating_add(1)));
        count < LINES
    }
}

/// What was said last.
#[derive(Debug)]
pub(super) struct Voices {
    sockets: Vec<PathBuf>,
    engines: Vec<Said>,
    none: bool,
    unwatched_sockets: bool,
    unwatched_process: bool,
}

impl Voices {
    pub(super) fn new(sockets: Vec<PathBuf>) -> Self {
        Self {
            engines: vec![Said::default(); sockets.len()],
            sockets,
            none: false,
            unwatched_sockets: false,
            unwatched_process: false,
        }
    }

    /// Which sockets there are, and whether more will be announced.
    pub(super) fn sockets(&mut self, seen: &[Option<SocketKey>], failure: Option<&notify::Error>) {
        let none = seen.iter().all(Option::is_none);
        if none && !self.none {
            debug!("no container engine");
        }
        self.none = none;
        for (said, _) in self
            .engines
            .iter_mut()
            .zip(seen)
            .filter(|(_, it)| it.is_none())
        {
            // The next one to fail there is another one.
            said.failed = false;
        }
        if let Some(err) = failure
            && !self.unwatched_sockets
        {
            warn!(error = %chain(err), "sockets of container engines are not announced, looking every 2 s");
        }
        self.unwatched_sockets = failure.is_some();
    }

    /// A session has begun.
    pub(super) fn listed(&mut self, engine: usize, runtime: Runtime, list: &Listing, now: Instant) {
        let said = &mut self.engines[engine];
        said.failed = false;
        if !said.connected {
            said.connected = true;
            let (socket, count) = (self.sockets[engine].display(), list.containers.len());
            if said.may_speak(now) {
                info!(%socket, ?runtime, count, "container engine connected");
            }
        }
        if list.more {
            self.full(engine, now);
        } else {
            said.full = false;
        }
    }

    /// A session has ended, or none could begin.
    pub(super) fn lost(&mut self, engine: usize, err: &EngineError, now: Instant) {
        let said = &mut self.engines[engine];
        let (socket, error) = (self.sockets[engine].display(), chain(err));
        let quiet = said.failed || !said.may_speak(now);
        match err {
            _ if quiet => debug!(%socket, %error, "container engine still not usable"),
            // How one ends that is stopped in order.
            EngineError::Closed => info!(%socket, "container engine gone"),
            _ => warn!(%socket, %error, "container engine not usable, trying again"),
        }
        said.failed = true;
        said.connected = false;
    }

    /// There are more containers than are followed.
    pub(super) fn full(&mut self, engine: usize, now: Instant) {
        let said = &mut self.engines[engine];
        if !said.full && said.may_speak(now) {
            let socket = self.sockets[engine].display();
            warn!(%socket, "more than {MAX_CONTAINERS} containers, the rest is not shown");
        }
        said.full = true;
    }

    /// A container was looked at.
    pub(super) fn looked(&mut self, key: &Key, failure: Option<&LookError>, now: Instant) {
        let said = &mut self.engines[key.engine];
        if let Some(err) = failure {
            let (socket, error) = (self.sockets[key.engine].display(), chain(err));
            if said.look_failed || !said.may_speak(now) {
                debug!(%socket, container = %key.id, %error, "container not inspected");
            } else {
                warn!(%socket, container = %key.id, %error, "container not inspected, trying again");
            }
        }
        said.look_failed = failure.is_some();
    }

    /// The end of a process will not be told.
    pub(super) fn unwatched(&mut self, err: &io::Error) {
        if !self.unwatched_process {
            self.unwatched_process = true;
            warn!(error = %chain(err), "the end of containers is known from their engine only");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_engine_that_comes_and_goes_fills_no_log() {
        let begin = Instant::now();
        let mut said = Said::default();
        let spoken = |said: &mut Said, from: Instant| {
            let at = (0..500).map(|n| from + Duration::from_millis(100) * n);
            at.filter(|at| said.may_speak(*at)).count()
        };
        assert_eq!(spoken(&mut said, begin), LINES as usize);
        assert_eq!(spoken(&mut said, begin + LINES_WINDOW), LINES as usize);
    }
}
