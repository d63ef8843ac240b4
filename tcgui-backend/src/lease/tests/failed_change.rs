//! Tests of the lease after a change that failed, for each state of the root.

use super::super::failed_change::{AfterFailure, after_failure};
use super::*;
use crate::tc::handle::{self, Tables};
use crate::tc::observed::{QdiscName, Root};

fn own(ms: u64) -> Root {
    Root::Own {
        handle: handle::for_tables(Tables::default(), &[]),
        netem: delay(ms),
    }
}

#[test]
fn a_refused_change_leaves_the_lease_as_it_was() {
    let held = lease(3);
    let root = own(5);
    // The change was refused before it began, or the root is the same.
    for (before, after) in [
        (None, Some(&root)),
        (None, None),
        (Some(&root), Some(&root)),
    ] {
        let kept = after_failure(Some(&held), None, before, after);
        assert_eq!(kept, AfterFailure::AsBefore(Some(held.clone())));
        let none = after_failure(None, None, before, after);
        assert_eq!(none, AfterFailure::AsBefore(None));
    }
}

#[test]
fn a_lease_that_was_written_for_nothing_is_taken_back() {
    let (held, recorded) = (
        lease(3),
        Lease {
            expires: Some(at(20)),
            ..lease(3)
        },
    );
    let (before, after) = (
        Root::Absent,
        Root::Default {
            kind: "noqueue".into(),
        },
    );
    let back = after_failure(
        Some(&held),
        Some(recorded.clone()),
        Some(&before),
        Some(&after),
    );
    assert_eq!(back, AfterFailure::Write(held));
    let gone = after_failure(None, Some(recorded.clone()), Some(&before), Some(&after));
    assert_eq!(gone, AfterFailure::Erase(recorded));
}

#[test]
fn a_root_that_another_program_has_installed_is_under_no_new_lease() {
    let (held, recorded) = (lease(3), lease(4));
    let theirs = |handle| Root::ForeignNetem {
        handle,
        netem: delay(9),
    };
    let htb = Root::Foreign(QdiscName {
        kind: "htb".into(),
        handle: 1 << 16,
    });
    for (before, after) in [
        (own(5), &htb),
        (own(5), &theirs(2 << 16)),
        (theirs(3 << 16), &theirs(2 << 16)),
    ] {
        let of = |held| after_failure(held, Some(recorded.clone()), Some(&before), Some(after));
        assert_eq!(of(None), AfterFailure::Erase(recorded.clone()));
        assert_eq!(of(Some(&held)), AfterFailure::Write(held.clone()));
    }
    // The same netem with other parameters may be the first step of its replacement.
    let changed = Root::ForeignNetem {
        handle: 3 << 16,
        netem: delay(8),
    };
    let before = theirs(3 << 16);
    let kept = after_failure(None, Some(recorded.clone()), Some(&before), Some(&changed));
    assert_eq!(kept, AfterFailure::Write(recorded));
}

#[test]
fn a_change_that_may_have_taken_effect_keeps_its_lease() {
    let recorded = Lease {
        expires: Some(at(20)),
        ..lease(3)
    };
    let (before, after) = (own(5), own(7));
    for (after, netems) in [
        (Some(&after), vec![Some(delay(5)), Some(delay(7))]),
        (None, vec![Some(delay(5))]),
    ] {
        let kept = after_failure(
            Some(&lease(3)),
            Some(recorded.clone()),
            Some(&before),
            after,
        );
        let expected = Lease {
            set: netems,
            ..recorded.clone()
        };
        assert_eq!(kept, AfterFailure::Write(expected));
    }
    // A permanent change records no lease. The earlier lease may still have to undo the change.
    let kept = after_failure(Some(&lease(3)), None, Some(&before), Some(&after));
    let expected = Lease {
        set: vec![Some(delay(5)), Some(delay(7))],
        ..lease(3)
    };
    assert_eq!(kept, AfterFailure::Write(expected));
    let none = after_failure(None, None, Some(&before), Some(&after));
    assert_eq!(none, AfterFailure::AsBefore(None));
}
