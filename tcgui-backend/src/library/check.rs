//! `tcgui-backend check`: checks whether the backend would load files as presets or scenarios.

use std::fmt;
use std::path::{Path, PathBuf};

use tcgui_shared::preset::CustomPreset;

use super::files::{self, ReadError};
use super::layers::{Memory, Reading};
use super::task::{Kind, read_directory};
use super::{LibraryConfig, built_in};
use crate::document::{Document, DocumentError};
use crate::error::chain;
use crate::preset::FromFile;
use crate::{preset, scenario};

/// The result of checking a file.
#[derive(Debug)]
pub enum Finding {
    /// A preset with this id.
    Preset(String),
    /// A scenario with this id and number of steps.
    Scenario(String, usize),
    /// The file would not be loaded.
    Wrong(CheckError),
}

/// Why a file would not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The file cannot be read.
    #[error("{}", chain(.0))]
    Read(#[from] ReadError),
    /// The content is invalid.
    #[error("{0}")]
    Document(#[from] DocumentError),
}

/// The result of the check of one file. It is displayed as one line, and one further line for each warning.
#[derive(Debug)]
pub struct Verdict {
    /// The file as given.
    pub path: PathBuf,
    /// The result.
    pub finding: Finding,
    /// The warnings about the file.
    pub warnings: Vec<DocumentError>,
}

impl Verdict {
    /// Returns whether the file would be loaded.
    pub fn is_good(&self) -> bool {
        !matches!(self.finding, Finding::Wrong(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.finding {
            Finding::Preset(id) => write!(f, "{path}: preset {id:?}"),
            Finding::Scenario(id, 1) => write!(f, "{path}: scenario {id:?}, 1 step"),
            Finding::Scenario(id, steps) => write!(f, "{path}: scenario {id:?}, {steps} steps"),
            Finding::Wrong(CheckError::Read(err)) => write!(f, "{path}: error: {}", chain(err)),
            Finding::Wrong(CheckError::Document(err)) => {
                let at = err.position();
                let message = err.without_position();
                write!(f, "{path}:{}:{}: error: {message}", at.line, at.column)
            }
        }?;
        for warning in &self.warnings {
            let at = warning.position();
            let message = warning.without_position();
            write!(f, "\n{path}:{}:{}: warning: {message}", at.line, at.column)?;
        }
        Ok(())
    }
}

/// Checks files in the given order. Scenarios may reference the presets of this configuration and those of the other files.
pub fn check(paths: &[PathBuf], config: &LibraryConfig) -> Vec<Verdict> {
    let mut presets = installed(config);
    let mut findings: Vec<_> = paths.iter().map(|path| first_look(path)).collect();
    for look in &findings {
        if let Look::Preset(preset) = look {
            presets.retain(|other| other.id != preset.value.id);
            presets.push(preset.value.clone());
        }
    }
    let verdict = |(path, look): (&PathBuf, Look)| {
        let (finding, warnings) = look.finish(&presets);
        Verdict {
            path: path.clone(),
            finding,
            warnings,
        }
    };
    paths.iter().zip(findings.drain(..)).map(verdict).collect()
}

/// A file whose preset references are not resolved yet.
enum Look {
    Preset(Box<FromFile<CustomPreset>>),
    Scenario(Vec<u8>),
    Wrong(CheckError),
}

impl Look {
    fn finish(self, presets: &[CustomPreset]) -> (Finding, Vec<DocumentError>) {
        match self {
            Self::Preset(preset) => (Finding::Preset(preset.value.id), preset.warnings),
            Self::Scenario(bytes) => match scenario::read(&bytes, presets, 0) {
                Ok(FromFile { value, warnings }) => {
                    (Finding::Scenario(value.id, value.steps.len()), warnings)
                }
                Err(err) => (Finding::Wrong(err.into()), Vec::new()),
            },
            Self::Wrong(err) => (Finding::Wrong(err), Vec::new()),
        }
    }
}

fn first_look(path: &Path) -> Look {
    let look = || {
        let bytes = files::read(path)?;
        Ok(if is_scenario(&Document::new(&bytes)?) {
            Look::Scenario(bytes)
        } else {
            Look::Preset(Box::new(preset::read(&bytes)?))
        })
    };
    look().unwrap_or_else(Look::Wrong)
}

/// Returns whether a document is a scenario. The members decide, not the directory.
fn is_scenario(document: &Document<'_>) -> bool {
    ["steps", "loop_scenario", "cleanup_on_failure", "metadata"]
        .into_iter()
        .any(|member| document.has_member(member))
}

fn installed(config: &LibraryConfig) -> Vec<CustomPreset> {
    let mut memory = Memory::default();
    let mut reading = Reading::begin(&mut memory, 0);
    for (path, bytes) in built_in::files(&built_in::PRESETS) {
        reading.preset(path, bytes);
    }
    for directory in &config.preset_dirs {
        reading.next_layer();
        read_directory(&mut reading, directory, &Kind::PRESETS);
    }
    reading.presets_done();
    reading.finish().presets
}
