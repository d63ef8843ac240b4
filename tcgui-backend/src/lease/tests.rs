//! Tests of leases without a daemon: restorations, ends, and files.

mod crash;
mod failed_change;
mod journal;
mod ledger;
mod offline_restore;
mod restore;

use std::time::Duration;

use super::restore::Restored;
use super::terms::LeaseHolder;
use super::{Before, BootTime, Home, Lease, LeaseNetns, LinkMatch, Owner};
use crate::kernel::netem::Netem;
use crate::kernel::netns::NetnsFiles;
use crate::kernel::qdisc::RootChange;
use crate::tc::observed::Observed;

const NETNS: LeaseNetns = LeaseNetns::Mounted {
    device: 4,
    inode: 4_026_532_000,
    ctime_s: 1_767_300_000,
    ctime_ns: 5,
    link: false,
};

fn at(seconds: u64) -> BootTime {
    BootTime::after_boot(Duration::from_secs(seconds))
}

fn delay(ms: u64) -> Netem {
    Netem {
        limit: 1000,
        latency_ns: ms * 1_000_000,
        ..Netem::default()
    }
}

fn lease(ifindex: u32) -> Lease {
    Lease {
        netns: NETNS,
        also: Vec::new(),
        ifindex,
        ifname: "far".to_owned(),
        link: None,
        cookie: None,
        before: Before::default(),
        set: vec![Some(delay(5))],
        owner: Owner::Plain,
        expires: Some(at(10)),
        confirm_by: None,
        holder: LeaseHolder::default(),
        under: None,
        beneath: None,
    }
}

/// Returns the decision for the link of the lease.
fn decide(lease: &Lease, observed: &Observed) -> (Restored, Vec<RootChange>) {
    super::restore::decide(lease, observed, LinkMatch::Same)
}

fn home() -> Home {
    Home::learn(&NetnsFiles::new().unwrap()).unwrap()
}
