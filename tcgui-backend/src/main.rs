//! The daemon's binary: arguments → configuration → logs → run → exit status; other commands in `commands`.

mod commands;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tcgui_backend::backend;
use tcgui_backend::bus;
use tcgui_backend::cli::Args;
use tcgui_backend::config::Config;
use tcgui_backend::error::chain;
use tcgui_backend::kernel::process;
use tcgui_backend::telemetry;
use tcgui_backend::unix_socket;
use tracing::{debug, error};

/// Kernel requests still under way when everything else has stopped get this long.
const LAST_REQUESTS: Duration = Duration::from_millis(200);
/// More would not be busy; and on one processor, a second one would only be woken for nothing.
const MOST_WORKERS: usize = 4;
/// Blocking threads in use at once: looks and operations (4 each, inside and outside), visits (4), readings (3), the
/// publication, the samples, and some reserve. One more for each client that is written to. The code that starts such work
/// bounds its number. Threads are started when they are needed.
const BLOCKING_THREADS: usize = 32 + bus::WRITERS;
/// How long an idle blocking thread stays: longer than from one reading of counters to the next, so that one
/// is always warm, and not so long that those readings keep all the threads of a burst alive.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    process::tune_allocator();
    bus::prepare();
    let mut args = Args::parse();
    if let Some(command) = args.command.take() {
        return commands::run(command, args);
    }
    let renewed = process::without_thread_caches();
    telemetry::start(args.verbose);
    if let Err(err) = renewed {
        debug!(error = %err, "each thread keeps some memory for itself");
    }
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            error!(error = %chain(err.as_ref()), "stopped");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    let config = Config::try_from(args)?;
    commands::check_capabilities()?;
    unix_socket::check(&config.bus.listen)?;
    match process::raise_descriptor_limit() {
        Ok(limit) => debug!(limit, "descriptor limit raised"),
        Err(err) => debug!(error = %err, "descriptor limit left as it was"),
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(MOST_WORKERS))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(KEEP_ALIVE)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    // Where its tasks run: from this thread each of them would be woken on another.
    let ended = runtime.block_on(runtime.spawn(backend::run(config)));
    runtime.shutdown_timeout(LAST_REQUESTS);
    Ok(ended.context("the main loop failed")??)
}
