//! The labs: their processes, the messages of these, and their orderly end.
//!
//! The processes of a lab read from pipes of this process and end when these close. If this process is killed, the kernel kills
//! them (`tcgui_tests::process::bound_to_parent`).

mod process;

use std::collections::BTreeSet;
use std::env;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tcgui_tests::lab;
use tcgui_tests::process::bound_to_parent;

use self::process::{END, Event, Party, Process, heed_signals};
use crate::plan::{Observer, Surroundings};
use crate::protocol::{Message, Order, Sight, Thing};
use crate::role::Role;

/// Timeout for a reply of a process. The start of the daemon and a burst take longest.
const ANSWER: Duration = Duration::from_secs(30);

/// Time after which a change counts as missed.
const MISSED: Duration = Duration::from_secs(5);

/// Capacity of the event channel in lines. A process that writes more blocks, which happens with a thousand namespaces.
const EVENTS: usize = 1024;

/// The run was interrupted by a signal.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// One observer and its mounter.
#[derive(Debug)]
struct Lab {
    observer: Process,
    mounter: Process,
    /// The things that the observer sees now.
    picture: BTreeSet<Thing>,
}

/// The labs of a run. All labs have the same surroundings at a time.
#[derive(Debug)]
pub(crate) struct Labs {
    labs: Vec<(Observer, Lab)>,
    surroundings: Surroundings,
    /// The sender for new processes.
    tx: SyncSender<Event>,
    events: Receiver<Event>,
}

/// The things to wait for, and whether they appear (true) or disappear.
pub(crate) type Awaited<'a> = (&'a [Thing], bool);

/// Nothing to wait for.
pub(crate) const NOTHING: Awaited<'static> = (&[], true);

/// The result of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Time in ns from the order's time zero until the last thing was seen. `None` if one was missed or none was awaited.
    pub(crate) took_ns: Option<i64>,
    /// Number of things that were not seen.
    pub(crate) missed: usize,
    /// Arrivals of lists during the order on `CLOCK_MONOTONIC`, including those of concurrent orders.
    pub(crate) lists: Vec<u64>,
}

/// An order that was sent to a mounter.
#[derive(Debug)]
struct Pending<'a> {
    /// Its time zero. `None` until it was carried out.
    start: Option<u64>,
    /// The things that the observer has not seen yet.
    waiting: BTreeSet<&'a Thing>,
    present: bool,
    /// The time at which the last thing was seen.
    seen: Option<u64>,
}

impl<'a> Pending<'a> {
    fn new((things, present): Awaited<'a>) -> Self {
        Self {
            start: None,
            waiting: things.iter().collect(),
            present,
            seen: None,
        }
    }

    fn is_over(&self) -> bool {
        self.start.is_some() && self.waiting.is_empty()
    }

    /// Processes a sight of the observer. Returns whether this order waited for it.
    fn take(&mut self, sight: &Sight) -> bool {
        let is_awaited = sight.present == self.present && self.waiting.remove(&sight.thing);
        if is_awaited {
            self.seen = Some(sight.at_ns);
        }
        is_awaited
    }

    fn outcome(&self, lists: &[u64]) -> anyhow::Result<Outcome> {
        let missed = self.waiting.len();
        let took = self.start.zip(self.seen.filter(|_| missed == 0));
        let took_ns = took.map(|(start, seen)| difference(start, seen));
        Ok(Outcome {
            took_ns: took_ns.transpose()?,
            missed,
            lists: lists.to_vec(),
        })
    }
}

impl Labs {
    /// Creates an empty set of labs.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (tx, events) = mpsc::sync_channel(EVENTS);
        heed_signals(tx.clone())?;
        Ok(Self {
            labs: Vec::new(),
            surroundings: Surroundings::Usual,
            tx,
            events,
        })
    }

    /// Starts a lab with these surroundings for each of these observers, unless it exists.
    pub(crate) fn provide(
        &mut self,
        surroundings: Surroundings,
        observers: &[Observer],
    ) -> anyhow::Result<()> {
        if self.surroundings != surroundings {
            self.stop()?;
            self.surroundings = surroundings;
        }
        for observer in observers {
            if self.lab(*observer).is_err() {
                self.start(*observer)
                    .with_context(|| format!("start the lab of the {observer:?}"))?;
            }
        }
        Ok(())
    }

    fn start(&mut self, observer: Observer) -> anyhow::Result<()> {
        let program = env::current_exe().context("find the path of this program")?;
        let (lab, namespaces): (_, &[_]) = match self.surroundings {
            Surroundings::Usual => (lab::command(&program), &["--mount", "--net"]),
            Surroundings::NoInotify | Surroundings::NoDoorbells => (
                lab::command_with_limits(&program),
                &["--user", "--mount", "--net"],
            ),
            Surroundings::Announced => (lab::command_on_the_network(&program), &["--mount"]),
            Surroundings::Processes | Surroundings::Engines => {
                (lab::command_with_processes(&program), &["--mount", "--net"])
            }
        };
        let party = Party::Observer(observer);
        let role = (role_of(observer), self.surroundings);
        let eye = Process::start(lab, role, party, &self.tx)?;
        self.answer(party)?;

        let mut enter = bound_to_parent("nsenter");
        enter.args(["--target", &eye.pid().to_string()]);
        enter.args(namespaces);
        if self.surroundings.has_processes() {
            // The process that was started stays outside and waits for those inside.
            enter.arg(format!("--pid=/proc/{}/ns/pid_for_children", eye.pid()));
        }
        enter.arg("--").arg(&program);
        let party = Party::Mounter(observer);
        let role = (Role::Mounter, self.surroundings);
        let mounter = Process::start(enter, role, party, &self.tx)?;
        self.answer(party)?;
        let lab = Lab {
            observer: eye,
            mounter,
            picture: BTreeSet::new(),
        };
        self.labs.push((observer, lab));
        Ok(())
    }

    /// Carries out an order in a lab, and waits until its observer has seen everything that is awaited, or until the timeout.
    pub(crate) fn perform(
        &mut self,
        observer: Observer,
        order: &Order,
        awaited: Awaited<'_>,
    ) -> anyhow::Result<Outcome> {
        let mut outcomes = self.perform_all(observer, &[(order, awaited)], Duration::ZERO)?;
        outcomes.pop().context("an order without an outcome")
    }

    /// Carries out orders in a lab at intervals of `apart`, and waits until its observer has seen everything that is awaited, or
    /// until the timeout. No order waits until the preceding one was seen.
    pub(crate) fn perform_all(
        &mut self,
        observer: Observer,
        orders: &[(&Order, Awaited<'_>)],
        apart: Duration,
    ) -> anyhow::Result<Vec<Outcome>> {
        self.rest(Instant::now())?;
        let mut pending: Vec<Pending<'_>> = Vec::new();
        let (mut done, mut lists) = (0, Vec::new());
        let (mut next_order, mut deadline) = (Instant::now(), Instant::now() + ANSWER);
        loop {
            let untold = orders.get(pending.len());
            if let Some((order, awaited)) = untold.filter(|_| next_order <= Instant::now()) {
                self.lab(observer)?.mounter.tell(order)?;
                pending.push(Pending::new(*awaited));
                next_order += apart;
                deadline = Instant::now() + ANSWER;
                continue;
            }
            if untold.is_none() && pending.iter().all(Pending::is_over) {
                break;
            }
            let until = untold.map_or(deadline, |_| next_order.min(deadline));
            match self.next(until)? {
                Some(Event::Message(Party::Mounter(from), message)) if from == observer => {
                    let order = orders.get(done).map(|(order, _)| *order);
                    let order = order.context("an answer to no order")?;
                    let start = message.done();
                    let start = start.with_context(|| format!("{order} for the {observer:?}"))?;
                    if let Some(pending) = pending.get_mut(done) {
                        pending.start = Some(start);
                    }
                    done += 1;
                    let is_last = done == pending.len();
                    deadline = Instant::now() + if is_last { MISSED } else { ANSWER };
                }
                // The sight may arrive before the mounter's reply.
                Some(Event::Message(Party::Observer(from), Message::Saw(sight)))
                    if from == observer =>
                {
                    pending.iter_mut().any(|pending| pending.take(&sight));
                }
                Some(Event::Message(Party::Observer(from), Message::Listed { at_ns }))
                    if from == observer =>
                {
                    lists.push(at_ns);
                }
                None if untold.is_some() && until < deadline => {}
                None if done < pending.len() => {
                    let order = orders.get(done).map(|(order, _)| order.to_string());
                    bail!("{}: not done within {ANSWER:?}", order.unwrap_or_default());
                }
                Some(_) => {}
                None => break,
            }
        }
        let outcomes = pending.iter().map(|pending| pending.outcome(&lists));
        outcomes.collect()
    }

    /// Sends the next thing to an observer. Fails if the observer has ended.
    pub(crate) fn look_out(&mut self, observer: Observer, thing: &Thing) -> anyhow::Result<()> {
        self.lab(observer)?.observer.tell(thing)?;
        self.answer(Party::Observer(observer))
            .with_context(|| format!("the {observer:?} cannot wait for {thing:?}"))
    }

    /// Waits until an observer has seen all these things. Fails at the timeout.
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

    /// Waits until no message has arrived for this time.
    pub(crate) fn quiet(&mut self, calm: Duration) -> anyhow::Result<()> {
        while self.next(Instant::now() + calm)?.is_some() {}
        Ok(())
    }

    /// Processes messages until a time. Afterwards no older message is queued.
    pub(crate) fn rest(&mut self, until: Instant) -> anyhow::Result<()> {
        while self.next(until)?.is_some() {}
        Ok(())
    }

    /// Ends all labs in order.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        for (_, lab) in &mut self.labs {
            lab.mounter.dismiss();
            lab.observer.dismiss();
        }
        // A process that is blocked in a write would not end. Events of the old labs must not reach the new ones.
        let mut talking = self.labs.len() * 2;
        while talking > 0 {
            match self.events.recv_timeout(END) {
                Ok(Event::OutputEnded(_, None)) => talking -= 1,
                Ok(Event::OutputEnded(party, Some(error))) => {
                    return Err(error.context(format!("end {party:?}")));
                }
                Ok(Event::Interrupted) => return Err(Interrupted.into()),
                Ok(Event::Message(..)) => {}
                Err(_) => bail!("{talking} processes of the labs do not end"),
            }
        }
        for (observer, mut lab) in self.labs.drain(..) {
            let mounter = lab.mounter.end();
            mounter.with_context(|| format!("end the mounter of the {observer:?}"))?;
            let eye = lab.observer.end();
            eye.with_context(|| format!("end the {observer:?}"))?;
        }
        Ok(())
    }

    fn lab(&mut self, observer: Observer) -> anyhow::Result<&mut Lab> {
        let lab = self.labs.iter_mut().find(|(it, _)| *it == observer);
        Ok(&mut lab
            .with_context(|| format!("no lab of the {observer:?}"))?
            .1)
    }

    /// Waits until a process has carried out its order.
    fn answer(&mut self, party: Party) -> anyhow::Result<()> {
        let deadline = Instant::now() + ANSWER;
        loop {
            match self.next(deadline)? {
                Some(Event::Message(_, Message::Saw(_) | Message::Listed { .. })) => {}
                Some(Event::Message(from, message)) if from == party => {
                    return message.done().map(drop);
                }
                Some(_) => {}
                None => bail!("no answer within {ANSWER:?}"),
            }
        }
    }

    /// Returns the next message, or `None` at the deadline. A queued message is returned even after the deadline.
    fn next(&mut self, deadline: Instant) -> anyhow::Result<Option<Event>> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let event = match self.events.recv_timeout(patience) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("every process of the labs has ended"),
        };
        match &event {
            Event::Interrupted => return Err(Interrupted.into()),
            Event::OutputEnded(party, None) => bail!("{party:?} ended"),
            Event::OutputEnded(party, Some(error)) => bail!("{party:?}: {error:#}"),
            Event::Message(Party::Observer(from), Message::Saw(sight)) => {
                // While its observer starts, the lab does not exist yet. Sights from that time are not needed.
                if let Ok(lab) = self.lab(*from) {
                    if sight.present {
                        lab.picture.insert(sight.thing.clone());
                    } else {
                        lab.picture.remove(&sight.thing);
                    }
                }
            }
            Event::Message(..) => {}
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

/// Returns the time between two stamps. It is negative if the change was seen before time zero.
fn difference(start: u64, end: u64) -> anyhow::Result<i64> {
    Ok(i64::try_from(end)? - i64::try_from(start)?)
}
