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
  apply        an Apply, beside the bare netlink replace and dump of the same run (virtual machine)
  burst        200 Apply at once on one interface, and what others feel of it (virtual machine)
  switch       Enable and Disable with 0 and 1 000 namespaces (this machine)
  diagnostics  what a run against an unreachable target holds up (this machine)
  bandwidth    processor time and punctuality of counters and rates (this machine)
  fidelity     packets counted and timed on the other side of the netem (virtual machine)

Parts on this machine have mount and network namespaces of their own, the others a kernel of their own:
nothing outside is touched. docs/measurements.md says what each figure means and how it is taken.

The JSON of --json is one object; --baseline reads the same:
  schema       1; another number when members change their meaning
  date_unix_s  when the run ended
  machine      kernel, cpus, cpu, memory_kib, load (1, 5 and 15 minutes, at the start)
  trials, optimised
  figures      part, name, unit, n, p50, p90, p99, max, note, samples (in the order of the trials)

Exit status: 0 measured (and within the limits), 1 a limit is exceeded, 2 could not measure, 130 interrupted.

Needs root, a built tcgui-backend beside this program, outside /tmp, /run and /dev/shm, which the virtual
machine has of its own (scripts/tc-figures.sh sees to all that), and a quiet machine.";

/// Measures what impairing, switching and watching interfaces costs, and how true netem is.
#[derive(Debug, Parser)]
#[command(name = "tc-figures", after_help = MORE)]
pub(crate) struct Arguments {
    /// The parts to measure, separated by commas
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', value_enum, hide_possible_values = true,
        default_values_t = Part::ALL)]
    pub(crate) parts: Vec<Part>,

    /// How often each time is taken; periods and counts of packets go with it.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..))]
    pub(crate) trials: u32,

    /// Writes all figures and samples to a file, see below.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Shows the median of each figure in a file of --json beside the new one.
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,

    /// Compares with thresholds.json and fails, naming each limit that is exceeded.
    ///
    /// `steady` looks only at limits that hold on a busy machine too.
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pub(crate) check: Option<Check>,

    /// Measures this part here; given by the program to itself.
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
