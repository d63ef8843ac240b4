//! Plans the step from the current root to the desired one.
//!
//! A netem is changed in place if possible. Otherwise it is replaced in one request, because the kernel can neither
//! remove a distribution table nor change the handle of a qdisc. The link is never without an impairment in between,
//! with one exception: see [`steps`].

use std::collections::BTreeSet;

use super::handle::{self, Tables};
use super::observed::{Observed, QdiscName, Root};
use crate::kernel::netem::{Netem, Random};
use crate::kernel::qdisc::{BottleneckChange, Install, Qdisc, RootChange};

/// The planned change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// The root is already as desired.
    Nothing,
    /// Add a netem in place of the kernel's default.
    Add {
        /// Its handle.
        handle: u32,
    },
    /// Change the daemon's netem. It keeps its queue and counters.
    Change {
        /// Its handle.
        handle: u32,
    },
    /// Replace the root by a new netem. The queue of the old root is lost.
    Replace {
        /// The handle of the new one.
        handle: u32,
    },
    /// Delete the root, so that the kernel's default returns.
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
    /// The root is not a netem.
    #[error(
        "the root qdisc {0} belongs to another program; start the daemon with --replace-foreign-qdiscs to \
         permit replacing it"
    )]
    Foreign(QdiscName),
    /// The root is a netem with a child.
    #[error(
        "the root qdisc netem {} has the child {child} of another program; start the daemon with \
         --replace-foreign-qdiscs to permit replacing both",
        handle::text(*.handle)
    )]
    Child {
        /// The handle of the netem.
        handle: u32,
        /// The child.
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
                // A new bottleneck would replace the child.
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

/// Returns the requests that execute a plan. This is one request, except for a replacement with a netem that
/// duplicates.
///
/// Since Linux 6.16, and in stable kernels, a netem that duplicates must be the only netem of its link. During a
/// replacement there are two (`check_netem_in_tree`, `net/sched/sch_netem.c`). So the old root stops duplicating before
/// the replacement, and the new root starts after it. If a netem below a foreign root duplicates, the root is deleted
/// first.
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
        // The replacement also creates the bottleneck.
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

/// Returns the change of the bottleneck. The replacement of a root also removes its bottleneck.
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

/// Returns a handle for a new bottleneck. The handle of the current bottleneck is free, because it is removed together
/// with its root.
fn new_bottleneck(observed: &Observed) -> u32 {
    let others: Vec<_> = observed
        .in_use
        .iter()
        .copied()
        .filter(|handle| Some(*handle) != observed.bottleneck)
        .collect();
    handle::for_bottleneck(&others)
}

/// Returns whether the root and its children are still those of the plan. If an earlier step of the plan has changed
/// the parameters of the root (`changed`), the parameters are not compared.
///
/// The kernel replaces any root qdisc without a condition (`tc_modify_qdisc`, `net/sched/sch_api.c`). So the root is
/// read again directly before a replacement. A qdisc that another program installs between this read and the
/// replacement, some tens of microseconds later, is still replaced: see [`lost`].
pub fn is_expected(expected: &Observed, changed: bool, now: &Observed) -> bool {
    let children = |observed: &Observed| -> BTreeSet<(u32, String)> {
        let children = observed.children.iter();
        children.map(|it| (it.handle, it.kind.clone())).collect()
    };
    is_same_root(&expected.root, changed, &now.root) && children(expected) == children(now)
}

/// Returns the root that a replacement destroyed, if it is not the root of the plan. `None` for the kernel's default,
/// which is no loss.
pub fn lost(expected: &Observed, changed: bool, destroyed: Qdisc) -> Option<Observed> {
    let ifindex = destroyed.ifindex;
    let found = Observed::new(&[destroyed], ifindex);
    let is_lost = found.root.handle() != 0 && !is_same_root(&expected.root, changed, &found.root);
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

/// Returns whether a netem that was read back is the desired one. A kernel also reports a seed that it chose itself.
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
