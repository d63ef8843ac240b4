//! A JSON5 text that people wrote: read within bounds, and wrong in a named place.
//!
//! The parser recurses as deep as the text nests and takes NaN for a number, so size and depth are
//! bounded before it sees the text, and what is read is checked for its ranges afterwards. Mistakes of
//! either kind have a line and a column, as in a compiler's messages.

pub(crate) mod duration;
mod scan;

use std::fmt;

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use scan::{Tokens, depth, find};

/// The largest text that is read, in bytes: ten thousand steps written at length.
pub const MAX_SIZE: usize = 1024 * 1024;
/// The deepest nesting of braces and brackets; a scenario needs six.
pub const MAX_DEPTH: usize = 64;
/// How much of an explanation is kept; it may repeat what the text says.
const MAX_EXPLANATION: usize = 300;

/// Where something is in a text, both counted from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in it.
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
    /// To the member of an object.
    Member(String),
    /// To an element of an array, from 0.
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

/// Why a text is not what it should be, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// More than [`MAX_SIZE`].
    #[error("more than {MAX_SIZE} bytes")]
    Size,
    /// Bytes that are not UTF-8.
    #[error("line {}, column {}: not UTF-8 text", at.line, at.column)]
    Encoding {
        /// The first such byte.
        at: Position,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("line {}, column {}: nested deeper than {MAX_DEPTH} levels", at.line, at.column)]
    Depth {
        /// The first brace or bracket beyond.
        at: Position,
    },
    /// No JSON5, or other members and types than there must be.
    #[error("line {}, column {}: {}{explanation}", at.line, at.column, Label(place))]
    Read {
        /// Where reading ended.
        at: Position,
        /// The value that was being read.
        place: JsonPath,
        /// What the parser says.
        explanation: String,
    },
    /// A value that says nothing sensible.
    #[error("line {}, column {}: {}{explanation}", at.line, at.column, Label(place))]
    Value {
        /// Where it is.
        at: Position,
        /// Which one.
        place: JsonPath,
        /// What is wrong with it.
        explanation: String,
    },
}

/// Displays the place in front of an explanation; the outermost value needs none.
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
    /// Returns where it is.
    pub fn position(&self) -> Position {
        match self {
            Self::Size => Position::START,
            Self::Encoding { at }
            | Self::Depth { at }
            | Self::Read { at, .. }
            | Self::Value { at, .. } => *at,
        }
    }

    /// Returns the step of a scenario in which it is, from 0.
    pub fn step(&self) -> Option<usize> {
        match self {
            Self::Read { place, .. } | Self::Value { place, .. } => place.step(),
            Self::Size | Self::Encoding { .. } | Self::Depth { .. } => None,
        }
    }

    /// Displays it without line and column, for messages that begin with them.
    pub fn without_position(&self) -> String {
        let Position { line, column } = self.position();
        let text = self.to_string();
        let prefix = format!("line {line}, column {column}: ");
        text.strip_prefix(&prefix).unwrap_or(&text).to_owned()
    }
}

/// A text that is neither too long nor too deep for the parser.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    text: &'a str,
}

impl<'a> Document<'a> {
    /// Accepts the text if it is within bounds.
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
        // The parser does not look beyond the value unless it reads the whole text by itself.
        match Tokens::new(self.text).after_first_value() {
            Some(offset) => Err(DocumentError::Read {
                at: Position::of(offset, self.text),
                place: JsonPath::default(),
                explanation: "nothing may follow the closing brace".to_owned(),
            }),
            None => Ok(value),
        }
    }

    /// Returns whether the outermost object has a member of this name.
    pub fn has_member(&self, name: &str) -> bool {
        find(self.text, &JsonPath::member(name).0).1 == 1
    }

    /// Says where the value is that is wrong: the innermost of its place that the text has.
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
        // Of a text that ends too early the parser tells where the open value begins, if anything.
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

/// Bounds a text that may hold what somebody else wrote, and keeps it on one line.
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
