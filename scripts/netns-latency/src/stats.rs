//! Percentiles of exact samples. Only a few hundred are kept, so they are not rounded.

use std::time::Duration;

/// Number of lists that the daemon may publish immediately after a quiet time. It delays further lists.
const LISTS_AT_ONCE: usize = 10;

/// The samples of one observer for one operation in one situation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Samples {
    /// Times in ns from time zero to the sight, in the order of the trials.
    seen: Vec<i64>,
    missed: usize,
    /// For bursts: lists per second, without those that may be published immediately.
    rates: Vec<f64>,
}

/// The figures of a row, in ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) p50: i64,
    pub(crate) p90: i64,
    pub(crate) p99: i64,
    pub(crate) max: i64,
}

impl Samples {
    /// Adds the result of a trial: its time, unless something was missed, and the number of missed things.
    pub(crate) fn push(&mut self, took_ns: Option<i64>, missed: usize) {
        self.seen.extend(took_ns);
        self.missed += missed;
    }

    /// Adds the arrivals of lists during a burst, in ns and in ascending order.
    pub(crate) fn push_lists(&mut self, arrivals: &[u64]) {
        self.rates.extend(rate(arrivals));
    }

    /// Returns the maximum number of lists per second in a burst.
    pub(crate) fn lists_per_s(&self) -> Option<f64> {
        self.rates.iter().copied().reduce(f64::max)
    }

    /// Returns the samples in the order of the trials.
    pub(crate) fn seen(&self) -> &[i64] {
        &self.seen
    }

    /// Returns the number of things that were not seen.
    pub(crate) fn missed(&self) -> usize {
        self.missed
    }

    /// Returns the figures. `None` if there is no sample.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.seen.clone();
        sorted.sort_unstable();
        Some(Summary {
            p50: percentile(&sorted, 50)?,
            p90: percentile(&sorted, 90)?,
            p99: percentile(&sorted, 99)?,
            max: *sorted.last()?,
        })
    }
}

/// Returns the smallest sample that this percentage of them does not exceed.
fn percentile(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Returns the lists per second beyond [`LISTS_AT_ONCE`]. `None` for fewer than two arrivals.
fn rate(arrivals: &[u64]) -> Option<f64> {
    let [first, .., last] = arrivals else {
        return None;
    };
    let seconds = Duration::from_nanos(last.saturating_sub(*first)).as_secs_f64();
    let spaced = u32::try_from(arrivals.len().saturating_sub(LISTS_AT_ONCE)).ok()?;
    (seconds > 0.0).then(|| f64::from(spaced) / seconds)
}

/// Returns a time divided by the floor.
///
/// A negative time counts as zero. `None` if the floor is not positive.
pub(crate) fn ratio(p50_ns: i64, floor_ns: i64) -> Option<f64> {
    (floor_ns > 0).then(|| p50_ns.max(0) as f64 / floor_ns as f64)
}

/// Converts ns to ms for display. A run is far shorter than the 104 days of ns that an `f64` represents exactly.
pub(crate) fn milliseconds(ns: i64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: impl IntoIterator<Item = i64>) -> Samples {
        let mut samples = Samples::default();
        for value in values {
            samples.push(Some(value), 0);
        }
        samples
    }

    #[test]
    fn percentiles_are_samples() {
        let summary = samples((1..=200).rev()).summary().unwrap();
        assert_eq!(
            summary,
            Summary {
                p50: 100,
                p90: 180,
                p99: 198,
                max: 200
            }
        );
    }

    #[test]
    fn one_sample_is_every_percentile() {
        let summary = samples([-7]).summary().unwrap();
        assert_eq!((summary.p50, summary.p99, summary.max), (-7, -7, -7));
    }

    #[test]
    fn misses_are_counted_and_not_averaged() {
        let mut samples = samples([5, 1]);
        samples.push(None, 3);
        assert_eq!(samples.missed(), 3);
        assert_eq!(samples.seen(), [5, 1]);
        assert_eq!(samples.summary().unwrap().max, 5);
        assert_eq!(Samples::default().summary(), None);
    }

    #[test]
    fn delayed_lists_are_counted_over_the_time_of_the_burst() {
        let ms = |ms: u64| ms * 1_000_000;
        let mut samples = Samples::default();
        samples.push_lists(&[ms(7)]);
        assert_eq!(samples.lists_per_s(), None);
        samples.push_lists(&[ms(5), ms(30)]);
        assert_eq!(samples.lists_per_s(), Some(0.0), "they may follow at once");
        // Ten lists immediately, then one every 25 ms.
        let paced: Vec<_> = (0..10)
            .map(|_| ms(5))
            .chain((1..=8).map(|n| ms(5 + 25 * n)))
            .collect();
        samples.push_lists(&paced);
        assert_eq!(samples.lists_per_s(), Some(40.0));
        samples.push_lists(&[ms(5), ms(105)]);
        assert_eq!(samples.lists_per_s(), Some(40.0), "the most of all bursts");
    }

    #[test]
    fn ratio_needs_a_floor() {
        assert_eq!(ratio(300, 100), Some(3.0));
        assert_eq!(ratio(-300, 100), Some(0.0));
        assert_eq!(ratio(300, 0), None);
        assert_eq!(ratio(300, -5), None);
    }
}
