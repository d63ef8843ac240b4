//! The presets and scenarios that there are: shipped, from files, and stored over the bus.
//!
//! The actor owns the state directory and the watches on the directories of files. Inputs: requests of
//! clients and orders to reload, through the [`LibraryHandle`]; rings of the watches. Output: the
//! [`Library`], complete and never changed in place. It ends when it is told to stop.
//!
//! ```text
//!  assets ─────────────┐
//!  directories ─files──┼─▶ layers.rs (pure) ──▶ Library ──watch──▶ backend, scenario engine
//!  state directory ────┘        ▲
//!      ▲  store.rs              │ rings: watches.rs
//!      └───── requests ─────────┴──────── task.rs
//! ```
//!
//! Later layers hide earlier ones by id: what is compiled in, `/usr/share/tcgui`, `~/.config/tcgui`, the
//! working directory, the directories of the command line, the state directory. A file that is wrong is
//! reported and changes nothing: what was read from it before stays.

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

/// Changes that wait while one is stored; each is a synchronous write. More are answered "busy".
const CHANGES: usize = 16;

/// Where the library comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LibraryConfig {
    /// Directories with preset files; later ones win. They need not exist.
    pub preset_dirs: Vec<PathBuf>,
    /// Directories with scenario files; later ones win. They need not exist.
    pub scenario_dirs: Vec<PathBuf>,
    /// Where scenarios are stored that came over the bus. Made when there is something to store.
    pub store: PathBuf,
}

/// The presets and scenarios at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Library {
    /// In the order of display: the shipped ones, then by id.
    pub presets: Vec<CustomPreset>,
    /// In the same order.
    pub scenarios: Vec<Arc<NetworkScenario>>,
    /// Files that are wrong, of both kinds, and where they are.
    pub load_errors: Vec<LoadError>,
}

impl Library {
    /// Returns the scenario of this id.
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

/// To look at the library and to change it. Clones are cheap. The actor ends with the last one.
#[derive(Debug, Clone)]
pub struct LibraryHandle {
    library: watch::Receiver<Arc<Library>>,
    commands: mpsc::Sender<Command>,
    reload: Arc<Notify>,
}

impl LibraryHandle {
    /// Returns what there is now.
    pub fn snapshot(&self) -> Arc<Library> {
        Arc::clone(&self.library.borrow())
    }

    /// Waits until there is something else than at the last call. Cancel-safe; never returns after
    /// the actor has ended.
    pub async fn changed(&mut self) -> Arc<Library> {
        match self.library.changed().await {
            Ok(()) => Arc::clone(&self.library.borrow_and_update()),
            Err(_) => std::future::pending().await,
        }
    }

    /// Reads all files again, soon.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Answers a client. What was stored is in the snapshot before the answer is given.
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

/// Checks that no other user could have written the stored scenarios.
///
/// # Errors
/// What is not trusted, and how to repair it.
pub async fn check_store(config: &LibraryConfig) -> Result<(), Distrust> {
    let store = Store::new(config.store.clone());
    blocking::run(move || store.check()).await
}

/// Reads everything once and builds the actor. Fails at nothing: what cannot be read is reported in the
/// library.
pub async fn open(config: LibraryConfig) -> (LibraryHandle, Task) {
    let (desk, library) = blocking::run(move || {
        let mut desk = LibraryStore::new(config);
        let library = desk.read();
        (desk, library)
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
    (handle, Task::new(desk, library_tx, command_rx, reload))
}

#[cfg(test)]
mod tests;
