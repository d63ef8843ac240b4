//! The main select loop: chooses what happened, lets the state decide, does what it says, and what others
//! who let it decide have left ([`Workshop`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::explaining::Explainer;
use super::holders::HolderReports;
use super::state::{Effect, Input, Moment, TcCall};
use super::tc_worker::{self, Leases};
use super::workshop::{Desk, Work, Workshop};
use super::{BackendError, Signal, Signals, Supervisor};
use crate::bandwidth::Roster;
use crate::blocking;
use crate::bus::{BusHandle, Door, Namesakes};
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
    /// Where clients come in.
    pub(super) usher: Door,
    /// Rung when something waits on the desk.
    pub(super) bell: Arc<Notify>,
    /// A frontend appeared.
    pub(super) joined: Arc<Notify>,
    /// What executions want done to their interfaces.
    pub(super) calls: mpsc::Receiver<TcCall>,
    pub(super) namesakes: Namesakes,
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
    /// Something waits on the desk.
    Bell,
}

/// What is still on the desk.
enum Waiting {
    Nothing,
    /// Others ask. `begins`: something was begun for the one before them.
    More {
        begins: bool,
    },
}

/// The daemon's main loop; [`Task::run`] is its life.
#[derive(Debug)]
pub(super) struct Task {
    desk: Arc<Mutex<Desk>>,
    hands: Hands,
    signals: Signals,
    supervisor: Supervisor,
    /// Whether scenarios that run at the end are taken back.
    restore: bool,
}

/// What does what was decided.
#[derive(Debug)]
struct Hands {
    actors: Actors,
    workshop: Workshop,
    /// Slow work under way; each result comes back as an input.
    work: JoinSet<Input>,
}

impl Task {
    pub(super) fn new(
        desk: Desk,
        actors: Actors,
        signals: Signals,
        supervisor: Supervisor,
        restore: bool,
    ) -> Self {
        let desk = Arc::new(Mutex::new(desk));
        let workshop = Workshop::new(
            &desk,
            actors.sockets.clone(),
            actors.leases.clone(),
            actors.publisher.clone(),
            Arc::clone(&actors.bell),
        );
        Self {
            desk,
            hands: Hands {
                actors,
                workshop,
                work: JoinSet::new(),
            },
            signals,
            supervisor,
            restore,
        }
    }

    /// Runs until a signal or a failure, then stops everything in order.
    pub(super) async fn run(mut self, namespaces: Vec<Namespace>) -> Result<(), BackendError> {
        self.hands.actors.tracker.track_host().await;
        let effects = self.desk.lock().await.state.begin(namespaces);
        self.hands.perform(effects).await;
        let workshop = self.hands.workshop.clone();
        let usher = move |request| workshop.usher(request);
        self.hands.actors.usher.set(Box::new(usher));
        let mut unyielding = 0;
        let ended = loop {
            match self.next_event().await {
                Event::Signal(Signal::Stop(signal)) => {
                    info!(signal, "stopping");
                    break Ok(());
                }
                Event::Signal(Signal::Reload) => {
                    info!("SIGHUP, reading presets and scenarios again");
                    self.hands.actors.library.reload();
                }
                Event::Failure(failure) => break Err(failure),
                Event::Input(input) => {
                    log(&input);
                    self.take(input).await;
                }
                Event::Bell => match self.look_at_desk().await {
                    Ok(Waiting::Nothing) => unyielding = 0,
                    Ok(Waiting::More { begins }) => {
                        unyielding += 1;
                        if begins || unyielding >= TURN {
                            // What was begun has its turn before all the others that ask.
                            tokio::task::yield_now().await;
                            unyielding = 0;
                        }
                    }
                    Err(failure) => break Err(failure),
                },
            }
        };
        self.refuse_requests().await;
        self.end_scenarios().await;
        self.finish_work().await;
        let Self {
            desk,
            hands,
            supervisor,
            ..
        } = self;
        // Whoever still waits for an answer hears now that there will be none.
        drop((desk, hands));
        supervisor.shut_down().await;
        ended
    }

    /// Lets the state decide, and does what it says after what is left from before.
    async fn take(&mut self, input: Input) {
        // Nobody decides anything else before that is begun.
        let mut desk = self.desk.lock().await;
        self.hands.perform(desk.take_left()).await;
        let effects = desk.state.step(input, moment());
        self.hands.perform(effects).await;
    }

    /// Does what was left to the main loop, and takes one request.
    async fn look_at_desk(&mut self) -> Result<Waiting, BackendError> {
        let mut desk = self.desk.lock().await;
        if self.hands.workshop.take_panic() {
            return Err(BackendError::ActorEnded { actor: "workshop" });
        }
        self.hands.perform(desk.take_left()).await;
        let Some(request) = desk.next_request() else {
            return Ok(Waiting::Nothing);
        };
        let effects = desk.state.step(Input::Request(request), moment());
        let begins = !effects.is_empty();
        self.hands.perform(effects).await;
        if desk.requests.is_empty() {
            return Ok(Waiting::Nothing);
        }
        self.hands.actors.bell.notify_one();
        Ok(Waiting::More { begins })
    }

    async fn refuse_requests(&mut self) {
        let mut desk = self.desk.lock().await;
        desk.close();
        while let Ok(request) = desk.requests.try_recv() {
            // Dropped unanswered, it is answered by the bus.
            drop(request);
        }
    }

    /// Lets executions end and put back what they found, which needs everything but requests.
    async fn end_scenarios(&mut self) {
        let limit = tokio::time::Instant::now() + LAST_SCENARIOS;
        let mut ended = self.hands.actors.scenarios.end(self.restore).await;
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
                Event::Input(input) => self.take(input).await,
                Event::Bell => {
                    if let Err(failure) = self.look_at_desk().await {
                        return warn!(error = %chain(&failure), "scenarios left running");
                    }
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
        let mut desk = self.desk.lock().await;
        self.hands.perform(desk.take_left()).await;
        let effects = desk.state.stop(moment());
        let limit = if effects.is_empty() {
            LAST_WORK
        } else {
            LAST_RESTORATIONS
        };
        self.hands.perform(effects).await;
        drop(desk);
        if tokio::time::timeout(limit, self.finish_all())
            .await
            .is_err()
        {
            debug!(workshop = ?self.hands.workshop, count = self.hands.work.len(), "work left unfinished");
        }
        self.hands.work.abort_all();
    }

    /// Takes in what comes of the work under way until there is none. Answers to what was done go out with a last
    /// publication.
    async fn finish_all(&mut self) {
        loop {
            // What work that has ended left is there by then.
            let is_idle = self.hands.workshop.is_idle();
            let mut desk = self.desk.lock().await;
            self.hands.perform(desk.take_left()).await;
            drop(desk);
            if is_idle && self.hands.work.is_empty() && self.hands.workshop.is_idle() {
                return;
            }
            let done = tokio::select! {
                biased;
                // Cancel-safe: the set keeps a result until it is returned.
                Some(done) = self.hands.work.join_next(), if !self.hands.work.is_empty() => done.ok(),
                // Cancel-safe: what was notified and not returned stays so.
                () = self.hands.actors.bell.notified() => None,
            };
            if let Some(input) = done {
                self.take(input).await;
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let wake = self.desk.lock().await.note_wake();
        let actors = &mut self.hands.actors;
        let work = &mut self.hands.work;
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
            Some(event) = actors.namespaces.next() => Event::Input(Input::Namespace(event)),
            (finder, event) = actors.held.next() => Event::Input(Input::Held(finder, event)),
            Some(event) = actors.interfaces.recv() => Event::Input(Input::Interfaces(event)),
            // What was begun, steps of scenarios too, comes before what is asked anew, of which hundreds may wait.
            // Cancel-safe: the set keeps a result until it is returned.
            Some(done) = work.join_next(), if !work.is_empty() => {
                done.map_or_else(work_failed, Event::Input)
            }
            Some(call) = actors.calls.recv() => {
                Event::Input(Input::TcCall(Box::new(call)))
            }
            // Cancel-safe: what was notified and not returned stays so.
            () = actors.joined.notified() => Event::Input(Input::FrontendJoined),
            // Cancel-safe: a change that was not returned is still to come.
            library = actors.library.changed() => Event::Input(Input::Library(library)),
            // Cancel-safe: a value that was not marked as seen is still to come.
            host = next_namesake(&mut actors.namesakes) => Event::Input(Input::Namesake(host)),
            () = actors.bell.notified() => Event::Bell,
            // Cancel-safe: the deadline is computed anew each time.
            () = wake => Event::Input(Input::Timer),
        }
    }
}

impl Hands {
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
                Effect::SwitchLink(wish) => self.workshop.begin(Work::Link(Box::new(wish))),
                Effect::ChangeTc(wish) => self.workshop.begin(Work::Tc(wish)),
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
        self.beside(blocking::run(move || tc_worker::catch_up(&journal, &lease)));
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

/// Waits for the host of another backend of this name.
async fn next_namesake(namesakes: &mut Namesakes) -> String {
    while namesakes.changed().await.is_ok() {
        if let Some(host) = namesakes.borrow_and_update().clone() {
            return host;
        }
    }
    // The bus is gone, of which the supervisor knows more.
    std::future::pending().await
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

/// Reads the clock of decisions.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Reads the clocks.
pub(super) fn moment() -> Moment {
    let unix_ms = unix_milliseconds();
    Moment {
        now: now(),
        unix_s: unix_ms / 1000,
        unix_ms,
        boot: BootTime::now(),
    }
}
