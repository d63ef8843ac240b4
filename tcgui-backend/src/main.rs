//! The daemon's binary: arguments → configuration → logs → run → exit status. Other commands are in `commands`.

mod commands;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tcgui_backend::backend::{self, ConfigReader};
use tcgui_backend::bus;
use tcgui_backend::config::{Config, Loaded, Sources};
use tcgui_backend::error::chain;
use tcgui_backend::kernel::process;
use tcgui_backend::telemetry;
use tcgui_backend::unix_socket;
use tracing::{debug, error, info};

/// Maximum time at shutdown for kernel requests that are still running.
const LAST_REQUESTS: Duration = Duration::from_millis(200);
/// Maximum number of runtime threads. More would be idle. On a machine with one processor, one is used, because a second would
/// only add wake-ups.
const MOST_WORKERS: usize = 4;
/// Maximum number of blocking threads. Link dumps inside and outside namespaces use up to eight, and so do operations.
/// Checks of links use four, and counter readings three. The publication and the samples use one each, and so does each
/// client that is written to. The others are a reserve. The code that starts such work limits its number. Threads are
/// started on demand.
const BLOCKING_THREADS: usize = 32 + bus::WRITERS;
/// Time after which an idle blocking thread ends. It is longer than the interval of counter readings, so that one thread stays
/// available for them. It is short enough that these readings do not keep all threads of a burst alive.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    process::tune_allocator();
    bus::prepare();
    let sources = Sources::of_process();
    let mut loaded = sources.load().unwrap_or_else(|err| err.exit());
    if let Some(command) = loaded.args.command.take() {
        return commands::run(command, loaded);
    }
    let renewed = process::without_thread_caches();
    telemetry::start(loaded.args.verbose);
    if let Err(err) = renewed {
        debug!(error = %err, "thread caches of the allocator cannot be disabled");
    }
    match start(sources, loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            error!(error = %chain(err.as_ref()), "stopped");
            ExitCode::FAILURE
        }
    }
}

fn start(sources: Sources, loaded: Loaded) -> anyhow::Result<()> {
    for (file, count) in &loaded.files {
        info!(file = %file.display(), count, "configuration file read");
    }
    let (args, settings) = loaded.into_valid()?;
    let config = Config::try_from(args)?;
    commands::check_capabilities()?;
    unix_socket::check(&config.bus.listen)?;
    match process::raise_descriptor_limit() {
        Ok(limit) => debug!(limit, "descriptor limit raised"),
        Err(err) => debug!(error = %err, "descriptor limit not raised"),
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(MOST_WORKERS))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(KEEP_ALIVE)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    // Spawn the main loop on a runtime thread. On this thread, each of its tasks would have to wake up another thread.
    let files = ConfigReader::new(sources, settings);
    let ended = runtime.block_on(runtime.spawn(backend::run(config, files)));
    runtime.shutdown_timeout(LAST_REQUESTS);
    Ok(ended.context("the main loop failed")??)
}
