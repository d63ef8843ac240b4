//! Decides the restoration at the end of a lease. Pure.

use std::fmt;

use super::{Lease, LinkMatch};
use crate::kernel::netem::{Netem, Random};
use crate::kernel::qdisc::RootChange;
use crate::tc::handle;
use crate::tc::observed::{Observed, Root};
use crate::tc::plan::{ForeignQdiscs, Plan, is_same, plan, steps};

/// The result of the end of a lease for its interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// The earlier configuration is restored, except for the parts that cannot be.
    Back {
        /// These parts, as `tc` shows them.
        lost: Vec<String>,
    },
    /// The earlier configuration was already in force.
    Already,
    /// Another program has changed the root since, so it was left unchanged.
    Left {
        /// The current root.
        found: String,
    },
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Back { lost } if lost.is_empty() => f.write_str("restored"),
            Self::Back { lost } => write!(
                f,
                "restored, but for what cannot be put back: {}",
                lost.join(", ")
            ),
            Self::Already => f.write_str("nothing to restore"),
            Self::Left { found } => write!(f, "left as it is, somebody has changed it: {found}"),
        }
    }
}

/// Returns the result and the requests that replace `observed` by the state before the lease.
///
/// `link` is the comparison of the link with that of the lease.
pub fn decide(lease: &Lease, observed: &Observed, link: LinkMatch) -> (Restored, Vec<RootChange>) {
    if is_back(lease, observed) {
        return (Restored::Already, Vec::new());
    }
    let left = |found: String| (Restored::Left { found }, Vec::new());
    let is_bare = matches!(observed.root, Root::Absent | Root::Default { .. });
    if link == LinkMatch::Another || (link == LinkMatch::Unsure && is_bare) {
        return left(format!(
            "another interface with {}",
            describe(&observed.root)
        ));
    }
    if !is_ours(lease, observed) {
        return left(describe(&observed.root));
    }
    let before = lease.before.netem;
    let netem = before.map(|(_, netem)| netem);
    let netns_ref = match before {
        // A netem of another program also gets its handle back.
        Some((handle, _)) if handle::tables(handle).is_none() => match observed.root {
            Root::Absent | Root::Default { .. } => Ok(Plan::Add { handle }),
            // The netem is still there: its replacement had only begun.
            Root::ForeignNetem { .. } => Ok(Plan::Change { handle }),
            _ if observed.children.is_empty() => Ok(Plan::Replace { handle }),
            _ => plan(None, observed, ForeignQdiscs::Keep),
        },
        _ => plan(netem.as_ref(), observed, ForeignQdiscs::Keep),
    };
    match netns_ref {
        Err(refusal) => left(refusal.to_string()),
        Ok(plan) => {
            let lost = lease.before.lost.clone();
            let steps = steps(plan, netem.as_ref(), observed);
            (Restored::Back { lost }, steps)
        }
    }
}

/// Returns whether a change continues the lease of a link with this comparison and this root. If it may be another
/// link, only a netem of the daemon shows that it is the same one.
pub fn is_on(link: LinkMatch, root: &Root) -> bool {
    match link {
        LinkMatch::Same => true,
        LinkMatch::Unsure => matches!(root, Root::Own { .. }),
        LinkMatch::Another => false,
    }
}

/// Returns whether a lease explains the current root. Otherwise another program has changed it.
pub fn knows(lease: &Lease, observed: &Observed) -> bool {
    is_back(lease, observed) || is_ours(lease, observed)
}

/// Returns whether the current root is the one before the lease.
fn is_back(lease: &Lease, observed: &Observed) -> bool {
    match (&observed.root, &lease.before.netem) {
        // If a qdisc was lost, only the default can be restored.
        (Root::Absent | Root::Default { .. }, None) => true,
        // The qdisc was not lost: it is still there.
        (Root::Foreign(name), None) => lease.before.lost.contains(&name.to_string()),
        (Root::ForeignNetem { handle, netem }, Some((known, before))) => {
            handle == known && is_same(before, netem)
        }
        // A netem of the daemon may be restored with another handle of the daemon, depending on its tables.
        (Root::Own { netem, .. }, Some((known, before))) => {
            handle::tables(*known).is_some() && is_same(before, netem)
        }
        _ => false,
    }
}

/// Returns whether the current root was set under the lease, or is a step on the way to or from that.
fn is_ours(lease: &Lease, observed: &Observed) -> bool {
    let before = lease.before.netem.map(|(_, netem)| netem);
    let on_the_way = |known: &Netem, netem: &Netem| {
        is_same(known, netem) || (known.duplicates() && is_same(&single(*known), netem))
    };
    match &observed.root {
        Root::Own { netem, .. } => {
            let known = lease.set.iter().flatten();
            known.chain(&before).any(|known| on_the_way(known, netem))
        }
        // The earlier netem stops duplicating before it is replaced.
        Root::ForeignNetem { handle, netem } => {
            lease.before.netem.is_some_and(|(known, before)| {
                known == *handle && before.duplicates() && is_same(&single(before), netem)
            })
        }
        Root::Absent | Root::Default { .. } => lease.set.contains(&None),
        Root::Foreign(_) => false,
    }
}

fn single(netem: Netem) -> Netem {
    Netem {
        duplicate: Random::default(),
        ..netem
    }
}

fn describe(root: &Root) -> String {
    match root {
        Root::Absent => "no qdisc".to_owned(),
        Root::Default { kind } => format!("{kind}, the kernel's default"),
        Root::Own { handle, .. } | Root::ForeignNetem { handle, .. } => {
            format!("another netem {}", handle::text(*handle))
        }
        Root::Foreign(name) => name.to_string(),
    }
}
