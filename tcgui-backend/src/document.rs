//! Reads a JSON5 text that people wrote, within limits. Errors contain the path of the value and its position.
//!
//! The parser recurses as deep as the text is nested, and accepts NaN as a number. So size and depth are checked before
//! the parser gets the text, and the ranges of values are checked afterwards. Errors of both kinds have a line and a
//! column, like those of a compiler.

pub(crate) mod duration;
mod scan;

use std::fmt;

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use scan::{Tokens, depth, find};

/// The largest text in bytes: ten thousand long steps.
pub const MAX_SIZE: usize = 1024 * 1024;
/// The deepest nesting of braces and brackets. A scenario needs six levels.
pub const MAX_DEPTH: usize = 64;
/// The longest explanation in bytes. It may repeat a part of the text.
const MAX_EXPLANATION: usize = 300;

/// A position in a text. Line and column are counted from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column: the number of the character in the line.
    pub column: usize,
}

impl Position {
    const START: Self = Self { line: 1, column: 1 };

    fn of(offset: usize, text: &str) -> Self {
        json5::Position::from_offset(offset, text).into()
    }
}

impl From<json5::Position> for Position {
    fn from(json5::Position { line, column }: json5::Position) -> Self {
        Self {
            line: line + 1,
            column: column + 1,
        }
    }
}

/// One segment of a [`JsonPath`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSegment {
    /// A member of an object.
    Member(String),
    /// An element of an array, from 0.
    Element(usize),
}

/// The path to a value, for example `steps[2].tc_config.loss.percentage`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonPath(Vec<PathSegment>);

impl JsonPath {
    /// Returns the path to a member of the outermost object.
    pub fn member(name: &str) -> Self {
        Self::default().then(name)
    }

    /// Appends members: one name, or several with dots between them.
    pub fn then(mut self, names: &str) -> Self {
        self.0.extend(
            names
                .split('.')
                .map(|name| PathSegment::Member(name.to_owned())),
        );
        self
    }

    /// Appends an element of an array.
    pub fn at(mut self, index: usize) -> Self {
        self.0.push(PathSegment::Element(index));
        self
    }

    /// Appends another path.
    pub fn join(mut self, rest: Self) -> Self {
        self.0.extend(rest.0);
        self
    }

    /// Returns the index of the step of a scenario that contains the value, from 0.
    pub fn step(&self) -> Option<usize> {
        match &self.0[..] {
            [PathSegment::Member(steps), PathSegment::Element(index), ..] if steps == "steps" => {
                Some(*index)
            }
            _ => None,
        }
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, turn) in self.0.iter().enumerate() {
            match turn {
                PathSegment::Member(name) if index == 0 => f.write_str(name)?,
                PathSegment::Member(name) => write!(f, ".{name}")?,
                PathSegment::Element(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The error of a text, and its position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The text has more than [`MAX_SIZE`] bytes.
    #[error("more than {MAX_SIZE} bytes")]
    Size,
    /// The text contains bytes that are not UTF-8.
    #[error("line {}, column {}: not UTF-8 text", at.line, at.column)]
    Encoding {
        /// The position of the first such byte.
        at: Position,
    },
    /// The text is nested deeper than [`MAX_DEPTH`].
    #[error("line {}, column {}: nested deeper than {MAX_DEPTH} levels", at.line, at.column)]
    Depth {
        /// The position of the first brace or bracket that is too deep.
        at: Position,
    },
    /// The text is not JSON5, has an unknown or missing member, or a value of the wrong type.
    #[error("line {}, column {}: {}{explanation}", at.line, at.column, Label(place))]
    Read {
        /// The position at which reading ended.
        at: Position,
        /// The path of the value that was being read.
        place: JsonPath,
        /// The error from the parser.
        explanation: String,
    },
    /// A value is invalid.
    #[error("line {}, column {}: {}{explanation}", at.line, at.column, Label(place))]
    Value {
        /// The position of the value.
        at: Position,
        /// The path of the value.
        place: JsonPath,
        /// The reason.
        explanation: String,
    },
}

/// Displays a path as the prefix of an explanation. The path of the outermost value is empty.
struct Label<'a>(&'a JsonPath);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.0.is_empty() {
            Ok(())
        } else {
            write!(f, "{}: ", self.0)
        }
    }
}

impl DocumentError {
    /// Returns the position.
    pub fn position(&self) -> Position {
        match self {
            Self::Size => Position::START,
            Self::Encoding { at }
            | Self::Depth { at }
            | Self::Read { at, .. }
            | Self::Value { at, .. } => *at,
        }
    }

    /// Returns the index of the step of a scenario that contains the error, from 0.
    pub fn step(&self) -> Option<usize> {
        match self {
            Self::Read { place, .. } | Self::Value { place, .. } => place.step(),
            Self::Size | Self::Encoding { .. } | Self::Depth { .. } => None,
        }
    }

    /// Returns the text without line and column, for messages that already contain them.
    pub fn without_position(&self) -> String {
        let Position { line, column } = self.position();
        let text = self.to_string();
        let prefix = format!("line {line}, column {column}: ");
        text.strip_prefix(&prefix).unwrap_or(&text).to_owned()
    }
}

/// A text that is within the limits of size and depth.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    text: &'a str,
}

impl<'a> Document<'a> {
    /// Checks the limits.
    ///
    /// # Errors
    /// [`DocumentError::Size`], [`DocumentError::Encoding`], [`DocumentError::Depth`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_SIZE {
            return Err(DocumentError::Size);
        }
        let text = std::str::from_utf8(bytes).map_err(|err| {
            let valid = String::from_utf8_lossy(&bytes[..err.valid_up_to()]);
            DocumentError::Encoding {
                at: Position::of(valid.len(), &valid),
            }
        })?;
        match depth(text, MAX_DEPTH) {
            Ok(()) => Ok(Self { text }),
            Err(offset) => Err(DocumentError::Depth {
                at: Position::of(offset, text),
            }),
        }
    }

    /// Reads the text as a value.
    ///
    /// # Errors
    /// [`DocumentError::Read`].
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, DocumentError> {
        let mut parser = json5::Deserializer::from_str(self.text);
        let value = serde_path_to_error::deserialize(&mut parser).map_err(|err| {
            let place = place_of(err.path());
            self.read_error(place, err.inner())
        })?;
        // The parser stops after the value, so check the rest of the text.
        match Tokens::new(self.text).after_first_value() {
            Some(offset) => Err(DocumentError::Read {
                at: Position::of(offset, self.text),
                place: JsonPath::default(),
                explanation: "nothing may follow the closing brace".to_owned(),
            }),
            None => Ok(value),
        }
    }

    /// Returns whether the outermost object has a member with this name.
    pub fn has_member(&self, name: &str) -> bool {
        find(self.text, &JsonPath::member(name).0).1 == 1
    }

    /// Returns the error of an invalid value. If the text does not contain the whole path, the position is that of the
    /// innermost value on it.
    pub fn error(&self, place: JsonPath, explanation: &impl ToString) -> DocumentError {
        let (offset, _) = find(self.text, &place.0);
        DocumentError::Value {
            at: Position::of(offset, self.text),
            place,
            explanation: shortened(explanation.to_string()),
        }
    }

    fn read_error(&self, place: JsonPath, err: &json5::Error) -> DocumentError {
        let mut explanation = err.to_string();
        if let Some(position) = err.position() {
            let suffix = format!(" at {position}");
            explanation.truncate(explanation.len().saturating_sub(suffix.len()));
        }
        // If the text ends too early, the parser reports the start of the open value or nothing. So use the end of the
        // text.
        let ends_early = err.code().is_some() && explanation.starts_with("EOF ");
        let at = match err.position() {
            Some(position) if !ends_early => position.into(),
            _ => Position::of(self.text.trim_end().len(), self.text),
        };
        DocumentError::Read {
            at,
            place,
            explanation: shortened(explanation),
        }
    }
}

fn place_of(path: &serde_path_to_error::Path) -> JsonPath {
    let turns = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(PathSegment::Element(*index)),
        Segment::Map { key } => Some(PathSegment::Member(shortened(key.clone()))),
        Segment::Enum { variant } => Some(PathSegment::Member(variant.clone())),
        Segment::Unknown => None,
    });
    JsonPath(turns.collect())
}

/// Shortens a text that may contain the text of another person, and removes line breaks and control characters from it.
pub(crate) fn shortened(text: String) -> String {
    let mut text = if text.contains(char::is_control) {
        text.chars().flat_map(char::escape_default).collect()
    } else {
        text
    };
    if text.len() > MAX_EXPLANATION {
        text.truncate(text.floor_char_boundary(MAX_EXPLANATION));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
