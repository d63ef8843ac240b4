//! Decisions about executions of scenarios: which interface a client means, and which execution owns an interface. Pure.
//!
//! An execution claims its interface with its first look. The claim is for the identity of the interface, not for its name. It ends
//! when the interface is deleted, or when a client changes it. The client's request is not refused: released frontends ignore most
//! replies, so their sliders would have no visible effect. A change of an execution without a claim is refused here, so that it
//! cannot overwrite the change of a client.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::names::InterfaceName;
use tcgui_shared::scenario::{ScenarioError, ScenarioExecutionRequest, ScenarioExecutionResponse};
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

/// A call of an execution about its interface.
#[derive(Debug)]
pub(in crate::backend) struct TcCall {
    pub(in crate::backend) claim: Claim,
    pub(in crate::backend) asked: Asked,
    pub(in crate::backend) reply: Reply<TcResponse>,
}

#[derive(Debug)]
pub(in crate::backend) enum Asked {
    /// Claim the interface and return its current netem.
    Look,
    Change(Box<TcOperation>),
    /// Restore the netem from before the first change.
    Restore,
    /// Give the claim up.
    Release {
        /// The execution had to restore the earlier netem, and could not.
        owed: bool,
    },
}

/// The interfaces that executions may change.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: HashMap<LeaseKey, Holder>,
    /// Interfaces for which a start was requested, and whether a client has changed them since.
    starting: HashMap<LeaseKey, bool>,
    /// Commands for the execution actor.
    news: Vec<Command>,
}

/// The execution that holds a claim, and the link as it was seen last.
#[derive(Debug)]
struct Holder {
    number: u64,
    scenario: Arc<str>,
    generation: u64,
    ifname: OsString,
}

/// A change of the link of an execution.
#[derive(Debug, PartialEq, Eq)]
enum LinkChange {
    /// The link has another name.
    Renamed(InterfaceName),
    /// The link was deleted. Another link may have its index.
    Gone,
}

impl Holder {
    fn compare(&mut self, link: Option<&Link>) -> Option<LinkChange> {
        let is_same = |link: &&Link| link.generation == self.generation;
        let Some(link) = link.filter(is_same) else {
            return Some(LinkChange::Gone);
        };
        if link.ifname == self.ifname {
            return None;
        }
        link.ifname.clone_into(&mut self.ifname);
        // `InterfaceName` accepts every name that the kernel accepts.
        InterfaceName::new(&link.ifname)
            .ok()
            .map(LinkChange::Renamed)
    }
}

impl Claims {
    /// Records that a client starts a scenario on an interface. The execution claims the interface later.
    fn note_start(&mut self, lane: LeaseKey) {
        self.starting.insert(lane, false);
    }

    /// Returns whether a client has changed an interface after it requested the start.
    fn take_overtaken(&mut self, lane: LeaseKey) -> bool {
        self.starting.remove(&lane).unwrap_or(false)
    }

    fn claim(&mut self, lane: LeaseKey, claim: &Claim, link: &Link) {
        let holder = Holder {
            number: claim.number,
            scenario: Arc::clone(&claim.scenario),
            generation: link.generation,
            ifname: link.ifname.clone(),
        };
        self.held.insert(lane, holder);
    }

    /// Returns the scenario that has an interface.
    pub(super) fn scenario_on(&self, lane: LeaseKey) -> Option<&str> {
        self.held.get(&lane).map(|holder| &*holder.scenario)
    }

    fn holds(&self, lane: LeaseKey, claim: &Claim) -> bool {
        self.held
            .get(&lane)
            .is_some_and(|holder| holder.number == claim.number)
    }

    fn release(&mut self, lane: LeaseKey, claim: &Claim) {
        if self.holds(lane, claim) {
            self.held.remove(&lane);
        }
    }

    /// Ends the claim on an interface, because a client changes it. Returns the scenario that this stops.
    pub(super) fn take_over(&mut self, lane: LeaseKey) -> Option<Arc<str>> {
        if let Some(is_overtaken) = self.starting.get_mut(&lane) {
            *is_overtaken = true;
        }
        let Holder {
            number, scenario, ..
        } = self.held.remove(&lane)?;
        self.news.push(lost(lane, number, Loss::TakenOver));
        Some(scenario)
    }

    /// Compares the claims in a namespace with all its links. Executions lose links that are gone and follow links that were
    /// renamed. Returns the lost interfaces with the lease ids of their executions.
    pub(super) fn links_are(&mut self, netns: NetnsKey, links: &[Link]) -> Vec<(LeaseKey, String)> {
        let find = |ifindex| links.iter().find(|link| link.ifindex == ifindex);
        self.starting
            .retain(|(key, ifindex), _| *key != netns || find(*ifindex).is_some());
        let here = self.held.iter_mut().filter(|(lane, _)| lane.0 == netns);
        let compare = |(lane, holder): (&LeaseKey, &mut Holder)| {
            let change = holder.compare(find(lane.1))?;
            Some((*lane, change))
        };
        let changes: Vec<_> = here.filter_map(compare).collect();
        let mut ended = Vec::new();
        for (lane, change) in changes {
            if let LinkChange::Renamed(interface) = change {
                let (netns, ifindex) = lane;
                let key = InterfaceKey { netns, ifindex };
                self.news.push(Command::LinkRenamed { key, interface });
            } else if let Some(holder) = self.held.remove(&lane) {
                self.news.push(lost(lane, holder.number, Loss::Gone));
                ended.push((lane, lease_id(&holder.scenario, holder.number)));
            }
        }
        ended
    }

    /// Removes and returns the commands for the execution actor.
    pub(super) fn take_news(&mut self) -> impl Iterator<Item = Command> {
        std::mem::take(&mut self.news).into_iter()
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
    /// Compares the claims in a namespace with all its links, and ends the leases of executions that lost theirs. A step under way
    /// may still reach another link. So the end of the lease waits in the lane behind it.
    pub(super) fn follow_claims(
        &mut self,
        netns: NetnsKey,
        links: &[Link],
        effects: &mut Vec<Effect>,
    ) {
        let ended = self.claims.links_are(netns, links);
        let Some(moment) = self.last else {
            // Nothing has happened yet.
            return;
        };
        for (lane, id) in ended {
            self.enter(Work::EndScenario { lane, id }, moment, effects);
        }
    }

    /// Returns the command for the execution actor. An invalid request is answered at once.
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
        match self.addressed(&target) {
            Ok((names, key)) => Some(Command::On {
                names,
                key,
                action,
                reply,
            }),
            Err((kind, message)) => {
                reply.send(ScenarioError::new(kind.into(), message).into());
                None
            }
        }
    }

    /// Adds a call of an execution to the lane of its interface, like the request of a client.
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
                let id = lease_id(&claim.scenario, claim.number);
                if owed {
                    // The lease ends now, and the restoration is retried until it succeeds.
                    self.enter(Work::EndScenario { lane, id }, moment, effects);
                } else {
                    // The scenario is complete, and its last netem stays.
                    self.release_lease(lane, &id, moment, effects);
                }
                return reply.send(TcResponse::success("released", None));
            }
            Asked::Change(_) | Asked::Restore if !self.claims.holds(lane, &claim) => {
                let message = "the interface is gone, or was changed by a request";
                return reply.send(TcResponse::failure(message, ErrorKind::Busy));
            }
            // The lease records the earlier netem on disk before the first change, so that the next start can restore it after a crash.
            Asked::Change(operation) => TcWork::Change {
                operation,
                terms: Terms::of_scenario(lease_id(&claim.scenario, claim.number)),
            },
            Asked::Restore => {
                // The lease has the earlier netem. It ends when this work begins.
                let id = lease_id(&claim.scenario, claim.number);
                self.enter(Work::EndScenario { lane, id }, moment, effects);
                TcWork::Restore
            }
            Asked::Look => TcWork::Look,
        };
        let InterfaceNames { netns, interface } = claim.target.names.clone();
        let found = self.inventory.locate(lane.0, ifindex);
        // An execution begins on the interface that the client named. Later it follows the link, even under another name.
        let is_named = |link: &Link| work != TcWork::Look || link.ifname == interface.as_os_str();
        let Some((_, mut found)) = found.filter(|(_, found)| is_named(&found.link)) else {
            let message = format!("no interface {interface} in network namespace {netns}");
            return reply.send(TcResponse::failure(message, ErrorKind::NotFound));
        };
        // The names may have changed since the start, so the policy may refuse a step now. A restoration is always permitted.
        if work != TcWork::Restore
            && let Err(denial) = self.permit_interface(Change::Impair, &found)
        {
            return reply.send(TcResponse::failure(denial.to_string(), ErrorKind::Denied));
        }
        if work == TcWork::Look {
            if self.claims.take_overtaken(lane) {
                let message =
                    format!("{interface} in {netns} was changed by a request after this one");
                return reply.send(TcResponse::failure(message, ErrorKind::Busy));
            }
            if self.ledger.is_owed(lane) {
                // The execution would record that netem as the one to restore.
                let message = format!(
                    "what an earlier scenario left on {interface} in {netns} could not be taken back yet, which is tried again"
                );
                return reply.send(TcResponse::failure(message, ErrorKind::Busy));
            }
            if self.lanes.is_full(lane) {
                return reply.send(TcResponse::failure(LANE_FULL, ErrorKind::Busy));
            }
            self.claims.claim(lane, &claim, &found.link);
            let named = self.inventory.find(&netns, &interface).ok();
            let named = named.filter(|found| (found.key, found.link.ifindex) == lane);
            found.named = named.and_then(|found| found.named);
        }
        let order = self.order(found, work);
        let requester = Some(Requester::Execution(reply));
        let change = PendingTcChange::new(order, (netns, interface), requester);
        self.enter(Work::Tc(Box::new(change)), moment, effects);
    }
}

/// Returns the lease id of an execution. Each execution of a scenario has its own.
fn lease_id(scenario: &str, number: u64) -> String {
    format!("{scenario} #{number}")
}
