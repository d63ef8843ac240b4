//! The decisions of the actor: when to dump which namespace, and which results to report.
//!
//! Pure: no socket, no clock. `W` is a client that waits for a refresh.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::kernel::{DumpRequest, DumpedLinks};
use super::tracked::{Tracked, Urgency};
use super::unknown_namespaces::{UnknownNamespaceWatch, UnknownNamespaces};
use super::{DumpError, InterfacesEvent, Links, Snapshot};
use crate::kernel::link::Link;
use crate::kernel::netns::{NetnsKey, NetnsRef};
use crate::kernel::rtnetlink::{KernelEvent, Nsid};

/// Concurrent dumps. The rtnl lock runs one at a time; the second one keeps the lock busy while results are
/// processed.
pub(super) const MAX_DUMPS: usize = 2;
/// Delay of a dump after a change by this daemon. The change is read back and the reply is sent first, which takes
/// 1 to 2 ms on one slow processor. A refresh is not delayed.
pub(super) const AFTER_OWN: Duration = Duration::from_millis(5);
/// First and longest delay of the retry after a failed dump.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

/// A sweep is divided into this many parts, spread over its interval. A thousand dumps at once would use a core
/// for 250 ms.
const SWEEP_PARTS: u16 = 16;

/// A dump that finished.
#[derive(Debug)]
pub(super) struct DumpDone {
    pub(super) key: NetnsKey,
    pub(super) generation: u64,
    pub(super) began: Instant,
    pub(super) cost: Duration,
    pub(super) result: Result<DumpedLinks, DumpError>,
}

/// The clients that waited for a dump, and its result.
#[derive(Debug)]
pub(super) struct Answer<W> {
    pub(super) waiters: Vec<W>,
    pub(super) result: Result<Snapshot, Arc<DumpError>>,
}

/// All tracked namespaces.
#[derive(Debug)]
pub(super) struct Tracker<W> {
    tracked: HashMap<NetnsKey, Tracked<W>>,
    by_nsid: HashMap<Nsid, Vec<NetnsKey>>,
    /// Namespaces to dump, in the order of their events. A namespace with a dump under way may be listed again.
    due: VecDeque<NetnsKey>,
    generation: u64,
    /// The newest generation of a link.
    link_generation: u64,
    /// The namespaces with a dump under way, at most [`MAX_DUMPS`].
    dumping: Vec<NetnsKey>,
    news: VecDeque<NetnsKey>,
    unknown_namespaces: UnknownNamespaceWatch,
    started: Instant,
    /// Time from one part of a sweep to the next.
    sweep_step: Duration,
    next_part: (Instant, u16),
}

impl<W> Tracker<W> {
    pub(super) fn new(
        now: Instant,
        sweep_interval: Duration,
        unknown_namespaces: UnknownNamespaces,
    ) -> Self {
        let sweep_step = sweep_interval / u32::from(SWEEP_PARTS);
        Self {
            tracked: HashMap::new(),
            by_nsid: HashMap::new(),
            due: VecDeque::new(),
            generation: 0,
            link_generation: 0,
            dumping: Vec::with_capacity(MAX_DUMPS),
            news: VecDeque::new(),
            unknown_namespaces: UnknownNamespaceWatch::new(unknown_namespaces),
            started: now,
            sweep_step,
            next_part: (now + sweep_step, 0),
        }
    }

    /// Adds a namespace, or one more reference to it. The namespace is dumped again: the known links may belong to
    /// a dead namespace whose removal was not reported yet, or the new reference may work where the others failed.
    pub(super) fn track(&mut self, key: NetnsKey, netns_ref: Option<NetnsRef>) {
        self.generation += 1;
        let (generation, started) = (self.generation, self.started);
        let new = || Tracked::new(generation, started);
        let tracked = self.tracked.entry(key).or_insert_with(new);
        tracked.retry = None;
        tracked.netns_refs.extend(netns_ref);
        self.schedule(key);
    }

    /// Removes a reference. With the last reference the namespace is removed, and its waiting clients are dropped.
    /// Returns whether the namespace was removed.
    pub(super) fn untrack(&mut self, key: NetnsKey, netns_ref: &NetnsRef) -> bool {
        let Some(tracked) = self.tracked.get_mut(&key) else {
            return false;
        };
        tracked.netns_refs.retain(|known| known != netns_ref);
        let gone = tracked.netns_refs.is_empty();
        if gone {
            let nsid = tracked.nsid;
            self.dumping.retain(|dumping| *dumping != key);
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

    /// Lets `waiter` wait for the next dump. Drops it if the namespace is not tracked.
    pub(super) fn refresh(&mut self, key: NetnsKey, waiter: W) {
        if let Some(tracked) = self.tracked.get_mut(&key) {
            tracked.waiting.push(waiter);
            self.schedule(key);
        }
    }

    /// Schedules a dump after a change by this daemon that was read back. Its result is reported even if it equals
    /// the last report, because the change may have been undone in the meantime.
    pub(super) fn recheck(&mut self, key: NetnsKey, now: Instant) {
        if let Some(tracked) = self.tracked.get_mut(&key) {
            tracked.recheck = true;
            self.schedule_later(key, now);
        }
    }

    /// Handles a kernel event.
    pub(super) fn kernel(&mut self, event: KernelEvent, now: Instant) {
        match event {
            KernelEvent::Changed(origin) => {
                for key in self.keys(origin) {
                    self.schedule(key);
                }
            }
            KernelEvent::ChangedHere(origin) => {
                for key in self.keys(origin) {
                    self.schedule_later(key, now);
                }
            }
            KernelEvent::Deleted(origin, ifindex) => {
                for key in self.keys(origin) {
                    self.deleted(key, ifindex);
                }
            }
            KernelEvent::NsidAssigned(nsid) => {
                self.unknown_namespaces.id_assigned(self.is_tracked(nsid))
            }
            KernelEvent::MetByHost(id) => self.unknown_namespaces.host_id_assigned(id),
            KernelEvent::NsidRemoved(nsid) => self.nsid_removed(nsid),
            KernelEvent::Lost => {
                for tracked in self.tracked.values_mut() {
                    tracked.missed_events();
                }
                // The lost events may have announced a namespace that is not tracked.
                self.unknown_namespaces.id_assigned(false);
                self.resync();
            }
        }
    }

    /// Records that a namespace was deleted. From now on the kernel may give its id to another namespace. An
    /// entry may continue for another namespace with the same key.
    fn nsid_removed(&mut self, nsid: Nsid) {
        for key in &self.dumping {
            let tracked = self.tracked.get_mut(key);
            if let Some(dump) = tracked.and_then(|tracked| tracked.dump.as_mut()) {
                dump.removed.insert(nsid);
            }
        }
        for key in self.by_nsid.remove(&nsid).unwrap_or_default() {
            if let Some(tracked) = self.tracked.get_mut(&key) {
                tracked.nsid = None;
                tracked.generations.clear();
            }
            self.schedule(key);
        }
    }

    /// Records that events of this namespace may have been missed.
    pub(super) fn missed_events(&mut self, key: NetnsKey) {
        if let Some(tracked) = self.tracked.get_mut(&key) {
            tracked.missed_events();
        }
        self.schedule(key);
    }

    /// Returns the ids of the host's table to query now. Empty: no query is due.
    pub(super) fn next_query(&mut self, now: Instant) -> Vec<Nsid> {
        self.unknown_namespaces.next_query(now)
    }

    /// Handles the reply to a query: the observer's ids of the namespaces, as
    /// [`LinkKernel::observer_ids`](super::LinkKernel::observer_ids) returns them.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        cost: Duration,
        observer_ids: Vec<Option<Nsid>>,
    ) {
        self.unknown_namespaces.answered(now, cost);
        for id in observer_ids {
            let is_tracked = id.is_some_and(|id| self.is_tracked(id));
            self.unknown_namespaces.id_assigned(is_tracked);
        }
    }

    /// Returns whether the namespace with this id is tracked and the id is known to be valid.
    fn is_tracked(&self, nsid: Nsid) -> bool {
        let keys = self.by_nsid.get(&nsid).into_iter().flatten();
        let mut tracked = keys.filter_map(|key| self.tracked.get(key));
        tracked.any(|tracked| !tracked.is_nsid_doubtful)
    }

    /// Records that a link was deleted. A later link with this index gets another generation.
    pub(super) fn deleted(&mut self, key: NetnsKey, ifindex: u32) {
        if let Some(tracked) = self.tracked.get_mut(&key) {
            tracked.generations.deleted(ifindex);
        }
        self.schedule(key);
    }

    /// Returns the namespaces with this id; `None` is the host. Two keys may stand for the same namespace.
    fn keys(&self, nsid: Option<Nsid>) -> Vec<NetnsKey> {
        match nsid {
            None => vec![NetnsKey::Host],
            Some(nsid) => self.by_nsid.get(&nsid).cloned().unwrap_or_default(),
        }
    }

    /// Schedules a dump of this namespace, at the end of the queue.
    pub(super) fn schedule(&mut self, key: NetnsKey) {
        if self.tracked.contains_key(&key) && !self.due.contains(&key) {
            self.due.push_back(key);
        }
    }

    /// Schedules a dump after a change by this daemon.
    fn schedule_later(&mut self, key: NetnsKey, now: Instant) {
        // Do not delay a namespace that is queued already, so that repeated changes cannot postpone its dump
        // without limit.
        if !self.due.contains(&key)
            && let Some(tracked) = self.tracked.get_mut(&key)
        {
            tracked.pacing.hold_until(now + AFTER_OWN);
        }
        self.schedule(key);
    }

    fn resync(&mut self) {
        self.schedule_all(|_| true);
    }

    /// Schedules the dumps of the next part of the sweep, if it is due.
    fn sweep(&mut self, now: Instant) {
        let (at, part) = self.next_part;
        if at <= now {
            self.next_part = (now + self.sweep_step, (part + 1) % SWEEP_PARTS);
            let (parts, part) = (u64::from(SWEEP_PARTS), u64::from(part));
            self.schedule_all(|tracked| tracked.generation % parts == part);
        }
    }

    fn schedule_all(&mut self, chosen: impl Fn(&Tracked<W>) -> bool) {
        let chosen = |(key, tracked): (&NetnsKey, &Tracked<W>)| chosen(tracked).then_some(*key);
        let keys: Vec<_> = self.tracked.iter().filter_map(chosen).collect();
        keys.into_iter().for_each(|key| self.schedule(key));
    }

    /// Handles a dump and returns the clients that waited for it. `None`: the dump is discarded. The caller must
    /// first handle all events that the kernel had queued when the dump ended.
    pub(super) fn dump_done(&mut self, now: Instant, done: DumpDone) -> Option<Answer<W>> {
        let DumpDone {
            key,
            generation,
            began,
            cost,
            result,
        } = done;
        let tracked = self.tracked.get_mut(&key)?;
        if tracked.generation != generation {
            return None;
        }
        let dump = tracked.dump.take()?;
        self.dumping.retain(|dumping| *dumping != key);
        tracked.pacing.done(now, cost);
        let result = match result {
            Ok(DumpedLinks {
                nsid: Some(nsid), ..
            }) if dump.may_be_of_another(nsid) => {
                tracked.repeat(dump);
                self.schedule(key);
                return None;
            }
            Ok(seen) => {
                tracked.retry = None;
                tracked.began = began;
                let is_unsure = std::mem::replace(&mut tracked.is_unsure, dump.is_unsure);
                tracked.is_nsid_doubtful = dump.is_unsure;
                tracked.unreadable = false;
                self.note_nsid(key, seen.nsid);
                let links = self.note_links(key, seen.links, is_unsure, dump.rechecks);
                let nsid = seen.nsid;
                Ok(Snapshot { nsid, links, began })
            }
            Err(err) => {
                tracked.recheck |= dump.rechecks;
                tracked.is_nsid_doubtful = true;
                let pause = match (&err, tracked.retry) {
                    (DumpError::StaleId, None) => Duration::ZERO,
                    (_, retry) => retry.map_or(RETRY.0, |(_, last)| (last * 2).min(RETRY.1)),
                };
                tracked.retry = Some((now + pause, pause.max(RETRY.0)));
                self.schedule(key);
                self.note_failure(key, &err);
                Err(Arc::new(err))
            }
        };
        let waiters = dump.served;
        Some(Answer { waiters, result })
    }

    /// Notes the id by which the namespace was dumped.
    fn note_nsid(&mut self, key: NetnsKey, nsid: Option<Nsid>) {
        let Some(tracked) = self.tracked.get_mut(&key) else {
            return;
        };
        let old = tracked.nsid;
        if old == nsid {
            return;
        }
        tracked.nsid = nsid;
        // A namespace keeps its id until it is deleted, so another id belongs to another namespace.
        if old.is_some() && nsid.is_some() {
            tracked.generations.clear();
        }
        // Events under this id were ignored until now. They do not matter for links that get their first generation below.
        tracked.is_unsure |= tracked.generations.has_links();
        if let Some(nsid) = nsid {
            self.by_nsid.entry(nsid).or_default().push(key);
        }
        self.forget_nsid(key, old);
        self.schedule(key);
    }

    /// Sets the generations of the links, and reports them if they differ from the last report or if `is_wanted`.
    fn note_links(
        &mut self,
        key: NetnsKey,
        mut links: Vec<Link>,
        is_unsure: bool,
        is_wanted: bool,
    ) -> Links {
        let Some(tracked) = self.tracked.get_mut(&key) else {
            return links.into();
        };
        let newest = &mut self.link_generation;
        tracked.generations.number(&mut links, is_unsure, newest);
        match &tracked.links {
            Some(known) if !is_wanted && **known == *links => Arc::clone(known),
            _ => {
                let links = Links::from(links);
                tracked.links = Some(Arc::clone(&links));
                self.note_news(key);
                links
            }
        }
    }

    /// Notes a failed dump. The links are dropped only if no reference leads to the namespace any more.
    fn note_failure(&mut self, key: NetnsKey, err: &DumpError) {
        let Some(tracked) = self.tracked.get_mut(&key) else {
            return;
        };
        if matches!(err, DumpError::Gone) {
            tracked.links = None;
        }
        let mut removed = None;
        if matches!(err, DumpError::StaleId) {
            // The kernel removes an id only when the namespace is deleted.
            removed = tracked.nsid.take();
            tracked.generations.clear();
        }
        if tracked.links.is_none() && !std::mem::replace(&mut tracked.unreadable, true) {
            self.note_news(key);
        }
        self.forget_nsid(key, removed);
    }

    fn note_news(&mut self, key: NetnsKey) {
        if !self.news.contains(&key) {
            self.news.push_back(key);
        }
    }

    /// Returns the dumps to begin now: first namespaces that were never dumped, then those that a request waits for, then the
    /// others in the order of their events.
    pub(super) fn next_dumps(&mut self, now: Instant) -> Vec<DumpRequest> {
        self.sweep(now);
        let mut requests = Vec::new();
        for urgency in [Urgency::Unseen, Urgency::Awaited, Urgency::Changed] {
            for key in self.due.clone() {
                if self.dumping.len() >= MAX_DUMPS {
                    return requests;
                }
                let Some(tracked) = self.tracked.get_mut(&key) else {
                    continue;
                };
                if tracked.urgency() == urgency && tracked.is_due(now) {
                    requests.push(tracked.begin(key));
                    self.dumping.push(key);
                    self.due.retain(|due| *due != key);
                }
            }
        }
        requests
    }

    /// Returns whether the namespace is tracked.
    pub(super) fn knows(&self, key: NetnsKey) -> bool {
        self.tracked.contains_key(&key)
    }

    /// Returns when the next dump or query is due without a further event. While [`MAX_DUMPS`] dumps are under way,
    /// the next dump is due when one of them ends, which is not a time.
    pub(super) fn wake_at(&self) -> Instant {
        let at = self.next_part.0.min(self.next_dump_at());
        self.unknown_namespaces
            .wake_at()
            .map_or(at, |query| query.min(at))
    }

    fn next_dump_at(&self) -> Instant {
        if self.dumping.len() >= MAX_DUMPS {
            return self.next_part.0;
        }
        let due = self.due.iter().filter_map(|key| self.tracked.get(key));
        let dumps = due
            .filter(|tracked| tracked.dump.is_none())
            .filter_map(Tracked::not_before);
        dumps.min().unwrap_or(self.next_part.0)
    }

    pub(super) fn has_news(&self) -> bool {
        self.unknown_namespaces.has_news() || !self.news.is_empty()
    }

    /// Returns the next difference between the last report and the current state.
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
        self.unknown_namespaces
            .take()
            .then_some(InterfacesEvent::UnknownNsid)
    }
}
