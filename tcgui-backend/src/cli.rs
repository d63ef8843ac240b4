//! The command line, compatible with released versions. `config` checks the values.

mod examples;
pub mod netem;
pub mod target;
pub mod values;
pub mod verbs;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::lease::terms::LONGEST_TTL;
use crate::policy::{Pattern, Protect};
use verbs::Verb;

/// Impair network interfaces with the kernel's netem, for graphical frontends on the Zenoh bus.
///
/// The daemon discovers every network namespace of this host and its interfaces. It publishes them to all connected
/// frontends and changes interfaces on their request.
#[derive(Debug, Clone, Parser)]
#[command(name = "tcgui-backend", version, after_help = EXAMPLES)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub struct Args {
    /// Run a command instead of the daemon
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Read this configuration file, and then *.toml in the directory of the same name with the ending '.d'
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    pub config: PathBuf,

    /// Ignore configuration files [default: read them]
    #[arg(long, conflicts_with = "config")]
    pub no_config: bool,

    /// Enable debug messages in the log [default: off]. RUST_LOG selects in more detail
    #[arg(short, long)]
    pub verbose: bool,

    /// Hide loopback interfaces in every namespace [default: show them]
    #[arg(long)]
    pub exclude_loopback: bool,

    /// Set the name of this backend on the bus: letters, digits, '-' and '_'
    #[arg(short, long, value_name = "BACKEND_NAME", default_value = "default")]
    pub name: String,

    /// Select how the daemon joins the bus
    #[arg(long, value_enum, default_value_t = ZenohMode::Peer)]
    pub zenoh_mode: ZenohMode,

    /// Connect to these endpoints, separated by commas, for example tcp/192.0.2.7:7447 [default: none]
    #[arg(long, value_name = "ENDPOINTS")]
    pub zenoh_connect: Option<String>,

    /// Listen on these endpoints, separated by commas, and on tcp/127.0.0.1:7447 [default: only the latter]. An
    /// endpoint that includes that address replaces it, for example tcp/0.0.0.0:7447
    #[arg(long, value_name = "ENDPOINTS")]
    pub zenoh_listen: Option<String>,

    /// Use this certificate with its chain (PEM) for tls/ and quic/ endpoints [default: none]
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Use this private key (PEM) of --tls-cert [default: none]
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Require certificates of these authorities (PEM) from clients of tls/ and quic/ endpoints. Also accept these
    /// authorities for routers [default: no certificate required]
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Ignore multicast scouting [default: answer it]
    #[arg(long)]
    pub no_multicast: bool,

    /// Read scenario files (*.json5) from this directory too; may be repeated, later ones take precedence
    /// [default: none]
    #[arg(long, value_name = "DIRECTORY")]
    pub scenario_dir: Vec<PathBuf>,

    /// Skip the default scenario directories: /usr/share/tcgui/scenarios, ~/.config/tcgui/scenarios, ./scenarios
    /// [default: read them]. Built-in scenarios stay
    #[arg(long)]
    pub no_default_scenarios: bool,

    /// Read preset files (*.json5) from this directory too; may be repeated, later ones take precedence
    /// [default: none]
    #[arg(long, value_name = "DIRECTORY")]
    pub preset_dir: Vec<PathBuf>,

    /// Skip the default preset directories: /usr/share/tcgui/presets, ~/.config/tcgui/presets, ./presets
    /// [default: read them]. Built-in presets stay
    #[arg(long)]
    pub no_default_presets: bool,

    /// Store crash-recovery records and the scenarios of frontends in this directory
    #[arg(long, value_name = "DIRECTORY", default_value = STATE_DIR)]
    pub state_dir: PathBuf,

    /// Find named network namespaces in this directory, which may appear later
    #[arg(long, value_name = "DIRECTORY", default_value = "/run/netns")]
    pub netns_dir: PathBuf,

    /// Create the directory of --netns-dir at the start if it is missing [default: wait for it]
    #[arg(long)]
    pub create_netns_dir: bool,

    /// Read interfaces over two sockets inside each namespace, instead of by namespace id [default: only if the kernel
    /// refuses ids or a private namespace]
    #[arg(long)]
    pub no_namespace_ids: bool,

    /// Follow the container engine at this socket too; may be repeated [default: the usual sockets of Docker and Podman,
    /// DOCKER_HOST and CONTAINER_HOST]
    #[arg(long, value_name = "PATH", conflicts_with = "no_containers")]
    pub container_socket: Vec<PathBuf>,

    /// Ignore containers and their engines [default: follow them]
    #[arg(long)]
    pub no_containers: bool,

    /// Show namespaces without a name too, under the oldest process in each [default: hide them]. Processes of other
    /// users need CAP_SYS_PTRACE
    #[arg(long)]
    pub process_namespaces: bool,

    /// Replace root qdiscs of other programs: other kinds than netem, and netems with children [default: refuse]. A
    /// replaced qdisc is not restored
    #[arg(long)]
    pub replace_foreign_qdiscs: bool,

    /// Refuse every change [default: permit what --allow and --protect permit]
    #[arg(long)]
    pub read_only: bool,

    /// Change only interfaces that match NAMESPACE/INTERFACE, with '*' for any text, for example 'lab*/eth0'; may be
    /// repeated [default: all interfaces]
    #[arg(long, value_name = "PATTERN")]
    pub allow: Vec<Pattern>,

    /// Never change interfaces that match NAMESPACE/INTERFACE; may be repeated. Takes precedence over --allow. By
    /// default, 'lo' of the host and interfaces with a default route of the host cannot be switched off. 'none' permits
    /// that
    #[arg(long, value_name = "PATTERN")]
    pub protect: Vec<Protect>,

    /// Set the lifetime of changes that do not set one, for example 1h [default: no end]
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    pub default_ttl: Option<Duration>,

    /// Keep the changes of running scenarios at exit [default: restore the interfaces]
    #[arg(long)]
    pub keep_on_exit: bool,

    /// Set the interval of full scans while change notification works, and of lists of containers
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = interval)]
    pub sweep_interval: Duration,

    /// Set the interval of full scans while change notification is unavailable (for example at an inotify limit)
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub degraded_sweep_interval: Duration,

    /// Set the interval of counters and rates, at least 100ms
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = bandwidth_interval)]
    pub bandwidth_interval: Duration,
}

/// What the program does besides being a daemon.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Command {
    /// Ask a running daemon
    #[command(flatten)]
    Verb(Verb),
    /// Check configuration, preset and scenario files
    ///
    /// Needs no privileges and no daemon. Prints one line for each file. An error has the form
    /// FILE:LINE:COLUMN: error: MESSAGE. Scenarios may name built-in presets, presets of the other files, and presets of
    /// the preset directories (--preset-dir before `check`).
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// Check these configuration files (*.toml), and preset and scenario files (JSON5), in any order [default: the
        /// configuration with which the daemon would start]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Check this machine: kernel modules, capabilities, limits, mounts, sockets, endpoints, directories and the clock
    ///
    /// Prints one line for each check: ok, warning or FAULT, and the remedy. Changes nothing. Checks for a daemon with the
    /// options that stand before `doctor`.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor,

    /// Print the value of each option of the daemon, and where it comes from
    ///
    /// Prints what a daemon would use that is started now with the same options before `config` and the same
    /// environment. The output is a configuration file.
    #[command(after_help = CONFIG_EXAMPLES)]
    Config,
    /// Restore interfaces whose impairment has ended while no daemon was running
    ///
    /// The daemon does the same at its start. A change is undone if it has expired, was not confirmed in time or belonged
    /// to a scenario, unless another program has changed the interface since. The daemon must not run. Needs root.
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(RestoreArgs),
    /// List network namespaces and their interfaces, or follow changes
    ///
    /// Asks the running daemons. If no daemon responds, the command scans this host and says so.
    #[command(after_help = NAMESPACES_EXAMPLES)]
    Namespaces(NamespacesArgs),
    /// Explain why a network namespace is listed or not
    ///
    /// Asks the running daemon for what it knows about the name: the entry and its mount, each source of notifications
    /// (doorbell) and its last notification, and limits or capabilities that are too small. If no daemon responds, the
    /// command scans this host with the options that stand before `explain`, and says so.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct NamespacesArgs {
    /// Keep running, and print namespaces that appear (+), change (~) and disappear (-) [default: exit after the list]
    #[arg(short, long)]
    pub watch: bool,

    /// Print one JSON object on each line: the event, the backend, and the namespace as on the bus [default: a table]
    #[arg(long)]
    pub json: bool,

    /// Print only the list of this backend [default: all backends]
    #[arg(short, long, value_name = "BACKEND_NAME")]
    pub backend: Option<String>,

    /// How to reach it
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// What to explain.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ExplainArgs {
    /// Explain this namespace: NAME of /run/netns/NAME, container:NAME, 'pid:PID(PROGRAM)', or 'default' for that of
    /// the host
    #[arg(value_name = "NAME")]
    pub namespace: OsString,

    /// Print the explanation as a JSON object [default: text]
    #[arg(long)]
    pub json: bool,

    /// Ask this backend [default: that of --name before the command, or default]
    #[arg(short, long, value_name = "BACKEND_NAME")]
    pub backend: Option<String>,

    /// How to reach it
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// How to reach a running daemon, or what to scan without one.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ReachArgs {
    /// Connect to this endpoint of the daemon, or of a router that it uses [default: the first of --zenoh-connect before
    /// the command, or tcp/127.0.0.1:7447]
    #[arg(long, value_name = "ENDPOINT")]
    pub connect: Option<String>,

    /// Scan this directory of named network namespaces if no daemon responds [default: that before the command, or
    /// /run/netns]
    #[arg(long, value_name = "DIRECTORY")]
    pub netns_dir: Option<PathBuf>,
}

/// What to restore.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RestoreArgs {
    /// Read leases from this state directory of the daemon [default: that before the command, or /var/lib/tcgui]
    #[arg(long, value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,

    /// Find named network namespaces in this directory [default: that before the command, or /run/netns]
    #[arg(long, value_name = "DIRECTORY")]
    pub netns_dir: Option<PathBuf>,

    /// Restore every lease, also one that has not ended yet [default: only those that have ended]
    #[arg(long)]
    pub all: bool,
}

/// How the daemon joins the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ZenohMode {
    /// Listen for frontends, by default on tcp/127.0.0.1:7447
    Peer,
    /// Listen on no endpoint, and connect to a router or to another backend
    Client,
}

/// Default of `--config`.
const CONFIG_FILE: &str = "/etc/tcgui/backend.toml";
/// Default of `--state-dir`.
const STATE_DIR: &str = "/var/lib/tcgui";

const EXAMPLES: &str = "\
The daemon needs the capabilities CAP_NET_ADMIN, CAP_NET_BROADCAST and CAP_SYS_ADMIN: run it as root. SIGHUP reads
configuration, preset and scenario files again. The daemon also reads the latter two again when they change.

Examples:
  tcgui-backend                                    serve frontends on this host
  tcgui-backend --zenoh-listen tcp/0.0.0.0:7447    serve frontends on all hosts (not authenticated)
  tcgui-backend --name lab2 --state-dir /var/lib/tcgui-lab2 --zenoh-mode client --zenoh-connect tcp/127.0.0.1:7447
                                                   run a second backend on this host
  tcgui-backend check scenarios/*.json5            find errors in scenario files
  tcgui-backend config                             print the options in force and their sources
  tcgui-backend restore --all                      undo every lease while no daemon runs
  tcgui-backend namespaces --watch                 list namespaces, then follow changes
  tcgui-backend explain lab                        explain why 'lab' is listed or not
  tcgui-backend apply lab/eth0 --delay 100ms       impair an interface, through the running daemon
  tcgui-backend show                               show what is in force

Environment:
  TCGUI_…     each option, for example TCGUI_READ_ONLY=true or TCGUI_ALLOW='lab*/*,web/eth0'. Precedence: command line,
              environment, configuration files, defaults. TCGUI_CONFIG sets --config
  RUST_LOG    log filter, for example 'debug' or 'tcgui_backend::namespace_watcher=trace'
  DOCKER_HOST, CONTAINER_HOST
              more sockets of container engines, for example unix:///run/docker.sock

Exit status: 0: stopped by SIGINT or SIGTERM; 1: startup or runtime failure, including an invalid name or endpoint; 2: wrong
usage.";

const CHECK_EXAMPLES: &str = "\
Examples:
  tcgui-backend check                              check the configuration of the daemon
  tcgui-backend check lab2.toml scenarios/*.json5
  tcgui-backend --preset-dir presets check scenarios/*.json5

Exit status: 0: all files are valid; 1: a file is invalid or cannot be read; 2: wrong usage.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  sudo tcgui-backend doctor                        check this machine
  sudo tcgui-backend --state-dir /srv/tcgui doctor
                                                   check it for a daemon with this option
  sudo tcgui-backend doctor | grep -v ^ok          print only what needs a remedy

Exit status: 0: no fault; 1: a fault; 2: wrong usage, or a check cannot be made.";

const CONFIG_EXAMPLES: &str = "\
Examples:
  tcgui-backend config                             print all options
  tcgui-backend config | grep -v default           print the options that are set
  tcgui-backend --config lab2.toml config          print what another file sets

Exit status: 0: the configuration is valid; 1: it is not, and the errors are printed; 2: wrong usage.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  tcgui-backend restore                            undo changes that have ended
  tcgui-backend restore --all                      undo every change that has a lease
  tcgui-backend restore --state-dir /var/lib/tcgui-lab2

Exit status: 0: done; 1: a lease could not be restored, a daemon holds the directory, or it does not exist; 2: wrong usage.";

const NAMESPACES_EXAMPLES: &str = "\
An interface is followed by (down) when it is switched off and by (netem) when it is impaired.

Examples:
  tcgui-backend namespaces                         print a table
  tcgui-backend namespaces --watch                 print a table, then each change
  tcgui-backend namespaces --json | jq -r .namespace.name
  tcgui-backend namespaces --connect tcp/192.0.2.7:7447
                                                   ask a daemon on another host

Exit status: 0: listed; 2: wrong usage, or the list cannot be read.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  tcgui-backend explain lab                        explain /run/netns/lab
  tcgui-backend explain container:web              explain a container
  tcgui-backend explain default                    explain the namespace of the host
  tcgui-backend explain lab --backend lab2 --connect tcp/192.0.2.7:7447
  tcgui-backend explain lab --json | jq -r '.reasons[].code'
  tcgui-backend explain lab >/dev/null && echo listed

Exit status: 0: listed; 1: not listed, and the reason is printed; 2: wrong usage, or the reason cannot be read.";

/// Parses a duration such as `500ms` or `30s`. The lower limit prevents a busy loop.
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
mod tests;
