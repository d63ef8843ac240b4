//! Measures how long it takes until a network namespace, or a link in one, is known.
//!
//! ```text
//!             ┌─ lab "floor" ──── mounter │ poll on the mount table, nothing else
//!  this ──────┼─ lab "watcher" ── mounter │ list_and_watch()
//!  (run.rs)   └─ lab "client" ─── mounter │ tcgui-backend ── bus ── client
//! ```
//!
//! Figures go to `report.rs`, and from there to `thresholds.rs` (the verdict), `baseline.rs` (then and
//! now), `markdown.rs` and `picture.rs` (for documents).
//!
//! A lab is a private mount and network namespace with an empty tmpfs on `/run`; its processes are
//! other roles of this binary. A *mounter* does what `ip netns` does and says when; an *observer* says
//! when it sees it. All stamps are `CLOCK_MONOTONIC`, which every process on a machine shares.

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
