//! Who set what is in force, and the answer to `query/state`. Pure.

use std::collections::BTreeMap;

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::names::{InterfaceName, NamespaceName};
use tcgui_shared::state::{
    BackendState, InterfaceState, ScenarioProgress, SetBy, StateRequest, StateResponse,
};

use super::work::PendingTcChange;
use super::{Effect, Moment, State};
use crate::backend::inventory::Listed;
use crate::backend::orders::TcWork;
use crate::backend::wire::interface_type;
use crate::bus::Reply;
use crate::kernel::link::Link;
use crate::kernel::netem::Netem;
use crate::kernel::netns::NetnsKey;
use crate::lease::ledger::LeaseKey;
use crate::lease::{BootTime, Lease, Owner};
use crate::tc::plan::is_same;
use crate::tc::report;

/// The last change of each interface by this run of the daemon, while its netem is in force.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<LeaseKey, Origin>);

#[derive(Debug)]
struct Origin {
    netem: Netem,
    generation: u64,
    /// In ms since the Unix epoch.
    since: u64,
    set_by: Option<SetBy>,
}

impl Origins {
    /// Notes what work on a qdisc left in force.
    pub(super) fn changed(&mut self, change: &PendingTcChange, netem: Option<Netem>, unix_ms: u64) {
        let lane = change.lane();
        let Some(netem) = netem else {
            self.0.remove(&lane);
            return;
        };
        let set_by = match &change.order.work {
            TcWork::Change { terms, .. } => Some(match &terms.scenario {
                Some(lease) => SetBy::Scenario {
                    id: scenario_of(lease).to_owned(),
                },
                None => SetBy::Client {
                    name: terms.holder.client.clone(),
                },
            }),
            // It is what was there before. Of that, nobody is known any more.
            TcWork::Restore => None,
            // The qdisc was only read.
            TcWork::Confirm | TcWork::Renew { .. } | TcWork::Release { .. } | TcWork::Look => {
                return;
            }
            // The same configuration for another MTU.
            TcWork::Fit { .. } => {
                if let Some(origin) = self.0.get_mut(&lane) {
                    origin.netem = netem;
                }
                return;
            }
        };
        let origin = Origin {
            netem,
            generation: change.order.link.generation,
            since: unix_ms,
            set_by,
        };
        self.0.insert(lane, origin);
    }

    /// These are all the links of a namespace: what is known of others is forgotten.
    pub(super) fn seen(&mut self, netns: NetnsKey, links: &[Link]) {
        let is_gone = |(key, origin): (&LeaseKey, &Origin)| {
            let is_its =
                |link: &Link| link.ifindex == key.1 && link.generation == origin.generation;
            (!links.iter().any(is_its)).then_some(*key)
        };
        let here = (netns, u32::MIN)..=(netns, u32::MAX);
        let gone: Vec<_> = self.0.range(here).filter_map(is_gone).collect();
        for key in gone {
            self.0.remove(&key);
        }
    }

    /// Forgets a namespace to which nothing leads any more.
    pub(super) fn lost(&mut self, netns: NetnsKey) {
        self.0.retain(|key, _| key.0 != netns);
    }

    fn get(&self, lane: LeaseKey, netem: &Netem) -> Option<&Origin> {
        self.0.get(&lane).filter(|it| is_same(&it.netem, netem))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Returns the scenario that a lease of an execution is for: its id is followed by the number of the execution.
fn scenario_of(lease: &str) -> &str {
    lease.rsplit_once(" #").map_or(lease, |(id, _)| id)
}

impl State {
    /// Answers what is in force. The executions are asked for the steps of scenarios, if any run.
    pub(super) fn report_state(
        &self,
        request: &StateRequest,
        reply: Reply<StateResponse>,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if !self.awaited.is_empty() {
            let message = "the backend has not read all namespaces yet, try again";
            return reply.send(StateResponse::failure(message, ErrorKind::Busy));
        }
        let wanted = match Wanted::of(request) {
            Ok(wanted) => wanted,
            Err(message) => return reply.send(StateResponse::failure(message, ErrorKind::Invalid)),
        };
        let mut interfaces = Vec::new();
        for listed in self.inventory.listed() {
            self.report_namespace(&listed, &wanted, moment, &mut interfaces);
        }
        let state = BackendState {
            backend_name: self.identity.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: self.identity.hostname.clone(),
            started_at: self.identity.started_at.saturating_mul(1000),
            timestamp: moment.unix_ms,
            namespace_count: self.counts.0,
            interface_count: self.counts.1,
            interfaces,
        };
        let mut reported = state.interfaces.iter();
        if reported.any(|interface| interface.scenario.is_some()) {
            effects.push(Effect::ReportState(Box::new(state), reply));
        } else {
            reply.send(StateResponse::success(state));
        }
    }

    fn report_namespace(
        &self,
        listed: &Listed<'_>,
        wanted: &Wanted,
        moment: Moment,
        interfaces: &mut Vec<InterfaceState>,
    ) {
        let Some((namespace, aliases)) = listed.names.split_first() else {
            return;
        };
        if !wanted.has_namespace(listed.names) {
            return;
        }
        let namespace = namespace.to_wire();
        let aliases: Vec<_> = aliases.iter().map(NamespaceName::to_wire).collect();
        for (name, link) in &listed.links {
            if wanted.interface.as_ref().is_some_and(|it| it != name) {
                continue;
            }
            let lane = (listed.key, link.ifindex);
            let scenario = self.claims.scenario_on(lane);
            if wanted.impaired && !link.root_netem && scenario.is_none() {
                continue;
            }
            let mut state = InterfaceState {
                namespace: namespace.clone(),
                namespace_aliases: aliases.clone(),
                interface: name.to_wire(),
                is_up: link.up,
                is_oper_up: link.carrier,
                interface_type: interface_type(link),
                has_tc_qdisc: link.root_netem,
                configuration: None,
                since: None,
                expires_at: None,
                confirm_by: None,
                scenario: scenario.map(begun),
                set_by: None,
            };
            if let Some(netem) = &link.netem {
                state.configuration = Some(report::configuration(&state.interface, netem));
                self.report_origin(lane, netem, &mut state);
            }
            self.report_ends(lane, moment, &mut state);
            interfaces.push(state);
        }
    }

    /// Adds who set a netem, and when.
    fn report_origin(&self, lane: LeaseKey, netem: &Netem, state: &mut InterfaceState) {
        let lease = self.ledger.get(lane);
        let is_of_lease = |lease: &&Lease| lease.set.iter().flatten().any(|it| is_same(it, netem));
        if let Some(origin) = self.origins.get(lane, netem) {
            state.since = Some(origin.since);
            state.set_by.clone_from(&origin.set_by);
        } else if let Some(lease) = lease.filter(is_of_lease) {
            // An earlier run of the daemon set it.
            state.set_by = match &lease.owner {
                Owner::Scenario { id } => Some(SetBy::Scenario {
                    id: scenario_of(id).to_owned(),
                }),
                Owner::Plain | Owner::Confirm => Some(SetBy::Client {
                    name: lease.holder.client.clone(),
                }),
            };
        } else if self.origins.0.contains_key(&lane) {
            // This daemon set something else.
            state.set_by = Some(SetBy::OtherProgram);
        }
    }

    /// Adds when what is in force ends.
    fn report_ends(&self, lane: LeaseKey, moment: Moment, state: &mut InterfaceState) {
        let lease = self.ledger.get(lane);
        let Some(lease) = lease.filter(|_| !self.ledger.has_ended(lane)) else {
            return;
        };
        let in_unix_ms = |at: BootTime| {
            let left = u64::try_from(at.since(moment.boot).as_millis()).unwrap_or(u64::MAX);
            moment.unix_ms.saturating_add(left)
        };
        state.expires_at = lease.expires.map(in_unix_ms);
        state.confirm_by = lease.confirm_by.map(in_unix_ms);
    }
}

fn begun(id: &str) -> ScenarioProgress {
    ScenarioProgress {
        id: id.to_owned(),
        name: None,
        step: None,
        steps: None,
        description: None,
        paused: false,
        loop_iteration: 0,
        progress_percent: None,
    }
}

/// What a request asks for.
#[derive(Debug)]
struct Wanted {
    namespace: Option<NamespaceName>,
    interface: Option<InterfaceName>,
    impaired: bool,
}

impl Wanted {
    fn of(request: &StateRequest) -> Result<Self, String> {
        let namespace = request.namespace.as_deref().map(NamespaceName::from_wire);
        let interface = request.interface.as_deref().map(InterfaceName::from_wire);
        Ok(Self {
            namespace: namespace.transpose().map_err(|err| err.to_string())?,
            interface: interface.transpose().map_err(|err| err.to_string())?,
            impaired: request.impaired,
        })
    }

    fn has_namespace(&self, names: &[NamespaceName]) -> bool {
        let wanted = self.namespace.as_ref();
        wanted.is_none_or(|wanted| names.contains(wanted))
    }
}
