//! Decisions about traffic control: requests, their results and their leases. Pure.
//!
//! - `tc.rs`: requests of clients and executions, and the results of workers.
//! - `tc/leases.rs`: when each change ends, and what is restored then.
//! - `tc/published.rs`: what is published, and when requesters are answered.
//!
//! `lanes.rs` decides the order of the work on one interface.

mod leases;
mod published;

use std::collections::HashSet;

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::tc::{TcOperation, TcRequest, TcResponse};

use super::work::{Kind, PendingTcChange, Requester, Target, Work};
use super::{Effect, LANE_FULL, Moment, State};
use crate::backend::inventory::{ChangeResult, Found, ReadBack};
use crate::backend::orders::{Failure, TcOrder, TcResult, TcWork};
use crate::bus::Reply;
use crate::kernel::netns::NetnsKey;
use crate::lease::ledger::LeaseKey;
use crate::lease::terms::{LeaseHolder, Terms};
use crate::lease::{BootTime, Lease};
use crate::policy::Change;
use crate::sockets::NetnsTarget;
use crate::tc::desired::{ANY_LINK, Desired, LinkFacts, fitted};
use crate::tc::perform::Outcome;
use crate::tc::plan::Plan;
use crate::tc::report;

pub(super) use published::PublishedTc;

/// Work on a qdisc that is done.
#[derive(Debug)]
pub(in crate::backend) struct TcOutcome {
    pub(in crate::backend) change: Box<PendingTcChange>,
    pub(in crate::backend) result: TcResult,
}

impl State {
    /// Handles a client's request to change a qdisc, or to confirm a change.
    pub(super) fn change_tc(
        &mut self,
        request: TcRequest,
        reply: Reply<TcResponse>,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let checked = self.check_tc(request);
        let (target, found, work) = match checked {
            Ok(checked) => checked,
            Err((kind, message)) => return reply.send(TcResponse::failure(message, kind)),
        };
        let is_change = matches!(work, TcWork::Change { .. });
        let order = self.order(found, work);
        let mut change = PendingTcChange::new(order, target, Some(Requester::Client(reply)));
        if is_change {
            change.stopped = self.claims.take_over(change.lane());
            effects.extend(self.claims.take_news().map(Effect::Execution));
        }
        self.enter(Work::Tc(Box::new(change)), moment, effects);
    }

    /// Returns the work that a request asks for and its interface, or the reason for a refusal.
    fn check_tc(&self, request: TcRequest) -> Result<(Target, Found, TcWork), Failure> {
        let (target, found) = self.find(&request.namespace, &request.interface)?;
        let lane = (found.key, found.link.ifindex);
        let mut terms = Terms::of_request(&request, self.identity.options.default_ttl)
            .map_err(|err| (err.kind(), err.to_string()))?;
        terms.holder = check_holder(&request)?;
        let work = match request.operation {
            TcOperation::Confirm => {
                self.check_confirmation(&target, lane)?;
                TcWork::Confirm
            }
            TcOperation::Renew => renewal(terms)?,
            operation @ (TcOperation::Apply(_)
            | TcOperation::ApplyConfig { .. }
            | TcOperation::Remove) => {
                // Values out of range are refused at once, without a place in the lane.
                let link = LinkFacts {
                    mtu: found.link.mtu,
                    ..ANY_LINK
                };
                Desired::from_operation(&operation, link)
                    .map_err(|err| (ErrorKind::Invalid, err.to_string()))?;
                self.check_token(&target, lane, terms.holder.token.as_deref())?;
                let operation = Box::new(operation);
                TcWork::Change { operation, terms }
            }
        };
        if self.lanes.is_full(lane) {
            return Err((ErrorKind::Busy, LANE_FULL.to_owned()));
        }
        Ok((target, found, work))
    }

    /// Checks that a change waits for its confirmation. No other work on the qdisc may be under way or waiting: the client could
    /// not know which change it confirms.
    fn check_confirmation(
        &self,
        (netns, interface): &Target,
        lane: LeaseKey,
    ) -> Result<(), Failure> {
        let waits = |lease: &Lease| lease.confirm_by.is_some();
        let is_change = |kind| !matches!(kind, Kind::LinkChange | Kind::Renew);
        if self.lanes.has(lane, is_change) {
            let message =
                format!("{interface} in {netns} is being changed, confirm what came of it");
            Err((ErrorKind::Busy, message))
        } else if self.ledger.get(lane).is_some_and(waits) {
            Ok(())
        } else {
            let message = format!("nothing on {interface} in {netns} waits for a confirmation");
            Err((ErrorKind::NotFound, message))
        }
    }

    /// Checks that a request with a token does not end the change of another token. A request without one may: released
    /// frontends send none, and a user must be able to clear an interface.
    fn check_token(
        &self,
        (netns, interface): &Target,
        lane: LeaseKey,
        token: Option<&str>,
    ) -> Result<(), Failure> {
        let Some(token) = token else {
            return Ok(());
        };
        let held = self
            .ledger
            .get(lane)
            .filter(|_| !self.ledger.has_ended(lane));
        let holder = held.and_then(Lease::token_holder);
        let Some(holder) = holder.filter(|holder| !holder.has(token)) else {
            return Ok(());
        };
        let client = holder.client.as_deref().unwrap_or("another client");
        Err((
            ErrorKind::Busy,
            format!(
                "{interface} in {netns} is held by {client:?}, end that first, or clear the interface"
            ),
        ))
    }

    /// Checks that the change to be renewed does not end already: it would go on then.
    fn check_renewal(&self, change: &PendingTcChange) -> Result<(), Failure> {
        let is_renewal = matches!(change.order.work, TcWork::Renew { .. });
        if is_renewal && self.ledger.has_ended(change.lane()) {
            let (netns, interface) = &change.target;
            let message = format!("the change of {interface} in {netns} has ended");
            return Err((ErrorKind::NotFound, message));
        }
        Ok(())
    }

    /// Returns the order for work on a link.
    pub(super) fn order(&self, found: Found, work: TcWork) -> TcOrder {
        TcOrder {
            place: NetnsTarget {
                key: found.key,
                netns_refs: found.netns_refs,
                named: found.named,
            },
            link: found.link,
            work,
            foreign: self.identity.options.foreign_qdiscs,
            held: None,
            begun: BootTime::default(),
        }
    }

    /// Handles a dump of a namespace: the sizes of netems are adjusted to links whose MTU or speed has changed. This is tried once
    /// for each change of the link or of the netem, because the netem of another program is left as it is.
    pub(super) fn fit_netems(&mut self, key: NetnsKey, moment: Moment, effects: &mut Vec<Effect>) {
        let links = self.inventory.links(key);
        let present: HashSet<_> = links.iter().map(|link| link.ifindex).collect();
        self.link_facts
            .retain(|(netns, ifindex), _| *netns != key || present.contains(ifindex));
        for link in links.iter() {
            let lane = (key, link.ifindex);
            if !link.root_netem {
                self.link_facts.remove(&lane);
            }
            // When the work under way is done, the namespace is looked at again.
            let Some(netem) = link.netem.filter(|_| !self.lanes.is_busy(lane)) else {
                continue;
            };
            let now = LinkFacts::of(link);
            let seen = self.link_facts.get(&lane).copied();
            let before = seen.map_or(now, |(facts, _)| facts);
            let seen_now = (now.after(before), netem);
            self.link_facts.insert(lane, seen_now);
            if seen == Some(seen_now) || fitted(&netem, before, now).is_none() {
                continue;
            }
            let Some((target, found)) = self.inventory.locate(key, link.ifindex) else {
                continue;
            };
            if self.permit_interface(Change::Impair, &found).is_ok() {
                let order = self.order(found, TcWork::Fit { before });
                let change = PendingTcChange::new(order, target, None);
                self.enter(Work::Tc(Box::new(change)), moment, effects);
            }
        }
    }

    /// Adds work to the lane of its interface. It begins now if nothing else is under way there.
    pub(super) fn enter(&mut self, work: Work, moment: Moment, effects: &mut Vec<Effect>) {
        let lane = work.lane();
        if let Some(work) = self.lanes.enter(work)
            && !self.begin_work(work, moment, effects)
        {
            self.begin_next(lane, moment, effects);
        }
    }

    /// Begins the next work on an interface, because the work under way is done.
    pub(super) fn begin_next(&mut self, lane: LeaseKey, moment: Moment, effects: &mut Vec<Effect>) {
        while let Some(next) = self.lanes.leave(lane) {
            if self.begin_work(next, moment, effects) {
                return;
            }
        }
    }

    /// Begins work. Returns whether it is under way then. Work that needs no worker is complete at once.
    fn begin_work(&mut self, work: Work, moment: Moment, effects: &mut Vec<Effect>) -> bool {
        match work {
            Work::Link(change) => effects.push(Effect::ChangeLink(change)),
            Work::EndScenario { lane, id } => {
                self.ledger.end_scenario(Some(&id));
                // Another link may have the index by now, and the step before this work may have changed it.
                self.follow_replacement(lane, effects);
                return false;
            }
            Work::Tc(mut change) => {
                let lane = change.lane();
                if change.step_of().is_some() && !self.is_there(&change) {
                    let message = "the interface is gone";
                    let refusal = TcResponse::failure(message, ErrorKind::NotFound);
                    self.tc.answer(*change, &refusal);
                    return false;
                }
                // Another client may have been first while this waited.
                let may_begin = self
                    .check_token(&change.target, lane, change.token())
                    .and_then(|()| self.check_renewal(&change));
                if let Err((kind, message)) = may_begin {
                    let refusal = TcResponse::failure(message, kind);
                    self.tc.answer(*change, &refusal);
                    return false;
                }
                let held = self.ledger.get(lane);
                // The lease may have been renewed or replaced while this waited.
                let is_needed = match &change.order.work {
                    TcWork::Restore => self.ledger.is_due(lane, moment.boot),
                    TcWork::Release { id } => {
                        held.is_some_and(|lease| lease.is_of(id)) && !self.ledger.has_ended(lane)
                    }
                    TcWork::Change { .. }
                    | TcWork::Confirm
                    | TcWork::Renew { .. }
                    | TcWork::Look => true,
                    // The restoration is next.
                    TcWork::Fit { .. } => !self.ledger.has_ended(lane),
                };
                if !is_needed {
                    // An execution may wait for a restoration that a lease has made already.
                    let nothing = TcResponse::success("nothing to restore", None);
                    self.tc.answer(*change, &nothing);
                    return false;
                }
                change.order.held = held.cloned();
                change.order.begun = moment.boot;
                effects.push(Effect::ChangeTc(change));
            }
        }
        true
    }

    /// Returns whether the link of a step still exists. Another link with its index does not count.
    fn is_there(&self, change: &PendingTcChange) -> bool {
        let (netns, ifindex) = change.lane();
        let found = self.inventory.locate(netns, ifindex);
        found.is_some_and(|(_, found)| found.link.generation == change.order.link.generation)
    }

    /// Handles the result of work on a qdisc.
    pub(super) fn tc_changed(
        &mut self,
        outcome: TcOutcome,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let TcOutcome { change, result } = outcome;
        let TcResult {
            lease,
            done_at,
            outcome,
        } = result;
        let lane = change.lane();
        let is_restoration = change.order.work == TcWork::Restore;
        self.settle(&change, lease.clone(), outcome.is_err(), moment, effects);
        self.ledger.changed(lane, done_at);
        if outcome.is_err() && change.stopped.is_some() {
            self.end_stopped(lane);
        }
        if lease.is_some() && self.departing.contains_key(&lane.0) && !is_restoration {
            self.ledger.depart(lane.0);
        }
        if lease.is_some() {
            // More references may have been found while the lease was written.
            self.amend_leases(lane.0, effects);
        }
        let response = match outcome {
            Ok(outcome) => {
                let netem = outcome.observed.netem().copied();
                self.origins.changed(&change, netem, moment.unix_ms);
                let read_back = ReadBack { netem, at: done_at };
                let noted = self.inventory.set_netem(lane.0, lane.1, read_back);
                self.changed |= noted == ChangeResult::New;
                self.tc.netem_changed(self.inventory.display_name(lane.0));
                response(&change, &outcome, lease.as_ref(), moment)
            }
            Err((kind, message)) => TcResponse::failure(message, kind),
        };
        self.tc.answer(*change, &response);
        // Another program may have changed the qdisc before the read-back. No event follows then, so the links are dumped again.
        effects.push(Effect::Recheck(lane.0));
        self.begin_next(lane, moment, effects);
    }

    /// Records the lease that is in force after the work.
    fn settle(
        &mut self,
        change: &PendingTcChange,
        lease: Option<Lease>,
        failed: bool,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let lane = change.lane();
        if failed && change.order.work == TcWork::Restore {
            self.ledger.put_off(lane, moment.boot);
            return;
        }
        let is_lost = lease.is_some() && !self.inventory.has(lane.0);
        self.ledger.settle(lane, lease);
        if !failed && matches!(change.order.work, TcWork::Change { .. }) {
            self.ledger.is_on(lane, change.order.link.generation);
        }
        if is_lost && !self.departing.contains_key(&lane.0) {
            // The namespace disappeared during the work.
            self.namespace_lost(lane.0, effects);
        }
    }
}

/// Returns what a request says of its client.
fn check_holder(request: &TcRequest) -> Result<LeaseHolder, Failure> {
    let invalid = |message| (ErrorKind::Invalid, message);
    let holder = LeaseHolder::of_request(request).map_err(invalid)?;
    let needs_ttl = holder.token.is_some() && request.ttl_ms.is_none();
    let may_have_token = matches!(
        request.operation,
        TcOperation::Apply(_) | TcOperation::ApplyConfig { .. } | TcOperation::Renew
    );
    if holder.token.is_some() && !may_have_token {
        let message = "lease_token is for Apply, ApplyConfig and Renew only";
        return Err(invalid(message.to_owned()));
    }
    if needs_ttl {
        return Err(invalid("lease_token needs ttl_ms".to_owned()));
    }
    Ok(holder)
}

/// Returns the work that lets a lease end later.
fn renewal(terms: Terms) -> Result<TcWork, Failure> {
    match (terms.holder.token, terms.ttl, terms.confirm_within) {
        (Some(token), Some(ttl), None) => Ok(TcWork::Renew { token, ttl }),
        _ => {
            let message = "Renew needs lease_token and ttl_ms, and nothing else";
            Err((ErrorKind::Invalid, message.to_owned()))
        }
    }
}

/// Returns the response: the state that was read back, and its end if there is a lease.
fn response(
    change: &PendingTcChange,
    outcome: &Outcome,
    lease: Option<&Lease>,
    moment: Moment,
) -> TcResponse {
    let (netns, interface) = &change.target;
    let ifname = interface.to_wire();
    let netem = outcome.observed.netem();
    let mut message = match (netem, outcome.plan) {
        (Some(netem), _) => format!(
            "netem is in force on {ifname} in {netns}, {}",
            report::queue_text(netem)
        ),
        (None, Plan::Delete { .. }) => format!("netem is removed from {ifname} in {netns}"),
        (None, _) => format!("there is no netem on {ifname} in {netns}"),
    };
    for note in &outcome.notes {
        message.push_str("; ");
        message.push_str(&note.to_string());
    }
    if let Some(scenario) = &change.stopped {
        message.push_str(&format!(
            "; the scenario {scenario:?} that ran there is stopped"
        ));
    }
    let ends_in = lease.and_then(Lease::ends).map(|at| at.since(moment.boot));
    match (ends_in, lease.and_then(|lease| lease.confirm_by)) {
        (Some(time), None) => message.push_str(&format!("; it ends in {time:?}")),
        (Some(time), Some(_)) => {
            message.push_str(&format!("; it ends in {time:?} unless it is confirmed"));
        }
        (None, _) if change.order.work == TcWork::Confirm => message.push_str("; it stays"),
        (None, _) => {}
    }
    let applied = netem.map(|netem| report::configuration(&ifname, netem));
    let expires_at = ends_in.map(|time| {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        moment.unix_ms.saturating_add(ms)
    });
    TcResponse {
        expires_at,
        ..TcResponse::success(message, applied)
    }
}
