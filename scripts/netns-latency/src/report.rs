//! The figures of a run: rows, a table for people, and JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tcgui_tests::machine::Machine;

use crate::plan::{Observer, Op, Situation};
use crate::stats::{self, Samples};

/// The version of the JSON. It must change if the meaning of a member changes.
const SCHEMA: u32 = 1;

/// The samples of one operation in one situation by one observer.
pub(crate) type Measured = (Situation, Op, Observer, Samples);

/// A run. `--help` describes its JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    schema: u32,
    date_unix_s: u64,
    pub(crate) machine: Machine,
    pub(crate) options: RunOptions,
    pub(crate) rows: Vec<Row>,
}

/// The options of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunOptions {
    pub(crate) trials: u32,
    pub(crate) situations: Vec<Situation>,
    /// The number of namespaces that stands for a thousand. Only the tests of this program use fewer.
    #[serde(default = "thousand")]
    pub(crate) many: u32,
    /// The arguments of the program.
    #[serde(default)]
    pub(crate) command: String,
}

/// The value for files without [`RunOptions::many`].
fn thousand() -> u32 {
    1000
}

/// A line of the table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) situation: Situation,
    pub(crate) op: Op,
    pub(crate) observer: Observer,
    pub(crate) n: usize,
    pub(crate) missed: usize,
    pub(crate) p50_ns: Option<i64>,
    pub(crate) p90_ns: Option<i64>,
    pub(crate) p99_ns: Option<i64>,
    pub(crate) max_ns: Option<i64>,
    pub(crate) ratio: Option<f64>,
    #[serde(default)]
    pub(crate) lists_per_s: Option<f64>,
    pub(crate) samples_ns: Vec<i64>,
}

impl Row {
    /// Returns the name of the row for messages.
    pub(crate) fn name(&self) -> String {
        format!("{}, {} → {}", self.situation, self.op, self.observer)
    }
}

/// Creates rows from samples. The ratio refers to the floor of the same situation and operation.
pub(crate) fn rows(measured: &[Measured]) -> Vec<Row> {
    let floor_of = |situation: &Situation, op: &Op| {
        let floor = measured
            .iter()
            .find(|it| it.0 == *situation && it.1 == *op && it.2 == Observer::Floor)?;
        Some(floor.3.summary()?.p50)
    };
    let row = |(situation, op, observer, samples): &Measured| {
        let summary = samples.summary();
        let floor = floor_of(situation, op);
        Row {
            situation: *situation,
            op: *op,
            observer: *observer,
            n: samples.seen().len(),
            missed: samples.missed(),
            p50_ns: summary.map(|it| it.p50),
            p90_ns: summary.map(|it| it.p90),
            p99_ns: summary.map(|it| it.p99),
            max_ns: summary.map(|it| it.max),
            ratio: summary
                .zip(floor)
                .and_then(|(it, floor)| stats::ratio(it.p50, floor)),
            lists_per_s: samples.lists_per_s(),
            samples_ns: samples.seen().to_vec(),
        }
    };
    measured.iter().map(row).collect()
}

impl Report {
    /// Creates the report of a run.
    pub(crate) fn new(
        machine: Machine,
        options: RunOptions,
        measured: &[Measured],
    ) -> anyhow::Result<Self> {
        Ok(Self {
            schema: SCHEMA,
            date_unix_s: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            machine,
            options,
            rows: rows(measured),
        })
    }

    /// Writes the JSON of the run.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }

    /// Reads the JSON of an earlier run.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("read {name}"))?;
        Self::parse(&text).with_context(|| format!("read {name}, as --json writes it"))
    }

    /// Refuses another schema, because its members may have another meaning.
    fn parse(text: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Stamp {
            schema: u32,
        }
        let Stamp { schema } = serde_json::from_str(text)?;
        ensure!(
            schema == SCHEMA,
            "its schema is {schema}, this program knows {SCHEMA}: measure again, or use its program"
        );
        Ok(serde_json::from_str(text)?)
    }

    /// The day of the run (UTC), such as `2026-11-24`.
    pub(crate) fn date(&self) -> String {
        let end = UNIX_EPOCH + Duration::from_secs(self.date_unix_s);
        let mut date = humantime::format_rfc3339_seconds(end).to_string();
        date.truncate("2026-11-24".len());
        date
    }

    /// A row of the run.
    pub(crate) fn row(&self, situation: Situation, op: Op, observer: Observer) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| (row.situation, row.op, row.observer) == (situation, op, observer))
    }

    /// Returns the table in milliseconds.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("{}; milliseconds\n\n", self.machine);
        table += "situation  measure                 n      p50      p90      p99      max  missed  ratio  lists/s\n";
        for row in &self.rows {
            let measure = format!("{} → {}", row.op, row.observer);
            write!(table, "{:<10} {measure:<19} {:>5}", row.situation, row.n).ok();
            for figure in [row.p50_ns, row.p90_ns, row.p99_ns, row.max_ns] {
                let figure = figure.map(stats::milliseconds);
                write!(table, " {:>8}", number(figure, 3)).ok();
            }
            let (ratio, lists) = (number(row.ratio, 1), number(row.lists_per_s, 1));
            writeln!(table, " {:>7} {ratio:>6} {lists:>8}", row.missed).ok();
        }
        table
    }
}

/// Formats a number with this many decimals, or a dash.
pub(crate) fn number(figure: Option<f64>, decimals: usize) -> String {
    figure.map_or_else(|| "–".to_owned(), |it| format!("{it:.decimals$}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    type Rows<'a> = &'a [((Situation, Op, Observer), &'a [i64])];

    /// A run of this machine with these samples.
    pub(crate) fn report_of(rows: Rows<'_>) -> Report {
        let measured = |((situation, op, observer), values): &((_, _, _), &[i64])| {
            let mut samples = Samples::default();
            for value in *values {
                samples.push(Some(*value), 0);
            }
            (*situation, *op, *observer, samples)
        };
        let measured: Vec<Measured> = rows.iter().map(measured).collect();
        let options = RunOptions {
            trials: 2,
            situations: vec![Situation::Present, Situation::Fresh],
            many: 1000,
            command: "--trials 2".to_owned(),
        };
        Report::new(Machine::read().unwrap(), options, &measured).unwrap()
    }

    fn report() -> Report {
        let client = |situation| (situation, Op::Add, Observer::Client);
        let mut report = report_of(&[
            (
                (Situation::Present, Op::Add, Observer::Floor),
                &[50_000, 70_000],
            ),
            (client(Situation::Present), &[500_000]),
            (client(Situation::Fresh), &[]),
            (client(Situation::Burst1000), &[120_000_000]),
        ]);
        report.rows[2].missed = 1;
        report.rows[3].lists_per_s = Some(38.96);
        report
    }

    #[test]
    fn ratios_are_to_the_floor_of_the_same_situation() {
        let ratios: Vec<_> = report().rows.iter().map(|row| row.ratio).collect();
        assert_eq!(ratios, [Some(1.0), Some(10.0), None, None]);
    }

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let table = report().table();
        let lines: Vec<_> = table.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "present    add → floor             2    0.050    0.070    0.070    0.070       0    1.0        –",
                "present    add → list              1    0.500    0.500    0.500    0.500       0   10.0        –",
                "fresh      add → list              0        –        –        –        –       1      –        –",
                "burst1000  add → list              1  120.000  120.000  120.000  120.000       0      –     39.0",
            ]
        );
        let widths: Vec<_> = table.lines().skip(2).map(|it| it.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
    }

    #[test]
    fn the_json_has_the_form_described_in_help() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["schema"], 1);
        assert!(json["machine"]["kernel"].is_string());
        assert_eq!(json["options"]["situations"][1], "fresh");
        assert_eq!(json["options"]["many"], 1000);
        let row = &json["rows"][0];
        assert_eq!(
            (&row["op"], &row["observer"]),
            (&"add".into(), &"floor".into())
        );
        assert_eq!(row["samples_ns"], serde_json::json!([50_000, 70_000]));
        assert_eq!(row["p50_ns"], 50_000);
        assert!(row["lists_per_s"].is_null());
    }

    #[test]
    fn the_json_can_be_read_again() {
        let text = serde_json::to_string(&report()).unwrap();
        assert_eq!(Report::parse(&text).unwrap().table(), report().table());
    }

    #[test]
    fn the_json_of_earlier_programs_can_be_read() {
        let mut json = serde_json::to_value(report()).unwrap();
        for added in ["many", "command"] {
            json["options"].as_object_mut().unwrap().remove(added);
        }
        for row in json["rows"].as_array_mut().unwrap() {
            row.as_object_mut().unwrap().remove("lists_per_s");
        }
        let earlier = Report::parse(&json.to_string()).unwrap();
        assert_eq!(earlier.options.many, 1000);
    }

    #[test]
    fn another_schema_is_refused() {
        let error = Report::parse(r#"{"schema": 2, "figures": []}"#).unwrap_err();
        assert!(error.to_string().contains("schema is 2"), "{error}");
    }
}
