//! Measures traffic control: what it takes, what it delays, and whether packets are impaired as told.
//!
//! ```text
//!            ┌─ lab (private namespaces) ── switch, diagnostics, bandwidth ─┐
//!  this ─────┤                                                              ├─ tcgui-backend ── bus ── client
//!  (run.rs)  └─ scripts/with-netem.sh ───── apply, burst, fidelity ─────────┘
//! ```
//!
//! Every part is measured by this binary started again where the part belongs; it says its figures on
//! standard output, a line of JSON each. Parts that need netem run through `scripts/with-netem.sh`, because the
//! kernel of a machine may not have it.

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
mod progress;
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
