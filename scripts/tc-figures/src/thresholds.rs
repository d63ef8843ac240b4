//! The limits of `--check`. They are in `thresholds.json` next to the sources, each with its reason.

use std::fmt;

use anyhow::Context;
use serde::Deserialize;

use crate::cli::Check;
use crate::figure::{Figure, Summary};
use crate::part::Part;

/// The content of the file at build time.
const FILE: &str = include_str!("../thresholds.json");

/// All limits.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Thresholds {
    limits: Vec<Limit>,
}

/// The value that is compared with the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Statistic {
    P50,
    P99,
    Max,
}

impl Statistic {
    fn of(self, summary: Summary) -> f64 {
        match self {
            Self::P50 => summary.p50,
            Self::P99 => summary.p99,
            Self::Max => summary.max,
        }
    }
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Max => "max",
        })
    }
}

/// A limit of the named figures. A named figure that is missing in a measured part counts as exceeded.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    #[serde(rename = "why")]
    _why: String,
    part: Part,
    figures: Vec<String>,
    statistic: Statistic,
    at_least: Option<f64>,
    at_most: Option<f64>,
    /// Whether it also holds on a busy machine.
    steady: bool,
}

/// A limit that is exceeded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Excess {
    figure: String,
    value: Option<f64>,
    limit: String,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { figure, limit, .. } = self;
        match self.value {
            Some(value) => write!(f, "{figure}: {value:.3}, not {limit}"),
            None => write!(f, "{figure}: unknown, not {limit}"),
        }
    }
}

impl Thresholds {
    /// Reads the file that is compiled in.
    pub(crate) fn load() -> anyhow::Result<Self> {
        serde_json::from_str(FILE).context("read thresholds.json")
    }

    /// Returns every limit of the measured parts that is exceeded.
    pub(crate) fn exceeded(
        &self,
        figures: &[Figure],
        measured: &[Part],
        check: Check,
    ) -> Vec<Excess> {
        let looked_at = |limit: &&Limit| {
            measured.contains(&limit.part) && (check == Check::All || limit.steady)
        };
        let limits = self.limits.iter().filter(looked_at);
        let exceeded = limits.flat_map(|limit| {
            limit.figures.iter().filter_map(|name| {
                let of = |it: &&Figure| it.part == Some(limit.part) && it.name == *name;
                let value = limit.value(figures.iter().find(of));
                (!limit.holds(value)).then(|| Excess {
                    figure: format!("{}, {name}", limit.part),
                    value,
                    limit: limit.to_string(),
                })
            })
        });
        exceeded.collect()
    }

    /// Returns whether a figure keeps its limits.
    pub(crate) fn hold(&self, figure: &Figure) -> bool {
        let of = |limit: &&Limit| {
            Some(limit.part) == figure.part && limit.figures.contains(&figure.name)
        };
        let mut limits = self.limits.iter().filter(of);
        limits.all(|limit| limit.holds(limit.value(Some(figure))))
    }

    /// Returns the limits of a figure, and whether they are kept.
    pub(crate) fn verdict(&self, figure: &Figure) -> String {
        let of = |limit: &&Limit| {
            Some(limit.part) == figure.part && limit.figures.contains(&figure.name)
        };
        let verdict = |limit: &Limit| {
            let mark = if limit.holds(limit.value(Some(figure))) {
                ""
            } else {
                " EXCEEDED"
            };
            format!("{limit}{mark}")
        };
        let verdicts: Vec<_> = self.limits.iter().filter(of).map(verdict).collect();
        verdicts.join(", ")
    }
}

impl Limit {
    fn value(&self, figure: Option<&Figure>) -> Option<f64> {
        Some(self.statistic.of(figure?.summary()?))
    }

    fn holds(&self, value: Option<f64>) -> bool {
        // A comparison with NaN is false.
        value.is_some_and(|value| {
            self.at_least.is_none_or(|least| value >= least)
                && self.at_most.is_none_or(|most| value <= most)
        })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statistic = self.statistic;
        match (self.at_least, self.at_most) {
            (Some(least), Some(most)) => write!(f, "{statistic} {least} … {most}"),
            (Some(least), None) => write!(f, "{statistic} ≥ {least}"),
            (None, Some(most)) => write!(f, "{statistic} ≤ {most}"),
            (None, None) => write!(f, "{statistic} of any value"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Unit;

    fn thresholds() -> Thresholds {
        let limits = r#"{"limits": [
            {"why": "a", "part": "apply", "figures": ["x", "y"], "statistic": "p99", "at_most": 2, "steady": false},
            {"why": "b", "part": "apply", "figures": ["y"], "statistic": "p50", "at_least": 1, "at_most": 3, "steady": true}
        ]}"#;
        serde_json::from_str(limits).unwrap()
    }

    fn figure(name: &str, samples: &[f64]) -> Figure {
        Figure {
            part: Some(Part::Apply),
            ..Figure::new(name, Unit::Milliseconds, samples.to_vec())
        }
    }

    fn exceeded(figures: &[Figure], measured: &[Part], check: Check) -> Vec<String> {
        let exceeded = thresholds().exceeded(figures, measured, check);
        exceeded.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_file_can_be_read() {
        let thresholds = Thresholds::load().unwrap();
        for part in Part::ALL {
            assert!(
                thresholds.limits.iter().any(|limit| limit.part == part),
                "{part} has no limit"
            );
        }
        for limit in &thresholds.limits {
            assert!(
                limit.at_least.or(limit.at_most).is_some(),
                "{limit:?} limits nothing"
            );
        }
    }

    #[test]
    fn exceeded_limits_are_reported() {
        let figures = [figure("x", &[1.0]), figure("y", &[0.5, 9.0])];
        assert_eq!(
            exceeded(&figures, &[Part::Apply], Check::All),
            [
                "apply, y: 9.000, not p99 ≤ 2",
                "apply, y: 0.500, not p50 1 … 3"
            ]
        );
        assert_eq!(
            exceeded(&figures, &[Part::Apply], Check::Steady),
            ["apply, y: 0.500, not p50 1 … 3"]
        );
    }

    #[test]
    fn a_missing_figure_exceeds_its_limit() {
        let figures = [figure("x", &[]), figure("y", &[2.0])];
        assert_eq!(
            exceeded(&figures, &[Part::Apply], Check::All),
            ["apply, x: unknown, not p99 ≤ 2"]
        );
        assert!(exceeded(&[], &[Part::Burst], Check::All).is_empty());
        assert_eq!(exceeded(&[], &[Part::Apply], Check::Steady).len(), 1);
    }

    #[test]
    fn the_verdict_names_every_limit() {
        let verdict = thresholds().verdict(&figure("y", &[4.0]));
        assert_eq!(verdict, "p99 ≤ 2 EXCEEDED, p50 1 … 3 EXCEEDED");
        assert_eq!(thresholds().verdict(&figure("z", &[4.0])), "");
    }
}
