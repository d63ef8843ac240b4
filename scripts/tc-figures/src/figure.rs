//! A figure: a name, a unit, and the exact samples. Only a few thousand are kept, so they are not rounded.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::part::Part;

/// The unit of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "%")]
    Percent,
    #[serde(rename = "Mbit/s")]
    MegabitsPerSecond,
    /// A ratio to another figure.
    #[serde(rename = "×")]
    Times,
    /// Standard deviations from the expected value.
    #[serde(rename = "σ")]
    Deviations,
    #[serde(rename = "")]
    Count,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Milliseconds => "ms",
            Self::Percent => "%",
            Self::MegabitsPerSecond => "Mbit/s",
            Self::Times => "×",
            Self::Deviations => "σ",
            Self::Count => "",
        })
    }
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Set when the figure is reported.
    pub(crate) part: Option<Part>,
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) samples: Vec<f64>,
    /// A remark, for example why there are no samples.
    pub(crate) note: Option<String>,
}

/// The values that are shown and compared with limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Figure {
    /// Creates a figure with several samples.
    pub(crate) fn new(name: impl Into<String>, unit: Unit, samples: Vec<f64>) -> Self {
        Self {
            part: None,
            name: name.into(),
            unit,
            samples,
            note: None,
        }
    }

    /// Creates a figure with one value.
    pub(crate) fn value(name: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self::new(name, unit, vec![value])
    }

    /// Creates a figure from times.
    pub(crate) fn times(name: impl Into<String>, times: &[Duration]) -> Self {
        let samples = times.iter().copied().map(milliseconds).collect();
        Self::new(name, Unit::Milliseconds, samples)
    }

    /// Creates a figure that could not be measured.
    pub(crate) fn missing(name: impl Into<String>, unit: Unit, why: impl Into<String>) -> Self {
        Self {
            note: Some(why.into()),
            ..Self::new(name, unit, Vec::new())
        }
    }

    /// Adds a remark.
    pub(crate) fn noted(self, note: impl Into<String>) -> Self {
        Self {
            note: Some(note.into()),
            ..self
        }
    }

    /// Returns the summary. `None` if there is no sample.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        Some(Summary {
            p50: percentile(&sorted, 50)?,
            p90: percentile(&sorted, 90)?,
            p99: percentile(&sorted, 99)?,
            max: *sorted.last()?,
        })
    }
}

/// Returns the smallest sample that this percentage of them does not exceed.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Returns the median of times in ms.
pub(crate) fn median(times: &[Duration]) -> f64 {
    let figure = Figure::times("", times);
    figure.summary().map_or(f64::NAN, |it| it.p50)
}

/// Converts a time to ms, for display and ratios.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples = (1..=200).rev().map(f64::from).collect();
        let summary = Figure::new("x", Unit::Count, samples).summary().unwrap();
        let expected = Summary {
            p50: 100.0,
            p90: 180.0,
            p99: 198.0,
            max: 200.0,
        };
        assert_eq!(summary, expected);
    }

    #[test]
    fn one_value_is_every_percentile() {
        let summary = Figure::value("x", Unit::Times, -7.0).summary().unwrap();
        assert_eq!((summary.p50, summary.max), (-7.0, -7.0));
        assert_eq!(Figure::missing("x", Unit::Times, "why").summary(), None);
    }

    #[test]
    fn messages_are_parsed_as_they_were_written() {
        let figure = Figure::times("a \"b\"", &[Duration::from_micros(1500)]).noted("c\nd");
        let line = serde_json::to_string(&figure).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert!(line.contains("1.5") && line.contains("\"ms\""), "{line}");
        assert_eq!(serde_json::from_str::<Figure>(&line).unwrap(), figure);
    }
}
