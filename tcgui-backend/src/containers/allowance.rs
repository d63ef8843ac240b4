//! How often an engine may be asked: a burst, then at a steady rate. Pure.

use std::time::Instant;

use super::limits::{LOOKS_BURST, LOOKS_PAUSE};

/// What is left of the burst.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    left: u32,
    /// Until when it was refilled.
    refilled: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: LOOKS_BURST,
            refilled: now,
        }
    }

    /// Returns whether one more look may begin, and takes it.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    /// Returns when one more look may begin.
    pub(super) fn next_at(&self) -> Instant {
        if self.left > 0 {
            self.refilled
        } else {
            self.refilled + LOOKS_PAUSE
        }
    }

    fn refill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.refilled);
        let more = u32::try_from(since.as_nanos() / LOOKS_PAUSE.as_nanos()).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(more).min(LOOKS_BURST);
        self.refilled = if self.left == LOOKS_BURST {
            now
        } else {
            self.refilled + LOOKS_PAUSE * more
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_burst_the_rate_is_steady() {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(now);
        let taken = (0..2 * LOOKS_BURST).filter(|_| allowance.take(now)).count();
        assert_eq!(taken, LOOKS_BURST as usize);
        for _ in 0..100 {
            assert_eq!(allowance.next_at(), now + LOOKS_PAUSE);
            now += LOOKS_PAUSE / 2;
            assert!(!allowance.take(now));
            now += LOOKS_PAUSE / 2;
            assert!(allowance.take(now) && !allowance.take(now));
        }
        now += LOOKS_PAUSE * LOOKS_BURST * 3;
        let taken = (0..2 * LOOKS_BURST).filter(|_| allowance.take(now)).count();
        assert_eq!(
            taken, LOOKS_BURST as usize,
            "quiet earns a burst, not three"
        );
    }
}
