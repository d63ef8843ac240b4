//! How soon expensive work may be repeated: at once after quiet, then in proportion to its cost.
//!
//! One rule serves the sweep of the netns directory, the dump of a namespace, the publication of
//! the interface list and the reading of files. It holds no clock: the caller says what time it is.

use std::time::{Duration, Instant};

/// Spaces repetitions of one kind of work.
#[derive(Debug, Clone)]
pub(crate) struct Pacing {
    factor: u32,
    shortest: Duration,
    longest: Duration,
    not_before: Option<Instant>,
}

impl Pacing {
    /// Allows the next repetition `factor` × the cost of the last one after its end, but never sooner
    /// than `shortest` and never later than `longest`.
    pub(crate) const fn new(factor: u32, shortest: Duration, longest: Duration) -> Self {
        Self {
            factor,
            shortest,
            longest,
            not_before: None,
        }
    }

    /// Returns the longest pause.
    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    /// Returns whether the work may be done now.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    /// Returns the moment from which the work may be done; `None`: at any time.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Puts the work off until `at`, if it is not put off for longer already.
    pub(crate) fn hold_until(&mut self, at: Instant) {
        self.not_before = self.not_before.max(Some(at));
    }

    /// Records that the work has just been done, ending at `end`.
    pub(crate) fn done(&mut self, end: Instant, cost: Duration) {
        let pause = cost
            .saturating_mul(self.factor)
            .clamp(self.shortest, self.longest);
        self.hold_until(end + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_by_cost_within_bounds() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let pacing = Pacing::new(10, ms(25), ms(50));
        assert!(pacing.allows(now), "the first time is always at once");
        for (cost, pause) in [(0, 25), (3, 30), (1_000, 50)] {
            let mut pacing = pacing.clone();
            pacing.done(now, ms(cost));
            assert_eq!(pacing.not_before(), Some(now + ms(pause)), "cost {cost} ms");
            assert!(!pacing.allows(now + ms(pause) - Duration::from_nanos(1)));
            assert!(pacing.allows(now + ms(pause)));
        }
    }

    #[test]
    fn what_did_not_wait_is_not_made_up_for() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let mut pacing = Pacing::new(10, ms(25), ms(250));
        for _ in 0..100 {
            pacing.done(now, ms(10));
        }
        assert_eq!(pacing.not_before(), Some(now + ms(100)));
    }

    #[test]
    fn what_is_held_is_held_though_it_was_under_way() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let mut pacing = Pacing::new(10, ms(0), ms(100));
        pacing.hold_until(now + ms(5));
        pacing.done(now + ms(1), Duration::ZERO);
        assert_eq!(pacing.not_before(), Some(now + ms(5)));
    }
}
