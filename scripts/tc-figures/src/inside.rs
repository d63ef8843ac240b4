//! Measures one part in this process.

use std::io::{self, Write};

use anyhow::Context;

use crate::figure::Figure;
use crate::part::Part;
use crate::{apply, bandwidth, burst, diagnostics, fidelity, presets, rates, switch};

/// Measures a part here, and writes the figures to standard output.
pub(crate) fn measure(part: Part, trials: u32) -> anyhow::Result<()> {
    let figures = match part {
        Part::Apply => apply::measure(trials),
        Part::Burst => burst::measure(trials),
        Part::Switch => switch::measure(trials),
        Part::Diagnostics => diagnostics::measure(trials),
        Part::Bandwidth => bandwidth::measure(trials),
        Part::Fidelity => fidelity::measure(trials),
        Part::Rates => rates::measure(trials),
        Part::Presets => presets::measure(trials),
    };
    for figure in figures? {
        let figure = Figure {
            part: Some(part),
            ..figure
        };
        let line = serde_json::to_string(&figure)?;
        writeln!(io::stdout(), "{line}").context("write a figure")?;
    }
    Ok(())
}
