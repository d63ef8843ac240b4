//! The limits of `--check`. They are in `thresholds.json` next to the sources, each with its reason.

use std::fmt;

use anyhow::Context;
use serde::Deserialize;

use crate::cli::Check;
use crate::plan::{Observer, Op, Situation};
use crate::report::Row;
use crate::stats;

/// The content of the file at build time.
const FILE: &str = include_str!("../thresholds.json");

/// All limits.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Thresholds {
    /// Maximum number of missed trials in a row of the table.
    missed: usize,
    limits: Vec<Limit>,
}

/// Limits for the named rows. Rows that were not measured are skipped.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    #[serde(rename = "why")]
    _why: String,
    situations: Vec<Situation>,
    ops: Vec<Op>,
    observer: Observer,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    max_ms: Option<f64>,
    lists_per_s: Option<f64>,
    /// Limit of the p50 divided by the p50 of the floor.
    ratio: Option<f64>,
}

/// A limit that is exceeded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Excess {
    row: String,
    figure: &'static str,
    /// `None` if there is no such figure, because no trial was seen.
    value: Option<f64>,
    limit: f64,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            row, figure, limit, ..
        } = self;
        match self.value {
            Some(value) => write!(f, "{row}: {figure} is {value:.3}, limit {limit}"),
            None => write!(f, "{row}: {figure} is unknown, limit {limit}"),
        }
    }
}

impl Thresholds {
    /// Reads the file that is compiled in.
    pub(crate) fn load() -> anyhow::Result<Self> {
        serde_json::from_str(FILE).context("read thresholds.json")
    }

    /// Returns every limit that the rows exceed.
    pub(crate) fn exceeded(&self, rows: &[Row], check: Check) -> Vec<Excess> {
        let missed = rows
            .iter()
            .filter(|row| row.missed > self.missed)
            .map(|row| Excess {
                row: row.name(),
                figure: "missed",
                value: Some(row.missed as f64),
                limit: self.missed as f64,
            });
        let limits = self.limits.iter().flat_map(|limit| {
            let concerned = rows.iter().filter(|row| limit.concerns(row));
            concerned.flat_map(move |row| limit.exceeded(row, check))
        });
        missed.chain(limits).collect()
    }
}

impl Limit {
    fn concerns(&self, row: &Row) -> bool {
        self.situations.contains(&row.situation)
            && self.ops.contains(&row.op)
            && self.observer == row.observer
    }

    fn exceeded(&self, row: &Row, check: Check) -> Vec<Excess> {
        let times = check == Check::All;
        let figures = [
            (
                "p50 (ms)",
                row.p50_ns.map(stats::milliseconds),
                self.p50_ms.filter(|_| times),
            ),
            (
                "p99 (ms)",
                row.p99_ns.map(stats::milliseconds),
                self.p99_ms.filter(|_| times),
            ),
            (
                "max (ms)",
                row.max_ns.map(stats::milliseconds),
                self.max_ms.filter(|_| times),
            ),
            (
                "lists per second",
                row.lists_per_s,
                self.lists_per_s.filter(|_| times),
            ),
            ("p50 to floor", row.ratio, self.ratio),
        ];
        figures
            .into_iter()
            .filter_map(|(figure, value, limit)| Some((figure, value, limit?)))
            // A missing figure counts as exceeded.
            .filter(|(_, value, limit)| value.is_none_or(|value| value > *limit))
            .map(|(figure, value, limit)| Excess {
                row: row.name(),
                figure,
                value,
                limit,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::rows;
    use crate::stats::Samples;

    fn samples(values: &[Option<i64>]) -> Samples {
        let mut samples = Samples::default();
        for value in values {
            samples.push(*value, usize::from(value.is_none()));
        }
        samples
    }

    /// Returns the rows of `present`, add: floor, watcher and client with the given times.
    fn present_add(floor: Option<i64>, watcher: Option<i64>, client: Option<i64>) -> Vec<Row> {
        let observers = [
            (Observer::Floor, floor),
            (Observer::Watcher, watcher),
            (Observer::Client, client),
        ];
        rows(
            &observers
                .map(|(observer, time)| (Situation::Present, Op::Add, observer, samples(&[time]))),
        )
    }

    fn exceeded(rows: &[Row], check: Check) -> Vec<String> {
        let thresholds = Thresholds::load().unwrap();
        let exceeded = thresholds.exceeded(rows, check);
        exceeded.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_file_limits_every_promised_row() {
        let thresholds = Thresholds::load().unwrap();
        assert_eq!(thresholds.missed, 0);
        let p50 = |limit: &Limit| limit.p50_ms.filter(|_| limit.observer == Observer::Client);
        for situation in Situation::ALL {
            let of = |limit: &&Limit| limit.situations.contains(&situation);
            let (p50, max): (Vec<_>, Vec<_>) = thresholds
                .limits
                .iter()
                .filter(of)
                .map(|limit| (p50(limit), limit.max_ms))
                .unzip();
            let figures: Vec<_> = p50.into_iter().chain(max).flatten().collect();
            let expected: &[f64] = match situation {
                // For containers only the maximum has a limit.
                Situation::Iproute2 | Situation::Docker | Situation::Podman => &[],
                Situation::Others1000 => &[6.0],
                Situation::Silent | Situation::Unannounced => &[1200.0],
                Situation::Process => &[10.0],
                Situation::Moved => &[75.0],
                Situation::Burst1000 => &[500.0],
                Situation::Sequence => &[3.0],
                _ => &[2.0],
            };
            assert_eq!(figures, expected, "{situation}");
        }
    }

    #[test]
    fn bursts_have_limits_of_their_own() {
        let mut burst = samples(&[Some(501_000_000), Some(20_000_000)]);
        let arrivals: Vec<_> = (0..20).map(|n| n * 200_000_000 / 19).collect();
        burst.push_lists(&arrivals);
        let row = |samples| rows(&[(Situation::Burst1000, Op::Del, Observer::Client, samples)]);
        assert_eq!(
            exceeded(&row(burst), Check::All),
            [
                "burst1000, del → list: max (ms) is 501.000, limit 500",
                "burst1000, del → list: lists per second is 50.000, limit 40",
            ]
        );
        let mut missing = Samples::default();
        missing.push(None, 2);
        assert_eq!(
            exceeded(&row(missing), Check::Ratios),
            ["burst1000, del → list: missed is 2.000, limit 0"]
        );
    }

    #[test]
    fn limits_that_are_kept_are_not_reported() {
        let rows = present_add(Some(80_000), Some(150_000), Some(900_000));
        assert!(exceeded(&rows, Check::All).is_empty());
    }

    #[test]
    fn exceeded_limits_are_reported() {
        let rows = present_add(Some(200_000), Some(310_000), Some(16_000_000));
        assert_eq!(
            exceeded(&rows, Check::All),
            [
                "present, add → watcher: p50 (ms) is 0.310, limit 0.3",
                "present, add → list: p50 (ms) is 16.000, limit 2",
                "present, add → list: p99 (ms) is 16.000, limit 15",
                "present, add → list: p50 to floor is 80.000, limit 40",
            ]
        );
    }

    #[test]
    fn ratios_ignore_times() {
        let rows = present_add(Some(20_000_000), Some(59_000_000), Some(90_000_000));
        assert!(exceeded(&rows, Check::Ratios).is_empty());
        let rows = present_add(Some(20_000), Some(61_000), Some(90_000));
        assert_eq!(
            exceeded(&rows, Check::Ratios),
            ["present, add → watcher: p50 to floor is 3.050, limit 3"]
        );
    }

    #[test]
    fn a_row_without_samples_exceeds_its_limits() {
        let rows = present_add(Some(80_000), None, Some(900_000));
        let exceeded = exceeded(&rows, Check::Ratios);
        assert_eq!(
            exceeded,
            [
                "present, add → watcher: missed is 1.000, limit 0",
                "present, add → watcher: p50 to floor is unknown, limit 3",
            ]
        );
    }
}
