//! The decisions of the main loop: what each input leads to. Pure: no clock, no socket, no log.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tcgui_shared::control::{
    InterfaceControlOperation, InterfaceControlRequest, InterfaceControlResponse,
};
use tcgui_shared::diagnostics::DiagnosticsResponse;
use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::health::{BackendHealthStatus, BackendMetadata};
use tcgui_shared::interface::InterfaceListUpdate;
use tcgui_shared::names::{BackendName, InterfaceName, NamespaceName};
use tcgui_shared::preset::PresetList;
use tcgui_shared::scenario::{
    ErrorCategory, ScenarioError, ScenarioExecutionResponse, ScenarioRequest, ScenarioResponse,
};
use tcgui_shared::tc::{TcConfigUpdate, TcResponse};

use super::inventory::{Inventory, NotFound};
use super::lanes::Lanes;
use super::link_control::LinkOrder;
use crate::bus::{Publication, Rendered, Reply, Request, TcPublication};
use crate::interfaces::{InterfacesEvent, Links, NetnsKey};
use crate::namespace_watcher::{MountedNamespaceId, Namespace, NamespaceEvent};
use crate::pacing::Pacing;
use crate::sockets::Place;

/// The first change is published at once; more follow after ten times what the last list cost, and not
/// sooner than this, while changes keep coming. Not later than a quarter of a second either: a
/// publication that was preempted must not hold up the next one for ten times as long.
const LIST_PACING: Pacing = Pacing::new(10, Duration::from_millis(25), Duration::from_millis(250));
/// Health is repeated this often though nothing changed.
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
/// What this backend can do, in the words of released backends.
const CAPABILITIES: [&str; 1] = ["interface_control"];

/// Who the backend is.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) name: BackendName,
    pub(super) hostname: Option<String>,
    /// Seconds since the Unix epoch.
    pub(super) started_at: u64,
    pub(super) exclude_loopback: bool,
    /// The netns directory, to which names are relative.
    pub(super) directory: PathBuf,
}

/// A client's wish to switch a link.
#[derive(Debug)]
pub(super) struct LinkWish {
    pub(super) order: LinkOrder,
    request: InterfaceControlRequest,
    reply: Reply<InterfaceControlResponse>,
}

/// What became of a wish: the links as read back, or why not.
#[derive(Debug)]
pub(super) struct LinkOutcome {
    pub(super) wish: LinkWish,
    pub(super) result: Result<Links, (ErrorKind, String)>,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    Namespace(NamespaceEvent),
    Interfaces(InterfacesEvent),
    Request(Request),
    LinkSwitched(LinkOutcome),
    Published(Duration),
    Timer,
}

/// What to do about it.
#[derive(Debug)]
pub(super) enum Effect {
    Track(MountedNamespaceId, PathBuf),
    Untrack(MountedNamespaceId, PathBuf),
    /// The last name of the namespace is gone.
    Forget(MountedNamespaceId),
    SwitchLink(LinkWish),
    Publish(Publication),
}

/// When something happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// Seconds since the Unix epoch.
    pub(super) unix_s: u64,
}

/// Everything the main loop remembers.
#[derive(Debug)]
pub(super) struct State {
    identity: Identity,
    inventory: Inventory,
    /// Namespaces that were there at the start and are not dumped yet; the first list waits for them.
    awaited: HashSet<NetnsKey>,
    lanes: Lanes<(NetnsKey, u32), LinkWish>,
    changed: bool,
    publishing: bool,
    pacing: Pacing,
    /// The last list; `None` before the first one.
    listed: Option<Vec<Rendered>>,
    /// Namespaces and interfaces, as counted with the last list.
    counts: (usize, usize),
    /// What was published of each interface that has or had a netem.
    netem_shown: BTreeMap<(NamespaceName, InterfaceName), bool>,
    health_counts: Option<(usize, usize)>,
    health_due: Option<Instant>,
}

impl State {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            inventory: Inventory::new(identity.exclude_loopback),
            identity,
            awaited: HashSet::from([NetnsKey::Host]),
            lanes: Lanes::default(),
            changed: true,
            publishing: false,
            pacing: LIST_PACING,
            listed: None,
            counts: (0, 0),
            netem_shown: BTreeMap::new(),
            health_counts: None,
            health_due: None,
        }
    }

    /// Takes in what the watcher saw first; the first list will have all of it.
    pub(super) fn begin(&mut self, namespaces: Vec<Namespace>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for Namespace { name, id } in namespaces {
            self.awaited.insert(NetnsKey::Mounted(id));
            self.namespace(NamespaceEvent::Added { name, id }, &mut effects);
        }
        effects
    }

    /// Takes in one input and returns what to do.
    pub(super) fn step(&mut self, input: Input, moment: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Namespace(event) => self.namespace(event, &mut effects),
            Input::Interfaces(InterfacesEvent::Links { key, links }) => self.links(key, links),
            Input::Interfaces(InterfacesEvent::Unreadable { key }) => {
                self.awaited.remove(&key);
            }
            Input::Request(request) => self.request(request, &mut effects),
            Input::LinkSwitched(outcome) => self.link_switched(outcome, &mut effects),
            Input::Published(cost) => {
                self.publishing = false;
                self.pacing.done(moment.now, cost);
            }
            Input::Timer => {}
        }
        effects.extend(self.publish(moment).map(Effect::Publish));
        effects
    }

    /// Returns when something is due though nothing happens; `None`: never.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        if self.publishing || !self.awaited.is_empty() {
            return None;
        }
        let list = if self.changed {
            self.pacing.not_before()
        } else {
            None
        };
        list.into_iter().chain(self.health_due).min()
    }

    /// Gives up what was asked for and not begun; those who asked hear that the backend stops.
    pub(super) fn stop(&mut self) {
        self.lanes.clear_waiting();
    }

    fn namespace(&mut self, event: NamespaceEvent, effects: &mut Vec<Effect>) {
        match event {
            NamespaceEvent::Added { name, id } => {
                let path = self.identity.directory.join(&name);
                self.inventory.add(name, id);
                // A second name of a known namespace shows at once, without a dump.
                self.changed = true;
                effects.push(Effect::Track(id, path));
            }
            NamespaceEvent::Removed { name, id } => {
                if self.inventory.remove(&name, id) {
                    self.awaited.remove(&NetnsKey::Mounted(id));
                    effects.push(Effect::Forget(id));
                }
                self.changed = true;
                effects.push(Effect::Untrack(id, self.identity.directory.join(&name)));
            }
            // The list shows namespaces, not directories.
            NamespaceEvent::DirectoryAppeared | NamespaceEvent::DirectoryVanished => {}
        }
    }

    fn links(&mut self, key: NetnsKey, links: Links) {
        self.awaited.remove(&key);
        self.changed |= self.inventory.set_links(key, links);
    }

    fn request(&mut self, request: Request, effects: &mut Vec<Effect>) {
        // Answering is handing a value to whoever waits for it, not I/O.
        match request {
            Request::Interface(request, reply) => self.switch_link(request, reply, effects),
            Request::Scenario(ScenarioRequest::List, reply) => {
                reply.send(ScenarioResponse::Listed {
                    scenarios: Vec::new(),
                    load_errors: Vec::new(),
                });
            }
            Request::Scenario(_, reply) => reply.send(unsupported("storing scenarios").into()),
            Request::Execution(_, reply) => {
                reply.send(ScenarioExecutionResponse::from(unsupported(
                    "running scenarios",
                )));
            }
            Request::Tc(_, reply) => reply.send(TcResponse::failure(
                missing("changing traffic control"),
                ErrorKind::Unsupported,
            )),
            Request::Diagnostics(_, reply) => reply.send(DiagnosticsResponse::failure(
                missing("running diagnostics"),
                ErrorKind::Unsupported,
            )),
        }
    }

    fn switch_link(
        &mut self,
        request: InterfaceControlRequest,
        reply: Reply<InterfaceControlResponse>,
        effects: &mut Vec<Effect>,
    ) {
        let refuse = |reply: Reply<_>, message, kind| {
            reply.send(InterfaceControlResponse::failure(
                request.operation,
                message,
                kind,
            ));
        };
        let netns = match NamespaceName::from_wire(&request.namespace) {
            Ok(netns) => netns,
            Err(err) => return refuse(reply, err.to_string(), ErrorKind::Invalid),
        };
        let interface = match InterfaceName::from_wire(&request.interface) {
            Ok(interface) => interface,
            Err(err) => return refuse(reply, err.to_string(), ErrorKind::Invalid),
        };
        let found = match self.inventory.find(&netns, &interface) {
            Ok(found) => found,
            Err(reason) => {
                return refuse(
                    reply,
                    not_found(reason, &netns, &interface),
                    ErrorKind::NotFound,
                );
            }
        };
        let order = LinkOrder {
            place: self.place(found.key, found.names),
            ifindex: found.ifindex,
            up: request.operation == InterfaceControlOperation::Enable,
        };
        let lane = (order.place.key, order.ifindex);
        match self.lanes.enter(
            lane,
            LinkWish {
                order,
                request,
                reply,
            },
        ) {
            Ok(begin) => effects.extend(begin.map(Effect::SwitchLink)),
            Err(LinkWish { request, reply, .. }) => reply.send(InterfaceControlResponse::failure(
                request.operation,
                "too many requests wait for this interface, try again",
                ErrorKind::Busy,
            )),
        }
    }

    fn place(&self, key: NetnsKey, names: Vec<OsString>) -> Place {
        let paths = names
            .into_iter()
            .map(|name| self.identity.directory.join(name));
        Place {
            key,
            paths: paths.collect(),
        }
    }

    fn link_switched(&mut self, outcome: LinkOutcome, effects: &mut Vec<Effect>) {
        let LinkOutcome {
            wish:
                LinkWish {
                    order,
                    request,
                    reply,
                },
            result,
        } = outcome;
        effects.extend(
            self.lanes
                .leave(&(order.place.key, order.ifindex))
                .map(Effect::SwitchLink),
        );
        reply.send(self.answer_switch(&order, &request, result));
    }

    /// Answers with the state that was read back, not with the one that was asked for.
    fn answer_switch(
        &mut self,
        order: &LinkOrder,
        request: &InterfaceControlRequest,
        result: Result<Links, (ErrorKind, String)>,
    ) -> InterfaceControlResponse {
        let operation = request.operation;
        let links = match result {
            Ok(links) => links,
            Err((kind, message)) => {
                return InterfaceControlResponse::failure(operation, message, kind);
            }
        };
        let now_up = links
            .iter()
            .find(|link| link.ifindex == order.ifindex)
            .map(|link| link.up);
        self.links(order.place.key, links);
        let interface = &request.interface;
        match now_up {
            Some(up) if up == order.up => {
                let state = if up { "up" } else { "down" };
                InterfaceControlResponse::success(operation, format!("{interface} is {state}"))
            }
            Some(_) => InterfaceControlResponse::failure(
                operation,
                format!("{interface} was switched back by somebody else"),
                ErrorKind::Busy,
            ),
            None => InterfaceControlResponse::failure(
                operation,
                format!("interface {interface} vanished"),
                ErrorKind::NotFound,
            ),
        }
    }

    /// Returns what is to be published now, if anything.
    fn publish(&mut self, moment: Moment) -> Option<Publication> {
        if self.publishing || !self.awaited.is_empty() {
            return None;
        }
        let mut publication = Publication::default();
        if self.changed && self.pacing.allows(moment.now) {
            self.changed = false;
            self.publish_list(moment, &mut publication);
            publication.tc = self.tc_changes(moment);
        }
        let due = self.health_due.is_none_or(|due| due <= moment.now);
        if due || self.health_counts != Some(self.counts) {
            self.health_counts = Some(self.counts);
            self.health_due = Some(moment.now + HEALTH_INTERVAL);
            publication.health = Some(self.health(moment));
        }
        let Publication {
            presets,
            list,
            health,
            tc,
        } = &publication;
        self.publishing = presets.is_some() || list.is_some() || health.is_some() || !tc.is_empty();
        self.publishing.then_some(publication)
    }

    fn publish_list(&mut self, moment: Moment, publication: &mut Publication) {
        let mut namespaces = Vec::new();
        self.counts = (0, 0);
        for shown in self.inventory.shown() {
            self.counts = (self.counts.0 + 1, self.counts.1 + shown.interface_count());
            namespaces.extend(shown.json().cloned());
        }
        if self.listed.is_none() {
            publication.presets = Some(PresetList {
                presets: Vec::new(),
            });
        }
        if self.listed.as_ref() != Some(&namespaces) {
            publication.list = Some(InterfaceListUpdate {
                namespaces: namespaces.clone(),
                timestamp: moment.unix_s,
                backend_name: self.identity.name.to_string(),
            });
        }
        self.listed = Some(namespaces);
    }

    /// Compares the netems that are with those that were published.
    fn tc_changes(&mut self, moment: Moment) -> Vec<TcPublication> {
        let present: BTreeSet<_> = self.inventory.netems().collect();
        let mut changes = Vec::new();
        let before = std::mem::take(&mut self.netem_shown);
        for (interface, had_netem) in before {
            if present.contains(&interface) {
                self.netem_shown.insert(interface, had_netem);
            } else if self.inventory.find(&interface.0, &interface.1).is_ok() {
                if had_netem {
                    changes.push(self.tc_change(&interface, false, moment));
                }
                self.netem_shown.insert(interface, false);
            } else {
                let (netns, interface) = interface;
                changes.push(TcPublication {
                    netns,
                    interface,
                    update: None,
                });
            }
        }
        for interface in present {
            if self.netem_shown.insert(interface.clone(), true) != Some(true) {
                changes.push(self.tc_change(&interface, true, moment));
            }
        }
        changes
    }

    fn tc_change(
        &self,
        (netns, interface): &(NamespaceName, InterfaceName),
        has_tc: bool,
        moment: Moment,
    ) -> TcPublication {
        let update = TcConfigUpdate {
            namespace: netns.to_wire(),
            interface: interface.to_wire(),
            backend_name: self.identity.name.to_string(),
            timestamp: moment.unix_s,
            configuration: None,
            has_tc,
        };
        TcPublication {
            netns: netns.clone(),
            interface: interface.clone(),
            update: Some(update),
        }
    }

    fn health(&self, moment: Moment) -> BackendHealthStatus {
        let (namespace_count, interface_count) = self.counts;
        BackendHealthStatus {
            backend_name: self.identity.name.to_string(),
            status: "Backend running".to_owned(),
            timestamp: moment.unix_s,
            metadata: BackendMetadata {
                version: Some(env!("CARGO_PKG_VERSION").to_owned()),
                hostname: self.identity.hostname.clone(),
                started_at: Some(self.identity.started_at),
                capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
            },
            namespace_count,
            interface_count,
        }
    }
}

fn missing(what: &str) -> String {
    format!("{what} is not part of this version yet")
}

fn unsupported(what: &str) -> ScenarioError {
    ScenarioError::new(ErrorCategory::Permanent, missing(what))
}

fn not_found(reason: NotFound, netns: &NamespaceName, interface: &InterfaceName) -> String {
    match reason {
        NotFound::Namespace => format!("no network namespace {netns}"),
        NotFound::Interface => format!("no interface {interface} in network namespace {netns}"),
    }
}

#[cfg(test)]
mod tests;
