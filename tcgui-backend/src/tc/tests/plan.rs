//! Plans, carried out by a kernel of fifty lines with the rules of the real one.

use proptest::prelude::*;

use super::*;
use crate::kernel::netem::{Distribution, Slot};
use crate::kernel::qdisc::{BottleneckChange, Install, Qdisc, QdiscStatistics, RootChange};
use crate::kernel::tbf::Tbf;
use crate::tc::desired::Desired;
use crate::tc::handle::{self, Tables};
use crate::tc::observed::{Observed, QdiscName, Root};
use crate::tc::plan::{ForeignQdiscs, Plan, Refusal, is_expected, lost, plan, steps};

const IFINDEX: u32 = 3;
const ROOT: u32 = u32::MAX;

/// One link. The first qdisc is its root; tables are in none of the listed netems.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    qdiscs: Vec<Qdisc>,
    tables: Tables,
    was_clean: bool,
}

fn qdisc(kind: &str, handle: u32, parent: u32, netem: Option<Netem>) -> Qdisc {
    Qdisc {
        ifindex: IFINDEX,
        handle,
        parent,
        kind: kind.to_owned(),
        netem,
        tbf: None,
        statistics: QdiscStatistics::default(),
    }
}

/// What a dump tells of a netem.
fn listed(netem: Netem) -> Netem {
    Netem {
        distribution: None,
        slot: netem.slot.map(|slot| Slot {
            distribution: None,
            ..slot
        }),
        seed: Some(netem.seed.unwrap_or(1)),
        bottleneck: None,
        ..netem
    }
}

impl Kernel {
    pub(crate) fn new(qdiscs: Vec<Qdisc>) -> Self {
        Self {
            qdiscs,
            tables: Tables::default(),
            was_clean: false,
        }
    }

    pub(crate) fn observed(&self) -> Observed {
        Observed::new(&self.qdiscs, IFINDEX)
    }

    /// The root if it is no default.
    fn root(&self) -> Option<&Qdisc> {
        self.qdiscs.first().filter(|root| root.handle != 0)
    }

    pub(crate) fn take(&mut self, step: &RootChange) -> Result<(), &'static str> {
        match *step {
            RootChange::Delete { handle } => {
                let root = self.root().ok_or("nothing to delete")?;
                if root.handle != handle {
                    return Err("invalid handle");
                }
                self.qdiscs = vec![qdisc("noqueue", 0, ROOT, None)];
                self.was_clean = true;
            }
            RootChange::Install {
                install,
                handle,
                netem,
                bottleneck,
            } => {
                self.install(install, handle, netem)?;
                self.below(handle, bottleneck)?;
            }
        }
        Ok(())
    }

    fn install(&mut self, install: Install, handle: u32, netem: Netem) -> Result<(), &'static str> {
        let change = install == Install::Change;
        let mut others = self
            .qdiscs
            .iter()
            .filter(|q| !(change && q.handle == handle));
        let duplicate = |q: &Qdisc| q.netem.filter(Netem::duplicates);
        let conflict = if netem.duplicates() {
            others.any(|q| q.netem.is_some())
        } else {
            others.any(|q| duplicate(q).is_some())
        };
        if conflict {
            return Err("cannot mix duplicating netems with other netems in tree");
        }
        match (install, self.root()) {
            (Install::Add, Some(_)) => return Err("exists"),
            (Install::Change, Some(root)) if root.handle == handle && root.netem.is_some() => {
                self.qdiscs[0].netem = Some(listed(netem));
                let sent = Tables::of(&netem);
                self.tables.delay = sent.delay.or(self.tables.delay);
                self.tables.slot = sent.slot.or(self.tables.slot);
                return Ok(());
            }
            (Install::Change, _) => return Err("not found"),
            (Install::Replace, _) if self.qdiscs.iter().any(|q| q.handle == handle) => {
                return Err("the handle is in use");
            }
            (Install::Add | Install::Replace, _) => {}
        }
        self.qdiscs = vec![qdisc("netem", handle, ROOT, Some(listed(netem)))];
        self.tables = Tables::of(&netem);
        Ok(())
    }

    /// As the kernel does the second message of the datagram.
    fn below(&mut self, parent: u32, change: BottleneckChange) -> Result<(), &'static str> {
        let is_child = |q: &Qdisc| q.parent == parent | 1;
        match change {
            BottleneckChange::Keep => {}
            BottleneckChange::Set { handle, tbf } => {
                let child = self.qdiscs.iter().position(is_child);
                let by_handle = self.qdiscs.iter().position(|q| q.handle == handle);
                match (child, by_handle) {
                    (Some(child), Some(same)) if child == same => {}
                    (_, Some(_)) => return Err("the handle is in use"),
                    (Some(child), None) => drop(self.qdiscs.remove(child)),
                    (None, None) => {}
                }
                self.qdiscs.retain(|q| q.handle != handle);
                let filter = Qdisc {
                    tbf: Some(tbf),
                    ..qdisc("tbf", handle, parent | 1, None)
                };
                self.qdiscs.push(filter);
            }
            BottleneckChange::Remove { handle } => {
                let child = self.qdiscs.iter().position(is_child).ok_or("no child")?;
                if self.qdiscs[child].handle != handle {
                    return Err("invalid handle");
                }
                self.qdiscs.remove(child);
            }
        }
        Ok(())
    }

    /// Returns what is really in force at the root.
    pub(crate) fn in_force(&self) -> Option<Netem> {
        let mut netem = self.root()?.netem?;
        netem.distribution = self.tables.delay.filter(|_| netem.jitter_ns > 0);
        if let Some(slot) = &mut netem.slot {
            slot.distribution = self.tables.slot;
        }
        let root = self.root()?.handle;
        let below = self.qdiscs.iter().find(|q| q.parent == root | 1);
        Some(Netem {
            seed: None,
            bottleneck: below.and_then(|q| q.tbf),
            ..netem
        })
    }

    /// Plans and carries out.
    fn reach(&mut self, desired: Option<&Netem>, foreign: ForeignQdiscs) -> Result<Plan, Refusal> {
        let observed = self.observed();
        let plan = plan(desired, &observed, foreign)?;
        for (index, step) in steps(plan, desired, &observed).into_iter().enumerate() {
            let replaces = matches!(
                step,
                RootChange::Install {
                    install: Install::Replace,
                    ..
                }
            );
            // Nobody else has changed it.
            let now = self.observed();
            assert!(
                !replaces || is_expected(&observed, index > 0, &now),
                "{now:?}"
            );
            let taken = self.take(&step);
            assert_eq!(taken, Ok(()), "{step:?} of {plan:?} on {observed:?}");
        }
        Ok(plan)
    }
}

pub(crate) fn netem() -> BoxedStrategy<Netem> {
    configs::config()
        .prop_map(|mut config| {
            // Nothing above zero, and no queue, is no netem.
            config.extensions.limit.get_or_insert(1000);
            Desired::from_config(&config, LINK).unwrap().netem.unwrap()
        })
        .boxed()
}

/// A root without anything of ours.
pub(crate) fn roots() -> impl Strategy<Value = Vec<Qdisc>> {
    let handle = || (1..0xffff_u32).prop_map(|major| major << 16);
    prop_oneof![
        Just(Vec::new()),
        Just(vec![qdisc("noqueue", 0, ROOT, None)]),
        Just(vec![
            qdisc("mq", 0, ROOT, None),
            qdisc("pfifo_fast", 0, 1, None),
            qdisc("pfifo_fast", 0, 2, None)
        ]),
        (handle(), netem()).prop_filter_map("not ours", |(handle, netem)| {
            let root = qdisc("netem", handle, ROOT, Some(listed(netem)));
            handle::tables(handle).is_none().then(|| vec![root])
        }),
        (handle(), handle(), netem()).prop_map(|(root, leaf, netem)| vec![
            qdisc("htb", root, ROOT, None),
            qdisc("netem", leaf, root | 1, Some(listed(netem)))
        ]),
        handle().prop_map(|root| vec![qdisc("tbf", root, ROOT, None)]),
    ]
}

proptest! {
    #[test]
    fn every_plan_arrives(
        root in roots(),
        wishes in prop::collection::vec(prop::option::of(netem()), 1..6),
    ) {
        let mut kernel = Kernel::new(root);
        for desired in &wishes {
            let desired = desired.as_ref();
            let impaired = kernel.in_force().is_some();
            kernel.was_clean = false;
            kernel.reach(desired, ForeignQdiscs::Replace).unwrap();
            prop_assert_eq!(kernel.in_force(), desired.copied());
            // Never through a clean link, and never a way back.
            prop_assert!(!(impaired && desired.is_some() && kernel.was_clean));
            let again = kernel.reach(desired, ForeignQdiscs::Replace).unwrap();
            prop_assert_eq!(again, Plan::Nothing);
        }
    }

    #[test]
    fn what_is_read_back_is_what_was_wanted(first in netem(), second in netem()) {
        let mut kernel = Kernel::new(Vec::new());
        for desired in [first, second] {
            kernel.reach(Some(&desired), ForeignQdiscs::Keep).unwrap();
            let observed = kernel.observed();
            let read = observed.netem().map(|netem| Netem { seed: None, ..*netem });
            prop_assert_eq!(read, Some(desired));
        }
    }

    #[test]
    fn what_others_configured_is_kept(root in roots(), desired in prop::option::of(netem())) {
        let before = Kernel::new(root);
        let theirs = matches!(before.observed().root, Root::Foreign(_));
        let mut kernel = before.clone();
        let reached = kernel.reach(desired.as_ref(), ForeignQdiscs::Keep);
        if theirs {
            prop_assert_eq!(kernel.qdiscs, before.qdiscs);
            prop_assert_eq!(reached.is_err(), desired.is_some());
        } else {
            prop_assert_eq!(kernel.in_force(), desired);
        }
    }

    #[test]
    fn one_change_is_enough_where_nothing_duplicates(first in netem(), second in netem()) {
        let single = |netem| Netem { duplicate: Random::default(), ..netem };
        let (first, second) = (single(first), single(second));
        let mut kernel = Kernel::new(Vec::new());
        kernel.reach(Some(&first), ForeignQdiscs::Keep).unwrap();
        let observed = kernel.observed();
        let plan = plan(Some(&second), &observed, ForeignQdiscs::Keep).unwrap();
        prop_assert!(steps(plan, Some(&second), &observed).len() <= 1);
    }

    #[test]
    fn handles_tell_their_tables(delay in 0..4_usize, slot in 0..4_usize, major in 0..=0xffff_u32) {
        let choice = |index: usize| Distribution::ALL.get(index).copied();
        let tables = Tables { delay: choice(delay), slot: choice(slot) };
        let handle = handle::for_tables(tables, &[]);
        prop_assert_eq!(handle::tables(handle), Some(tables));
        let other = handle::for_tables(tables, &[handle]);
        prop_assert_ne!(other, handle);
        prop_assert_eq!(handle::tables(other), Some(tables));
        // The kernel's own choices and those of people are none of ours.
        let ours = (0x7c60..0x7c80).contains(&major);
        prop_assert_eq!(handle::tables(major << 16).is_some(), ours);
    }
}

#[test]
fn a_root_or_child_of_another_program_is_not_expected() {
    let (own, theirs) = (0x7c60_0000, 0x3_0000);
    let root = |handle, netem| vec![qdisc("netem", handle, ROOT, Some(listed(netem)))];
    let other = Netem {
        latency_ns: MS,
        ..short()
    };
    let with_child = |handle| {
        let mut qdiscs = root(handle, short());
        qdiscs.push(qdisc("tbf", 0x30_0000, handle | 1, None));
        qdiscs
    };
    let at = |qdiscs: &[Qdisc]| Observed::new(qdiscs, IFINDEX);
    for handle in [own, theirs] {
        let before = at(&root(handle, short()));
        for (now, when_untouched, when_changed) in [
            (root(handle, short()), true, true),
            (root(handle, other), false, true),
            (root(handle + 0x1_0000, short()), false, false),
            (with_child(handle), false, false),
            (vec![qdisc("htb", handle, ROOT, None)], false, false),
            (vec![qdisc("noqueue", 0, ROOT, None)], false, false),
            (Vec::new(), false, false),
        ] {
            let now = at(&now);
            let found = [false, true].map(|changed| is_expected(&before, changed, &now));
            assert_eq!(found, [when_untouched, when_changed], "{now:?}");
        }
    }
    // Also what the operator allowed to replace is what was recorded, or nothing is replaced.
    let htb = at(&[qdisc("htb", theirs, ROOT, None)]);
    let prio = at(&[qdisc("prio", theirs, ROOT, None)]);
    assert!(is_expected(&htb, false, &htb) && !is_expected(&htb, false, &prio));
}

#[test]
fn a_replacement_of_another_root_is_a_loss() {
    let theirs = qdisc("netem", 0x3_0000, ROOT, Some(listed(short())));
    let changed = qdisc("netem", 0x3_0000, ROOT, Some(listed(Netem::default())));
    let htb = qdisc("htb", 0x3_0000, ROOT, None);
    let default = qdisc("pfifo_fast", 0, ROOT, None);
    let expected = Observed::new(std::slice::from_ref(&theirs), IFINDEX);
    for (destroyed, is_lost) in [
        (&theirs, false),
        (&changed, true),
        (&htb, true),
        (&default, false),
    ] {
        let lost = lost(&expected, false, destroyed.clone());
        assert_eq!(lost.is_some(), is_lost, "{destroyed:?}");
    }
    assert_eq!(lost(&expected, true, changed), None, "we changed it");
    let found = lost(&expected, true, htb).unwrap();
    assert_eq!(found.root.to_string(), "htb 3:");
}

/// The kernel reports only the root that a replacement destroyed. The filter below it is known already.
#[test]
fn a_replaced_netem_with_a_filter_is_no_loss() {
    let filter = Tbf {
        bytes_per_s: 64_000,
        burst: 1_838,
        limit: 15_140,
    };
    for root in [0x7c60_0000, 0x3_0000] {
        let netem = qdisc("netem", root, ROOT, Some(listed(short())));
        let below = Qdisc {
            tbf: Some(filter),
            ..qdisc("tbf", 0x7c80_0000, root | 1, None)
        };
        let expected = Observed::new(&[netem.clone(), below], IFINDEX);
        let known = expected.netem().and_then(|it| it.bottleneck);
        assert_eq!(known, Some(filter));
        assert_eq!(lost(&expected, false, netem), None);
        let other = qdisc("netem", root, ROOT, Some(listed(Netem::default())));
        assert!(lost(&expected, false, other).is_some());
    }
}

#[test]
fn tables_that_are_not_used_do_not_force_anything() {
    let jitter = Netem {
        latency_ns: 10 * MS,
        jitter_ns: MS,
        distribution: Some(Distribution::Normal),
        ..short()
    };
    let steady = Netem {
        jitter_ns: 0,
        distribution: None,
        ..jitter
    };
    let even = Netem {
        distribution: None,
        ..jitter
    };
    let mut kernel = Kernel::new(Vec::new());
    let mut kinds = Vec::new();
    for desired in [jitter, steady, jitter, even] {
        kinds.push(kernel.reach(Some(&desired), ForeignQdiscs::Keep).unwrap());
    }
    let (table, plain) = (0x7c64_0000, 0x7c60_0000);
    assert_eq!(
        kinds,
        [
            Plan::Add { handle: table },
            Plan::Change { handle: table },
            Plan::Change { handle: table },
            Plan::Replace { handle: plain }
        ]
    );
}

#[test]
fn a_child_is_refused_by_name_and_kept_by_a_change() {
    let name = QdiscName {
        kind: "tbf".into(),
        handle: 0x30_0000,
    };
    let child = |parent| qdisc("tbf", name.handle, parent | 1, None);
    let foreign = 0x3_0000;
    let mut kernel = Kernel::new(vec![
        qdisc("netem", foreign, ROOT, Some(short())),
        child(foreign),
    ]);
    let refusal = Refusal::Child {
        handle: foreign,
        child: name.clone(),
    };
    for desired in [Some(&short()), None] {
        let err = kernel.reach(desired, ForeignQdiscs::Keep).unwrap_err();
        assert_eq!(err, refusal);
        assert!(err.to_string().contains("tbf 30:"), "{err}");
    }
    let own = 0x7c60_0000;
    let mut kernel = Kernel::new(vec![qdisc("netem", own, ROOT, Some(short())), child(own)]);
    let other = Netem {
        limit: 5,
        ..short()
    };
    let plan = kernel.reach(Some(&other), ForeignQdiscs::Keep);
    assert_eq!(plan, Ok(Plan::Change { handle: own }));
    assert_eq!(kernel.qdiscs.len(), 2);
}

#[test]
fn a_default_netem_of_the_kernel_is_a_default() {
    let mut kernel = Kernel::new(vec![qdisc("netem", 0, ROOT, Some(short()))]);
    assert_eq!(kernel.observed().netem(), None);
    let plan = kernel.reach(None, ForeignQdiscs::Keep);
    assert_eq!(plan, Ok(Plan::Nothing));
}

#[test]
fn a_seed_that_the_kernel_chose_is_no_difference() {
    let mut kernel = Kernel::new(Vec::new());
    kernel.reach(Some(&short()), ForeignQdiscs::Keep).unwrap();
    let seeded = Netem {
        seed: Some(2),
        ..short()
    };
    for (desired, expected) in [(short(), true), (seeded, false), (seeded, true)] {
        let plan = kernel.reach(Some(&desired), ForeignQdiscs::Keep).unwrap();
        assert_eq!(plan == Plan::Nothing, expected, "{desired:?}");
    }
}
