//! `NAMESPACE/INTERFACE`, with `*` for any text in either part.

use std::fmt;
use std::str::FromStr;

use tcgui_shared::names::{InterfaceName, NameError, NamespaceName};

/// A pattern for interfaces, written as they are named on the wire.
///
/// ```
/// use tcgui_backend::policy::Pattern;
///
/// let pattern: Pattern = "lab*/eth0".parse().expect("two parts");
/// assert!(pattern.matches("lab-1", "eth0") && !pattern.matches("default", "eth0"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    namespace: String,
    interface: String,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It has no two parts.
    #[error("write NAMESPACE/INTERFACE, for example default/eth0 or lab*/*")]
    Parts,
    /// A part without a star is no name.
    #[error("{part:?} matches nothing: {err}")]
    Name {
        /// As given.
        part: String,
        /// What is wrong with it.
        err: NameError,
    },
}

/// Returns a part as names are written on the wire: a name may be given in a longer form.
fn part<N>(
    text: &str,
    parse: impl Fn(&str) -> Result<N, NameError>,
    to_wire: impl Fn(&N) -> String,
) -> Result<String, PatternError> {
    if text.is_empty() {
        return Err(PatternError::Parts);
    }
    if text.contains('*') {
        return Ok(text.to_owned());
    }
    match parse(text) {
        Ok(name) => Ok(to_wire(&name)),
        Err(err) => Err(PatternError::Name {
            part: text.to_owned(),
            err,
        }),
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        // An interface has no slash in its name. A namespace may have one: pid:7(kworker/0:1).
        let (namespace, interface) = text.rsplit_once('/').ok_or(PatternError::Parts)?;
        Ok(Self {
            namespace: part(namespace, NamespaceName::from_wire, NamespaceName::to_wire)?,
            interface: part(interface, InterfaceName::from_wire, InterfaceName::to_wire)?,
        })
    }
}

impl Pattern {
    /// Returns whether it matches an interface in a namespace, both as named on the wire.
    pub fn matches(&self, namespace: &str, interface: &str) -> bool {
        glob(&self.namespace, namespace) && glob(&self.interface, interface)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.interface)
    }
}

/// Returns whether a text matches, where `*` stands for any text. Takes no more than the product of both lengths.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut left) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return left.is_empty();
    };
    // The leftmost place of each piece leaves the most room for those that follow.
    for piece in pieces {
        match left.split_once(piece) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(last)
}
