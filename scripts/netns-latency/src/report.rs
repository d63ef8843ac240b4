//! The figures of a run: rows, the table for people, the JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Serialize;

use crate::plan::{Observer, Op, Situation};
use crate::stats::{self, Samples};

/// Changes when a member of the JSON changes its meaning.
const SCHEMA: u32 = 1;

/// What was measured in one situation of one operation by one observer.
pub(crate) type Measured = (Situation, Op, Observer, Samples);

/// A run; the JSON is described in `--help`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: u32,
    date_unix_s: u64,
    machine: Machine,
    options: Options,
    pub(crate) rows: Vec<Row>,
}

/// What figures depend on.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    kernel: String,
    cpus: usize,
    cpu: Option<String>,
    memory_kib: Option<u64>,
    load: Option<String>,
}

#[derive(Debug, Serialize)]
struct Options {
    trials: u32,
    situations: Vec<Situation>,
}

/// A line of the table.
#[derive(Debug, Serialize)]
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
    samples_ns: Vec<i64>,
}

impl Row {
    /// How the row is called in messages.
    pub(crate) fn name(&self) -> String {
        format!("{}, {} → {}", self.situation, self.op, self.observer)
    }
}

/// Makes rows of samples; the floor of the same situation and operation gives the ratio.
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
            samples_ns: samples.seen().to_vec(),
        }
    };
    measured.iter().map(row).collect()
}

impl Machine {
    /// This machine, now.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("read the release of the kernel")?;
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: Vec<_> = load.split_whitespace().take(3).collect();
        Ok(Self {
            kernel: kernel.trim().to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            cpu: proc_value("/proc/cpuinfo", "model name"),
            memory_kib: proc_value("/proc/meminfo", "MemTotal")
                .and_then(|it| it.split_whitespace().next()?.parse().ok()),
            load: (load.len() == 3).then(|| load.join(" ")),
        })
    }
}

/// The first `key: value` of a file of /proc.
fn proc_value(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Report {
    /// Puts a run together.
    pub(crate) fn new(
        machine: Machine,
        trials: u32,
        situations: Vec<Situation>,
        measured: &[Measured],
    ) -> anyhow::Result<Self> {
        Ok(Self {
            schema: SCHEMA,
            date_unix_s: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            machine,
            options: Options { trials, situations },
            rows: rows(measured),
        })
    }

    /// The JSON of the run.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }

    /// The table for people, in milliseconds.
    pub(crate) fn table(&self) -> String {
        let Machine {
            kernel, cpus, load, ..
        } = &self.machine;
        let load = load.as_deref().unwrap_or("unknown");
        let mut table = format!("Linux {kernel}, {cpus} cpus, load {load}; milliseconds\n\n");
        table += "situation  measure                 n      p50      p90      p99      max  missed  ratio\n";
        for row in &self.rows {
            let measure = format!("{} → {}", row.op, row.observer);
            write!(table, "{:<10} {measure:<19} {:>5}", row.situation, row.n).ok();
            for figure in [row.p50_ns, row.p90_ns, row.p99_ns, row.max_ns] {
                match figure.map(stats::milliseconds) {
                    Some(figure) => write!(table, " {figure:>8.3}").ok(),
                    None => write!(table, " {:>8}", "–").ok(),
                };
            }
            match row.ratio {
                Some(ratio) => writeln!(table, " {:>7} {ratio:>6.1}", row.missed).ok(),
                None => writeln!(table, " {:>7} {:>6}", row.missed, "–").ok(),
            };
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let samples = |values: &[Option<i64>]| {
            let mut samples = Samples::default();
            for value in values {
                samples.push(*value);
            }
            samples
        };
        let measured = [
            (
                Situation::Present,
                Op::Add,
                Observer::Floor,
                samples(&[Some(50_000), Some(70_000)]),
            ),
            (
                Situation::Present,
                Op::Add,
                Observer::Client,
                samples(&[Some(500_000), None]),
            ),
            (
                Situation::Fresh,
                Op::Add,
                Observer::Client,
                samples(&[None]),
            ),
        ];
        let situations = vec![Situation::Present, Situation::Fresh];
        Report::new(Machine::read().unwrap(), 2, situations, &measured).unwrap()
    }

    #[test]
    fn ratios_are_to_the_floor_of_the_same_situation() {
        let ratios: Vec<_> = report().rows.iter().map(|row| row.ratio).collect();
        assert_eq!(ratios, [Some(1.0), Some(10.0), None]);
    }

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let table = report().table();
        let lines: Vec<_> = table.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "present    add → floor             2    0.050    0.070    0.070    0.070       0    1.0",
                "present    add → list              1    0.500    0.500    0.500    0.500       1   10.0",
                "fresh      add → list              0        –        –        –        –       1      –",
            ]
        );
        let widths: Vec<_> = table.lines().skip(2).map(|it| it.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
    }

    #[test]
    fn the_json_is_what_help_says() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["schema"], 1);
        assert!(json["machine"]["kernel"].is_string());
        assert_eq!(json["options"]["situations"][1], "fresh");
        let row = &json["rows"][0];
        assert_eq!(
            (&row["op"], &row["observer"]),
            (&"add".into(), &"floor".into())
        );
        assert_eq!(row["samples_ns"], serde_json::json!([50_000, 70_000]));
        assert_eq!(row["p50_ns"], 50_000);
    }
}
