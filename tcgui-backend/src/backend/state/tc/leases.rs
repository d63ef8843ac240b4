//! Changes of qdiscs and their leases: what is changed under one, what ends when. Pure.

use std::collections::BTreeSet;
use std::time::Instant;

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::tc::{TcOperation, TcRequest, TcResponse};

use super::super::{Effect, Moment, State};
use super::{Asker, Target, TcOrder, TcOutcome, TcWish, TcWork};
use crate::backend::inventory::{Found, Noted, ReadBack};
use crate::bus::Reply;
use crate::kernel::netns::NetnsKey;
use crate::lease::ledger::LeaseKey;
use crate::lease::terms::Terms;
use crate::lease::{BootTime, Lease};
use crate::sockets::Place;
use crate::tc::desired::{Desired, LinkFacts};

impl State {
    /// Takes in the leases that an earlier run left.
    pub(in crate::backend) fn adopt(&mut self, leases: Vec<(LeaseKey, Lease)>, now: BootTime) {
        for (key, lease) in leases {
            self.ledger.adopt(key, lease, now);
        }
    }

    /// A client wishes to change a qdisc, or to keep what it changed.
    pub(in crate::backend::state) fn change_tc(
        &mut self,
        request: TcRequest,
        reply: Reply<TcResponse>,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let (target, found) = match self.find(&request.namespace, &request.interface) {
            Ok(found) => found,
            Err((kind, message)) => return reply.send(TcResponse::failure(message, kind)),
        };
        let terms = match Terms::of_request(&request, self.identity.default_ttl) {
            Ok(terms) => terms,
            Err(err) => return reply.send(TcResponse::failure(err.to_string(), err.kind())),
        };
        if request.operation == TcOperation::Confirm {
            return self.confirm(target, found, reply, moment, effects);
        }
        // What is wrong in itself is said at once, and is no part of what happens to the interface.
        let link = LinkFacts {
            mtu: found.link.mtu,
            speed: None,
        };
        if let Err(err) = Desired::from_operation(&request.operation, link) {
            return reply.send(TcResponse::failure(err.to_string(), ErrorKind::Invalid));
        }
        let operation = Box::new(request.operation);
        let order = self.order(found, TcWork::Change { operation, terms });
        let mut wish = TcWish::new(order, target, Some(Asker::Client(reply)));
        wish.ended = self.claims.take_over(wish.lane());
        effects.extend(self.claims.take_lost().map(Effect::Execution));
        self.enter(wish, moment, effects);
    }

    /// An execution has given its interface up: what is there now stays, on the terms that held before it.
    pub(in crate::backend::state) fn release_lease(
        &mut self,
        lane: LeaseKey,
        id: &str,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let held = self.ledger.get(lane).filter(|lease| lease.is_of(id));
        let Some(lease) = held.cloned() else { return };
        let Some((target, found)) = self.inventory.locate(lane.0, lane.1) else {
            self.ledger.settle(lane, None);
            return forget(vec![lease], effects);
        };
        let order = self.order(found, TcWork::Release { id: id.to_owned() });
        self.enter(TcWish::new(order, target, None), moment, effects);
    }

    /// Returns the order for work on a link.
    pub(in crate::backend::state) fn order(&self, found: Found, work: TcWork) -> TcOrder {
        TcOrder {
            place: Place {
                key: found.key,
                ways: found.ways,
                named: found.named,
            },
            link: found.link,
            work,
            foreign: self.identity.foreign_qdiscs,
            held: None,
            begun: BootTime::default(),
        }
    }

    /// Takes a wish in; it begins now if nothing else is under way.
    pub(in crate::backend::state) fn enter(
        &mut self,
        wish: TcWish,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(wish) = self.tc.enter(Box::new(wish), moment.now) {
            effects.push(self.begin_work(wish, moment));
        }
    }

    /// Begins the wishes whose time has come.
    pub(in crate::backend::state) fn begin_waiting(
        &mut self,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let waiting: Vec<_> = self.tc.begin(moment.now).collect();
        for wish in waiting {
            effects.push(self.begin_work(wish, moment));
        }
    }

    fn begin_work(&self, mut wish: Box<TcWish>, moment: Moment) -> Effect {
        wish.order.held = self.ledger.get(wish.lane()).cloned();
        wish.order.begun = moment.boot;
        Effect::ChangeTc(wish)
    }

    /// Keeps what has to be confirmed.
    ///
    /// What is to be confirmed must be known: not while something else is under way.
    fn confirm(
        &mut self,
        target: Target,
        found: Found,
        reply: Reply<TcResponse>,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let (netns, interface) = &target;
        let lane = (found.key, found.link.ifindex);
        let waits = |lease: &Lease| lease.confirm_by.is_some();
        let refusal = if self.tc.is_busy(lane) {
            let message =
                format!("{interface} in {netns} is being changed, confirm what came of it");
            Some((ErrorKind::Busy, message))
        } else if !self.ledger.get(lane).is_some_and(waits) {
            let message = format!("nothing on {interface} in {netns} waits for a confirmation");
            Some((ErrorKind::NotFound, message))
        } else {
            None
        };
        if let Some((kind, message)) = refusal {
            return reply.send(TcResponse::failure(message, kind));
        }
        let order = self.order(found, TcWork::Confirm);
        let wish = TcWish::new(order, target, Some(Asker::Client(reply)));
        self.enter(wish, moment, effects);
    }

    /// A piece of work is done.
    pub(in crate::backend::state) fn tc_changed(
        &mut self,
        outcome: TcOutcome,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let TcOutcome {
            mut wish,
            lease,
            result,
        } = outcome;
        self.tc.leave(&mut wish, moment.now);
        self.settle(&wish, lease.clone(), result.is_err(), moment);
        if lease.is_some() {
            // By what was found while the lease was written.
            self.amend_leases(wish.order.place.key, effects);
        }
        let (key, ifindex) = (wish.order.place.key, wish.order.link.ifindex);
        let response = match result {
            Ok((outcome, at)) => {
                let netem = outcome.observed.netem().copied();
                let read_back = ReadBack { netem, at };
                let noted = self.inventory.set_netem(key, ifindex, read_back);
                self.changed |= noted == Noted::New;
                self.tc.netem_changed(self.inventory.title(key));
                super::response(&wish, &outcome, lease.as_ref(), moment)
            }
            Err((kind, message)) => TcResponse::failure(message, kind),
        };
        self.tc.answer(*wish, &response);
        // What somebody else did meanwhile may be older than what was read back, and no event follows.
        effects.push(Effect::Recheck(key));
    }

    /// Notes the lease that holds after a piece of work.
    fn settle(&mut self, wish: &TcWish, lease: Option<Lease>, failed: bool, moment: Moment) {
        let key = wish.lane();
        if failed && wish.order.work == TcWork::Restore {
            self.ledger.put_off(key, moment.boot);
        } else if lease.is_none() || self.inventory.has(key.0) {
            self.ledger.settle(key, lease);
        } else {
            // The namespace went meanwhile.
            self.ledger.settle(key, lease);
            self.ledger.lost(key.0, moment.boot);
        }
    }

    /// A namespace was looked at: the leases of links that are gone end with them.
    pub(in crate::backend::state) fn leases_of(
        &mut self,
        key: NetnsKey,
        present: &BTreeSet<u32>,
        effects: &mut Vec<Effect>,
    ) {
        let gone = self
            .ledger
            .looked_at(key, present, |lane| self.tc.is_busy(lane));
        forget(gone, effects);
    }

    /// One more way to a namespace was found: leases are known by all of them.
    pub(in crate::backend::state) fn leases_met(
        &mut self,
        key: NetnsKey,
        effects: &mut Vec<Effect>,
    ) {
        if self.ledger.is_empty() {
            return;
        }
        forget(self.ledger.met(key, &self.inventory.ways(key)), effects);
        self.amend_leases(key, effects);
    }

    /// Lets leases say by which ways their namespace is known, unless it is gone.
    fn amend_leases(&mut self, key: NetnsKey, effects: &mut Vec<Effect>) {
        let ways = self.inventory.ways(key);
        if ways.is_empty() {
            return;
        }
        let amended = self.ledger.led_to_by(key, &ways);
        let amended = amended.into_iter().map(Box::new);
        effects.extend(amended.map(Effect::AmendLease));
    }

    /// Nothing leads to a namespace any more.
    pub(in crate::backend::state) fn namespace_lost(&mut self, key: NetnsKey) {
        let now = self.last.map(|last| last.boot);
        self.ledger.lost(key, now.unwrap_or_default());
    }

    /// Begins to restore what is due.
    pub(in crate::backend::state) fn end_leases(
        &mut self,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if self.stopping {
            self.end_scenarios(moment, effects);
        }
        forget(self.ledger.forget(moment.boot), effects);
        let due = self.ledger.due(moment.boot, |lane| self.tc.is_busy(lane));
        for (key, ifindex) in due {
            let Some((target, found)) = self.inventory.locate(key, ifindex) else {
                self.ledger.put_off((key, ifindex), moment.boot);
                continue;
            };
            let order = self.order(found, TcWork::Restore);
            self.enter(TcWish::new(order, target, None), moment, effects);
        }
    }

    /// Returns when a lease ends next.
    pub(in crate::backend::state) fn lease_ends_at(&self) -> Option<Instant> {
        let last = self.last?;
        let due = self.ledger.due_at(|lane| self.tc.is_busy(lane))?;
        Some(last.now + due.since(last.boot))
    }

    /// The daemon stops: scenarios end with it, or what they did stays.
    fn end_scenarios(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        if !self.identity.keep_on_exit {
            return self.ledger.end_scenario(None);
        }
        for (lane, id) in self.ledger.scenarios() {
            if !self.tc.is_busy(lane) {
                self.release_lease(lane, &id, moment, effects);
            }
        }
    }
}

fn forget(leases: Vec<Lease>, effects: &mut Vec<Effect>) {
    let leases = leases.into_iter().map(Box::new);
    effects.extend(leases.map(Effect::ForgetLease));
}
