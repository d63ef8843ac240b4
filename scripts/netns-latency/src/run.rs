//! A run: situations, trials, turns; then the report and the verdict.
//!
//! Observers take turns, so that a disturbance of the machine meets all of them and the ratios of a run
//! hold where its times do not. One operation is under way at a time.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::cli::{Arguments, EXCEEDED};
use crate::lab::{Interrupted, Labs};
use crate::plan::{Observer, Situation, Step};
use crate::progress::{self, Progress};
use crate::protocol::{Order, Thing};
use crate::report::{Machine, Measured, Report};
use crate::stats::Samples;
use crate::thresholds::Thresholds;

/// Between two operations in one lab: each finds everybody asleep and nothing left to publish.
const APART: Duration = Duration::from_millis(100);

/// Between two situations: the kernel takes deleted namespaces apart for a while after they are gone.
const CALM: Duration = Duration::from_secs(1);

/// Exit status after SIGINT, as shells give it.
const INTERRUPTED: u8 = 130;

/// Measures, reports and judges.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "needs root, for private mount and network namespaces: run scripts/netns-latency.sh"
    );
    let thresholds = Thresholds::load()?;
    let machine = Machine::read()?;
    let measured = match measure_all(arguments) {
        Err(error) if error.is::<Interrupted>() => {
            progress::say(error);
            return Ok(ExitCode::from(INTERRUPTED));
        }
        measured => measured?,
    };
    let situations = arguments.situations.clone();
    let report = Report::new(machine, arguments.trials, situations, &measured)?;
    io::stdout()
        .write_all(report.table().as_bytes())
        .context("write the table")?;
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    let Some(check) = arguments.check else {
        return Ok(ExitCode::SUCCESS);
    };
    let exceeded = thresholds.exceeded(&report.rows, check);
    for excess in &exceeded {
        progress::say(format_args!("exceeded: {excess}"));
    }
    Ok(if exceeded.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXCEEDED)
    })
}

/// Everything is stopped and gone when this returns, also with an error.
fn measure_all(arguments: &Arguments) -> anyhow::Result<Vec<Measured>> {
    let mut progress = Progress::new();
    progress.preparing("labs");
    let mut run = Run {
        labs: Labs::start(&Observer::ALL)?,
        last: Vec::new(),
    };
    let mut measured = Vec::new();
    for situation in &arguments.situations {
        progress.preparing(situation);
        measured.extend(run.measure(*situation, arguments.trials, &progress)?);
        progress.done(*situation, arguments.trials);
    }
    // The figures are good all the same.
    if let Err(error) = run.labs.stop() {
        progress::complain(&error);
    }
    Ok(measured)
}

struct Run {
    labs: Labs,
    /// When something was last done in a lab, newest at the end.
    last: Vec<(Observer, Instant)>,
}

impl Run {
    fn measure(
        &mut self,
        situation: Situation,
        trials: u32,
        progress: &Progress,
    ) -> anyhow::Result<Vec<Measured>> {
        let observers = situation.observers();
        for observer in observers {
            self.prepare(situation, *observer)?;
        }
        self.labs.quiet(CALM)?;
        let rows = self.trials(situation, trials, progress)?;
        for observer in observers {
            for order in situation.clean_up() {
                self.labs.perform(*observer, &order, None)?;
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
        let steps: Vec<_> = (0..trials).flat_map(|it| situation.trial(it)).collect();
        let of_one = situation.trial(0).len();
        let mut rows = Vec::new();
        for observer in observers {
            self.labs.look_out(*observer, &steps[0].thing)?;
        }
        for step in steps.iter().take(of_one) {
            for observer in observers {
                rows.push((situation, step.op, *observer, Samples::default()));
            }
        }
        for (index, step) in steps.iter().enumerate() {
            progress.trial(situation, index / of_one, trials);
            for observer in observers {
                let sample = self.turn(*observer, step, steps.get(index + 1))?;
                let row = rows
                    .iter_mut()
                    .find(|it| it.1 == step.op && it.2 == *observer);
                let (_, _, _, samples) = row.context("an operation of no trial")?;
                samples.push(sample);
            }
        }
        Ok(rows)
    }

    /// Brings a lab into the situation, and waits until its observer knows.
    fn prepare(&mut self, situation: Situation, observer: Observer) -> anyhow::Result<()> {
        let mut awaited = Vec::new();
        for (order, thing) in situation.preparation() {
            self.labs.perform(observer, &order, None)?;
            awaited.extend(thing);
        }
        // The floor sees only what it was told to look out for.
        if observer != Observer::Floor {
            self.labs.wait_seen(observer, &awaited)?;
        }
        Ok(())
    }

    /// One operation in one lab, when it is its turn.
    fn turn(
        &mut self,
        observer: Observer,
        step: &Step,
        following: Option<&Step>,
    ) -> anyhow::Result<Option<i64>> {
        self.labs.rest(self.free(observer))?;
        let awaited = (&step.thing, step.present);
        let sample = self.labs.perform(observer, &step.order, Some(awaited))?;
        if let Some(order) = &step.then {
            // Only the watcher speaks of the directory. Should it not, later trials tell.
            let gone = (*order == Order::Clear && observer == Observer::Watcher)
                .then_some((&Thing::Directory, false));
            self.labs.perform(observer, order, gone)?;
        }
        if let Some(following) = following {
            self.labs.look_out(observer, &following.thing)?;
        }
        self.last.retain(|(it, _)| *it != observer);
        self.last.push((observer, Instant::now()));
        Ok(sample)
    }

    /// When the next operation may be done in a lab.
    fn free(&self, observer: Observer) -> Instant {
        let own = self.last.iter().find(|(it, _)| *it == observer);
        let own = own.map(|(_, last)| *last + APART);
        let any = self.last.last().map(|(_, last)| *last + APART / 3);
        own.max(any).unwrap_or_else(Instant::now)
    }
}
