//! The parts of a run, and where each is measured.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// One Apply after the other.
    Apply,
    /// Many at once.
    Burst,
    /// Enable and Disable.
    Switch,
    /// A diagnostics run, and everything beside it.
    Diagnostics,
    /// Counters and rates.
    Bandwidth,
    /// What becomes of packets.
    Fidelity,
}

/// Where a part is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// On the kernel of this machine, in namespaces of its own.
    Lab,
    /// On a kernel with netem.
    NetemKernel,
}

impl Part {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 6] = [
        Self::Apply,
        Self::Burst,
        Self::Switch,
        Self::Diagnostics,
        Self::Bandwidth,
        Self::Fidelity,
    ];

    /// Returns where it is measured.
    pub(crate) fn stage(self) -> Stage {
        match self {
            Self::Apply | Self::Burst | Self::Fidelity => Stage::NetemKernel,
            Self::Switch | Self::Diagnostics | Self::Bandwidth => Stage::Lab,
        }
    }

    /// Returns the word on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Burst => "burst",
            Self::Switch => "switch",
            Self::Diagnostics => "diagnostics",
            Self::Bandwidth => "bandwidth",
            Self::Fidelity => "fidelity",
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
    fn words_are_those_of_the_command_line() {
        for part in Part::ALL {
            let value = part.to_possible_value().unwrap();
            assert_eq!(value.get_name(), part.word());
        }
    }
}
