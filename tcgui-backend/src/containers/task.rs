//! The actor: receives reports of engines and of the kernel, runs the requests, and sends the differences.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::ContainersConfig;
use super::answers::Listing;
use super::client::{Client, EngineError, Reply};
use super::engine_log::EngineLog;
use super::engine_sockets::{EngineSockets, SocketKey};
use super::events_file;
use super::limits::{LIST_AGAIN, LOOKS, REPORTS, SHORTEST_LIST_INTERVAL, UNWATCHED};
use super::look::{LookError, Sighting, look};
use super::registry::{Key, Outcome, Registry};
use super::session::{self, News, Report, Reporter, SessionId};
use super::watches::SocketWatches;
use crate::clock::now;
use crate::kernel::netns::{NetnsFiles, ProcessNetnsId};
use crate::kernel::pidfd::ProcessHandle;
use crate::netns_holders::{HeldEvent, Runtime};
use crate::token_bucket::TokenBucket;

/// Aborts its task when it is dropped: an exit watch when the container is removed, a request when the session
/// ends.
#[derive(Debug)]
pub(super) struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The result of a child task.
#[derive(Debug)]
enum Done {
    Sockets(SocketWatches, Vec<Option<SocketKey>>),
    /// The session's last report is in the report queue.
    Session,
    /// A list that was requested independently of the session.
    Listed(SessionId, Result<Reply<Listing>, EngineError>),
    /// The events file of this engine is not followed any more.
    EventsFile(SessionId),
    Looked(Key, Box<Result<Option<Sighting>, LookError>>),
    Ended(Key, ProcessNetnsId),
}

/// The tasks of one socket, and the state of the engine behind it.
#[derive(Debug)]
struct Followed {
    session: Option<Watch>,
    /// Requests a list independently of the session.
    list: Option<Watch>,
    /// Follows the engine's events file, if there is one.
    events_file: Option<Watch>,
    runtime: Runtime,
    /// Whether root serves the engine that sent the last list.
    of_root: bool,
    /// The budget of inspections.
    looks: TokenBucket,
}

impl Followed {
    fn new() -> Self {
        Self {
            session: None,
            list: None,
            events_file: None,
            runtime: Runtime::Docker,
            of_root: false,
            looks: LOOKS,
        }
    }

    /// Ends all tasks of a session.
    fn end_session(&mut self) {
        self.session = None;
        self.list = None;
        self.events_file = None;
    }
}

/// The reason for a wake-up.
enum Input<'a> {
    Stop,
    ConsumerGone,
    Room(mpsc::Permit<'a, HeldEvent>),
    Done(Done),
    Report(Report),
    SocketsChanged,
    Timer,
}

/// The container actor. [`Task::run`] runs it.
#[derive(Debug)]
pub struct Task {
    sockets: Vec<PathBuf>,
    files: NetnsFiles,
    events: mpsc::Sender<HeldEvent>,
    registry: Registry<Watch>,
    engine_sockets: EngineSockets,
    followed: Vec<Followed>,
    list_interval: Duration,
    session_count: u64,
    /// `None` while a child task checks the sockets.
    watches: Option<SocketWatches>,
    /// Notified when the sockets may have changed.
    sockets_changed: Arc<Notify>,
    /// A check of the sockets is wanted.
    wanted: bool,
    /// When to check the sockets without a notification. `None`: all watches work.
    look_at: Option<Instant>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    children: JoinSet<Done>,
    log: EngineLog,
}

impl Task {
    pub(super) fn new(
        config: ContainersConfig,
        files: NetnsFiles,
        events: mpsc::Sender<HeldEvent>,
    ) -> Self {
        let ContainersConfig {
            sockets,
            unusable,
            list_interval,
        } = config;
        for host in &unusable {
            warn!(%host, "not a Unix socket, the container engine there is not followed");
        }
        let count = sockets.len();
        let sockets_changed = Arc::new(Notify::new());
        Self {
            registry: Registry::new(count),
            engine_sockets: EngineSockets::new(count),
            followed: std::iter::repeat_with(Followed::new).take(count).collect(),
            list_interval: list_interval.max(SHORTEST_LIST_INTERVAL),
            session_count: 0,
            watches: Some(SocketWatches::new(
                sockets.clone(),
                Arc::clone(&sockets_changed),
            )),
            sockets_changed,
            wanted: true,
            look_at: None,
            reports: mpsc::channel(REPORTS),
            children: JoinSet::new(),
            log: EngineLog::new(sockets.clone()),
            sockets,
            files,
            events,
        }
    }

    /// Follows the engines until `stop` is cancelled or the consumer is dropped.
    pub async fn run(mut self, stop: CancellationToken) {
        let events = self.events.clone();
        loop {
            self.look_for_sockets();
            self.begin_looks();
            match self.next_input(&events, &stop).await {
                Input::Stop | Input::ConsumerGone => return,
                Input::Room(permit) => {
                    if let Some(event) = self.registry.next_event() {
                        debug!(?event, "container");
                        permit.send(event);
                    }
                }
                Input::Done(done) => self.done(done),
                Input::Report(report) => self.report(report),
                Input::SocketsChanged => self.wanted = true,
                Input::Timer => self.timer(now()),
            }
        }
    }

    async fn next_input<'a>(
        &mut self,
        events: &'a mpsc::Sender<HeldEvent>,
        stop: &CancellationToken,
    ) -> Input<'a> {
        let wake = self.wake_at();
        let wake = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Cancel-safe: cancellation is a state.
            () = stop.cancelled() => Input::Stop,
            // Cancel-safe: a permit that was not returned was not taken.
            permit = events.reserve(), if self.registry.has_events() => {
                permit.map_or(Input::ConsumerGone, Input::Room)
            }
            // Cancel-safe: being closed is a state.
            () = events.closed() => Input::ConsumerGone,
            // Cancel-safe: `next_done` is.
            done = next_done(&mut self.children) => Input::Done(done),
            // Cancel-safe: `recv` takes nothing unless it returns it. The actor has a sender itself.
            Some(report) = self.reports.1.recv() => Input::Report(report),
            // Cancel-safe: a notification stays until it is returned.
            () = self.sockets_changed.notified() => Input::SocketsChanged,
            // Cancel-safe: the deadline is computed again each time.
            () = wake => Input::Timer,
        }
    }

    /// Returns when the next task is due without an input.
    fn wake_at(&self) -> Option<Instant> {
        // While the sockets are being checked, the result of the check comes first.
        let looks = self
            .watches
            .as_ref()
            .map(|_| (self.look_at, self.engine_sockets.wake_at()));
        let (look, retry) = looks.unwrap_or_default();
        let engines = || 0..self.sockets.len();
        let list = engines().filter_map(|engine| self.list_at(engine)).min();
        let stable = engines().filter_map(|engine| self.stable_at(engine)).min();
        let waiting = engines().filter(|engine| self.registry.is_waiting(*engine));
        let allowed = waiting
            .filter_map(|engine| self.followed[engine].looks.not_before())
            .min();
        let all = [look, retry, list, stable, allowed];
        all.into_iter().flatten().min()
    }

    /// Returns when an engine is due to be listed again.
    fn list_at(&self, engine: usize) -> Option<Instant> {
        let interval = if self.registry.wants_list(engine) {
            LIST_AGAIN.min(self.list_interval)
        } else {
            self.list_interval
        };
        self.engine_sockets.list_at(engine, interval)
    }

    /// Returns when a session with a flapping engine will be stable.
    fn stable_at(&self, engine: usize) -> Option<Instant> {
        let at = self.engine_sockets.stable_at(engine);
        at.filter(|_| self.log.is_flapping(engine))
    }

    fn timer(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.wanted |= due(self.look_at) || due(self.engine_sockets.wake_at());
        for engine in 0..self.sockets.len() {
            if due(self.list_at(engine)) {
                self.begin_list(engine);
            }
            if due(self.stable_at(engine)) {
                let runtime = self.followed[engine].runtime;
                self.log.stable(engine, runtime, now);
            }
        }
    }

    /// Checks the sockets on a blocking thread, if a check is wanted and none is running. A directory may be in a
    /// file system that a user's program serves, so the check may block.
    fn look_for_sockets(&mut self) {
        if !self.wanted {
            return;
        }
        if let Some(mut watches) = self.watches.take() {
            self.wanted = false;
            self.children.spawn_blocking(move || {
                let sockets = watches.look();
                Done::Sockets(watches, sockets)
            });
        }
    }

    fn begin_looks(&mut self) {
        let now = now();
        while let Some(key) = self
            .registry
            .next_look(|engine| self.followed[engine].looks.allows(now))
        {
            self.followed[key.engine].looks.spend(now, 1);
            let client = Client::new(&self.sockets[key.engine]);
            let runtime = self.followed[key.engine].runtime;
            let files = self.files;
            self.children.spawn(async move {
                let looked = look(client, runtime, files, key.id.clone()).await;
                Done::Looked(key, Box::new(looked))
            });
        }
    }

    /// Begins a session. An earlier session of this engine is aborted.
    fn begin_session(&mut self, engine: usize, now: Instant) {
        self.session_count += 1;
        let session = SessionId {
            engine,
            count: self.session_count,
        };
        self.engine_sockets.begun(engine, session.count, now);
        self.registry.begin_list(engine);
        let socket = self.sockets[engine].clone();
        let reports = self.reports.0.clone();
        let child = self.children.spawn(async move {
            let reporter = Reporter::new(session, reports);
            session::run(Client::new(&socket), reporter).await;
            Done::Session
        });
        let followed = &mut self.followed[engine];
        followed.end_session();
        followed.session = Some(Watch(child));
    }

    /// Requests the containers of an engine in addition to its session, because an event may have been lost.
    fn begin_list(&mut self, engine: usize) {
        let Some(count) = self.engine_sockets.begin_list(engine) else {
            return;
        };
        let session = SessionId { engine, count };
        if self.registry.begin_list(engine) {
            self.log.inspected_all(engine);
        }
        let client = Client::new(&self.sockets[engine]);
        let child = self
            .children
            .spawn(async move { Done::Listed(session, client.list().await) });
        self.followed[engine].list = Some(Watch(child));
    }

    /// Follows the events file of an engine, if it has one and it is not followed yet. The file may be created
    /// later, so this is tried again after events.
    fn follow_events_file(&mut self, session: SessionId) {
        let SessionId { engine, .. } = session;
        let followed = &mut self.followed[engine];
        let has_file = followed.runtime == Runtime::Podman && followed.of_root;
        if has_file && followed.events_file.is_none() {
            let reporter = Reporter::new(session, self.reports.0.clone());
            let child = self.children.spawn(async move {
                events_file::follow(events_file::ROOTS.into(), reporter).await;
                Done::EventsFile(session)
            });
            followed.events_file = Some(Watch(child));
        }
    }

    fn done(&mut self, done: Done) {
        let now = now();
        match done {
            Done::Sockets(watches, sockets) => {
                self.log.sockets(&sockets, watches.failure());
                self.look_at = watches.failure().map(|_| now + UNWATCHED);
                self.watches = Some(watches);
                self.engine_sockets.observe(now, &sockets);
                while let Some(engine) = self.engine_sockets.next_due(now) {
                    self.begin_session(engine, now);
                }
            }
            Done::Session => {}
            Done::Listed(SessionId { engine, count }, list) => {
                if self.engine_sockets.is_current(engine, count) {
                    match list {
                        Ok(list) => self.listed(engine, &list, now),
                        Err(err) => self.session_ended(engine, &err, now),
                    }
                }
            }
            Done::EventsFile(SessionId { engine, count }) => {
                if self.engine_sockets.is_current(engine, count) {
                    self.followed[engine].events_file = None;
                }
            }
            Done::Looked(key, looked) => self.looked(&key, *looked),
            Done::Ended(key, id) => self.registry.ended(&key, id),
        }
    }

    fn report(&mut self, Report { session, news }: Report) {
        let SessionId { engine, count } = session;
        if !self.engine_sockets.is_current(engine, count) {
            return;
        }
        match news {
            News::Listed(runtime, list) => {
                self.followed[engine].runtime = runtime;
                self.listed(engine, &list, now());
                self.follow_events_file(session);
            }
            News::Events(events) => {
                for event in events {
                    self.registry.event(engine, &event);
                }
                if self.registry.is_full(engine) {
                    self.log.full(engine, now());
                }
                self.follow_events_file(session);
            }
            News::NoEvents(err) => self.log.no_events(engine, &err, now()),
            News::Flooding => self.registry.mark_incomplete(engine),
            News::Ended(err) => self.session_ended(engine, &err, now()),
        }
    }

    fn listed(&mut self, engine: usize, reply: &Reply<Listing>, now: Instant) {
        let list = &reply.content;
        let followed = &mut self.followed[engine];
        followed.of_root = reply.of_root;
        self.log.listed(engine, followed.runtime, list, now);
        self.engine_sockets.listed(engine, now);
        self.registry.listed(engine, list, reply.of_root);
    }

    fn session_ended(&mut self, engine: usize, err: &EngineError, now: Instant) {
        self.followed[engine].end_session();
        let session = self.engine_sockets.failed(engine, now);
        self.log.lost(engine, err, session, now);
        // If the session has listed the containers, their inspections continue without it.
        if !session.listed {
            self.registry.disconnected(engine);
        }
    }

    fn looked(&mut self, key: &Key, looked: Result<Option<Sighting>, LookError>) {
        self.log.looked(key, looked.as_ref().err(), now());
        let outcome = match looked {
            Ok(Some(Sighting {
                id,
                own,
                container,
                process,
            })) => Outcome::Holds {
                id,
                own,
                container,
                watch: self.wait_for_end(key, id, process),
            },
            Ok(None) => Outcome::Nothing,
            Err(_) => Outcome::Failed,
        };
        self.registry.looked(key, outcome);
    }

    fn wait_for_end(
        &mut self,
        key: &Key,
        id: ProcessNetnsId,
        process: std::io::Result<ProcessHandle>,
    ) -> Option<Watch> {
        let end = match process.and_then(ProcessHandle::end) {
            Ok(end) => end,
            Err(err) => {
                self.log.unwatched(&err);
                return None;
            }
        };
        let key = key.clone();
        let child = self.children.spawn(async move {
            match end.wait().await {
                Ok(()) => Done::Ended(key, id),
                // An error means that the runtime is shutting down, and this task with it.
                Err(_) => std::future::pending().await,
            }
        });
        Some(Watch(child))
    }
}

/// Waits for a child task to finish. Ignores aborted tasks. Cancel-safe: the set keeps a result until it is
/// returned.
async fn next_done(children: &mut JoinSet<Done>) -> Done {
    loop {
        match children.join_next().await {
            Some(Ok(done)) => return done,
            Some(Err(err)) => {
                if let Ok(panic) = err.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
            None => std::future::pending().await,
        }
    }
}
