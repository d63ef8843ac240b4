//! Decisions about traffic control: whose wish is carried out next, and what is published of it. Pure.
//!
//! One change of an interface is under way at a time. Of what arrives meanwhile only the newest is carried
//! out, since each wish describes the complete state; whoever sent an older one is answered with it. If the
//! newest ends, the newest that stays is carried out before it: that is what it goes back to. While
//! wishes keep arriving faster than they can be carried out (a slider that is moved), each change waits
//! longer for a newer one than the change before it. Whoever waits for each answer before sending the next wish
//! cannot always be told from that at first; there is less and less to wait for then, and soon nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::names::{BackendName, InterfaceName, NamespaceName};
use tcgui_shared::tc::{TcConfigUpdate, TcOperation, TcResponse};

mod leases;

use super::Moment;
use crate::backend::inventory::Inventory;
use crate::bus::{Answers, Reply, Sent, TcPublication};
use crate::kernel::link::Link;
use crate::kernel::netem::Netem;
use crate::lease::ledger::LeaseKey;
use crate::lease::terms::Terms;
use crate::lease::{BootTime, Lease};
use crate::sockets::Place;
use crate::tc::perform::Outcome;
use crate::tc::plan::{ForeignQdiscs, Plan};
use crate::tc::report;

/// After a frontend appeared, all configurations are published again so much later: one that came before
/// the frontend had the interface list was lost on it.
const REPEATS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// In a burst, the next change follows the last after so many times as long as the burst has lasted: few
/// changes, however fast the kernel, the sender and the machine are.
const PAUSE_FACTOR: u32 = 4;
/// But not after longer than this: whoever moves a slider wants to see what it does, and the last one is not to
/// be late.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// So many gaps may be in a burst before its pauses are halved.
const BURST_GAPS: u32 = 3;
/// Nothing is put off for less.
const SHORTEST_PAUSE: Duration = Duration::from_micros(500);
/// How long it is remembered that changes of an interface came without a burst.
const REMEMBERED: Duration = Duration::from_secs(1);

/// An interface in the words of the wire.
pub(in crate::backend) type Target = (NamespaceName, InterfaceName);

/// What is to be done to the qdisc of which link.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::backend) struct TcOrder {
    pub(in crate::backend) place: Place,
    /// As it was when the wish came.
    pub(in crate::backend) link: Link,
    pub(in crate::backend) work: TcWork,
    pub(in crate::backend) foreign: ForeignQdiscs,
    /// The lease under which the link is when the work begins.
    pub(in crate::backend) held: Option<Lease>,
    /// When the work begins.
    pub(in crate::backend) begun: BootTime,
}

/// The kinds of work on a qdisc.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::backend) enum TcWork {
    /// What was asked for, on these terms.
    Change {
        operation: Box<TcOperation>,
        terms: Terms,
    },
    /// What has to be confirmed is.
    Confirm,
    /// The scenario has given the interface up, and its lease ends without anything being restored.
    Release {
        /// Of the lease.
        id: String,
    },
    /// The lease has ended.
    Restore,
    /// Look whether something could be done, and at what.
    Look,
}

/// Who wants to know what became of a wish.
#[derive(Debug)]
pub(super) enum Asker {
    /// A client; what is in force is published before it is answered.
    Client(Reply<TcResponse>),
    /// An execution, whose next step must not wait for a slow client of the bus.
    Execution(Reply<TcResponse>),
}

/// The wish of a client or an execution to change a qdisc, or that of a lease to end.
#[derive(Debug)]
pub(in crate::backend) struct TcWish {
    pub(in crate::backend) order: TcOrder,
    target: Target,
    /// Those who sent it or what it supersedes.
    askers: Vec<Asker>,
    /// The scenario that it has ended.
    pub(super) ended: Option<Arc<str>>,
}

impl TcWish {
    pub(super) fn new(order: TcOrder, target: Target, asker: Option<Asker>) -> Self {
        Self {
            order,
            target,
            askers: asker.into_iter().collect(),
            ended: None,
        }
    }

    /// Returns whether what it asks for has no end.
    fn stays(&self) -> bool {
        match &self.order.work {
            TcWork::Change { terms, .. } => terms.stay(),
            TcWork::Confirm | TcWork::Release { .. } | TcWork::Restore | TcWork::Look => false,
        }
    }

    /// Returns whether it may be one of many, as a slider sends them.
    fn is_apply(&self) -> bool {
        match &self.order.work {
            TcWork::Change { operation, terms } => {
                terms.scenario.is_none() && **operation != TcOperation::Remove
            }
            TcWork::Confirm | TcWork::Release { .. } | TcWork::Restore | TcWork::Look => false,
        }
    }

    pub(super) fn lane(&self) -> LeaseKey {
        (self.order.place.key, self.order.link.ifindex)
    }
}

/// What became of a wish: the qdisc as read back, and when, or why not.
#[derive(Debug)]
pub(in crate::backend) struct TcOutcome {
    pub(in crate::backend) wish: Box<TcWish>,
    /// The lease that holds from now on.
    pub(in crate::backend) lease: Option<Lease>,
    pub(in crate::backend) result: Result<(Outcome, Instant), (ErrorKind, String)>,
}

/// What happens to one interface; there is one only while something does, and a little longer.
#[derive(Debug, Default)]
struct Lane {
    /// Since when a change is under way.
    begun: Option<Instant>,
    /// What comes next: at most a change that stays and then one that ends, which goes back to it …
    next: VecDeque<Box<TcWish>>,
    /// … and when, if nothing is under way.
    due: Option<Instant>,
    /// What a scenario gives up after all that: the next change may take it over, or fail to.
    release: Option<Box<TcWish>>,
    /// Who wants to know what is there once all that is done.
    look: Option<Box<TcWish>>,
    /// Since when changes have followed each other without a gap.
    burst: Option<Instant>,
    /// Changes since then, or without a burst, after which none waited: a burst has gaps when whoever sends it
    /// is slow.
    gaps: u32,
    last: Option<Last>,
}

/// The last change that may have been part of a burst.
#[derive(Debug)]
struct Last {
    begun: Instant,
    ended: Instant,
    /// Another one that comes before then may be of the same burst.
    until: Instant,
    /// Tells whether the client that sent it can know what came of it.
    answer: Option<Sent>,
}

impl Lane {
    /// Returns whether something is under way or waits.
    fn is_busy(&self) -> bool {
        self.begun.is_some() || self.due.is_some()
    }

    /// Returns how long the next change waits for a newer one; a change took `cost`. After a gap it is half as
    /// long, in a burst after a few: whoever waits for an answer before sending the next one is soon let alone.
    fn pause(&self, now: Instant, cost: Duration) -> Duration {
        let (pause, gaps) = match self.burst {
            Some(since) => {
                let lasted = now.saturating_duration_since(since);
                (whole_pause(lasted), self.gaps / BURST_GAPS)
            }
            None => (pause_without_burst(cost), self.gaps),
        };
        let pause = pause / 2_u32.saturating_pow(gaps);
        if pause < SHORTEST_PAUSE {
            Duration::ZERO
        } else {
            pause
        }
    }

    /// Notes that changes follow each other without a gap; the first that is known began then.
    fn note_burst(&mut self, begun: Instant) {
        self.burst.get_or_insert(begun);
        self.gaps = 0;
    }

    /// Returns how long an Apply that comes now, while nothing is under way, waits for a newer one.
    fn pause_after_last(&mut self, now: Instant) -> Duration {
        let Some(last) = &self.last else {
            return Duration::ZERO;
        };
        let (begun, until) = (last.begun, last.until);
        let cost = last.ended.saturating_duration_since(begun);
        if last.answer.as_ref().is_some_and(|it| !it.is_sent()) {
            // Who sends it does not wait for answers.
            self.note_burst(begun);
        } else if until <= now {
            if self.burst.take().is_some() {
                self.gaps = 0;
            }
            return Duration::ZERO;
        }
        self.pause(now, cost)
    }
}

/// The pause of a burst that has lasted so long and had no gaps.
fn whole_pause(lasted: Duration) -> Duration {
    (lasted * PAUSE_FACTOR).min(LONGEST_PAUSE)
}

/// The pause after the first change, which took `cost`: as if it were a burst of two.
fn pause_without_burst(cost: Duration) -> Duration {
    whole_pause(cost * 2)
}

/// What was published of an interface.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shown {
    /// There was a netem, and is none.
    Off,
    /// A netem; `None`: what it does could not be read.
    On(Option<Netem>),
}

/// All wishes, answers and publications about traffic control.
#[derive(Debug, Default)]
pub(super) struct TcDesk {
    /// Interfaces whose qdisc is being changed.
    lanes: HashMap<LeaseKey, Lane>,
    shown: BTreeMap<Target, Shown>,
    /// Namespaces to be compared with what was published.
    touched: BTreeSet<NamespaceName>,
    /// Those of which frontends do not know all interfaces yet: the list comes first.
    unlisted: BTreeSet<NamespaceName>,
    /// Wait for the publication of what they report.
    answers: Vec<(NamespaceName, Reply<TcResponse>, TcResponse)>,
    repeat_at: [Option<Instant>; REPEATS.len()],
    /// Interfaces of which a client may show something that is not in force.
    doubted: BTreeSet<Target>,
}

impl TcDesk {
    /// Takes a wish in and returns it if it can begin now.
    pub(super) fn enter(&mut self, mut wish: Box<TcWish>, now: Instant) -> Option<Box<TcWish>> {
        let lane = self.lanes.entry(wish.lane()).or_default();
        if !lane.is_busy() {
            let pause = if wish.is_apply() {
                lane.pause_after_last(now)
            } else {
                Duration::ZERO
            };
            if pause.is_zero() {
                lane.begun = Some(now);
                return Some(wish);
            }
            lane.due = Some(now + pause);
            lane.next.push_back(wish);
            return None;
        }
        if !wish.is_apply() {
            // Only of what a slider sends is there soon something newer.
            lane.due = lane.due.map(|due| due.min(now));
        } else if lane.due.is_some() && lane.next.back().is_some_and(|it| it.is_apply()) {
            // One has waited for this one.
            let begun = lane.last.as_ref().map_or(now, |last| last.begun);
            lane.note_burst(begun);
        }
        match wish.order.work {
            TcWork::Look => {
                if let Some(superseded) = lane.look.take() {
                    wish.askers.splice(0..0, superseded.askers);
                }
                lane.look = Some(wish);
                return None;
            }
            TcWork::Release { .. } => {
                lane.release = Some(wish);
                return None;
            }
            TcWork::Change { .. } | TcWork::Confirm | TcWork::Restore => {}
        }
        // What stays is what comes back when the other ends: it is not left out for that.
        let stays = wish.stays();
        while let Some(superseded) = lane.next.pop_back_if(|it| stays || !it.stays()) {
            wish.askers.splice(0..0, superseded.askers);
            wish.ended = wish.ended.take().or(superseded.ended);
        }
        lane.next.push_back(wish);
        None
    }

    /// Returns whether something is under way or waits for an interface.
    pub(super) fn is_busy(&self, lane: LeaseKey) -> bool {
        self.lanes.get(&lane).is_some_and(Lane::is_busy)
    }

    /// Notes that the wish under way is done.
    pub(super) fn leave(&mut self, wish: &mut TcWish, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&wish.lane()) else {
            return;
        };
        let begun = lane.begun.take().unwrap_or(now);
        if !lane.next.is_empty() || lane.release.is_some() || lane.look.is_some() {
            lane.due = Some(now);
        }
        if !wish.is_apply() {
            return;
        }
        let cost = now.saturating_duration_since(begun);
        if lane.next.back().is_some_and(|newest| newest.is_apply()) {
            lane.note_burst(begun);
            lane.due = Some(now + lane.pause(now, cost));
        } else {
            lane.gaps = lane.gaps.saturating_add(1);
        }
        let open = match lane.burst {
            Some(_) => LONGEST_PAUSE,
            None => pause_without_burst(cost),
        };
        let answer = wish.askers.iter_mut().rev().find_map(|asker| match asker {
            Asker::Client(reply) => Some(reply.sent()),
            Asker::Execution(_) => None,
        });
        lane.last = Some(Last {
            begun,
            ended: now,
            until: now + open,
            answer,
        });
    }

    /// Returns the wishes that begin now.
    pub(super) fn begin(&mut self, now: Instant) -> impl Iterator<Item = Box<TcWish>> {
        self.lanes.retain(|_, lane| {
            let last = lane.last.as_ref();
            lane.is_busy() || last.is_some_and(|last| now < last.ended + REMEMBERED)
        });
        self.lanes.values_mut().filter_map(move |lane| {
            lane.due.take_if(|due| *due <= now)?;
            lane.begun = Some(now);
            let next = lane.next.pop_front().or_else(|| lane.release.take());
            next.or_else(|| lane.look.take())
        })
    }

    /// Gives up what was not begun.
    pub(super) fn clear_waiting(&mut self) {
        self.lanes.retain(|_, lane| {
            lane.next.clear();
            lane.release = None;
            lane.look = None;
            lane.begun.is_some()
        });
    }

    /// Something about the interfaces of these namespaces may have changed since the last list.
    pub(super) fn links_changed(&mut self, names: impl IntoIterator<Item = NamespaceName>) {
        for name in names {
            self.unlisted.insert(name.clone());
            self.touched.insert(name);
        }
    }

    /// A netem of these namespaces was read back; their interfaces are the same.
    pub(super) fn netem_changed(&mut self, names: impl IntoIterator<Item = NamespaceName>) {
        self.touched.extend(names);
    }

    /// A request was refused: what is in force is to be published again.
    pub(super) fn repeat(&mut self, target: Target) {
        self.doubted.insert(target);
    }

    /// All interfaces are in the list that goes out now.
    pub(super) fn listed(&mut self) {
        self.unlisted.clear();
    }

    /// Answers a wish: clients once what it led to is published.
    pub(super) fn answer(&mut self, wish: TcWish, response: &TcResponse) {
        let TcWish {
            target: (netns, _),
            askers,
            ..
        } = wish;
        let newest = askers.len().saturating_sub(1);
        for (number, asker) in askers.into_iter().enumerate() {
            match asker {
                Asker::Client(reply) => {
                    // Whoever was superseded knows already that more has to be done. There may be hundreds.
                    let reply = if number < newest {
                        reply.yielding()
                    } else {
                        reply
                    };
                    self.answers.push((netns.clone(), reply, response.clone()));
                }
                Asker::Execution(reply) => reply.send(response.clone()),
            }
        }
    }

    /// Returns whether an answer waits for a list that would otherwise come later.
    pub(super) fn is_urgent(&self) -> bool {
        let waits = |(netns, ..): &(NamespaceName, _, _)| self.unlisted.contains(netns);
        self.answers.iter().any(waits)
    }

    /// Returns the answers that go out with the publication that is made now.
    pub(super) fn take_answers(&mut self) -> Answers {
        let answers = std::mem::take(&mut self.answers);
        answers
            .into_iter()
            .map(|(_, reply, response)| (reply, response))
            .collect()
    }

    /// A frontend has joined.
    pub(super) fn frontend_joined(&mut self, now: Instant) {
        // What is due already stays so, or frontends that come and go would put it off for ever.
        for (at, after) in self.repeat_at.iter_mut().zip(REPEATS) {
            at.get_or_insert(now + after);
        }
    }

    /// Returns when a wish that waits is to begin.
    pub(super) fn begin_at(&self) -> Option<Instant> {
        self.lanes.values().filter_map(|lane| lane.due).min()
    }

    /// Returns when something is to be published though nothing changes.
    pub(super) fn publish_at(&self) -> Option<Instant> {
        if self.shown.is_empty() {
            return None;
        }
        self.repeat_at.iter().flatten().min().copied()
    }

    /// Compares the netems that are with those that were published.
    pub(super) fn changes(
        &mut self,
        inventory: &Inventory,
        backend: &BackendName,
        moment: Moment,
    ) -> Vec<TcPublication> {
        let mut changes = Vec::new();
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= moment.now).is_some();
        if self
            .repeat_at
            .iter_mut()
            .filter_map(|at| due(at).then_some(()))
            .count()
            > 0
        {
            for (target, shown) in &self.shown {
                if *shown != Shown::Off {
                    changes.push(publication(target, Some(shown), backend, moment));
                }
            }
        }
        let ready: Vec<_> = self.touched.difference(&self.unlisted).cloned().collect();
        for netns in ready {
            self.touched.remove(&netns);
            self.compare(&netns, inventory, |target, shown| {
                changes.push(publication(target, shown, backend, moment));
            });
        }
        let doubted = std::mem::take(&mut self.doubted);
        for target in doubted {
            if self.unlisted.contains(&target.0) {
                // Frontends do not know the interface before the list.
                self.doubted.insert(target);
            } else if inventory.shows(&target.0, &target.1) {
                let shown = self.shown.get(&target);
                // An interface that never had a netem has no publisher, and gets none for a refusal.
                changes.push(TcPublication {
                    is_kept: shown.is_some(),
                    ..publication(&target, shown.or(Some(&Shown::Off)), backend, moment)
                });
            }
        }
        changes
    }

    /// Calls `differs` for each interface of a namespace of which something else was published; with
    /// `None` when it is gone.
    fn compare(
        &mut self,
        netns: &NamespaceName,
        inventory: &Inventory,
        mut differs: impl FnMut(&Target, Option<&Shown>),
    ) {
        let present: BTreeMap<_, _> = inventory
            .netems(netns)
            .iter()
            .map(|(interface, netem)| ((netns.clone(), interface.clone()), Shown::On(*netem)))
            .collect();
        let before: Vec<_> = self
            .shown
            .keys()
            .filter(|(known, _)| known == netns)
            .filter(|target| !present.contains_key(*target))
            .cloned()
            .collect();
        for target in before {
            if !inventory.shows(&target.0, &target.1) {
                self.shown.remove(&target);
                differs(&target, None);
            } else if self.shown.insert(target.clone(), Shown::Off) != Some(Shown::Off) {
                differs(&target, Some(&Shown::Off));
            }
        }
        for (target, shown) in present {
            if self.shown.insert(target.clone(), shown) != Some(shown) {
                differs(&target, Some(&shown));
            }
        }
    }
}

fn publication(
    (netns, interface): &Target,
    shown: Option<&Shown>,
    backend: &BackendName,
    moment: Moment,
) -> TcPublication {
    let ifname = interface.to_wire();
    let update = shown.map(|shown| TcConfigUpdate {
        namespace: netns.to_wire(),
        interface: ifname.clone(),
        backend_name: backend.to_string(),
        timestamp: moment.unix_s,
        configuration: match shown {
            Shown::On(Some(netem)) => Some(report::configuration(&ifname, netem)),
            Shown::On(None) | Shown::Off => None,
        },
        has_tc: *shown != Shown::Off,
    });
    TcPublication {
        netns: netns.clone(),
        interface: interface.clone(),
        update,
        is_kept: true,
    }
}

/// Says what is in force now, as the kernel reports it, and until when if a lease holds.
pub(super) fn response(
    wish: &TcWish,
    outcome: &Outcome,
    lease: Option<&Lease>,
    moment: Moment,
) -> TcResponse {
    let (netns, interface) = &wish.target;
    let ifname = interface.to_wire();
    let netem = outcome.observed.netem();
    let mut message = match (netem, outcome.plan) {
        (Some(netem), _) => format!(
            "netem is in force on {ifname} in {netns}, its queue holds {} packets",
            netem.limit
        ),
        (None, Plan::Delete { .. }) => format!("netem is removed from {ifname} in {netns}"),
        (None, _) => format!("there is no netem on {ifname} in {netns}"),
    };
    for note in &outcome.notes {
        message.push_str("; ");
        message.push_str(&note.to_string());
    }
    if let Some(scenario) = &wish.ended {
        message.push_str(&format!(
            "; the scenario {scenario:?} that ran there is stopped"
        ));
    }
    let ends_in = lease.and_then(Lease::ends).map(|at| at.since(moment.boot));
    match (ends_in, lease.and_then(|lease| lease.confirm_by)) {
        (Some(time), None) => message.push_str(&format!("; it ends in {time:?}")),
        (Some(time), Some(_)) => {
            message.push_str(&format!("; it ends in {time:?} unless it is confirmed"));
        }
        (None, _) if wish.order.work == TcWork::Confirm => message.push_str("; it stays"),
        (None, _) => {}
    }
    let applied = netem.map(|netem| report::configuration(&ifname, netem));
    let expires_at = ends_in.map(|time| {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        moment.unix_ms.saturating_add(ms)
    });
    TcResponse {
        expires_at,
        ..TcResponse::success(message, applied)
    }
}
