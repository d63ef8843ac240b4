//! Tests of the library over real directories with real watches.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;

mod reload;
mod shipped;
mod stored;

/// Wide, because test machines are busy.
const SOON: Duration = Duration::from_secs(10);

/// A library with its own directories and actor.
struct Bench {
    root: TempDir,
    handle: LibraryHandle,
    stop: CancellationToken,
    actor: tokio::task::JoinSet<()>,
}

impl Bench {
    async fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap()).await
    }

    async fn over(root: TempDir) -> Self {
        let (handle, task) = open(config(root.path())).await;
        let stop = CancellationToken::new();
        let mut actor = tokio::task::JoinSet::new();
        actor.spawn(task.run(stop.clone()));
        Self {
            root,
            handle,
            stop,
            actor,
        }
    }

    /// Ends the actor and starts a new one over the same directories.
    async fn restart(self) -> Self {
        Self::over(self.end().await).await
    }

    async fn end(mut self) -> TempDir {
        self.stop.cancel();
        self.actor.join_next().await.unwrap().unwrap();
        self.root
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.root.path().join(path)).unwrap();
    }

    async fn wait(&self, what: &str, is: impl Fn(&Library) -> bool) -> Arc<Library> {
        let mut library = self.handle.library.clone();
        let seen = tokio::time::timeout(SOON, library.wait_for(|library| is(library))).await;
        match seen {
            Ok(library) => Arc::clone(&library.unwrap()),
            Err(_) => panic!("not soon: {what}; {:?}", self.handle.snapshot().load_errors),
        }
    }
}

fn config(root: &Path) -> LibraryConfig {
    LibraryConfig {
        preset_dirs: vec![root.join("presets"), root.join("more-presets")],
        scenario_dirs: vec![root.join("scenarios"), root.join("a/b/scenarios")],
        store: root.join("state/lab/scenarios"),
    }
}

fn preset(id: &str, loss: &str) -> String {
    format!("{{ id: '{id}', name: '{id}', loss: {{ percentage: {loss} }} }}")
}

fn scenario(id: &str, name: &str) -> String {
    format!("{{ id: '{id}', name: '{name}', steps: [\n{{ duration: '1s', description: '' }}] }}")
}

fn name_of(library: &Library, id: &str) -> Option<String> {
    library.scenario(id).map(|scenario| scenario.name.clone())
}
