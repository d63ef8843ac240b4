//! Which sockets are there, which of them are the same, and when to try again one that failed. Pure.

use std::time::{Duration, Instant};

use super::limits::{LIST_AGAIN, RETRY, STABLE};

/// Identifies a socket among those that exist at the same time, with its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketKey {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) owner: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No socket, or one that is served under another path.
    Idle,
    /// To be tried at this moment.
    Due(Instant),
    /// A session runs.
    Running {
        session: u64,
        since: Instant,
        /// It has told which containers there are.
        listed: bool,
        /// When to begin a new session, if something is missing in this one.
        list_after: Instant,
    },
}

#[derive(Debug)]
struct Place {
    seen: Option<SocketKey>,
    phase: Phase,
    pause: Duration,
}

/// The places where an engine may listen, by their number.
#[derive(Debug)]
pub(super) struct Places(Vec<Place>);

impl Places {
    pub(super) fn new(count: usize) -> Self {
        let place = || Place {
            seen: None,
            phase: Phase::Idle,
            pause: RETRY.0,
        };
        Self(std::iter::repeat_with(place).take(count).collect())
    }

    /// Takes what is at each place now. A session is left alone: it notices itself when its engine ends.
    pub(super) fn observe(&mut self, now: Instant, sockets: &[Option<SocketKey>]) {
        for number in 0..self.0.len() {
            let socket = sockets.get(number).copied().flatten();
            let taken = socket.is_some()
                && (sockets[..number].contains(&socket) || self.is_served(number, socket));
            let place = &mut self.0[number];
            let new = socket != place.seen;
            place.seen = socket;
            match place.phase {
                Phase::Running { .. } => {}
                _ if taken || socket.is_none() => place.phase = Phase::Idle,
                // A socket made anew is an engine that has just started.
                _ if new => {
                    place.phase = Phase::Due(now);
                    place.pause = RETRY.0;
                }
                Phase::Idle => place.phase = Phase::Due(now),
                Phase::Due(_) => {}
            }
        }
    }

    /// Returns whether another place has a session with this socket.
    fn is_served(&self, number: usize, socket: Option<SocketKey>) -> bool {
        let served =
            |place: &Place| matches!(place.phase, Phase::Running { .. }) && place.seen == socket;
        let mut others = self.0.iter().enumerate().filter(|(it, _)| *it != number);
        others.any(|(_, place)| served(place))
    }

    /// Returns a place where a session is to begin now.
    pub(super) fn next_due(&self, now: Instant) -> Option<usize> {
        let due = |place: &Place| matches!(place.phase, Phase::Due(at) if at <= now);
        self.0.iter().position(due)
    }

    /// Notes that a session has begun.
    pub(super) fn begun(&mut self, number: usize, session: u64, now: Instant) {
        self.0[number].phase = Phase::Running {
            session,
            since: now,
            listed: false,
            list_after: now + LIST_AGAIN,
        };
    }

    /// Notes that the session has told which containers there are.
    pub(super) fn listed(&mut self, number: usize) {
        if let Phase::Running { listed, .. } = &mut self.0[number].phase {
            *listed = true;
        }
    }

    /// Returns whether root made the socket that was seen last.
    pub(super) fn is_roots(&self, number: usize) -> bool {
        self.0[number].seen.is_some_and(|socket| socket.owner == 0)
    }

    /// Returns whether this session is the present one of its place.
    pub(super) fn is_current(&self, number: usize, session: u64) -> bool {
        matches!(self.0[number].phase, Phase::Running { session: current, .. } if current == session)
    }

    /// Returns whether a session has lasted long enough to be replaced by one with a new list.
    pub(super) fn may_list_again(&self, number: usize, now: Instant) -> bool {
        self.list_again_at(number).is_some_and(|at| at <= now)
    }

    /// Returns when that will be.
    pub(super) fn list_again_at(&self, number: usize) -> Option<Instant> {
        match self.0[number].phase {
            Phase::Running { list_after, .. } => Some(list_after),
            _ => None,
        }
    }

    /// Notes that a session has failed, and returns whether it had told which containers there are. The
    /// pause before the next one grows while they fail soon.
    pub(super) fn failed(&mut self, number: usize, now: Instant) -> bool {
        let place = &mut self.0[number];
        let Phase::Running { since, listed, .. } = place.phase else {
            return false;
        };
        if now.saturating_duration_since(since) >= STABLE {
            place.pause = RETRY.0;
        }
        place.phase = Phase::Due(now + place.pause);
        place.pause = (place.pause * 2).min(RETRY.1);
        listed
    }

    /// Returns when the next attempt is due.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let due = |place: &Place| match place.phase {
            Phase::Due(at) => Some(at),
            _ => None,
        };
        self.0.iter().filter_map(due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<SocketKey> = socket(1, 0);
    const B: Option<SocketKey> = socket(2, 1000);

    const fn socket(inode: u64, owner: u32) -> Option<SocketKey> {
        Some(SocketKey {
            device: 1,
            inode,
            owner,
        })
    }

    #[test]
    fn two_paths_to_one_socket_are_one_engine() {
        let now = Instant::now();
        let mut places = Places::new(3);
        places.observe(now, &[A, A, B]);
        assert_eq!(places.next_due(now), Some(0));
        places.begun(0, 1, now);
        assert_eq!(places.next_due(now), Some(2));
        places.begun(2, 2, now);
        assert_eq!((places.next_due(now), places.wake_at()), (None, None));
        assert!(places.is_roots(0) && !places.is_roots(2));
        assert!(places.is_current(0, 1) && !places.is_current(0, 2));
        // A session is not doubled by a path that comes later, though it goes first.
        let mut late = Places::new(2);
        late.observe(now, &[None, A]);
        late.begun(1, 1, now);
        late.observe(now, &[A, A]);
        assert_eq!(late.next_due(now), None);
        // The first path is gone; the second one still leads there.
        assert!(!places.failed(0, now), "it told nothing");
        places.observe(now, &[None, A, B]);
        assert_eq!(places.next_due(now), Some(1));
    }

    #[test]
    fn what_fails_is_tried_again_after_longer_and_longer() {
        let mut now = Instant::now();
        let mut places = Places::new(1);
        places.observe(now, &[A]);
        let mut pauses = Vec::new();
        for session in 0..7 {
            assert_eq!(places.next_due(now), Some(0));
            places.begun(0, session, now);
            places.failed(0, now);
            let at = places.wake_at().unwrap();
            assert_eq!(places.next_due(now), None);
            places.observe(now, &[A]);
            assert_eq!(places.wake_at(), Some(at), "looking changes nothing");
            pauses.push((at - now).as_millis());
            now = at;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
        places.observe(now, &[B]);
        places.begun(0, 8, now);
        places.failed(0, now);
        assert_eq!(places.wake_at(), Some(now + RETRY.0), "another socket");
        places.observe(now, &[None]);
        assert_eq!(places.wake_at(), None, "nothing there: nothing to try");
        places.observe(now, &[B]);
        for _ in 0..3 {
            places.begun(0, 9, now);
            places.listed(0);
            now += STABLE;
            assert!(places.failed(0, now));
        }
        assert_eq!(places.wake_at(), Some(now + RETRY.0), "it had worked");
    }
}
