//! The one step from what is there to what is wanted.
//!
//! A netem is changed in place, or replaced in one request where the kernel cannot change it: it cannot take
//! a distribution table away, nor give a qdisc another handle. No plan passes through a clean link, with
//! one exception that [`steps`] explains.

use std::collections::BTreeSet;

use super::handle::{self, Tables};
use super::observed::{Observed, QdiscName, Root};
use crate::kernel::netem::{Netem, Random};
use crate::kernel::qdisc::{BottleneckChange, Install, Qdisc, RootChange};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// It is as it should be.
    Nothing,
    /// Make a netem where nothing but the kernel's default is.
    Add {
        /// Its handle.
        handle: u32,
    },
    /// Change our netem; its queue and counters stay.
    Change {
        /// Its handle.
        handle: u32,
    },
    /// Put a new netem in place of the root; the queue of the old one is lost.
    Replace {
        /// The handle of the new one.
        handle: u32,
    },
    /// Delete the root; the kernel's default comes back.
    Delete {
        /// Its handle.
        handle: u32,
    },
}

/// Whether a root qdisc of another program may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForeignQdiscs {
    /// The daemon refuses.
    #[default]
    Keep,
    /// The operator permits it with `--replace-foreign-qdiscs`.
    Replace,
}

/// Why the daemon refuses: another program configured the root qdisc.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The root is no netem.
    #[error(
        "the root qdisc {0} belongs to another program; start the daemon with --replace-foreign-qdiscs to \
         permit replacing it"
    )]
    Foreign(QdiscName),
    /// The root is a netem, but part of a tree.
    #[error(
        "the root qdisc netem {} has the child {child} of another program; start the daemon with \
         --replace-foreign-qdiscs to permit replacing both",
        handle::text(*.handle)
    )]
    Child {
        /// Of the netem.
        handle: u32,
        /// What hangs below it.
        child: QdiscName,
    },
}

/// Decides how the root becomes `desired`, or the kernel's default.
///
/// # Errors
/// The change would destroy the configuration of another program.
pub fn plan(
    desired: Option<&Netem>,
    observed: &Observed,
    foreign: ForeignQdiscs,
) -> Result<Plan, Refusal> {
    match (desired, &observed.root) {
        (None, Root::Absent | Root::Default { .. } | Root::Foreign(_)) => Ok(Plan::Nothing),
        (None, Root::Own { handle, .. } | Root::ForeignNetem { handle, .. }) => {
            without_child(*handle, observed, foreign)?;
            Ok(Plan::Delete { handle: *handle })
        }
        (Some(netem), Root::Absent | Root::Default { .. }) => Ok(Plan::Add {
            handle: new_handle(netem, observed),
        }),
        (
            Some(netem),
            Root::Own {
                handle,
                netem: current,
            },
        ) => {
            if is_same(netem, current) {
                Ok(Plan::Nothing)
            } else if handle::tables(*handle).is_some_and(|tables| tables.serve(netem)) {
                // A new bottleneck would take the place of what hangs there.
                if netem.bottleneck.is_some() && observed.bottleneck.is_none() {
                    without_child(*handle, observed, foreign)?;
                }
                Ok(Plan::Change { handle: *handle })
            } else {
                without_child(*handle, observed, foreign)?;
                Ok(replace(netem, observed))
            }
        }
        (Some(netem), Root::ForeignNetem { handle, .. }) => {
            without_child(*handle, observed, foreign)?;
            Ok(replace(netem, observed))
        }
        (Some(_), Root::Foreign(name)) if foreign == ForeignQdiscs::Keep => {
            Err(Refusal::Foreign(name.clone()))
        }
        (Some(netem), Root::Foreign(_)) => Ok(replace(netem, observed)),
    }
}

/// Returns the requests that carry a plan out: one, but for a replacement where something duplicates.
///
/// Since 6.16, and in stable kernels too, a link holds either one netem that duplicates or any number that
/// do not, and while one qdisc replaces another both are there (`check_netem_in_tree`,
/// `net/sched/sch_netem.c`). So the old root stops duplicating first, and the new one begins last. Only
/// where a netem deeper in a foreign tree duplicates, the tree has to go before.
pub fn steps(plan: Plan, desired: Option<&Netem>, observed: &Observed) -> Vec<RootChange> {
    let netem = desired.copied().unwrap_or_default();
    let install = |install, handle, netem| RootChange::Install {
        install,
        handle,
        netem,
        bottleneck: below(install, &netem, observed),
    };
    let handle = match plan {
        Plan::Nothing => return Vec::new(),
        Plan::Add { handle } => return vec![install(Install::Add, handle, netem)],
        Plan::Change { handle } => return vec![install(Install::Change, handle, netem)],
        Plan::Delete { handle } => return vec![RootChange::Delete { handle }],
        Plan::Replace { handle } => handle,
    };
    let root = observed.root.handle();
    if observed.netems_below.iter().any(Netem::duplicates) {
        return vec![
            RootChange::Delete { handle: root },
            install(Install::Add, handle, netem),
        ];
    }
    let single = |netem| Netem {
        duplicate: Random::default(),
        ..netem
    };
    let mut steps = Vec::new();
    let old = observed.netem().copied();
    if let Some(old) = old.filter(Netem::duplicates) {
        steps.push(RootChange::Install {
            install: Install::Change,
            handle: root,
            netem: single(old),
            bottleneck: BottleneckChange::Keep,
        });
    }
    if netem.duplicates() && (old.is_some() || !observed.netems_below.is_empty()) {
        // The bottleneck comes with the new root.
        steps.push(install(Install::Replace, handle, single(netem)));
        steps.push(RootChange::Install {
            install: Install::Change,
            handle,
            netem,
            bottleneck: BottleneckChange::Keep,
        });
    } else {
        steps.push(install(Install::Replace, handle, netem));
    }
    steps
}

/// Returns what becomes of the bottleneck below. A replaced root takes its bottleneck with it.
fn below(install: Install, netem: &Netem, observed: &Observed) -> BottleneckChange {
    let is_change = install == Install::Change;
    if is_change && matches!(observed.root, Root::ForeignNetem { .. }) {
        return BottleneckChange::Keep;
    }
    let there = observed.bottleneck.filter(|_| is_change);
    match (netem.bottleneck, there) {
        (Some(tbf), there) => BottleneckChange::Set {
            handle: there.unwrap_or_else(|| new_bottleneck(observed)),
            tbf,
        },
        (None, Some(handle)) => BottleneckChange::Remove { handle },
        (None, None) => BottleneckChange::Keep,
    }
}

/// Returns the handle for a new bottleneck: the one of before if it goes with its root.
fn new_bottleneck(observed: &Observed) -> u32 {
    let others: Vec<_> = observed
        .in_use
        .iter()
        .copied()
        .filter(|handle| Some(*handle) != observed.bottleneck)
        .collect();
    handle::for_bottleneck(&others)
}

/// Returns whether the root is still the one that a plan was made for, with the same children. After a step of the plan
/// has `changed` the parameters of the root, they are not compared.
///
/// The kernel replaces whatever is at the root, without a condition (`tc_modify_qdisc`, `net/sched/sch_api.c`). So the root
/// is read once more directly before a replacement. A qdisc that another program installs between this look and the
/// replacement, in some tens of microseconds, is still replaced: see [`lost`].
pub fn is_expected(expected: &Observed, changed: bool, now: &Observed) -> bool {
    let children = |observed: &Observed| -> BTreeSet<(u32, String)> {
        let children = observed.children.iter();
        children.map(|it| (it.handle, it.kind.clone())).collect()
    };
    is_same_root(&expected.root, changed, &now.root) && children(expected) == children(now)
}

/// Returns what a replacement has destroyed, if that is another root than the one that the plan was made for. The kernel's
/// default is no loss.
pub fn lost(expected: &Observed, changed: bool, destroyed: Qdisc) -> Option<Observed> {
    let ifindex = destroyed.ifindex;
    let found = Observed::new(&[destroyed], ifindex);
    // The kernel reports the root alone, without the bottleneck that went with it.
    let mut known = expected.root.clone();
    if let Root::Own { netem, .. } | Root::ForeignNetem { netem, .. } = &mut known {
        netem.bottleneck = None;
    }
    let is_lost = found.root.handle() != 0 && !is_same_root(&known, changed, &found.root);
    is_lost.then_some(found)
}

fn is_same_root(expected: &Root, changed: bool, now: &Root) -> bool {
    match (expected, now) {
        (Root::Own { .. }, Root::Own { .. })
        | (Root::ForeignNetem { .. }, Root::ForeignNetem { .. })
            if changed =>
        {
            expected.handle() == now.handle()
        }
        (expected, now) => expected == now,
    }
}

/// Returns whether a netem that was read back is what was wanted. A kernel reports a seed, also one that
/// it chose by itself.
pub fn is_same(wanted: &Netem, current: &Netem) -> bool {
    let seed = wanted.seed.and(current.seed);
    let bottleneck = match (wanted.bottleneck, current.bottleneck) {
        (Some(wanted), Some(current)) if wanted.is_close_to(&current) => Some(wanted),
        (_, current) => current,
    };
    Netem {
        seed,
        bottleneck,
        ..*current
    } == *wanted
}

fn without_child(handle: u32, observed: &Observed, foreign: ForeignQdiscs) -> Result<(), Refusal> {
    match (foreign, observed.children.first()) {
        (ForeignQdiscs::Keep, Some(child)) => Err(Refusal::Child {
            handle,
            child: child.clone(),
        }),
        _ => Ok(()),
    }
}

fn new_handle(netem: &Netem, observed: &Observed) -> u32 {
    handle::for_tables(Tables::of(netem), &observed.in_use)
}

fn replace(netem: &Netem, observed: &Observed) -> Plan {
    Plan::Replace {
        handle: new_handle(netem, observed),
    }
}
