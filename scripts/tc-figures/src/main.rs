//! Measures traffic control: its cost, its delays, and the accuracy of the impairments.
//!
//! ```text
//!            ┌─ lab (private namespaces) ── switch, diagnostics, bandwidth ─┐
//!  this ─────┤                                                              ├─ tcgui-backend ── bus ── client
//!  (run.rs)  └─ scripts/with-netem.sh ───── apply, burst, fidelity, … ──────┘
//! ```
//!
//! This binary starts itself for every part, in the environment of that part. The child writes its figures to standard output,
//! one line of JSON for each. Parts that need netem run through `scripts/with-netem.sh`, because the kernel of a machine may not
//! have it.

mod apply;
mod bandwidth;
mod bench;
mod burst;
mod cli;
mod diagnostics;
mod fidelity;
mod figure;
mod floor;
mod inside;
mod part;
mod presets;
mod progress;
mod rates;
mod report;
mod run;
mod switch;
mod thresholds;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.inside {
        Some(part) => inside::measure(part, arguments.trials).map(|()| ExitCode::SUCCESS),
        None => run::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        progress::complain(&error);
        ExitCode::from(cli::FAILED)
    })
}
