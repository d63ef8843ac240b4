//! Measures the time until a change of a network namespace, or of a link in one, is known.
//!
//! ```text
//!             ┌─ lab "floor" ──── mounter │ poll on the mount table, nothing else
//!  this ──────┼─ lab "watcher" ── mounter │ list_and_watch()
//!  (run.rs)   └─ lab "client" ─── mounter │ tcgui-backend ── bus ── client
//! ```
//!
//! The figures go to `report.rs`, then to `thresholds.rs` (limits), `baseline.rs` (comparison), `markdown.rs` and `picture.rs`
//! (for documents).
//!
//! A lab is a private mount and network namespace with an empty tmpfs on `/run`. Its processes are other roles of this binary. A
//! *mounter* makes the system calls of `ip netns` and reports their time. An *observer* reports the time at which it sees the
//! change. All times are on `CLOCK_MONOTONIC`, which all processes of a machine share.

mod baseline;
mod cli;
mod lab;
mod markdown;
mod picture;
mod plan;
mod progress;
mod protocol;
mod report;
mod role;
mod run;
mod stats;
mod thresholds;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.role {
        Some(role) => role::play(role, arguments.surroundings).map(|()| ExitCode::SUCCESS),
        None => run::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        progress::complain(&error);
        ExitCode::from(cli::FAILED)
    })
}
