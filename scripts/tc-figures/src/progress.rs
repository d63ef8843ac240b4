//! What a person sees while it runs: the only place that writes to standard error.

use std::fmt;
use std::io::{self, Write};

/// Says something to the person, on lines of its own.
pub(crate) fn say(text: impl fmt::Display) {
    // Standard error may be closed.
    writeln!(io::stderr(), "{text}").ok();
}

/// Says why something failed.
pub(crate) fn complain(error: &anyhow::Error) {
    say(format_args!("tc-figures: {error:#}"));
}
