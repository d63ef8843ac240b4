//! Formats an explanation for the terminal. Pure.

use std::fmt::Write;

use tcgui_shared::explain::{DoorbellReport, EntryReport, Explanation};

use crate::listing::printable;

/// The origin of an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The running daemon of this name.
    Daemon(String),
    /// The command, which scanned the host.
    Own,
}

/// Returns the explanation as lines for a terminal. Control characters are removed from all texts, because a name may contain
/// them.
pub fn text(explanation: &Explanation, source: &Source) -> String {
    let mut lines = Lines::default();
    let verdict = if explanation.listed {
        "listed"
    } else {
        "not listed"
    };
    let whose = match source {
        Source::Daemon(name) => format!("by the daemon {name:?}"),
        Source::Own => "by a daemon that would run as this command does".to_owned(),
    };
    lines.line(&format!("{}: {verdict} {whose}", explanation.namespace));
    for (index, reason) in explanation.reasons.iter().enumerate() {
        lines.field(if index == 0 { "because" } else { "note" }, &reason.text);
    }
    if let Some(entry) = &explanation.entry {
        entry_lines(&mut lines, entry);
    }
    if !explanation.aliases.is_empty() {
        lines.field("also", &explanation.aliases.join(", "));
    }
    if let Some(interfaces) = &explanation.interfaces {
        let seen = explanation.looked_ms_ago.map(ago);
        let seen = seen.map_or(String::new(), |ago| format!(" (read {ago})"));
        lines.field("interfaces", &format!("{}{seen}", interfaces.join(", ")));
    }
    for bell in &explanation.doorbells {
        lines.field("doorbell", &doorbell(bell));
    }
    for limit in &explanation.limits {
        let value = limit.value.map(|value| value.to_string());
        let value = value.as_deref().unwrap_or("unknown");
        lines.field("limit", &format!("{} = {value}", limit.name));
    }
    let missing = &explanation.missing_capabilities;
    let missing = if missing.is_empty() {
        "none missing".to_owned()
    } else {
        format!("{} missing", missing.join(", "))
    };
    lines.field("capability", &missing);
    if let Some(propagation) = &explanation.propagation {
        lines.field("propagation", propagation);
    }
    lines.0
}

fn entry_lines(lines: &mut Lines, entry: &EntryReport) {
    let target = entry.link_target.as_ref();
    let target = target.map_or(String::new(), |target| format!(" -> {target}"));
    let on = entry.file_system.as_ref();
    let on = on.map_or(String::new(), |on| format!(", on {on}"));
    lines.field(
        "entry",
        &format!("{}{target}: {}{on}", entry.path, entry.kind),
    );
    if let Some(identity) = &entry.identity {
        lines.field("identity", identity);
    }
    lines.field(
        "mount",
        entry.mount.as_deref().unwrap_or("nothing is mounted there"),
    );
}

fn doorbell(bell: &DoorbellReport) -> String {
    let state = match (&bell.problem, bell.works) {
        (Some(problem), _) => problem.clone(),
        (None, true) => "works".to_owned(),
        (None, false) => "does not work".to_owned(),
    };
    let rang = bell.rang_ms_ago.map(|ms| format!("last {}", ago(ms)));
    let rang = rang.unwrap_or_else(|| "not yet".to_owned());
    format!("{}: {state}, {rang}", bell.name)
}

fn ago(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms ago"),
        1_000..120_000 => format!("{}.{} s ago", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min ago", ms / 60_000),
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn field(&mut self, name: &str, text: &str) {
        self.line(&format!("  {name:<12}{text}"));
    }

    fn line(&mut self, text: &str) {
        // Writing to a string never fails.
        writeln!(self.0, "{}", printable(text)).ok();
    }
}
