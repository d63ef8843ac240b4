//! Logging to standard error. Coloured only on a terminal, filtered by `RUST_LOG` and `--verbose`.

mod handshakes;

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use handshakes::Handshakes;

/// The default log filters: for the daemon, and for commands that print a result. The excluded part of Zenoh logs each attempt to
/// connect or listen. The daemon logs the first attempt with its cause.
const USUAL: &str = "warn,zenoh::net::runtime::orchestrator=error,tcgui_backend=info";
const QUIET: &str = "error,zenoh=off";

/// Starts logging. A second call has no effect.
pub fn start(verbose: bool) {
    start_with(USUAL, verbose);
}

/// Starts logging of errors only, unless the environment or `verbose` requests more.
pub fn start_quietly(verbose: bool) {
    start_with(QUIET, verbose);
}

fn start_with(usual: &str, verbose: bool) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let wanted = if wanted.trim().is_empty() {
        usual.to_owned()
    } else {
        wanted
    };
    let filter = EnvFilter::try_new(directives(&wanted, verbose));
    let (filter, problem) = match filter {
        Ok(filter) => (filter, None),
        Err(err) => (EnvFilter::new(directives("", verbose)), Some(err)),
    };
    let lines = tracing_subscriber::fmt::layer()
        .compact()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry()
        .with(filter)
        .with(Handshakes::default())
        .with(lines)
        .try_init()
        .ok();
    if let Some(error) = problem {
        tracing::warn!(%error, "RUST_LOG not understood, using the default");
    }
}

/// Returns the filter directives for a value of `RUST_LOG`.
///
/// A level without a target applies to this program only. At `debug` the bus libraries would log too much.
fn directives(rust_log: &str, verbose: bool) -> String {
    let mut directives = match rust_log.trim() {
        "" => USUAL.to_owned(),
        bare => match bare.parse::<LevelFilter>() {
            Ok(level) => format!("{},tcgui_backend={level}", level.min(LevelFilter::WARN)),
            Err(_) => bare.to_owned(),
        },
    };
    if verbose && !directives.contains("tcgui_backend=trace") {
        directives.push_str(",tcgui_backend=debug");
    }
    directives
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_without_a_target_applies_to_the_daemon() {
        assert_eq!(directives("", false), USUAL);
        assert_eq!(directives("debug", false), "warn,tcgui_backend=debug");
        assert_eq!(directives("error", false), "error,tcgui_backend=error");
        assert_eq!(directives("off", false), "off,tcgui_backend=off");
        assert_eq!(
            directives("info", true),
            "warn,tcgui_backend=info,tcgui_backend=debug"
        );
        assert_eq!(directives("zenoh=debug", false), "zenoh=debug");
    }
}
