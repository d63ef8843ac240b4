//! The verbs of the command line, run as a user runs them.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::daemon::{self, Daemon};
use crate::schema::{validate, validate_item};
use crate::wait::patience;

/// A verb that hangs fails the test after this time. Each verb has a shorter timeout of its own.
const DEADLINE: Duration = Duration::from_secs(30);

/// The schema of the documents of verbs, and the array of it whose items `ndjson` prints.
struct Documents {
    schema: &'static str,
    items: Option<&'static str>,
}

macro_rules! documents {
    ($name:literal, $items:expr) => {
        Documents {
            schema: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../docs/schema/",
                $name,
                ".json"
            )),
            items: $items,
        }
    };
}

/// Returns what the verb of a command line prints as JSON.
fn documents(args: &[&OsStr]) -> anyhow::Result<Documents> {
    let mut words = args.iter().filter_map(|word| word.to_str());
    Ok(match (words.next(), words.next()) {
        (Some("show"), _) | (Some("scenario"), Some("status")) => {
            documents!("show", Some("interfaces"))
        }
        (Some("apply" | "clear" | "confirm" | "up" | "down"), _)
        | (Some("scenario"), Some("start" | "stop" | "pause" | "resume")) => {
            documents!("change", Some("results"))
        }
        (Some("scenario"), _) => documents!("scenario", Some("scenarios")),
        (Some("preset"), _) => documents!("preset", Some("presets")),
        (Some("backends"), _) => documents!("backends", Some("backends")),
        (Some("diagnose"), _) => documents!("diagnose", None),
        _ => bail!("no schema for {args:?}"),
    })
}

/// What a verb has printed, and how it ended.
#[derive(Debug)]
pub struct Printed {
    /// The command line.
    args: Vec<OsString>,
    /// The exit status. `None`: it was killed by a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Printed {
    /// Expects an exit status, and words on standard error.
    ///
    /// # Errors
    ///
    /// When it has another status, or a word is missing.
    pub fn ends(self, status: i32, words: &[&str]) -> anyhow::Result<Self> {
        ensure!(self.status == Some(status), "not {status}: {self:?}");
        for word in words {
            ensure!(self.err.contains(word), "no {word:?}: {self:?}");
        }
        Ok(self)
    }

    /// Reads standard output as a JSON document that the schema of the verb describes.
    ///
    /// # Errors
    ///
    /// When it is not one.
    pub fn document(&self) -> anyhow::Result<Value> {
        let document: Value =
            serde_json::from_str(&self.out).with_context(|| format!("not JSON: {self:?}"))?;
        let schema = serde_json::from_str(self.documents()?.schema)?;
        validate(&schema, &document).with_context(|| format!("{self:?}"))?;
        Ok(document)
    }

    /// Reads each line of standard output as a document that is an item of that of the verb.
    ///
    /// # Errors
    ///
    /// When a line is not one.
    pub fn lines(&self) -> anyhow::Result<Vec<Value>> {
        let documents = self.documents()?;
        let schema = serde_json::from_str(documents.schema)?;
        let line = |text: &str| {
            let mut item: Value = serde_json::from_str(text)?;
            let fields = item.as_object_mut().context("not an object")?;
            let version = fields.remove("schema");
            ensure!(version == Some("tcgui.cli/1".into()), "no schema: {text}");
            validate_item(&schema, documents.items.context("no items")?, &item)?;
            Ok(item)
        };
        let all: anyhow::Result<Vec<_>> = self.out.lines().map(line).collect();
        all.with_context(|| format!("{self:?}"))
    }

    fn documents(&self) -> anyhow::Result<Documents> {
        let args: Vec<_> = self.args.iter().map(OsString::as_os_str).collect();
        documents(&args)
    }
}

/// Runs a verb.
///
/// # Errors
///
/// When it hangs or panics.
pub fn verb<S: AsRef<OsStr>>(args: &[S]) -> anyhow::Result<Printed> {
    let mut verb = Daemon::start(&[], args)?;
    let status = verb.wait(DEADLINE * patience())?;
    checked(Printed {
        args: owned(args),
        status: status.code(),
        out: verb.stdout(),
        err: verb.stderr(),
    })
}

/// [`verb`] with options of setpriv(1).
///
/// # Errors
///
/// As [`verb`].
pub fn verb_as<S: AsRef<OsStr>>(privileges: &[&str], args: &[S]) -> anyhow::Result<Printed> {
    let args: Vec<_> = args.iter().map(AsRef::as_ref).collect();
    let output = daemon::run(privileges, &args, DEADLINE * patience())?;
    checked(Printed {
        args: owned(&args),
        status: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn owned<S: AsRef<OsStr>>(args: &[S]) -> Vec<OsString> {
    args.iter().map(|arg| arg.as_ref().to_owned()).collect()
}

fn checked(printed: Printed) -> anyhow::Result<Printed> {
    ensure!(!printed.err.contains("panicked"), "{printed:?}");
    Ok(printed)
}

/// Runs a verb from one line, without quotes in it.
///
/// # Errors
///
/// As [`verb`].
pub fn line(line: &str) -> anyhow::Result<Printed> {
    verb(&line.split_whitespace().collect::<Vec<_>>())
}
