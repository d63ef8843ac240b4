//! The set of all executions, pending replies and pending publications. Pure, except that it sends replies.
//!
//! An interface has at most one execution, and so have its names on the wire. An execution that has ended releases both, but is
//! kept until the port has sent its last reply.

mod renames;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tcgui_shared::names::BackendName;
use tcgui_shared::scenario::{
    ErrorCategory, ExecutionState, NetworkScenario, ScenarioError, ScenarioExecution,
    ScenarioExecutionResponse, ScenarioExecutionUpdate,
};

use super::handle::{Action, Command, Start};
use super::machine::{self, Effect, Loss, Machine, Moment, RESTORING};
use super::port::{Claim, Impairment};
use super::{InterfaceKey, InterfaceNames, ScenarioSource, Target};
use crate::bus::{ExecutionPublication, Reply};
use crate::tc::desired::{ANY_LINK, Desired};

/// How long the publisher of an ended execution stays, so that a frontend that missed the last update can query it. It must
/// exceed a heartbeat interval plus one query.
const RETIRE_AFTER: Duration = Duration::from_secs(10);
/// Maximum number of due steps begun at a time. Their calls run before the next steps begin, so that the first of hundreds of due
/// steps does not wait for all of them.
pub(super) const AT_ONCE: usize = 16;
/// A step that is due within this time begins at once. Tokio timers round up to whole milliseconds, so waiting could delay the
/// step by more than it is early now.
pub(super) const EARLY: Duration = Duration::from_millis(1);
/// Shortest pass of a looped scenario. A shorter pass would only create load.
const SHORTEST_LOOP: Duration = Duration::from_millis(100);

/// A call of the traffic-control port.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Call {
    Capture,
    Set(Impairment),
    Restore,
    Release { owed: bool },
}

/// One execution and its pending replies.
#[derive(Debug)]
struct Execution {
    machine: Machine,
    claim: Claim,
    start: Option<Reply<ScenarioExecutionResponse>>,
    stops: Vec<Reply<ScenarioExecutionResponse>>,
    due: Option<Instant>,
}

/// The pending publication for an interface. A newer one replaces it.
#[derive(Debug)]
enum Outgoing {
    /// The state of the execution with this number at the time of the publication.
    Live(u64),
    Last(Box<ScenarioExecution>),
    /// The execution continues under other names. Publish this state, then remove the publisher.
    TakenBack(Box<ScenarioExecution>),
    /// Remove the publisher.
    Retired,
}

/// Every execution of the backend.
pub(super) struct Executions {
    backend: String,
    source: Arc<dyn ScenarioSource>,
    all: HashMap<u64, Execution>,
    by_key: HashMap<InterfaceKey, u64>,
    by_names: BTreeMap<InterfaceNames, u64>,
    due: BTreeSet<(Instant, u64)>,
    outbox: BTreeMap<InterfaceNames, Outgoing>,
    /// Interfaces that have a publisher, and the time of its removal if no execution runs.
    published: HashMap<InterfaceNames, Option<Instant>>,
    /// The removal times in ascending order. Outdated entries are skipped.
    retiring: VecDeque<(Instant, InterfaceNames)>,
    last_number: u64,
    /// The last published timestamp. Timestamps never decrease, even if the wall clock is set back.
    last_timestamp: u64,
    ending: bool,
}

impl std::fmt::Debug for Executions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executions")
            .field("all", &self.all)
            .finish_non_exhaustive()
    }
}

impl Executions {
    pub(super) fn new(backend: &BackendName, source: Arc<dyn ScenarioSource>) -> Self {
        Self {
            backend: backend.to_string(),
            source,
            all: HashMap::new(),
            by_key: HashMap::new(),
            by_names: BTreeMap::new(),
            due: BTreeSet::new(),
            outbox: BTreeMap::new(),
            published: HashMap::new(),
            retiring: VecDeque::new(),
            last_number: 0,
            last_timestamp: 0,
            ending: false,
        }
    }

    /// Processes a command. [`Self::is_done`] reports when `Command::End` has completed.
    pub(super) fn command(&mut self, command: Command, moment: Moment) -> Vec<(Claim, Call)> {
        match command {
            Command::Start(start) => return self.start(*start, moment).into_iter().collect(),
            Command::On {
                names,
                key,
                action,
                reply,
            } => return self.act(&names, key, action, reply, moment),
            Command::ListActive(reply) => reply.send(self.list_active()),
            Command::Lost { key, number, loss } => {
                if self.by_key.get(&key) == Some(&number) {
                    return self.feed(number, machine::Input::Lost(loss), moment);
                }
            }
            Command::Renamed { netns, name } => self.rename_namespace(netns, &name),
            Command::LinkRenamed { key, interface } => {
                if let Some(number) = self.by_key.get(&key).copied() {
                    self.rename(number, |names| names.interface = interface);
                }
            }
            Command::End { restore, .. } => {
                self.ending = true;
                let input = || match restore {
                    true => machine::Input::Stop,
                    false => machine::Input::Lost(Loss::Left),
                };
                let numbers: Vec<_> = self.by_key.values().copied().collect();
                let calls = |number| self.feed(number, input(), moment);
                return numbers.into_iter().flat_map(calls).collect();
            }
        }
        Vec::new()
    }

    /// Processes a reply of the port.
    pub(super) fn answered(
        &mut self,
        number: u64,
        answer: machine::Input,
        moment: Moment,
    ) -> Vec<(Claim, Call)> {
        self.feed(number, answer, moment)
    }

    /// Begins due steps, at most [`AT_ONCE`]; the rest stays due. Removes publishers whose time has passed.
    pub(super) fn tick(&mut self, moment: Moment) -> Vec<(Claim, Call)> {
        let mut calls = Vec::new();
        let is_due = |at: Instant| at <= moment.now + EARLY;
        while let Some((at, number)) = self.due.first().copied()
            && is_due(at)
            && calls.len() < AT_ONCE
        {
            self.due.pop_first();
            let now = moment.now.max(at);
            let moment = Moment { now, ..moment };
            calls.extend(self.feed(number, machine::Input::Timer, moment));
        }
        while let Some((at, names)) = self.retiring.pop_front_if(|(at, _)| *at <= moment.now) {
            if self.published.get(&names) == Some(&Some(at)) {
                self.published.remove(&names);
                self.outbox.insert(names, Outgoing::Retired);
            }
        }
        calls
    }

    /// Returns the time of the next timer.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let step = self.due.first().map(|(at, _)| *at);
        let retired = self.retiring.front().map(|(at, _)| *at);
        step.into_iter().chain(retired).min()
    }

    /// Returns whether `Command::End` was received, all executions have ended, and all updates were published.
    pub(super) fn is_done(&self) -> bool {
        self.ending && self.all.is_empty() && self.outbox.is_empty()
    }

    /// Returns the pending publications.
    pub(super) fn take_publications(&mut self, moment: Moment) -> Vec<ExecutionPublication> {
        self.last_timestamp = self.last_timestamp.max(moment.unix_ms);
        let outbox = std::mem::take(&mut self.outbox);
        let mut publications = Vec::with_capacity(outbox.len());
        for (names, outgoing) in outbox {
            let execution = match outgoing {
                Outgoing::Live(number) => match self.all.get(&number) {
                    Some(execution) => Some(execution.machine.snapshot(&names)),
                    None => continue,
                },
                Outgoing::Last(last) => Some(*last),
                Outgoing::TakenBack(last) => {
                    publications.push(self.publication(names.clone(), Some(*last)));
                    None
                }
                Outgoing::Retired => None,
            };
            publications.push(self.publication(names, execution));
        }
        publications
    }

    fn publication(
        &self,
        names: InterfaceNames,
        execution: Option<ScenarioExecution>,
    ) -> ExecutionPublication {
        let update = execution.map(|execution| ScenarioExecutionUpdate {
            namespace: names.netns.to_wire(),
            interface: names.interface.to_wire(),
            execution,
            backend_name: self.backend.clone(),
            timestamp: self.last_timestamp,
        });
        ExecutionPublication {
            netns: names.netns,
            interface: names.interface,
            update,
        }
    }

    fn start(&mut self, start: Start, moment: Moment) -> Option<(Claim, Call)> {
        let (scenario, looped) = match self.admit(&start) {
            Ok(admitted) => admitted,
            Err(error) => {
                start.reply.send(error.into());
                return None;
            }
        };
        self.last_number += 1;
        let number = self.last_number;
        let claim = Claim {
            number,
            scenario: scenario.id.as_str().into(),
            target: start.target,
        };
        self.by_key.insert(claim.target.key, number);
        self.by_names.insert(claim.target.names.clone(), number);
        let execution = Execution {
            machine: Machine::new(scenario, looped, moment),
            claim: claim.clone(),
            start: Some(start.reply),
            stops: Vec::new(),
            due: None,
        };
        self.all.insert(number, execution);
        Some((claim, Call::Capture))
    }

    /// Returns the scenario to start and whether it loops, or the reason for a refusal.
    fn admit(&self, start: &Start) -> Result<(Arc<NetworkScenario>, bool), ScenarioError> {
        if self.ending {
            let message = "the backend stops";
            return Err(ScenarioError::new(ErrorCategory::Transient, message));
        }
        let id = &start.scenario_id;
        let scenario = self.source.scenario(id).ok_or_else(|| ScenarioError {
            suggestion: Some("ask for the list of scenarios".to_owned()),
            ..ScenarioError::new(ErrorCategory::Permanent, format!("no scenario {id:?}"))
        })?;
        let Target { key, names } = &start.target;
        let running = self.by_key.get(key).or_else(|| self.by_names.get(names));
        if let Some(running) = running.and_then(|number| self.all.get(number)) {
            let Claim {
                scenario, target, ..
            } = &running.claim;
            let InterfaceNames { netns, interface } = &target.names;
            let message =
                format!("the scenario {scenario:?} is already running on {interface} in {netns}");
            return Err(ScenarioError {
                suggestion: Some("stop it first".to_owned()),
                ..ScenarioError::new(ErrorCategory::Permanent, message)
            });
        }
        let looped = start.looped.unwrap_or(scenario.loop_scenario);
        check(&scenario, looped)?;
        Ok((scenario, looped))
    }

    /// Returns the execution on an interface. With a key it searches by key only, because another interface may have had these
    /// names. Without a key (the interface does not exist) it searches by names.
    fn find(&self, names: &InterfaceNames, key: Option<InterfaceKey>) -> Option<u64> {
        match key {
            Some(key) => self.by_key.get(&key).copied(),
            None => self.by_names.get(names).copied(),
        }
    }

    fn act(
        &mut self,
        names: &InterfaceNames,
        key: Option<InterfaceKey>,
        action: Action,
        reply: Reply<ScenarioExecutionResponse>,
        moment: Moment,
    ) -> Vec<(Claim, Call)> {
        let number = self.find(names, key);
        let found = number.and_then(|number| Some((number, self.all.get_mut(&number)?)));
        let Some((number, execution)) = found else {
            reply.send(match action {
                Action::Stop => ScenarioExecutionResponse::Stopped { success: false },
                Action::Pause => ScenarioExecutionResponse::Paused { success: false },
                Action::Resume => ScenarioExecutionResponse::Resumed { success: false },
                Action::Status => ScenarioExecutionResponse::Status { execution: None },
            });
            return Vec::new();
        };
        let success = execution.machine.is_under_way();
        let input = match action {
            Action::Status => {
                let machine = &execution.machine;
                let begun = machine.has_begun();
                let execution = begun.then(|| machine.snapshot(&execution.claim.target.names));
                reply.send(ScenarioExecutionResponse::Status {
                    execution: execution.map(Box::new),
                });
                return Vec::new();
            }
            Action::Stop => {
                execution.stops.push(reply);
                machine::Input::Stop
            }
            Action::Pause => {
                reply.send(ScenarioExecutionResponse::Paused { success });
                machine::Input::Pause
            }
            Action::Resume => {
                reply.send(ScenarioExecutionResponse::Resumed { success });
                machine::Input::Resume
            }
        };
        self.feed(number, input, moment)
    }

    fn list_active(&self) -> ScenarioExecutionResponse {
        let active = self
            .by_names
            .values()
            .filter_map(|number| self.all.get(number));
        let begun = active.filter(|execution| execution.machine.has_begun());
        ScenarioExecutionResponse::ActiveExecutions {
            executions: begun
                .map(|execution| execution.machine.snapshot(&execution.claim.target.names))
                .collect(),
        }
    }

    /// Passes an input to one execution and carries out the effects.
    fn feed(&mut self, number: u64, input: machine::Input, moment: Moment) -> Vec<(Claim, Call)> {
        let Some(execution) = self.all.get_mut(&number) else {
            return Vec::new();
        };
        let mut calls = Vec::new();
        let mut released = false;
        for effect in execution.machine.step(input, moment) {
            let names = &execution.claim.target.names;
            match effect {
                Effect::Begun => {
                    let started = execution.started();
                    execution
                        .start
                        .take()
                        .into_iter()
                        .for_each(|reply| reply.send(started.clone()));
                }
                Effect::Refused(error) => {
                    let reply = execution.start.take();
                    reply
                        .into_iter()
                        .for_each(|reply| reply.send(error.clone().into()));
                }
                Effect::Set(wanted) => calls.push((execution.claim.clone(), Call::Set(wanted))),
                Effect::Restore => calls.push((execution.claim.clone(), Call::Restore)),
                Effect::Publish => {
                    self.published.insert(names.clone(), None);
                    self.outbox.insert(names.clone(), Outgoing::Live(number));
                }
                Effect::Ended => {
                    let key = execution.claim.target.key;
                    self.by_key.remove(&key);
                    if self.by_names.get(names) == Some(&number) {
                        self.by_names.remove(names);
                    }
                    let outgoing = self.outbox.get_mut(names);
                    let own =
                        |it: &&mut Outgoing| matches!(it, Outgoing::Live(it) if *it == number);
                    if let Some(outgoing) = outgoing.filter(own) {
                        *outgoing = Outgoing::Last(Box::new(execution.machine.snapshot(names)));
                        let at = moment.now + RETIRE_AFTER;
                        self.published.insert(names.clone(), Some(at));
                        self.retiring.push_back((at, names.clone()));
                    }
                    execution.answer_stops();
                }
                Effect::Release { owed } => {
                    calls.push((execution.claim.clone(), Call::Release { owed }));
                    released = true;
                }
            }
        }
        let due = execution.machine.wake_at();
        if due != execution.due {
            let before = std::mem::replace(&mut execution.due, due);
            if let Some(at) = before {
                self.due.remove(&(at, number));
            }
            self.due.extend(due.map(|at| (at, number)));
        } else if let Some(at) = due {
            self.due.insert((at, number));
        }
        if released {
            self.all.remove(&number);
        }
        calls
    }
}

impl Execution {
    fn started(&self) -> ScenarioExecutionResponse {
        let InterfaceNames { netns, interface } = &self.claim.target.names;
        ScenarioExecutionResponse::Started {
            execution_id: format!("{}/{}", netns.to_wire(), interface.to_wire()),
            estimated_duration_ms: pass_ms(self.machine.scenario()),
        }
    }

    /// Answers stop requests: with success, unless the earlier state could not be restored.
    fn answer_stops(&mut self) {
        let response = match self.machine.state() {
            ExecutionState::Failed { error } if error.operation.as_deref() == Some(RESTORING) => {
                ScenarioError {
                    category: ErrorCategory::Transient,
                    ..error
                }
                .into()
            }
            _ => ScenarioExecutionResponse::Stopped { success: true },
        };
        for reply in self.stops.drain(..) {
            reply.send(response.clone());
        }
    }
}

/// Returns the duration of one pass.
fn pass_ms(scenario: &NetworkScenario) -> u64 {
    let durations = scenario.steps.iter().map(|step| step.duration_ms);
    durations.fold(0, u64::saturating_add)
}

/// Validates a scenario: returns the first error that a step or the loop would cause.
fn check(scenario: &NetworkScenario, looped: bool) -> Result<(), ScenarioError> {
    let invalid = |message: String| ScenarioError::new(ErrorCategory::Validation, message);
    if scenario.steps.is_empty() {
        return Err(invalid("the scenario has no steps".to_owned()));
    }
    if looped && u128::from(pass_ms(scenario)) < SHORTEST_LOOP.as_millis() {
        let least = SHORTEST_LOOP.as_millis();
        return Err(invalid(format!(
            "a scenario that runs in a loop has to last at least {least} ms"
        )));
    }
    for (index, step) in scenario.steps.iter().enumerate() {
        if let Err(err) = Desired::from_config(&step.tc_config, ANY_LINK) {
            return Err(ScenarioError {
                step_index: Some(index),
                ..invalid(format!("step {}: {err}", index + 1))
            });
        }
    }
    Ok(())
}
