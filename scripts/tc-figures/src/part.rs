//! The parts of a run, and their environments.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// One Apply after the other.
    Apply,
    /// Many Apply requests at once.
    Burst,
    /// Enable and Disable.
    Switch,
    /// Other operations during a diagnostics run.
    Diagnostics,
    /// Counters and rates.
    Bandwidth,
    /// The accuracy of impairments.
    Fidelity,
    /// The accuracy of rate limits, through a router.
    Rates,
    /// What the shipped presets and scenarios lose, duplicate and corrupt.
    Presets,
}

/// The environment of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The kernel of this machine, in private namespaces.
    Lab,
    /// A kernel with netem.
    NetemKernel,
}

impl Part {
    /// All parts in the order of the table.
    pub(crate) const ALL: [Self; 8] = [
        Self::Apply,
        Self::Burst,
        Self::Switch,
        Self::Diagnostics,
        Self::Bandwidth,
        Self::Fidelity,
        Self::Rates,
        Self::Presets,
    ];

    /// Returns the environment of the part.
    pub(crate) fn stage(self) -> Stage {
        match self {
            Self::Apply | Self::Burst | Self::Fidelity | Self::Rates | Self::Presets => {
                Stage::NetemKernel
            }
            Self::Switch | Self::Diagnostics | Self::Bandwidth => Stage::Lab,
        }
    }

    /// Returns the name on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Burst => "burst",
            Self::Switch => "switch",
            Self::Diagnostics => "diagnostics",
            Self::Bandwidth => "bandwidth",
            Self::Fidelity => "fidelity",
            Self::Rates => "rates",
            Self::Presets => "presets",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for part in Part::ALL {
            let value = part.to_possible_value().unwrap();
            assert_eq!(value.get_name(), part.word());
        }
    }
}
