//! Explains why a namespace is listed or not. Collects facts from the kernel and the daemon, then derives reasons from the facts.
//!
//! ```text
//!  look.rs ── entry, limits, capabilities ──┐
//!  watcher ── doorbells, what it waits for ─┼─▶ Facts ──▶ reasons.rs (pure) ──▶ Explanation ──▶ text.rs
//!  inventory or own look ── links ──────────┘
//! ```
//!
//! The daemon explains from its own state. If no daemon runs, the command scans the host ([`crate::standalone`]). No file is
//! opened that might block, and no file stays open.

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

/// All known facts about one name.
#[derive(Debug)]
pub struct Facts {
    /// The name.
    pub name: NamespaceName,
    /// The entry at its path. `None` for a name without a path.
    pub entry: Option<EntryFacts>,
    /// Limits and capabilities of the machine and this process.
    pub host: HostFacts,
    /// The status of the watcher of the netns directory, or the reason why none runs.
    pub watcher: Result<WatcherStatus, String>,
    /// Other names of the same namespace.
    pub aliases: Vec<String>,
    /// The known facts about its links.
    pub links: LinkFacts,
    /// Time of the last link notification. `None` if no notifications are received.
    pub netlink: Option<Option<Instant>>,
    /// Time at which the facts were collected.
    pub now: Instant,
}

/// The known facts about the links of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LinkFacts {
    /// The namespace is not known to the daemon.
    #[default]
    Unknown,
    /// The namespace is known, but its links were not read yet.
    NotSeen,
    /// The links could not be read, for this reason.
    Unreadable(String),
    /// The links were read.
    Seen {
        /// The names of the listed interfaces, as on the wire.
        shown: Vec<String>,
        /// Number of links, listed or not.
        count: usize,
        /// Start time of the dump.
        began: Instant,
    },
}

/// The facts about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFacts {
    /// The path, as text.
    pub path: String,
    /// Whether the parent directory exists.
    pub directory_exists: bool,
    /// The kind of entry.
    pub kind: EntryKind,
    /// The target, if the entry is a symbolic link.
    pub link_target: Option<String>,
    /// The file system of the entry.
    pub file_system: Option<String>,
    /// The line in the mount table for a mount on the entry.
    pub mount: Option<String>,
    /// The mount propagation of the directory.
    pub propagation: Option<Propagation>,
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// The entry does not exist.
    Nothing,
    /// A namespace of any type.
    Namespace {
        /// Its identity.
        id: MountedNamespaceId,
        /// Its type as named in `/proc/PID/ns`. `None` if it may not be opened.
        kind: Option<&'static str>,
    },
    /// A regular file.
    File {
        /// Its length in bytes.
        len: u64,
        /// Its permission bits.
        mode: u32,
    },
    /// A symbolic link whose target does not exist.
    DanglingLink,
    /// Another kind of file: its description with an article.
    Other(&'static str),
    /// The entry cannot be read, for this reason.
    Unreachable(String),
}

/// The propagation of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Propagation {
    /// The optional fields of the mount table.
    pub text: String,
    /// Whether the mount receives mounts from other mount namespaces.
    pub receives: bool,
}

/// Limits and capabilities of the machine and this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Required capabilities that the process does not have.
    pub missing_capabilities: Vec<&'static str>,
    /// Kernel limits: sysctl name and value. `None` if the value cannot be read.
    pub limits: Vec<(&'static str, Option<u64>)>,
    /// Whether the process is in the mount namespace of PID 1. `None` if that cannot be read.
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
    let propagation = facts
        .entry
        .as_ref()
        .and_then(|entry| entry.propagation.clone());
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
        propagation: propagation.map(|propagation| propagation.text),
    })
}

/// Explains why a text is not a valid name. Reads nothing from the host.
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
    /// Returns a short description.
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
    reports.extend(facts.netlink.map(|last_event| DoorbellReport {
        name: "netlink events about links".to_owned(),
        works: true,
        problem: None,
        rang_ms_ago: ago(last_event),
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
