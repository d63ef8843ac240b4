//! Leases on disk: complete or absent, and never in the way.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::super::journal::{Journal, JournalError, Late};
use super::*;
use crate::kernel::netem::{Distribution, Loss, Probability, Random, Rate, Slot};

fn files(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state.join("leases")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn open(state: &Path) -> Journal {
    Journal::open(state, home()).unwrap()
}

fn everything() -> Netem {
    Netem {
        limit: 7,
        latency_ns: u64::MAX,
        jitter_ns: 3,
        delay_correlation: Probability::from_raw(1),
        distribution: Some(Distribution::ParetoNormal),
        loss: Loss::FourState {
            p13: Probability::from_raw(2),
            p31: Probability::ONE,
            p32: Probability::ZERO,
            p14: Probability::from_raw(3),
            p23: Probability::from_raw(4),
        },
        duplicate: Random {
            probability: Probability::from_raw(u32::MAX - 1),
            correlation: Probability::from_raw(5),
        },
        corrupt: Random::default(),
        reorder: Random::default(),
        gap: 4,
        rate: Rate {
            bytes_per_s: u64::MAX,
            packet_overhead: -20,
            cell_size: 48,
            cell_overhead: 5,
        },
        slot: Some(Slot {
            distribution: Some(Distribution::Normal),
            ..Slot::default()
        }),
        ecn: true,
        seed: Some(u64::MAX),
    }
}

#[test]
fn what_is_written_is_read_back_exactly() {
    let state = tempfile::tempdir().unwrap();
    let lease = Lease {
        ifname: r"../\xff\n".to_owned(),
        before: Before {
            netem: Some((0x8001_0000, everything())),
            lost: vec!["tbf 3:".to_owned()],
        },
        set: vec![None, Some(everything())],
        owner: Owner::Scenario {
            id: "../../etc/passwd".to_owned(),
        },
        confirm_by: Some(at(3)),
        ..lease(7)
    };
    let host = Lease {
        netns: home().netns(crate::kernel::netns::NetnsKey::Host),
        ..lease.clone()
    };
    let journal = open(state.path());
    journal.write(&super::lease(7)).unwrap();
    journal.write(&lease).unwrap();
    journal.write(&host).unwrap();
    assert_eq!(files(state.path()).len(), 2, "one file for each interface");
    for file in files(state.path()) {
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    drop(journal);
    let journal = open(state.path());
    let loaded = journal.load().unwrap().leases;
    assert!(loaded.len() == 2 && loaded.contains(&lease) && loaded.contains(&host));
    journal.erase(&lease).unwrap();
    journal.erase(&lease).unwrap();
    assert_eq!(journal.load().unwrap().leases, [host]);
}

#[test]
fn ways_are_written_into_a_lease_that_is_there_and_into_no_other() {
    let state = tempfile::tempdir().unwrap();
    let journal = open(state.path());
    let held = LeaseNetns::Held {
        device: 4,
        inode: 4_026_532_001,
        pid: 20,
        started: 5,
    };
    let lease = Lease {
        netns: held,
        ..lease(7)
    };
    let amended = Lease {
        also: vec![NETNS],
        set: vec![None],
        ..lease.clone()
    };
    let amend = || {
        journal.intend(&amended, Late::Amend(amended.also.clone()));
        journal.catch_up(&amended).unwrap();
    };
    amend();
    assert!(journal.load().unwrap().leases.is_empty(), "it has ended");
    journal.write(&lease).unwrap();
    amend();
    let expected = Lease {
        also: vec![NETNS],
        ..lease.clone()
    };
    assert_eq!(journal.load().unwrap().leases, [expected]);
    journal.erase(&amended).unwrap();
    assert!(files(state.path()).is_empty());
}

#[test]
fn what_was_to_be_done_before_a_lease_was_written_anew_is_not_done_to_it() {
    let state = tempfile::tempdir().unwrap();
    let journal = open(state.path());
    let old = lease(7);
    let new = Lease {
        expires: Some(at(20)),
        ..lease(7)
    };
    for late in [Late::Erase, Late::Amend(vec![NETNS])] {
        journal.write(&old).unwrap();
        journal.intend(&old, late.clone());
        journal.write(&new).unwrap();
        journal.catch_up(&old).unwrap();
        let left = journal.load().unwrap().leases;
        assert_eq!(left, std::slice::from_ref(&new), "{late:?}");
    }
    // Of two that come in the wrong order the newer one holds.
    journal.intend(&new, Late::Amend(vec![]));
    journal.intend(&new, Late::Amend(vec![NETNS]));
    journal.catch_up(&new).unwrap();
    journal.catch_up(&new).unwrap();
    assert_eq!(journal.load().unwrap().leases[0].also, [NETNS]);
    journal.intend(&new, Late::Erase);
    journal.catch_up(&new).unwrap();
    assert!(files(state.path()).is_empty());
}

#[test]
fn one_process_at_a_time() {
    let state = tempfile::tempdir().unwrap();
    let journal = open(state.path());
    let second = Journal::open(state.path(), home());
    assert!(
        matches!(second, Err(JournalError::Held { .. })),
        "{second:?}"
    );
    drop(journal);
    open(state.path());
}

#[test]
fn leases_of_another_boot_are_discarded() {
    let state = tempfile::tempdir().unwrap();
    let mut other = home();
    other.boot_id = "another".to_owned();
    let journal = Journal::open(state.path(), other).unwrap();
    journal.write(&lease(1)).unwrap();
    journal.write(&lease(2)).unwrap();
    drop(journal);
    let loaded = open(state.path()).load().unwrap();
    assert!(loaded.leases.is_empty() && loaded.discarded == 2);
    assert!(files(state.path()).is_empty());
}

#[test]
fn damaged_files_are_set_aside_and_hide_nothing() {
    let state = tempfile::tempdir().unwrap();
    let journal = open(state.path());
    journal.write(&lease(1)).unwrap();
    let [good] = &files(state.path())[..] else {
        panic!("one file");
    };
    let good = fs::read_to_string(good).unwrap();
    let leases = state.path().join("leases");
    let newer = good.replace("\"version\":1", "\"version\":2");
    for (name, content) in [
        ("empty.json", ""),
        ("cut.json", &good[..good.len() / 2]),
        ("newer.json", &newer),
        ("huge.json", &"[".repeat(200_000)),
        ("cut-off.new", "{"),
        ("note.txt", "of the administrator"),
    ] {
        fs::write(leases.join(name), content).unwrap();
    }
    fs::create_dir(leases.join("directory.json")).unwrap();
    for round in 0..2 {
        let loaded = journal.load().unwrap();
        assert_eq!(loaded.leases, [lease(1)]);
        assert_eq!(loaded.damaged.len(), if round == 0 { 5 } else { 0 });
        for damaged in loaded.damaged {
            assert!(damaged.file.exists(), "{damaged:?}");
        }
    }
    assert!(leases.join("empty.json.damaged").exists());
    assert!(!leases.join("cut-off.new").exists() && leases.join("note.txt").exists());
    fs::write(leases.join("empty.json"), "again").unwrap();
    journal.load().unwrap();
    assert_eq!(fs::read(leases.join("empty.json.damaged")).unwrap(), b"");
    assert_eq!(
        fs::read(leases.join("empty.json.damaged1")).unwrap(),
        b"again"
    );
}

#[test]
fn a_link_in_the_way_is_not_followed() {
    let state = tempfile::tempdir().unwrap();
    let journal = open(state.path());
    journal.write(&lease(1)).unwrap();
    let target = state.path().join("target");
    fs::write(&target, "precious").unwrap();
    let beside = files(state.path())[0].with_extension("new");
    symlink(&target, &beside).unwrap();
    journal.write(&lease(1)).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(journal.load().unwrap().leases, [lease(1)]);
}

#[test]
fn no_directory_is_a_clear_error() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("file");
    fs::write(&file, "").unwrap();
    let err = Journal::open(&file.join("state"), home()).unwrap_err();
    assert!(matches!(err, JournalError::Create { .. }), "{err:?}");
    assert!(err.to_string().contains("file/state"), "{err}");
}
