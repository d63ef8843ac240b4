//! `check`: checks whether the daemon would load files as presets or scenarios.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use tcgui_backend::cli::Args;
use tcgui_backend::config::Config;
use tcgui_backend::library::check;

/// Prints a line for each file.
pub(super) fn run(args: Args, files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let config = Config::try_from(args)?;
    let verdicts = check::check(files, &config.library);
    let mut out = io::stdout().lock();
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
