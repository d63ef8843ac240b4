//! Percentiles of exact samples. A few hundred are kept, so nothing is rounded.

use std::time::Duration;

/// How many lists the daemon may publish at once after a quiet time. It spaces the others.
const LISTS_AT_ONCE: usize = 10;

/// What an observer saw of one operation in one situation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Samples {
    /// From time zero to the sight, in ns, in the order of the trials.
    seen: Vec<i64>,
    missed: usize,
    /// Of a burst: how many lists arrived in a second, without those that may follow at once.
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
    /// Adds the result of a trial: how long it took, unless something was missed, and how much was.
    pub(crate) fn push(&mut self, took_ns: Option<i64>, missed: usize) {
        self.seen.extend(took_ns);
        self.missed += missed;
    }

    /// Adds when lists arrived during a burst, in ns and in their order.
    pub(crate) fn push_lists(&mut self, arrivals: &[u64]) {
        self.rates.extend(rate(arrivals));
    }

    /// The most lists in a second that a burst caused.
    pub(crate) fn lists_per_s(&self) -> Option<f64> {
        self.rates.iter().copied().reduce(f64::max)
    }

    /// The samples in the order of the trials.
    pub(crate) fn seen(&self) -> &[i64] {
        &self.seen
    }

    /// How many things were not seen.
    pub(crate) fn missed(&self) -> usize {
        self.missed
    }

    /// The figures; none without a sample.
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

/// The smallest sample that this share of them (in percent) does not exceed.
fn percentile(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// How many there are in a second beyond [`LISTS_AT_ONCE`]; none for fewer than two arrivals.
fn rate(arrivals: &[u64]) -> Option<f64> {
    let [first, .., last] = arrivals else {
        return None;
    };
    let seconds = Duration::from_nanos(last.saturating_sub(*first)).as_secs_f64();
    let spaced = u32::try_from(arrivals.len().saturating_sub(LISTS_AT_ONCE)).ok()?;
    (seconds > 0.0).then(|| f64::from(spaced) / seconds)
}

/// How many times the floor a time is.
///
/// What was known before time zero took no time. Without a time of the floor's there is no ratio.
pub(crate) fn ratio(p50_ns: i64, floor_ns: i64) -> Option<f64> {
    (floor_ns > 0).then(|| p50_ns.max(0) as f64 / floor_ns as f64)
}

/// For people; a run is far shorter than the 104 days that a `f64` holds exactly.
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
    fn spaced_lists_are_counted_over_the_time_of_the_burst() {
        let ms = |ms: u64| ms * 1_000_000;
        let mut samples = Samples::default();
        samples.push_lists(&[ms(7)]);
        assert_eq!(samples.lists_per_s(), None);
        samples.push_lists(&[ms(5), ms(30)]);
        assert_eq!(samples.lists_per_s(), Some(0.0), "they may follow at once");
        // Ten at once, and one every 25 ms.
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
