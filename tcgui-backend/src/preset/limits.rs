//! Limits for presets and scenarios of every source. They keep a list of them small enough to send.

use std::ops::RangeInclusive;

use tcgui_shared::netem::TcNetemConfig;

use super::rate::{AmbiguousUnit, RateError};
use crate::document::JsonPath;
use crate::document::duration::DurationError;
use crate::tc::desired::{ANY_LINK, Desired, TcInputError};
use crate::tc::note::Note;

/// The longest id, in bytes.
const MAX_ID: usize = 128;
/// The longest name, in bytes.
pub(crate) const MAX_NAME: usize = 256;
/// The longest description of a preset or a scenario, in bytes.
pub(crate) const MAX_DESCRIPTION: usize = 4096;

/// An error in a preset or a scenario, and its place.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{place}: {problem}")]
pub(crate) struct Flaw {
    pub(crate) place: JsonPath,
    pub(crate) problem: Problem,
}

impl Flaw {
    pub(crate) fn new(member: &str, problem: Problem) -> Self {
        Self {
            place: JsonPath::default().then(member),
            problem,
        }
    }

    /// Prefixes the place with that of the enclosing object.
    pub(crate) fn within(self, outer: JsonPath) -> Self {
        Self {
            place: outer.join(self.place),
            problem: self.problem,
        }
    }
}

/// The kind of an error or of a warning about a value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("is empty")]
    Empty,
    #[error("has more than {max} bytes")]
    TooLong { max: usize },
    #[error("has {character:?}, which names must not have")]
    Character { character: char },
    #[error("begins or ends with a blank")]
    Blank,
    #[error("is no name but a place in a directory")]
    Dots,
    #[error("{0}")]
    Rate(RateError),
    #[error("{0}")]
    AmbiguousUnit(AmbiguousUnit),
    #[error("{0}")]
    Duration(DurationError),
    #[error("{0}")]
    Netem(TcInputError),
    #[error("{0}")]
    Note(Note),
    #[error("there is no preset {id:?}")]
    UnknownPreset { id: String },
    #[error("there must be at least one")]
    NoSteps,
    #[error("there are {count}, more than {max}")]
    TooMany { count: usize, max: usize },
    #[error("all steps together last longer than {days} days")]
    TooLongRun { days: u64 },
}

/// Checks an id. It must not be usable as a path, a pattern or a key expression.
pub(crate) fn check_id(id: &str) -> Result<(), Flaw> {
    let wrong = |problem| Err(Flaw::new("id", problem));
    check_text("id", id, 1..=MAX_ID)?;
    let unfit = |c: &char| c.is_control() || "/\\*$?#".contains(*c);
    if let Some(character) = id.chars().find(unfit) {
        return wrong(Problem::Character { character });
    }
    if id.trim() != id {
        return wrong(Problem::Blank);
    }
    if id == "." || id == ".." {
        return wrong(Problem::Dots);
    }
    Ok(())
}

/// Checks the length of a text, in bytes.
pub(crate) fn check_text(
    member: &str,
    text: &str,
    length: RangeInclusive<usize>,
) -> Result<(), Flaw> {
    if text.len() < *length.start() {
        return Err(Flaw::new(member, Problem::Empty));
    }
    if text.len() > *length.end() {
        let max = *length.end();
        return Err(Flaw::new(member, Problem::TooLong { max }));
    }
    Ok(())
}

/// Checks that a configuration can be applied.
pub(crate) fn check_config(config: &TcNetemConfig) -> Result<(), Flaw> {
    notes(config).map(drop)
}

/// Checks that a configuration can be applied. Returns warnings where the kernel behaves differently than the numbers
/// suggest.
pub(crate) fn notes(config: &TcNetemConfig) -> Result<Vec<Flaw>, Flaw> {
    let desired = Desired::from_config(config, ANY_LINK);
    let desired = desired.map_err(|err| Flaw::new(err.field(), Problem::Netem(err)))?;
    let notes = desired.notes.into_iter();
    Ok(notes
        .map(|note| Flaw::new(note.field(), Problem::Note(note)))
        .collect())
}
