//! The main select loop: takes the next input, passes it to the state, and has the effects carried out.
//!
//! It owns the state alone. Every input comes through [`Task::next_event`], every decision is made in
//! [`State::step`], and every effect is carried out by [`EffectRunner::carry_out`]. A panic in a decision ends this task and
//! with it the daemon.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinError;
use tracing::{debug, info, warn};

use super::effects::{EffectRunner, Handles};
use super::holders::HolderReports;
use super::reload::ConfigReader;
use super::state::{Input, Moment, State, TcCall};
use super::{BackendError, Signal, Signals, Supervisor, faults};
use crate::bus::{Namesakes, Request};
use crate::clock::{now, unix_milliseconds};
use crate::config::Reloadable;
use crate::interfaces::InterfacesEvent;
use crate::lease::BootTime;
use crate::library::LibraryHandle;
use crate::namespace_watcher::{Namespace, NamespaceEvent, NamespaceWatcherHandle};
use crate::netns_holders::{HeldEvent, HolderSource};

/// Maximum time for running work when the daemon stops.
const LAST_WORK: Duration = Duration::from_millis(300);
/// The same limit if leases are restored when the daemon stops. The next start restores the rest.
const LAST_RESTORATIONS: Duration = Duration::from_millis(700);

/// Maximum time for restoring the interfaces of running scenarios. Each restoration takes a few milliseconds.
const LAST_SCENARIOS: Duration = Duration::from_millis(1000);

/// The sources of inputs.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) namespaces: NamespaceWatcherHandle,
    /// Processes that hold namespaces.
    pub(super) held: HolderReports,
    pub(super) interfaces: mpsc::Receiver<InterfacesEvent>,
    /// Client requests. The bus answers "busy" if the channel is full.
    pub(super) requests: mpsc::Receiver<Request>,
    /// A frontend appeared.
    pub(super) joined: Arc<Notify>,
    /// Calls of executions about their interfaces.
    pub(super) calls: mpsc::Receiver<TcCall>,
    pub(super) library: LibraryHandle,
    /// The host of another backend with the same name.
    pub(super) namesakes: Namesakes,
    /// Becomes true when clients see this backend.
    pub(super) is_on_bus: watch::Receiver<bool>,
}

enum Event {
    Signal(Signal),
    Failure(BackendError),
    Input(Input),
    /// The configuration was read again. `None`: no value changes.
    Options(Option<Reloadable>),
}

/// The main loop of the daemon. [`Task::run`] runs it.
#[derive(Debug)]
pub(super) struct Task {
    state: State,
    sources: Sources,
    runner: EffectRunner,
    signals: Signals,
    supervisor: Supervisor,
    config: ConfigReader,
}

impl Task {
    pub(super) fn new(
        state: State,
        sources: Sources,
        handles: Handles,
        signals: Signals,
        supervisor: Supervisor,
        config: ConfigReader,
    ) -> Self {
        Self {
            state,
            sources,
            runner: EffectRunner::new(handles),
            signals,
            supervisor,
            config,
        }
    }

    /// Runs until a signal or a failure, then stops everything in order.
    pub(super) async fn run(mut self, namespaces: Vec<Namespace>) -> Result<(), BackendError> {
        self.runner.handles.tracker.track_host().await;
        for effect in self.state.begin(namespaces) {
            self.runner.carry_out(effect).await;
        }
        let ended = loop {
            match self.next_event().await {
                Event::Signal(Signal::Stop(signal)) => {
                    info!(signal, "stopping");
                    break Ok(());
                }
                Event::Signal(Signal::Reload) => {
                    info!("SIGHUP, reading configuration, presets and scenarios again");
                    self.sources.library.reload();
                    self.config.begin();
                }
                Event::Options(Some(options)) => {
                    super::tell_policy(&options.policy);
                    self.take(Input::Options(options)).await;
                }
                Event::Options(None) => {}
                Event::Failure(failure) => break Err(failure),
                Event::Input(input) => self.take(input).await,
            }
        };
        self.take(Input::Ending).await;
        self.refuse_requests();
        self.end_scenarios().await;
        self.finish_work().await;
        let Self {
            state,
            sources,
            runner,
            supervisor,
            ..
        } = self;
        // Requests that were not carried out are answered by dropping their replies.
        drop((state, sources, runner));
        supervisor.shut_down().await;
        ended
    }

    /// Passes an input to the state, and carries out the effects in order.
    async fn take(&mut self, input: Input) {
        log(&input);
        faults::hang_at(&input);
        let effects = self.state.step(input, moment());
        let begins = !effects.is_empty();
        for effect in effects {
            self.runner.carry_out(effect).await;
        }
        if begins && !self.sources.requests.is_empty() {
            // Started tasks run on this thread. They must run before the next of many requests.
            tokio::task::yield_now().await;
        }
    }

    /// Closes the request channel. The bus answers the dropped requests.
    fn refuse_requests(&mut self) {
        self.sources.requests.close();
        while self.sources.requests.try_recv().is_ok() {}
    }

    /// Ends executions, which restore their interfaces. This needs all inputs except requests.
    async fn end_scenarios(&mut self) {
        let limit = tokio::time::Instant::now() + LAST_SCENARIOS;
        let restore = !self.state.keeps_on_exit();
        let mut ended = self.runner.handles.scenarios.end(restore).await;
        loop {
            let event = tokio::select! {
                biased;
                // Cancel-safe: not polled again once it has resolved.
                _ = &mut ended => return,
                // Cancel-safe: the deadline is fixed.
                () = tokio::time::sleep_until(limit) => {
                    return warn!("scenarios not ended in time");
                }
                // Cancel-safe, like `next_event`.
                event = self.next_event() => event,
            };
            match event {
                Event::Input(input) => self.take(input).await,
                Event::Signal(Signal::Reload) | Event::Options(_) => {}
                // A second signal, or a required actor has ended.
                Event::Signal(Signal::Stop(_)) | Event::Failure(_) => {
                    return warn!("scenarios not ended in time");
                }
            }
        }
    }

    /// Finishes running work and answers its requesters. Work that was not begun is refused.
    async fn finish_work(&mut self) {
        let effects = self.state.stop(moment());
        let limit = if self.state.has_restorations() {
            LAST_RESTORATIONS
        } else {
            LAST_WORK
        };
        for effect in effects {
            self.runner.carry_out(effect).await;
        }
        let finished = async {
            // Replies to changes are sent with a last publication, which is also work.
            while !self.runner.is_idle() {
                if let Ok(input) = self.runner.next_result().await {
                    self.take(input).await;
                }
            }
        };
        if tokio::time::timeout(limit, finished).await.is_err() {
            let count = self.runner.under_way();
            debug!(count, "work not finished in time");
        }
        self.runner.abort_all();
    }

    async fn next_event(&mut self) -> Event {
        let wake = self.state.wake_at();
        let sources = &mut self.sources;
        let wake = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Cancel-safe: a dropped future consumes no signal.
            signal = self.signals.next() => Event::Signal(signal),
            // Cancel-safe: the set keeps a result until it is returned.
            failure = self.supervisor.failure() => Event::Failure(failure),
            // Cancel-safe: the set of readings keeps a result until it is returned.
            options = self.config.next() => Event::Options(options),
            // Cancel-safe, like the other channels: `recv` removes a message only when it returns it. A closed channel means that
            // an actor has ended. The supervisor reports its error.
            Some(event) = sources.namespaces.next() => Event::Input(Input::Namespace(event)),
            (source, event) = sources.held.next() => Event::Input(Input::Held(source, event)),
            Some(event) = sources.interfaces.recv() => Event::Input(Input::Interfaces(event)),
            // Running work, including steps of scenarios, has priority over new requests, of which hundreds may wait.
            // Cancel-safe: the set keeps a result until it is returned.
            result = self.runner.next_result() => result.map_or_else(work_failed, Event::Input),
            Some(call) = sources.calls.recv() => Event::Input(Input::TcCall(Box::new(call))),
            // Cancel-safe: a dropped future marks no change as seen.
            library = sources.library.changed() => Event::Input(Input::Library(library)),
            Some(request) = sources.requests.recv() => Event::Input(Input::Request(request)),
            // Any participant of the bus can cause these two events repeatedly, so requests have priority. Cancel-safe: `Notify`
            // keeps the permit until it is consumed.
            () = sources.joined.notified() => Event::Input(Input::FrontendJoined),
            // Cancel-safe: a dropped future marks no value as seen.
            host = next_namesake(&mut sources.namesakes) => Event::Input(Input::Namesake(host)),
            // Cancel-safe: `changed` marks a value as seen only when it returns.
            Ok(()) = sources.is_on_bus.changed() => Event::Input(Input::OnBus),
            // Cancel-safe: the deadline is computed again for each wait. Every other input also does the work that is due.
            () = wake => Event::Input(Input::Timer),
        }
    }
}

/// Waits for the host of another backend with the same name.
async fn next_namesake(namesakes: &mut Namesakes) -> String {
    while namesakes.changed().await.is_ok() {
        if let Some(host) = namesakes.borrow_and_update().clone() {
            return host;
        }
    }
    // The bus has ended. The supervisor reports its error.
    std::future::pending().await
}

fn work_failed(err: JoinError) -> Event {
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
        Input::Held(HolderSource::Containers, HeldEvent::Added(holder)) => {
            info!(kind = ?holder.kind, id = %holder.id, "container appeared");
        }
        Input::Held(HolderSource::Containers, HeldEvent::Removed(id)) => {
            info!(%id, "container gone")
        }
        Input::Held(HolderSource::Processes, event) => {
            debug!(?event, "holders of namespaces changed")
        }
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

/// Reads the clocks.
fn moment() -> Moment {
    let unix_ms = unix_milliseconds();
    Moment {
        now: now(),
        unix_s: unix_ms / 1000,
        unix_ms,
        boot: BootTime::now(),
    }
}
