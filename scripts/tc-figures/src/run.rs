//! A run: measures every part in its environment, one after the other, then prints the report and checks the limits.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tcgui_tests::machine::Machine;
use tcgui_tests::{daemon, lab, netem_kernel};

use crate::cli::{Arguments, EXCEEDED};
use crate::figure::Figure;
use crate::part::{Part, Stage};
use crate::progress;
use crate::report::{Baseline, Report};
use crate::thresholds::Thresholds;

/// Time limit of a part that runs on a kernel with netem, and the addition for each trial. An idle machine with an emulated
/// processor needs a fifth of it.
const NETEM_LIMIT: Duration = Duration::from_secs(300);
const NETEM_LIMIT_PER_TRIAL: Duration = Duration::from_secs(5);

/// Exit status after SIGINT, as in shells.
const INTERRUPTED: u8 = 130;

/// Measures, prints the report and checks the limits.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "needs root, for private mount and network namespaces: run scripts/tc-figures.sh"
    );
    let baseline = arguments.baseline.as_deref().map(Baseline::read);
    let baseline = baseline.transpose()?;
    let thresholds = Thresholds::load()?;
    let machine = Machine::read()?;
    let interrupted = heed_interrupts()?;
    let mut figures = Vec::new();
    for part in &arguments.parts {
        let measured = measure(*part, arguments.trials);
        if interrupted.load(Ordering::Relaxed) {
            progress::say("interrupted");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        figures.extend(measured.with_context(|| format!("measure {part}"))?);
    }
    let report = Report::new(machine, arguments.trials, daemon::is_optimised()?, figures)?;
    let table = report.table(&thresholds, baseline.as_ref());
    io::stdout()
        .write_all(table.as_bytes())
        .context("write the table")?;
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    let Some(check) = arguments.check else {
        return Ok(ExitCode::SUCCESS);
    };
    let exceeded = thresholds.exceeded(&report.figures, &arguments.parts, check);
    for excess in &exceeded {
        progress::say(format_args!("exceeded: {excess}"));
    }
    Ok(if exceeded.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXCEEDED)
    })
}

/// Environment of the process that switches links and reads a list of a thousand namespaces after each change. That process frees
/// thousands of small memory blocks. With fastbins, the next large allocation merges them, which takes a millisecond
/// (`malloc_consolidate`, see "Memory Allocation Tunables" in the glibc manual), usually while a reply is read. The daemon is
/// started without this setting.
pub(crate) const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.mxfast=0");

/// Measures one part in a process in the environment of that part.
fn measure(part: Part, trials: u32) -> anyhow::Result<Vec<Figure>> {
    let started = Instant::now();
    let mut command = command(part, trials)?;
    if part == Part::Switch {
        command.env(TUNABLES.0, TUNABLES.1);
    }
    let mut child = command
        .args(["--inside", part.word(), "--trials", &trials.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the process that measures")?;
    let output = child.stdout.take().context("no pipe was made")?;
    let mut figures = Vec::new();
    let mut strange = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        match serde_json::from_str::<Figure>(&line) {
            Ok(figure) => figures.push(figure),
            Err(_) => strange.push(line),
        }
    }
    let status = child.wait()?;
    ensure!(
        status.success() && strange.is_empty(),
        "{status}; it also printed: {strange:?}"
    );
    let seconds = started.elapsed().as_secs();
    progress::say(format_args!(
        "{part}: {} figures in {seconds} s",
        figures.len()
    ));
    Ok(figures)
}

/// Returns a command that starts this program in the environment of a part.
fn command(part: Part, trials: u32) -> anyhow::Result<Command> {
    let program = env::current_exe().context("find the path of this program")?;
    match part.stage() {
        Stage::Lab => Ok(lab::command(program)),
        Stage::NetemKernel => {
            let limit = NETEM_LIMIT + NETEM_LIMIT_PER_TRIAL * trials;
            netem_kernel::command(&[], limit, &program)
        }
    }
}

/// Catches SIGINT, which all processes in the foreground receive. The child processes end by themselves and clean up, then this
/// program ends.
fn heed_interrupts() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime for signals")?;
    let guard = runtime.enter();
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    drop(guard);
    let flag = Arc::clone(&interrupted);
    thread::spawn(move || {
        runtime.block_on(async {
            while interrupt.recv().await.is_some() {
                flag.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(interrupted)
}
