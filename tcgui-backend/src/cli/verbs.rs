//! The verbs that talk to a running daemon.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::examples::{
    APPLY_EXAMPLES, BACKENDS_EXAMPLES, CLEAR_EXAMPLES, CONFIRM_EXAMPLES, DIAGNOSE_EXAMPLES,
    DOWN_EXAMPLES, PRESET_EXAMPLES, RUN_EXAMPLES, SCENARIO_EXAMPLES, SHOW_EXAMPLES, UP_EXAMPLES,
    WAIT_FOR_EXAMPLES,
};
use super::netem::NetemArgs;
use super::target::Target;
use super::values;

/// What is asked of a running daemon.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Verb {
    /// Impair interfaces: delay, loss, rate and more
    ///
    /// States the complete impairment: parameters that are not given are off. --change keeps the others.
    #[command(after_help = APPLY_EXAMPLES)]
    Apply(Box<ApplyArgs>),
    /// Remove the impairment from interfaces
    ///
    /// An interface without an impairment is not an error.
    #[command(after_help = CLEAR_EXAMPLES)]
    Clear(ClearArgs),
    /// Keep an impairment that was applied with --confirm-within
    #[command(after_help = CONFIRM_EXAMPLES)]
    Confirm(TargetsArgs),
    /// Switch interfaces on
    #[command(after_help = UP_EXAMPLES)]
    Up(TargetsArgs),
    /// Switch interfaces off
    #[command(after_help = DOWN_EXAMPLES)]
    Down(TargetsArgs),
    /// Show what is in force, until when, and who set it
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Check link, reachability and latency of an interface, from inside its namespace
    #[command(after_help = DIAGNOSE_EXAMPLES)]
    Diagnose(DiagnoseArgs),
    /// List, start and stop scenarios: sequences of impairments
    #[command(subcommand, after_help = SCENARIO_EXAMPLES)]
    Scenario(ScenarioVerb),
    /// List presets: impairments with a name
    #[command(subcommand, after_help = PRESET_EXAMPLES)]
    Preset(PresetVerb),
    /// Run a command while an interface is impaired
    ///
    /// The impairment ends when the command ends, and what was there before is restored. It has a short time to live
    /// that is renewed meanwhile, so it also ends if this program is killed. Signals are passed on to the command.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Wait until a condition holds
    #[command(after_help = WAIT_FOR_EXAMPLES)]
    WaitFor(WaitForArgs),
    /// List the daemons on the bus
    #[command(after_help = BACKENDS_EXAMPLES)]
    Backends(BackendsArgs),
    /// Print the completions for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages to a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

/// How to reach the daemon, and how to print what it says.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Daemon and output")]
pub struct ClientArgs {
    /// Ask the daemon of this name [default: the only one on the bus]
    #[arg(short, long, value_name = "NAME", env = "TCGUI_BACKEND_NAME")]
    pub backend: Option<String>,

    /// Connect to this endpoint [default: tcp/127.0.0.1:7447]
    #[arg(long, value_name = "ENDPOINT", env = "TCGUI_CONNECT")]
    pub connect: Option<String>,

    /// Give up the connection or an answer of the daemon after this time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::period)]
    pub timeout: Duration,

    /// Print in this format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,

    /// Print JSON, as with --format json [default: a table]
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Print no progress and no notes [default: print them]
    #[arg(short, long)]
    pub quiet: bool,
}

impl ClientArgs {
    /// Returns the format of the output.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// A format of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people. It may change
    Table,
    /// One JSON document
    Json,
    /// One JSON document on each line
    Ndjson,
}

/// The targets of a verb.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Targets {
    /// Interfaces: NAMESPACE/INTERFACE, or INTERFACE of the host's namespace, with * for any text in either part
    #[arg(value_name = "TARGET", required = true)]
    pub targets: Vec<Target>,
}

/// A verb that has only targets.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct TargetsArgs {
    /// Where
    #[command(flatten)]
    pub on: Targets,
    /// Which daemon
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What to apply, and where.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ApplyArgs {
    /// Where
    #[command(flatten)]
    pub on: Targets,

    /// Keep the parameters that are in force and not given [default: switch them off]. The queue limit is chosen again if
    /// a time or a rate changes
    #[arg(long, conflicts_with_all = ["preset", "file"])]
    pub change: bool,

    /// Restore what was there before after this time, for example 10m [default: that of the daemon, or never]
    #[arg(long, value_name = "TIME", value_parser = values::period)]
    pub ttl: Option<Duration>,

    /// Restore what was there before after this time, unless `confirm` is run [default: no confirmation is needed]
    #[arg(long, value_name = "TIME", value_parser = values::period)]
    pub confirm_within: Option<Duration>,

    /// Check values and targets and print what would be applied, and change nothing [default: apply it]
    #[arg(long)]
    pub dry_run: bool,

    /// Wait this long for a target that does not exist yet [default: fail at once]
    #[arg(long, value_name = "TIME", value_parser = values::period)]
    pub wait: Option<Duration>,

    /// Which daemon
    #[command(flatten)]
    pub client: ClientArgs,

    /// What
    #[command(flatten)]
    pub netem: NetemArgs,
}

/// What to clear.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ClearArgs {
    /// Interfaces: NAMESPACE/INTERFACE, or INTERFACE of the host's namespace, with * for any text in either part
    /// [default: none, then --all is needed]
    #[arg(value_name = "TARGET", required_unless_present = "all")]
    pub targets: Vec<Target>,

    /// Clear all interfaces of the daemon [default: only the targets]
    #[arg(long, conflicts_with = "targets")]
    pub all: bool,

    /// Which daemon
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What to show.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ShowArgs {
    /// Interfaces: NAMESPACE/INTERFACE, or INTERFACE of the host's namespace, with * for any text in either part
    /// [default: all]
    #[arg(value_name = "TARGET")]
    pub targets: Vec<Target>,

    /// Show only interfaces with an impairment or a scenario [default: all]
    #[arg(short, long)]
    pub impaired: bool,

    /// Print again whenever something changes, until it is interrupted [default: print once]
    #[arg(short, long)]
    pub watch: bool,

    /// Add rates and counters [default: leave them out]. Waits for the next sample of the daemon, usually up to 2 s
    #[arg(short, long, conflicts_with = "watch")]
    pub stats: bool,

    /// Which daemon
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What to check.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct DiagnoseArgs {
    /// The interface: NAMESPACE/INTERFACE, or INTERFACE of the host's namespace
    #[arg(value_name = "TARGET")]
    pub target: Target,

    /// Send echo requests to this IP address [default: the gateway on the interface]
    #[arg(long, value_name = "ADDRESS")]
    pub to: Option<String>,

    /// Which daemon
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What to do with scenarios.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum ScenarioVerb {
    /// List the scenarios of the daemon, and the files that it could not read
    List(BackendArgs),
    /// Show the steps of a scenario
    Show(IdArgs),
    /// Store the scenario in a JSON5 file, or in standard input with -
    Add(FileArgs),
    /// Remove a stored scenario
    Remove(IdArgs),
    /// Start a scenario on interfaces
    Start(StartArgs),
    /// Stop the scenario on interfaces and restore what was there before
    Stop(TargetsArgs),
    /// Hold the scenario on interfaces at its step
    Pause(TargetsArgs),
    /// Go on with the scenario on interfaces
    Resume(TargetsArgs),
    /// Show the scenarios that run
    Status(StatusArgs),
}

/// What to do with presets.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum PresetVerb {
    /// List the presets of the daemon
    List(BackendArgs),
    /// Show the values of a preset
    Show(IdArgs),
}

/// Nothing but a daemon.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct BackendArgs {
    /// Which daemon
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Which preset or scenario.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct IdArgs {
    /// Its id, as `list` prints it
    #[arg(value_name = "ID")]
    pub id: String,

    /// Which daemon
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Which file.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct FileArgs {
    /// The file, or - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Replace a stored scenario of the same id [default: refuse]
    #[arg(long)]
    pub replace: bool,

    /// Which daemon
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Which scenario to start, and where.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct StartArgs {
    /// The id of the scenario, as `scenario list` prints it
    #[arg(value_name = "ID")]
    pub id: String,

    /// Where
    #[command(flatten)]
    pub on: Targets,

    /// Start over after the last step, until it is stopped [default: as the scenario says]
    #[arg(long = "loop")]
    pub repeat: bool,

    /// Wait until it ends, and show its steps on a terminal [default: return after the start]
    #[arg(long)]
    pub wait: bool,

    /// Which daemon
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Which executions to show.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct StatusArgs {
    /// Interfaces: NAMESPACE/INTERFACE, or INTERFACE of the host's namespace, with * for any text in either part
    /// [default: all]
    #[arg(value_name = "TARGET")]
    pub targets: Vec<Target>,

    /// Which daemon
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What to run, and how to impair meanwhile.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct RunArgs {
    /// Where
    #[command(flatten)]
    pub on: Targets,

    /// Restore what was there before this long after this program was killed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::period)]
    pub ttl: Duration,

    /// Wait this long for a target that does not exist yet [default: fail at once]
    #[arg(long, value_name = "TIME", value_parser = values::period)]
    pub wait: Option<Duration>,

    /// The command with its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    /// Which daemon
    #[command(flatten)]
    pub client: ClientArgs,

    /// What
    #[command(flatten)]
    pub netem: NetemArgs,
}

/// For what to wait.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct WaitForArgs {
    /// The condition
    #[command(subcommand)]
    pub condition: Condition,
}

/// A condition that may hold later.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Condition {
    /// Wait until a namespace is listed
    Namespace {
        /// Its name, as `namespaces` prints it
        #[arg(value_name = "NAMESPACE")]
        name: String,
        /// For how long
        #[command(flatten)]
        limit: WaitLimit,
    },
    /// Wait until an interface is listed
    Interface {
        /// The interface: NAMESPACE/INTERFACE, or INTERFACE of the host's namespace
        #[arg(value_name = "TARGET")]
        target: Target,
        /// For how long
        #[command(flatten)]
        limit: WaitLimit,
    },
    /// Wait until an interface has no impairment
    Clear {
        /// The interface: NAMESPACE/INTERFACE, or INTERFACE of the host's namespace
        #[arg(value_name = "TARGET")]
        target: Target,
        /// For how long
        #[command(flatten)]
        limit: WaitLimit,
    },
    /// Wait until no scenario runs on an interface
    Scenario {
        /// The interface: NAMESPACE/INTERFACE, or INTERFACE of the host's namespace
        #[arg(value_name = "TARGET")]
        target: Target,
        /// For how long
        #[command(flatten)]
        limit: WaitLimit,
    },
}

/// How long to wait, and for which daemon.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct WaitLimit {
    /// Ask the daemon of this name [default: the only one on the bus]
    #[arg(short, long, value_name = "NAME", env = "TCGUI_BACKEND_NAME")]
    pub backend: Option<String>,

    /// Connect to this endpoint [default: tcp/127.0.0.1:7447]
    #[arg(long, value_name = "ENDPOINT", env = "TCGUI_CONNECT")]
    pub connect: Option<String>,

    /// Give up after this time, with exit status 6
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::period)]
    pub timeout: Duration,

    /// Print no progress [default: print it on a terminal]
    #[arg(short, long)]
    pub quiet: bool,
}

/// Which daemons to list.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct BackendsArgs {
    /// Which daemons
    #[command(flatten)]
    pub client: ClientArgs,
}
