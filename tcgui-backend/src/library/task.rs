//! The actor: waits for watch events, reload requests and client requests, and runs [`LibraryStore`] on a blocking thread.

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
use crate::clock::{now, unix_seconds};
use crate::error::chain;
use crate::pacing::Pacing;
use crate::preset::Flaw;
use crate::scenario;

/// The first change is read immediately. During a series of changes, reading takes at most a tenth of the time.
const PACING: Pacing = Pacing::new(10, Duration::from_millis(25), Duration::from_millis(500));
/// Interval between reads while a watch is missing, for example because of the inotify limits.
const UNWATCHED: Duration = Duration::from_secs(30);

/// A request to the actor.
#[derive(Debug)]
pub(super) enum Command {
    Change {
        request: Box<ScenarioRequest>,
        reply: oneshot::Sender<ScenarioResponse>,
    },
}

/// The result of work on the blocking thread, with the store that the thread used.
#[derive(Debug)]
struct Done {
    store: LibraryStore,
    library: Library,
    cost: Duration,
    answer: Option<(oneshot::Sender<ScenarioResponse>, ScenarioResponse)>,
}

enum Input {
    Stop,
    HandlesGone,
    Command(Command),
    ReadWanted,
    Done(Box<Done>),
    Timer,
}

/// The library actor. [`Task::run`] runs it.
#[derive(Debug)]
pub struct Task {
    /// `None` while a blocking thread uses it. Until then, requests wait in their channel.
    store: Option<LibraryStore>,
    work: JoinSet<Done>,
    library: watch::Sender<Arc<Library>>,
    commands: mpsc::Receiver<Command>,
    reload: Arc<Notify>,
    /// Notified by the watches when files may have changed.
    files_changed: Arc<Notify>,
    wanted: bool,
    pacing: Pacing,
    /// Time of the next read without an event. `None` while all watches exist.
    look_at: Option<Instant>,
}

impl Task {
    pub(super) fn new(
        store: LibraryStore,
        library: watch::Sender<Arc<Library>>,
        commands: mpsc::Receiver<Command>,
        reload: Arc<Notify>,
    ) -> Self {
        let files_changed = Arc::clone(&store.files_changed);
        let mut task = Self {
            store: None,
            work: JoinSet::new(),
            library,
            commands,
            reload,
            files_changed,
            wanted: false,
            pacing: PACING,
            look_at: None,
        };
        task.take_back(store);
        task
    }

    /// Keeps the library up to date with the files until `stop` is cancelled. A running write is completed first.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            match self.next_input(&stop).await {
                Input::Stop | Input::HandlesGone => break,
                Input::Command(command) => self.change(command),
                Input::ReadWanted => self.wanted = true,
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
        let wanted = self.wanted && self.store.is_some();
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
            // Both are cancel-safe: `Notify` keeps the permit until it is consumed.
            () = self.reload.notified() => Input::ReadWanted,
            () = self.files_changed.notified() => Input::ReadWanted,
            // Cancel-safe: `recv` takes nothing unless it returns it.
            command = self.commands.recv(), if self.store.is_some() => {
                command.map_or(Input::HandlesGone, Input::Command)
            }
            // Cancel-safe: the deadline is stored in the actor.
            () = wake => Input::Timer,
        }
    }

    fn read(&mut self) {
        if let Some(mut store) = self.store.take() {
            self.wanted = false;
            self.work.spawn_blocking(move || {
                let began = now();
                let library = store.read();
                let cost = now().saturating_duration_since(began);
                Done {
                    store,
                    library,
                    cost,
                    answer: None,
                }
            });
        }
    }

    fn change(&mut self, Command::Change { request, reply }: Command) {
        let Some(mut store) = self.store.take() else {
            return;
        };
        self.wanted = false;
        let library = Arc::clone(&self.library.borrow());
        self.work.spawn_blocking(move || {
            let began = now();
            let response = store.change(*request, &library);
            let library = store.read();
            let cost = now().saturating_duration_since(began);
            Done {
                store,
                library,
                cost,
                answer: Some((reply, response)),
            }
        });
    }

    fn done(&mut self, done: Done) {
        let Done {
            store,
            library,
            cost,
            answer,
        } = done;
        debug!(elapsed_ms = cost.as_millis(), "files read");
        self.pacing.done(now(), cost);
        self.take_back(store);
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
            let is_new = |it: &&(PathBuf, String)| !before.warnings.contains(it);
            for (path, warning) in library.warnings.iter().filter(is_new) {
                warn!(file = %path.display(), warning, "loaded, but check this");
            }
            self.library.send_replace(Arc::new(library));
        }
        if let Some((reply, response)) = answer {
            // The client may no longer wait for the reply.
            reply.send(response).ok();
        }
    }

    fn take_back(&mut self, mut store: LibraryStore) {
        let unwatched = store.unwatched();
        self.look_at = unwatched.then(|| now() + UNWATCHED);
        self.store = Some(store);
    }
}

/// Logs the errors that are new.
fn log_errors(before: &[LoadError], errors: &[LoadError]) {
    let known: HashSet<_> = before
        .iter()
        .map(|error| (&error.file_path, &error.error.message))
        .collect();
    for LoadError { file_path, error } in errors {
        if !known.contains(&(file_path, &error.message)) {
            warn!(file = %file_path, error = %error.message, "not loaded");
        }
    }
}

/// Reads and writes the files. Either the actor or one blocking thread owns it.
#[derive(Debug)]
pub(super) struct LibraryStore {
    preset_dirs: Vec<PathBuf>,
    scenario_dirs: Vec<PathBuf>,
    store: Store,
    memory: Memory,
    watches: Watches,
    files_changed: Arc<Notify>,
    /// Whether a missing watch was logged, so that it is logged only once.
    unwatched: bool,
}

impl LibraryStore {
    pub(super) fn new(config: LibraryConfig) -> Self {
        let LibraryConfig {
            preset_dirs,
            scenario_dirs,
            store,
        } = config;
        let files_changed = Arc::new(Notify::new());
        let directories = preset_dirs.iter().chain(&scenario_dirs).cloned();
        Self {
            watches: Watches::new(directories, Arc::clone(&files_changed)),
            preset_dirs,
            scenario_dirs,
            store: Store::new(store),
            memory: Memory::default(),
            files_changed,
            unwatched: false,
        }
    }

    /// Returns whether a watch is missing, and logs the first failure.
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

    /// Reads all files. The watches are placed first, so that no change is missed.
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
            // The handle answers these requests from the snapshot.
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

    /// Updates a scenario. If it comes from a file, the stored version hides the file, which is not changed.
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

/// Refuses a scenario that would exceed the limits of the library and therefore not be listed.
fn check_room(
    operation: &str,
    scenario: &NetworkScenario,
    library: &Library,
) -> Result<(), ScenarioError> {
    let there = library
        .scenarios
        .iter()
        .map(|scenario| scenario.steps.len());
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

/// Returns a scenario in stored form. Derived fields are computed here and not taken from the client.
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

/// The functions that add files of one kind.
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
        // The last valid content of its files stays.
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
            // The file was removed after the directory was listed.
            Err(files::ReadError::Open(err)) if files::is_absent(&err) && !path.is_symlink() => {}
            Err(err) => (kind.unread)(reading, path, err),
        }
    }
}
