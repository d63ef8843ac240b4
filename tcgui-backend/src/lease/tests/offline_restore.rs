//! Tests of leases of namespaces without a name that end without the daemon.

use super::super::journal::Journal;
use super::super::offline_restore::{Fate, Wanted, end_inside, restore};
use super::*;
use crate::kernel::boot;
use crate::kernel::lab::HeldNetns;
use crate::kernel::netns::{NetnsRef, ProcessNetnsId, inside};

/// Restores all leases, and returns the reports.
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
    // The loopback has no netem, but the lease has set one. Link 99 does not exist.
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

/// Returns a reference to the namespace of a process, and the cookie of that namespace.
fn reference(id: ProcessNetnsId) -> (NetnsRef, Option<u64>) {
    let netns_ref = NetnsRef::Process(id);
    let files = NetnsFiles::new().unwrap();
    let netns = files.open_any(std::slice::from_ref(&netns_ref)).unwrap();
    (netns_ref, inside(netns, boot::netns_cookie).unwrap())
}

#[test]
fn a_lease_is_not_ended_in_a_namespace_that_has_taken_its_inode_number() {
    let state = tempfile::tempdir().unwrap();
    let holder = HeldNetns::new();
    let id = holder.id();
    for (cookie, fate) in [
        (Some(u64::MAX), "nothing leads to the namespace"),
        (reference(id).1, "nothing to restore"),
    ] {
        let journal = Journal::open(state.path(), home()).unwrap();
        let lease = Lease {
            netns: id.into(),
            cookie,
            ..lease(1)
        };
        journal.write(&lease).unwrap();
        drop(journal);
        let told = restored(state.path());
        assert!(told[0].ends_with(fate), "{told:?}");
    }
}

#[test]
fn a_reference_that_fails_does_not_hide_the_next_one() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path(), home()).unwrap();
    let (holder, other) = (HeldNetns::new(), HeldNetns::new());
    let (there, cookie) = reference(holder.id());
    let (elsewhere, _) = reference(other.id());
    let (device, inode, pid, started) = holder.id().parts();
    let dead = ProcessNetnsId::from_parts(device, inode, pid, started + 1);
    let dead = NetnsRef::Process(dead);
    let lease = Lease { cookie, ..lease(1) };
    let end = |netns_refs: &[NetnsRef]| {
        let files = NetnsFiles::new().unwrap();
        end_inside(&files, netns_refs, &journal, &(lease.clone(), None))
    };
    let ended = end(&[dead.clone(), elsewhere.clone(), there]);
    assert!(
        matches!(ended, Ok(Fate::Ended(Restored::Already))),
        "{ended:?}"
    );
    // If no namespace is the right one, the error is returned.
    end(&[dead, elsewhere.clone()]).unwrap_err();
    assert!(matches!(end(&[elsewhere]), Ok(Fate::NotSeen)));
}
