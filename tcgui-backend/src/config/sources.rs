//! The values of all options and where each comes from.
//!
//! The order of precedence is: command line, environment, configuration files, defaults. Within the files, the last one that
//! sets an option decides. A list is never combined from several sources.
//!
//! The values of files and environment become the defaults of the parser of the command line. The parser therefore checks them
//! with the same code.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::options::{Kind, Options};
use super::{environment, file};
use crate::cli::Args;
use crate::document::Position;

/// The environment variable with the path of the main configuration file.
pub(super) const CONFIG_VARIABLE: &str = "TCGUI_CONFIG";

/// Where the value of an option comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// A configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key, from 1.
        line: usize,
    },
    /// This environment variable.
    Environment(String),
    /// The command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => f.write_str(variable),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// The value of one option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The name of the option, without the dashes.
    pub option: String,
    /// The values as on the command line. `true` or `false` for a switch. Empty: the option is not set.
    pub values: Vec<OsString>,
    /// Where they come from.
    pub origin: Origin,
}

impl Setting {
    /// Returns the value in the form of a configuration file. `None`: the option is not set.
    pub fn to_toml(&self, kind: Kind) -> Option<String> {
        let texts = self.values.iter().map(|text| text.to_string_lossy());
        let mut texts = texts.map(|text| toml::Value::from(text.into_owned()));
        match kind {
            Kind::Switch => self.values.first()?.to_str().map(str::to_owned),
            Kind::Text | Kind::Endpoints => Some(texts.next()?.to_string()),
            Kind::List if self.values.is_empty() && self.origin == Origin::Default => None,
            Kind::List => Some(toml::Value::Array(texts.collect()).to_string()),
        }
    }
}

/// An error in a configuration file or environment variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: error: {message}")]
pub struct Problem {
    place: String,
    at: Option<Position>,
    message: String,
}

impl Problem {
    pub(super) fn new(place: impl Into<String>, message: String) -> Self {
        Self {
            place: place.into(),
            at: None,
            message,
        }
    }

    pub(super) fn at(file: impl fmt::Display, at: Position, message: String) -> Self {
        Self {
            place: format!("{file}:{}:{}", at.line, at.column),
            at: Some(at),
            message,
        }
    }

    pub(super) fn position(&self) -> Option<Position> {
        self.at
    }
}

/// What a process was started with. It is read again when the files have changed.
#[derive(Debug, Clone)]
pub struct Sources {
    command_line: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

/// The values of all options, and the errors of their sources.
#[derive(Debug)]
pub struct Loaded {
    /// The options as parsed.
    pub args: Args,
    /// The value of each option, in the order of the help.
    pub settings: Vec<Setting>,
    /// The files that were read, with the number of keys that each sets.
    pub files: Vec<(PathBuf, usize)>,
    /// The errors. Their values are not used.
    pub problems: Vec<Problem>,
}

/// Why the daemon does not start with this configuration.
#[derive(Debug, thiserror::Error)]
#[error("invalid configuration: {}", Listed(.0))]
pub struct InvalidConfig(Vec<Problem>);

/// Formats the first errors.
struct Listed<'a>(&'a [Problem]);

/// Maximum number of errors in one message. `check` prints all.
const MAX_LISTED: usize = 3;

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().take(MAX_LISTED).enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        if self.0.len() > MAX_LISTED {
            let count = self.0.len();
            write!(f, "; `tcgui-backend check` prints all {count} errors")?;
        }
        Ok(())
    }
}

impl Loaded {
    /// Returns the options if no source has an error.
    ///
    /// # Errors
    /// [`InvalidConfig`] contains all errors.
    pub fn into_valid(self) -> Result<(Args, Vec<Setting>), InvalidConfig> {
        if self.problems.is_empty() {
            Ok((self.args, self.settings))
        } else {
            Err(InvalidConfig(self.problems))
        }
    }
}

impl Sources {
    /// Returns the command line and the environment of this process.
    pub fn of_process() -> Self {
        Self::new(env::args_os(), env::vars_os())
    }

    /// Takes a command line with the name of the program, and environment variables.
    pub fn new(
        command_line: impl IntoIterator<Item = impl Into<OsString>>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut environment: Vec<_> = environment.into_iter().collect();
        environment.sort_unstable();
        Self {
            command_line: command_line.into_iter().map(Into::into).collect(),
            environment,
        }
    }

    /// Reads all sources. Blocks on files.
    ///
    /// # Errors
    /// The command line is wrong, or asks for its help.
    pub fn load(&self) -> Result<Loaded, clap::Error> {
        let options = Options::new();
        let own = Args::command().try_get_matches_from(&self.command_line)?;
        let mut problems = Vec::new();
        let variables = environment::read(&options, &self.environment, &mut problems);
        let mut files = Vec::new();
        let mut found = HashMap::new();
        for read in self.read_files(&own, &options) {
            files.push((read.path, read.settings.len()));
            problems.extend(read.problems);
            found.extend(read.settings.into_iter().map(by_option));
        }
        found.extend(variables.into_iter().map(by_option));
        let command = options.with_defaults(&found);
        let matches = command.try_get_matches_from(&self.command_line)?;
        let args = Args::from_arg_matches(&matches)?;
        let setting = |name: &str| in_force(name, &matches, &options, &found);
        let settings = options.names().map(setting).collect();
        Ok(Loaded {
            args,
            settings,
            files,
            problems,
        })
    }

    fn read_files(&self, own: &ArgMatches, options: &Options) -> Vec<file::ReadFile> {
        if own.get_flag("no_config") {
            return Vec::new();
        }
        let default = own.get_one::<PathBuf>("config").map(PathBuf::as_path);
        let default = default.unwrap_or(Path::new(""));
        let variable = self.environment.iter();
        let mut variable =
            variable.filter(|(name, value)| name == CONFIG_VARIABLE && !value.is_empty());
        match (own.value_source("config"), variable.next()) {
            (Some(ValueSource::CommandLine), _) => file::read_all(default, true, options),
            (_, Some((_, path))) => file::read_all(Path::new(path), true, options),
            _ => file::read_all(default, false, options),
        }
    }
}

fn by_option(setting: Setting) -> (String, Setting) {
    (setting.option.clone(), setting)
}

/// Returns the value of an option that the parser chose.
fn in_force(
    name: &str,
    matches: &ArgMatches,
    options: &Options,
    found: &HashMap<String, Setting>,
) -> Setting {
    let id = options.id(name).unwrap_or_default();
    let raw = matches.get_raw(&id).into_iter().flatten();
    let origin = match (matches.value_source(&id), found.get(name)) {
        (Some(ValueSource::CommandLine), _) => Origin::CommandLine,
        (_, Some(setting)) => setting.origin.clone(),
        (_, None) => Origin::Default,
    };
    Setting {
        option: name.to_owned(),
        values: raw.map(OsString::from).collect(),
        origin,
    }
}

#[cfg(test)]
mod tests;
