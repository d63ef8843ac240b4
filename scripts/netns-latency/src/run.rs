//! A run: situations, trials and turns, then the report and the limits.
//!
//! Observers take turns, so that a disturbance of the machine affects all of them. Then the ratios are valid even if the times
//! are not. One operation is in progress at a time.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, ensure};
use tcgui_tests::machine::Machine;

use crate::baseline::Comparison;
use crate::cli::{Arguments, EXCEEDED};
use crate::lab::{Interrupted, Labs, NOTHING, Outcome};
use crate::plan::{Observer, Situation, Step};
use crate::progress::{self, Progress};
use crate::protocol::{Order, Thing};
use crate::report::{Measured, Report, RunOptions};
use crate::stats::Samples;
use crate::thresholds::Thresholds;
use crate::{markdown, picture};

/// Pause between two situations, in which the kernel cleans up deleted namespaces.
const CALM: Duration = Duration::from_secs(1);

/// Exit status after SIGINT, as in shells.
const INTERRUPTED: u8 = 130;

/// Measures, prints the report and checks the limits.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let thresholds = Thresholds::load()?;
    // Read both before the measurement, which takes minutes.
    let baseline = arguments.baseline.as_deref().map(Report::read);
    let baseline = baseline.transpose()?;
    let report = match &arguments.from {
        Some(path) => Report::read(path)?,
        None => match measure(arguments) {
            Err(error) if error.is::<Interrupted>() => {
                progress::print(Interrupted);
                return Ok(ExitCode::from(INTERRUPTED));
            }
            report => report?,
        },
    };
    publish(&report, arguments, baseline.as_ref())?;
    let Some(check) = arguments.check else {
        return Ok(ExitCode::SUCCESS);
    };
    let exceeded = thresholds.exceeded(&report.rows, check);
    for excess in &exceeded {
        progress::print(format_args!("exceeded: {excess}"));
    }
    Ok(if exceeded.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXCEEDED)
    })
}

/// Prints the report and writes the files of the options. The JSON is written first, because everything else can be made from it.
fn publish(
    report: &Report,
    arguments: &Arguments,
    baseline: Option<&Report>,
) -> anyhow::Result<()> {
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    let mut text = report.table();
    if let Some(baseline) = baseline {
        write!(text, "\n{}", Comparison::new(baseline, report)).context("compare")?;
    }
    io::stdout()
        .write_all(text.as_bytes())
        .context("write the table")?;
    if let Some(path) = &arguments.svg {
        write_file(path, &picture::draw(report)?)?;
    }
    if let Some(path) = &arguments.markdown {
        write_file(path, &markdown::section(report))?;
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn measure(arguments: &Arguments) -> anyhow::Result<Report> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "needs root, for private mount and network namespaces: run scripts/netns-latency.sh"
    );
    let machine = Machine::read()?;
    let measured = measure_all(arguments)?;
    let options = RunOptions {
        trials: arguments.trials,
        situations: arguments.situations.clone(),
        many: arguments.many,
        command: env::args().skip(1).collect::<Vec<_>>().join(" "),
    };
    Report::new(machine, options, &measured)
}

/// Measures all situations. All processes have ended when this returns, even after an error.
fn measure_all(arguments: &Arguments) -> anyhow::Result<Vec<Measured>> {
    let mut progress = Progress::new();
    progress.preparing("labs");
    let mut run = Run {
        labs: Labs::new()?,
        last: Vec::new(),
        many: arguments.many,
    };
    let mut measured = Vec::new();
    for situation in &arguments.situations {
        progress.preparing(situation);
        let trials = situation.trials(arguments.trials);
        let rows = run.measure(*situation, trials, &progress);
        measured.extend(rows.with_context(|| format!("measure {situation}"))?);
        progress.done(*situation, trials);
    }
    // The figures are valid even if this fails.
    if let Err(error) = run.labs.stop() {
        progress::complain(&error);
    }
    Ok(measured)
}

/// Returns the samples of a step by an observer.
fn row_of<'a>(
    rows: &'a mut [Measured],
    step: &Step,
    observer: Observer,
) -> Option<&'a mut Samples> {
    let mut rows = rows.iter_mut();
    let row = rows.find(|row| row.1 == step.op && row.2 == observer);
    row.map(|(_, _, _, samples)| samples)
}

struct Run {
    labs: Labs,
    /// The time of the last operation in each lab.
    last: Vec<(Observer, Instant)>,
    /// The number of namespaces that stands for a thousand.
    many: u32,
}

impl Run {
    fn measure(
        &mut self,
        situation: Situation,
        trials: u32,
        progress: &Progress,
    ) -> anyhow::Result<Vec<Measured>> {
        let observers = situation.observers();
        self.labs.provide(situation.surroundings(), observers)?;
        for observer in observers {
            self.prepare(situation, *observer, progress)?;
        }
        self.labs.quiet(CALM)?;
        let rows = self.trials(situation, trials, progress)?;
        for observer in observers {
            for order in situation.clean_up() {
                self.labs.perform(*observer, &order, NOTHING)?;
            }
        }
        self.labs.quiet(CALM)?;
        Ok(rows)
    }

    fn trials(
        &mut self,
        situation: Situation,
        trials: u32,
        progress: &Progress,
    ) -> anyhow::Result<Vec<Measured>> {
        let observers = situation.observers();
        let steps: Vec<_> = (0..trials)
            .flat_map(|it| situation.trial(it, self.many))
            .collect();
        let of_one = situation.trial(0, self.many).len();
        let mut rows = Vec::new();
        for observer in observers {
            self.look_out(*observer, steps.first())?;
        }
        for step in steps.iter().take(of_one) {
            for observer in observers {
                if row_of(&mut rows, step, *observer).is_none() {
                    rows.push((situation, step.op, *observer, Samples::default()));
                }
            }
        }
        let apart = situation.apart();
        let at_once = apart.map_or(1, |_| of_one);
        let apart = apart.unwrap_or_default();
        for (index, turn) in steps.chunks(at_once).enumerate() {
            progress.trial(situation, index * at_once / of_one, trials);
            let pause = situation.pause(u32::try_from(index)?);
            for observer in observers {
                self.labs.rest(self.free(*observer, pause))?;
                let outcomes = self.turn(*observer, turn, apart)?;
                self.look_out(*observer, steps.get((index + 1) * at_once))?;
                for (step, outcome) in turn.iter().zip(outcomes) {
                    let samples = row_of(&mut rows, step, *observer);
                    let samples = samples.context("an operation of no trial")?;
                    samples.push(outcome.took_ns, outcome.missed);
                    if step.things.len() > 1 {
                        samples.push_lists(&outcome.lists);
                    }
                }
            }
        }
        Ok(rows)
    }

    /// Prepares a lab for the situation, and waits until its observer has seen that.
    fn prepare(
        &mut self,
        situation: Situation,
        observer: Observer,
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let mut awaited = Vec::new();
        let preparation = situation.preparation(self.many);
        let count = preparation.len();
        for (done, (order, thing)) in preparation.into_iter().enumerate() {
            progress.prepared(format_args!("{situation}, {observer}"), done, count);
            self.labs.perform(observer, &order, NOTHING)?;
            awaited.extend(thing);
        }
        // The floor only sees the awaited thing.
        if observer != Observer::Floor {
            self.labs.wait_seen(observer, &awaited)?;
        }
        Ok(())
    }

    /// Carries out the steps of one turn in a lab: one, or several at intervals of `apart`.
    fn turn(
        &mut self,
        observer: Observer,
        steps: &[Step],
        apart: Duration,
    ) -> anyhow::Result<Vec<Outcome>> {
        let orders: Vec<_> = steps
            .iter()
            .map(|step| (&step.order, (&step.things[..], step.present)))
            .collect();
        let outcomes = self.labs.perform_all(observer, &orders, apart)?;
        for order in steps.iter().filter_map(|step| step.then.as_ref()) {
            // Only the watcher reports the directory. If it does not, later trials reveal that.
            let speaks = *order == Order::Clear && observer == Observer::Watcher;
            let gone = (&[Thing::Directory][..], false);
            self.labs
                .perform(observer, order, if speaks { gone } else { NOTHING })?;
        }
        self.last.retain(|(it, _)| *it != observer);
        self.last.push((observer, Instant::now()));
        Ok(outcomes)
    }

    /// Sends the next awaited thing to an observer.
    fn look_out(&mut self, observer: Observer, next: Option<&Step>) -> anyhow::Result<()> {
        let next = next.and_then(|step| step.things.first());
        next.map_or(Ok(()), |thing| self.labs.look_out(observer, thing))
    }

    /// Returns the earliest time of the next operation in a lab.
    fn free(&self, observer: Observer, pause: Duration) -> Instant {
        let own = self.last.iter().find(|(it, _)| *it == observer);
        let own = own.map(|(_, last)| *last + pause);
        let any = self.last.last().map(|(_, last)| *last + pause / 3);
        own.max(any).unwrap_or_else(Instant::now)
    }
}
