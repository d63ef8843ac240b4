//! `restore`: restores interfaces whose impairment has ended while no daemon was running.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use tcgui_backend::cli::{Args, RestoreArgs};
use tcgui_backend::error::chain;
use tcgui_backend::lease::offline_restore::{self, Wanted};

/// Prints the result for each lease. The status is a failure if one could not be restored. Options that the command
/// does not have are taken from the daemon's options before the command.
pub(super) fn run(command: RestoreArgs, daemon: Args) -> anyhow::Result<ExitCode> {
    super::check_capabilities()?;
    let wanted = Wanted {
        state: command.state_dir.unwrap_or(daemon.state_dir),
        netns: command.netns_dir.unwrap_or(daemon.netns_dir),
        all: command.all,
    };
    let mut code = ExitCode::SUCCESS;
    let mut told = Ok(());
    offline_restore::restore(&wanted, |what, fate| {
        let line = match fate {
            Ok(fate) => format!("{what}: {fate}"),
            Err(err) => {
                code = ExitCode::FAILURE;
                format!("{what}: {}", chain(err.as_ref()))
            }
        };
        let written = writeln!(io::stdout(), "{line}");
        told = std::mem::replace(&mut told, Ok(())).and(written);
    })?;
    told.context("cannot say what was done")?;
    Ok(code)
}
