//! `check FILE…`: whether the daemon would load these configuration, preset and scenario files.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use tcgui_backend::cli::Args;
use tcgui_backend::config::{Config, Options, ReadFile, is_configuration, read_for_check};
use tcgui_backend::library::check;
use tcgui_backend::listing::printable;

/// Prints a line for each file.
pub(super) fn run(args: Args, files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let config = Config::try_from(args)?;
    let (configurations, documents): (Vec<_>, Vec<_>) = files
        .iter()
        .cloned()
        .partition(|path| is_configuration(path));
    let options = Options::new();
    let mut good = true;
    let mut out = io::stdout().lock();
    for path in &configurations {
        let file = read_for_check(path, &options);
        good &= file.problems.is_empty();
        print_configuration(&mut out, &file).context("cannot print")?;
    }
    let verdicts = check::check(&documents, &config.library);
    for verdict in &verdicts {
        writeln!(out, "{verdict}").context("cannot print")?;
    }
    good &= verdicts.iter().all(check::Verdict::is_good);
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints the errors of a configuration file, or how many options it sets.
fn print_configuration(out: &mut impl Write, file: &ReadFile) -> io::Result<()> {
    for problem in &file.problems {
        writeln!(out, "{}", printable(&problem.to_string()))?;
    }
    if file.problems.is_empty() {
        writeln!(out, "{}", valid_file(&file.path, file.settings.len()))?;
    }
    Ok(())
}

/// Describes a configuration file without errors.
pub(super) fn valid_file(path: &Path, options: usize) -> String {
    format!("{}: configuration, options set: {options}", path.display())
}
