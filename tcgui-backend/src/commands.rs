//! The commands other than the daemon: one module for each command, and their common parts.

mod check;
mod config_values;
mod doctor;
mod explain;
mod namespaces;
mod restore;
mod verbs;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tcgui_backend::cli::{Args, Command, ReachArgs};
use tcgui_backend::client::{Client, OPEN_TIMEOUT};
use tcgui_backend::config::{self, Loaded};
use tcgui_backend::containers::ContainersConfig;
use tcgui_backend::error::chain;
use tcgui_backend::kernel::process;
use tcgui_backend::listing::printable;
use tcgui_backend::namespace_watcher::WatchConfig;
use tcgui_backend::telemetry;
use tracing::error;

/// Exit status for failures of commands whose status 1 is a result.
const TROUBLE: u8 = 2;
/// The longest message to standard error, in bytes. Parts of it may come from other processes on the bus.
const LONGEST: usize = 2000;
/// How long the command waits for the liveliness tokens of daemons.
const PRESENCE: Duration = Duration::from_secs(1);

/// Executes a command and returns the exit status.
pub(crate) fn run(command: Command, loaded: Loaded) -> ExitCode {
    // Verbs have their own options.
    if matches!(
        command,
        Command::Restore(_) | Command::Explain(_) | Command::Namespaces(_) | Command::Doctor
    ) {
        config_values::warn(&loaded);
    }
    let args = loaded.args.clone();
    let asks = matches!(
        command,
        Command::Explain(_) | Command::Namespaces(_) | Command::Doctor | Command::Verb(_)
    );
    if asks {
        // The command prints the error. Log messages of the bus would only repeat it.
        telemetry::start_quietly(args.verbose);
    } else {
        telemetry::start(args.verbose);
    }
    let done = match command {
        Command::Verb(verb) => return verbs::run(verb),
        Command::Check { files } if files.is_empty() => config_values::check(loaded),
        Command::Check { files } => check::run(args, &files),
        Command::Doctor => doctor::run(args),
        Command::Config => config_values::run(loaded),
        Command::Restore(command) => restore::run(command, args),
        Command::Namespaces(command) => {
            namespaces::run(&command, Reach::new(&command.reach, &args))
        }
        Command::Explain(command) => {
            let reach = Reach::new(&command.reach, &args);
            let backend = command.backend.as_deref().unwrap_or(&args.name);
            explain::run(&command, backend, reach)
        }
    };
    done.unwrap_or_else(|err| {
        if asks {
            tell(&format!("error: {}", chain(err.as_ref())));
            return ExitCode::from(TROUBLE);
        }
        error!(error = %chain(err.as_ref()), "stopped");
        ExitCode::FAILURE
    })
}

/// The endpoint to ask, and the options of a scan if no daemon responds.
#[derive(Debug)]
struct Reach {
    endpoint: String,
    watch: WatchConfig,
    containers: Option<ContainersConfig>,
    processes: bool,
}

impl Reach {
    /// Options that the command does not have are taken from the daemon's options before the command.
    fn new(own: &ReachArgs, daemon: &Args) -> Self {
        let before = daemon.zenoh_connect.as_deref();
        let before = before.and_then(|list| list.split(',').next());
        let endpoint = own.connect.as_deref().or(before.map(str::trim));
        let directory = own.netns_dir.as_ref().unwrap_or(&daemon.netns_dir);
        Self {
            endpoint: endpoint.unwrap_or(config::DEFAULT_LISTEN).to_owned(),
            watch: WatchConfig {
                directory: directory.clone(),
                ..WatchConfig::default()
            },
            containers: config::containers(daemon),
            processes: daemon.process_namespaces,
        }
    }
}

/// Fails if a capability that the daemon and `restore` need is missing.
pub(crate) fn check_capabilities() -> anyhow::Result<()> {
    let missing = process::missing_capabilities().context("cannot read own capabilities")?;
    if !missing.is_empty() {
        bail!(
            "missing {}: run tcgui-backend as root, or grant them in the service unit \
             (AmbientCapabilities=)",
            missing.join(", ")
        );
    }
    Ok(())
}

/// Prints a message to standard error.
fn tell(text: &str) {
    let text: String = printable(text).chars().take(LONGEST).collect();
    // Standard error may be closed.
    writeln!(io::stderr(), "tcgui-backend: {text}").ok();
}

/// Runs a command that waits for the bus or the kernel.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // Zenoh needs more than one thread.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

/// Joins the bus. Returns the present backends (only `wanted`, if given), or the reason why none can be queried.
async fn find_daemons(
    endpoint: &str,
    wanted: Option<&str>,
) -> anyhow::Result<Result<(Client, Vec<String>), String>> {
    config::check_endpoint(endpoint).context("--connect")?;
    let client = match Client::connect(endpoint, OPEN_TIMEOUT).await {
        Ok(client) => client,
        Err(_) => return Ok(Err(format!("no daemon answers at {endpoint}"))),
    };
    let present = client.backends(PRESENCE).await?;
    let found: Vec<_> = present
        .iter()
        .filter(|name| wanted.is_none_or(|wanted| wanted == name.as_str()))
        .cloned()
        .collect();
    if !found.is_empty() {
        return Ok(Ok((client, found)));
    }
    client.close().await;
    let others: Vec<_> = present.into_iter().collect();
    Ok(Err(match (wanted, others.is_empty()) {
        (Some(wanted), false) => format!(
            "no daemon named {wanted:?} answers at {endpoint} (there is {})",
            others.join(", ")
        ),
        _ => format!("no daemon answers at {endpoint}"),
    }))
}

/// Prints a text. Returns whether standard output is still open.
fn print(text: &str) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.context("cannot print").map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// Returns the endpoint and the directory of a command line.
    fn reach(line: &[&str]) -> (String, String) {
        let args = Args::parse_from(["tcgui-backend"].iter().chain(line));
        let Some(Command::Explain(command)) = &args.command else {
            panic!("{args:?}")
        };
        let reach = Reach::new(&command.reach, &args);
        let directory = reach.watch.directory.to_string_lossy().into_owned();
        (reach.endpoint, directory)
    }

    #[test]
    fn the_daemons_options_hold_where_the_command_has_none() {
        let defaults = ("tcp/127.0.0.1:7447".to_owned(), "/run/netns".to_owned());
        assert_eq!(reach(&["explain", "x"]), defaults);
        let before = ["--zenoh-connect", "tcp/a:1,tcp/b:2", "--netns-dir", "/n"];
        let expected = ("tcp/a:1".to_owned(), "/n".to_owned());
        assert_eq!(reach(&[&before[..], &["explain", "x"]].concat()), expected);
        let after = ["explain", "x", "--connect", "tcp/c:3", "--netns-dir", "/m"];
        let expected = ("tcp/c:3".to_owned(), "/m".to_owned());
        assert_eq!(reach(&[&before[..], &after].concat()), expected);
    }
}
