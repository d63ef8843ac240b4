//! Namespaces that the daemon lets go of, and those that come back under other names.

use super::leases::{begins, lease, outcome, work};
use super::*;
use crate::lease::{LeaseNetns, Owner};

const KEY: NetnsKey = NetnsKey::Mounted(A);
const SECOND: Duration = Duration::from_secs(1);

fn removed() -> Input {
    Input::Namespace(NamespaceEvent::Removed {
        name: "a".into(),
        id: A,
    })
}

/// An interface in the namespace `a` is under this lease.
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

fn lets_go(effects: &[Effect]) -> bool {
    let is_end = |effect: &Effect| matches!(effect, Effect::Forget(key) if *key == KEY);
    effects.iter().any(is_end)
}

#[test]
fn what_is_under_a_lease_is_restored_before_a_namespace_is_let_go() {
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
        assert!(!lets_go(&effects), "its socket is needed: {effects:?}");
        let untracked = |effect: &Effect| matches!(effect, Effect::Untrack(KEY, _));
        assert!(effects.iter().any(untracked), "{effects:?}");
        let change = work(effects);
        assert_eq!(change.order.work, TcWork::Restore);
        assert_eq!(change.order.place.key, KEY);
        assert!(change.order.place.netns_refs.is_empty());
        let effects = bench.changed(change, None, Ok((outcome(), Instant::now())));
        assert!(lets_go(&effects), "{effects:?}");
        assert!(bench.state.ledger.is_empty());
    }
}

#[test]
fn a_namespace_without_a_lease_is_let_go_at_once() {
    let mut bench = Bench::warm();
    bench.step(added("a", A));
    bench.step(links(KEY, &[link(2, "v0", true)]));
    assert!(lets_go(&bench.step(removed())));
}

#[test]
fn a_namespace_is_let_go_when_the_restoration_has_failed_twice() {
    let later = Some(BootTime::after_boot(SECOND * 1_000));
    let held = of_a(Owner::Plain, later);
    let mut bench = leased(held.clone());
    let mut change = work(bench.step(removed()));
    let failed = || Err((ErrorKind::NotFound, "no socket".to_owned()));
    let effects = bench.changed(change, Some(held.clone()), failed());
    assert!(!lets_go(&effects) && !begins(&effects), "{effects:?}");
    bench.wait(SECOND);
    change = work(bench.step(Input::Timer));
    let effects = bench.changed(change, Some(held), failed());
    assert!(lets_go(&effects), "{effects:?}");
    // It may come back.
    assert!(bench.state.ledger.get((KEY, 2)).is_some());
    bench.wait(SECOND * 60);
    assert!(!begins(&bench.step(Input::Timer)));
}

#[test]
fn a_change_that_is_under_way_when_its_namespace_goes_is_taken_back() {
    let mut bench = Bench::warm();
    bench.step(added("a", A));
    bench.step(links(KEY, &[link(2, "v0", false)]));
    bench.step(Input::Published(COST));
    bench.wait(SECOND);
    let (effects, _answer) = bench.tc("a", tcgui_shared::tc::TcOperation::Remove);
    let change = work(effects);
    let effects = bench.step(removed());
    assert!(!lets_go(&effects) && !begins(&effects), "{effects:?}");
    let later = Some(BootTime::after_boot(SECOND * 1_000));
    let held = of_a(Owner::Plain, later);
    let effects = bench.changed(change, Some(held), Ok((outcome(), Instant::now())));
    assert!(!lets_go(&effects), "{effects:?}");
    let change = work(effects);
    assert_eq!(change.order.work, TcWork::Restore);
    let effects = bench.changed(change, None, Ok((outcome(), Instant::now())));
    assert!(lets_go(&effects), "{effects:?}");
}

#[test]
fn a_namespace_that_comes_back_is_not_let_go() {
    let later = Some(BootTime::after_boot(SECOND * 1_000));
    let mut bench = leased(of_a(Owner::Plain, later));
    let change = work(bench.step(removed()));
    bench.step(added("a", A));
    let effects = bench.changed(change, None, Ok((outcome(), Instant::now())));
    assert!(!lets_go(&effects), "{effects:?}");
    assert!(bench.state.departing.is_empty());
}

#[test]
fn a_namespace_under_another_name_is_recognised_by_its_cookie() {
    const AGAIN: MountedNamespaceId = MountedNamespaceId::from_parts(4, 1, 9, 9);
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
    // The number of an inode is given to other namespaces, so it alone does not suffice. Without a lease that is out of
    // sight, nobody asks.
    let mut bench = Bench::warm();
    let effects = bench.step(added("again", AGAIN));
    assert!(!effects.iter().any(|it| matches!(it, Effect::Identify(..))));
}
