//! The main select loop: chooses what happened, lets the state decide, does what it says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::explaining::Explainer;
use super::holders::HolderReports;
use super::impair::{self, Leases};
use super::link_control;
use super::state::{Effect, Input, LinkOutcome, LinkWish, Moment, State, TcCall};
use super::{BackendError, Signal, Signals, Supervisor};
use crate::bandwidth::Roster;
use crate::blocking;
use crate::bus::{BusHandle, Clients};
use crate::clock::unix_milliseconds;
use crate::diagnostics::Diagnostics;
use crate::error::chain;
use crate::execution::ScenarioHandle;
use crate::held::{Finder, HeldEvent};
use crate::interfaces::{InterfacesEvent, InterfacesHandle};
use crate::kernel::netns::NetnsFiles;
use crate::kernel::process;
use crate::lease::journal::Late;
use crate::lease::{BootTime, Lease};
use crate::library::LibraryHandle;
use crate::namespace_watcher::{Namespace, NamespaceEvent, NamespaceWatcherHandle};
use crate::processes::ProcessesHandle;
use crate::sockets::NetnsSockets;

/// So many inputs are taken in while others wait, before what was begun has its turn on the same thread.
const TURN: u32 = 16;
/// How long the work under way may take when the daemon is to stop.
const LAST_WORK: Duration = Duration::from_millis(300);
/// The same when leases end with the daemon. What is not restored by then is at the next start.
const LAST_RESTORATIONS: Duration = Duration::from_millis(700);

/// How long interfaces on which scenarios run may take to be restored. Each takes a few milliseconds.
const LAST_SCENARIOS: Duration = Duration::from_millis(1000);

/// The backend's ends of all actors.
#[derive(Debug)]
pub(super) struct Actors {
    pub(super) namespaces: NamespaceWatcherHandle,
    /// Processes that hold namespaces.
    pub(super) held: HolderReports,
    /// `None`: processes are not looked at.
    pub(super) processes: Option<ProcessesHandle>,
    pub(super) interfaces: mpsc::Receiver<InterfacesEvent>,
    pub(super) clients: Clients,
    /// What executions want done to their interfaces.
    pub(super) calls: mpsc::Receiver<TcCall>,
    pub(super) scenarios: ScenarioHandle,
    pub(super) tracker: InterfacesHandle,
    pub(super) publisher: BusHandle,
    pub(super) sockets: NetnsSockets,
    pub(super) files: NetnsFiles,
    pub(super) diagnostics: Diagnostics,
    pub(super) library: LibraryHandle,
    pub(super) leases: Leases,
    pub(super) roster: watch::Sender<Arc<Roster>>,
}

enum Event {
    Signal(Signal),
    Failure(BackendError),
    Input(Input),
}

/// The daemon's main loop; [`Task::run`] is its life.
#[derive(Debug)]
pub(super) struct Task {
    state: State,
    actors: Actors,
    signals: Signals,
    supervisor: Supervisor,
    /// Slow work under way; each result comes back as an input.
    work: JoinSet<Input>,
    /// Whether scenarios that run at the end are taken back.
    restore: bool,
}

impl Task {
    pub(super) fn new(
        state: State,
        actors: Actors,
        signals: Signals,
        supervisor: Supervisor,
        restore: bool,
    ) -> Self {
        Self {
            state,
            actors,
            signals,
            supervisor,
            work: JoinSet::new(),
            restore,
        }
    }

    /// Runs until a signal or a failure, then stops everything in order.
    pub(super) async fn run(mut self, namespaces: Vec<Namespace>) -> Result<(), BackendError> {
        self.actors.tracker.track_host().await;
        let effects = self.state.begin(namespaces);
        self.perform(effects).await;
        let mut unyielding = 0;
        let ended = loop {
            match self.next_event().await {
                Event::Signal(Signal::Stop(signal)) => {
                    info!(signal, "stopping");
                    break Ok(());
                }
                Event::Signal(Signal::Reload) => {
                    info!("SIGHUP, reading presets and scenarios again");
                    self.actors.library.reload();
                }
                Event::Failure(failure) => break Err(failure),
                Event::Input(input) => {
                    log(&input);
                    let effects = self.state.step(input, moment());
                    unyielding += 1;
                    let begins = !effects.is_empty();
                    self.perform(effects).await;
                    if self.actors.clients.requests.is_empty() {
                        unyielding = 0;
                    } else if begins || unyielding >= TURN {
                        // What was begun has its turn before all the others that ask.
                        tokio::task::yield_now().await;
                        unyielding = 0;
                    }
                }
            }
        };
        self.refuse_requests();
        self.end_scenarios().await;
        self.finish_work().await;
        let Self {
            state,
            work,
            supervisor,
            ..
        } = self;
        // Whoever still waits for an answer hears now that there will be none.
        drop((state, work));
        supervisor.shut_down().await;
        ended
    }

    fn refuse_requests(&mut self) {
        self.actors.clients.requests.close();
        while let Ok(request) = self.actors.clients.requests.try_recv() {
            // Dropped unanswered, it is answered by the bus.
            drop(request);
        }
    }

    /// Lets executions end and put back what they found, which needs everything but requests.
    async fn end_scenarios(&mut self) {
        let limit = tokio::time::Instant::now() + LAST_SCENARIOS;
        let mut ended = self.actors.scenarios.end(self.restore).await;
        loop {
            let event = tokio::select! {
                biased;
                // Cancel-safe: not polled again once it has resolved.
                _ = &mut ended => return,
                // Cancel-safe: the deadline stays.
                () = tokio::time::sleep_until(limit) => {
                    return warn!("scenarios left running");
                }
                // Cancel-safe, as its arms are.
                event = self.next_event() => event,
            };
            match event {
                Event::Input(input) => {
                    let effects = self.state.step(input, moment());
                    self.perform(effects).await;
                }
                // Somebody is in a hurry, or there is nobody left to do it.
                Event::Signal(Signal::Reload) => {}
                Event::Signal(Signal::Stop(_)) | Event::Failure(_) => {
                    return warn!("scenarios left running");
                }
            }
        }
    }

    /// Answers those whose request is under way; what was not begun is refused.
    async fn finish_work(&mut self) {
        let effects = self.state.stop(moment());
        let limit = if effects.is_empty() {
            LAST_WORK
        } else {
            LAST_RESTORATIONS
        };
        self.perform(effects).await;
        let finish = async {
            while let Some(done) = self.work.join_next().await {
                if let Ok(input) = done {
                    // Answers to what was done go out with a last publication.
                    let effects = self.state.step(input, moment());
                    self.perform(effects).await;
                }
            }
        };
        if tokio::time::timeout(limit, finish).await.is_err() {
            debug!(count = self.work.len(), "work left unfinished");
        }
        self.work.abort_all();
    }

    async fn next_event(&mut self) -> Event {
        let wake = self.state.wake_at();
        let wake = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Cancel-safe: a signal that was not returned is still to come.
            signal = self.signals.next() => Event::Signal(signal),
            // Cancel-safe: the set keeps a result until it is returned.
            failure = self.supervisor.failure() => Event::Failure(failure),
            // Cancel-safe, as are the other channels: `recv` takes nothing unless it returns it. A closed
            // channel is an actor that ended, of which the supervisor knows more.
            Some(event) = self.actors.namespaces.next() => Event::Input(Input::Namespace(event)),
            (finder, event) = self.actors.held.next() => Event::Input(Input::Held(finder, event)),
            Some(event) = self.actors.interfaces.recv() => Event::Input(Input::Interfaces(event)),
            // What was begun, steps of scenarios too, comes before what is asked anew, of which hundreds may wait.
            // Cancel-safe: the set keeps a result until it is returned.
            Some(done) = self.work.join_next(), if !self.work.is_empty() => {
                done.map_or_else(work_failed, Event::Input)
            }
            Some(call) = self.actors.calls.recv() => {
                Event::Input(Input::TcCall(Box::new(call)))
            }
            // Cancel-safe: what was notified and not returned stays so.
            () = self.actors.clients.joined.notified() => Event::Input(Input::FrontendJoined),
            // Cancel-safe: a change that was not returned is still to come.
            library = self.actors.library.changed() => Event::Input(Input::Library(library)),
            Some(request) = self.actors.clients.requests.recv() => Event::Input(Input::Request(request)),
            // Cancel-safe: the deadline is computed anew each time.
            () = wake => Event::Input(Input::Timer),
        }
    }

    async fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                // The interfaces actor never waits for the backend, so these never wait for long.
                Effect::Track(key, way) => {
                    self.actors.sockets.admit(key);
                    self.actors.tracker.track(key, way).await;
                }
                Effect::Untrack(key, way) => self.actors.tracker.untrack(key, way).await,
                Effect::Forget(key) => self.actors.sockets.forget(key),
                Effect::SwitchLink(wish) => {
                    let sockets = self.actors.sockets.clone();
                    self.work.spawn(switch_link(sockets, wish));
                }
                Effect::ChangeTc(wish) => {
                    let sockets = self.actors.sockets.clone();
                    let leases = self.actors.leases.clone();
                    self.work.spawn(impair::impair(sockets, leases, wish));
                }
                Effect::ForgetLease(lease) => self.on_lease(*lease, Late::Erase),
                Effect::AmendLease(lease) => {
                    let also = lease.also.clone();
                    self.on_lease(*lease, Late::Amend(also));
                }
                Effect::Diagnose(order, reply) => {
                    let diagnostics = self.actors.diagnostics.clone();
                    let gone = self.actors.sockets.gone(order.place.key);
                    self.beside(async move {
                        let gone = gone.cancelled_owned();
                        reply.send(diagnostics.run(*order, gone).await);
                    });
                }
                Effect::Explain(question, reply) => {
                    let explainer = self.explainer();
                    self.beside(async move { reply.send(explainer.explain(*question).await) });
                }
                Effect::Scenario(request, reply) => {
                    let library = self.actors.library.clone();
                    self.beside(async move { reply.send(library.request(request).await) });
                }
                // As for the interfaces actor.
                Effect::Execution(command) => self.actors.scenarios.send(command).await,
                Effect::Roster(roster) => {
                    self.actors.roster.send_replace(Arc::new(roster));
                }
                Effect::LookForHolders => {
                    if let Some(processes) = &self.actors.processes {
                        processes.ring();
                    }
                }
                Effect::GiveMemoryBack => {
                    self.beside(async { blocking::run(process::give_memory_back).await });
                }
                Effect::Recheck(key) => self.actors.tracker.recheck(key).await,
                Effect::Publish(publication) => {
                    let publisher = self.actors.publisher.clone();
                    self.work.spawn(async move {
                        // Without an answer the bus is gone, which ends the daemon anyway.
                        Input::Published(publisher.publish(publication).await.unwrap_or_default())
                    });
                }
            }
        }
    }

    /// Does something beside the loop of which it needs to know only that it is under way.
    fn beside(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.work.spawn(async move {
            work.await;
            Input::Timer
        });
    }

    /// Does something about the file of a lease beside its lane, unless what is begun later comes first.
    fn on_lease(&mut self, lease: Lease, late: Late) {
        let Ok(journal) = self.actors.leases.clone() else {
            return;
        };
        journal.intend(&lease, late);
        self.beside(blocking::run(move || impair::catch_up(&journal, &lease)));
    }

    fn explainer(&self) -> Explainer {
        Explainer {
            files: self.actors.files,
            directory: self.actors.namespaces.directory().to_owned(),
            watcher: self.actors.namespaces.status(),
            tracker: self.actors.tracker.clone(),
        }
    }
}

/// Switches a link and reads back what came of it.
async fn switch_link(sockets: NetnsSockets, wish: LinkWish) -> Input {
    let result = link_control::switch(sockets, wish.order.clone()).await;
    let result = result.map_err(|err| (err.kind(), chain(&err).to_string()));
    Input::LinkSwitched(Box::new(LinkOutcome { wish, result }))
}

fn work_failed(err: tokio::task::JoinError) -> Event {
    Event::Failure(BackendError::Actor {
        actor: "backend",
        err: err.into(),
    })
}

fn log(input: &Input) {
    match input {
        Input::Namespace(NamespaceEvent::Added { name, id }) => {
            info!(netns = ?name, %id, "namespace appeared");
        }
        Input::Namespace(NamespaceEvent::Removed { name, id }) => {
            info!(netns = ?name, %id, "namespace gone");
        }
        Input::Held(Finder::Containers, HeldEvent::Added(holder)) => {
            info!(kind = ?holder.kind, id = %holder.id, "container appeared");
        }
        Input::Held(Finder::Containers, HeldEvent::Removed(id)) => info!(%id, "container gone"),
        Input::Held(Finder::Processes, event) => debug!(?event, "holders of namespaces changed"),
        Input::Namespace(NamespaceEvent::DirectoryAppeared) => info!("netns directory appeared"),
        Input::Namespace(NamespaceEvent::DirectoryVanished) => info!("netns directory gone"),
        Input::Interfaces(InterfacesEvent::Links { key, snapshot }) => {
            debug!(?key, count = snapshot.links.len(), "links changed");
        }
        Input::Published(cost) if *cost > Duration::from_millis(100) => {
            info!(elapsed_ms = cost.as_millis(), "publication was slow");
        }
        _ => {}
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn moment() -> Moment {
    let unix_ms = unix_milliseconds();
    Moment {
        now: now(),
        unix_s: unix_ms / 1000,
        unix_ms,
        boot: BootTime::now(),
    }
}
