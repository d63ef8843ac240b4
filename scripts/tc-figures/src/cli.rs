//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::part::Part;

/// Exit status if a limit is exceeded.
pub(crate) const EXCEEDED: u8 = 1;

/// Exit status if nothing could be measured, for example because of a wrong command line.
pub(crate) const FAILED: u8 = 2;

const MORE: &str = "\
Parts:
  apply        an Apply, compared with the bare netlink replace and dump of the same run (virtual machine)
  burst        200 Apply at once on one interface, and their effect on other requests (virtual machine)
  switch       Enable and Disable with 0 and 1 000 namespaces (this machine)
  diagnostics  the delay of other requests during a run against an unreachable target (this machine)
  bandwidth    processor time and delay of counters and rates (this machine)
  fidelity     packets counted and timed behind the netem (virtual machine)
  rates        delay, throughput and drops behind a rate limit, through a router (virtual machine)
  presets      the share of packets that the shipped presets and scenarios lose, duplicate and corrupt (virtual machine)

Parts on this machine run in private mount and network namespaces, the other parts on their own kernel.
Nothing else is changed. docs/measurements.md explains each figure and how it is measured.

The JSON of --json is one object; --baseline reads the same:
  schema       1; changes if the meaning of a member changes
  date_unix_s  the end of the run
  machine      kernel, cpus, cpu, memory_kib, load (1, 5 and 15 minutes, at the start)
  trials, optimised
  figures      part, name, unit, n, p50, p90, p99, max, note, samples (in the order of the trials)

Exit status: 0 measured (and within the limits), 1 a limit is exceeded, 2 could not measure, 130 interrupted.

Needs root, a quiet machine, and a built tcgui-backend next to this program outside /tmp, /run and /dev/shm,
because these are private in the virtual machine (scripts/tc-figures.sh provides all this).";

/// Measure the cost of impairing, switching and watching interfaces, and the accuracy of netem.
#[derive(Debug, Parser)]
#[command(name = "tc-figures", after_help = MORE)]
pub(crate) struct Arguments {
    /// Measure these parts, separated by commas
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', value_enum, hide_possible_values = true,
        default_values_t = Part::ALL)]
    pub(crate) parts: Vec<Part>,

    /// Set the number of measurements of each time. Periods and packet counts are proportional to it.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..))]
    pub(crate) trials: u32,

    /// Write all figures and samples to a file, see below.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Show the medians of an earlier --json file next to the new ones.
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,

    /// Compare with thresholds.json, print each exceeded limit, and fail if there is one.
    ///
    /// `steady` checks only limits that also hold on a busy machine.
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pub(crate) check: Option<Check>,

    /// Measure this part here. The program sets it for its own child processes.
    #[arg(long, hide = true)]
    pub(crate) inside: Option<Part>,
}

/// The limits that `--check` compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// All of them.
    All,
    /// Only those that also hold on a busy machine.
    Steady,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn everything_is_measured_by_default() {
        let arguments = parse("tc-figures").unwrap();
        assert_eq!(arguments.trials, 200);
        assert_eq!(arguments.parts, Part::ALL);
        assert_eq!(arguments.check, None);
    }

    #[test]
    fn check_takes_an_optional_value() {
        let check = |line| parse(line).unwrap().check;
        assert_eq!(check("tc-figures --check"), Some(Check::All));
        assert_eq!(check("tc-figures --check=steady"), Some(Check::Steady));
        assert_eq!(check("tc-figures --check --trials 50"), Some(Check::All));
    }

    #[test]
    fn invalid_arguments_are_refused() {
        for line in ["--trials 3", "--parts absent", "--check=some", "extra"] {
            assert!(
                parse(&format!("tc-figures {line}")).is_err(),
                "{line} was taken"
            );
        }
    }
}
