//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::plan::{Situation, Surroundings};
use crate::role::Role;

/// Exit status if a limit is exceeded.
pub(crate) const EXCEEDED: u8 = 1;

/// Exit status if nothing could be measured, for example because of a wrong command line.
pub(crate) const FAILED: u8 = 2;

const MORE: &str = "\
Time zero of a measurement depends on the situation:
  add, del               just before mount() or umount2()
  link-…, moved          just before the netlink request
  process, unannounced   when /proc shows that the program is in its namespace (add), or just before the
                         program is killed (del)
  docker, podman         the time in the engine's event `start` or `die`
  iproute2               the return of the real `ip netns add` or `del`; times may be negative, because
                         the namespace exists or is deleted some time before
A burst has the time zero of its last operation. Its time ends when all of its changes were seen.

  → floor    a bare poll(2) on /proc/self/mountinfo (link-…: a bare netlink socket): the fastest possible
             observer on this kernel and machine
  → watcher  the event from list_and_watch() of the library
  → list     the arrival of the first list with (del: without) the name at a client of the daemon on the bus

`ratio` is the p50 of a row divided by the p50 of the floor in the same situation. `missed` is the number of
changes that were not seen within 5 s. `lists/s` is the number of lists per second in a burst, from the
mean interval between two lists; with several bursts, the maximum. Operations in one lab are at least
100 ms apart, bursts 3 s.

Situations:
  present     the netns directory exists
  fresh       the netns directory does not exist, as after boot; the first `ip netns add` creates it
  recreated   the measured add removes and recreates the directory immediately before
  others200   200 other namespaces exist (with their loopback links only)
  others1000  1000 other namespaces exist
  link        a veth is created, brought up and deleted inside a named namespace
  iproute2    the real `ip netns add` and `del`
  burst1000   1000 namespaces are created, and later deleted, as fast as one process can; one trial for each
              20 of --trials
  sequence    ten changes 5 ms apart, without waiting for the list: five times, a namespace is deleted and
              another one created
  degraded    no inotify: its limits are 0 in a private user namespace; the mount table still notifies
  silent      no notification: the mount table cannot be polled either, so that the sweep of each second
              finds the change; one trial for each 10 of --trials, distributed over the phases of the sweep
  process     a program in a network namespace without a name (unshare --net), with --process-namespaces, in
              the network namespace of the machine, where the kernel announces new processes
  unannounced the same in another network namespace: without an announcement the sweep of each second finds
              the program; one trial for each 10 of --trials, distributed over the phases of the sweep
  moved       the same, but a link is moved to the program immediately, and the kernel announces this
  docker      a container of dockerd on its default network, until its link is listed, or no longer listed
              after its end; one trial for each 10 of --trials
  podman      the same for a container of podman

--svg draws the cumulative distribution of every situation at the client, and the figures of the released
backend. --baseline prints p50 and p99 of both runs, their ratios, and differences between the runs. It
never changes the exit status; only --check does.

The JSON of --json is one object:
  schema       1; changes if the meaning of a member changes
  date_unix_s  the end of the run
  machine      kernel, cpus, cpu, memory_kib, load (1, 5 and 15 minutes, at the start)
  options      trials, situations, many (1000), command (the arguments of this program)
  rows         situation, op, observer (the `list` of the table is `client`), n (trials in which everything
               was seen), missed (namespaces or links), p50_ns, p90_ns, p99_ns, max_ns, ratio, lists_per_s
               (null except for bursts; without the ten lists that may be published immediately),
               samples_ns (in the order of the trials)

Exit status: 0 measured (and within the limits), 1 a limit is exceeded, 2 could not measure, 130
interrupted.

Needs root, a built tcgui-backend next to this program (scripts/netns-latency.sh provides both), and a
quiet machine. Changes nothing outside its private mount and network namespaces.";

/// Measure the time until a change of a network namespace is known to a bare poll (the floor), to the
/// watcher, and to a client of the running daemon.
#[derive(Debug, Parser)]
#[command(name = "netns-latency", after_help = MORE)]
pub(crate) struct Arguments {
    /// Set the number of measurements of each operation in each situation.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) trials: u32,

    /// Measure these situations, separated by commas
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', value_enum, hide_possible_values = true,
        default_values_t = Situation::ALL)]
    pub(crate) situations: Vec<Situation>,

    /// Write all figures and samples to a file, see below.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Compare with thresholds.json, print each exceeded limit, and fail if there is one.
    ///
    /// `ratios` checks only missed changes and ratios to the floor, for machines on which times vary too much.
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pub(crate) check: Option<Check>,

    /// Draw the cumulative distributions.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Write tables for a document: machine, date, command, and the main figures.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,

    /// Compare with an earlier JSON, row by row.
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,

    /// Print, check, draw and compare the figures of an earlier JSON without a measurement.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trials", "situations", "json"])]
    pub(crate) from: Option<PathBuf>,

    /// The number of namespaces that stands for a thousand, for the tests of this program.
    #[arg(long, hide = true, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) many: u32,

    /// The role of this process in a lab. The program sets it for its own child processes.
    #[arg(long, hide = true)]
    pub(crate) role: Option<Role>,

    /// The doorbells that exist there; the program sets it for its own child processes.
    #[arg(long, hide = true, default_value = "usual")]
    pub(crate) surroundings: Surroundings,
}

/// The limits that `--check` compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// All of them.
    All,
    /// Only those that also hold on a busy machine.
    Ratios,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn everything_is_measured_by_default() {
        let arguments = parse("netns-latency").unwrap();
        assert_eq!(arguments.trials, 200);
        assert_eq!(arguments.situations, Situation::ALL);
        assert_eq!(arguments.check, None);
    }

    #[test]
    fn check_takes_an_optional_value() {
        let check = |line| parse(line).unwrap().check;
        assert_eq!(check("netns-latency --check"), Some(Check::All));
        assert_eq!(check("netns-latency --check=ratios"), Some(Check::Ratios));
        assert_eq!(check("netns-latency --check --trials 5"), Some(Check::All));
    }

    #[test]
    fn situations_are_separated_by_commas() {
        let arguments = parse("netns-latency --situations fresh,others200").unwrap();
        assert_eq!(
            arguments.situations,
            [Situation::Fresh, Situation::Others200]
        );
    }

    #[test]
    fn invalid_arguments_are_refused() {
        for line in [
            "--trials 0",
            "--situations absent",
            "--check=some",
            "--from then.json --trials 3",
            "extra",
        ] {
            assert!(
                parse(&format!("netns-latency {line}")).is_err(),
                "{line} was taken"
            );
        }
    }
}
