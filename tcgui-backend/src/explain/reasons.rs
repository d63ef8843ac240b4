//! Derives reasons from facts. Pure.

use tcgui_shared::explain::{Reason, ReasonCode};
use tcgui_shared::names::NamespaceName;

use super::{EntryFacts, EntryKind, Facts, LinkFacts, name_of};
use crate::namespace_watcher::{Doorbell, DoorbellState, EntryStatus};

/// Returns whether the name is in the interface list.
pub(super) fn is_listed(facts: &Facts) -> bool {
    matches!(&facts.links, LinkFacts::Seen { shown, .. } if !shown.is_empty())
}

/// Returns why the name is listed or not, followed by further problems.
pub(super) fn reasons(facts: &Facts) -> Vec<Reason> {
    let mut reasons = vec![first(facts)];
    reasons.extend(not_propagated(facts));
    reasons.extend(missing_doorbells(facts));
    reasons.extend(missing_capabilities(facts));
    reasons
}

fn reason(code: ReasonCode, text: impl Into<String>) -> Reason {
    Reason {
        code,
        text: text.into(),
    }
}

fn first(facts: &Facts) -> Reason {
    if is_listed(facts) {
        return links(facts);
    }
    match (&facts.name, &facts.entry) {
        (NamespaceName::Container(_), _) if facts.links == LinkFacts::Unknown => reason(
            ReasonCode::NoContainer,
            "no running container of that name with a network namespace of its own is known",
        ),
        (NamespaceName::Process(_), _) if facts.links == LinkFacts::Unknown => reason(
            ReasonCode::NoProcess,
            "no process of that number is known to hold a network namespace that has no better name; a daemon looks for \
             such processes with --process-namespaces",
        ),
        (NamespaceName::Named(_), Some(entry)) => match &facts.watcher {
            Err(err) => reason(ReasonCode::DirectoryUnreadable, err),
            Ok(_) => named(facts, entry),
        },
        _ => links(facts),
    }
}

fn named(facts: &Facts, entry: &EntryFacts) -> Reason {
    let path = &entry.path;
    match &entry.kind {
        EntryKind::Nothing if !entry.directory_exists => reason(
            ReasonCode::NoDirectory,
            format!("there is no {path}, nor the directory: no named namespace was created yet"),
        ),
        EntryKind::Nothing => reason(ReasonCode::NoEntry, format!("there is no {path}")),
        EntryKind::Namespace {
            kind: Some("net"), ..
        } => links(facts),
        EntryKind::Namespace { kind, .. } => {
            let kind = kind.unwrap_or("unreadable");
            let text = format!("{path} is a {kind} namespace, not a network namespace");
            reason(ReasonCode::OtherType, text)
        }
        EntryKind::File { len: 0, mode } => placeholder(facts, path, *mode),
        EntryKind::File { len, .. } => reason(
            ReasonCode::NotANamespace,
            format!("{path} is a file of {len} bytes on which nothing is mounted"),
        ),
        EntryKind::DanglingLink => {
            let target = entry.link_target.as_deref().unwrap_or("somewhere");
            let text = format!(
                "{path} is a symbolic link to {target}, which is not there: a process it named has ended"
            );
            reason(ReasonCode::DanglingLink, text)
        }
        EntryKind::Other(what) => {
            let text = match &entry.link_target {
                Some(target) => format!("{path} is a symbolic link to {target}, {what}"),
                None => format!("{path} is {what}, not a namespace"),
            };
            reason(ReasonCode::NotANamespace, text)
        }
        EntryKind::Unreachable(err) => {
            reason(ReasonCode::Unreadable, format!("cannot read {path}: {err}"))
        }
    }
}

fn placeholder(facts: &Facts, path: &str, mode: u32) -> Reason {
    let status = facts.watcher.as_ref().map(|watcher| watcher.entry);
    let waits = match status {
        Ok(EntryStatus::Pending { looks }) => {
            let plural = if looks == 1 { "" } else { "s" };
            format!("waited for, looked at {looks} time{plural} so far")
        }
        Ok(EntryStatus::GivenUp) => {
            "no namespace appeared in time, looked at after notifications and by sweeps".to_owned()
        }
        _ => "not waited for".to_owned(),
    };
    // `ip netns add` creates the file with mode 0.
    let maker = match mode {
        0 => {
            "left by an `ip netns add` that failed, or whose mount does not arrive here".to_owned()
        }
        mode => format!("mode {mode:03o}, so not made by `ip netns add`"),
    };
    let text =
        format!("{path} is an empty file on which no namespace is mounted ({waits}): {maker}");
    reason(ReasonCode::Placeholder, text)
}

/// Returns the reason that follows from the links of an existing namespace.
fn links(facts: &Facts) -> Reason {
    match &facts.links {
        LinkFacts::Unknown => reason(
            ReasonCode::Unnoticed,
            "it is a network namespace, but the watcher has not noticed it yet: ask again",
        ),
        LinkFacts::NotSeen => reason(
            ReasonCode::NotSeenYet,
            "its interfaces have not been read yet: it is listed together with them",
        ),
        LinkFacts::Unreadable(err) => reason(
            ReasonCode::Unreadable,
            format!("its interfaces cannot be read: {err}"),
        ),
        LinkFacts::Seen { shown, count, .. } if shown.is_empty() => {
            let text = match count {
                0 => "it has no interfaces, and nothing is listed without any".to_owned(),
                count => format!(
                    "its {count} interface(s) are all left out (--exclude-loopback), and nothing is listed without any"
                ),
            };
            reason(ReasonCode::NoInterfaces, text)
        }
        LinkFacts::Seen { shown, .. } => {
            let count = shown.len();
            let plural = if count == 1 { "" } else { "s" };
            let text = format!("it is a network namespace with {count} interface{plural}");
            reason(ReasonCode::Listed, text)
        }
    }
}

/// Returns a warning for a placeholder in a directory that does not receive mounts. Such a placeholder is probably a namespace in
/// the mount namespace of another process.
fn not_propagated(facts: &Facts) -> Option<Reason> {
    let entry = facts.entry.as_ref()?;
    let propagation = entry.propagation.as_ref()?;
    let waits = matches!(entry.kind, EntryKind::File { len: 0, .. });
    let apart = facts.host.mounts_of_init != Some(true);
    (waits && apart && !propagation.receives).then(|| {
        let text = "mounts of others do not arrive in this mount namespace (private): set MountFlags= of the service to \
                    shared or slave, or rslave for a container's volume";
        reason(ReasonCode::NotPropagated, text)
    })
}

fn missing_doorbells(facts: &Facts) -> Vec<Reason> {
    let Ok(watcher) = &facts.watcher else {
        return Vec::new();
    };
    let missing = watcher.doorbells.iter().filter_map(|bell| {
        let DoorbellState::Missing { reason: why } = &bell.state else {
            return None;
        };
        let advice = match bell.doorbell {
            Doorbell::MountTable => "",
            _ => ": fs.inotify.max_user_instances or max_user_watches may be used up",
        };
        let why = why.as_deref().map(|why| format!(" ({why})"));
        let text = format!(
            "the {} is missing{}{advice}; everything is looked at every {} s instead",
            name_of(bell.doorbell),
            why.unwrap_or_default(),
            watcher.sweep_interval.as_secs_f64(),
        );
        Some(reason(ReasonCode::DoorbellMissing, text))
    });
    missing.collect()
}

fn missing_capabilities(facts: &Facts) -> Option<Reason> {
    let missing = &facts.host.missing_capabilities;
    (!missing.is_empty()).then(|| {
        let text = format!("{} missing: run as root, or grant them", missing.join(", "));
        reason(ReasonCode::CapabilityMissing, text)
    })
}
