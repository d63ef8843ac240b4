//! The figures of a run: a table for people, and JSON for programs and later comparison.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tcgui_tests::machine::Machine;

use crate::figure::Figure;
use crate::thresholds::Thresholds;

/// The version of the JSON. It must change if the meaning of a member changes.
const SCHEMA: u32 = 1;

/// The figures of one run.
#[derive(Debug)]
pub(crate) struct Report {
    date_unix_s: u64,
    machine: Machine,
    trials: u32,
    optimised: bool,
    pub(crate) figures: Vec<Figure>,
}

/// The figures of an earlier run.
#[derive(Debug, Deserialize)]
pub(crate) struct Baseline {
    schema: u32,
    figures: Vec<Figure>,
}

impl Baseline {
    /// Reads a file of `--json`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let baseline: Self = serde_json::from_str(&text)
            .with_context(|| format!("understand {}", path.display()))?;
        let schema = baseline.schema;
        ensure!(
            schema == SCHEMA,
            "{} has schema {schema}, not {SCHEMA}",
            path.display()
        );
        Ok(baseline)
    }

    fn p50(&self, figure: &Figure) -> Option<f64> {
        let same = |it: &&Figure| it.part == figure.part && it.name == figure.name;
        Some(self.figures.iter().find(same)?.summary()?.p50)
    }
}

impl Report {
    /// Creates the report of a run.
    pub(crate) fn new(
        machine: Machine,
        trials: u32,
        optimised: bool,
        figures: Vec<Figure>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            date_unix_s: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            machine,
            trials,
            optimised,
            figures,
        })
    }

    /// Writes the JSON of the run.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.json()?)?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }

    fn json(&self) -> anyhow::Result<Value> {
        let figure = |figure: &Figure| {
            let mut value = serde_json::to_value(figure)?;
            let summary = figure.summary();
            value["n"] = json!(figure.samples.len());
            value["p50"] = json!(summary.map(|it| it.p50));
            value["p90"] = json!(summary.map(|it| it.p90));
            value["p99"] = json!(summary.map(|it| it.p99));
            value["max"] = json!(summary.map(|it| it.max));
            Ok(value)
        };
        let figures = self.figures.iter().map(figure);
        Ok(json!({
            "schema": SCHEMA,
            "date_unix_s": self.date_unix_s,
            "machine": self.machine,
            "trials": self.trials,
            "optimised": self.optimised,
            "figures": figures.collect::<anyhow::Result<Vec<_>>>()?,
        }))
    }

    /// Returns the table. With a baseline it also shows the earlier medians.
    pub(crate) fn table(&self, limits: &Thresholds, baseline: Option<&Baseline>) -> String {
        let build = if self.optimised {
            ""
        } else {
            "; NOT OPTIMISED"
        };
        let mut table = format!("{}{build}\n\n", self.machine);
        let before = if baseline.is_some() { "    before" } else { "" };
        let wide = self.figures.iter().map(|it| it.name.chars().count());
        let wide = wide.max().unwrap_or_default().max(6);
        let heading = format!(
            "{:<11} {:<wide$} {:>6} {:>5} {:>9}{before} {:>9} {:>9}  at most",
            "part", "figure", "unit", "n", "p50", "p99", "max"
        );
        table += heading.trim_end();
        table.push('\n');
        for figure in &self.figures {
            let line = line(figure, wide, limits, baseline);
            table += line.trim_end();
            table.push('\n');
        }
        table
    }
}

fn line(figure: &Figure, wide: usize, limits: &Thresholds, baseline: Option<&Baseline>) -> String {
    let part = figure.part.map_or("", |part| part.word());
    let Figure { name, unit, .. } = figure;
    let n = figure.samples.len();
    let mut line = format!("{part:<11} {name:<wide$} {unit:>6} {n:>5}");
    let summary = figure.summary();
    // Writing to a String cannot fail.
    write!(line, " {}", number(summary.map(|it| it.p50))).ok();
    if let Some(baseline) = baseline {
        write!(line, " {}", number(baseline.p50(figure))).ok();
    }
    let several = summary.filter(|_| n > 1);
    write!(
        line,
        " {} {}  {}",
        number_or_blank(several.map(|it| it.p99)),
        number_or_blank(several.map(|it| it.max)),
        limits.verdict(figure)
    )
    .ok();
    if let Some(note) = &figure.note {
        write!(line, "  ({note})").ok();
    }
    line
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| format!("{:>9}", "–"), |it| format!("{it:>9.3}"))
}

fn number_or_blank(value: Option<f64>) -> String {
    value.map_or_else(|| " ".repeat(9), |it| format!("{it:>9.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Unit;
    use crate::part::Part;

    fn report() -> Report {
        let of = |part, figure| Figure {
            part: Some(part),
            ..figure
        };
        let figures = vec![
            of(
                Part::Apply,
                Figure::new("x", Unit::Milliseconds, vec![1.0, 2.0, 3.0]),
            ),
            of(Part::Burst, Figure::value("replaces", Unit::Count, 4.0)),
            of(
                Part::Diagnostics,
                Figure::missing("late", Unit::Milliseconds, "refused"),
            ),
        ];
        Report::new(Machine::read().unwrap(), 3, true, figures).unwrap()
    }

    #[test]
    fn the_table_has_a_line_for_each_figure() {
        let none = Thresholds::default();
        let table = report().table(&none, None);
        let lines: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "part        figure     unit     n       p50       p99       max  at most",
                "apply       x            ms     3     2.000     3.000     3.000",
                "burst       replaces            1     4.000",
                "diagnostics late         ms     0         –                        (refused)",
            ]
        );
    }

    #[test]
    fn the_table_shows_the_medians_of_the_baseline() {
        let json = report().json().unwrap();
        assert_eq!(json["figures"][0]["p50"], 2.0);
        assert_eq!(json["figures"][1]["part"], "burst");
        let baseline: Baseline = serde_json::from_value(json).unwrap();
        let table = report().table(&Thresholds::default(), Some(&baseline));
        let line = table.lines().nth(3).unwrap();
        assert!(line.contains("2.000     2.000     3.000"), "{table}");
    }
}
