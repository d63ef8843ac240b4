//! Tests of the times at which leases end: examples, and events in any order.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::ledger::{LeaseKey, Ledger};
use super::*;
use crate::kernel::link::Link;
use crate::kernel::netns::{MountedNamespaceId, NetnsKey, NetnsRef, ProcessNetnsId};

const A: NetnsKey = NetnsKey::Mounted(MountedNamespaceId::from_parts(4, 1, 1, 1));
const B: NetnsKey = NetnsKey::Mounted(MountedNamespaceId::from_parts(4, 1, 1, 2));

fn idle(_: LeaseKey) -> bool {
    false
}

#[test]
fn a_lease_is_due_when_it_ends_and_its_namespace_is_seen() {
    let mut ledger = Ledger::default();
    ledger.adopt((A, 2), lease(2), at(0));
    assert_eq!(ledger.due(at(20), idle), []);
    assert!(
        ledger
            .looked_at(A, &BTreeSet::from([1, 2]), Instant::now(), idle)
            .is_empty()
    );
    assert_eq!(ledger.due_at(idle), Some(at(10)));
    assert_eq!(ledger.due(at(9), idle), []);
    assert_eq!(ledger.due(at(10), idle), [(A, 2)]);
    assert_eq!(ledger.due(at(10), |_| true), []);
    assert_eq!(ledger.due_at(|_| true), None, "no timer for what is busy");
}

/// A daemon that is killed may leave the file of a lease whose change never reached the kernel, or was followed by
/// another change.
#[test]
fn a_lease_of_an_earlier_run_ends_unless_the_kernel_has_what_it_set() {
    for (set, netem, ends) in [
        (Some(delay(5)), Some(delay(5)), false),
        (Some(delay(5)), Some(delay(6)), true),
        (Some(delay(5)), None, true),
        (None, None, false),
        (None, Some(delay(5)), true),
    ] {
        let mut ledger = Ledger::default();
        let left = Lease {
            set: vec![set],
            ..lease(2)
        };
        ledger.adopt((A, 2), left, at(0));
        ledger.looked_at(A, &BTreeSet::from([2]), Instant::now(), idle);
        let link = |root_netem, netem| Link {
            root_netem,
            netem,
            ..Link::sample(2, "far")
        };
        ledger.check_adopted(A, &[link(true, None)], idle);
        ledger.check_adopted(A, &[link(netem.is_some(), netem)], |_| true);
        assert!(
            ledger.due(at(1), idle).is_empty(),
            "it was not read, or is busy"
        );
        ledger.check_adopted(A, &[link(netem.is_some(), netem)], idle);
        assert_eq!(
            !ledger.due(at(1), idle).is_empty(),
            ends,
            "{set:?} {netem:?}"
        );
        ledger.check_adopted(A, &[link(true, Some(delay(7)))], idle);
        assert_eq!(
            !ledger.due(at(1), idle).is_empty(),
            ends,
            "later changes are judged at its end"
        );
    }
}

#[test]
fn a_namespace_that_comes_back_is_restored_and_one_that_does_not_is_forgotten() {
    let mut ledger = Ledger::default();
    ledger.settle((A, 2), Some(lease(2)));
    ledger.settle((B, 2), Some(lease(2)));
    ledger.lost(A, at(5));
    ledger.lost(B, at(5));
    assert_eq!(ledger.due(at(20), idle), []);
    ledger.looked_at(B, &BTreeSet::from([2]), Instant::now(), idle);
    assert_eq!(ledger.due(at(20), idle), [(B, 2)]);
    assert!(ledger.forget(at(5 + 3599)).is_empty());
    assert_eq!(ledger.forget(at(5 + 3600)).len(), 1);
    assert!(ledger.get((A, 2)).is_none() && ledger.get((B, 2)).is_some());
}

#[test]
fn what_is_owed_is_still_owed_after_a_change_that_failed() {
    let mut ledger = Ledger::default();
    let id = "s #1".to_owned();
    let held = Lease {
        owner: Owner::Scenario { id },
        ..lease(2)
    };
    ledger.settle((A, 2), Some(held.clone()));
    ledger.end_scenario(Some("s #1"));
    ledger.put_off((A, 2), at(5));
    assert_eq!(ledger.due_at(idle), Some(at(6)));
    ledger.settle((A, 2), Some(held.clone()));
    assert_eq!(ledger.due_at(idle), Some(at(6)));
    assert!(ledger.is_owed((A, 2)));
    // A new lease replaces it, and no restoration of the new one has failed.
    let set = vec![Some(delay(7))];
    ledger.settle((A, 2), Some(Lease { set, ..held }));
    assert!(!ledger.is_owed((A, 2)));
}

#[test]
fn a_link_that_is_gone_takes_its_lease_along() {
    let mut ledger = Ledger::default();
    ledger.settle((A, 2), Some(lease(2)));
    ledger.settle((A, 3), Some(lease(3)));
    let links = BTreeSet::from([3]);
    assert!(
        ledger
            .looked_at(A, &links, Instant::now(), |_| true)
            .is_empty()
    );
    assert_eq!(
        ledger.looked_at(A, &links, Instant::now(), idle),
        [lease(2)]
    );
    assert!(ledger.get((A, 3)).is_some());
}

#[test]
fn a_look_that_began_before_a_change_does_not_end_its_lease() {
    let mut ledger = Ledger::default();
    let two = |generation| Link {
        generation,
        ..Link::sample(2, "far")
    };
    ledger.settle((A, 2), Some(lease(2)));
    ledger.is_on((A, 2), 1);
    let before = Instant::now();
    let changed = before + Duration::from_millis(1);
    let after = before + Duration::from_millis(2);
    ledger.changed((A, 2), changed);
    assert_eq!(ledger.replaced(A, &[two(2)], before, idle), []);
    assert_eq!(ledger.looked_at(A, &BTreeSet::new(), before, idle), []);
    // A new lease of the interface keeps the time of the last change.
    ledger.settle(
        (A, 2),
        Some(Lease {
            expires: None,
            ..lease(2)
        }),
    );
    assert_eq!(ledger.looked_at(A, &BTreeSet::new(), before, idle), []);
    // The netem may be that of the lease although its parameters could not be read.
    let unread = Link {
        root_netem: true,
        ..two(2)
    };
    assert_eq!(ledger.replaced(A, &[unread], after, idle), []);
    assert_eq!(ledger.replaced(A, &[two(3)], after, idle).len(), 1);
}

const MOUNTED: MountedNamespaceId = MountedNamespaceId::from_parts(4, 1, 1, 1);
const HELD: ProcessNetnsId = ProcessNetnsId::from_parts(4, 1, 20, 5);

fn name() -> NetnsRef {
    let path = "/run/netns/a".into();
    NetnsRef::Name { path, id: MOUNTED }
}

#[test]
fn a_lease_is_found_by_each_way_to_its_namespace() {
    let other = NetnsRef::Process(ProcessNetnsId::from_parts(4, 1, 20, 6));
    let process = NetnsRef::Process(HELD);
    for (first, also, seen) in [
        (HELD.into(), vec![], process.clone()),
        (HELD.into(), vec![MOUNTED.into()], name()),
        (MOUNTED.into(), vec![HELD.into()], process.clone()),
    ] {
        let lease = Lease {
            netns: first,
            also,
            ..lease(2)
        };
        let adopted = home().key(first).expect("not of another daemon");
        let mut ledger = Ledger::default();
        ledger.adopt((adopted, 2), lease.clone(), at(0));
        assert!(
            ledger
                .met(other.key(), std::slice::from_ref(&other))
                .is_empty()
        );
        assert!(ledger.get((other.key(), 2)).is_none(), "another process");
        assert!(
            ledger
                .met(seen.key(), std::slice::from_ref(&seen))
                .is_empty()
        );
        assert_eq!(ledger.get((seen.key(), 2)), Some(&lease));
        ledger.looked_at(seen.key(), &BTreeSet::from([2]), Instant::now(), idle);
        assert_eq!(ledger.due(at(10), idle), [(seen.key(), 2)]);
        // The leases of a known namespace are in force.
        assert!(
            ledger
                .met(process.key(), &[name(), process.clone()])
                .is_empty()
        );
        assert!(ledger.get((seen.key(), 2)).is_some());
    }
}

#[test]
fn an_interface_has_one_lease() {
    let mut ledger = Ledger::default();
    let of = |netns, also| Lease {
        netns,
        also,
        ..lease(2)
    };
    let (first, second) = (of(HELD.into(), vec![]), of(MOUNTED.into(), vec![]));
    ledger.adopt((NetnsKey::Held(HELD), 2), first.clone(), at(0));
    ledger.adopt((NetnsKey::Mounted(MOUNTED), 2), second.clone(), at(0));
    let surplus = ledger.met(NetnsKey::Held(HELD), &[NetnsRef::Process(HELD), name()]);
    assert_eq!(surplus, [second]);
    assert_eq!(ledger.get((NetnsKey::Held(HELD), 2)), Some(&first));
}

#[test]
fn a_lease_says_by_which_ways_its_namespace_is_known() {
    let mut ledger = Ledger::default();
    let key = NetnsKey::Mounted(MOUNTED);
    let lease = Lease {
        netns: MOUNTED.into(),
        ..lease(2)
    };
    ledger.settle((key, 2), Some(lease.clone()));
    assert!(ledger.led_to_by(key, &[name()]).is_empty(), "nothing new");
    let amended = Lease {
        also: vec![HELD.into()],
        ..lease
    };
    let netns_refs = [name(), NetnsRef::Process(HELD)];
    assert_eq!(ledger.led_to_by(key, &netns_refs), [amended]);
    assert!(ledger.led_to_by(key, &netns_refs).is_empty());
}

#[derive(Debug, Clone)]
enum Event {
    Apply { ifindex: u32, ttl: Option<u64> },
    Lost,
    Seen,
    Tick,
    Crash,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..3_u32, proptest::option::of(1..5_u64))
            .prop_map(|(ifindex, ttl)| Event::Apply { ifindex, ttl }),
        1 => Just(Event::Lost),
        2 => Just(Event::Seen),
        4 => Just(Event::Tick),
        1 => Just(Event::Crash),
    ]
}

proptest! {
    /// Checks after any history: once the namespace is seen, leases that have ended are restored within the step, other
    /// leases stay, and permanent changes are never undone.
    #[test]
    fn nothing_is_left_behind_and_nothing_is_lost(events in prop::collection::vec(event(), 1..60)) {
        let mut ledger = Ledger::default();
        // The state of the kernel: no impairment, or one with or without an end.
        let mut kernel: [Option<Option<BootTime>>; 3] = [None; 3];
        let mut seen = true;
        let links = BTreeSet::from([0, 1, 2]);
        for (second, event) in (1..).zip(events) {
            let now = at(second);
            match event {
                Event::Apply { ifindex, ttl } => {
                    let expires = ttl.map(|ttl| now.plus(Duration::from_secs(ttl)));
                    kernel[ifindex as usize] = Some(expires);
                    let held = expires.map(|_| Lease { expires, ..lease(ifindex) });
                    ledger.settle((A, ifindex), held);
                    seen = true;
                    ledger.looked_at(A, &links, Instant::now(), idle);
                }
                Event::Lost => {
                    ledger.lost(A, now);
                    seen = false;
                }
                Event::Seen => {
                    ledger.looked_at(A, &links, Instant::now(), idle);
                    seen = true;
                }
                Event::Tick => {}
                Event::Crash => {
                    let mut next = Ledger::default();
                    for ifindex in 0..3 {
                        if let Some(lease) = ledger.get((A, ifindex)) {
                            next.adopt((A, ifindex), lease.clone(), now);
                        }
                    }
                    ledger = next;
                    seen = false;
                }
            }
            for key in ledger.due(now, idle) {
                prop_assert!(seen);
                let ends = kernel[key.1 as usize].flatten();
                prop_assert!(ends.is_some_and(|ends| ends <= now), "{ends:?} restored at {now:?}");
                kernel[key.1 as usize] = None;
                ledger.settle(key, None);
            }
            if seen {
                let over = kernel.iter().flatten().flatten().any(|ends| *ends <= now);
                prop_assert!(!over, "left behind: {kernel:?}");
                let next = kernel.iter().flatten().flatten().min();
                prop_assert_eq!(ledger.due_at(idle), next.copied());
            }
        }
    }
}
