//! Tests of namespaces without references, and of those that reappear under other names.

use super::leases::{begins, lease, outcome, work};
use super::*;
use crate::kernel::netem::Netem;
use crate::lease::{Before, LeaseNetns, Owner};

const KEY: NetnsKey = NetnsKey::Mounted(A);
/// A later namespace with the inode number of `A`, under another name.
const AGAIN: MountedNamespaceId = MountedNamespaceId::from_parts(4, 1, 9, 9);
const SECOND: Duration = Duration::from_secs(1);

fn removed() -> Input {
    Input::Namespace(NamespaceEvent::Removed {
        name: "a".into(),
        id: A,
    })
}

/// Returns a state in which the lease is in force on an interface of the namespace `a`.
fn leased(lease: Lease) -> Bench {
    let mut bench = Bench::warm();
    bench.step(added("a", A));
    bench.step(links(KEY, &[link(2, "v0", true)]));
    bench.step(Input::Published(COST));
    bench.state.ledger.settle((KEY, 2), Some(lease));
    bench.wait(SECOND);
    bench
}

fn of_a(owner: Owner, expires: Option<BootTime>) -> Lease {
    Lease {
        netns: LeaseNetns::from(A),
        cookie: Some(4711),
        ..lease(owner, expires)
    }
}

fn releases(effects: &[Effect]) -> bool {
    let is_end = |effect: &Effect| matches!(effect, Effect::Forget(key) if *key == KEY);
    effects.iter().any(is_end)
}

#[test]
fn interfaces_under_a_lease_are_restored_before_a_namespace_is_released() {
    let later = BootTime::after_boot(SECOND * 1_000);
    let scenario = Owner::Scenario { id: "s".to_owned() };
    for lease in [
        of_a(Owner::Plain, Some(later)),
        of_a(scenario, None),
        Lease {
            confirm_by: Some(later),
            ..of_a(Owner::Confirm, None)
        },
    ] {
        let mut bench = leased(lease.clone());
        let effects = bench.step(removed());
        assert!(!releases(&effects), "its socket is needed: {effects:?}");
        let untracked = |effect: &Effect| matches!(effect, Effect::Untrack(KEY, _));
        assert!(effects.iter().any(untracked), "{effects:?}");
        let change = work(effects);
        assert_eq!(change.order.work, TcWork::Restore);
        assert_eq!(change.order.place.key, KEY);
        assert!(change.order.place.netns_refs.is_empty());
        let effects = bench.changed(change, None, Ok((outcome(), Instant::now())));
        assert!(releases(&effects), "{effects:?}");
        assert!(bench.state.ledger.is_empty());
    }
}

#[test]
fn a_namespace_without_a_lease_is_released_at_once() {
    let mut bench = Bench::warm();
    bench.step(added("a", A));
    bench.step(links(KEY, &[link(2, "v0", true)]));
    assert!(releases(&bench.step(removed())));
}

#[test]
fn a_namespace_is_released_after_two_failed_restorations() {
    let later = Some(BootTime::after_boot(SECOND * 1_000));
    let held = of_a(Owner::Plain, later);
    let mut bench = leased(held.clone());
    let mut change = work(bench.step(removed()));
    let failed = || Err((ErrorKind::NotFound, "no socket".to_owned()));
    let effects = bench.changed(change, Some(held.clone()), failed());
    assert!(!releases(&effects) && !begins(&effects), "{effects:?}");
    bench.wait(SECOND);
    change = work(bench.step(Input::Timer));
    let effects = bench.changed(change, Some(held), failed());
    assert!(releases(&effects), "{effects:?}");
    // The namespace may reappear.
    assert!(bench.state.ledger.get((KEY, 2)).is_some());
    bench.wait(SECOND * 60);
    assert!(!begins(&bench.step(Input::Timer)));
}

#[test]
fn a_change_under_way_is_restored_if_its_namespace_disappears() {
    let mut bench = Bench::warm();
    bench.step(added("a", A));
    bench.step(links(KEY, &[link(2, "v0", false)]));
    bench.step(Input::Published(COST));
    bench.wait(SECOND);
    let (effects, _answer) = bench.tc("a", tcgui_shared::tc::TcOperation::Remove);
    let change = work(effects);
    let effects = bench.step(removed());
    assert!(!releases(&effects) && !begins(&effects), "{effects:?}");
    let later = Some(BootTime::after_boot(SECOND * 1_000));
    let held = of_a(Owner::Plain, later);
    let effects = bench.changed(change, Some(held), Ok((outcome(), Instant::now())));
    assert!(!releases(&effects), "{effects:?}");
    let change = work(effects);
    assert_eq!(change.order.work, TcWork::Restore);
    let effects = bench.changed(change, None, Ok((outcome(), Instant::now())));
    assert!(releases(&effects), "{effects:?}");
}

#[test]
fn a_namespace_that_reappears_is_not_released() {
    let later = Some(BootTime::after_boot(SECOND * 1_000));
    let mut bench = leased(of_a(Owner::Plain, later));
    let change = work(bench.step(removed()));
    bench.step(added("a", A));
    let effects = bench.changed(change, None, Ok((outcome(), Instant::now())));
    assert!(!releases(&effects), "{effects:?}");
    assert!(bench.state.departing.is_empty());
}

#[test]
fn a_namespace_that_reappears_after_a_failed_restoration_is_restored() {
    let later = Some(BootTime::after_boot(SECOND * 1_000));
    let netem = Netem {
        limit: 1000,
        ..Netem::default()
    };
    let before = Before {
        netem: Some((0x8001_0000, netem)),
        lost: Vec::new(),
    };
    let held = Lease {
        before: before.clone(),
        ..of_a(Owner::Plain, later)
    };
    let mut bench = leased(held.clone());
    bench.step(links(KEY, &[link(2, "v0", true)]));
    let change = work(bench.step(removed()));
    let failed = Err((ErrorKind::NotFound, "no socket".to_owned()));
    bench.changed(change, Some(held), failed);
    bench.step(added("a", A));
    bench.wait(SECOND);
    assert!(!begins(&bench.step(Input::Timer)), "it is not seen yet");
    // The link was not tracked for some time, so it has a new generation.
    let seen_again = Link {
        generation: 7,
        ..link(2, "v0", true)
    };
    let change = work(bench.step(links(KEY, &[seen_again])));
    assert_eq!(change.order.work, TcWork::Restore);
    assert_eq!(change.order.held.map(|held| held.before), Some(before));
}

#[test]
fn a_namespace_with_a_new_key_is_restored_under_that_key() {
    let again = NetnsKey::Mounted(AGAIN);
    let later = Some(BootTime::after_boot(SECOND * 1_000));
    // The namespace is recognised by a recorded reference, or only by its cookie.
    for also in [vec![LeaseNetns::from(AGAIN)], vec![]] {
        let by_cookie = also.is_empty();
        let held = Lease {
            also,
            ..of_a(Owner::Plain, later)
        };
        let mut bench = leased(held.clone());
        let failed = || Err((ErrorKind::NotFound, "no socket".to_owned()));
        let mut change = work(bench.step(removed()));
        bench.changed(change, Some(held.clone()), failed());
        bench.step(added("again", AGAIN));
        bench.step(links(again, &[link(2, "v0", true)]));
        bench.wait(SECOND);
        change = work(bench.step(Input::Timer));
        let mut effects = bench.changed(change, Some(held), failed());
        assert!(releases(&effects), "{effects:?}");
        let asks = |it: &Effect| matches!(it, Effect::Identify(key, _) if *key == again);
        assert_eq!(effects.iter().any(asks), by_cookie, "{effects:?}");
        if by_cookie {
            effects = bench.step(Input::Identified {
                key: again,
                cookie: Some(4711),
            });
        }
        let looks = |it: &Effect| matches!(it, Effect::Recheck(key) if *key == again);
        assert!(effects.iter().any(looks), "{effects:?}");
        // The failures still delay the restoration.
        bench.wait(SECOND * 4);
        let change = work(bench.step(links(again, &[link(2, "v0", true)])));
        assert_eq!(
            (&change.order.work, change.lane()),
            (&TcWork::Restore, (again, 2))
        );
    }
}

#[test]
fn a_new_reference_finds_the_leases_of_a_known_namespace() {
    let again = NetnsKey::Mounted(AGAIN);
    let mut bench = Bench::warm();
    let left = of_a(Owner::Plain, Some(BootTime::default()));
    bench.step(added("again", AGAIN));
    bench.step(links(again, &[link(2, "v0", true)]));
    bench.state.adopt(vec![((KEY, 2), left)], bench.moment.boot);
    let effects = bench.step(added("a", A));
    let looks = |it: &Effect| matches!(it, Effect::Recheck(key) if *key == again);
    assert!(effects.iter().any(looks), "{effects:?}");
    assert!(begins(&bench.step(links(again, &[link(2, "v0", true)]))));
}

#[test]
fn a_namespace_whose_links_became_unreadable_is_restored_before_its_release() {
    let later = Some(BootTime::after_boot(SECOND * 1_000));
    let mut bench = leased(of_a(Owner::Plain, later));
    let unreadable = InterfacesEvent::Unreadable { key: KEY };
    let effects = bench.step(Input::Interfaces(unreadable));
    assert!(!begins(&effects), "{effects:?}");
    let effects = bench.step(removed());
    assert!(!releases(&effects), "{effects:?}");
    let change = work(effects);
    assert_eq!(
        (&change.order.work, change.lane()),
        (&TcWork::Restore, (KEY, 2))
    );
    let effects = bench.changed(change, None, Ok((outcome(), Instant::now())));
    assert!(releases(&effects), "{effects:?}");
}

#[test]
fn a_namespace_under_another_name_is_recognised_by_its_cookie() {
    let again = NetnsKey::Mounted(AGAIN);
    for (cookie, is_found) in [(Some(4711), true), (Some(4712), false), (None, false)] {
        let mut bench = Bench::warm();
        let left = of_a(Owner::Plain, Some(BootTime::default()));
        bench.state.adopt(vec![((KEY, 2), left)], bench.moment.boot);
        let effects = bench.step(added("again", AGAIN));
        let asks = |effect: &Effect| {
            matches!(effect, Effect::Identify(key, netns_refs)
            if *key == again && netns_refs.len() == 1)
        };
        assert!(effects.iter().any(asks), "{effects:?}");
        bench.step(links(again, &[link(2, "v0", true)]));
        let effects = bench.step(Input::Identified { key: again, cookie });
        let looks = |effect: &Effect| matches!(effect, Effect::Recheck(key) if *key == again);
        assert_eq!(effects.iter().any(looks), is_found || cookie.is_some());
        let effects = bench.step(links(again, &[link(2, "v0", true)]));
        assert_eq!(begins(&effects), is_found, "{effects:?}");
    }
    // The kernel reuses inode numbers, so the number alone is not enough. Without a lease of a lost namespace, no cookie is
    // read.
    let mut bench = Bench::warm();
    let effects = bench.step(added("again", AGAIN));
    assert!(!effects.iter().any(|it| matches!(it, Effect::Identify(..))));
}
