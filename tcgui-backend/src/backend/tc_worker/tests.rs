//! Tests of the lease that a worker uses, on the running kernel. None of them needs netem.

use std::time::Duration;

use super::*;
use crate::kernel::lab::PrivateNetns;
use crate::kernel::link::{Link, LinkIdentity};
use crate::kernel::netem::Netem;
use crate::kernel::netns::{NetnsFiles, NetnsRef};
use crate::kernel::rtnetlink::Rtnetlink;
use crate::lease::terms::{Grant, LeaseHolder};
use crate::lease::{Before, BootTime, Home, Owner};
use crate::sockets::NetnsTarget;
use crate::tc::plan::ForeignQdiscs;

/// A namespace with its loopback, and a state directory.
struct Lab {
    netns: PrivateNetns,
    sockets: NetnsSockets,
    state: tempfile::TempDir,
    leases: Leases,
}

impl Lab {
    fn new() -> Self {
        let files = NetnsFiles::new().unwrap();
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::open(state.path(), Home::learn(&files).unwrap()).unwrap();
        Self {
            netns: PrivateNetns::new(),
            sockets: NetnsSockets::new(Rtnetlink::open(1).unwrap(), files, 1),
            state,
            leases: Ok(Arc::new(journal)),
        }
    }

    fn cookie(&self) -> Option<u64> {
        self.netns.inside(boot::netns_cookie)
    }

    fn files(&self) -> usize {
        let files = std::fs::read_dir(self.state.path().join("leases"));
        files.unwrap().count()
    }

    /// Restores the loopback, which has nothing at its root, under a lease.
    fn restore(&self, lease: &Lease) -> TcResult {
        self.leases.as_ref().unwrap().write(lease).unwrap();
        let (path, id) = self.netns.path();
        let order = TcOrder {
            place: NetnsTarget {
                key: NetnsKey::Mounted(id),
                netns_refs: vec![NetnsRef::Name { path, id }],
                named: None,
            },
            link: Link::sample(1, "lo"),
            work: TcWork::Restore,
            foreign: ForeignQdiscs::Keep,
            held: Some(lease.clone()),
            begun: BootTime::default(),
        };
        carry_out(&self.sockets, &self.leases, &order)
    }

    fn lease(&self) -> Lease {
        Lease {
            netns: self.netns.path().1.into(),
            also: Vec::new(),
            ifindex: 1,
            ifname: "lo".to_owned(),
            link: None,
            cookie: self.cookie(),
            before: Before::default(),
            set: vec![None],
            owner: Owner::Plain,
            expires: None,
            confirm_by: None,
            holder: LeaseHolder::default(),
            under: None,
            beneath: None,
        }
    }
}

#[test]
fn a_lease_of_a_namespace_that_had_the_inode_number_before_is_dropped() {
    let lab = Lab::new();
    let later = Some(BootTime::now().plus(Duration::from_secs(1_000)));
    // A scenario has suspended a change whose end is still to come.
    let interrupted = Lease {
        owner: Owner::Scenario { id: "s".to_owned() },
        under: Some(Grant {
            owner: Owner::Plain,
            expires: later,
            confirm_by: None,
            holder: LeaseHolder::default(),
        }),
        beneath: Some(Before::default()),
        ..lab.lease()
    };
    let result = lab.restore(&interrupted);
    let left = result.lease.expect("the interrupted change goes on");
    assert_eq!((left.owner, left.expires), (Owner::Plain, later));
    assert_eq!(lab.files(), 1);
    let of_another = Lease {
        cookie: Some(u64::MAX),
        ..interrupted
    };
    let result = lab.restore(&of_another);
    assert!(result.outcome.is_ok(), "{result:?}");
    assert_eq!((result.lease, lab.files()), (None, 0));
}

#[test]
fn nothing_is_installed_on_a_link_that_is_not_that_of_the_lease() {
    let lab = Lab::new();
    let identity = |kind: Option<&str>, address| LinkIdentity {
        kind: kind.map(str::to_owned),
        peer: None,
        address,
    };
    for link in [
        identity(Some("dummy"), vec![0; 6]),
        identity(None, vec![2; 6]),
    ] {
        // The lease replaced a netem of another program.
        let netem = Netem {
            limit: 1000,
            latency_ns: 1_000_000,
            ..Netem::default()
        };
        let lease = Lease {
            link: Some(link),
            before: Before {
                netem: Some((0x8001_0000, netem)),
                lost: Vec::new(),
            },
            ..lab.lease()
        };
        let result = lab.restore(&lease);
        let observed = result.outcome.expect("nothing is tried").observed;
        assert_eq!(observed.netem(), None);
        assert_eq!((result.lease, lab.files()), (None, 0));
    }
}
