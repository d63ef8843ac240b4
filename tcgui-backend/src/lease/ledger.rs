//! The leases that are in force, and the times at which they end. Pure: the caller passes the time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use tcgui_shared::names::InterfaceName;

use super::{BootTime, Lease, LeaseNetns, Owner};
use crate::kernel::link::Link;
use crate::kernel::netem::Netem;
use crate::kernel::netns::{NetnsKey, NetnsRef};
use crate::tc::plan::is_same;

/// Time after which the leases of a missing namespace are dropped. A directory that was covered by a mount is normally
/// visible again before. Otherwise the file of the lease would be kept for ever.
const MISSING: Duration = Duration::from_secs(3600);
/// Delay of the first retry of a restoration. Each further delay is twice as long …
const RETRY: Duration = Duration::from_secs(1);
/// … up to 2⁶ times this delay.
const LONGEST_RETRY: u32 = 6;

/// Number of attempts to restore an interface before the daemon releases a namespace without references. The only
/// socket there may be in use at the first attempt.
const DEPARTURE_TRIES: u32 = 2;

/// The interface of a lease: its namespace and ifindex.
pub type LeaseKey = (NetnsKey, u32);

/// Returns the keys of all interfaces of a namespace.
fn all_of(netns: NetnsKey) -> RangeInclusive<LeaseKey> {
    (netns, u32::MIN)..=(netns, u32::MAX)
}

/// Returns the device and the inode number of a namespace. `None`: the daemon's own namespace.
fn inode(netns: NetnsKey) -> Option<(u64, u64)> {
    match netns {
        NetnsKey::Host => None,
        NetnsKey::Mounted(id) => {
            let (device, inode, ..) = id.parts();
            Some((device, inode))
        }
        NetnsKey::Held(id) => {
            let (device, inode, ..) = id.parts();
            Some((device, inode))
        }
    }
}

/// One lease.
#[derive(Debug)]
struct Entry {
    lease: Lease,
    /// The generation of the link. `None`: the link was not seen yet.
    generation: Option<u64>,
    /// An earlier run of the daemon left the lease, and it was not compared with the link yet.
    is_unchecked: bool,
    /// The time at which the daemon last changed the qdisc. A look that began earlier may show the state before the
    /// change.
    changed: Option<Instant>,
    /// The time since which the namespace is missing. `None`: the namespace is known.
    missing: Option<BootTime>,
    /// The owner has ended, so the earlier state must be restored.
    ended: bool,
    failures: u32,
    not_before: BootTime,
}

impl Entry {
    /// Returns the time of the restoration. `None`: the lease does not end by itself, or the namespace is missing.
    fn due(&self) -> Option<BootTime> {
        let ends = if self.ended {
            Some(self.not_before)
        } else {
            self.lease.ends()
        };
        ends.filter(|_| self.missing.is_none())
            .map(|ends| ends.max(self.not_before))
    }

    /// Returns whether the daemon changed the qdisc after this look began.
    fn is_newer_than(&self, began: Instant) -> bool {
        self.changed.is_some_and(|changed| changed > began)
    }

    /// Returns whether the link may have a netem that was set under the lease.
    fn may_be_on(&self, link: &Link) -> bool {
        match &link.netem {
            Some(netem) => {
                let mut set = self.lease.set.iter().flatten();
                set.any(|known| is_same(known, netem))
            }
            // A netem whose parameters could not be read may be that of the lease.
            None => link.root_netem,
        }
    }
}

/// All leases that are in force.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<LeaseKey, Entry>,
}

impl Ledger {
    /// Adds a lease that an earlier run of the daemon left. A lease of a scenario has ended.
    pub fn adopt(&mut self, key: LeaseKey, lease: Lease, now: BootTime) {
        let ended = lease.is_of_a_scenario();
        let entry = Entry {
            lease,
            generation: None,
            is_unchecked: true,
            changed: None,
            missing: Some(now),
            ended,
            failures: 0,
            not_before: BootTime::default(),
        };
        self.entries.insert(key, entry);
    }

    /// Returns the lease of an interface.
    pub fn get(&self, key: LeaseKey) -> Option<&Lease> {
        self.entries.get(&key).map(|entry| &entry.lease)
    }

    /// Returns whether the lease has ended and a restoration has failed.
    pub fn is_owed(&self, key: LeaseKey) -> bool {
        let owed = |entry: &Entry| entry.ended && entry.failures > 0;
        self.entries.get(&key).is_some_and(owed)
    }

    /// Returns whether the owner has ended, so that the earlier state must be restored.
    pub fn has_ended(&self, key: LeaseKey) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.ended)
    }

    /// Records the lease that is in force on an interface after a change.
    pub fn settle(&mut self, key: LeaseKey, lease: Option<Lease>) {
        let Some(lease) = lease else {
            self.entries.remove(&key);
            return;
        };
        if let Some(entry) = self.entries.get_mut(&key) {
            // The references and the interface name may have been amended in the meantime.
            let amended = Lease {
                also: entry.lease.also.clone(),
                ifname: entry.lease.ifname.clone(),
                ..lease.clone()
            };
            if amended == entry.lease {
                // The change had no effect. A restoration that is still due stays due.
                entry.missing = None;
                return;
            }
        }
        let before = self.entries.get(&key);
        let entry = Entry {
            lease,
            generation: before.and_then(|entry| entry.generation),
            is_unchecked: false,
            changed: before.and_then(|entry| entry.changed),
            missing: None,
            ended: false,
            failures: 0,
            not_before: BootTime::default(),
        };
        self.entries.insert(key, entry);
    }

    /// Records that a restoration failed. The lease stays, and the restoration is retried later.
    pub fn put_off(&mut self, key: LeaseKey, now: BootTime) {
        if let Some(entry) = self.entries.get_mut(&key) {
            let pause = RETRY * (1 << entry.failures);
            entry.failures = (entry.failures + 1).min(LONGEST_RETRY);
            entry.not_before = now.plus(pause);
        }
    }

    /// Records the generation of the link that was changed now.
    pub fn is_on(&mut self, key: LeaseKey, generation: u64) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.generation = Some(generation);
        }
    }

    /// Records the time at which the qdisc of a link was changed. Looks that began earlier do not end its lease.
    pub fn changed(&mut self, key: LeaseKey, at: Instant) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.changed = Some(at);
        }
    }

    /// Handles the links of a look. Returns the leases that end because another link has taken the index of their link.
    ///
    /// `began` is the time at which the look began. The look is ignored for interfaces that were changed since, and for
    /// those that are `busy`. A later look handles them.
    pub fn replaced(
        &mut self,
        netns: NetnsKey,
        links: &[Link],
        began: Instant,
        busy: impl Fn(LeaseKey) -> bool,
    ) -> Vec<Lease> {
        let mut gone = Vec::new();
        for link in links {
            let key = (netns, link.ifindex);
            let entry = self.entries.get(&key);
            if entry.is_some_and(|entry| !entry.is_newer_than(began)) && !busy(key) {
                gone.extend(self.follow_link(netns, link));
            }
        }
        gone
    }

    /// Records the link that has the index of a lease. Returns the lease if it ends, because this is another link.
    ///
    /// Work that was under way may have changed the new link. The change of a scenario is undone. A change by a request
    /// stays with its lease, because a request names its interface.
    pub fn follow_link(&mut self, netns: NetnsKey, link: &Link) -> Option<Lease> {
        let key = (netns, link.ifindex);
        let entry = self.entries.get_mut(&key)?;
        let before = entry.generation.replace(link.generation);
        if before.is_none_or(|before| before == link.generation) {
            return None;
        }
        let may_be_there = entry.may_be_on(link);
        entry.lease = entry.lease.for_another_link();
        if entry.ended || entry.lease.is_of_a_scenario() {
            entry.ended = true;
            entry.failures = 0;
            entry.not_before = BootTime::default();
            return None;
        }
        if may_be_there {
            return None;
        }
        self.entries.remove(&key).map(|entry| entry.lease)
    }

    /// Ends leases of an earlier run whose link has none of the netems that were set under them. That run was killed
    /// before the change of the lease reached the kernel, or after a later change reached it. Interfaces that are
    /// `busy` are not checked.
    pub fn check_adopted(
        &mut self,
        netns: NetnsKey,
        links: &[Link],
        busy: impl Fn(LeaseKey) -> bool,
    ) {
        for link in links {
            let key = (netns, link.ifindex);
            let is_read = !link.root_netem || link.netem.is_some();
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            if entry.is_unchecked && is_read && !busy(key) {
                entry.is_unchecked = false;
                let is_there = |set: &Option<Netem>| match (set, &link.netem) {
                    (Some(set), Some(netem)) => is_same(set, netem),
                    (set, netem) => set.is_none() && netem.is_none(),
                };
                entry.ended |= !entry.lease.set.iter().any(is_there);
            }
        }
    }

    /// Records the names of links. Returns the leases whose files have another name.
    pub fn named(&mut self, netns: NetnsKey, links: &[Link]) -> Vec<Lease> {
        let mut renamed = Vec::new();
        for link in links {
            let Some(entry) = self.entries.get_mut(&(netns, link.ifindex)) else {
                continue;
            };
            let name = InterfaceName::new(&link.ifname).map(|name| name.to_wire());
            if let Ok(name) = name
                && name != entry.lease.ifname
                && entry.missing.is_none()
            {
                entry.lease.ifname = name;
                renamed.push(entry.lease.clone());
            }
        }
        renamed
    }

    /// Ends all leases of a namespace, because the daemon is about to release it. Returns their interfaces.
    pub fn depart(&mut self, netns: NetnsKey) -> Vec<u32> {
        let mut departing = Vec::new();
        for (key, entry) in self.entries.range_mut(all_of(netns)) {
            entry.lease = entry.lease.for_departure();
            entry.ended = true;
            entry.missing = None;
            entry.failures = 0;
            entry.not_before = BootTime::default();
            departing.push(key.1);
        }
        departing
    }

    /// Returns whether leases must still be restored in a namespace that the daemon is about to release.
    pub fn is_departing(&self, netns: NetnsKey) -> bool {
        let mut entries = self.entries.range(all_of(netns));
        entries.any(|(_, entry)| entry.missing.is_none() && entry.failures < DEPARTURE_TRIES)
    }

    /// Returns whether a lease of a missing namespace may belong to this namespace, because they have the same inode
    /// number. Only the cookie shows whether it does.
    pub fn may_be_in(&self, netns: NetnsKey) -> bool {
        let mut strays = self.entries.iter().filter(|(key, entry)| {
            key.0 != netns && entry.missing.is_some() && entry.lease.cookie.is_some()
        });
        strays.any(|(_, entry)| {
            let mut inodes = entry.lease.netns_refs().filter_map(LeaseNetns::inode);
            inodes.any(|known| inode(netns) == Some(known))
        })
    }

    /// Handles the cookie of a namespace. Leases that were made there under other names belong to it again. Returns the
    /// leases of interfaces that already have one.
    pub fn identified(&mut self, netns: NetnsKey, cookie: u64) -> Vec<Lease> {
        let is_its = |(key, entry): (&LeaseKey, &Entry)| {
            let is_stray = key.0 != netns && entry.missing.is_some();
            (is_stray && entry.lease.cookie == Some(cookie)).then_some(*key)
        };
        let strays = self.entries.iter().filter_map(is_its).collect();
        self.gather(netns, strays)
    }

    /// Handles the ifindexes of a look. Returns the leases whose link is gone. They end.
    ///
    /// `began` is the time at which the look began. The look does not end leases of interfaces that were changed since,
    /// or that are `busy`.
    pub fn looked_at(
        &mut self,
        netns: NetnsKey,
        links: &BTreeSet<u32>,
        began: Instant,
        busy: impl Fn(LeaseKey) -> bool,
    ) -> Vec<Lease> {
        let mut gone = Vec::new();
        for (key, entry) in self.entries.range_mut(all_of(netns)) {
            if links.contains(&key.1) {
                entry.missing = None;
            } else if !entry.is_newer_than(began) && !busy(*key) {
                gone.push(*key);
            }
        }
        self.take(gone)
    }

    /// Handles a namespace and its references. Leases that were made under another first reference belong to it again.
    /// Returns the leases of interfaces that already have one.
    pub fn met(&mut self, netns: NetnsKey, netns_refs: &[NetnsRef]) -> Vec<Lease> {
        let netns_refs: Vec<_> = netns_refs.iter().map(NetnsRef::key).collect();
        let is_its = |(key, entry): (&LeaseKey, &Entry)| {
            let mut known = entry.lease.netns_refs().filter_map(LeaseNetns::key);
            let leads_there = netns_refs.contains(&key.0)
                || known.any(|netns_ref| netns_refs.contains(&netns_ref));
            (key.0 != netns && entry.missing.is_some() && leads_there).then_some(*key)
        };
        let strays = self.entries.iter().filter_map(is_its).collect();
        self.gather(netns, strays)
    }

    /// Moves leases of missing namespaces to this namespace. Returns the leases of interfaces that already have one.
    fn gather(&mut self, netns: NetnsKey, strays: Vec<LeaseKey>) -> Vec<Lease> {
        let mut surplus = Vec::new();
        for (key, ifindex) in strays {
            if self.entries.contains_key(&(netns, ifindex)) {
                surplus.extend(self.take(vec![(key, ifindex)]));
            } else if let Some(entry) = self.entries.remove(&(key, ifindex)) {
                self.entries.insert((netns, ifindex), entry);
            }
        }
        surplus
    }

    /// Records the references to a namespace. Returns the leases whose files have other references.
    pub fn led_to_by(&mut self, netns: NetnsKey, netns_refs: &[NetnsRef]) -> Vec<Lease> {
        let leases = self
            .entries
            .range_mut(all_of(netns))
            .map(|(_, entry)| &mut entry.lease);
        leases
            .filter_map(|lease| lease.led_to_by(netns_refs).then(|| lease.clone()))
            .collect()
    }

    /// Returns whether leases of a namespace are in force only after its links are seen again.
    pub fn is_out_of_sight(&self, netns: NetnsKey) -> bool {
        let mut entries = self.entries.range(all_of(netns));
        entries.any(|(_, entry)| entry.missing.is_some())
    }

    /// Returns whether there are no leases.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Records that the last reference to a namespace was removed.
    pub fn lost(&mut self, netns: NetnsKey, now: BootTime) {
        for (_, entry) in self.entries.range_mut(all_of(netns)) {
            entry.missing.get_or_insert(now);
            entry.generation = None;
        }
    }

    /// Removes and returns the leases whose namespace was missing for too long.
    pub fn forget(&mut self, now: BootTime) -> Vec<Lease> {
        let is_gone = |entry: &Entry| {
            let missing = entry.missing;
            missing.is_some_and(|since| now.since(since) >= MISSING)
        };
        let gone = self.entries.iter().filter(|(_, entry)| is_gone(entry));
        let gone = gone.map(|(key, _)| *key).collect();
        self.take(gone)
    }

    /// Returns the interfaces that must be restored now.
    pub fn due(&self, now: BootTime, busy: impl Fn(LeaseKey) -> bool) -> Vec<LeaseKey> {
        self.entries
            .iter()
            .filter(|(key, entry)| entry.due().is_some_and(|due| due <= now) && !busy(**key))
            .map(|(key, _)| *key)
            .collect()
    }

    /// Returns whether an interface must be restored now.
    pub fn is_due(&self, key: LeaseKey, now: BootTime) -> bool {
        let due = self.entries.get(&key).and_then(Entry::due);
        due.is_some_and(|due| due <= now)
    }

    /// Returns the time of the next action, except for interfaces that are `busy`.
    pub fn due_at(&self, busy: impl Fn(LeaseKey) -> bool) -> Option<BootTime> {
        let at = |(key, entry): (&LeaseKey, &Entry)| match entry.missing {
            Some(since) => Some(since.plus(MISSING)),
            None => entry.due().filter(|_| !busy(*key)),
        };
        self.entries.iter().filter_map(at).min()
    }

    /// Ends the leases of a scenario. `None`: those of all scenarios.
    pub fn end_scenario(&mut self, ended: Option<&str>) {
        for entry in self.entries.values_mut() {
            if let Owner::Scenario { id } = &entry.lease.owner {
                entry.ended |= ended.is_none_or(|ended| ended == id);
            }
        }
    }

    /// Returns the interfaces with a lease of a scenario that has not ended, and the ids of these scenarios.
    pub fn scenarios(&self) -> Vec<(LeaseKey, String)> {
        let of = |(key, entry): (&LeaseKey, &Entry)| match &entry.lease.owner {
            Owner::Scenario { id } if !entry.ended => Some((*key, id.clone())),
            Owner::Scenario { .. } | Owner::Plain | Owner::Confirm => None,
        };
        self.entries.iter().filter_map(of).collect()
    }

    fn take(&mut self, keys: Vec<LeaseKey>) -> Vec<Lease> {
        keys.into_iter()
            .filter_map(|key| self.entries.remove(&key))
            .map(|entry| entry.lease)
            .collect()
    }
}
