//! The labs: their processes, what these say, and their orderly end.
//!
//! The processes of a lab read from pipes of this process and end when those close. Should this process
//! be killed, the kernel kills them (`tcgui_tests::process::bound_to_parent`).

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;
use tcgui_tests::wait::wait_for;
use tcgui_tests::{lab, process};
use tokio::signal::unix::{SignalKind, signal};

use crate::plan::Observer;
use crate::protocol::{self, Message, Order, Thing};
use crate::role::Role;

/// Whoever does not answer in this time hangs; the daemon's start is the longest.
const ANSWER: Duration = Duration::from_secs(30);

/// What was not seen in this time is missed.
const MISSED: Duration = Duration::from_secs(5);

/// A process that does not end in this time is killed; the daemon has 2 s itself.
const END: Duration = Duration::from_secs(5);

/// Lines that wait to be read; two hundred namespaces cause three times as many.
const EVENTS: usize = 1024;

/// What reaches the main thread.
#[derive(Debug)]
enum Event {
    Said(Party, Message),
    /// Says nothing that can be understood any more; `None` at the end of its output.
    Silent(Party, Option<anyhow::Error>),
    Interrupted,
}

/// A process of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Party {
    Mounter(Observer),
    Observer(Observer),
}

/// The run was interrupted by a signal.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

#[derive(Debug)]
struct Process {
    child: Child,
    /// Closed to end the process.
    stdin: Option<ChildStdin>,
}

/// One observer and its mounter.
#[derive(Debug)]
struct Lab {
    observer: Process,
    mounter: Process,
    /// What the observer sees now.
    picture: BTreeSet<Thing>,
}

/// All labs of a run.
#[derive(Debug)]
pub(crate) struct Labs {
    labs: Vec<(Observer, Lab)>,
    events: Receiver<Event>,
}

/// Something to wait for: a thing comes (true) or goes.
pub(crate) type Awaited<'a> = (&'a Thing, bool);

impl Labs {
    /// Starts a lab for each observer.
    pub(crate) fn start(observers: &[Observer]) -> anyhow::Result<Self> {
        let (tx, events) = mpsc::sync_channel(EVENTS);
        heed_signals(tx.clone())?;
        let mut labs = Self {
            labs: Vec::new(),
            events,
        };
        for observer in observers {
            let program = env::current_exe().context("find the path of this program")?;
            let lab = lab::command(&program);
            let eye = Process::start(lab, role_of(*observer), Party::Observer(*observer), &tx)?;
            labs.answer(Party::Observer(*observer))?;
            let mut enter = process::bound_to_parent("nsenter");
            let pid = eye.child.id().to_string();
            enter
                .args(["--target", &pid, "--mount", "--net", "--"])
                .arg(&program);
            let mounter = Process::start(enter, Role::Mounter, Party::Mounter(*observer), &tx)?;
            labs.answer(Party::Mounter(*observer))?;
            labs.labs.push((
                *observer,
                Lab {
                    observer: eye,
                    mounter,
                    picture: BTreeSet::new(),
                },
            ));
        }
        Ok(labs)
    }

    /// Carries out an order in a lab. Returns the time from its time zero to the first sight of what is
    /// awaited, in ns; none when that was missed.
    pub(crate) fn perform(
        &mut self,
        observer: Observer,
        order: &Order,
        awaited: Option<Awaited<'_>>,
    ) -> anyhow::Result<Option<i64>> {
        self.rest(Instant::now())?;
        self.lab(observer)?.mounter.tell(order)?;
        let (mut start, mut seen) = (None, None);
        let mut deadline = Instant::now() + ANSWER;
        while start.is_none() || (awaited.is_some() && seen.is_none()) {
            match self.next(deadline)? {
                Some(Event::Said(Party::Mounter(from), message)) if from == observer => {
                    let done = message.done();
                    start = Some(done.with_context(|| format!("{order:?} for the {observer:?}"))?);
                    deadline = Instant::now() + MISSED;
                }
                // It may come before the mounter's answer.
                Some(Event::Said(Party::Observer(from), Message::Saw(sight)))
                    if from == observer && awaited == Some((&sight.thing, sight.present)) =>
                {
                    seen.get_or_insert(sight.at_ns);
                }
                Some(_) => {}
                None if start.is_none() => bail!("{order:?} not done within {ANSWER:?}"),
                None => return Ok(None),
            }
        }
        start
            .zip(seen)
            .map(|(start, seen)| difference(start, seen))
            .transpose()
    }

    /// Tells an observer what comes next; fails when it cannot see any more.
    pub(crate) fn look_out(&mut self, observer: Observer, thing: &Thing) -> anyhow::Result<()> {
        self.lab(observer)?.observer.tell(thing)?;
        self.answer(Party::Observer(observer))
            .with_context(|| format!("the {observer:?} cannot look out for {thing:?}"))
    }

    /// Waits until an observer sees all these; fails when it does not.
    pub(crate) fn wait_seen(&mut self, observer: Observer, things: &[Thing]) -> anyhow::Result<()> {
        let deadline = Instant::now() + ANSWER;
        loop {
            let picture = &self.lab(observer)?.picture;
            let missing = things.iter().find(|thing| !picture.contains(thing));
            let Some(missing) = missing.cloned() else {
                return Ok(());
            };
            if self.next(deadline)?.is_none() {
                bail!("the {observer:?} did not see {missing:?} within {ANSWER:?}");
            }
        }
    }

    /// Waits until nothing has been said for a while.
    pub(crate) fn quiet(&mut self, calm: Duration) -> anyhow::Result<()> {
        while self.next(Instant::now() + calm)?.is_some() {}
        Ok(())
    }

    /// Takes what is said until a time; afterwards nothing older waits to be read.
    pub(crate) fn rest(&mut self, until: Instant) -> anyhow::Result<()> {
        while self.next(until)?.is_some() {}
        Ok(())
    }

    /// Ends all processes in an orderly way.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        for (_, lab) in &mut self.labs {
            lab.mounter.stdin = None;
            lab.observer.stdin = None;
        }
        for (observer, lab) in &mut self.labs {
            lab.mounter
                .end()
                .with_context(|| format!("end the mounter of the {observer:?}"))?;
            lab.observer
                .end()
                .with_context(|| format!("end the {observer:?}"))?;
        }
        Ok(())
    }

    fn lab(&mut self, observer: Observer) -> anyhow::Result<&mut Lab> {
        let lab = self.labs.iter_mut().find(|(it, _)| *it == observer);
        Ok(&mut lab
            .with_context(|| format!("no lab of the {observer:?}"))?
            .1)
    }

    /// Waits until a process has done what it was told.
    fn answer(&mut self, party: Party) -> anyhow::Result<()> {
        let deadline = Instant::now() + ANSWER;
        loop {
            match self.next(deadline)? {
                Some(Event::Said(_, Message::Saw(_))) => {}
                Some(Event::Said(from, message)) if from == party => {
                    return message.done().map(drop);
                }
                Some(_) => {}
                None => bail!("no answer within {ANSWER:?}"),
            }
        }
    }

    /// The next thing that is said, none when the deadline passes first. What was said before the
    /// deadline is returned even if that has passed.
    fn next(&mut self, deadline: Instant) -> anyhow::Result<Option<Event>> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let event = match self.events.recv_timeout(patience) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("every process of the labs is gone"),
        };
        match &event {
            Event::Interrupted => return Err(Interrupted.into()),
            Event::Silent(party, None) => bail!("{party:?} ended"),
            Event::Silent(party, Some(error)) => bail!("{party:?}: {error:#}"),
            Event::Said(Party::Observer(from), Message::Saw(sight)) => {
                // There is no lab yet while its observer starts: what it sees then is not asked for.
                if let Ok(lab) = self.lab(*from) {
                    if sight.present {
                        lab.picture.insert(sight.thing.clone());
                    } else {
                        lab.picture.remove(&sight.thing);
                    }
                }
            }
            Event::Said(..) => {}
        }
        Ok(Some(event))
    }
}

fn role_of(observer: Observer) -> Role {
    match observer {
        Observer::Floor => Role::Floor,
        Observer::Watcher => Role::Watcher,
        Observer::Client => Role::Client,
    }
}

/// Negative when it was seen before time zero.
fn difference(start: u64, end: u64) -> anyhow::Result<i64> {
    Ok(i64::try_from(end)? - i64::try_from(start)?)
}

impl Process {
    /// Starts a role of this program. In a process group of its own, so that Ctrl-C reaches only the
    /// parent, which ends the others in order.
    fn start(
        mut command: Command,
        role: Role,
        party: Party,
        events: &SyncSender<Event>,
    ) -> anyhow::Result<Self> {
        let role = role.to_possible_value().context("a role has a name")?;
        let mut child = command
            .args(["--role", role.get_name()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start the {}", role.get_name()))?;
        let stdin = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .context("standard output of a process")?;
        let events = events.clone();
        thread::spawn(move || listen(party, stdout, &events));
        Ok(Self { child, stdin })
    }

    fn tell(&mut self, what: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        let stdin = self.stdin.as_mut().context("told to end already")?;
        stdin
            .write_all(&line)
            .context("the process does not listen")
    }

    fn end(&mut self) -> anyhow::Result<()> {
        let child = &mut self.child;
        let look = || child.try_wait().ok().flatten();
        let status = wait_for("the process ends", END, look, Option::is_some)?;
        ensure!(
            status.is_some_and(|it| it.success()),
            "it failed: {status:?}"
        );
        Ok(())
    }
}

impl Drop for Process {
    /// Lets the process end by itself, so that it cleans up, and kills it if it does not.
    fn drop(&mut self) {
        self.stdin = None;
        if self.end().is_err() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Passes on what a process says, until nobody listens or it ends.
fn listen(party: Party, stdout: ChildStdout, events: &SyncSender<Event>) {
    for line in BufReader::new(stdout).lines() {
        let message = line
            .map_err(anyhow::Error::from)
            .and_then(|line| protocol::parse(&line));
        let event = match message {
            Ok(message) => Event::Said(party, message),
            Err(error) => Event::Silent(party, Some(error)),
        };
        if events.send(event).is_err() {
            return;
        }
    }
    events.send(Event::Silent(party, None)).ok();
}

/// Turns signals that ask for the end into an event; a thread of its own waits for them.
fn heed_signals(events: SyncSender<Event>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime for signals")?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        events.send(Event::Interrupted).ok();
    });
    Ok(())
}
