//! Why a name is shown, or is not: facts from the kernel and the daemon, reasons from facts.
//!
//! ```text
//!  look.rs ── entry, limits, capabilities ──┐
//!  watcher ── doorbells, what it waits for ─┼─▶ Facts ──▶ reasons.rs (pure) ──▶ Explanation ──▶ text.rs
//!  inventory or own look ── links ──────────┘
//! ```
//!
//! The daemon explains what it knows itself; if no daemon runs, the command scans the host in the same manner
//! ([`crate::standalone`]). Nothing here opens a file that might block, and nothing is kept open.

mod look;
mod reasons;
#[cfg(test)]
mod tests;
mod text;

use std::time::Instant;

use tcgui_shared::explain::{
    DoorbellReport, EntryReport, ExplainResponse, Explanation, LimitReport, Reason, ReasonCode,
};
use tcgui_shared::names::{NameError, NamespaceName};

use crate::kernel::netns::MountedNamespaceId;
use crate::namespace_watcher::{Doorbell, DoorbellState, WatcherStatus};

pub use look::{entry_facts, host_facts};
pub use text::{Source, text};

/// Everything that is known about one name.
#[derive(Debug)]
pub struct Facts {
    /// The name.
    pub name: NamespaceName,
    /// What is at its path; `None` for a name that has none.
    pub entry: Option<EntryFacts>,
    /// What this machine and this process allow.
    pub host: HostFacts,
    /// The watcher of the netns directory, or why there is none.
    pub watcher: Result<WatcherStatus, String>,
    /// Other names of the same namespace.
    pub aliases: Vec<String>,
    /// What is known of its links.
    pub links: LinkFacts,
    /// When the kernel last reported a change of a link. `None`: no events are received.
    pub netlink: Option<Option<Instant>>,
    /// When these were put together.
    pub now: Instant,
}

/// What is known of the links of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LinkFacts {
    /// No part of the daemon knows the namespace.
    #[default]
    Unknown,
    /// It is known; its links are not yet.
    NotSeen,
    /// They could not be read: why.
    Unreadable(String),
    /// They were seen.
    Seen {
        /// The wire texts of those that are shown.
        shown: Vec<String>,
        /// How many there are.
        count: usize,
        /// When the look began.
        began: Instant,
    },
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFacts {
    /// The path, as text.
    pub path: String,
    /// Whether the directory that holds it exists.
    pub directory_exists: bool,
    /// What it is.
    pub kind: EntryKind,
    /// Where it leads, if it is a symbolic link.
    pub link_target: Option<String>,
    /// The file system it is on.
    pub file_system: Option<String>,
    /// The line of the mount table about what is mounted on it.
    pub mount: Option<String>,
    /// How mounts propagate to the directory.
    pub propagation: Option<Propagation>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// There is none.
    Nothing,
    /// A namespace.
    Namespace {
        /// Which.
        id: MountedNamespaceId,
        /// Its type in the words of `/proc/PID/ns`; `None` where it may not be opened.
        kind: Option<&'static str>,
    },
    /// A regular file.
    File {
        /// Its length in bytes.
        len: u64,
        /// Its permission bits.
        mode: u32,
    },
    /// A symbolic link that leads nowhere.
    DanglingLink,
    /// Something else: what, with its article.
    Other(&'static str),
    /// It cannot be looked at: why.
    Unreachable(String),
}

/// How mounts propagate to a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Propagation {
    /// As the mount table has it.
    pub text: String,
    /// Whether mounts made elsewhere can arrive.
    pub receives: bool,
}

/// What this machine and this process allow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Needed capabilities that are missing.
    pub missing_capabilities: Vec<&'static str>,
    /// Limits of the kernel, with their names.
    pub limits: Vec<(&'static str, Option<u64>)>,
    /// Whether the process is in the mount namespace of the first process; `None` where that is hidden.
    pub mounts_of_init: Option<bool>,
}

/// Explains a name.
pub fn explain(facts: &Facts) -> ExplainResponse {
    let ago = |at: Instant| millis(facts.now.saturating_duration_since(at));
    let (interfaces, looked_ms_ago) = match &facts.links {
        LinkFacts::Seen { shown, began, .. } => (Some(shown.clone()), Some(ago(*began))),
        _ => (None, None),
    };
    let limits = facts.host.limits.iter();
    let propagation = facts.entry.as_ref().and_then(|it| it.propagation.clone());
    ExplainResponse::success(Explanation {
        namespace: facts.name.to_wire(),
        listed: reasons::is_listed(facts),
        reasons: reasons::reasons(facts),
        entry: facts.entry.as_ref().map(entry_report),
        aliases: facts.aliases.clone(),
        interfaces,
        looked_ms_ago,
        doorbells: doorbell_reports(facts),
        limits: limits
            .map(|(name, value)| LimitReport {
                name: (*name).to_owned(),
                value: *value,
            })
            .collect(),
        missing_capabilities: facts
            .host
            .missing_capabilities
            .iter()
            .map(|name| (*name).to_owned())
            .collect(),
        propagation: propagation.map(|it| it.text),
    })
}

/// Explains a text that is no name; nothing is looked at.
pub fn explain_invalid(text: &str, err: &NameError) -> ExplainResponse {
    ExplainResponse::success(Explanation {
        namespace: text.to_owned(),
        listed: false,
        reasons: vec![Reason {
            code: ReasonCode::InvalidName,
            text: err.to_string(),
        }],
        entry: None,
        aliases: Vec::new(),
        interfaces: None,
        looked_ms_ago: None,
        doorbells: Vec::new(),
        limits: Vec::new(),
        missing_capabilities: Vec::new(),
        propagation: None,
    })
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn entry_report(entry: &EntryFacts) -> EntryReport {
    let (namespace_type, identity) = match &entry.kind {
        EntryKind::Namespace { id, kind } => (kind.map(str::to_owned), Some(id.to_string())),
        _ => (None, None),
    };
    EntryReport {
        path: entry.path.clone(),
        kind: entry.kind.words(),
        link_target: entry.link_target.clone(),
        namespace_type,
        file_system: entry.file_system.clone(),
        mount: entry.mount.clone(),
        identity,
    }
}

impl EntryKind {
    /// Returns what it is, in a few words.
    fn words(&self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Namespace {
                kind: Some("net"), ..
            } => "network namespace".to_owned(),
            Self::Namespace { kind, .. } => {
                format!("{} namespace", kind.unwrap_or("unreadable"))
            }
            Self::File { len: 0, .. } => "empty file".to_owned(),
            Self::File { len, .. } => format!("file of {len} bytes"),
            Self::DanglingLink => "link that leads nowhere".to_owned(),
            Self::Other(words) => words.trim_start_matches("a ").to_owned(),
            Self::Unreachable(_) => "out of reach".to_owned(),
        }
    }
}

fn doorbell_reports(facts: &Facts) -> Vec<DoorbellReport> {
    let ago = |at: Option<Instant>| at.map(|at| millis(facts.now.saturating_duration_since(at)));
    let Ok(watcher) = &facts.watcher else {
        return Vec::new();
    };
    let mut reports: Vec<_> = watcher
        .doorbells
        .iter()
        .map(|bell| {
            let (works, problem) = match &bell.state {
                DoorbellState::Works => (true, None),
                DoorbellState::NothingToWatch => (
                    false,
                    Some("nothing to watch: there is no directory".to_owned()),
                ),
                DoorbellState::Missing { reason } => {
                    let reason = reason.clone();
                    (false, Some(reason.unwrap_or_else(|| "missing".to_owned())))
                }
            };
            DoorbellReport {
                name: name_of(bell.doorbell).to_owned(),
                works,
                problem,
                rang_ms_ago: ago(bell.last_rang),
            }
        })
        .collect();
    let interval = watcher.sweep_interval.as_secs_f64();
    reports.push(DoorbellReport {
        name: format!("fallback sweep every {interval} s"),
        works: !watcher.unreadable,
        problem: watcher
            .unreadable
            .then(|| "the netns directory cannot be read".to_owned()),
        rang_ms_ago: ago(watcher.last_sweep),
    });
    reports.extend(facts.netlink.map(|heard| DoorbellReport {
        name: "netlink events about links".to_owned(),
        works: true,
        problem: None,
        rang_ms_ago: ago(heard),
    }));
    reports
}

fn name_of(doorbell: Doorbell) -> &'static str {
    match doorbell {
        Doorbell::Notify => "inotify instance",
        Doorbell::ParentWatch => "inotify watch on the parent directory",
        Doorbell::DirectoryWatch => "inotify watch on the netns directory",
        Doorbell::MountTable => "mount table",
    }
}
