//! A token bucket: a burst after an idle time, then a steady rate.
//!
//! The caller passes the current time, so there is no clock inside. The caller defines what a token stands for: a
//! list, a request, a byte, or a nanosecond of processor time.

use std::time::{Duration, Instant};

/// Limits the rate at which tokens are spent. The bucket is full at first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenBucket {
    burst: u32,
    refill: Duration,
    resume: u32,
    /// When the bucket is full again.
    full_at: Option<Instant>,
    /// When the bucket opens again.
    closed_until: Option<Instant>,
}

impl TokenBucket {
    /// Creates a bucket of `burst` tokens, at least one. An empty bucket is full again after `refill`.
    pub(crate) const fn new(burst: u32, refill: Duration) -> Self {
        Self {
            burst,
            refill,
            resume: 1,
            full_at: None,
            closed_until: None,
        }
    }

    /// Keeps an empty bucket closed until it has `tokens` instead of one.
    pub(crate) const fn resume_with(self, tokens: u32) -> Self {
        Self {
            resume: tokens,
            ..self
        }
    }

    /// Returns whether tokens may be spent now. The number of tokens is not limited.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        self.closed_until.is_none_or(|at| at <= now)
    }

    /// Returns when tokens may be spent again. `None`: at any time.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.closed_until
    }

    /// Returns whether less than half of the burst is left.
    pub(crate) fn is_below_half(&self, now: Instant) -> bool {
        self.debt(now) > self.refill / 2
    }

    /// Takes tokens out. It may take more tokens than there are, because some costs are known only afterwards. The
    /// bucket opens again after the missing tokens are refilled.
    pub(crate) fn spend(&mut self, now: Instant, tokens: u32) {
        let debt = self.debt(now) + self.time(tokens);
        self.full_at = Some(now + debt);
        let is_empty = debt + self.time(1) > self.refill;
        let pause = (debt + self.time(self.resume)).saturating_sub(self.refill);
        if is_empty || !self.allows(now) {
            self.closed_until = Some(now + pause);
        }
    }

    /// Returns the time until the bucket is full.
    fn debt(&self, now: Instant) -> Duration {
        self.full_at
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// Returns the time in which `tokens` are refilled.
    fn time(&self, tokens: u32) -> Duration {
        self.refill * tokens / self.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Spends single tokens as soon as the bucket allows it, and returns the times.
    fn spend_eagerly(bucket: &mut TokenBucket, begin: Instant, count: usize) -> Vec<Duration> {
        let mut now = begin;
        let mut times = Vec::new();
        for _ in 0..count {
            now = bucket.not_before().map_or(now, |at| now.max(at));
            assert!(bucket.allows(now));
            bucket.spend(now, 1);
            times.push(now - begin);
        }
        times
    }

    #[test]
    fn a_full_bucket_allows_its_burst_and_then_the_steady_rate() {
        let begin = Instant::now();
        let mut bucket = TokenBucket::new(3, 30 * MS);
        let times = spend_eagerly(&mut bucket, begin, 6);
        assert_eq!(times, [0, 0, 0, 10, 20, 30].map(|n| n * MS));
    }

    #[test]
    fn a_quiet_time_earns_one_burst_and_no_more() {
        let mut bucket = TokenBucket::new(3, 30 * MS);
        let begin = Instant::now();
        spend_eagerly(&mut bucket, begin, 5);
        let later = begin + Duration::from_secs(3600);
        let times = spend_eagerly(&mut bucket, later, 5);
        assert_eq!(times, [0, 0, 0, 10, 20].map(|n| n * MS));
    }

    #[test]
    fn overspent_tokens_are_refilled_first() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(10, 100 * MS);
        bucket.spend(now, 9);
        assert_eq!(bucket.not_before(), None, "one is left");
        bucket.spend(now, 5);
        assert_eq!(bucket.not_before(), Some(now + 50 * MS));
        bucket.spend(now, 1);
        assert_eq!(bucket.not_before(), Some(now + 60 * MS), "while closed");
    }

    #[test]
    fn an_empty_bucket_opens_with_the_configured_tokens() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(10, 100 * MS).resume_with(10);
        bucket.spend(now, 10);
        assert!(!bucket.allows(now + 99 * MS) && bucket.allows(now + 100 * MS));
        bucket.spend(now + 100 * MS, 9);
        assert!(bucket.allows(now + 100 * MS), "one is left");
    }

    #[test]
    fn it_is_below_half_before_it_is_empty() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(10, 100 * MS);
        bucket.spend(now, 5);
        assert!(!bucket.is_below_half(now));
        bucket.spend(now, 1);
        assert!(bucket.is_below_half(now) && bucket.allows(now));
        assert!(!bucket.is_below_half(now + 10 * MS));
    }
}
