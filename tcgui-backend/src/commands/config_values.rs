//! `config` and `check` without files: the configuration with which the daemon would start.

use std::process::ExitCode;

use tcgui_backend::config::{Config, Loaded, Options, Setting};
use tcgui_backend::error::chain;
use tcgui_backend::listing::printable;

/// The column in which the sources start, unless a value is longer.
const COLUMN: usize = 40;

/// Prints the value of each option and its source.
pub(super) fn run(loaded: Loaded) -> anyhow::Result<ExitCode> {
    let options = Options::new();
    let lines = loaded.settings.iter();
    let lines = lines.map(|setting| line(setting, &options) + "\n");
    super::print(&lines.collect::<String>())?;
    for problem in &loaded.problems {
        super::tell(&problem.to_string());
    }
    finish(loaded)
}

/// Prints the errors of the configuration files and of the environment, or which files were read.
pub(super) fn check(loaded: Loaded) -> anyhow::Result<ExitCode> {
    let mut lines: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
    if lines.is_empty() {
        let files = loaded.files.iter();
        lines.extend(files.map(|(path, count)| super::check::valid_file(path, *count)));
    }
    if lines.is_empty() {
        lines.push("no configuration files".to_owned());
    }
    let lines = lines.iter().map(|line| printable(line) + "\n");
    super::print(&lines.collect::<String>())?;
    finish(loaded)
}

/// Checks the options together.
fn finish(loaded: Loaded) -> anyhow::Result<ExitCode> {
    let invalid = !loaded.problems.is_empty();
    if let Err(err) = Config::try_from(loaded.args) {
        super::tell(&format!("error: {}", chain(&err)));
        return Ok(ExitCode::FAILURE);
    }
    Ok(if invalid {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Reports the errors of the configuration. Commands other than the daemon do not fail on them: `restore` must work with a
/// broken configuration.
pub(super) fn warn(loaded: &Loaded) {
    for problem in &loaded.problems {
        super::tell(&format!(
            "{problem} (this part of the configuration is not used)"
        ));
    }
}

/// Formats a line of a configuration file with the source as a comment.
fn line(setting: &Setting, options: &Options) -> String {
    let Setting { option, origin, .. } = setting;
    let kind = options.kind(option);
    match kind.and_then(|kind| setting.to_toml(kind)) {
        Some(value) => {
            let set = format!("{option} = {value}");
            format!("{set:COLUMN$} # {}", printable(&origin.to_string()))
        }
        None => {
            let unset = format!("# {option}");
            format!("{unset:COLUMN$} # {origin}, not set")
        }
    }
}
