//! How much of a processor looking may take: bursts at once, a small share in the long run.
//!
//! Pure: the caller says what time it is and what a look has cost.

use std::time::{Duration, Instant};

/// One part in this many is spent: 1.25 % of one processor, which leaves something for what is not measured.
const SHARE: u32 = 80;
/// What may be spent at once after quiet: ten looks at 600 processes, or two thousand at one.
const BURST: Duration = Duration::from_millis(25);
/// The time that must be earned before work goes on after all was spent. A wakeup costs time too, so a task that returned earlier
/// would only pay for its wakeups.
const RESUME: Duration = Duration::from_micros(500);

/// Spaces work in proportion to what it costs.
#[derive(Debug)]
pub(super) struct Budget {
    /// When everything that was spent so far is earned.
    even: Instant,
    /// When there is something to spend again, if all is spent.
    resume: Option<Instant>,
}

impl Budget {
    /// Has spent nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            even: now,
            resume: None,
        }
    }

    /// Returns whether something may be spent now, whatever it will cost.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.resume.is_none_or(|at| at <= now)
    }

    /// Returns whether half of what may be spent at once is gone.
    pub(super) fn is_tight(&self, now: Instant) -> bool {
        self.even > now + BURST / 2 * SHARE
    }

    /// Returns the moment from which something may be spent; `None`: at any time.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.resume
    }

    /// Records what was spent.
    pub(super) fn spend(&mut self, now: Instant, cost: Duration) {
        self.even = self.even.max(now) + cost.saturating_mul(SHARE);
        let debt = self.even.saturating_duration_since(now);
        let pause = debt.checked_sub((BURST - RESUME) * SHARE);
        self.resume = pause
            .filter(|_| debt > BURST * SHARE || !self.allows(now))
            .map(|pause| now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_the_long_run_is_not() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let cost = Duration::from_millis(1);
        let mut now = start;
        let mut spent = Duration::ZERO;
        while budget.allows(now) {
            budget.spend(now, cost);
            spent += cost;
        }
        assert!(spent >= Duration::from_millis(24) && spent <= Duration::from_millis(27));
        let day = Duration::from_secs(100);
        while now < start + day {
            now = budget.not_before().map_or(now, |at| now.max(at));
            assert!(budget.allows(now));
            budget.spend(now, cost);
            spent += cost;
        }
        assert!(spent < day / 75 && spent > day / 85, "{spent:?}");
    }

    #[test]
    fn it_is_tight_before_all_is_spent() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        budget.spend(now, Duration::from_millis(12));
        assert!(!budget.is_tight(now));
        budget.spend(now, Duration::from_millis(1));
        assert!(budget.is_tight(now) && budget.allows(now));
        assert!(!budget.is_tight(now + Duration::from_millis(40)));
    }

    #[test]
    fn what_is_not_spent_is_not_saved_for_ever() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let later = start + Duration::from_secs(3600);
        budget.spend(later, Duration::from_millis(40));
        assert!(!budget.allows(later));
        let pause = Duration::from_micros(15_500) * SHARE;
        assert_eq!(budget.not_before(), Some(later + pause));
    }
    #[test]
    fn who_wakes_up_only_to_look_at_the_clock_comes_to_work() {
        let mut now = Instant::now();
        let mut budget = Budget::new(now);
        let waking = Duration::from_micros(100);
        budget.spend(now, Duration::from_millis(40));
        for woken in 0..9 {
            let overdrawn = !budget.allows(now);
            now = budget.not_before().map_or(now, |at| now.max(at));
            budget.spend(now, waking);
            assert_eq!(overdrawn, woken == 0 || woken == 6, "{woken}");
        }
    }
}
