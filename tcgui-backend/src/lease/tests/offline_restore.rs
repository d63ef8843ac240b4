//! Leases of namespaces without a name, ended without the daemon.

use super::super::journal::Journal;
use super::super::offline_restore::{Wanted, restore};
use super::*;
use crate::kernel::lab::HeldNetns;

/// Restores everything, and returns what was told of each lease.
fn restored(state: &std::path::Path) -> Vec<String> {
    let wanted = Wanted {
        state: state.to_owned(),
        netns: "/nowhere".into(),
        all: true,
    };
    let mut told = Vec::new();
    restore(&wanted, |what, fate| {
        told.push(format!("{what}: {}", fate.expect("it can be ended")));
    })
    .unwrap();
    told
}

#[test]
fn a_lease_is_ended_in_the_namespace_of_a_process() {
    let state = tempfile::tempdir().unwrap();
    let holder = HeldNetns::new();
    let id = holder.id();
    let lease = |ifindex, netns, also| Lease {
        netns,
        also,
        ..lease(ifindex)
    };
    let journal = Journal::open(state.path(), home()).unwrap();
    // Its loopback has no netem, which is not what was set; and there is no link 99.
    journal.write(&lease(1, id.into(), vec![])).unwrap();
    journal.write(&lease(99, NETNS, vec![id.into()])).unwrap();
    drop(journal);
    let told = restored(state.path());
    let fate_of = |netns: LeaseNetns| {
        let what = format!("far in {netns}: ");
        told.iter().find_map(|told| told.strip_prefix(&what))
    };
    assert_eq!(fate_of(id.into()), Some("nothing to restore"), "{told:?}");
    assert_eq!(fate_of(NETNS), Some("the interface is gone"), "{told:?}");
    assert!(restored(state.path()).is_empty(), "both have ended");

    let journal = Journal::open(state.path(), home()).unwrap();
    journal.write(&lease(1, id.into(), vec![])).unwrap();
    drop(journal);
    drop(holder);
    let told = restored(state.path());
    assert!(
        told[0].ends_with("nothing leads to the namespace"),
        "{told:?}"
    );
}
