//! The command line, compatible with released versions; what it means is checked in `config`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::lease::terms::LONGEST_TTL;
use crate::policy::{Pattern, Protect};

/// Impairs network interfaces with the kernel's netem, for graphical frontends on the Zenoh bus.
///
/// Knows every network namespace of this host the moment it becomes usable, shows it with its
/// interfaces to all connected frontends, and changes interfaces when they ask for it.
#[derive(Debug, Parser)]
#[command(name = "tcgui-backend", version, after_help = EXAMPLES)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub struct Args {
    /// What to do instead of running the daemon
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Log what is decided, not only what happened
    #[arg(short, long)]
    pub verbose: bool,

    /// Leave loopback interfaces out, in every namespace
    #[arg(long)]
    pub exclude_loopback: bool,

    /// Name of this backend on the bus: letters, digits, '-' and '_'
    #[arg(short, long, value_name = "BACKEND_NAME", default_value = "default")]
    pub name: String,

    /// How to take part in the bus
    #[arg(long, value_enum, default_value_t = ZenohMode::Peer)]
    pub zenoh_mode: ZenohMode,

    /// Endpoints to connect to, separated by commas, for instance tcp/192.0.2.7:7447
    #[arg(long, value_name = "ENDPOINTS")]
    pub zenoh_connect: Option<String>,

    /// Endpoints to listen on besides tcp/127.0.0.1:7447, separated by commas
    #[arg(long, value_name = "ENDPOINTS")]
    pub zenoh_listen: Option<String>,

    /// Certificate of this backend, with its chain, in PEM format: for tls/ and quic/ endpoints
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert in PEM format
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Accept only certificates that an authority in this file (PEM) has signed: from clients of tls/ and quic/
    /// endpoints, which must show one, and from routers
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Do not answer multicast scouting: only configured endpoints are used
    #[arg(long)]
    pub no_multicast: bool,

    /// Directory with scenario files (*.json5); may be repeated, later ones win
    #[arg(long, value_name = "DIRECTORY")]
    pub scenario_dir: Vec<PathBuf>,

    /// Do not read the default scenario directories: /usr/share/tcgui/scenarios,
    /// ~/.config/tcgui/scenarios, ./scenarios. Built-in scenarios stay
    #[arg(long)]
    pub no_default_scenarios: bool,

    /// Directory with preset files (*.json5); may be repeated, later ones win
    #[arg(long, value_name = "DIRECTORY")]
    pub preset_dir: Vec<PathBuf>,

    /// Do not read the default preset directories: /usr/share/tcgui/presets,
    /// ~/.config/tcgui/presets, ./presets. Built-in presets stay
    #[arg(long)]
    pub no_default_presets: bool,

    /// Where is written what is impaired on condition, to restore it also after a crash, and the scenarios
    /// that frontends add
    #[arg(long, value_name = "DIRECTORY", default_value = STATE_DIR)]
    pub state_dir: PathBuf,

    /// Directory with the named network namespaces; it need not exist yet
    #[arg(long, value_name = "DIRECTORY", default_value = "/run/netns")]
    pub netns_dir: PathBuf,

    /// Create the directory of named namespaces at the start if it is missing
    #[arg(long)]
    pub create_netns_dir: bool,

    /// Enter namespaces instead of asking the kernel for ids of them, as is done where it refuses ids or
    /// a private namespace; keeps two sockets open in each
    #[arg(long)]
    pub no_namespace_ids: bool,

    /// Socket of a container engine, besides those where Docker and Podman listen by default; may be repeated
    #[arg(long, value_name = "PATH", conflicts_with = "no_containers")]
    pub container_socket: Vec<PathBuf>,

    /// Do not look for containers
    #[arg(long)]
    pub no_containers: bool,

    /// Show namespaces that have no name too, by the oldest process in each; CAP_SYS_PTRACE is needed to see
    /// those of other users
    #[arg(long)]
    pub process_namespaces: bool,

    /// Replace root qdiscs that were configured by other means (an htb tree, a netem with children).
    /// Otherwise this is refused. A replaced qdisc is not restored
    #[arg(long)]
    pub replace_foreign_qdiscs: bool,

    /// Refuse every change, whoever asks for it
    #[arg(long)]
    pub read_only: bool,

    /// Change only interfaces that match NAMESPACE/INTERFACE, with '*' for any text, for instance 'lab*/eth0'; may
    /// be repeated. All interfaces by default
    #[arg(long, value_name = "PATTERN")]
    pub allow: Vec<Pattern>,

    /// Never change interfaces that match NAMESPACE/INTERFACE; may be repeated, and counts more than --allow. By
    /// default, only 'lo' of the host and interfaces with a default route of the host are not switched off; 'none'
    /// permits that too
    #[arg(long, value_name = "PATTERN")]
    pub protect: Vec<Protect>,

    /// End every change after this long that does not say itself when it ends, for instance 1h
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    pub default_ttl: Option<Duration>,

    /// Leave what scenarios did to interfaces when the daemon stops in order
    #[arg(long)]
    pub keep_on_exit: bool,

    /// How often to look at everything though nothing was announced, and to list containers again
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = interval)]
    pub sweep_interval: Duration,

    /// The same while the kernel cannot announce everything (inotify limits, for instance)
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub degraded_sweep_interval: Duration,

    /// How often to publish counters and rates, at least 100ms
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = bandwidth_interval)]
    pub bandwidth_interval: Duration,
}

/// What the program does besides being a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Say whether files are presets or scenarios that the daemon would load
    ///
    /// Needs no privileges and no daemon. Prints one line for each file, as FILE:LINE:COLUMN: error:
    /// MESSAGE for one that is wrong. Scenarios may name built-in presets, those in the preset
    /// directories (--preset-dir before `check`), and those of the other files. Exit status: 0 all
    /// are good, 1 one is not.
    Check {
        /// Preset and scenario files (JSON5), in any order
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Restore interfaces whose impairment has ended while no daemon was running
    ///
    /// The daemon does the same at its start. A change is undone if it has expired, was not confirmed in time or belonged
    /// to a scenario, unless the interface was changed by other means since. The daemon must not run.
    Restore(RestoreArgs),
    /// List the network namespaces and their interfaces, or follow them
    ///
    /// Asks the running daemons; where none answers it looks by itself, and says so.
    #[command(after_help = NAMESPACES_EXAMPLES)]
    Namespaces(NamespacesArgs),
    /// Say why a network namespace is listed, or why not
    ///
    /// Asks the running daemon what it knows about the name: the entry and its mount, the doorbells of the daemon and when
    /// they last rang, and limits and capabilities that are too small. If no daemon answers, the command looks for itself,
    /// with the options that it was given, and says so.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct NamespacesArgs {
    /// Go on, and print what appears (+), changes (~) and goes (-)
    #[arg(short, long)]
    pub watch: bool,

    /// Print a JSON object on each line: event, backend, and the namespace as on the bus
    #[arg(long)]
    pub json: bool,

    /// Only what this daemon lists; all of them by default
    #[arg(short, long, value_name = "BACKEND_NAME")]
    pub backend: Option<String>,

    /// How to reach it
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// What to explain.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ExplainArgs {
    /// The namespace: NAME of /run/netns/NAME, container:NAME, 'pid:PID(PROGRAM)', or 'default' for the host's own
    #[arg(value_name = "NAME")]
    pub namespace: OsString,

    /// Print the explanation as a JSON object
    #[arg(long)]
    pub json: bool,

    /// The daemon to ask [default: default]
    #[arg(short, long, value_name = "BACKEND_NAME")]
    pub backend: Option<String>,

    /// How to reach it
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// How to reach a running daemon, or what to look at without one.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ReachArgs {
    /// Endpoint of the daemon, or of one that it is connected to [default: tcp/127.0.0.1:7447]
    #[arg(long, value_name = "ENDPOINT")]
    pub connect: Option<String>,

    /// Directory with the named network namespaces, for when no daemon answers [default: /run/netns]
    #[arg(long, value_name = "DIRECTORY")]
    pub netns_dir: Option<PathBuf>,
}

/// What to restore.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RestoreArgs {
    /// State directory of the daemon [default: that before the command, or /var/lib/tcgui]
    #[arg(long, value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,

    /// Directory with the named network namespaces [default: that before the command, or /run/netns]
    #[arg(long, value_name = "DIRECTORY")]
    pub netns_dir: Option<PathBuf>,

    /// Also what has not ended yet
    #[arg(long)]
    pub all: bool,
}

/// How to take part in the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ZenohMode {
    /// Listen for frontends, by default on tcp/127.0.0.1:7447
    Peer,
    /// Only connect, to a router or to another backend
    Client,
}

/// Where the state is unless told otherwise.
const STATE_DIR: &str = "/var/lib/tcgui";

const EXAMPLES: &str = "\
Needs the capabilities CAP_NET_ADMIN, CAP_NET_BROADCAST and CAP_SYS_ADMIN: run it as root.

Examples:
  tcgui-backend                                    frontends on this host connect by themselves
  tcgui-backend --zenoh-listen tcp/0.0.0.0:7448    frontends on other hosts may connect too
  tcgui-backend --name lab2 --zenoh-mode client --zenoh-connect tcp/127.0.0.1:7447
                                                   a second backend, through the first
  tcgui-backend check scenarios/*.json5            find mistakes before the daemon does
  tcgui-backend restore --all                      after a crash: undo all that was to end
  tcgui-backend namespaces --watch                 what is listed, and what comes and goes
  tcgui-backend explain lab                        why is 'lab' listed, or not?

SIGHUP makes it read presets and scenarios again, which it does by itself when their files change.

Environment:
  RUST_LOG    what to log, for instance 'debug' or 'tcgui_backend::namespace_watcher=trace'
  DOCKER_HOST, CONTAINER_HOST
              sockets of more container engines, as unix:///run/docker.sock

Exit status: 0 stopped by SIGINT or SIGTERM, 1 cannot start or go on, 2 wrong usage.";

const NAMESPACES_EXAMPLES: &str = "\
Examples:
  tcgui-backend namespaces                           a table
  tcgui-backend namespaces --watch                   and what changes, until it is interrupted
  tcgui-backend namespaces --json | jq -r .namespace.name
  tcgui-backend namespaces --connect tcp/192.0.2.7:7448   of the daemons on another host

An interface is followed by (down) when it is switched off and by (netem) when it is impaired.

Exit status: 0 listed, 2 something is wrong.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  tcgui-backend explain lab                          of /run/netns/lab
  tcgui-backend explain container:web
  tcgui-backend explain default                      the host's own namespace
  tcgui-backend explain lab --backend lab2 --connect tcp/192.0.2.7:7447
  tcgui-backend explain lab --json | jq -r '.reasons[].code'
  tcgui-backend explain lab >/dev/null && echo listed

Exit status: 0 listed, 1 not listed (the reason is printed), 2 something is wrong.";

/// Parses a duration like `500ms` or `30s`; zero would be a busy loop.
fn interval(text: &str) -> Result<Duration, String> {
    interval_from(Duration::from_millis(10), text)
}

/// Parses a duration within which a thousand namespaces can be read.
fn bandwidth_interval(text: &str) -> Result<Duration, String> {
    interval_from(Duration::from_millis(100), text)
}

/// Parses a time to live.
fn ttl(text: &str) -> Result<Duration, String> {
    duration_within(Duration::from_millis(1), LONGEST_TTL, text)
}

fn interval_from(shortest: Duration, text: &str) -> Result<Duration, String> {
    duration_within(shortest, Duration::from_secs(24 * 3600), text)
}

fn duration_within(shortest: Duration, longest: Duration, text: &str) -> Result<Duration, String> {
    let format = humantime::format_duration;
    match humantime::parse_duration(text) {
        Ok(duration) if duration < shortest => {
            Err(format!("must be at least {}", format(shortest)))
        }
        Ok(duration) if duration > longest => Err(format!("must be at most {}", format(longest))),
        Ok(duration) => Ok(duration),
        Err(err) => Err(format!("{err}; write for instance 500ms or 30s")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn released_options_are_understood() {
        let args = Args::parse_from([
            "tcgui-backend",
            "-v",
            "--exclude-loopback",
            "-n",
            "lab",
            "--zenoh-mode",
            "client",
            "--zenoh-connect",
            "tcp/127.0.0.1:7447",
            "--no-multicast",
            "--scenario-dir",
            "/a",
            "--scenario-dir",
            "/b",
            "--no-default-scenarios",
            "--preset-dir",
            "/c",
            "--no-default-presets",
        ]);
        assert_eq!(
            (args.name.as_str(), args.zenoh_mode),
            ("lab", ZenohMode::Client)
        );
        assert_eq!(
            args.scenario_dir,
            [PathBuf::from("/a"), PathBuf::from("/b")]
        );
        Args::try_parse_from(["tcgui-backend", "--zenoh-mode", "Peer"]).unwrap_err();
        Args::try_parse_from(["tcgui-backend", "--sweep-interval", "0s"]).unwrap_err();
    }

    #[test]
    fn a_restoration_is_asked_for_by_name() {
        let args = Args::parse_from(["tcgui-backend", "restore", "--all", "--state-dir", "/x"]);
        let Some(Command::Restore(args)) = args.command else {
            panic!("{args:?}");
        };
        assert!(args.all && args.netns_dir.is_none());
        assert_eq!(args.state_dir.as_deref(), Some(Path::new("/x")));
        let daemon = Args::parse_from(["tcgui-backend", "--default-ttl", "1h"]);
        assert!(daemon.command.is_none() && !daemon.keep_on_exit);
        assert_eq!(daemon.default_ttl, Some(Duration::from_secs(3600)));
        for wrong in ["0s", "31days", "soon"] {
            Args::try_parse_from(["tcgui-backend", "--default-ttl", wrong]).unwrap_err();
        }
    }

    #[test]
    fn containers_are_looked_for_or_not() {
        let args = [
            "tcgui-backend",
            "--container-socket",
            "/a",
            "--container-socket",
            "/b",
        ];
        let args = Args::parse_from(args);
        assert_eq!(
            args.container_socket,
            [PathBuf::from("/a"), PathBuf::from("/b")]
        );
        let both = [
            "tcgui-backend",
            "--no-containers",
            "--container-socket",
            "/a",
        ];
        Args::try_parse_from(both).unwrap_err();
    }

    #[test]
    fn questions_have_their_own_options() {
        let args = Args::parse_from(["tcgui-backend", "explain", "--backend", "lab2", "--", "-x"]);
        let Some(Command::Explain(explain)) = args.command else {
            panic!("{args:?}");
        };
        assert_eq!(
            (explain.backend.as_deref(), explain.json),
            (Some("lab2"), false)
        );
        assert_eq!(explain.namespace, "-x");
        let args = Args::parse_from(["tcgui-backend", "namespaces", "-w", "--json"]);
        let Some(Command::Namespaces(listed)) = args.command else {
            panic!("{args:?}");
        };
        assert!(listed.watch && listed.json && listed.backend.is_none());
        assert!(listed.reach.connect.is_none() && listed.reach.netns_dir.is_none());
        Args::try_parse_from(["tcgui-backend", "explain"]).unwrap_err();
    }

    #[test]
    fn the_bandwidth_interval_is_bounded() {
        let given = |value| {
            Args::try_parse_from(["tcgui-backend", "--bandwidth-interval", value])
                .map(|args| args.bandwidth_interval)
        };
        let default = Args::parse_from(["tcgui-backend"]).bandwidth_interval;
        assert_eq!(default, Duration::from_secs(2));
        assert_eq!(given("100ms").unwrap(), Duration::from_millis(100));
        let refusal = |value| given(value).unwrap_err().to_string();
        assert!(refusal("99ms").contains("must be at least 100ms"));
        assert!(refusal("2days").contains("must be at most 1day"));
        assert!(refusal("often").contains("write for instance"));
    }
}
