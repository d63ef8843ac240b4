//! The decisions of the actor: what to look at when, and what is news.
//!
//! Pure: no socket, no clock. `W` is whoever waits for a refresh.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::generations::number;
use super::kernel::{LookOrder, Seen};
use super::strangers::{StrangerWatch, Strangers};
use super::{InterfacesEvent, Links, LookError, Snapshot};
use crate::kernel::link::Link;
use crate::kernel::netns::{NetnsKey, NetnsRef};
use crate::kernel::rtnetlink::{KernelEvent, Nsid};
use crate::pacing::Pacing;

/// Looks under way at once: one more than the kernel's rtnl lock lets run, so that it never idles.
pub(super) const LOOKS: usize = 2;
/// A namespace that rings without end is looked at for a tenth of the time.
const LOOK_PACING: Pacing = Pacing::new(10, Duration::ZERO, Duration::from_millis(100));
/// How long a dump waits after a change of our own. The change is read back and answered first, which takes a millisecond or two
/// on one slow processor. A refresh does not wait.
pub(super) const AFTER_OWN: Duration = Duration::from_millis(5);
/// First and longest pause after a look that failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

/// A sweep is spread over its interval in so many parts: a thousand looks in one go would take a core
/// for a quarter of a second.
const SWEEP_PARTS: u16 = 16;

/// A look that finished.
#[derive(Debug)]
pub(super) struct DumpDone {
    pub(super) key: NetnsKey,
    pub(super) generation: u64,
    pub(super) began: Instant,
    pub(super) cost: Duration,
    pub(super) result: Result<Seen, LookError>,
}

/// Those who waited for a look, and what it saw.
#[derive(Debug)]
pub(super) struct Answer<W> {
    pub(super) waiters: Vec<W>,
    pub(super) result: Result<Snapshot, Arc<LookError>>,
}

#[derive(Debug)]
struct Tracked<W> {
    /// Tells this entry from an earlier one of the same namespace, whose looks may still be under way.
    generation: u64,
    netns_refs: Vec<NetnsRef>,
    nsid: Option<Nsid>,
    looking: bool,
    /// What the next look sees is to be reported, be it news or not …
    recheck: bool,
    /// … and what the one under way sees.
    rechecking: bool,
    pacing: Pacing,
    retry: Option<(Instant, Duration)>,
    links: Option<Links>,
    /// The links that were seen last, also when nothing leads to the namespace now: their generations go on.
    last: Links,
    /// The indexes of links that the kernel has deleted since then.
    deleted: Vec<u32>,
    /// It may have deleted others: events were lost.
    is_unsure: bool,
    /// When the look began that saw them last.
    began: Instant,
    /// Waiting for the look under way, and for the one after it.
    served: Vec<W>,
    waiting: Vec<W>,
    unreadable: bool,
}

/// All tracked namespaces.
#[derive(Debug)]
pub(super) struct Tracker<W> {
    tracked: HashMap<NetnsKey, Tracked<W>>,
    by_nsid: HashMap<Nsid, Vec<NetnsKey>>,
    /// To be looked at, in the order in which they rang; one that is being looked at may be here again.
    due: VecDeque<NetnsKey>,
    generation: u64,
    /// The last generation that a link got.
    link_generation: u64,
    looking: usize,
    news: VecDeque<NetnsKey>,
    strangers: StrangerWatch,
    started: Instant,
    /// From one part of a sweep to the next.
    sweep_step: Duration,
    next_part: (Instant, u16),
}

impl<W> Tracker<W> {
    pub(super) fn new(now: Instant, sweep_interval: Duration, strangers: Strangers) -> Self {
        let sweep_step = sweep_interval / u32::from(SWEEP_PARTS);
        Self {
            tracked: HashMap::new(),
            by_nsid: HashMap::new(),
            due: VecDeque::new(),
            generation: 0,
            link_generation: 0,
            looking: 0,
            news: VecDeque::new(),
            strangers: StrangerWatch::new(strangers),
            started: now,
            sweep_step,
            next_part: (now + sweep_step, 0),
        }
    }

    /// Adds a namespace, or one more reference to it. It is dumped again: the known links may belong to a dead namespace whose
    /// end was not reported yet, or the new reference may work where the others failed.
    pub(super) fn track(&mut self, key: NetnsKey, netns_ref: Option<NetnsRef>) {
        self.generation += 1;
        let generation = self.generation;
        let tracked = self.tracked.entry(key).or_insert_with(|| Tracked {
            generation,
            netns_refs: Vec::new(),
            nsid: None,
            looking: false,
            recheck: false,
            rechecking: false,
            pacing: LOOK_PACING,
            retry: None,
            links: None,
            last: Links::from([]),
            deleted: Vec::new(),
            is_unsure: false,
            began: self.started,
            served: Vec::new(),
            waiting: Vec::new(),
            unreadable: false,
        });
        tracked.retry = None;
        tracked.netns_refs.extend(netns_ref);
        self.ring(key);
    }

    /// Takes a way back, and with the last one the namespace; returns whether it went. Those who
    /// wait for it hear that by being dropped.
    pub(super) fn untrack(&mut self, key: NetnsKey, netns_ref: &NetnsRef) -> bool {
        let Some(tracked) = self.tracked.get_mut(&key) else {
            return false;
        };
        tracked.netns_refs.retain(|known| known != netns_ref);
        let gone = tracked.netns_refs.is_empty();
        if gone {
            let nsid = tracked.nsid;
            self.looking -= usize::from(tracked.looking);
            self.tracked.remove(&key);
            self.due.retain(|due| *due != key);
            self.forget_nsid(key, nsid);
        }
        gone
    }

    fn forget_nsid(&mut self, key: NetnsKey, nsid: Option<Nsid>) {
        let Some(nsid) = nsid else { return };
        if let Some(keys) = self.by_nsid.get_mut(&nsid) {
            keys.retain(|known| *known != key);
            if keys.is_empty() {
                self.by_nsid.remove(&nsid);
            }
        }
    }

    /// Lets `waiter` have what the next look sees. It gets nothing when the namespace is unknown.
    pub(super) fn refresh(&mut self, key: NetnsKey, waiter: W) {
        if let Some(tracked) = self.tracked.get_mut(&key) {
            tracked.waiting.push(waiter);
            self.ring(key);
        }
    }

    /// Something was changed by ourselves, and read back: looks a little later and reports what is there then,
    /// also if that is what was reported last. It may have been changed back meanwhile.
    pub(super) fn recheck(&mut self, key: NetnsKey, now: Instant) {
        if let Some(tracked) = self.tracked.get_mut(&key) {
            tracked.recheck = true;
            self.ring_later(key, now);
        }
    }

    /// Takes in what the kernel said.
    pub(super) fn kernel(&mut self, event: KernelEvent, now: Instant) {
        match event {
            KernelEvent::Changed(origin) => {
                for key in self.keys(origin) {
                    self.ring(key);
                }
            }
            KernelEvent::ChangedHere(origin) => {
                for key in self.keys(origin) {
                    self.ring_later(key, now);
                }
            }
            KernelEvent::Deleted(origin, ifindex) => {
                for key in self.keys(origin) {
                    self.deleted(key, ifindex);
                }
            }
            KernelEvent::NsidAssigned(nsid) => self.strangers.met(self.by_nsid.contains_key(&nsid)),
            KernelEvent::MetByHost(id) => self.strangers.met_by_host(id),
            KernelEvent::NsidRemoved(nsid) => {
                // The id may belong to another namespace from now on.
                for key in self.by_nsid.remove(&nsid).unwrap_or_default() {
                    if let Some(tracked) = self.tracked.get_mut(&key) {
                        tracked.nsid = None;
                    }
                    self.ring(key);
                }
            }
            KernelEvent::Lost => {
                // The death of an id may be among what was lost.
                self.by_nsid.clear();
                for tracked in self.tracked.values_mut() {
                    tracked.nsid = None;
                    tracked.is_unsure = true;
                }
                self.resync();
            }
        }
    }

    /// Returns the ids of the host's table about which to ask the kernel now; empty: none.
    pub(super) fn next_question(&mut self, now: Instant) -> Vec<Nsid> {
        self.strangers.next_question(now)
    }

    /// Takes in by which ids the namespaces are read to which the host's has given ids.
    pub(super) fn answered(&mut self, now: Instant, cost: Duration, met: Vec<Option<Nsid>>) {
        self.strangers.answered(now, cost);
        for id in met {
            let is_tracked = id.is_some_and(|id| self.by_nsid.contains_key(&id));
            self.strangers.met(is_tracked);
        }
    }

    /// The kernel has deleted a link: another one with its index gets another generation.
    pub(super) fn deleted(&mut self, key: NetnsKey, ifindex: u32) {
        if let Some(tracked) = self.tracked.get_mut(&key) {
            let was_seen = tracked.last.iter().any(|link| link.ifindex == ifindex);
            if was_seen && !tracked.deleted.contains(&ifindex) {
                tracked.deleted.push(ifindex);
            }
        }
        self.ring(key);
    }

    /// Returns the namespaces with an id, of which two may be one; `None` is the host's.
    fn keys(&self, nsid: Option<Nsid>) -> Vec<NetnsKey> {
        match nsid {
            None => vec![NetnsKey::Host],
            Some(nsid) => self.by_nsid.get(&nsid).cloned().unwrap_or_default(),
        }
    }

    /// Something happened in this namespace.
    pub(super) fn ring(&mut self, key: NetnsKey) {
        if self.tracked.contains_key(&key) && !self.due.contains(&key) {
            self.due.push_back(key);
        }
    }

    /// We have changed something there ourselves.
    fn ring_later(&mut self, key: NetnsKey, now: Instant) {
        // What waits already waits no longer, however many more follow.
        if !self.due.contains(&key)
            && let Some(tracked) = self.tracked.get_mut(&key)
        {
            tracked.pacing.hold_until(now + AFTER_OWN);
        }
        self.ring(key);
    }

    fn resync(&mut self) {
        self.ring_all(|_| true);
    }

    /// Rings the namespaces whose turn it is, if it is time.
    fn sweep(&mut self, now: Instant) {
        let (at, part) = self.next_part;
        if at <= now {
            self.next_part = (now + self.sweep_step, (part + 1) % SWEEP_PARTS);
            let (parts, part) = (u64::from(SWEEP_PARTS), u64::from(part));
            self.ring_all(|tracked| tracked.generation % parts == part);
        }
    }

    fn ring_all(&mut self, chosen: impl Fn(&Tracked<W>) -> bool) {
        let chosen = |(key, tracked): (&NetnsKey, &Tracked<W>)| chosen(tracked).then_some(*key);
        let keys: Vec<_> = self.tracked.iter().filter_map(chosen).collect();
        keys.into_iter().for_each(|key| self.ring(key));
    }

    /// Takes in a look and returns those who waited for it.
    pub(super) fn looked(&mut self, now: Instant, looked: DumpDone) -> Option<Answer<W>> {
        let DumpDone {
            key,
            generation,
            began,
            cost,
            result,
        } = looked;
        let tracked = self.tracked.get_mut(&key)?;
        if tracked.generation != generation {
            return None;
        }
        tracked.looking = false;
        self.looking -= 1;
        tracked.pacing.done(now, cost);
        let mut rung = false;
        let result = match result {
            Ok(seen) => {
                tracked.retry = None;
                tracked.began = began;
                if seen.nsid != tracked.nsid {
                    let old = std::mem::replace(&mut tracked.nsid, seen.nsid);
                    if let Some(nsid) = seen.nsid {
                        self.by_nsid.entry(nsid).or_default().push(key);
                        // What rang under the id before it was known here was not understood.
                        rung = true;
                    }
                    self.forget_nsid(key, old);
                }
                let links = self.note_links(key, seen.links);
                let nsid = seen.nsid;
                Ok(Snapshot { nsid, links, began })
            }
            Err(err) => {
                let nsid = tracked.nsid.take();
                let pause = match (&err, tracked.retry) {
                    (LookError::StaleId, None) => Duration::ZERO,
                    (_, retry) => retry.map_or(RETRY.0, |(_, last)| (last * 2).min(RETRY.1)),
                };
                tracked.retry = Some((now + pause, pause.max(RETRY.0)));
                rung = true;
                self.forget_nsid(key, nsid);
                self.note_failure(key, &err);
                Err(Arc::new(err))
            }
        };
        if rung {
            self.ring(key);
        }
        let waiters = std::mem::take(&mut self.tracked.get_mut(&key)?.served);
        Some(Answer { waiters, result })
    }

    fn note_links(&mut self, key: NetnsKey, mut links: Vec<Link>) -> Links {
        let Some(tracked) = self.tracked.get_mut(&key) else {
            return links.into();
        };
        let deleted = std::mem::take(&mut tracked.deleted);
        let is_unsure = std::mem::take(&mut tracked.is_unsure);
        let is_same = |known: &Link, link: &Link| {
            known.kind == link.kind
                && !deleted.contains(&link.ifindex)
                && (!is_unsure || known.fingerprint == link.fingerprint)
        };
        number(
            &mut links,
            &tracked.last,
            is_same,
            &mut self.link_generation,
        );
        tracked.unreadable = false;
        let is_told = !std::mem::take(&mut tracked.rechecking);
        match &tracked.links {
            Some(known) if is_told && **known == *links => Arc::clone(known),
            _ => {
                let links = Links::from(links);
                tracked.links = Some(Arc::clone(&links));
                tracked.last = Arc::clone(&links);
                self.note_news(key);
                links
            }
        }
    }

    /// Without a reference that works, the namespace is gone. Other failures leave the known links as they are.
    fn note_failure(&mut self, key: NetnsKey, err: &LookError) {
        let Some(tracked) = self.tracked.get_mut(&key) else {
            return;
        };
        if matches!(err, LookError::Gone) {
            tracked.links = None;
        }
        if tracked.links.is_none() && !std::mem::replace(&mut tracked.unreadable, true) {
            self.note_news(key);
        }
    }

    fn note_news(&mut self, key: NetnsKey) {
        if !self.news.contains(&key) {
            self.news.push_back(key);
        }
    }

    /// Returns the dumps to begin now: first namespaces that were never dumped, then those that a request waits for, then the
    /// others in the order of their events.
    pub(super) fn next_looks(&mut self, now: Instant) -> Vec<LookOrder> {
        self.sweep(now);
        let mut orders = Vec::new();
        for urgency in [Urgency::Unseen, Urgency::Awaited, Urgency::Rung] {
            for key in self.due.clone() {
                if self.looking >= LOOKS {
                    return orders;
                }
                let Some(tracked) = self.tracked.get_mut(&key) else {
                    continue;
                };
                if tracked.urgency() == urgency && tracked.is_due(now) {
                    tracked.looking = true;
                    tracked.rechecking |= std::mem::take(&mut tracked.recheck);
                    tracked.served = std::mem::take(&mut tracked.waiting);
                    self.looking += 1;
                    self.due.retain(|due| *due != key);
                    orders.push(LookOrder {
                        key,
                        generation: tracked.generation,
                        nsid: tracked.nsid,
                        netns_refs: tracked.netns_refs.clone(),
                    });
                }
            }
        }
        orders
    }

    /// Returns whether the namespace is tracked.
    pub(super) fn knows(&self, key: NetnsKey) -> bool {
        self.tracked.contains_key(&key)
    }

    /// Returns when the next look or question is due if nothing rings before. While as many looks are under way as may
    /// be, the next one is due when one of them ends, not at a time.
    pub(super) fn wake_at(&self) -> Instant {
        let at = self.next_part.0.min(self.next_look_at());
        self.strangers.wake_at().map_or(at, |asks| asks.min(at))
    }

    fn next_look_at(&self) -> Instant {
        if self.looking >= LOOKS {
            return self.next_part.0;
        }
        let due = self.due.iter().filter_map(|key| self.tracked.get(key));
        let looks = due
            .filter(|tracked| !tracked.looking)
            .filter_map(Tracked::not_before);
        looks.min().unwrap_or(self.next_part.0)
    }

    pub(super) fn has_news(&self) -> bool {
        self.strangers.has_news() || !self.news.is_empty()
    }

    /// Returns the next difference between what was reported and what is.
    pub(super) fn next_event(&mut self) -> Option<InterfacesEvent> {
        while let Some(key) = self.news.pop_front() {
            if let Some(tracked) = self.tracked.get(&key) {
                return Some(match &tracked.links {
                    Some(links) => InterfacesEvent::Links {
                        key,
                        snapshot: Snapshot {
                            nsid: tracked.nsid,
                            links: Arc::clone(links),
                            began: tracked.began,
                        },
                    },
                    None => InterfacesEvent::Unreadable { key },
                });
            }
        }
        self.strangers
            .take()
            .then_some(InterfacesEvent::UnknownNsid)
    }
}

/// Why a namespace is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    Unseen,
    Awaited,
    Rung,
}

impl<W> Tracked<W> {
    fn urgency(&self) -> Urgency {
        match (&self.links, self.waiting.is_empty()) {
            (None, _) => Urgency::Unseen,
            (Some(_), false) => Urgency::Awaited,
            (Some(_), true) => Urgency::Rung,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.looking && self.not_before().is_none_or(|at| at <= now)
    }

    /// Returns from when on it may be looked at; those who wait for a refresh are not kept waiting.
    fn not_before(&self) -> Option<Instant> {
        if !self.waiting.is_empty() {
            return None;
        }
        self.retry.map(|(at, _)| at).max(self.pacing.not_before())
    }
}
