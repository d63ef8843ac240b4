//! Tests of the restoration for each state of the root.

use super::super::restore::Restored;
use super::super::terms::Grant;
use super::*;
use crate::kernel::link::LinkIdentity;
use crate::kernel::netem::{Probability, Random, Rate};
use crate::kernel::qdisc::{BottleneckChange, Install, QdiscStatistics, RootChange};
use crate::kernel::tbf::Tbf;
use crate::tc::handle::{self, Tables};
use crate::tc::observed::{Observed, QdiscName, Root};

const THEIRS: u32 = 0x8001_0000;

fn ours() -> u32 {
    handle::for_tables(Tables::default(), &[])
}

fn observed(root: Root) -> Observed {
    Observed {
        in_use: vec![root.handle()],
        bottleneck: None,
        root,
        bottleneck_qlen: 0,
        below: Vec::new(),
        netems_below: Vec::new(),
        statistics: QdiscStatistics::default(),
    }
}

fn own(netem: Netem) -> Observed {
    let handle = ours();
    observed(Root::Own { handle, netem })
}

fn default() -> Observed {
    let kind = "noqueue".to_owned();
    observed(Root::Default { kind })
}

fn theirs(netem: Netem) -> Observed {
    let handle = THEIRS;
    observed(Root::ForeignNetem { handle, netem })
}

fn htb() -> Root {
    Root::Foreign(QdiscName {
        kind: "htb".to_owned(),
        handle: 0x0001_0000,
    })
}

fn before(before: &Observed) -> Lease {
    Lease {
        before: Before::of(before),
        ..lease(2)
    }
}

fn back() -> Restored {
    Restored::Back { lost: Vec::new() }
}

fn is_left(lease: &Lease, observed: &Observed) -> bool {
    let (restored, steps) = decide(lease, observed);
    matches!(restored, Restored::Left { .. }) && steps.is_empty()
}

#[test]
fn the_default_comes_back() {
    for was in [default(), observed(Root::Absent)] {
        let (restored, steps) = decide(&before(&was), &own(delay(5)));
        assert_eq!(
            (restored, steps),
            (back(), vec![RootChange::Delete { handle: ours() }])
        );
        assert_eq!(decide(&before(&was), &default()).0, Restored::Already);
    }
}

#[test]
fn our_own_netem_comes_back_in_place() {
    let lease = before(&own(delay(3)));
    let (restored, steps) = decide(&lease, &own(delay(5)));
    assert_eq!(restored, back());
    assert!(
        matches!(steps[..], [RootChange::Install { install: Install::Change, netem, .. }] if netem == delay(3)),
        "{steps:?}"
    );
    assert_eq!(decide(&lease, &own(delay(3))).0, Restored::Already);
}

#[test]
fn a_netem_of_somebody_else_comes_back_with_its_handle() {
    let lease = before(&theirs(delay(3)));
    let (restored, steps) = decide(&lease, &own(delay(5)));
    assert_eq!(restored, back());
    let install = RootChange::Install {
        install: Install::Replace,
        handle: THEIRS,
        netem: delay(3),
        bottleneck: BottleneckChange::Keep,
    };
    assert_eq!(steps, [install]);
    assert_eq!(decide(&lease, &theirs(delay(3))).0, Restored::Already);
}

/// A netem that limits the rate itself: another program or an earlier version of the daemon made it.
fn own_rate() -> Netem {
    Netem {
        rate: Rate {
            bytes_per_s: 64_000,
            ..Rate::default()
        },
        ..delay(3)
    }
}

/// A netem with a filter below it.
fn with_filter(ms: u64) -> Netem {
    Netem {
        bottleneck: Some(Tbf {
            bytes_per_s: 125_000,
            burst: 2_143,
            limit: 25_000,
        }),
        ..delay(ms)
    }
}

#[test]
fn a_netem_with_its_own_rate_comes_back_as_one() {
    let filter = 0x7c80 << 16;
    let now = || Observed {
        bottleneck: Some(filter),
        in_use: vec![ours(), filter],
        ..own(with_filter(5))
    };
    let under = |was: &Observed| Lease {
        set: vec![Some(with_filter(5))],
        ..before(was)
    };
    // It belongs to another program: it gets its handle back, and the filter goes with our netem.
    let (restored, steps) = decide(&under(&theirs(own_rate())), &now());
    let install = |install, handle, bottleneck| RootChange::Install {
        install,
        handle,
        netem: own_rate(),
        bottleneck,
    };
    let replaced = install(Install::Replace, THEIRS, BottleneckChange::Keep);
    assert_eq!((restored, steps), (back(), vec![replaced]));
    // An earlier version left it: it is changed in place, and the filter is removed.
    let lease = under(&own(own_rate()));
    let removed = BottleneckChange::Remove { handle: filter };
    let changed = install(Install::Change, ours(), removed);
    assert_eq!(decide(&lease, &now()), (back(), vec![changed]));
    assert_eq!(decide(&lease, &own(own_rate())).0, Restored::Already);
    // The same at the end of a scenario that interrupted a lease.
    let grant = Grant {
        owner: Owner::Scenario { id: "s".to_owned() },
        expires: None,
        confirm_by: None,
        holder: Default::default(),
    };
    let of = (NETNS, 2, "far".to_owned());
    let long = Lease {
        set: vec![Some(own_rate())],
        ..before(&default())
    };
    let step = Lease::record(
        Some(&long),
        of,
        &own(own_rate()),
        Some(with_filter(5)),
        grant,
    );
    let (ended, left) = step.ending(at(1));
    assert!(left.is_some());
    assert_eq!(decide(&ended, &now()), (back(), vec![changed]));
}

#[test]
fn what_somebody_has_changed_is_left_and_named() {
    let lease = before(&default());
    assert!(is_left(&lease, &own(delay(6))), "another delay");
    assert!(is_left(&lease, &theirs(delay(5))), "another handle");
    assert!(is_left(&lease, &observed(htb())));
    let mut child = own(delay(5));
    child.below.push(QdiscName {
        kind: "tbf".to_owned(),
        handle: 0x0003_0000,
    });
    assert!(is_left(&lease, &child), "somebody hung something below it");
    assert!(
        is_left(&before(&own(delay(3))), &default()),
        "removed by hand"
    );
    assert!(
        decide(&lease, &observed(htb()))
            .0
            .to_string()
            .contains("htb 1:")
    );
}

#[test]
fn what_was_removed_under_a_lease_comes_back() {
    let lease = Lease {
        set: vec![None],
        ..before(&theirs(delay(3)))
    };
    let (restored, steps) = decide(&lease, &default());
    assert_eq!(restored, back());
    assert!(matches!(
        steps[..],
        [RootChange::Install {
            install: Install::Add,
            handle: THEIRS,
            ..
        }]
    ));
}

#[test]
fn what_cannot_come_back_is_named() {
    let lease = before(&observed(htb()));
    let (restored, steps) = decide(&lease, &own(delay(5)));
    assert_eq!(steps, [RootChange::Delete { handle: ours() }]);
    assert!(restored.to_string().contains("htb 1:"), "{restored}");
    assert_eq!(decide(&lease, &observed(htb())).0, Restored::Already);
}

#[test]
fn killed_between_two_requests_is_recognised() {
    let twice = |netem| Netem {
        duplicate: Random {
            probability: Probability::from_percent(10.0),
            ..Random::default()
        },
        ..netem
    };
    let lease = Lease {
        set: vec![Some(twice(delay(5))), Some(twice(delay(6)))],
        ..before(&default())
    };
    for there in [twice(delay(5)), delay(5), delay(6), twice(delay(6))] {
        assert_eq!(decide(&lease, &own(there)).0, back(), "{there:?}");
    }
    let theirs_before = before(&theirs(twice(delay(3))));
    let (restored, steps) = decide(&theirs_before, &theirs(delay(3)));
    assert_eq!(restored, back());
    let install = RootChange::Install {
        install: Install::Change,
        handle: THEIRS,
        netem: twice(delay(3)),
        bottleneck: BottleneckChange::Keep,
    };
    assert_eq!(steps, [install], "its handle is in use: by itself");
}

#[test]
fn a_seed_that_the_kernel_chose_is_no_change() {
    let lease = before(&default());
    let seeded = Netem {
        seed: Some(9),
        ..delay(5)
    };
    assert_eq!(decide(&lease, &own(seeded)).0, back());
}

#[test]
fn a_lease_goes_on_unless_somebody_else_came_in_between() {
    let record = |held: &Lease, observed: &Observed, wanted: u64| {
        let grant = Grant {
            owner: Owner::Plain,
            expires: Some(at(20)),
            confirm_by: None,
            holder: LeaseHolder::default(),
        };
        let of = (NETNS, 2, "far".to_owned());
        Lease::record(Some(held), of, observed, Some(delay(wanted)), grant)
    };
    let first = before(&theirs(delay(3)));
    let second = record(&first, &own(delay(5)), 6);
    assert_eq!(second.before, first.before);
    assert_eq!(second.set, [Some(delay(5)), Some(delay(6))]);
    assert_eq!(second.expires, Some(at(20)));
    let theirs_now = theirs(delay(9));
    let third = record(&second, &theirs_now, 7);
    assert_eq!(third.before, Before::of(&theirs_now));
    assert_eq!(third.set, [Some(delay(7))]);
}

#[test]
fn a_lease_knows_the_newest_alone() {
    let mut lease = lease(2);
    for ms in 0..100 {
        lease.may_be(Some(delay(ms)));
    }
    assert_eq!(
        (lease.set.len(), lease.set.last()),
        (8, Some(&Some(delay(99))))
    );
}

#[test]
fn what_a_killed_scenario_had_interrupted_goes_on_until_its_own_end() {
    let scenario = || Grant {
        owner: Owner::Scenario { id: "s".to_owned() },
        expires: None,
        confirm_by: None,
        holder: LeaseHolder::default(),
    };
    let lived = before(&own(delay(3)));
    let about = || (NETNS, 2, "far".to_owned());
    let step = |held: &Lease, there: &Observed, ms| {
        Lease::record(Some(held), about(), there, Some(delay(ms)), scenario())
    };
    let first = step(&lived, &own(delay(5)), 7);
    let second = step(&first, &own(delay(7)), 8);
    for there in [delay(5), delay(7), delay(8)] {
        let (ended, left) = second.ending(at(9));
        let (restored, steps) = decide(&ended, &own(there));
        if there == delay(5) {
            assert_eq!((restored, steps), (Restored::Already, Vec::new()));
        } else {
            assert_eq!(restored, back());
            assert!(matches!(
                &steps[..],
                [RootChange::Install { netem, .. }] if *netem == delay(5)
            ));
        }
        let left = left.expect("its time has not come");
        assert_eq!(
            (left.owner.clone(), left.ends()),
            (Owner::Plain, Some(at(10)))
        );
        assert_eq!(decide(&left, &own(delay(5))).0, back());
        assert_eq!(left.before, lived.before);
    }
    let (ended, left) = second.ending(at(10));
    assert_eq!(left, None, "its time has come meanwhile");
    assert_eq!(decide(&ended, &own(delay(3))).0, Restored::Already);
    // The suspended state may already be restored while the file still has the scenario, from which a later step has
    // removed that state.
    let narrowed = Lease {
        set: vec![Some(delay(8))],
        ..second
    };
    for ended in [narrowed.ending(at(10)).0, narrowed.for_good()] {
        let (restored, steps) = decide(&ended, &own(delay(5)));
        assert_eq!(restored, back());
        assert!(matches!(
            &steps[..],
            [RootChange::Install { netem, .. }] if *netem == delay(3)
        ));
    }
}

#[test]
fn a_scenario_that_interrupted_nothing_leaves_nothing() {
    let lease = Lease {
        owner: Owner::Scenario { id: "s".to_owned() },
        expires: None,
        ..lease(2)
    };
    assert_eq!(lease.ending(at(0)), (lease.clone(), None));
}

#[test]
fn a_link_that_is_another_one_is_not_restored() {
    let identity = |kind: &str, last| LinkIdentity {
        kind: Some(kind.to_owned()),
        peer: None,
        address: vec![2, 0, 0, 0, 0, last],
    };
    let lease = Lease {
        link: Some(identity("dummy", 1)),
        // A step of the scenario had no netem.
        set: vec![None, Some(delay(5))],
        ..before(&theirs(delay(3)))
    };
    let decide = |link, observed| {
        let link: LinkIdentity = link;
        let found = lease.compare(Some(&link));
        crate::lease::restore::decide(&lease, &observed, found)
    };
    let there = |link, observed| matches!(decide(link, observed).0, Restored::Left { .. });
    let same = || identity("dummy", 1);
    let other_address = || identity("dummy", 2);
    let other_kind = || identity("veth", 1);
    assert_eq!(decide(same(), default()).0, back());
    assert_eq!(decide(same(), own(delay(5))).0, back());
    // A netem of the daemon is removed whatever the hardware address is, but nothing is installed on another link.
    assert_eq!(decide(other_address(), own(delay(5))).0, back());
    assert!(there(other_address(), default()));
    assert!(there(other_address(), own(delay(9))));
    assert!(there(other_kind(), default()));
    assert!(there(other_kind(), own(delay(5))));
    for link in [other_address(), other_kind()] {
        assert!(decide(link, default()).1.is_empty());
    }
    // The next change continues the lease under the same conditions.
    let goes_on = |link, root: Root| {
        let link: LinkIdentity = link;
        crate::lease::restore::is_on(lease.compare(Some(&link)), &root)
    };
    assert!(goes_on(same(), default().root) && goes_on(same(), own(delay(5)).root));
    assert!(goes_on(other_address(), own(delay(5)).root));
    assert!(!goes_on(other_address(), default().root));
    assert!(!goes_on(other_address(), theirs(delay(3)).root));
    assert!(!goes_on(other_kind(), own(delay(5)).root));
    // An earlier version did not write the identity of the link.
    let unknown = Lease {
        link: None,
        ..lease.clone()
    };
    assert_eq!(unknown.compare(Some(&other_kind())), LinkMatch::Same);
}
