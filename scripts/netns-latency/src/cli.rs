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
Time zero of a row is the moment just before mount() (add) or umount2() (del), just before the netlink
request (link-…, moved), when /proc shows that the program is elsewhere, or just before it is killed
(process, unannounced), what the event `start` or `die` of the engine says, and for `iproute2` the return of the real `ip netns add` or `del`: the namespace has
been there for a while by then, so those times may be negative. Of a burst it is that of the last one, and
the time is until all of it were seen.

  → floor    a bare poll(2) on /proc/self/mountinfo (link-…: a bare netlink socket): the fastest that can
             be had on this kernel and machine
  → watcher  the event out of the library's list_and_watch()
  → list     the arrival of the first list with (del: without) the name at a client of the daemon on the bus

`ratio` is a row's p50 to the p50 of the floor in the same situation. `missed` was not seen within 5 s.
`lists/s` is how many lists a burst caused in a second, by the mean time between two of them; of several
bursts the most. Operations in one lab are at least 100 ms apart, bursts 3 s.

Situations:
  present     the netns directory is there
  fresh       it is not, as on a fresh boot: the first `ip netns add` makes it
  recreated   it is removed and made anew in one breath by the add that is measured
  others200   200 other namespaces exist (with their loopback links only)
  others1000  1000 of them
  link        a veth made, brought up and deleted inside a named namespace
  iproute2    the real `ip netns add` and `del`
  burst1000   1000 made, and later removed, as fast as one process can; one trial for each 20 asked for
  sequence    ten changes 5 ms apart, whether or not the one before was seen: five times, a namespace is
              deleted and another one made
  degraded    no inotify: its limits are 0 in a user namespace of the lab's own; the mount table rings
  silent      nothing rings: the mount table cannot be polled either, and all is found by sweeps, once a
              second; one trial for each 10 asked for, in all phases of the sweeps
  process     a program in a network namespace without a name (unshare --net), with --process-namespaces,
              in the machine's network namespace, where the kernel announces new processes
  unannounced the same elsewhere: nothing tells of the program before a sweep, which comes once a second;
              one trial for each 10 asked for, in all phases of the sweeps
  moved       the same, but a link moves to the program at once, of which the kernel tells
  docker      a container of dockerd on its usual network, and its end, until its link is (not) listed; one
              trial for each 10 asked for, as for
  podman      a container of podman

The picture of --svg shows the cumulative distribution of every situation, seen by the client, and what
the released backend needed. --baseline prints p50 and p99 of then and now and their ratios, and says
what differs or is missing; it never changes the exit status, which --check alone decides.

The JSON of --json is one object:
  schema       1; another number when members change their meaning
  date_unix_s  when the run ended
  machine      kernel, cpus, cpu, memory_kib, load (1, 5 and 15 minutes, at the start)
  options      trials, situations, many (1000), command (the arguments of this program)
  rows         situation, op, observer (the `list` of the table is `client`), n (trials in which all was
               seen), missed (namespaces or links), p50_ns, p90_ns, p99_ns, max_ns, ratio, lists_per_s
               (null but for bursts; without the ten lists that may follow at once), samples_ns (in the order of the trials)

Exit status: 0 measured (and within the limits), 1 a limit is exceeded, 2 could not measure, 130
interrupted.

Needs root, a built tcgui-backend beside this program (scripts/netns-latency.sh sees to both), and a
quiet machine. Nothing outside its own mount and network namespaces is touched.";

/// Measures how long a network namespace takes to be known: by the kernel's floor, by the watcher, and
/// by a client of the running daemon.
#[derive(Debug, Parser)]
#[command(name = "netns-latency", after_help = MORE)]
pub(crate) struct Arguments {
    /// How often each operation is measured in each situation.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) trials: u32,

    /// The situations to measure, separated by commas
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', value_enum, hide_possible_values = true,
        default_values_t = Situation::ALL)]
    pub(crate) situations: Vec<Situation>,

    /// Writes all figures and samples to a file, see below.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Compares with thresholds.json and fails, naming each limit that is exceeded.
    ///
    /// `ratios` looks only at what was missed and at ratios to the floor, for machines too noisy for
    /// times.
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pub(crate) check: Option<Check>,

    /// Draws the cumulative distributions.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Writes tables for a document: machine, date, command, and the figures that matter.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,

    /// Compares with an earlier JSON, row by row.
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,

    /// Measures nothing: prints, checks, draws and compares the figures of an earlier JSON.
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
