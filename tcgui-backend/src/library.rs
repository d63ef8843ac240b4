//! The presets and scenarios: shipped, read from files, and stored over the bus.
//!
//! The actor owns the state directory and the watches on the file directories. Its inputs are client requests and reload requests
//! through the [`LibraryHandle`], and events of the watches. Its output is a complete [`Library`], which is never changed in
//! place. It ends when it is stopped.
//!
//! ```text
//!  assets ─────────────┐
//!  directories ─files──┼─▶ layers.rs (pure) ──▶ Library ──watch──▶ backend, scenario engine
//!  state directory ────┘        ▲
//!      ▲  store.rs              │ events: watches.rs
//!      └───── requests ─────────┴──────── task.rs
//! ```
//!
//! Later layers hide earlier ones by id. The order is: compiled-in files, `/usr/share/tcgui`, `~/.config/tcgui`, the working
//! directory, the directories of the command line, the state directory. An invalid file is reported, and its last valid content
//! stays in force.

mod built_in;
pub mod check;
mod files;
mod layers;
mod store;
mod task;
mod watches;

use std::path::PathBuf;
use std::sync::Arc;

use tcgui_shared::preset::CustomPreset;
use tcgui_shared::scenario::{
    ErrorCategory, LoadError, NetworkScenario, ScenarioError, ScenarioRequest, ScenarioResponse,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::blocking;
use crate::kernel::private_dir::Distrust;
use store::Store;
use task::{Command, LibraryStore};

pub use task::Task;

/// Maximum number of changes that wait while one is stored. Each is a synchronous write. Further changes are answered "busy".
const CHANGES: usize = 16;

/// The sources of the library.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LibraryConfig {
    /// Directories with preset files. Later ones take precedence. They need not exist.
    pub preset_dirs: Vec<PathBuf>,
    /// Directories with scenario files. Later ones take precedence. They need not exist.
    pub scenario_dirs: Vec<PathBuf>,
    /// Directory for scenarios that clients store. It is created with the first stored scenario.
    pub store: PathBuf,
}

/// A snapshot of the presets and scenarios.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Library {
    /// In display order: the shipped presets, then the others by id.
    pub presets: Vec<CustomPreset>,
    /// In the same order as the presets.
    pub scenarios: Vec<Arc<NetworkScenario>>,
    /// Errors of preset and scenario files.
    pub load_errors: Vec<LoadError>,
    /// Warnings about files that are in use, for the log: path and text.
    pub warnings: Vec<(PathBuf, String)>,
}

impl Library {
    /// Returns the scenario with this id.
    pub fn scenario(&self, id: &str) -> Option<Arc<NetworkScenario>> {
        self.scenarios
            .iter()
            .find(|scenario| scenario.id == id)
            .cloned()
    }

    fn list(&self) -> ScenarioResponse {
        ScenarioResponse::Listed {
            scenarios: self.scenarios.clone(),
            load_errors: self.load_errors.clone(),
        }
    }
}

/// Reads and changes the library. Clones are cheap. The actor ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct LibraryHandle {
    library: watch::Receiver<Arc<Library>>,
    commands: mpsc::Sender<Command>,
    reload: Arc<Notify>,
}

impl LibraryHandle {
    /// Returns the current library.
    pub fn snapshot(&self) -> Arc<Library> {
        Arc::clone(&self.library.borrow())
    }

    /// Waits for a library newer than the one of the last call. Cancel-safe. Never returns after the actor has ended.
    pub async fn changed(&mut self) -> Arc<Library> {
        match self.library.changed().await {
            Ok(()) => Arc::clone(&self.library.borrow_and_update()),
            Err(_) => std::future::pending().await,
        }
    }

    /// Requests that all files are read again. Returns immediately.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Returns the response to a client's request. A stored change is in the snapshot before this returns.
    pub async fn request(&self, request: ScenarioRequest) -> ScenarioResponse {
        match request {
            ScenarioRequest::List => self.snapshot().list(),
            ScenarioRequest::Get { id } => ScenarioResponse::Retrieved {
                scenario: self.snapshot().scenario(&id),
            },
            change => self.change(change).await,
        }
    }

    async fn change(&self, request: ScenarioRequest) -> ScenarioResponse {
        let (reply, answer) = oneshot::channel();
        let request = Box::new(request);
        let command = Command::Change { request, reply };
        match self.commands.try_send(command) {
            Ok(()) => answer.await.unwrap_or_else(|_| stopping()),
            Err(mpsc::error::TrySendError::Full(_)) => ScenarioError::new(
                ErrorCategory::Transient,
                "too many scenarios wait to be stored, try again",
            )
            .into(),
            Err(mpsc::error::TrySendError::Closed(_)) => stopping(),
        }
    }
}

fn stopping() -> ScenarioResponse {
    ScenarioError::new(ErrorCategory::Transient, "the backend is stopping").into()
}

/// Checks that other users cannot write to the stored scenarios.
///
/// # Errors
/// The untrusted file or directory, and how to repair it.
pub async fn check_store(config: &LibraryConfig) -> Result<(), Distrust> {
    let store = Store::new(config.store.clone());
    blocking::run(move || store.check()).await
}

/// Reads all files once and builds the actor. Never fails: errors are reported in the library.
pub async fn open(config: LibraryConfig) -> (LibraryHandle, Task) {
    let (store, library) = blocking::run(move || {
        let mut store = LibraryStore::new(config);
        let library = store.read();
        (store, library)
    })
    .await;
    let (commands, command_rx) = mpsc::channel(CHANGES);
    let (library_tx, library) = watch::channel(Arc::new(library));
    let reload = Arc::new(Notify::new());
    let handle = LibraryHandle {
        library,
        commands,
        reload: Arc::clone(&reload),
    };
    (handle, Task::new(store, library_tx, command_rx, reload))
}

#[cfg(test)]
mod tests;
