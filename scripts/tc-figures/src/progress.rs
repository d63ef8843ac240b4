//! Progress messages. No other module writes to standard error.

use std::fmt;
use std::io::{self, Write};

/// Prints a message on separate lines.
pub(crate) fn say(text: impl fmt::Display) {
    // Standard error may be closed.
    writeln!(io::stderr(), "{text}").ok();
}

/// Prints an error.
pub(crate) fn complain(error: &anyhow::Error) {
    say(format_args!("tc-figures: {error:#}"));
}
