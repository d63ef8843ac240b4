//! The daemon's binary: arguments → configuration → logs → run → exit status.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use tcgui_backend::backend;
use tcgui_backend::bus;
use tcgui_backend::cli::{Args, Command};
use tcgui_backend::config::Config;
use tcgui_backend::error::chain;
use tcgui_backend::kernel::process;
use tcgui_backend::library::check;
use tcgui_backend::telemetry;
use tracing::{debug, error};

/// Kernel requests still under way when everything else has stopped get this long.
const LAST_REQUESTS: Duration = Duration::from_millis(200);
/// Two keep the watcher and a slow neighbour apart; more would not be busy.
const WORKERS: std::ops::RangeInclusive<usize> = 2..=4;
/// Blocking threads in use at once: looks and operations (4 each, inside and outside), visits (4), readings (3),
/// the publication, the samples, and two writers for clients, each bounded where it begins; and some room.
const BLOCKING_THREADS: usize = 32;
/// How long an idle blocking thread stays: longer than from one reading of counters to the next, so that one
/// is always warm, and not so long that those readings keep all the threads of a burst alive.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    process::limit_arenas();
    bus::prepare();
    let mut args = Args::parse();
    telemetry::start(args.verbose);
    let started = match args.command.take() {
        Some(Command::Check { files }) => check(args, &files),
        None => start(args).map(|()| ExitCode::SUCCESS),
    };
    match started {
        Ok(code) => code,
        Err(err) => {
            error!(error = %chain(err.as_ref()), "stopped");
            ExitCode::FAILURE
        }
    }
}

/// Prints a line for each file.
fn check(args: Args, files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let config = Config::try_from(args)?;
    let verdicts = check::check(files, &config.library);
    let mut out = std::io::stdout().lock();
    for verdict in &verdicts {
        writeln!(out, "{verdict}").context("cannot print")?;
    }
    let good = verdicts.iter().all(check::Verdict::is_good);
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn start(args: Args) -> anyhow::Result<()> {
    let config = Config::try_from(args)?;
    let missing = process::missing_capabilities().context("cannot read own capabilities")?;
    if !missing.is_empty() {
        bail!(
            "missing {}: run tcgui-backend as root, or grant them in the service unit \
             (AmbientCapabilities=)",
            missing.join(", ")
        );
    }
    match process::raise_descriptor_limit() {
        Ok(limit) => debug!(limit, "descriptor limit raised"),
        Err(err) => debug!(error = %err, "descriptor limit left as it was"),
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(*WORKERS.start(), *WORKERS.end()))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(KEEP_ALIVE)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let ended = runtime.block_on(backend::run(config));
    runtime.shutdown_timeout(LAST_REQUESTS);
    Ok(ended?)
}
