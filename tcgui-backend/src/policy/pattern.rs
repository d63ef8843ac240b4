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

/// Why a text is not a valid pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The text does not have two parts.
    #[error("write NAMESPACE/INTERFACE, for example default/eth0 or lab*/*")]
    Parts,
    /// A part is not a valid name, or no valid name matches its stars.
    #[error("{part:?} matches nothing: {err}")]
    Name {
        /// The pattern as given.
        part: String,
        /// The error of the name.
        err: NameError,
    },
}

/// Texts that replace the first and the last star of a pattern to check it. If no replacement gives a valid name, the pattern is
/// refused. Then no name matches it, or a star splits an escape such as `\xff`.
const FILLINGS: [&str; 8] = ["", "a", "1", "1(", "1(a)", "(a)", ")", "pid:1("];
/// The prefix for an entry of the netns directory. Listed names have it only if they would be ambiguous without it.
const ENTRY_PREFIX: &str = "netns:";

/// Returns a part in the form that names have on the wire. A name may be given in a longer form.
fn part<N>(
    text: &str,
    parse: impl Fn(&str) -> Result<N, NameError>,
    to_wire: impl Fn(&N) -> String,
) -> Result<String, PatternError> {
    if text.is_empty() {
        return Err(PatternError::Parts);
    }
    let refused = |err| PatternError::Name {
        part: text.to_owned(),
        err,
    };
    let Some((before, rest)) = text.split_once('*') else {
        let name = parse(text).map_err(refused)?;
        return Ok(to_wire(&name));
    };
    // The part is kept unchanged if it matches at least one name. A single star gets both fillings.
    let (middle, after) = rest.rsplit_once('*').unwrap_or(("", rest));
    let middle = middle.replace('*', "");
    let mut fillings = FILLINGS
        .iter()
        .flat_map(|first| FILLINGS.map(|last| (first, last)));
    let fits = |(first, last)| parse(&format!("{before}{first}{middle}{last}{after}")).is_ok();
    match parse(&text.replace('*', "")) {
        Err(err) if !fillings.any(fits) => Err(refused(err)),
        _ => Ok(text.to_owned()),
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        // An interface name never contains a slash. A namespace name may contain one: pid:7(kworker/0:1).
        let (namespace, interface) = text.rsplit_once('/').ok_or(PatternError::Parts)?;
        Ok(Self {
            namespace: part(namespace, NamespaceName::from_wire, NamespaceName::to_wire)?,
            interface: part(interface, InterfaceName::from_wire, InterfaceName::to_wire)?,
        })
    }
}

impl Pattern {
    /// Returns whether the pattern matches an interface in a namespace. Both names have the form of the wire.
    pub fn matches(&self, namespace: &str, interface: &str) -> bool {
        let is_entry = || {
            matches!(
                NamespaceName::from_wire(namespace),
                Ok(NamespaceName::Named(_))
            )
        };
        let namespace_matches = glob(&self.namespace, namespace)
            || self.namespace.starts_with(ENTRY_PREFIX)
                && is_entry()
                && glob(&self.namespace, &format!("{ENTRY_PREFIX}{namespace}"));
        namespace_matches && glob(&self.interface, interface)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.interface)
    }
}

/// Returns whether a text matches a pattern in which `*` stands for any text. The time is at most proportional to the product of
/// both lengths.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut left) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return left.is_empty();
    };
    // Take the leftmost match of each piece: it leaves the longest rest for the following pieces.
    for piece in pieces {
        match left.split_once(piece) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(last)
}
