//! Decisions about executions of scenarios: which interface a client means, and whose an interface is. Pure.
//!
//! An execution claims its interface when it first looks at it, by the identity of the interface and not by its name. The claim ends
//! when the interface goes, or when a client changes it. The client is not refused, because released frontends ignore most
//! replies, and a slider would seem to do nothing. A request of an execution without a claim is refused here, so that it cannot
//! overwrite the change of a client.

use std::collections::HashMap;
use std::sync::Arc;

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::names::{InterfaceName, NamespaceName};
use tcgui_shared::scenario::{
    ExecutionTarget, ScenarioError, ScenarioExecutionRequest, ScenarioExecutionResponse,
};
use tcgui_shared::tc::{TcOperation, TcResponse};

use super::work::{PendingTcChange, Requester, Work};
use super::{Effect, LANE_FULL, Moment, State};
use crate::backend::orders::TcWork;
use crate::bus::Reply;
use crate::execution::{Action, Claim, Command, InterfaceKey, InterfaceNames, Loss, Start, Target};
use crate::kernel::link::Link;
use crate::kernel::netns::NetnsKey;
use crate::lease::ledger::LeaseKey;
use crate::lease::terms::Terms;
use crate::policy::Change;

/// What an execution asks of traffic control.
#[derive(Debug)]
pub(in crate::backend) struct TcCall {
    pub(in crate::backend) claim: Claim,
    pub(in crate::backend) asked: Asked,
    pub(in crate::backend) reply: Reply<TcResponse>,
}

#[derive(Debug)]
pub(in crate::backend) enum Asked {
    /// Claim the interface, and tell what is there.
    Look,
    Change(Box<TcOperation>),
    /// Give the claim up.
    Release {
        /// What was there should have been put back, and was not.
        owed: bool,
    },
}

/// Which interfaces are an execution's to change.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: HashMap<LeaseKey, (u64, Arc<str>)>,
    /// Interfaces for which a start was requested, and whether a client has changed them since.
    starting: HashMap<LeaseKey, bool>,
    /// What the executions are to be told.
    lost: Vec<Command>,
}

impl Claims {
    /// A client starts a scenario on an interface. Its execution claims the interface later.
    fn note_start(&mut self, lane: LeaseKey) {
        self.starting.insert(lane, false);
    }

    /// Returns whether a client has changed an interface after it requested the start.
    fn take_overtaken(&mut self, lane: LeaseKey) -> bool {
        self.starting.remove(&lane).unwrap_or(false)
    }

    fn claim(&mut self, lane: LeaseKey, claim: &Claim) {
        self.held
            .insert(lane, (claim.number, Arc::clone(&claim.scenario)));
    }

    fn holds(&self, lane: LeaseKey, claim: &Claim) -> bool {
        self.held
            .get(&lane)
            .is_some_and(|(number, _)| *number == claim.number)
    }

    fn release(&mut self, lane: LeaseKey, claim: &Claim) {
        if self.holds(lane, claim) {
            self.held.remove(&lane);
        }
    }

    /// A client changes an interface; returns the scenario that ends by that.
    pub(super) fn take_over(&mut self, lane: LeaseKey) -> Option<Arc<str>> {
        if let Some(is_overtaken) = self.starting.get_mut(&lane) {
            *is_overtaken = true;
        }
        let (number, scenario) = self.held.remove(&lane)?;
        self.lost.push(lost(lane, number, Loss::TakenOver));
        Some(scenario)
    }

    /// These are all the links of a namespace: executions on others have lost them.
    pub(super) fn links_are(&mut self, netns: NetnsKey, links: &[Link]) {
        let is_gone = |(key, ifindex): &LeaseKey| {
            *key == netns && !links.iter().any(|link| link.ifindex == *ifindex)
        };
        self.starting.retain(|lane, _| !is_gone(lane));
        let lost_here = self.held.extract_if(|lane, _| is_gone(lane));
        let lost_here = lost_here.map(|(lane, (number, _))| lost(lane, number, Loss::Gone));
        self.lost.extend(lost_here);
    }

    /// Returns what the executions are to be told.
    pub(super) fn take_lost(&mut self) -> impl Iterator<Item = Command> {
        std::mem::take(&mut self.lost).into_iter()
    }
}

fn lost((netns, ifindex): LeaseKey, number: u64, loss: Loss) -> Command {
    Command::Lost {
        key: InterfaceKey { netns, ifindex },
        number,
        loss,
    }
}

impl State {
    /// Returns what to ask of the executions; answers what is wrong at once.
    pub(super) fn execution(
        &mut self,
        request: ScenarioExecutionRequest,
        reply: Reply<ScenarioExecutionResponse>,
    ) -> Option<Command> {
        let (target, action) = match request {
            ScenarioExecutionRequest::Start {
                scenario_id,
                namespace,
                interface,
                loop_execution,
            } => {
                return match self.find(&namespace, &interface) {
                    Ok(((netns, interface), found)) => {
                        let key = InterfaceKey {
                            netns: found.key,
                            ifindex: found.link.ifindex,
                        };
                        self.claims.note_start((key.netns, key.ifindex));
                        let names = InterfaceNames { netns, interface };
                        Some(Command::Start(Box::new(Start {
                            scenario_id,
                            looped: loop_execution,
                            target: Target { key, names },
                            reply,
                        })))
                    }
                    Err((kind, message)) => {
                        reply.send(ScenarioError::new(kind.into(), message).into());
                        None
                    }
                };
            }
            ScenarioExecutionRequest::Stop(target) => (target, Action::Stop),
            ScenarioExecutionRequest::Pause(target) => (target, Action::Pause),
            ScenarioExecutionRequest::Resume(target) => (target, Action::Resume),
            ScenarioExecutionRequest::Status(target) => (target, Action::Status),
            ScenarioExecutionRequest::ListActive => return Some(Command::ListActive(reply)),
        };
        match names(&target) {
            Ok(names) => {
                let found = self.inventory.find(&names.netns, &names.interface).ok();
                Some(Command::On {
                    names,
                    key: found.map(|found| InterfaceKey {
                        netns: found.key,
                        ifindex: found.link.ifindex,
                    }),
                    action,
                    reply,
                })
            }
            Err(message) => {
                reply.send(ScenarioError::new(ErrorKind::Invalid.into(), message).into());
                None
            }
        }
    }

    /// Lets a call of an execution take its place among the requests of clients.
    pub(super) fn tc_call(&mut self, call: TcCall, moment: Moment, effects: &mut Vec<Effect>) {
        let TcCall {
            claim,
            asked,
            reply,
        } = call;
        let InterfaceKey { netns, ifindex } = claim.target.key;
        let lane = (netns, ifindex);
        let work = match asked {
            Asked::Release { owed } => {
                self.claims.release(lane, &claim);
                if owed {
                    // Its lease ends: restoring is tried until it succeeds.
                    let id = lease_id(&claim);
                    self.enter(Work::EndScenario { lane, id }, moment, effects);
                } else {
                    // What it left in force stays: the scenario is complete.
                    self.release_lease(lane, &lease_id(&claim), moment, effects);
                }
                return reply.send(TcResponse::success("released", None));
            }
            Asked::Change(_) if !self.claims.holds(lane, &claim) => {
                let message = "the interface is gone, or was changed by a request";
                return reply.send(TcResponse::failure(message, ErrorKind::Busy));
            }
            // On disk before its first change is what was there, for a daemon that does not live to restore it.
            Asked::Change(operation) => TcWork::Change {
                operation,
                terms: Terms::of_scenario(lease_id(&claim)),
            },
            Asked::Look => TcWork::Look,
        };
        let InterfaceNames { netns, interface } = claim.target.names.clone();
        let Some((_, mut found)) = self.inventory.locate(lane.0, ifindex) else {
            let message = format!("no interface {interface} in network namespace {netns}");
            return reply.send(TcResponse::failure(message, ErrorKind::NotFound));
        };
        // Names may have changed since it was started. If it cannot restore the interface by that, its lease does.
        if let Err(denial) = self.permit_interface(Change::Impair, &found) {
            return reply.send(TcResponse::failure(denial.to_string(), ErrorKind::Denied));
        }
        if work == TcWork::Look {
            if self.claims.take_overtaken(lane) {
                let message =
                    format!("{interface} in {netns} was changed by a request after this one");
                return reply.send(TcResponse::failure(message, ErrorKind::Busy));
            }
            if self.ledger.is_owed(lane) {
                // It would take that for what it has to put back itself.
                let message = format!(
                    "what an earlier scenario left on {interface} in {netns} could not be taken back yet, which is tried again"
                );
                return reply.send(TcResponse::failure(message, ErrorKind::Busy));
            }
            if self.lanes.is_full(lane) {
                return reply.send(TcResponse::failure(LANE_FULL, ErrorKind::Busy));
            }
            self.claims.claim(lane, &claim);
            // It begins where the client meant it to; after that it goes along with the namespace.
            let named = self.inventory.find(&netns, &interface).ok();
            let named = named.filter(|it| (it.key, it.link.ifindex) == lane);
            found.named = named.and_then(|it| it.named);
        }
        let order = self.order(found, work);
        let requester = Some(Requester::Execution(reply));
        let change = PendingTcChange::new(order, (netns, interface), requester);
        self.enter(Work::Tc(Box::new(change)), moment, effects);
    }
}

/// Of the leases of one execution: another one of the same scenario has others.
fn lease_id(claim: &Claim) -> String {
    format!("{} #{}", claim.scenario, claim.number)
}

fn names(target: &ExecutionTarget) -> Result<InterfaceNames, String> {
    let netns = NamespaceName::from_wire(&target.namespace).map_err(|err| err.to_string())?;
    let interface = InterfaceName::from_wire(&target.interface).map_err(|err| err.to_string())?;
    Ok(InterfaceNames { netns, interface })
}
