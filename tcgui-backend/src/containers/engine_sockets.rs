//! Decides which sockets to use, detects paths that lead to the same socket, and schedules retries. Pure.

use std::time::{Duration, Instant};

use super::limits::{RETRY, STABLE};

/// Identifies a socket file among those that exist at the same time. It does not identify the engine behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketKey {
    pub(super) device: u64,
    pub(super) inode: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No socket, or a session runs for it under another path.
    Idle,
    /// The next attempt begins at this time.
    Due(Instant),
    /// A session runs.
    Running {
        session: u64,
        since: Instant,
        /// When the last list arrived. `None`: no list has arrived yet.
        listed: Option<Instant>,
        /// A list is under way.
        listing: bool,
    },
}

/// The state of a session that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ended {
    /// It had listed the containers.
    pub(super) listed: bool,
    /// It lasted at least [`STABLE`].
    pub(super) stable: bool,
}

#[derive(Debug)]
struct EngineSocket {
    seen: Option<SocketKey>,
    phase: Phase,
    pause: Duration,
}

/// The paths at which an engine may listen, by number.
#[derive(Debug)]
pub(super) struct EngineSockets(Vec<EngineSocket>);

impl EngineSockets {
    pub(super) fn new(count: usize) -> Self {
        let socket = || EngineSocket {
            seen: None,
            phase: Phase::Idle,
            pause: RETRY.0,
        };
        Self(std::iter::repeat_with(socket).take(count).collect())
    }

    /// Updates the socket file at each path. A running session continues. It fails when its engine ends.
    pub(super) fn observe(&mut self, now: Instant, sockets: &[Option<SocketKey>]) {
        for number in 0..self.0.len() {
            let seen = sockets.get(number).copied().flatten();
            let taken = seen.is_some()
                && (sockets[..number].contains(&seen) || self.is_served(number, seen));
            let socket = &mut self.0[number];
            let new = seen != socket.seen;
            socket.seen = seen;
            match socket.phase {
                Phase::Running { .. } => {}
                _ if taken || seen.is_none() => socket.phase = Phase::Idle,
                // A new socket means that an engine has just started.
                _ if new => {
                    socket.phase = Phase::Due(now);
                    socket.pause = RETRY.0;
                }
                Phase::Idle => socket.phase = Phase::Due(now),
                Phase::Due(_) => {}
            }
        }
    }

    /// Returns whether a session with this socket runs under another path.
    fn is_served(&self, number: usize, seen: Option<SocketKey>) -> bool {
        let served = |socket: &EngineSocket| {
            matches!(socket.phase, Phase::Running { .. }) && socket.seen == seen
        };
        let mut others = self
            .0
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != number);
        others.any(|(_, socket)| served(socket))
    }

    /// Returns a path at which a session is due.
    pub(super) fn next_due(&self, now: Instant) -> Option<usize> {
        let due = |socket: &EngineSocket| matches!(socket.phase, Phase::Due(at) if at <= now);
        self.0.iter().position(due)
    }

    /// Records that a session has begun.
    pub(super) fn begun(&mut self, number: usize, session: u64, now: Instant) {
        self.0[number].phase = Phase::Running {
            session,
            since: now,
            listed: None,
            listing: true,
        };
    }

    /// Marks a list as under way, and returns the session to which it belongs. `None`: no session runs.
    pub(super) fn begin_list(&mut self, number: usize) -> Option<u64> {
        match &mut self.0[number].phase {
            Phase::Running {
                session, listing, ..
            } => {
                *listing = true;
                Some(*session)
            }
            _ => None,
        }
    }

    /// Records that a list has arrived.
    pub(super) fn listed(&mut self, number: usize, now: Instant) {
        if let Phase::Running {
            listed, listing, ..
        } = &mut self.0[number].phase
        {
            *listed = Some(now);
            *listing = false;
        }
    }

    /// Returns whether this session is the current one of its path.
    pub(super) fn is_current(&self, number: usize, session: u64) -> bool {
        matches!(self.0[number].phase, Phase::Running { session: current, .. } if current == session)
    }

    /// Returns when the next list is due, `interval` after the last one. `None`: no list has arrived yet, or one
    /// is under way.
    pub(super) fn list_at(&self, number: usize, interval: Duration) -> Option<Instant> {
        match self.0[number].phase {
            Phase::Running {
                listed: Some(at),
                listing: false,
                ..
            } => at.checked_add(interval),
            _ => None,
        }
    }

    /// Returns when a session that has listed the containers is [`STABLE`].
    pub(super) fn stable_at(&self, number: usize) -> Option<Instant> {
        match self.0[number].phase {
            Phase::Running {
                since,
                listed: Some(_),
                ..
            } => Some(since + STABLE),
            _ => None,
        }
    }

    /// Records that a session has failed, and returns its state. The delay of the next one grows while sessions
    /// fail before they are [`STABLE`].
    pub(super) fn failed(&mut self, number: usize, now: Instant) -> Ended {
        let socket = &mut self.0[number];
        let Phase::Running { since, listed, .. } = socket.phase else {
            return Ended::default();
        };
        let stable = now.saturating_duration_since(since) >= STABLE;
        if stable {
            socket.pause = RETRY.0;
        }
        socket.phase = Phase::Due(now + socket.pause);
        socket.pause = (socket.pause * 2).min(RETRY.1);
        Ended {
            listed: listed.is_some(),
            stable,
        }
    }

    /// Returns when the next attempt is due.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let due = |socket: &EngineSocket| match socket.phase {
            Phase::Due(at) => Some(at),
            _ => None,
        };
        self.0.iter().filter_map(due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<SocketKey> = Some(SocketKey {
        device: 1,
        inode: 1,
    });
    const B: Option<SocketKey> = Some(SocketKey {
        device: 1,
        inode: 2,
    });

    #[test]
    fn two_paths_to_one_socket_are_one_engine() {
        let now = Instant::now();
        let mut sockets = EngineSockets::new(3);
        sockets.observe(now, &[A, A, B]);
        assert_eq!(sockets.next_due(now), Some(0));
        sockets.begun(0, 1, now);
        assert_eq!(sockets.next_due(now), Some(2));
        sockets.begun(2, 2, now);
        assert_eq!((sockets.next_due(now), sockets.wake_at()), (None, None));
        assert!(sockets.is_current(0, 1) && !sockets.is_current(0, 2));
        // A path that appears later does not start a second session with the same socket, even if it precedes the
        // other path.
        let mut late = EngineSockets::new(2);
        late.observe(now, &[None, A]);
        late.begun(1, 1, now);
        late.observe(now, &[A, A]);
        assert_eq!(late.next_due(now), None);
        // The first path was removed. The second one still leads to the socket.
        assert!(!sockets.failed(0, now).listed, "no list arrived");
        sockets.observe(now, &[None, A, B]);
        assert_eq!(sockets.next_due(now), Some(1));
    }

    #[test]
    fn a_failed_engine_is_retried_after_growing_delays() {
        let mut now = Instant::now();
        let mut sockets = EngineSockets::new(1);
        sockets.observe(now, &[A]);
        let mut pauses = Vec::new();
        for session in 0..7 {
            assert_eq!(sockets.next_due(now), Some(0));
            sockets.begun(0, session, now);
            sockets.failed(0, now);
            let at = sockets.wake_at().unwrap();
            assert_eq!(sockets.next_due(now), None);
            sockets.observe(now, &[A]);
            assert_eq!(sockets.wake_at(), Some(at), "looking changes nothing");
            pauses.push((at - now).as_millis());
            now = at;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
        sockets.observe(now, &[B]);
        sockets.begun(0, 8, now);
        sockets.failed(0, now);
        assert_eq!(sockets.wake_at(), Some(now + RETRY.0), "another socket");
        sockets.observe(now, &[None]);
        assert_eq!(sockets.wake_at(), None, "nothing there: nothing to try");
        sockets.observe(now, &[B]);
        for _ in 0..3 {
            sockets.begun(0, 9, now);
            sockets.listed(0, now);
            now += STABLE;
            assert!(sockets.failed(0, now).listed);
        }
        assert_eq!(sockets.wake_at(), Some(now + RETRY.0), "it had worked");
    }

    #[test]
    fn a_session_lists_again_after_the_interval_but_not_twice_at_a_time() {
        let (now, interval) = (Instant::now(), Duration::from_secs(30));
        let mut sockets = EngineSockets::new(1);
        sockets.observe(now, &[A]);
        sockets.begun(0, 1, now);
        assert_eq!(sockets.list_at(0, interval), None, "the first is under way");
        for number in 1..4 {
            let now = now + interval * number;
            sockets.listed(0, now);
            assert_eq!(sockets.list_at(0, interval), Some(now + interval));
            assert_eq!(sockets.begin_list(0), Some(1));
            assert_eq!(sockets.list_at(0, interval), None);
        }
        sockets.failed(0, now);
        assert_eq!(sockets.list_at(0, interval), None, "no session");
    }
}
