//! Interfaces as the command line names them: `NS/IF`, `IF`, and `*` in either part.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use clap::builder::{TypedValueParser, ValueParserFactory};
use tcgui_shared::names::{InterfaceName, NamespaceName};

use crate::policy::Pattern;

/// One interface, or all that fit a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    namespace: String,
    interface: String,
    pattern: Option<Pattern>,
}

impl Target {
    /// Returns the wire texts of the namespace and the interface. `None`: it is a pattern.
    pub fn exact(&self) -> Option<(&str, &str)> {
        match self.pattern {
            None => Some((&self.namespace, &self.interface)),
            Some(_) => None,
        }
    }

    /// Returns whether an interface fits, by one of the names of its namespace. All are wire texts.
    pub fn matches(
        &self,
        namespaces: impl IntoIterator<Item: AsRef<str>>,
        interface: &str,
    ) -> bool {
        let mut namespaces = namespaces.into_iter();
        match &self.pattern {
            Some(pattern) => namespaces.any(|it| pattern.matches(it.as_ref(), interface)),
            None => {
                interface == self.interface && namespaces.any(|it| it.as_ref() == self.namespace)
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pattern {
            Some(_) => write!(f, "{}/{}", self.namespace, self.interface),
            None => f.write_str(&target_text(&self.namespace, &self.interface)),
        }
    }
}

/// Returns an interface as it can be given as a target, from wire texts.
pub fn target_text(namespace: &str, interface: &str) -> String {
    let escape = |text: &str| text.replace('%', "%25").replace('*', "%2A");
    format!("{}/{}", escape(namespace), escape(interface))
}

/// Replaces `%2A` by `*` and `%25` by `%`, as in keys: a star alone would make a pattern.
fn unescaped(text: &str) -> String {
    let stars = text.replace("%2A", "*").replace("%2a", "*");
    stars.replace("%25", "%")
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // An interface has no slash in its name. A namespace may have one: pid:7(kworker/0:1).
        let (namespace, interface) = text.rsplit_once('/').unwrap_or(("default", text));
        if namespace.is_empty() || interface.is_empty() {
            return Err(
                "write NAMESPACE/INTERFACE, or INTERFACE for the host's namespace".to_owned(),
            );
        }
        if text.contains('*') {
            let pattern = format!("{namespace}/{interface}").parse::<Pattern>();
            return Ok(Self {
                pattern: Some(pattern.map_err(|err| err.to_string())?),
                namespace: namespace.to_owned(),
                interface: interface.to_owned(),
            });
        }
        let namespace = unescaped(namespace);
        let netns = NamespaceName::from_wire(&namespace).map_err(|err| err.to_string())?;
        let name =
            InterfaceName::from_wire(&unescaped(interface)).map_err(|err| err.to_string())?;
        Ok(Self {
            namespace: netns.to_wire(),
            interface: name.to_wire(),
            pattern: None,
        })
    }
}

/// Reads targets, also with bytes that are not UTF-8: they are taken as `\xhh`.
#[derive(Debug, Clone)]
pub struct TargetParser;

impl TypedValueParser for TargetParser {
    type Value = Target;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Target, clap::Error> {
        let text = match value.to_str() {
            Some(text) => text.to_owned(),
            None => escaped(value.as_bytes()),
        };
        let named = argument.map_or_else(|| "TARGET".to_owned(), ToString::to_string);
        text.parse().map_err(|err| {
            clap::Error::raw(
                clap::error::ErrorKind::ValueValidation,
                format!("invalid value {text:?} for '{named}': {err}\n"),
            )
            .with_cmd(command)
        })
    }
}

impl ValueParserFactory for Target {
    type Parser = TargetParser;

    fn value_parser() -> TargetParser {
        TargetParser
    }
}

/// Returns the wire text of bytes of which some are not UTF-8.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> (String, String) {
        let target: Target = text.parse().unwrap();
        let (namespace, interface) = target.exact().expect("no pattern");
        (namespace.to_owned(), interface.to_owned())
    }

    #[test]
    fn an_interface_without_a_namespace_is_one_of_the_host() {
        assert_eq!(exact("eth0"), ("default".to_owned(), "eth0".to_owned()));
        assert_eq!(exact("lab/eth0"), ("lab".to_owned(), "eth0".to_owned()));
        let process = exact("pid:7(kworker/0:1)/eth0");
        assert_eq!(process.0, "pid:7(kworker/0:1)");
        assert_eq!(exact("my lab/a b"), ("my lab".to_owned(), "a b".to_owned()));
    }

    #[test]
    fn patterns_match_any_name_of_a_namespace() {
        let target: Target = "lab*/*".parse().unwrap();
        assert_eq!(target.exact(), None);
        assert!(target.matches(["x", "lab-1"], "eth0"));
        assert!(!target.matches(["x"], "eth0"));
        let one: Target = "lab/eth0".parse().unwrap();
        assert!(one.matches(["container:web", "lab"], "eth0") && !one.matches(["lab"], "eth1"));
    }

    #[test]
    fn a_star_in_a_name_is_escaped_as_in_keys() {
        assert_eq!(exact("a%2Ab/e%25"), ("a*b".to_owned(), "e%".to_owned()));
        let target: Target = "a%2Ab/e%25".parse().unwrap();
        assert_eq!(target.to_string(), "a%2Ab/e%25");
        assert!(target.matches(["a*b"], "e%") && !target.matches(["axb"], "e%"));
    }

    #[test]
    fn texts_that_name_nothing_are_refused() {
        for wrong in [
            "",
            "/",
            "lab/",
            "/eth0",
            "../eth0",
            "lab/an-interface-too-long",
            "a/b*c/",
        ] {
            wrong.parse::<Target>().unwrap_err();
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_become_escapes() {
        assert_eq!(escaped(b"lab\xff/e\\0"), "lab\\xff/e\\\\0");
    }
}
