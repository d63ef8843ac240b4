//! One pass over all layers: parses files, decides which entry hides which, and collects errors. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tcgui_shared::preset::CustomPreset;
use tcgui_shared::scenario::{ErrorCategory, LoadError, NetworkScenario, ScenarioError};

use super::Library;
use crate::document::{DocumentError, shortened};
use crate::error::{BoxError, chain};
use crate::preset::FromFile;
use crate::{preset, scenario};

/// Maximum number of steps of all scenarios together. A list with this many steps is about 40 MB on the wire.
pub(super) const MAX_STEPS: usize = 100_000;
/// Maximum number of reported errors. Further errors are only counted.
const MAX_ERRORS: usize = 500;

/// Why a file is not in the library.
#[derive(Debug, thiserror::Error)]
pub(super) enum EntryError {
    #[error("{0}")]
    Document(DocumentError),
    #[error("the id {id:?} is already that of {}", other.display())]
    Duplicate { id: String, other: PathBuf },
    #[error("all scenarios together would have more than {MAX_STEPS} steps")]
    TooManySteps,
    #[error("{}", chain(&**.0))]
    Unread(BoxError),
}

impl EntryError {
    fn report(&self, path: &Path) -> LoadError {
        let (category, step_index) = match self {
            Self::Document(err) => (ErrorCategory::Validation, err.step()),
            Self::Duplicate { .. } | Self::TooManySteps => (ErrorCategory::Validation, None),
            Self::Unread(_) => (ErrorCategory::Permanent, None),
        };
        let suggestion = match self {
            Self::Document(_) => Some("tcgui-backend check FILE shows what is wrong with a file"),
            Self::Duplicate { .. } => Some("ids must differ within a directory"),
            Self::TooManySteps | Self::Unread(_) => None,
        };
        LoadError {
            file_path: path.display().to_string(),
            error: ScenarioError {
                suggestion: suggestion.map(str::to_owned),
                step_index,
                ..ScenarioError::new(category, self.to_string())
            },
        }
    }
}

/// An entry of a layer.
pub(super) trait Entry: Clone {
    fn id(&self) -> &str;
}

impl Entry for CustomPreset {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Entry for Arc<NetworkScenario> {
    fn id(&self) -> &str {
        &self.id
    }
}

/// The last valid content of each file. It stays in force if an edit makes the file invalid.
#[derive(Debug, Default)]
pub(super) struct Memory {
    presets: HashMap<PathBuf, CustomPreset>,
    scenarios: HashMap<PathBuf, Arc<NetworkScenario>>,
}

/// Entries by id, later layers over earlier ones.
#[derive(Debug)]
struct Layered<T> {
    /// Entries of the first layer keep their position, even if another layer hides them.
    first: Vec<T>,
    in_first: bool,
    others: BTreeMap<String, T>,
    /// The file of each id in the current layer.
    taken: HashMap<String, PathBuf>,
}

impl<T: Entry> Layered<T> {
    fn new() -> Self {
        Self {
            first: Vec::new(),
            in_first: true,
            others: BTreeMap::new(),
            taken: HashMap::new(),
        }
    }

    fn put(&mut self, path: &Path, entry: T) -> Result<(), EntryError> {
        let id = entry.id().to_owned();
        if let Some(other) = self.taken.get(&id) {
            let other = other.clone();
            return Err(EntryError::Duplicate { id, other });
        }
        self.taken.insert(id.clone(), path.to_owned());
        match self.first.iter_mut().find(|first| first.id() == id) {
            Some(first) => *first = entry,
            None if self.in_first => self.first.push(entry),
            None => drop(self.others.insert(id, entry)),
        }
        Ok(())
    }

    fn next_layer(&mut self) {
        self.in_first = false;
        self.taken.clear();
    }

    fn into_entries(self) -> Vec<T> {
        let mut entries = self.first;
        entries.extend(self.others.into_values());
        entries
    }
}

/// A pass in progress. Presets are read before scenarios, which may reference them.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    memory: &'a mut Memory,
    /// Seconds since the Unix epoch.
    now: u64,
    presets: Layered<CustomPreset>,
    all_presets: Vec<CustomPreset>,
    scenarios: Layered<Arc<NetworkScenario>>,
    steps: usize,
    seen: HashSet<PathBuf>,
    errors: Vec<LoadError>,
    warnings: Vec<(PathBuf, String)>,
    unreported: usize,
}

impl<'a> Reading<'a> {
    pub(super) fn begin(memory: &'a mut Memory, now: u64) -> Self {
        Self {
            memory,
            now,
            presets: Layered::new(),
            all_presets: Vec::new(),
            scenarios: Layered::new(),
            steps: 0,
            seen: HashSet::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
            unreported: 0,
        }
    }

    /// Ends a layer. Ids of the next layers hide equal ids of this one.
    pub(super) fn next_layer(&mut self) {
        self.presets.next_layer();
        self.scenarios.next_layer();
    }

    /// Adds a preset file.
    pub(super) fn preset(&mut self, path: &Path, bytes: &[u8]) {
        self.seen.insert(path.to_owned());
        let entry = match preset::read(bytes) {
            Ok(FromFile { value, warnings }) => {
                self.warn(path, &warnings);
                self.memory.presets.insert(path.to_owned(), value.clone());
                Some(value)
            }
            Err(err) => {
                self.error(path, &EntryError::Document(err));
                self.memory.presets.get(path).cloned()
            }
        };
        if let Some(Err(err)) = entry.map(|entry| self.presets.put(path, entry)) {
            self.error(path, &err);
        }
    }

    /// Ends the presets and begins the first layer of scenarios, which may reference the presets.
    pub(super) fn presets_done(&mut self) {
        let presets = std::mem::replace(&mut self.presets, Layered::new());
        self.all_presets = presets.into_entries();
        self.scenarios = Layered::new();
    }

    /// Adds a scenario file.
    pub(super) fn scenario(&mut self, path: &Path, bytes: &[u8]) {
        self.seen.insert(path.to_owned());
        let known = self.memory.scenarios.get(path);
        let entry = match scenario::read(bytes, &self.all_presets, self.now) {
            Ok(FromFile { value, warnings }) => {
                let entry = unchanged(known, value);
                self.warn(path, &warnings);
                let path = path.to_owned();
                self.memory.scenarios.insert(path, Arc::clone(&entry));
                Some(entry)
            }
            Err(err) => {
                let known = known.cloned();
                self.error(path, &EntryError::Document(err));
                known
            }
        };
        if let Some(entry) = entry {
            self.put_scenario(path, entry);
        }
    }

    /// Adds a scenario that was parsed before: a stored one, or the last valid content of a file.
    pub(super) fn put_scenario(&mut self, path: &Path, entry: Arc<NetworkScenario>) {
        let steps = self.steps + entry.steps.len();
        let put = if steps > MAX_STEPS {
            Err(EntryError::TooManySteps)
        } else {
            self.scenarios.put(path, entry)
        };
        match put {
            Ok(()) => self.steps = steps,
            Err(err) => self.error(path, &err),
        }
    }

    /// Reports that a file could not be read. Its last valid content stays.
    pub(super) fn unread_preset(&mut self, path: &Path, why: impl Into<BoxError>) {
        self.seen.insert(path.to_owned());
        self.error(path, &EntryError::Unread(why.into()));
        let known = self.memory.presets.get(path).cloned();
        if let Some(Err(err)) = known.map(|entry| self.presets.put(path, entry)) {
            self.error(path, &err);
        }
    }

    /// Does the same as [`Self::unread_preset`] for a scenario.
    pub(super) fn unread_scenario(&mut self, path: &Path, why: impl Into<BoxError>) {
        self.seen.insert(path.to_owned());
        self.error(path, &EntryError::Unread(why.into()));
        if let Some(known) = self.memory.scenarios.get(path).cloned() {
            self.put_scenario(path, known);
        }
    }

    /// Reports an error of a path without earlier content.
    pub(super) fn unread(&mut self, path: &Path, why: impl Into<BoxError>) {
        self.error(path, &EntryError::Unread(why.into()));
    }

    /// Returns the known files of a directory.
    pub(super) fn known_in(&self, directory: &Path) -> Vec<PathBuf> {
        let paths = self.memory.presets.keys();
        let paths = paths.chain(self.memory.scenarios.keys());
        let mut known: Vec<_> = paths
            .filter(|path| path.parent() == Some(directory))
            .cloned()
            .collect();
        known.sort_unstable();
        known
    }

    /// Returns the library, and removes the content of deleted files from memory.
    pub(super) fn finish(mut self) -> Library {
        let seen = &self.seen;
        self.memory.presets.retain(|path, _| seen.contains(path));
        self.memory.scenarios.retain(|path, _| seen.contains(path));
        if self.unreported > 0 {
            let message = format!("{} more files are wrong", self.unreported);
            self.errors.push(LoadError {
                file_path: String::new(),
                error: ScenarioError::new(ErrorCategory::Validation, message),
            });
        }
        Library {
            presets: self.all_presets,
            scenarios: self.scenarios.into_entries(),
            load_errors: self.errors,
            warnings: self.warnings,
        }
    }

    /// Stores warnings for the log, at most [`MAX_ERRORS`]. Further ones are dropped.
    fn warn(&mut self, path: &Path, warnings: &[DocumentError]) {
        let room = MAX_ERRORS.saturating_sub(self.warnings.len());
        let texts = warnings.iter().take(room).map(ToString::to_string);
        self.warnings
            .extend(texts.map(|text| (path.to_owned(), text)));
    }

    fn error(&mut self, path: &Path, err: &EntryError) {
        if self.errors.len() < MAX_ERRORS {
            let mut report = err.report(path);
            report.error.message = shortened(report.error.message);
            self.errors.push(report);
        } else {
            self.unreported += 1;
        }
    }
}

/// Returns the known object with its timestamps if the content of the scenario is unchanged.
fn unchanged(known: Option<&Arc<NetworkScenario>>, read: NetworkScenario) -> Arc<NetworkScenario> {
    let Some(known) = known else {
        return Arc::new(read);
    };
    let as_before = NetworkScenario {
        created_at: known.created_at,
        modified_at: known.modified_at,
        ..read
    };
    if as_before == **known {
        return Arc::clone(known);
    }
    Arc::new(NetworkScenario {
        modified_at: read.modified_at,
        ..as_before
    })
}

#[cfg(test)]
mod tests;
