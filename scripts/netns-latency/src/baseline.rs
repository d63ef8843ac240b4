//! Compares a run with an earlier one row by row, and lists the differences that make them incomparable.

use std::fmt;

use crate::report::{Report, Row, number};
use crate::stats;

/// The comparison of two runs.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// The date of the earlier run.
    date: String,
    rows: Vec<Compared>,
    /// Differences of the conditions, and rows that only one run has.
    notes: Vec<String>,
}

/// A row of both runs, in milliseconds: earlier, now.
#[derive(Debug, Clone, PartialEq)]
struct Compared {
    name: String,
    p50: [Option<f64>; 2],
    p99: [Option<f64>; 2],
}

impl Comparison {
    /// Compares a run with an earlier one.
    pub(crate) fn new(then: &Report, now: &Report) -> Self {
        let same = |row: &Row, of: &Report| of.row(row.situation, row.op, row.observer).is_some();
        let mut notes = differences(then, now);
        for (when, rows, other) in [("then", &then.rows, now), ("now", &now.rows, then)] {
            let only = rows.iter().filter(|row| !same(row, other));
            notes.extend(only.map(|row| format!("measured only {when}: {}", row.name())));
        }
        let compared = now.rows.iter().filter_map(|row| {
            let earlier = then.row(row.situation, row.op, row.observer)?;
            Some(compare(earlier, row))
        });
        Self {
            date: then.date(),
            rows: compared.collect(),
            notes,
        }
    }
}

fn compare(then: &Row, now: &Row) -> Compared {
    let both = |figure: fn(&Row) -> Option<i64>| {
        [then, now].map(|row| figure(row).map(stats::milliseconds))
    };
    Compared {
        name: now.name(),
        p50: both(|row| row.p50_ns),
        p99: both(|row| row.p99_ns),
    }
}

/// Returns the differences of the conditions on which figures depend.
fn differences(then: &Report, now: &Report) -> Vec<String> {
    let cpu = |of: &Report| {
        of.machine
            .cpu
            .clone()
            .unwrap_or_else(|| "unknown".to_owned())
    };
    let load = |of: &Report| {
        of.machine
            .load
            .clone()
            .unwrap_or_else(|| "unknown".to_owned())
    };
    let kernel = |of: &Report| of.machine.kernel.clone();
    let differ = [
        ("the kernel", kernel(then), kernel(now)),
        ("the processor", cpu(then), cpu(now)),
        (
            "the number of processors",
            then.machine.cpus.to_string(),
            now.machine.cpus.to_string(),
        ),
        ("the load at the start", load(then), load(now)),
        (
            "--trials",
            then.options.trials.to_string(),
            now.options.trials.to_string(),
        ),
        (
            "how many are a thousand",
            then.options.many.to_string(),
            now.options.many.to_string(),
        ),
    ];
    let differ = differ.into_iter().filter(|(_, then, now)| then != now);
    differ
        .map(|(what, then, now)| format!("differs: {what}: {then} then, {now} now"))
        .collect()
}

/// Returns the new value divided by the earlier one. `None` if a value is missing or not positive.
fn ratio([then, now]: [Option<f64>; 2]) -> Option<f64> {
    let (then, now) = then.zip(now)?;
    (then > 0.0 && now > 0.0).then(|| now / then)
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, rows, notes } = self;
        writeln!(
            f,
            "Compared with a run of {date}; milliseconds, ratio = now / then\n"
        )?;
        writeln!(
            f,
            "{:<30}  p50 then      now  ratio  p99 then      now  ratio",
            "measure"
        )?;
        for row in rows {
            write!(f, "{:<30}", row.name)?;
            for figures in [row.p50, row.p99] {
                let [then, now] = figures.map(|it| number(it, 3));
                let ratio = number(ratio(figures), 2);
                write!(f, "  {then:>8} {now:>8} {ratio:>6}")?;
            }
            writeln!(f)?;
        }
        if !notes.is_empty() {
            writeln!(f)?;
        }
        notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Observer, Op, Situation};
    use crate::report::tests::report_of;

    const PRESENT: (Situation, Op, Observer) = (Situation::Present, Op::Add, Observer::Client);
    const IPROUTE2: (Situation, Op, Observer) = (Situation::Iproute2, Op::Add, Observer::Client);

    #[test]
    fn rows_of_both_runs_are_compared() {
        let then = report_of(&[(PRESENT, &[1_000_000]), (IPROUTE2, &[-200_000])]);
        let now = report_of(&[(PRESENT, &[1_500_000]), (IPROUTE2, &[-100_000])]);
        let text = Comparison::new(&then, &now).to_string();
        let lines: Vec<_> = text.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "present, add → list                1.000    1.500   1.50     1.000    1.500   1.50",
                "iproute2, add → list              -0.200   -0.100      –    -0.200   -0.100      –",
            ]
        );
        let widths: Vec<_> = text.lines().skip(2).map(|it| it.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn rows_of_only_one_run_are_reported() {
        let then = report_of(&[(PRESENT, &[1])]);
        let now = report_of(&[(IPROUTE2, &[1])]);
        let comparison = Comparison::new(&then, &now);
        assert_eq!(comparison.rows, []);
        assert_eq!(
            comparison.notes,
            [
                "measured only then: present, add → list",
                "measured only now: iproute2, add → list",
            ]
        );
    }

    #[test]
    fn another_machine_and_other_options_are_reported() {
        let mut then = report_of(&[(PRESENT, &[1])]);
        let now = report_of(&[(PRESENT, &[1])]);
        assert!(differences(&now, &now).is_empty());
        then.machine.load.clone_from(&now.machine.load);
        then.machine.kernel = "5.10.0".to_owned();
        then.options.trials = 7;
        let notes = differences(&then, &now);
        let kernel = &now.machine.kernel;
        let trials = now.options.trials;
        assert_eq!(
            notes,
            [
                format!("differs: the kernel: 5.10.0 then, {kernel} now"),
                format!("differs: --trials: 7 then, {trials} now"),
            ]
        );
    }

    #[test]
    fn a_row_without_samples_has_no_ratio() {
        assert_eq!(ratio([None, Some(1.0)]), None);
        assert_eq!(ratio([Some(2.0), Some(1.0)]), Some(0.5));
        assert_eq!(ratio([Some(0.0), Some(1.0)]), None);
    }
}
