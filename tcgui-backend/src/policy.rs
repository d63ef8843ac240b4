//! The changes that the operator permits: `--read-only`, `--allow`, `--protect`. Pure.
//!
//! [`Policy`] is checked before every change that a client or a scenario requests. A restoration by the daemon, at the end of a
//! lease or a scenario, is never refused, because it undoes a change that was permitted.
//!
//! A namespace may have several names. A pattern matches an interface if it matches any of them, so that an alias does not bypass
//! `--protect`.

mod pattern;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use tcgui_shared::names::{InterfaceName, NamespaceName};

pub use pattern::{Pattern, PatternError};

/// The value of `--protect` that disables the default protection.
const NONE: &str = "none";

/// The permissions that the operator configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    read_only: bool,
    /// If empty, every interface may be changed.
    allow: Vec<Pattern>,
    protect: Vec<Pattern>,
    /// Whether links through which the host is reached are protected against being brought down.
    keeps_host_reachable: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self::new(false, Vec::new(), Vec::new())
    }
}

/// A value of `--protect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protect {
    /// The interfaces that match.
    Matching(Pattern),
    /// `none`: disables the default protection of the links through which the host is reached.
    None,
}

impl FromStr for Protect {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == NONE {
            Ok(Self::None)
        } else {
            text.parse().map(Self::Matching)
        }
    }
}

/// A change of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Change its root qdisc.
    Impair,
    /// Bring it up.
    Enable,
    /// Bring it down.
    Disable,
}

/// The interface of a requested change.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// All names of its namespace.
    pub namespaces: &'a [NamespaceName],
    /// Its name in it.
    pub interface: &'a InterfaceName,
    /// Whether the namespace is that of the host.
    pub is_host: bool,
    /// Whether the link has `IFF_LOOPBACK`.
    pub loopback: bool,
}

/// The condition of a permitted change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// No condition.
    Always,
    /// Only if no default route uses the interface at the time of the change. Otherwise [`Denial::DefaultRoute`].
    UnlessDefaultRoute,
}

/// Why a change is refused. The text names the option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The backend is read-only.
    #[error("the backend runs with --read-only: it refuses every change")]
    ReadOnly,
    /// The interface matches a pattern of `--protect`.
    #[error("the interface is protected by --protect {pattern}")]
    Protected {
        /// The matching pattern.
        pattern: Pattern,
    },
    /// The interface matches no pattern of `--allow`.
    #[error(
        "the backend changes only interfaces that match --allow {}",
        Listed(allow)
    )]
    NotAllowed {
        /// All patterns of `--allow`.
        allow: Vec<Pattern>,
    },
    /// Without loopback the host cannot reach itself, and frontends cannot reach the backend.
    #[error(
        "the loopback interface of the host is not switched off unless --protect none is given"
    )]
    Loopback,
    /// Without its default route the host cannot be reached.
    #[error(
        "the interface has a default route of the host: it is not switched off unless --protect none is given"
    )]
    DefaultRoute,
}

impl Policy {
    /// Creates the policy for the options of a command line.
    pub fn new(read_only: bool, allow: Vec<Pattern>, protect: Vec<Protect>) -> Self {
        let keeps_host_reachable = !protect.contains(&Protect::None);
        let protect = protect.into_iter().filter_map(|it| match it {
            Protect::Matching(pattern) => Some(pattern),
            Protect::None => None,
        });
        Self {
            read_only,
            allow,
            protect: protect.collect(),
            keeps_host_reachable,
        }
    }

    /// Permits or refuses a change that does not concern a single interface: stored scenarios, running executions.
    ///
    /// # Errors
    /// [`Denial::ReadOnly`].
    pub fn check(&self) -> Result<(), Denial> {
        if self.read_only {
            Err(Denial::ReadOnly)
        } else {
            Ok(())
        }
    }

    /// Permits or refuses a change of an interface.
    ///
    /// # Errors
    /// The [`Denial`], which names the option.
    pub fn check_interface(&self, change: Change, target: Target<'_>) -> Result<Permit, Denial> {
        self.check()?;
        let matches = |pattern: &&Pattern| {
            let interface = target.interface.to_wire();
            let mut names = target.namespaces.iter().map(NamespaceName::to_wire);
            names.any(|name| pattern.matches(&name, &interface))
        };
        if let Some(pattern) = self.protect.iter().find(matches) {
            return Err(Denial::Protected {
                pattern: pattern.clone(),
            });
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|pattern| matches(&pattern)) {
            let allow = self.allow.clone();
            return Err(Denial::NotAllowed { allow });
        }
        let cuts_host = change == Change::Disable && target.is_host && self.keeps_host_reachable;
        match (cuts_host, target.loopback) {
            (false, _) => Ok(Permit::Always),
            (true, true) => Err(Denial::Loopback),
            (true, false) => Ok(Permit::UnlessDefaultRoute),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut options = Vec::new();
        options.extend(self.read_only.then(|| "--read-only".to_owned()));
        let allow = self
            .allow
            .iter()
            .map(|pattern| format!("--allow {pattern}"));
        let protect = self
            .protect
            .iter()
            .map(|pattern| format!("--protect {pattern}"));
        options.extend(allow.chain(protect));
        options.extend((!self.keeps_host_reachable).then(|| format!("--protect {NONE}")));
        f.write_str(&options.join(" "))
    }
}

/// Formats patterns as on a command line after the first option, at most [`MAX_LISTED`].
struct Listed<'a>(&'a [Pattern]);

/// Maximum number of patterns in a refusal.
const MAX_LISTED: usize = 8;

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, pattern) in self.0.iter().take(MAX_LISTED).enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            write!(f, "{separator}{pattern}")?;
        }
        match self.0.len().saturating_sub(MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
