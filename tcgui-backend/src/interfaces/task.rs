//! The actor: waits for events, commands and finished dumps, and starts the dumps that the tracker orders.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::kernel::{LinkEvent, LinkKernel};
use super::tracker::{DumpDone, Tracker};
use super::unknown_namespaces::UnknownNamespaces;
use super::{Command, DumpError, InterfacesEvent, Snapshot};
use crate::clock::now;
use crate::error::chain;
use crate::kernel::rtnetlink::{Nsid, RtnetlinkError};

type Waiter = tokio::sync::oneshot::Sender<Result<Snapshot, Arc<DumpError>>>;

/// The reply to a query about ids in the host's table.
#[derive(Debug)]
struct Answered {
    cost: Duration,
    observer_ids: Vec<Option<Nsid>>,
}

enum Input<'a> {
    Stop,
    Command(Command),
    HandlesGone,
    Room(mpsc::Permit<'a, InterfacesEvent>),
    ConsumerGone,
    Kernel(Result<Vec<LinkEvent>, RtnetlinkError>),
    DumpDone(DumpDone),
    Answered(Answered),
    Timer,
}

/// The interfaces actor. [`Task::run`] runs it.
#[derive(Debug)]
pub struct Task<K> {
    kernel: Arc<K>,
    tracker: Tracker<Waiter>,
    dumps: JoinSet<DumpDone>,
    /// At most one query at a time.
    queries: JoinSet<Answered>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<InterfacesEvent>,
    /// When the last kernel message was received. The handles read it.
    last_event: watch::Sender<Option<Instant>>,
}

impl<K: LinkKernel> Task<K> {
    pub(super) fn new(
        kernel: K,
        sweep_interval: Duration,
        unknown_namespaces: UnknownNamespaces,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<InterfacesEvent>,
        last_event: watch::Sender<Option<Instant>>,
    ) -> Self {
        let tracker = Tracker::new(now(), sweep_interval, unknown_namespaces);
        Self {
            kernel: Arc::new(kernel),
            tracker,
            dumps: JoinSet::new(),
            queries: JoinSet::new(),
            commands,
            events,
            last_event,
        }
    }

    /// Runs until `stop` is cancelled, the handles are dropped or the receiver of the events is dropped.
    ///
    /// # Errors
    /// The event socket failed. Without it changes would not be noticed.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), RtnetlinkError> {
        let events = self.events.clone();
        loop {
            match self.next_input(&events, &stop).await {
                Input::Stop | Input::HandlesGone | Input::ConsumerGone => return Ok(()),
                Input::Command(command) => self.obey(command),
                Input::Room(permit) => {
                    if let Some(event) = self.tracker.next_event() {
                        permit.send(event);
                    }
                }
                Input::Kernel(events) => self.take_events(events?),
                Input::DumpDone(done) => {
                    // First handle the events that the kernel queued before the dump ended: a link that was
                    // deleted before must not pass its generation to a new link of the dump.
                    if let Some(events) = self.kernel.pending(done.key)? {
                        self.take_events(events);
                    }
                    self.finish(done);
                }
                Input::Answered(Answered { cost, observer_ids }) => {
                    self.tracker.answered(now(), cost, observer_ids)
                }
                Input::Timer => {}
            }
            self.begin();
        }
    }

    /// Starts the dumps and the query that are due.
    fn begin(&mut self) {
        for request in self.tracker.next_dumps(now()) {
            let kernel = Arc::clone(&self.kernel);
            self.dumps.spawn(async move {
                let (key, generation, started) = (request.key, request.generation, now());
                let result = kernel.dump(request).await;
                DumpDone {
                    key,
                    generation,
                    began: started,
                    cost: now().saturating_duration_since(started),
                    result,
                }
            });
        }
        let host_ids = self.tracker.next_query(now());
        if !host_ids.is_empty() {
            let kernel = Arc::clone(&self.kernel);
            self.queries.spawn(async move {
                let started = now();
                let observer_ids = kernel.observer_ids(host_ids).await;
                Answered {
                    cost: now().saturating_duration_since(started),
                    observer_ids,
                }
            });
        }
    }

    async fn next_input<'a>(
        &mut self,
        events: &'a mpsc::Sender<InterfacesEvent>,
        stop: &CancellationToken,
    ) -> Input<'a> {
        let wake = self.tracker.wake_at();
        tokio::select! {
            biased;
            // Cancel-safe: cancellation is a state.
            () = stop.cancelled() => Input::Stop,
            // Cancel-safe: `recv` takes nothing unless it returns it.
            command = self.commands.recv() => command.map_or(Input::HandlesGone, Input::Command),
            // Cancel-safe: a permit that was not returned was not taken.
            permit = events.reserve(), if self.tracker.has_news() => {
                permit.map_or(Input::ConsumerGone, Input::Room)
            }
            // Cancel-safe: the set keeps a result until it is returned.
            Some(done) = self.dumps.join_next(), if !self.dumps.is_empty() => done.map_or_else(
                |err| std::panic::resume_unwind(err.into_panic()), Input::DumpDone),
            // Cancel-safe: as above.
            Some(answered) = self.queries.join_next(), if !self.queries.is_empty() => answered.map_or_else(
                |err| std::panic::resume_unwind(err.into_panic()), Input::Answered),
            // Cancel-safe: what was not returned was not taken from the socket.
            events = self.kernel.events() => Input::Kernel(events),
            // Cancel-safe: the deadline is computed again each time.
            () = tokio::time::sleep_until(wake.into()) => Input::Timer,
        }
    }

    fn take_events(&mut self, events: Vec<LinkEvent>) {
        // Messages without an event count too.
        self.last_event.send_replace(Some(now()));
        for event in events {
            match event {
                LinkEvent::Kernel(event) => self.tracker.kernel(event, now()),
                LinkEvent::Inside(key) => self.tracker.schedule(key),
                LinkEvent::DeletedInside(key, ifindex) => self.tracker.deleted(key, ifindex),
                LinkEvent::Missed(key) => self.tracker.missed_events(key),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Track { key, netns_ref } => self.tracker.track(key, netns_ref),
            Command::Untrack { key, netns_ref } => {
                if self.tracker.untrack(key, &netns_ref) {
                    self.kernel.forget(key);
                }
            }
            Command::Refresh { key, reply } => self.tracker.refresh(key, reply),
            Command::Recheck { key } => self.tracker.recheck(key, now()),
        }
    }

    fn finish(&mut self, done: DumpDone) {
        let key = done.key;
        if let Err(err) = &done.result {
            debug!(?key, error = %chain(err), "namespace not read");
        }
        let Some(answer) = self.tracker.dump_done(now(), done) else {
            // The namespace was untracked during the dump: close the sockets that the dump opened.
            if !self.tracker.knows(key) {
                self.kernel.forget(key);
            }
            return;
        };
        for waiter in answer.waiters {
            // A receiver that was dropped needs no reply.
            waiter.send(answer.result.clone()).ok();
        }
    }
}
