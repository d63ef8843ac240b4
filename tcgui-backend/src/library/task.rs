//! The actor: waits for a ring, an order or a request, and lets the desk do it on a blocking thread.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tcgui_shared::scenario::{
    ErrorCategory, LoadError, NetworkScenario, ScenarioError, ScenarioMetadata, ScenarioRequest,
    ScenarioResponse,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::layers::{EntryError, MAX_STEPS, Memory, Reading};
use super::store::{Store, StoreError};
use super::watches::Watches;
use super::{Library, LibraryConfig, built_in, files};
use crate::clock::unix_seconds;
use crate::error::chain;
use crate::pacing::Pacing;
use crate::preset::Flaw;
use crate::scenario;

/// The first change is read at once; while changes keep coming, reading takes a tenth of the time.
const PACING: Pacing = Pacing::new(10, Duration::from_millis(25), Duration::from_millis(500));
/// How often files are read while a watch is missing (inotify limits, for instance).
const UNWATCHED: Duration = Duration::from_secs(30);

/// What is asked of the actor.
#[derive(Debug)]
pub(super) enum Command {
    Change {
        request: Box<ScenarioRequest>,
        reply: oneshot::Sender<ScenarioResponse>,
    },
}

/// The result of a piece of work, with the desk that did it.
#[derive(Debug)]
struct Done {
    desk: LibraryStore,
    library: Library,
    cost: Duration,
    answer: Option<(oneshot::Sender<ScenarioResponse>, ScenarioResponse)>,
}

enum Input {
    Stop,
    HandlesGone,
    Command(Command),
    Rung,
    Done(Box<Done>),
    Timer,
}

/// The library actor; [`Task::run`] is its life.
#[derive(Debug)]
pub struct Task {
    /// `None` while it works; requests wait in their channel until it is back.
    desk: Option<LibraryStore>,
    work: JoinSet<Done>,
    library: watch::Sender<Arc<Library>>,
    commands: mpsc::Receiver<Command>,
    reload: Arc<Notify>,
    /// Watches ring this.
    rung: Arc<Notify>,
    wanted: bool,
    pacing: Pacing,
    /// When to read without a ring; `None` while all watches are there.
    look_at: Option<Instant>,
}

impl Task {
    pub(super) fn new(
        desk: LibraryStore,
        library: watch::Sender<Arc<Library>>,
        commands: mpsc::Receiver<Command>,
        reload: Arc<Notify>,
    ) -> Self {
        let rung = Arc::clone(&desk.rung);
        let mut task = Self {
            desk: None,
            work: JoinSet::new(),
            library,
            commands,
            reload,
            rung,
            wanted: false,
            pacing: PACING,
            look_at: None,
        };
        task.take_back(desk);
        task
    }

    /// Keeps the library as it is on disk until `stop` is cancelled. What is being stored is finished.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            match self.next_input(&stop).await {
                Input::Stop | Input::HandlesGone => break,
                Input::Command(command) => self.change(command),
                Input::Rung => self.wanted = true,
                Input::Done(done) => self.done(*done),
                Input::Timer => {}
            }
            let now = now();
            if self.look_at.is_some_and(|at| at <= now) {
                self.look_at = None;
                self.wanted = true;
            }
            if self.wanted && self.pacing.allows(now) {
                self.read();
            }
        }
        while let Some(done) = self.work.join_next().await {
            if let Ok(Done {
                answer: Some((reply, response)),
                ..
            }) = done
            {
                reply.send(response).ok();
            }
        }
    }

    async fn next_input(&mut self, stop: &CancellationToken) -> Input {
        let wanted = self.wanted && self.desk.is_some();
        let due = wanted.then(|| self.pacing.not_before()).flatten();
        let wake = due.into_iter().chain(self.look_at).min();
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
            // Cancel-safe: the set keeps a result until it is returned.
            Some(done) = self.work.join_next(), if !self.work.is_empty() => done.map_or_else(
                |err| std::panic::resume_unwind(err.into_panic()), |done| Input::Done(Box::new(done))),
            // Cancel-safe, as is the next: a notification stays until it is returned.
            () = self.reload.notified() => Input::Rung,
            () = self.rung.notified() => Input::Rung,
            // Cancel-safe: `recv` takes nothing unless it returns it.
            command = self.commands.recv(), if self.desk.is_some() => {
                command.map_or(Input::HandlesGone, Input::Command)
            }
            // Cancel-safe: the deadline is computed anew each time.
            () = wake => Input::Timer,
        }
    }

    fn read(&mut self) {
        if let Some(mut desk) = self.desk.take() {
            self.wanted = false;
            self.work.spawn_blocking(move || {
                let began = now();
                let library = desk.read();
                let cost = now().saturating_duration_since(began);
                Done {
                    desk,
                    library,
                    cost,
                    answer: None,
                }
            });
        }
    }

    fn change(&mut self, Command::Change { request, reply }: Command) {
        let Some(mut desk) = self.desk.take() else {
            return;
        };
        self.wanted = false;
        let library = Arc::clone(&self.library.borrow());
        self.work.spawn_blocking(move || {
            let began = now();
            let response = desk.change(*request, &library);
            let library = desk.read();
            let cost = now().saturating_duration_since(began);
            Done {
                desk,
                library,
                cost,
                answer: Some((reply, response)),
            }
        });
    }

    fn done(&mut self, done: Done) {
        let Done {
            desk,
            library,
            cost,
            answer,
        } = done;
        debug!(elapsed_ms = cost.as_millis(), "files read");
        self.pacing.done(now(), cost);
        self.take_back(desk);
        let before = Arc::clone(&self.library.borrow());
        if *before != library {
            let (presets, scenarios) = (library.presets.len(), library.scenarios.len());
            info!(
                presets,
                scenarios,
                elapsed_ms = cost.as_millis(),
                "presets and scenarios changed"
            );
            log_errors(&before.load_errors, &library.load_errors);
            self.library.send_replace(Arc::new(library));
        }
        if let Some((reply, response)) = answer {
            // A client that is gone needs no answer.
            reply.send(response).ok();
        }
    }

    fn take_back(&mut self, mut desk: LibraryStore) {
        let unwatched = desk.unwatched();
        self.look_at = unwatched.then(|| now() + UNWATCHED);
        self.desk = Some(desk);
    }
}

/// Logs what is wrong now and was not wrong before.
fn log_errors(before: &[LoadError], errors: &[LoadError]) {
    let known: HashSet<_> = before
        .iter()
        .map(|it| (&it.file_path, &it.error.message))
        .collect();
    for LoadError { file_path, error } in errors {
        if !known.contains(&(file_path, &error.message)) {
            warn!(file = %file_path, error = %error.message, "not loaded");
        }
    }
}

/// What reads and writes; only ever in one place at a time.
#[derive(Debug)]
pub(super) struct LibraryStore {
    preset_dirs: Vec<PathBuf>,
    scenario_dirs: Vec<PathBuf>,
    store: Store,
    memory: Memory,
    watches: Watches,
    rung: Arc<Notify>,
    /// Said once, not at each reading.
    unwatched: bool,
}

impl LibraryStore {
    pub(super) fn new(config: LibraryConfig) -> Self {
        let LibraryConfig {
            preset_dirs,
            scenario_dirs,
            store,
        } = config;
        let rung = Arc::new(Notify::new());
        let directories = preset_dirs.iter().chain(&scenario_dirs).cloned();
        Self {
            watches: Watches::new(directories, Arc::clone(&rung)),
            preset_dirs,
            scenario_dirs,
            store: Store::new(store),
            memory: Memory::default(),
            rung,
            unwatched: false,
        }
    }

    /// Returns whether a watch is missing, and says so when that is new.
    fn unwatched(&mut self) -> bool {
        let failure = self.watches.failure();
        if let Some(err) = failure
            && !self.unwatched
        {
            warn!(error = %chain(err), "files are not watched, but read every 30 s and on SIGHUP");
        }
        self.unwatched = failure.is_some();
        self.unwatched
    }

    /// Reads everything. The watches are placed first, so that no change falls between.
    pub(super) fn read(&mut self) -> Library {
        self.watches.place();
        let mut reading = Reading::begin(&mut self.memory, unix_seconds());
        for (path, bytes) in built_in::files(&built_in::PRESETS) {
            reading.preset(path, bytes);
        }
        for directory in &self.preset_dirs {
            reading.next_layer();
            read_directory(&mut reading, directory, &Kind::PRESETS);
        }
        reading.presets_done();
        for (path, bytes) in built_in::files(&built_in::SCENARIOS) {
            reading.scenario(path, bytes);
        }
        for directory in &self.scenario_dirs {
            reading.next_layer();
            read_directory(&mut reading, directory, &Kind::SCENARIOS);
        }
        reading.next_layer();
        for (path, stored) in self.store.read() {
            match stored {
                Ok(scenario) => reading.put_scenario(&path, Arc::new(scenario)),
                Err(err) => reading.unread(&path, err),
            }
        }
        reading.finish()
    }

    /// Adds, replaces or removes a stored scenario.
    fn change(&mut self, request: ScenarioRequest, library: &Library) -> ScenarioResponse {
        let changed = match request {
            ScenarioRequest::Add(scenario) => self.add(scenario, library),
            ScenarioRequest::Update(scenario) => self.update(scenario, library),
            ScenarioRequest::Remove { id } => self.remove(&id, library),
            // Answered from the snapshot, which needs no desk.
            ScenarioRequest::List | ScenarioRequest::Get { .. } => Ok(library.list()),
        };
        changed.unwrap_or_else(ScenarioResponse::from)
    }

    fn add(
        &self,
        scenario: NetworkScenario,
        library: &Library,
    ) -> Result<ScenarioResponse, ScenarioError> {
        scenario::check(&scenario).map_err(|flaw| invalid("adding a scenario", &flaw))?;
        if library.scenario(&scenario.id).is_some() {
            let message = format!("there is a scenario {:?} already", scenario.id);
            return Err(ScenarioError {
                suggestion: Some("choose another id, or send an Update".to_owned()),
                ..ScenarioError::new(ErrorCategory::Permanent, message)
            });
        }
        check_room("adding a scenario", &scenario, library)?;
        let now = unix_seconds();
        let scenario = stored(scenario, now, now);
        self.store
            .write(&scenario)
            .map_err(|err| unstored("adding a scenario", &err))?;
        Ok(ScenarioResponse::Added { id: scenario.id })
    }

    /// A scenario of a file is hidden by its update, not changed.
    fn update(
        &self,
        scenario: NetworkScenario,
        library: &Library,
    ) -> Result<ScenarioResponse, ScenarioError> {
        scenario::check(&scenario).map_err(|flaw| invalid("updating a scenario", &flaw))?;
        let Some(before) = library.scenario(&scenario.id) else {
            return Ok(ScenarioResponse::Updated { success: false });
        };
        check_room("updating a scenario", &scenario, library)?;
        let scenario = stored(scenario, before.created_at, unix_seconds());
        self.store
            .write(&scenario)
            .map_err(|err| unstored("updating a scenario", &err))?;
        Ok(ScenarioResponse::Updated { success: true })
    }

    fn remove(&self, id: &str, library: &Library) -> Result<ScenarioResponse, ScenarioError> {
        let removed = self
            .store
            .remove(id)
            .map_err(|err| unstored("removing a scenario", &err))?;
        if !removed && library.scenario(id).is_some() {
            let message = format!("the scenario {id:?} comes from a file");
            return Err(ScenarioError {
                suggestion: Some("remove the file; shipped scenarios stay".to_owned()),
                ..ScenarioError::new(ErrorCategory::Permanent, message)
            });
        }
        Ok(ScenarioResponse::Removed { success: removed })
    }
}

/// Refuses what would be stored and then not be listed.
fn check_room(
    operation: &str,
    scenario: &NetworkScenario,
    library: &Library,
) -> Result<(), ScenarioError> {
    let there = library.scenarios.iter().map(|it| it.steps.len());
    if there.sum::<usize>() + scenario.steps.len() <= MAX_STEPS {
        return Ok(());
    }
    Err(ScenarioError {
        suggestion: Some("remove another scenario first".to_owned()),
        operation: Some(operation.to_owned()),
        ..ScenarioError::new(
            ErrorCategory::Permanent,
            EntryError::TooManySteps.to_string(),
        )
    })
}

/// Returns a scenario as it is stored: what follows from the rest is not taken from the client.
fn stored(scenario: NetworkScenario, created_at: u64, modified_at: u64) -> NetworkScenario {
    let duration_ms = scenario::duration_ms(&scenario.steps);
    NetworkScenario {
        created_at,
        modified_at,
        metadata: ScenarioMetadata {
            duration_ms,
            ..scenario.metadata
        },
        ..scenario
    }
}

fn invalid(operation: &str, flaw: &Flaw) -> ScenarioError {
    ScenarioError {
        step_index: flaw.place.step(),
        operation: Some(operation.to_owned()),
        ..ScenarioError::new(ErrorCategory::Validation, flaw.to_string())
    }
}

fn unstored(operation: &str, err: &StoreError) -> ScenarioError {
    warn!(error = %chain(err), operation, "scenario not stored");
    ScenarioError {
        suggestion: Some("see --state-dir of the backend".to_owned()),
        operation: Some(operation.to_owned()),
        ..ScenarioError::new(err.category(), chain(err).to_string())
    }
}

/// How files of one kind are taken in.
pub(super) struct Kind {
    take: fn(&mut Reading<'_>, &Path, &[u8]),
    unread: fn(&mut Reading<'_>, &Path, files::ReadError),
}

impl Kind {
    pub(super) const PRESETS: Self = Self {
        take: |reading, path, bytes| reading.preset(path, bytes),
        unread: |reading, path, err| reading.unread_preset(path, err),
    };
    const SCENARIOS: Self = Self {
        take: |reading, path, bytes| reading.scenario(path, bytes),
        unread: |reading, path, err| reading.unread_scenario(path, err),
    };
}

/// Reads the files of a directory.
pub(super) fn read_directory(reading: &mut Reading<'_>, directory: &Path, kind: &Kind) {
    let (paths, closed) = match files::list(directory) {
        Ok(paths) => (paths, None),
        // What was read from it before stays.
        Err(err) => (reading.known_in(directory), Some(err)),
    };
    if let Some(err) = closed {
        reading.unread(directory, err);
    }
    let (paths, rest) = files::bounded(&paths);
    if let Some(err) = rest {
        reading.unread(directory, err);
    }
    for path in paths {
        match files::read(path) {
            Ok(bytes) => (kind.take)(reading, path, &bytes),
            // Removed since the directory was listed.
            Err(files::ReadError::Open(err)) if files::is_absent(&err) && !path.is_symlink() => {}
            Err(err) => (kind.unread)(reading, path, err),
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
