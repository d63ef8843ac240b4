//! Configuration files in TOML: which are read, and what they set.
//!
//! The daemon is root, so it refuses files that another user could have written ([`crate::kernel::private_dir`]).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::options::{Kind, Options};
use super::sources::{Origin, Problem, Setting};
use crate::document::Position;
use crate::kernel::private_dir::{Distrust, list_shared_directory, open_foreign, open_shared_file};

/// The largest file that is read, in bytes.
const MAX_SIZE: u64 = 64 * 1024;
/// The largest number of files in the directory beside the main file.
const MAX_FILES: usize = 100;
/// Only files with this extension are read from the directory.
const EXTENSION: &str = "toml";
/// Maximum length of a part of a file in a message, in characters.
const MAX_QUOTED: usize = 60;

/// The settings of one file.
#[derive(Debug)]
pub struct ReadFile {
    /// The path.
    pub path: PathBuf,
    /// The valid settings, in the order of the file.
    pub settings: Vec<Setting>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl ReadFile {
    fn unusable(path: &Path, err: &io::Error) -> Self {
        let message = match Distrust::within(err) {
            Some(distrust) => distrust.to_string(),
            None => format!("cannot read the configuration file: {err}"),
        };
        Self {
            path: path.to_owned(),
            settings: Vec::new(),
            problems: vec![Problem::new(path.display().to_string(), message)],
        }
    }
}

/// Reads the main file, and then the files of the directory beside it in the order of their names.
///
/// The main file may be missing unless it is `required`. The directory may be missing.
pub(super) fn read_all(path: &Path, required: bool, options: &Options) -> Vec<ReadFile> {
    let main = match open_shared_file(path) {
        Err(err) if is_absent(&err) && !required => None,
        opened => Some(read(path, opened, options)),
    };
    let mut files = Vec::from_iter(main);
    let directory = path.with_extension("d");
    if directory == path {
        return files;
    }
    match list_shared_directory(&directory) {
        Err(err) if is_absent(&err) => {}
        Err(err) => files.push(ReadFile::unusable(&directory, &err)),
        Ok(names) => {
            let mut paths: Vec<_> = names
                .iter()
                .filter(|name| is_read(Path::new(name)))
                .map(|name| directory.join(name))
                .collect();
            paths.sort_unstable();
            if paths.len() > MAX_FILES {
                let err = io::Error::other(format!("more than {MAX_FILES} files"));
                files.push(ReadFile::unusable(&directory, &err));
                return files;
            }
            let read = |path: &PathBuf| read(path, open_shared_file(path), options);
            files.extend(paths.iter().map(read));
        }
    }
    files
}

/// Reads a file that a person wants to check. Other users may be able to write to it.
pub fn read_for_check(path: &Path, options: &Options) -> ReadFile {
    let opened = open_foreign(path).map_err(|err| match err.kind() {
        io::ErrorKind::InvalidInput => io::Error::other("it is not a regular file"),
        _ => err,
    });
    read(path, opened, options)
}

/// Returns whether a path is that of a configuration file.
pub fn is_configuration(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == EXTENSION)
}

/// Returns whether a file of the directory is read. Editors and package managers create hidden files temporarily.
fn is_read(name: &Path) -> bool {
    !name.as_os_str().as_encoded_bytes().starts_with(b".") && is_configuration(name)
}

fn is_absent(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn read(path: &Path, opened: io::Result<File>, options: &Options) -> ReadFile {
    match opened.and_then(read_bytes) {
        Ok(bytes) => parse(path, &bytes, options),
        Err(err) => ReadFile::unusable(path, &err),
    }
}

fn read_bytes(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut bounded = file.take(MAX_SIZE + 1);
    if u64::try_from(bounded.read_to_end(&mut bytes)?).is_ok_and(|size| size > MAX_SIZE) {
        return Err(io::Error::other(format!(
            "it is longer than {MAX_SIZE} bytes"
        )));
    }
    Ok(bytes)
}

/// Reads the text of a file. Pure.
///
/// All errors are reported. A key on a line with a syntax error is not used, the other keys are.
pub(super) fn parse(path: &Path, bytes: &[u8], options: &Options) -> ReadFile {
    let mut file = ReadFile {
        path: path.to_owned(),
        settings: Vec::new(),
        problems: Vec::new(),
    };
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(err) => {
            let valid = String::from_utf8_lossy(&bytes[..err.valid_up_to()]);
            let at = position(&valid, valid.len());
            file.problems.push(problem(path, at, "not UTF-8 text"));
            return file;
        }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut wrong = Vec::new();
    for err in &errors {
        let span = err.span().unwrap_or(0..text.len());
        wrong.push(lines(text, &span));
        let message = quoted(err.message());
        file.problems
            .push(problem(path, position(text, span.start), &message));
    }
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let span = key.span().start..key.span().end.max(value.span().end);
        let own = lines(text, &span);
        if wrong
            .iter()
            .any(|other| own.start < other.end && other.start < own.end)
        {
            continue;
        }
        let name = key.get_ref().as_ref();
        let at = position(text, key.span().start);
        match values(name, value, options) {
            Ok(values) => file.settings.push(Setting {
                option: name.to_owned(),
                values,
                origin: Origin::File {
                    path: path.to_owned(),
                    line: at.line,
                },
            }),
            Err(message) => file.problems.push(problem(path, at, &message)),
        }
    }
    file.problems.sort_by_key(Problem::position);
    file
}

/// Returns the values of a key, or why they are not valid.
fn values(
    name: &str,
    value: &Spanned<DeValue<'_>>,
    options: &Options,
) -> Result<Vec<OsString>, String> {
    let Some(kind) = options.kind(name) else {
        let what = match value.get_ref() {
            DeValue::Table(_) => {
                format!("unknown table {:?} (keys stand in no table)", quoted(name))
            }
            _ => format!("unknown key {:?}", quoted(name)),
        };
        return Err(match options.nearest(name) {
            Some(nearest) => format!("{what}, did you mean {nearest:?}?"),
            None => format!("{what}: `tcgui-backend config` prints all keys"),
        });
    };
    let values = match (kind, value.get_ref()) {
        (Kind::Switch, DeValue::Boolean(value)) => vec![value.to_string().into()],
        (Kind::Text | Kind::Endpoints, DeValue::String(text)) => vec![text.as_ref().into()],
        (Kind::List, DeValue::Array(_)) => texts(name, value)?.map(OsString::from).collect(),
        (Kind::Endpoints, DeValue::Array(_)) => {
            vec![texts(name, value)?.collect::<Vec<_>>().join(",").into()]
        }
        (Kind::Switch, _) => return Err(format!("{name} must be true or false, without quotes")),
        (Kind::Text, _) => return Err(format!("{name} must be a string: {name} = \"VALUE\"")),
        (Kind::Endpoints | Kind::List, _) => return Err(no_list(name)),
    };
    options
        .check(name, &values)
        .map_err(|reason| format!("{name}: {}", quoted(&reason)))?;
    Ok(values)
}

/// Returns the texts of an array.
fn texts<'a>(
    name: &str,
    value: &'a Spanned<DeValue<'_>>,
) -> Result<impl Iterator<Item = String> + use<'a>, String> {
    let all = value.get_ref().as_array().map(|array| array.iter());
    let all = all.ok_or_else(|| no_list(name))?;
    let text = |one: &Spanned<DeValue<'_>>| one.get_ref().as_str().map(str::to_owned);
    let all: Option<Vec<_>> = all.map(text).collect();
    Ok(all.ok_or_else(|| no_list(name))?.into_iter())
}

fn no_list(name: &str) -> String {
    format!("{name} must be a list of strings: {name} = [\"VALUE\", \"VALUE\"]")
}

/// Returns the start of a text, because a file may contain long ones.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn problem(path: &Path, at: Position, message: &str) -> Problem {
    Problem::at(path.display(), at, message.to_owned())
}

/// Returns the position of a byte.
fn position(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// Returns the lines of a span, counted from 1.
fn lines(text: &str, span: &Range<usize>) -> Range<usize> {
    position(text, span.start).line..position(text, span.end.max(span.start)).line + 1
}

#[cfg(test)]
mod tests;
