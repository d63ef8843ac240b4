//! Environment variables that set options: `TCGUI_` and the name of the option. Pure.

use std::ffi::{OsStr, OsString};

use super::options::{Kind, Options, PREFIX, split_list};
use super::sources::{CONFIG_VARIABLE, Origin, Problem, Setting};

/// Reads the variables. Variables with the prefix of which the name is not similar to an option belong to other programs.
pub(super) fn read(
    options: &Options,
    environment: &[(OsString, OsString)],
    problems: &mut Vec<Problem>,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (variable, value) in environment {
        let Some(variable) = variable.to_str() else {
            continue;
        };
        let is_other = variable == CONFIG_VARIABLE || options.is_of_command(variable);
        if !variable.starts_with(PREFIX) || is_other {
            continue;
        }
        let problem = |message| Problem::new(variable, message);
        let Some(option) = options.of_variable(variable) else {
            if let Some(nearest) = options.nearest_variable(variable) {
                let message = format!("unknown variable, did you mean {nearest}?");
                problems.push(problem(message));
            }
            continue;
        };
        let values = values(options.kind(option), value);
        match options.check(option, &values) {
            Ok(()) => settings.push(Setting {
                option: option.to_owned(),
                values,
                origin: Origin::Environment(variable.to_owned()),
            }),
            Err(reason) => problems.push(problem(format!(
                "{}: {reason}",
                value.to_string_lossy().escape_debug()
            ))),
        }
    }
    settings
}

fn values(kind: Option<Kind>, value: &OsStr) -> Vec<OsString> {
    match kind {
        Some(Kind::List) => split_list(value),
        _ => vec![value.to_owned()],
    }
}
