//! Tests of leases on disk: a file is complete or absent, and a damaged file affects no other lease.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::super::journal::{DeferredWrite, Journal, JournalError, Whereabouts};
use super::*;
use crate::kernel::netem::{Distribution, Loss, Probability, Random, Rate, Slot};
use crate::kernel::tbf::Tbf;

fn files(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state.join("leases")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn amend(also: Vec<LeaseNetns>) -> DeferredWrite {
    let ifname = "far".to_owned();
    DeferredWrite::Amend(Whereabouts { also, ifname })
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
        bottleneck: Some(Tbf {
            bytes_per_s: 1,
            burst: 2,
            limit: 3,
        }),
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
        ifname: "renamed".to_owned(),
        set: vec![None],
        ..lease.clone()
    };
    let amend = || {
        journal.intend(&amended, DeferredWrite::Amend(Whereabouts::of(&amended)));
        journal.catch_up(&amended).unwrap();
    };
    amend();
    assert!(journal.load().unwrap().leases.is_empty(), "it has ended");
    journal.write(&lease).unwrap();
    amend();
    let expected = Lease {
        also: vec![NETNS],
        ifname: "renamed".to_owned(),
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
    for late in [DeferredWrite::Erase, amend(vec![NETNS])] {
        journal.write(&old).unwrap();
        journal.intend(&old, late.clone());
        journal.write(&new).unwrap();
        journal.catch_up(&old).unwrap();
        let left = journal.load().unwrap().leases;
        assert_eq!(left, std::slice::from_ref(&new), "{late:?}");
    }
    // If two changes are recorded in the wrong order, the newer one applies.
    journal.intend(&new, amend(vec![]));
    journal.intend(&new, amend(vec![NETNS]));
    journal.catch_up(&new).unwrap();
    journal.catch_up(&new).unwrap();
    assert_eq!(journal.load().unwrap().leases[0].also, [NETNS]);
    journal.intend(&new, DeferredWrite::Erase);
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

#[test]
fn a_state_directory_that_others_could_have_written_to_is_refused() {
    let refusal = |state: &Path| match Journal::open(state, home()) {
        Err(err @ JournalError::Distrust(_)) => crate::error::chain(&err).to_string(),
        Err(err) => panic!("{err:?}"),
        Ok(journal) => match journal.load() {
            Err(err @ JournalError::Distrust(_)) => crate::error::chain(&err).to_string(),
            loaded => panic!("it was used: {loaded:?}"),
        },
    };
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state");
    let journal = open(&state);
    journal.write(&lease(1)).unwrap();
    drop(journal);
    let file = files(&state).remove(0);

    set(&state, 0o777);
    assert!(refusal(&state).contains("chmod 700"));
    set(&state, 0o700);
    set(&state.join("leases"), 0o770);
    assert!(refusal(&state).contains("/state/leases"));
    set(&state.join("leases"), 0o700);
    set(&file, 0o666);
    assert!(refusal(&state).contains("chmod 600"));
    set(&file, 0o600);
    std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
    assert!(refusal(&state).contains("65534"));
    fs::remove_file(&file).unwrap();
    symlink("/etc/passwd", &file).unwrap();
    assert!(refusal(&state).contains("a symbolic link"));
    fs::remove_file(&file).unwrap();

    let lock = state.join("lock");
    let target = root.path().join("target");
    fs::remove_file(&lock).unwrap();
    symlink(&target, &lock).unwrap();
    assert!(refusal(&state).contains("a symbolic link"));
    assert!(!target.exists(), "nothing was made behind the link");
    fs::remove_file(&lock).unwrap();
    nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(refusal(&state).contains("a FIFO"));
    fs::remove_file(&lock).unwrap();
    assert!(open(&state).load().unwrap().leases.is_empty());
}

#[test]
fn a_directory_that_no_daemon_has_used_is_said_and_not_made() {
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state");
    let err = Journal::open_existing(&state, home()).unwrap_err();
    assert!(matches!(err, JournalError::Missing { .. }), "{err:?}");
    assert!(err.to_string().contains("--state-dir"), "{err}");
    assert!(!state.exists());
    drop(open(&state));
    Journal::open_existing(&state, home()).unwrap();
}

fn netns_ref(pid: u64) -> LeaseNetns {
    LeaseNetns::Held {
        device: u64::MAX,
        inode: u64::MAX,
        pid: i32::try_from(pid).unwrap(),
        started: u64::MAX,
    }
}

#[test]
fn what_can_be_written_can_be_read() {
    let state = tempfile::tempdir().unwrap();
    let journal = open(state.path());
    let with_ways = |count: u64| Lease {
        also: (1..=count).map(netns_ref).collect(),
        ..lease(7)
    };
    let mut largest = 0;
    for count in [0, 64, 500, 600, 700, 2000] {
        match journal.write(&with_ways(count)) {
            Ok(()) => {
                largest = count;
                let loaded = journal.load().unwrap();
                assert_eq!(loaded.leases, [with_ways(count)], "{count}");
            }
            Err(err) => {
                assert!(matches!(err, JournalError::TooLarge { .. }), "{err:?}");
                assert!(err.to_string().contains("65536"), "{err}");
                // The earlier files are unchanged.
                let loaded = journal.load().unwrap();
                assert_eq!(loaded.leases, [with_ways(largest)], "{count}");
                assert!(loaded.damaged.is_empty(), "{loaded:?}");
            }
        }
    }
    assert!((64..2000).contains(&largest), "{largest}");
}

#[test]
fn a_lease_knows_as_many_ways_and_lost_qdiscs_as_can_be_written() {
    use crate::kernel::netns::{NetnsRef, ProcessNetnsId};
    use crate::tc::observed::{Observed, Root};

    let state = tempfile::tempdir().unwrap();
    let journal = open(state.path());
    let id = |pid| ProcessNetnsId::from_parts(u64::MAX, u64::MAX, pid, u64::MAX);
    let netns_refs: Vec<_> = (1..=5000).map(|pid| NetnsRef::Process(id(pid))).collect();
    let child = crate::tc::observed::QdiscName {
        kind: "k".repeat(15),
        handle: 0xffff_0000,
    };
    let observed = Observed {
        root: Root::ForeignNetem {
            handle: 0x8001_0000,
            netem: everything(),
        },
        in_use: Vec::new(),
        bottleneck: None,
        children: vec![child; 5000],
        netems_below: Vec::new(),
        statistics: crate::kernel::qdisc::QdiscStatistics::default(),
    };
    let mut lease = Lease {
        before: Before::of(&observed),
        set: vec![Some(everything()); 8],
        owner: Owner::Scenario {
            id: "\u{1}".repeat(255),
        },
        ..lease(7)
    };
    assert!(lease.led_to_by(&netns_refs));
    assert!(!lease.led_to_by(&netns_refs), "the same ways are no news");
    lease.beneath = Some(lease.before.clone());
    journal.write(&lease).unwrap();
    assert_eq!(journal.load().unwrap().leases, [lease]);
}
