//! The verbs of the command line, run as a user runs them.

use std::ffi::OsStr;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::daemon::{self, Daemon};
use crate::wait::patience;

/// A verb that hangs fails the test after this time. Each verb has a shorter timeout of its own.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a verb has printed, and how it ended.
#[derive(Debug)]
pub struct Printed {
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

    /// Reads standard output as a JSON document of the verbs.
    ///
    /// # Errors
    ///
    /// When it is not one.
    pub fn document(&self) -> anyhow::Result<Value> {
        let document: Value =
            serde_json::from_str(&self.out).with_context(|| format!("not JSON: {self:?}"))?;
        ensure!(document["schema"] == "tcgui.cli/1", "no schema: {document}");
        Ok(document)
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
        status: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
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
