//! When each change of a qdisc ends, and what is restored then. Pure.

use std::collections::BTreeSet;
use std::time::Instant;

use super::super::work::{Kind, Work};
use super::super::{Effect, Moment, State};
use super::{PendingTcChange, TcWork};
use crate::kernel::netns::NetnsKey;
use crate::lease::ledger::LeaseKey;
use crate::lease::{BootTime, Lease, Owner};

impl State {
    /// Takes over the leases that an earlier run left.
    pub(in crate::backend) fn adopt(&mut self, leases: Vec<(LeaseKey, Lease)>, now: BootTime) {
        for (key, lease) in leases {
            self.ledger.adopt(key, lease, now);
        }
    }

    /// Ends the lease of a completed scenario. The current netem stays, on the terms that were in force before the scenario.
    pub(in crate::backend::state) fn release_lease(
        &mut self,
        lane: LeaseKey,
        id: &str,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let has_lease = self.ledger.get(lane).is_some_and(|lease| lease.is_of(id));
        // A step that is not done yet may still record a lease of this scenario.
        if !has_lease && !self.lanes.has_step_of(lane, id) {
            return;
        }
        let Some((target, found)) = self.inventory.locate(lane.0, lane.1) else {
            // The namespace may be seen again. Then the interface is restored.
            let id = id.to_owned();
            return self.enter(Work::EndScenario { lane, id }, moment, effects);
        };
        let order = self.order(found, TcWork::Release { id: id.to_owned() });
        let release = PendingTcChange::new(order, target, None);
        self.enter(Work::Tc(Box::new(release)), moment, effects);
    }

    /// Ends the lease of a stopped scenario, because the change that stopped it has failed. This restores the interface.
    pub(in crate::backend::state) fn end_stopped(&mut self, lane: LeaseKey) {
        let owner = self.ledger.get(lane).map(|lease| lease.owner.clone());
        if let Some(Owner::Scenario { id }) = owner {
            self.ledger.end_scenario(Some(&id));
        }
    }

    /// Handles a dump of a namespace: ends the leases of links that no longer exist.
    pub(in crate::backend::state) fn end_leases_of_missing_links(
        &mut self,
        key: NetnsKey,
        present: &BTreeSet<u32>,
        began: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let is_busy = |lane| self.lanes.is_busy(lane);
        let gone = self.ledger.looked_at(key, present, began, is_busy);
        forget(gone, effects);
    }

    /// Handles a dump of a namespace: leases follow links that were renamed. A lease ends if another link has the index of its
    /// link.
    pub(in crate::backend::state) fn follow_links(
        &mut self,
        key: NetnsKey,
        began: Instant,
        effects: &mut Vec<Effect>,
    ) {
        if self.ledger.is_empty() {
            return;
        }
        let links = self.inventory.links(key);
        let is_busy = |lane| self.lanes.is_busy(lane);
        forget(self.ledger.replaced(key, &links, began, is_busy), effects);
        self.ledger.check_adopted(key, &links, is_busy);
        let renamed = self.ledger.named(key, &links).into_iter();
        effects.extend(renamed.map(Box::new).map(Effect::AmendLease));
    }

    /// Ends the lease of a lost link if another link has its index.
    pub(super) fn follow_replacement(&mut self, lane: LeaseKey, effects: &mut Vec<Effect>) {
        if let Some((_, found)) = self.inventory.locate(lane.0, lane.1) {
            let gone = self.ledger.follow_link(lane.0, &found.link);
            forget(gone, effects);
        }
    }

    /// Handles the cookie of a namespace. Leases that were recorded there under other names belong to it again.
    pub(in crate::backend::state) fn identified(
        &mut self,
        key: NetnsKey,
        cookie: Option<u64>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(cookie) = cookie.filter(|_| self.inventory.has(key)) else {
            return;
        };
        forget(self.ledger.identified(key, cookie), effects);
        self.amend_leases(key, effects);
        // The leases are in force again after the next dump.
        effects.push(Effect::Recheck(key));
    }

    /// Handles a new reference to a namespace. Leases of the namespace may be known by this reference only.
    pub(in crate::backend::state) fn match_leases(
        &mut self,
        key: NetnsKey,
        effects: &mut Vec<Effect>,
    ) {
        if self.ledger.is_empty() {
            return;
        }
        forget(
            self.ledger.met(key, &self.inventory.netns_refs(key)),
            effects,
        );
        self.amend_leases(key, effects);
        if self.ledger.is_out_of_sight(key) {
            // If the namespace is known already, the next dump may report no change. So request a report.
            effects.push(Effect::Recheck(key));
        }
        if self.ledger.may_be_in(key) {
            effects.push(Effect::Identify(key, self.inventory.netns_refs(key)));
        }
    }

    /// Updates the references in the leases of a namespace. Does nothing if there is no reference left.
    pub(super) fn amend_leases(&mut self, key: NetnsKey, effects: &mut Vec<Effect>) {
        let netns_refs = self.inventory.netns_refs(key);
        if netns_refs.is_empty() {
            return;
        }
        let amended = self.ledger.led_to_by(key, &netns_refs);
        let amended = amended.into_iter().map(Box::new);
        effects.extend(amended.map(Effect::AmendLease));
    }

    /// Handles a namespace without references. If it is known under another key by now, its leases move there.
    pub(in crate::backend::state) fn namespace_lost(
        &mut self,
        key: NetnsKey,
        effects: &mut Vec<Effect>,
    ) {
        self.origins.lost(key);
        let now = self.last.map(|last| last.boot);
        self.ledger.lost(key, now.unwrap_or_default());
        let known = self.inventory.key_beside(key);
        if let Some(known) = known.filter(|known| *known != key) {
            self.match_leases(known, effects);
        }
    }

    /// Adds the restorations that are due to the lanes of their interfaces.
    pub(in crate::backend::state) fn end_leases(
        &mut self,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if self.stopping {
            self.end_scenarios(moment, effects);
        }
        forget(self.ledger.forget(moment.boot), effects);
        let due = self.ledger.due(moment.boot, |lane| self.is_restoring(lane));
        for (key, ifindex) in due {
            if self.restore_departing((key, ifindex), moment, effects) {
                continue;
            }
            let Some((target, found)) = self.inventory.locate(key, ifindex) else {
                self.ledger.put_off((key, ifindex), moment.boot);
                continue;
            };
            let order = self.order(found, TcWork::Restore);
            let restoration = PendingTcChange::new(order, target, None);
            self.enter(Work::Tc(Box::new(restoration)), moment, effects);
        }
    }

    /// Returns when the next lease ends.
    pub(in crate::backend::state) fn lease_ends_at(&self) -> Option<Instant> {
        let last = self.last?;
        let due = self.ledger.due_at(|lane| self.is_restoring(lane))?;
        Some(last.now + due.since(last.boot))
    }

    fn is_restoring(&self, lane: LeaseKey) -> bool {
        self.lanes.has(lane, |kind| kind == Kind::Restore)
    }

    /// Ends the leases of scenarios because the daemon stops. With `keep_on_exit`, their netems stay.
    fn end_scenarios(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        if !self.identity.options.keep_on_exit {
            return self.ledger.end_scenario(None);
        }
        for (lane, id) in self.ledger.scenarios() {
            if !self.lanes.is_busy(lane) {
                self.release_lease(lane, &id, moment, effects);
            }
        }
    }
}

fn forget(leases: impl IntoIterator<Item = Lease>, effects: &mut Vec<Effect>) {
    let leases = leases.into_iter().map(Box::new);
    effects.extend(leases.map(Effect::ForgetLease));
}
