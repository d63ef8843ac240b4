//! The options of the daemon as keys of configuration files and as environment variables. Pure.
//!
//! Everything comes from the definition of the command line: names, types and checks of values. A new option therefore has a key
//! and a variable without further code.

use std::collections::HashMap;
use std::error::Error;
use std::ffi::{OsStr, OsString};

use clap::builder::OsStr as ArgText;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory};

use super::sources::Setting;
use crate::cli::Args;

/// The beginning of all environment variables.
pub(super) const PREFIX: &str = "TCGUI_";
/// Options that select the configuration files. They have no key.
const CONFIG: &str = "config";
const NO_CONFIG: &str = "no-config";
/// The value name of options with a list of endpoints, separated by commas.
const ENDPOINTS: &str = "ENDPOINTS";
/// The smallest similarity of two names for a suggestion, from 0 to 1 (Jaro-Winkler).
const SIMILAR: f64 = 0.85;

/// The type of the value of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Switch,
    /// One text.
    Text,
    /// One text: endpoints with commas between them.
    Endpoints,
    /// Any number of texts.
    List,
}

/// The options that a configuration file and the environment can set.
#[derive(Debug, Clone)]
pub struct Options {
    command: Command,
}

impl Options {
    /// Reads the definition of the command line.
    pub fn new() -> Self {
        Self {
            command: Args::command(),
        }
    }

    fn args(&self) -> impl Iterator<Item = (&str, &Arg)> {
        let named = self.command.get_arguments();
        let named = named.filter_map(|arg| Some((arg.get_long()?, arg)));
        named.filter(|(name, _)| ![CONFIG, NO_CONFIG, "help", "version"].contains(name))
    }

    /// Returns the names of all options, in the order of the help.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.args().map(|(name, _)| name)
    }

    fn find(&self, name: &str) -> Option<&Arg> {
        let mut args = self.args();
        args.find_map(|(other, arg)| (other == name).then_some(arg))
    }

    /// Returns the type of an option. `None`: there is no such option.
    pub fn kind(&self, name: &str) -> Option<Kind> {
        self.find(name).map(|arg| match arg.get_action() {
            ArgAction::SetTrue => Kind::Switch,
            ArgAction::Append => Kind::List,
            _ if has_endpoints(arg) => Kind::Endpoints,
            _ => Kind::Text,
        })
    }

    /// Returns the built-in default of an option. `None`: the option is not set by default.
    #[cfg(test)]
    pub(super) fn default(&self, name: &str) -> Option<OsString> {
        let arg = self.find(name)?;
        match arg.get_action() {
            ArgAction::SetTrue => Some("false".into()),
            _ => arg.get_default_values().first().map(OsString::from),
        }
    }

    /// Returns the identifier of an option in the matches of the parser.
    pub(super) fn id(&self, name: &str) -> Option<String> {
        self.find(name).map(|arg| arg.get_id().to_string())
    }

    /// Returns the option whose name is most similar to a wrong one.
    pub fn nearest(&self, wrong: &str) -> Option<&str> {
        let wrong = wrong.to_lowercase().replace('_', "-");
        let similarity = |name: &str| strsim::jaro_winkler(name, &wrong);
        self.names()
            .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
            .filter(|name| similarity(name) >= SIMILAR)
    }

    /// Returns the option of an environment variable.
    pub(super) fn of_variable(&self, variable: &str) -> Option<&str> {
        self.names().find(|name| variable_of(name) == variable)
    }

    /// Returns whether a command has an option with this variable.
    pub(super) fn is_of_command(&self, variable: &str) -> bool {
        fn has(command: &Command, variable: &str) -> bool {
            let mut args = command.get_arguments();
            args.any(|arg| arg.get_env().is_some_and(|env| env == variable))
                || command.get_subcommands().any(|it| has(it, variable))
        }
        has(&self.command, variable)
    }

    /// Returns the variable whose name is most similar to a wrong one.
    pub(super) fn nearest_variable(&self, wrong: &str) -> Option<String> {
        let name = wrong.strip_prefix(PREFIX)?;
        self.nearest(name).map(variable_of)
    }

    /// Checks values with the parser of the command line.
    ///
    /// # Errors
    /// Why a value is not valid.
    pub(super) fn check(&self, name: &str, values: &[OsString]) -> Result<(), String> {
        if self.kind(name) == Some(Kind::Switch) {
            let valid = matches!(values, [value] if value == "true" || value == "false");
            return valid
                .then_some(())
                .ok_or_else(|| "must be true or false".to_owned());
        }
        let option = |value: &OsString| {
            let mut text = OsString::from(format!("--{name}="));
            text.push(value);
            text
        };
        let line = values.iter().map(option);
        let command = self.command.clone().no_binary_name(true);
        match command.try_get_matches_from(line) {
            Ok(_) => Ok(()),
            Err(err) => Err(explain(&err)),
        }
    }

    /// Returns the parser of the command line with other defaults.
    pub(super) fn with_defaults(&self, settings: &HashMap<String, Setting>) -> Command {
        let mut command = self.command.clone();
        for setting in settings.values() {
            if let Some(id) = self.id(&setting.option) {
                let values = setting
                    .values
                    .iter()
                    .map(|value| ArgText::from(value.clone()));
                let values: Vec<_> = values.collect();
                command = command.mut_arg(id, |arg| arg.default_values(values));
            }
        }
        command
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the environment variable of an option.
pub fn variable_of(name: &str) -> String {
    PREFIX.to_owned() + &name.to_uppercase().replace('-', "_")
}

fn has_endpoints(arg: &Arg) -> bool {
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().any(|name| name == ENDPOINTS)
}

/// Returns the reason of a refusal, without the usage of the command line.
fn explain(err: &clap::Error) -> String {
    match (err.kind(), err.source()) {
        (ErrorKind::ValueValidation, Some(reason)) => reason.to_string(),
        (ErrorKind::InvalidValue, _) => match err.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
                format!("must be one of: {}", valid.join(", "))
            }
            _ => "must not be empty".to_owned(),
        },
        (kind, _) => kind.to_string(),
    }
}

/// Splits the value of an environment variable at commas. An empty value is an empty list.
pub(super) fn split_list(value: &OsStr) -> Vec<OsString> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let parts = value.as_bytes().split(|byte| *byte == b',');
    let parts = parts
        .map(<[u8]>::trim_ascii)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}
