//! Another kernel: Linux 6.1 with every qdisc in User Mode Linux, through `scripts/netem-vm.sh`.
//!
//! What cannot run there is a failure, never a pass.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;

use crate::measure;
use crate::process::{bound_to_parent, run};

/// The script that starts it.
pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/netem-vm.sh");

/// Of the machine; it needs a tenth of it when nothing else runs.
pub const LIMIT: Duration = Duration::from_secs(500);

/// System calls take a hundred times as long, but most of a test is waiting.
const PATIENCE: &str = "10";

/// What the machine has of its own at the same place.
const HIDDEN: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/dev/shm"];

/// Runs tests of a test program in a machine of their own, and returns its output. `arguments` chooses
/// them; exactly `count` have to pass.
///
/// # Errors
///
/// When one fails or does not run.
pub fn run_tests(program: &Path, arguments: &[&str], count: usize) -> anyhow::Result<String> {
    run_tests_within(LIMIT, program, arguments, count)
}

fn run_tests_within(
    limit: Duration,
    program: &Path,
    arguments: &[&str],
    count: usize,
) -> anyhow::Result<String> {
    let hidden = HIDDEN.iter().find(|hidden| program.starts_with(hidden));
    ensure!(
        hidden.is_none(),
        "{} cannot be seen in the machine: choose another CARGO_TARGET_DIR",
        program.display()
    );
    let output = run(bound_to_parent(SCRIPT)
        .args(["-t", &limit.as_secs().to_string(), "--"])
        .arg(program)
        .args(["--color=never", "--test-threads=1"])
        .args(arguments)
        .env("TCGUI_PATIENCE", PATIENCE))?;
    let passed = format!("test result: ok. {count} passed");
    ensure!(output.contains(&passed), "not {passed:?}: {output}");
    Ok(output)
}

/// Runs the ignored tests of a module of this test program in the machine, and reports what they measured.
///
/// # Errors
///
/// When there is none, or one fails or does not run.
pub fn run_ignored(module: &str, limit: Duration) -> anyhow::Result<()> {
    let program = env::current_exe()?;
    let chosen = ["--ignored", module];
    let count = count_tests(&program, &chosen)?;
    let output = run_tests_within(limit, &program, &chosen, count)?;
    let measured = output.lines().filter(|line| line.contains("measured: "));
    for line in measured {
        measure::report(line)?;
    }
    Ok(())
}

/// Returns how many tests of a program these arguments choose, at least one.
fn count_tests(program: &Path, arguments: &[&str]) -> anyhow::Result<usize> {
    let listed = run(Command::new(program).args(arguments).arg("--list"))?;
    let is_test = |line: &&str| line.ends_with(": test");
    let count = listed.lines().filter(is_test).count();
    ensure!(count > 0, "no test is chosen by {arguments:?}: {listed}");
    Ok(count)
}
