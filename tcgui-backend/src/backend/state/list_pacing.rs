//! When the next interface list may be published. Pure.

use std::time::{Duration, Instant};

use crate::pacing::Pacing;
use crate::token_bucket::TokenBucket;

/// The next list is delayed by ten times the cost of the last one, at most a quarter of a second. The limit is for a
/// publication that was preempted, so that its cost does not delay the next one by ten times that.
const COST: Pacing = Pacing::new(10, Duration::ZERO, Duration::from_millis(250));
/// Ten lists may follow each other at once, then 40 a second. A script that makes a few namespaces or links, or the
/// start of a container, needs up to ten.
const RATE: TokenBucket = TokenBucket::new(10, Duration::from_millis(250));

/// The pacing of lists while changes continue to arrive.
#[derive(Debug)]
pub(super) struct ListPacing {
    cost: Pacing,
    rate: TokenBucket,
}

impl ListPacing {
    /// Allows the first list at once.
    pub(super) const fn new() -> Self {
        Self {
            cost: COST,
            rate: RATE,
        }
    }

    /// Returns the time from which a list may be published. `None`: at any time.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.cost.not_before().max(self.rate.not_before())
    }

    /// Records that a list has just been published.
    ///
    /// An urgent list does not wait. It takes no token if there is none, so that it does not delay later lists.
    pub(super) fn done(&mut self, now: Instant, cost: Duration) {
        self.cost.done(now, cost);
        if self.rate.allows(now) {
            self.rate.spend(now, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Publishes as soon as it is allowed, and returns the intervals.
    fn intervals(pacing: &mut ListPacing, begin: Instant, cost: Duration) -> Vec<Duration> {
        let mut now = begin;
        let mut intervals = Vec::new();
        for _ in 0..14 {
            pacing.done(now, cost);
            let next = pacing.not_before().map_or(now, |at| now.max(at));
            intervals.push(next - now);
            now = next;
        }
        intervals
    }

    #[test]
    fn ten_lists_follow_at_once_and_then_forty_a_second() {
        let begin = Instant::now();
        let mut pacing = ListPacing::new();
        assert_eq!(
            pacing.not_before(),
            None,
            "the first list waits for nothing"
        );
        let free = intervals(&mut pacing, begin, Duration::ZERO);
        assert_eq!(free[..9], [Duration::ZERO; 9]);
        assert_eq!(free[9..], [25 * MS; 5]);
        let quiet = begin + Duration::from_secs(60);
        assert_eq!(intervals(&mut pacing, quiet, Duration::ZERO), free);
    }

    #[test]
    fn an_interval_is_ten_times_the_cost_of_the_last_list() {
        let begin = Instant::now();
        let cheap = intervals(&mut ListPacing::new(), begin, MS / 10);
        assert_eq!(cheap[0], MS);
        assert!(cheap.iter().all(|interval| *interval >= MS), "{cheap:?}");
        let dear = intervals(&mut ListPacing::new(), begin, 4 * MS);
        assert_eq!(dear, [40 * MS; 14]);
        let preempted = intervals(&mut ListPacing::new(), begin, 100 * MS);
        assert_eq!(preempted, [250 * MS; 14]);
    }

    #[test]
    fn urgent_lists_do_not_delay_the_ones_after_them() {
        let now = Instant::now();
        let mut pacing = ListPacing::new();
        for _ in 0..100 {
            pacing.done(now, MS);
        }
        assert_eq!(pacing.not_before(), Some(now + 25 * MS));
    }
}
