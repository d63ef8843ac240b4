//! The decisions of the main loop: the effects of each input. Pure: no clock, no socket, no log.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tcgui_shared::diagnostics::{DiagnosticsRequest, DiagnosticsResponse};
use tcgui_shared::explain::{ExplainRequest, ExplainResponse};
use tcgui_shared::health::{BackendHealthStatus, BackendMetadata};
use tcgui_shared::interface::InterfaceListUpdate;
use tcgui_shared::names::{BackendName, NamespaceName};
use tcgui_shared::preset::{CustomPreset, PresetList};
use tcgui_shared::scenario::{ScenarioRequest, ScenarioResponse};
use tcgui_shared::state::{BackendState, StateResponse};

use super::explaining::Question;
use super::inventory::{ChangeResult, Departed, Inventory, Setting};
use crate::bandwidth::CounterTargets;
use crate::bus::{NAMESAKE_GONE, Publication, Rendered, Reply, Request};
use crate::config::Reloadable;
use crate::diagnostics;
use crate::execution;
use crate::explain::explain_invalid;
use crate::interfaces::{InterfacesEvent, NetnsKey, Snapshot};
use crate::kernel::netem::Netem;
use crate::kernel::netns::NetnsRef;
use crate::lease::ledger::{LeaseKey, Ledger};
use crate::lease::{BootTime, Lease};
use crate::library::Library;
use crate::namespace_watcher::{Namespace, NamespaceEvent};
use crate::netns_holders::{HeldEvent, HolderSource};
use crate::sockets::NetnsTarget;
use crate::tc::desired::LinkFacts;
use executions::Claims;
use lanes::Lanes;
use list_pacing::ListPacing;
use memory::Memory;
use notifications::Notifications;
use origins::Origins;
use permits::RepeatedList;
use tc::PublishedTc;

pub(super) use executions::{Asked, TcCall};
pub(super) use links::LinkOutcome;
pub(super) use tc::TcOutcome;
pub(super) use work::{PendingLinkChange, PendingTcChange};

mod addressing;
mod departures;
mod executions;
mod lanes;
mod links;
mod list_pacing;
mod memory;
mod namespaces;
pub(super) mod notifications;
mod origins;
mod permits;
mod tc;
mod work;

/// The list waits while a link is switched, and this long after it, so that the reply is sent first. With a thousand namespaces
/// the main loop needs a millisecond to make the list, and the client needs longer to read the list than the reply.
const ANSWER_FIRST: Duration = Duration::from_millis(5);
/// The limit of that delay, however many links are switched one after the other. It is added to the pacing of lists.
const LIST_WAITS: Duration = Duration::from_millis(20);
/// The reply to a request for a lane that is full.
const LANE_FULL: &str = "too many requests wait for this interface, try again";
/// Interval of the health message while nothing changes.
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
/// The capabilities in the health message, with the names that released backends use.
const CAPABILITIES: [&str; 3] = ["tc_netem", "interface_control", "diagnostics"];

/// The properties of this backend. SIGHUP changes `options`.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) name: BackendName,
    pub(super) hostname: Option<String>,
    /// Seconds since the Unix epoch.
    pub(super) started_at: u64,
    pub(super) options: Reloadable,
    /// The decision about a namespace with this name panics. Only tests set it.
    pub(super) fails_with: Option<OsString>,
}

/// An input of the main loop.
#[derive(Debug)]
pub(super) enum Input {
    Namespace(NamespaceEvent),
    /// A process that holds a namespace was found, or has ended.
    Held(HolderSource, HeldEvent),
    Interfaces(InterfacesEvent),
    Request(Request),
    FrontendJoined,
    LinkChanged(Box<LinkOutcome>),
    TcChanged(Box<TcOutcome>),
    /// A call of an execution about its interface.
    TcCall(Box<TcCall>),
    Published(Duration),
    /// Presets, scenarios or the errors of their files changed.
    Library(Arc<Library>),
    /// The configuration was read again and differs.
    Options(Reloadable),
    /// The cookie of a namespace was read. `None`: it cannot be read.
    Identified {
        key: NetnsKey,
        cookie: Option<u64>,
    },
    /// Another backend with this name is on the bus. The value is its host.
    Namesake(String),
    /// Clients see this backend on the bus.
    OnBus,
    /// A message to the service manager was sent, or could not be sent.
    Notified,
    /// The daemon begins to stop.
    Ending,
    Timer,
}

/// An action that an input requires.
#[derive(Debug)]
pub(super) enum Effect {
    Track(NetnsKey, NetnsRef),
    Untrack(NetnsKey, NetnsRef),
    /// Release what is kept for a namespace without references.
    Forget(NetnsKey),
    ChangeLink(Box<PendingLinkChange>),
    ChangeTc(Box<PendingTcChange>),
    /// Remove the file of a lease that has ended.
    ForgetLease(Box<Lease>),
    /// Write the current references and interface name of a lease to its file.
    AmendLease(Box<Lease>),
    /// Read the cookie of a namespace. It shows whether leases that were recorded under another name belong there.
    Identify(NetnsKey, Vec<NetnsRef>),
    Diagnose(Box<diagnostics::Order>, Reply<DiagnosticsResponse>),
    /// Explain why a name is listed or not.
    Explain(Box<Question>, Reply<ExplainResponse>),
    /// Answer from the library, or change it.
    Scenario(ScenarioRequest, Reply<ScenarioResponse>),
    /// Send a command to the execution actor.
    Execution(execution::Command),
    /// Answer with a state, after the steps of the scenarios that run are added.
    ReportState(Box<BackendState>, Reply<StateResponse>),
    /// Look at a namespace soon, without an event.
    Recheck(NetnsKey),
    Publish(Publication),
    /// Read and publish the counters of these interfaces from now on.
    CounterTargets(CounterTargets),
    /// Scan the processes: a namespace exists to which no reference is known.
    LookForHolders,
    /// Return freed memory to the kernel.
    GiveMemoryBack,
    /// Send this message to the service manager.
    Notify(String),
}

/// The clocks at the time of an input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// Seconds since the Unix epoch.
    pub(super) unix_s: u64,
    /// Milliseconds since the Unix epoch.
    pub(super) unix_ms: u64,
    /// The clock of leases. It also runs while the machine is suspended.
    pub(super) boot: BootTime,
}

/// The state of the main loop.
#[derive(Debug)]
pub(super) struct State {
    identity: Identity,
    inventory: Inventory,
    /// Namespaces that existed at the start and are not dumped yet. The first list waits for them.
    awaited: HashSet<NetnsKey>,
    /// The work on each interface, in order.
    lanes: Lanes,
    /// The links with a netem, and the netem, as they were when it was last checked whether they fit.
    link_facts: HashMap<LeaseKey, (LinkFacts, Netem)>,
    /// Something may be other than in the last list …
    changed: bool,
    /// When `changed` became true.
    changed_since: Option<Instant>,
    publishing: bool,
    /// The publication under way was made from a new list.
    listing: bool,
    pacing: ListPacing,
    /// When the last change of a link was answered.
    link_answered: Option<Instant>,
    /// The last list. `None` before the first one.
    listed: Option<Vec<Rendered>>,
    repeat: RepeatedList,
    /// Number of namespaces and of interfaces in the last list.
    counts: (usize, usize),
    memory: Memory,
    tc: PublishedTc,
    ledger: Ledger,
    /// Who set what is in force.
    origins: Origins,
    /// The clocks at the last step.
    last: Option<Moment>,
    stopping: bool,
    claims: Claims,
    /// Namespaces without references whose leases are not restored yet.
    departing: HashMap<NetnsKey, Departed>,
    health_counts: Option<(usize, usize)>,
    health_due: Option<Instant>,
    /// The host of another backend with this name, and the time until which the conflict is reported.
    namesake: Option<(String, Instant)>,
    library: Arc<Library>,
    /// The presets as published. `None` before the first list, with which they are published.
    presets: Option<Vec<CustomPreset>>,
    /// The first list is on the bus, or kept until the bus is joined.
    is_published: bool,
    is_on_bus: bool,
    /// The daemon has begun to stop. Scenarios still end.
    is_ending: bool,
    notifications: Notifications,
}

impl State {
    pub(super) fn new(identity: Identity, setting: Setting, library: Arc<Library>) -> Self {
        Self {
            inventory: Inventory::new(setting),
            identity,
            awaited: HashSet::from([NetnsKey::Host]),
            lanes: Lanes::default(),
            link_facts: HashMap::new(),
            changed: true,
            changed_since: None,
            publishing: false,
            listing: false,
            pacing: ListPacing::new(),
            link_answered: None,
            listed: None,
            repeat: RepeatedList::default(),
            counts: (0, 0),
            memory: Memory::default(),
            tc: PublishedTc::default(),
            ledger: Ledger::default(),
            origins: Origins::default(),
            last: None,
            stopping: false,
            claims: Claims::default(),
            departing: HashMap::new(),
            health_counts: None,
            health_due: None,
            namesake: None,
            library,
            presets: None,
            is_published: false,
            is_on_bus: false,
            is_ending: false,
            notifications: Notifications::default(),
        }
    }

    /// Handles the namespaces that the watcher found at the start. The first list contains all of them.
    pub(super) fn begin(&mut self, namespaces: Vec<Namespace>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for Namespace { name, id } in namespaces {
            let change = self.inventory.add_name(name, id);
            let tracked = change.tracked.iter().map(|(key, _)| *key);
            self.awaited.extend(tracked);
            self.follow(change, &mut effects);
        }
        effects
    }

    /// Handles one input and returns its effects.
    pub(super) fn step(&mut self, input: Input, moment: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.last = Some(moment);
        match input {
            Input::Namespace(event) => self.namespace(event, &mut effects),
            Input::Held(source, event) => self.held(source, event, &mut effects),
            Input::Interfaces(InterfacesEvent::Links { key, snapshot }) => {
                self.links(key, snapshot, moment, &mut effects);
            }
            Input::Interfaces(InterfacesEvent::Unreadable { key }) => {
                self.unreadable(key, &mut effects);
            }
            Input::Interfaces(InterfacesEvent::UnknownNsid) => effects.push(Effect::LookForHolders),
            Input::FrontendJoined => self.tc.frontend_joined(moment.now),
            Input::Request(request) => self.request(request, moment, &mut effects),
            Input::TcChanged(outcome) => self.tc_changed(*outcome, moment, &mut effects),
            Input::TcCall(call) => self.tc_call(*call, moment, &mut effects),
            Input::LinkChanged(outcome) => self.link_changed(*outcome, moment, &mut effects),
            Input::Published(cost) => {
                self.publishing = false;
                self.is_published |= self.listed.is_some();
                if std::mem::take(&mut self.listing) {
                    self.pacing.done(moment.now, cost);
                }
            }
            Input::Library(library) => self.library = library,
            Input::Options(options) => self.identity.options = options,
            Input::Identified { key, cookie } => self.identified(key, cookie, &mut effects),
            Input::Namesake(host) => self.namesake(host, moment),
            Input::OnBus => self.is_on_bus = true,
            Input::Notified => self.notified(),
            Input::Ending => self.is_ending = true,
            Input::Timer => {}
        }
        self.end_leases(moment, &mut effects);
        self.release_departed(&mut effects);
        effects.extend(self.claims.take_news().map(Effect::Execution));
        self.changed |= self.repeat.is_due(moment.now);
        let was_changed = self.changed;
        if was_changed {
            self.changed_since.get_or_insert(moment.now);
        }
        let publication = self.publish(moment);
        if was_changed && !self.changed {
            // This is sent even if the list is the same, because a new namespace may look like the one that it
            // replaced.
            effects.push(Effect::CounterTargets(self.inventory.counter_targets()));
        }
        effects.extend(publication.map(Effect::Publish));
        if self.memory.take_due(self.counts.0, moment.now) {
            effects.push(Effect::GiveMemoryBack);
        }
        effects.extend(self.due_notification(moment));
        effects
    }

    /// Returns when work is due without a further input. `None`: never.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let begin = [
            self.lease_ends_at(),
            self.memory.due_at(),
            self.notification_due_at(),
        ];
        let begin = begin.into_iter().flatten().min();
        if self.publishing || !self.awaited.is_empty() {
            return begin;
        }
        let due = [
            begin,
            self.list_due().or_else(|| self.repeat_due()),
            self.health_due,
            self.tc.publish_at(),
        ];
        due.into_iter().flatten().min()
    }

    /// Drops the work that has not begun. Its requesters get the reply that the backend stops. Returns the effects for the
    /// leases that end with the daemon.
    pub(super) fn stop(&mut self, moment: Moment) -> Vec<Effect> {
        self.lanes.clear_waiting();
        self.stopping = true;
        let mut effects = Vec::new();
        self.end_leases(moment, &mut effects);
        effects
    }

    /// Returns whether the changes of scenarios stay when the daemon stops in order.
    pub(super) fn keeps_on_exit(&self) -> bool {
        self.identity.options.keep_on_exit
    }

    /// Returns whether an interface is being restored or released, or will be after the work under way.
    pub(super) fn has_restorations(&self) -> bool {
        self.lanes.have_restorations()
    }

    fn links(
        &mut self,
        key: NetnsKey,
        snapshot: Snapshot,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        self.awaited.remove(&key);
        let present = snapshot.links.iter().map(|link| link.ifindex).collect();
        let (links, began) = (Arc::clone(&snapshot.links), snapshot.began);
        let noted = self.inventory.set_links(key, snapshot);
        self.origins.seen(key, &links);
        self.follow_claims(key, &links, effects);
        if noted != ChangeResult::Unknown {
            self.end_leases_of_missing_links(key, &present, began, effects);
            self.follow_links(key, began, effects);
            self.fit_netems(key, moment, effects);
        }
        match noted {
            ChangeResult::Unknown => {}
            ChangeResult::Same => self.tc.netem_changed(self.inventory.display_name(key)),
            ChangeResult::New => {
                self.changed = true;
                self.tc.links_changed(self.inventory.display_name(key));
            }
        }
    }

    fn request(&mut self, request: Request, moment: Moment, effects: &mut Vec<Effect>) {
        let permit = match self.permit(&request) {
            Ok(permit) => permit,
            Err(denial) => return self.refuse(request, &denial),
        };
        // Sending a reply only passes a value to the bus actor. It does no I/O.
        match request {
            Request::Interface(request, reply) => {
                self.change_link(request, permit, reply, moment, effects);
            }
            Request::Scenario(request, reply) => effects.push(Effect::Scenario(request, reply)),
            Request::Execution(request, reply) => {
                effects.extend(self.execution(request, reply).map(Effect::Execution));
            }
            Request::Tc(request, reply) => self.change_tc(*request, reply, moment, effects),
            Request::Diagnostics(request, reply) => {
                self.diagnose(request, reply, moment, effects);
            }
            Request::Explain(request, reply) => self.explain(&request, reply, effects),
            Request::State(request, reply) => self.report_state(&request, reply, moment, effects),
        }
    }

    fn diagnose(
        &self,
        request: DiagnosticsRequest,
        reply: Reply<DiagnosticsResponse>,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let ((netns, interface), found) = match self.find(&request.namespace, &request.interface) {
            Ok(found) => found,
            Err((kind, message)) => return reply.send(DiagnosticsResponse::failure(message, kind)),
        };
        let order = diagnostics::Order {
            place: NetnsTarget {
                key: found.key,
                netns_refs: found.netns_refs,
                named: found.named,
            },
            netns,
            ifindex: found.link.ifindex,
            interface,
            target: request.target,
            timeout: Duration::from_millis(request.timeout_ms.into()),
            asked_at: moment.now.into(),
        };
        effects.push(Effect::Diagnose(Box::new(order), reply));
    }

    fn explain(
        &self,
        request: &ExplainRequest,
        reply: Reply<ExplainResponse>,
        effects: &mut Vec<Effect>,
    ) {
        let name = match NamespaceName::from_wire(&request.namespace) {
            Ok(name) => name,
            Err(err) => return reply.send(explain_invalid(&request.namespace, &err)),
        };
        let known = self.inventory.known(&name);
        effects.push(Effect::Explain(Box::new(Question { name, known }), reply));
    }

    /// Returns when the list is to be published. `None`: nothing has changed.
    fn list_due(&self) -> Option<Instant> {
        let since = self.changed_since?;
        let paced = self.pacing.not_before().max(Some(since))?;
        let answered = match self.link_answered {
            _ if self.lanes.is_changing_links() => paced + LIST_WAITS,
            Some(at) => at + ANSWER_FIRST,
            None => paced,
        };
        Some(answered.clamp(paced, paced + LIST_WAITS))
    }

    /// Returns when the list is to be published again after a refusal.
    fn repeat_due(&self) -> Option<Instant> {
        self.repeat.due_at(self.last?.now)
    }

    /// Returns the publication that is due now. `None`: there is none.
    fn publish(&mut self, moment: Moment) -> Option<Publication> {
        if self.publishing || !self.awaited.is_empty() {
            return None;
        }
        let mut publication = Publication::default();
        let is_due = self.list_due().is_some_and(|due| due <= moment.now);
        let is_listing = self.changed && (is_due || self.tc.is_urgent());
        if is_listing {
            self.changed = false;
            self.changed_since = None;
            self.publish_list(moment, &mut publication);
            self.tc.listed();
        }
        publication.presets = self.changed_presets();
        publication.tc = self
            .tc
            .changes(&self.inventory, &self.identity.name, moment);
        publication.answers = self.tc.take_answers();
        let due = self.health_due.is_none_or(|due| due <= moment.now);
        if due || self.health_counts != Some(self.counts) {
            self.health_counts = Some(self.counts);
            self.health_due = Some(moment.now + HEALTH_INTERVAL);
            publication.health = Some(self.health(moment));
        }
        self.publishing = !publication.is_empty();
        self.listing = is_listing && self.publishing;
        self.publishing.then_some(publication)
    }

    /// Returns the presets if they differ from the published ones. They are published after the first list.
    fn changed_presets(&mut self) -> Option<PresetList> {
        let presets = &self.library.presets;
        if self.listed.is_none() || self.presets.as_ref() == Some(presets) {
            return None;
        }
        self.presets = Some(presets.clone());
        Some(PresetList {
            presets: presets.clone(),
        })
    }

    fn publish_list(&mut self, moment: Moment, publication: &mut Publication) {
        let mut namespaces = Vec::new();
        self.counts = (0, 0);
        for shown in self.inventory.shown() {
            self.counts = (self.counts.0 + 1, self.counts.1 + shown.interface_count());
            namespaces.extend(shown.json().cloned());
        }
        self.memory.listed(self.counts.0, moment.now);
        if self.repeat.is_due(moment.now) || self.listed.as_ref() != Some(&namespaces) {
            self.repeat.published(moment.now);
            publication.list = Some(InterfaceListUpdate {
                namespaces: namespaces.clone(),
                timestamp: moment.unix_s,
                backend_name: self.identity.name.to_string(),
            });
        }
        self.listed = Some(namespaces);
    }

    /// Records that another backend with this name is on the bus. The health message reports it at once.
    fn namesake(&mut self, host: String, moment: Moment) {
        if self.name_conflict(moment) != Some(&host) {
            self.health_due = None;
        }
        self.namesake = Some((host, moment.now + NAMESAKE_GONE));
    }

    fn name_conflict(&self, moment: Moment) -> Option<&String> {
        let current = self.namesake.as_ref();
        let current = current.filter(|(_, until)| *until > moment.now);
        current.map(|(host, _)| host)
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
            name_conflict: self.name_conflict(moment).cloned(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
