//! Limits how soon expensive work is repeated: at once after an idle time, otherwise in proportion to its cost.
//!
//! The same rule is used for the sweep of the netns directory, the dump of a namespace, the publication of the
//! interface list and the reading of files. The caller passes the current time, so there is no clock inside.

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
    /// Allows the next repetition after `factor` × the cost of the last one, but at least `shortest` and at most
    /// `longest` after its end.
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

    /// Returns the earliest time of the work. `None`: at any time.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Delays the work until `at`, unless it is delayed for longer already.
    pub(crate) fn hold_until(&mut self, at: Instant) {
        self.not_before = self.not_before.max(Some(at));
    }

    /// Records that the work has ended at `end`.
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
    fn the_pause_is_proportional_to_the_cost_within_its_bounds() {
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
    fn unused_time_is_not_saved_up() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let mut pacing = Pacing::new(10, ms(25), ms(250));
        for _ in 0..100 {
            pacing.done(now, ms(10));
        }
        assert_eq!(pacing.not_before(), Some(now + ms(100)));
    }

    #[test]
    fn a_hold_during_the_work_stays_after_it() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let mut pacing = Pacing::new(10, ms(0), ms(100));
        pacing.hold_until(now + ms(5));
        pacing.done(now + ms(1), Duration::ZERO);
        assert_eq!(pacing.not_before(), Some(now + ms(5)));
    }
}
