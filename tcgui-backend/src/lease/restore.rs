//! What is to be done when a lease ends. Pure.

use std::fmt;

use super::{Lease, LinkMatch};
use crate::kernel::netem::{Netem, Random};
use crate::kernel::qdisc::RootChange;
use crate::tc::handle;
use crate::tc::observed::{Observed, Root};
use crate::tc::plan::{ForeignQdiscs, Plan, is_same, plan, steps};

/// What became of an interface whose lease ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// The earlier configuration is restored, except for the parts that cannot be.
    Back {
        /// As `tc` names it.
        lost: Vec<String>,
    },
    /// It was there already.
    Already,
    /// Somebody else has changed it since.
    Left {
        /// What is there.
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

/// Decides how what was there before a lease comes back where `observed` is now.
///
/// `link` says whether the link is the one of the lease.
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
        // A netem of somebody else gets its handle back, too.
        Some((handle, _)) if handle::tables(handle).is_none() => match observed.root {
            Root::Absent | Root::Default { .. } => Ok(Plan::Add { handle }),
            // It is still there, on the way to being replaced.
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

/// Returns whether a change goes on with the lease of a link that compares like this and has this root. If it may be
/// another link, only a netem of the daemon shows that it is not.
pub fn is_on(link: LinkMatch, root: &Root) -> bool {
    match link {
        LinkMatch::Same => true,
        LinkMatch::Unsure => matches!(root, Root::Own { .. }),
        LinkMatch::Another => false,
    }
}

/// Returns whether what is there is explained by a lease, or somebody else made it.
pub fn knows(lease: &Lease, observed: &Observed) -> bool {
    is_back(lease, observed) || is_ours(lease, observed)
}

/// Returns whether what is there is what was there before.
fn is_back(lease: &Lease, observed: &Observed) -> bool {
    match (&observed.root, &lease.before.netem) {
        // Where something else was lost, the default is all that can come back.
        (Root::Absent | Root::Default { .. }, None) => true,
        // It was not lost after all.
        (Root::Foreign(name), None) => lease.before.lost.contains(&name.to_string()),
        (Root::ForeignNetem { handle, netem }, Some((known, before))) => {
            handle == known && is_same(before, netem)
        }
        // Ours may have come back with another one of our handles, by which tables it holds.
        (Root::Own { netem, .. }, Some((known, before))) => {
            handle::tables(*known).is_some() && is_same(before, netem)
        }
        _ => false,
    }
}

/// Returns whether what is there is what was set under the lease, or a step on the way to or from it.
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
        // What was there before loses its duplication before it is replaced.
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
