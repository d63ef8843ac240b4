//! The decisions of the watcher. Inputs: observations and doorbells. Outputs: events, the next look and its time.
//!
//! Pure: no clock, no file, no log. After any order and any loss of doorbells, one full observation makes the
//! state right.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

use super::{EntryStatus, MountedNamespaceId, Namespace, NamespaceEvent};
use crate::kernel::netns::Entry;
use crate::pacing::Pacing;

/// First and longest delay between looks at a pending entry.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// After this many looks (about 4 s) a pending entry counts as junk, and only sweeps look at it.
const PENDING_LOOKS: u32 = 10;
/// With more pending entries than this, a (paced) sweep looks at them, not one look for each.
const PENDING_AT_ONCE: usize = 64;
/// Delay of a pending sweep after an event that was found by name, so that the consumer can first dump the
/// namespace and publish it. [`AFTER_EVENT_EACH`] is added for each namespace.
const AFTER_EVENT: Duration = Duration::from_millis(3);
/// Additional delay for each known namespace, because the consumer publishes all of them.
const AFTER_EVENT_EACH: Duration = Duration::from_micros(5);
/// How long a sweep waits for a name after a mount-table event: `ip netns del` unmounts first and then unlinks.
const NAME_FOLLOWS: Duration = Duration::from_micros(500);
/// With fewer namespaces a sweep ends before the event with the name arrives.
const WORTH_WAITING: usize = 64;
/// Full sweeps take at most a tenth of the time, unless the delay would exceed 50 ms.
const SWEEP_PACING: Pacing = Pacing::new(10, Duration::ZERO, Duration::from_millis(50));

/// The doorbells' events since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hints {
    /// Entries that changed.
    pub(super) names: HashSet<OsString>,
    /// The directory itself, or a directory or link in its path, may have changed.
    pub(super) directory: bool,
    /// An event without a name arrived, or events were lost.
    pub(super) sweep: bool,
}

/// The entries to look at now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) names: Vec<OsString>,
    pub(super) sweep: bool,
}

/// A file on which no namespace is mounted yet.
#[derive(Debug, Clone, Copy)]
struct Pending {
    looks: u32,
    next: Instant,
}

/// The known state of the netns directory, the reported state, and the entries to look at.
#[derive(Debug)]
pub(super) struct Directory {
    exists: bool,
    namespaces: HashMap<OsString, Entry>,
    pending: BTreeMap<OsString, Pending>,
    /// Files on which no namespace was mounted for [`PENDING_LOOKS`] looks.
    junk: HashSet<OsString>,
    /// Entries that became junk and were not logged yet.
    given_up: Vec<OsString>,
    /// Entries that had an event and are to be looked at.
    hinted: BTreeSet<OsString>,
    sweep_wanted: bool,
    sweep_pacing: Pacing,
    /// The wanted sweep was delayed once by [`Self::yield_sweep`].
    sweep_yielded: bool,
    sweep_interval: Duration,
    next_sweep: Instant,
    reported: ReportedState,
}

/// The state that was reported to the consumer, and the names that differ from it.
#[derive(Debug, Default)]
struct ReportedState {
    exists: bool,
    ids: HashMap<OsString, MountedNamespaceId>,
    changed: VecDeque<OsString>,
    queued: HashSet<OsString>,
}

impl Directory {
    /// Returns an empty state whose first sweep is due at once.
    pub(super) fn new(now: Instant, sweep_interval: Duration) -> Self {
        Self {
            exists: false,
            namespaces: HashMap::new(),
            pending: BTreeMap::new(),
            junk: HashSet::new(),
            given_up: Vec::new(),
            hinted: BTreeSet::new(),
            sweep_wanted: true,
            sweep_pacing: SWEEP_PACING,
            sweep_yielded: false,
            sweep_interval,
            next_sweep: now,
            reported: ReportedState::default(),
        }
    }

    /// Handles the events of doorbells.
    pub(super) fn apply_hints(&mut self, hints: Hints) {
        for name in hints.names {
            // A junk entry may have been replaced by a new placeholder.
            self.junk.remove(&name);
            self.hinted.insert(name);
        }
        self.sweep_wanted |= hints.sweep || hints.directory;
    }

    /// Handles a change of the mount table: schedules the pending entries first, then a sweep. `by_name`: changes
    /// of names are reported too.
    pub(super) fn mount_table_changed(&mut self, now: Instant, by_name: bool) {
        if self.pending.len() <= PENDING_AT_ONCE {
            self.hinted.extend(self.pending.keys().cloned());
        }
        let is_first = !std::mem::replace(&mut self.sweep_wanted, true);
        // A program that mounts continuously must not delay the sweep without limit.
        if is_first && by_name && self.namespaces.len() >= WORTH_WAITING {
            self.sweep_pacing.hold_until(now + NAME_FOLLOWS);
        }
    }

    /// Sets the time between sweeps without an event.
    pub(super) fn set_sweep_interval(&mut self, now: Instant, interval: Duration) {
        if interval != self.sweep_interval {
            self.sweep_interval = interval;
            self.next_sweep = self.next_sweep.min(now + interval);
        }
    }

    /// Returns the entries to look at now, and removes the names from the schedule.
    pub(super) fn next_look(&mut self, now: Instant) -> Look {
        let mut names = std::mem::take(&mut self.hinted);
        if self.pending.len() <= PENDING_AT_ONCE {
            names.extend(
                self.pending
                    .iter()
                    .filter(|(_, p)| p.next <= now)
                    .map(|(name, _)| name.clone()),
            );
        } else if self.pending.values().any(|p| p.next <= now) {
            self.sweep_wanted = true;
        }
        self.sweep_wanted |= self.next_sweep <= now;
        let sweep = self.sweep_wanted && self.sweep_pacing.allows(now);
        Look {
            names: names.into_iter().collect(),
            sweep,
        }
    }

    /// Delays a pending sweep so that the consumer of the last event can use the processor, once between two
    /// sweeps. Returns whether the sweep was delayed.
    pub(super) fn yield_sweep(&mut self, now: Instant) -> bool {
        let first = self.sweep_wanted && !std::mem::replace(&mut self.sweep_yielded, true);
        if first {
            let namespaces = u32::try_from(self.namespaces.len()).unwrap_or(u32::MAX);
            let each = AFTER_EVENT_EACH.saturating_mul(namespaces);
            let longest = SWEEP_PACING.longest();
            self.sweep_pacing
                .hold_until(now + (AFTER_EVENT + each).min(longest));
        }
        first
    }

    /// Returns when the next look is due without a further event.
    pub(super) fn wake_at(&self) -> Instant {
        let allowed = self.sweep_pacing.not_before();
        let sweep = if self.sweep_wanted { allowed } else { None }.unwrap_or(self.next_sweep);
        let Some(pending) = self.pending.values().map(|p| p.next).min() else {
            return sweep;
        };
        let by_sweep = self.pending.len() > PENDING_AT_ONCE;
        sweep.min(
            allowed
                .filter(|_| by_sweep)
                .map_or(pending, |allowed| pending.max(allowed)),
        )
    }

    /// Returns whether the directory existed at the last sweep.
    pub(super) fn exists(&self) -> bool {
        self.exists
    }

    /// Returns the result of an earlier look at `name`, which saves opening it again.
    pub(super) fn known(&self, name: &OsStr) -> Option<Entry> {
        self.namespaces.get(name).copied()
    }

    /// Returns the namespace of an entry that is a symbolic link to a network namespace.
    pub(super) fn link(&self, name: &OsStr) -> Option<MountedNamespaceId> {
        match self.namespaces.get(name) {
            Some(Entry::Network(id)) if id.is_link() => Some(*id),
            _ => None,
        }
    }

    /// Returns the names of all symbolic links to network namespaces.
    pub(super) fn links(&self) -> Vec<OsString> {
        let names = self.namespaces.keys();
        names
            .filter(|name| self.link(name).is_some())
            .cloned()
            .collect()
    }

    /// Returns the status of an entry.
    pub(super) fn entry_status(&self, name: &OsStr) -> EntryStatus {
        match self.namespaces.get(name) {
            Some(Entry::Network(id)) => EntryStatus::Network(*id),
            Some(Entry::OtherNamespace(id)) => EntryStatus::OtherNamespace(*id),
            _ => match self.pending.get(name) {
                Some(Pending { looks, .. }) => EntryStatus::Pending { looks: *looks },
                None if self.junk.contains(name) => EntryStatus::GivenUp,
                None => EntryStatus::Unknown,
            },
        }
    }

    /// Returns the time between sweeps without an event.
    pub(super) fn sweep_interval(&self) -> Duration {
        self.sweep_interval
    }

    /// Handles the result of a look at one entry.
    pub(super) fn observe_entry(&mut self, now: Instant, name: OsString, entry: Entry) {
        let is_namespace = matches!(entry, Entry::Network(_) | Entry::OtherNamespace(_));
        if is_namespace && self.namespaces.get(&name) == Some(&entry) {
            return;
        }
        // A look by name may run before the sweep that finds the directory.
        self.exists |= entry != Entry::Absent;
        if entry == Entry::Plain {
            self.wait_for_mount(now, &name);
        } else {
            self.pending.remove(&name);
            self.junk.remove(&name);
        }
        match entry {
            Entry::Network(_) | Entry::OtherNamespace(_) => {
                if self.namespaces.insert(name.clone(), entry) != Some(entry) {
                    self.reported.note_change(name);
                }
            }
            Entry::Plain | Entry::Absent => {
                if self.namespaces.remove(&name).is_some() {
                    self.reported.note_change(name);
                }
            }
        }
    }

    fn wait_for_mount(&mut self, now: Instant, name: &OsStr) {
        if self.junk.contains(name) {
            return;
        }
        let pending = self.pending.entry(name.to_owned()).or_insert(Pending {
            looks: 0,
            next: now,
        });
        if pending.next > now {
            return;
        }
        pending.looks += 1;
        let pause = BACKOFF
            .0
            .saturating_mul(1 << (pending.looks - 1).min(16))
            .min(BACKOFF.1);
        pending.next = now + pause;
        if pending.looks > PENDING_LOOKS {
            self.pending.remove(name);
            self.junk.insert(name.to_owned());
            self.given_up.push(name.to_owned());
        }
    }

    /// Returns the entries that became junk since the last call.
    pub(super) fn take_given_up(&mut self) -> Vec<OsString> {
        std::mem::take(&mut self.given_up)
    }

    /// Handles a sweep. `entries` is `None` if the directory does not exist.
    ///
    /// `started` and `now` are the start and end of the sweep; its cost determines the delay of the next one.
    /// `live` are names that were looked at separately during the sweep. The listing may be older for them.
    pub(super) fn observe_directory(
        &mut self,
        started: Instant,
        now: Instant,
        entries: Option<Vec<(OsString, Entry)>>,
        live: &HashSet<OsString>,
    ) {
        self.exists = entries.is_some();
        let entries = entries.unwrap_or_default();
        let seen: HashSet<&OsStr> = entries.iter().map(|(name, _)| name.as_os_str()).collect();
        let gone: Vec<OsString> = self
            .namespaces
            .keys()
            .chain(self.pending.keys())
            .chain(&self.junk)
            .filter(|name| !seen.contains(name.as_os_str()) && !live.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            self.observe_entry(now, name, Entry::Absent);
        }
        for (name, entry) in entries {
            if !live.contains(&name) {
                self.observe_entry(now, name, entry);
            }
        }
        self.sweep_wanted = false;
        self.sweep_yielded = false;
        self.sweep_pacing
            .done(now, now.saturating_duration_since(started));
        self.next_sweep = now + self.sweep_interval;
    }

    /// Records that a sweep failed, or that the directory was replaced during it. The known state stays until the
    /// retry.
    pub(super) fn observe_failure(&mut self, now: Instant, retry_in: Duration) {
        self.sweep_wanted = false;
        self.next_sweep = now + retry_in;
        // Pending entries wait for the next sweep too. Otherwise they would request one at once.
        for pending in self.pending.values_mut() {
            pending.next = pending.next.max(self.next_sweep);
        }
    }

    /// Returns all namespaces as the snapshot before the first event.
    pub(super) fn initial_namespaces(&mut self) -> Vec<Namespace> {
        let mut namespaces = Vec::new();
        while let Some(event) = self.next_event() {
            if let NamespaceEvent::Added { name, id } = event {
                namespaces.push(Namespace { name, id });
            }
        }
        namespaces.sort();
        namespaces
    }

    /// Returns whether an event waits for the consumer.
    pub(super) fn has_events(&self) -> bool {
        self.reported.exists != self.exists || !self.reported.changed.is_empty()
    }

    /// Returns the next difference between the reported and the current state.
    pub(super) fn next_event(&mut self) -> Option<NamespaceEvent> {
        let reported = &mut self.reported;
        if self.exists && !reported.exists {
            reported.exists = true;
            return Some(NamespaceEvent::DirectoryAppeared);
        }
        while let Some(name) = reported.changed.front().cloned() {
            let present = match self.namespaces.get(&name) {
                Some(Entry::Network(id)) => Some(*id),
                _ => None,
            };
            let old = reported.ids.get(&name).copied();
            if let Some(id) = old.filter(|old| present != Some(*old)) {
                // The name stays queued: if it has a new identity, that is the next event.
                reported.ids.remove(&name);
                return Some(NamespaceEvent::Removed { name, id });
            }
            reported.changed.pop_front();
            reported.queued.remove(&name);
            if let (Some(id), None) = (present, old) {
                reported.ids.insert(name.clone(), id);
                return Some(NamespaceEvent::Added { name, id });
            }
        }
        if reported.exists && !self.exists {
            reported.exists = false;
            return Some(NamespaceEvent::DirectoryVanished);
        }
        None
    }
}

impl ReportedState {
    fn note_change(&mut self, name: OsString) {
        if self.queued.insert(name.clone()) {
            self.changed.push_back(name);
        }
    }
}

#[cfg(test)]
mod tests;
