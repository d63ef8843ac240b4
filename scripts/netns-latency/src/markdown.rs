//! Formats the figures for a document: tables of p50 / p99 in milliseconds.

use std::fmt::Write as _;

use crate::plan::{Observer, Op, Situation};
use crate::report::{Report, Row, number};
use crate::stats;

/// The columns of the table of namespaces.
const COLUMNS: [(&str, Op, Observer); 4] = [
    ("floor, add", Op::Add, Observer::Floor),
    ("add → watcher", Op::Add, Observer::Watcher),
    ("add → list", Op::Add, Observer::Client),
    ("delete → list", Op::Del, Observer::Client),
];

/// The lines of the table of links.
const LINKS: [(&str, Op); 3] = [
    ("created", Op::LinkAdd),
    ("brought up", Op::LinkUp),
    ("deleted", Op::LinkDel),
];

/// The lines of the table of sources: the source that first reports the appearance and the disappearance of a namespace.
const SOURCES: [(Situation, &str, &str); 8] = [
    (
        Situation::Present,
        "mount table, name by inotify",
        "inotify",
    ),
    (Situation::Degraded, "mount table", "mount table"),
    (Situation::Silent, "sweep, each second", "namespace id"),
    (
        Situation::Process,
        "process events",
        "end of the process (pidfd)",
    ),
    (
        Situation::Unannounced,
        "sweep, each second",
        "end of the process (pidfd)",
    ),
    (
        Situation::Moved,
        "namespace id",
        "end of the process (pidfd)",
    ),
    (
        Situation::Docker,
        "the engine's events",
        "end of the process (pidfd)",
    ),
    (
        Situation::Podman,
        "the engine's events",
        "end of the process (pidfd)",
    ),
];

/// Returns a section about the run: its conditions, and a table for each kind of situation.
pub(crate) fn section(report: &Report) -> String {
    let mut text = introduction(report);
    let tables = [
        namespaces(report),
        bursts(report),
        links(report),
        sources(report),
    ];
    for table in tables.into_iter().flatten() {
        text.push('\n');
        text += &table;
    }
    text
}

fn introduction(report: &Report) -> String {
    let machine = &report.machine;
    let missed: usize = report.rows.iter().map(|row| row.missed).sum();
    let missed = match missed {
        0 => "nothing was missed".to_owned(),
        some => format!("**{some} missed**"),
    };
    let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
    let load = machine.load.as_deref().unwrap_or("unknown");
    format!(
        "`{}`, {} × {cpu}, Linux {}, load {load}, {}; {missed}.\n\
         Milliseconds, p50 / p99, from just before the system call.\n",
        format!("scripts/netns-latency.sh {}", report.options.command).trim_end(),
        machine.cpus,
        machine.kernel,
        report.date(),
    )
}

/// The table of all situations in which namespaces are added and deleted one by one.
fn namespaces(report: &Report) -> Option<String> {
    let mut table = "| situation | n |".to_owned();
    for (title, ..) in COLUMNS {
        write!(table, " {title} |").ok();
    }
    table += "\n|---|---|---|---|---|---|\n";
    let header = table.len();
    for situation in Situation::ALL {
        let rows = COLUMNS.map(|(_, op, observer)| report.row(situation, op, observer));
        let Some(first) = rows.iter().flatten().next() else {
            continue;
        };
        let has_no_name = situation.observers() == [Observer::Client];
        if situation == Situation::Burst1000 || has_no_name && situation != Situation::Silent {
            continue;
        }
        write!(table, "| {} | {} |", situation.title(), first.n).ok();
        for row in rows {
            write!(table, " {} |", row.map_or("–".to_owned(), times)).ok();
        }
        table.push('\n');
    }
    (table.len() > header).then_some(table)
}

fn bursts(report: &Report) -> Option<String> {
    let mut table =
        "| burst | n | all at the watcher after the last | all in the list after the last \
                     | lists per second |\n|---|---|---|---|---|\n"
            .to_owned();
    let header = table.len();
    for (what, op) in [("created", Op::Add), ("deleted", Op::Del)] {
        let of = |observer| report.row(Situation::Burst1000, op, observer);
        let Some(list) = of(Observer::Client) else {
            continue;
        };
        let watcher = of(Observer::Watcher).map_or("–".to_owned(), times);
        let lists = number(list.lists_per_s, 0);
        let (count, n, all) = (report.options.many, list.n, times(list));
        writeln!(
            table,
            "| {count} {what} | {n} | {watcher} | {all} | {lists} |"
        )
        .ok();
    }
    (table.len() > header).then_some(table)
}

fn links(report: &Report) -> Option<String> {
    let mut table =
        "| link inside a namespace | n | floor | → list |\n|---|---|---|---|\n".to_owned();
    let header = table.len();
    for (what, op) in LINKS {
        let of = |observer| report.row(Situation::Link, op, observer);
        if let Some(list) = of(Observer::Client) {
            let floor = of(Observer::Floor).map_or("–".to_owned(), times);
            writeln!(table, "| {what} | {} | {floor} | {} |", list.n, times(list)).ok();
        }
    }
    (table.len() > header).then_some(table)
}

/// The table of the delays with each source of information.
fn sources(report: &Report) -> Option<String> {
    let mut table = "| case | comes: told by | n | → list | goes: told by | → not in the list |\n\
                     |---|---|---|---|---|---|\n"
        .to_owned();
    let header = table.len();
    for (situation, comes, goes) in SOURCES {
        let of = |op| report.row(situation, op, Observer::Client);
        let Some(added) = of(Op::Add) else {
            continue;
        };
        let gone = of(Op::Del).map_or("–".to_owned(), times);
        writeln!(
            table,
            "| {} | {comes} | {} | {} | {goes} | {gone} |",
            situation.title(),
            added.n,
            times(added)
        )
        .ok();
    }
    (table.len() > header).then_some(table)
}

fn times(row: &Row) -> String {
    let [p50, p99] = [row.p50_ns, row.p99_ns].map(|it| it.map(stats::milliseconds));
    format!("{} / {}", digits(p50), digits(p99))
}

/// Formats a figure with a number of digits that depends on its size.
fn digits(ms: Option<f64>) -> String {
    let decimals = match ms {
        Some(ms) if ms.abs() >= 100.0 => 0,
        Some(ms) if ms.abs() >= 10.0 => 1,
        Some(ms) if ms.abs() >= 1.0 => 2,
        _ => 3,
    };
    number(ms, decimals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report_of;

    #[test]
    fn each_kind_of_situation_has_its_table() {
        let client = |situation, op| (situation, op, Observer::Client);
        let report = report_of(&[
            (
                (Situation::Present, Op::Add, Observer::Floor),
                &[60_000, 70_000],
            ),
            (
                client(Situation::Present, Op::Add),
                &[1_200_000, 12_340_000],
            ),
            (client(Situation::Burst1000, Op::Add), &[123_456_789]),
            (client(Situation::Link, Op::LinkUp), &[1_000_000]),
            (client(Situation::Docker, Op::Add), &[2_000_000]),
            (client(Situation::Docker, Op::Del), &[3_000_000]),
        ]);
        let text = section(&report);
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("| ")).collect();
        assert_eq!(
            lines,
            [
                "| situation | n | floor, add | add → watcher | add → list | delete → list |",
                "| directory present | 2 | 0.060 / 0.070 | – | 1.20 / 12.3 | – |",
                "| burst | n | all at the watcher after the last | all in the list after the last | lists per second |",
                "| 1000 created | 1 | – | 123 / 123 | – |",
                "| link inside a namespace | n | floor | → list |",
                "| brought up | 1 | – | 1.00 / 1.00 |",
                "| case | comes: told by | n | → list | goes: told by | → not in the list |",
                "| directory present | mount table, name by inotify | 2 | 1.20 / 12.3 | inotify | – |",
                "| Docker container, from its event | the engine's events | 1 | 2.00 / 2.00 \
                 | end of the process (pidfd) | 3.00 / 3.00 |",
            ]
        );
        assert!(text.contains("nothing was missed"), "{text}");
    }

    #[test]
    fn situations_that_were_not_measured_have_no_table() {
        let text = section(&report_of(&[]));
        assert!(!text.contains('|'), "{text}");
    }
}
