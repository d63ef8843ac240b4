//! The known containers, those to be inspected, and the changes that were not reported yet. Pure.
//!
//! Events and lists are doorbells: they cause an inspection of a container, and only the inspection changes the
//! state. The exit of a process is the exception: it takes effect at once, because the kernel reports it. So an
//! event that is late, lost, repeated or false costs one inspection and has no other effect.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::answers::{ContainerId, Event, EventKind, Listing};
use super::limits::{MAX_CONTAINERS, MAX_LOOKS};
use crate::kernel::netns::ProcessNetnsId;
use crate::netns_holders::{Container, HeldEvent, Holder, HolderKind};

/// A container of an engine. Two engines may use the same id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The number of the engine's socket.
    pub(super) engine: usize,
    /// The container.
    pub(super) id: ContainerId,
}

/// The result of an inspection.
#[derive(Debug)]
pub(super) enum Outcome<W> {
    /// The container has a process in a network namespace.
    Holds {
        /// The process and its namespace.
        id: ProcessNetnsId,
        /// The other properties.
        container: Container,
        /// The exit watch on the process. `None`: the process cannot be watched.
        watch: Option<W>,
        /// The namespace is the daemon's own. The container is stored, so that it is not inspected after every
        /// list, but it is never reported.
        own: bool,
    },
    /// The container does not exist, or has no process.
    Nothing,
    /// The inspection failed. The known state stays.
    Failed,
}

/// The state of the inspection of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    No,
    Queued,
    Running {
        /// An event or list during the inspection requires another one.
        again: bool,
    },
}

/// The process of a container.
#[derive(Debug)]
struct Held<W> {
    id: ProcessNetnsId,
    container: Arc<Container>,
    watch: Option<W>,
    /// A list has confirmed the container without an inspection. After the exit of the process the container is
    /// inspected again, because it may have been restarted before that list.
    listed: bool,
}

#[derive(Debug)]
struct Tracked<W> {
    look: Look,
    held: Option<Held<W>>,
}

#[derive(Debug)]
struct Engine<W> {
    connected: bool,
    containers: BTreeMap<ContainerId, Tracked<W>>,
    queue: VecDeque<ContainerId>,
    running: usize,
    incomplete: bool,
}

impl<W> Engine<W> {
    /// Schedules an inspection of a container.
    fn queue_look(&mut self, id: &ContainerId) {
        let full = self.containers.len() >= MAX_CONTAINERS;
        match self.containers.get_mut(id) {
            Some(tracked) => match &mut tracked.look {
                Look::No => tracked.look = Look::Queued,
                Look::Queued => return,
                Look::Running { again } => {
                    *again = true;
                    return;
                }
            },
            None if full => {
                self.incomplete = true;
                return;
            }
            None => {
                let look = Look::Queued;
                self.containers
                    .insert(id.clone(), Tracked { look, held: None });
            }
        }
        self.queue.push_back(id.clone());
    }

    fn is_waiting(&self) -> bool {
        self.connected && self.running < MAX_LOOKS && !self.queue.is_empty()
    }

    /// Removes a container without a process and without a pending inspection.
    fn tidy(&mut self, id: &ContainerId) {
        let idle = |tracked: &Tracked<W>| tracked.look == Look::No && tracked.held.is_none();
        if self.containers.get(id).is_some_and(idle) {
            self.containers.remove(id);
        }
    }
}

/// The state of all engines. `W` is the exit watch on a process.
#[derive(Debug)]
pub(super) struct Registry<W> {
    engines: Vec<Engine<W>>,
    /// The containers of each process. Engines that report false data may name one process for two containers: see
    /// [`best`].
    claims: BTreeMap<ProcessNetnsId, BTreeMap<Key, Arc<Container>>>,
    reported: BTreeMap<ProcessNetnsId, Arc<Container>>,
    /// Holders that were reported and exist no longer.
    gone: BTreeSet<ProcessNetnsId>,
    /// Holders that were not reported, or were reported with other properties.
    changed: BTreeSet<ProcessNetnsId>,
}

impl<W> Registry<W> {
    /// Returns the state before any engine is connected.
    pub(super) fn new(engines: usize) -> Self {
        let engine = || Engine {
            connected: false,
            containers: BTreeMap::new(),
            queue: VecDeque::new(),
            running: 0,
            incomplete: false,
        };
        Self {
            engines: std::iter::repeat_with(engine).take(engines).collect(),
            claims: BTreeMap::new(),
            reported: BTreeMap::new(),
            gone: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Notes that a list was requested. Returns whether the state was complete since the last one. If something is
    /// missed from now on, another list is required.
    pub(super) fn begin_list(&mut self, engine: usize) -> bool {
        !std::mem::take(&mut self.engines[engine].incomplete)
    }

    /// Handles a list, the first of a session or a later one.
    ///
    /// A container is not inspected again if it is listed under its known name, its process is watched, and the
    /// same kind of user serves the engine. So the restart of an engine with a thousand containers costs one list.
    pub(super) fn listed(&mut self, engine: usize, list: &Listing, of_root: bool) {
        let engine = &mut self.engines[engine];
        engine.connected = true;
        engine.incomplete |= list.more;
        let mut unlisted: BTreeSet<_> = engine.containers.keys().cloned().collect();
        for (id, names) in &list.containers {
            unlisted.remove(id);
            let tracked = engine.containers.get_mut(id);
            let held = tracked.and_then(|tracked| tracked.held.as_mut());
            let same = held.filter(|held| {
                let name = held.container.name.as_str();
                held.watch.is_some()
                    && held.container.of_root == of_root
                    && names.iter().any(|listed| listed == name)
            });
            match same {
                Some(held) => held.listed = true,
                None => engine.queue_look(id),
            }
        }
        for id in unlisted {
            engine.queue_look(&id);
        }
    }

    /// Handles an event.
    pub(super) fn event(&mut self, engine: usize, event: &Event) {
        let engine = &mut self.engines[engine];
        // The end of an unknown container, or of one whose end was noticed already, needs no inspection.
        let matters = event.kind == EventKind::Changed || engine.containers.contains_key(&event.id);
        if matters {
            engine.queue_look(&event.id);
        }
    }

    /// Notes that events may have been missed.
    pub(super) fn mark_incomplete(&mut self, engine: usize) {
        self.engines[engine].incomplete = true;
    }

    /// Records that an engine is not reachable. Its containers stay, because they may still run.
    pub(super) fn disconnected(&mut self, engine: usize) {
        let engine = &mut self.engines[engine];
        engine.connected = false;
        for id in std::mem::take(&mut engine.queue) {
            if let Some(tracked) = engine.containers.get_mut(&id) {
                tracked.look = Look::No;
            }
            engine.tidy(&id);
        }
    }

    /// Returns the next container to inspect, and marks it as being inspected. Skips engines with [`MAX_LOOKS`]
    /// running inspections, and those for which `may` is false.
    pub(super) fn next_look(&mut self, mut may: impl FnMut(usize) -> bool) -> Option<Key> {
        let mut engines = self.engines.iter_mut().enumerate();
        let (number, engine) =
            engines.find(|(number, engine)| engine.is_waiting() && may(*number))?;
        let id = engine.queue.pop_front()?;
        engine.running += 1;
        if let Some(tracked) = engine.containers.get_mut(&id) {
            tracked.look = Look::Running { again: false };
        }
        Some(Key { engine: number, id })
    }

    /// Returns whether an inspection of one of the engine's containers could begin now.
    pub(super) fn is_waiting(&self, engine: usize) -> bool {
        self.engines[engine].is_waiting()
    }

    /// Handles the result of an inspection.
    pub(super) fn looked(&mut self, key: &Key, outcome: Outcome<W>) {
        let engine = &mut self.engines[key.engine];
        engine.running = engine.running.saturating_sub(1);
        let Some(tracked) = engine.containers.get_mut(&key.id) else {
            return;
        };
        let again = tracked.look == Look::Running { again: true };
        tracked.look = Look::No;
        let before = match outcome {
            Outcome::Failed => {
                engine.incomplete = true;
                None
            }
            Outcome::Nothing => tracked.held.take(),
            Outcome::Holds {
                id,
                container,
                watch,
                own,
            } => {
                let container = Arc::new(container);
                if !own {
                    let claims = self.claims.entry(id).or_default();
                    claims.insert(key.clone(), Arc::clone(&container));
                }
                let held = Held {
                    id,
                    container,
                    watch,
                    listed: false,
                };
                tracked.held.replace(held)
            }
        };
        let now = tracked.held.as_ref().map(|held| held.id);
        if again && engine.connected {
            engine.queue_look(&key.id);
        }
        engine.tidy(&key.id);
        if let Some(before) = before.map(|held| held.id).filter(|id| Some(*id) != now) {
            self.disclaim(key, before);
        }
        if let Some(now) = now {
            self.compare(now);
        }
    }

    /// Handles the exit of a process.
    pub(super) fn ended(&mut self, key: &Key, id: ProcessNetnsId) {
        let engine = &mut self.engines[key.engine];
        let Some(tracked) = engine.containers.get_mut(&key.id) else {
            return;
        };
        if let Some(held) = tracked.held.take_if(|held| held.id == id) {
            if held.listed && engine.connected {
                engine.queue_look(&key.id);
            }
            engine.tidy(&key.id);
            self.disclaim(key, id);
        }
    }

    /// Returns whether the engine should be listed again and has no pending inspections.
    pub(super) fn wants_list(&self, engine: usize) -> bool {
        let engine = &self.engines[engine];
        engine.connected && engine.incomplete && engine.queue.is_empty() && engine.running == 0
    }

    /// Returns whether an engine has more containers than the limit.
    pub(super) fn is_full(&self, engine: usize) -> bool {
        let engine = &self.engines[engine];
        engine.incomplete && engine.containers.len() >= MAX_CONTAINERS
    }

    /// Returns whether an event waits to be reported.
    pub(super) fn has_events(&self) -> bool {
        !self.gone.is_empty() || !self.changed.is_empty()
    }

    /// Returns the next difference between the reported and the current state. Removals come first, so that a
    /// restarted container is never reported twice at a time.
    pub(super) fn next_event(&mut self) -> Option<HeldEvent> {
        if let Some(id) = self.gone.pop_first() {
            self.reported.remove(&id);
            return Some(HeldEvent::Removed(id));
        }
        let id = self.changed.pop_first()?;
        let container = Arc::clone(best(self.claims.get(&id)?)?);
        self.reported.insert(id, Arc::clone(&container));
        let kind = HolderKind::Container(container);
        Some(HeldEvent::Added(Holder { id, kind }))
    }

    fn disclaim(&mut self, key: &Key, id: ProcessNetnsId) {
        if let Some(claims) = self.claims.get_mut(&id) {
            claims.remove(key);
            if claims.is_empty() {
                self.claims.remove(&id);
            }
        }
        self.compare(id);
    }

    /// Compares the current state of `id` with the reported one.
    fn compare(&mut self, id: ProcessNetnsId) {
        self.gone.remove(&id);
        self.changed.remove(&id);
        let is = self.claims.get(&id).and_then(best);
        match (is, self.reported.get(&id)) {
            (None, Some(_)) => drop(self.gone.insert(id)),
            (Some(is), reported) if reported != Some(is) => drop(self.changed.insert(id)),
            _ => {}
        }
    }
}

/// Returns the container to report for a process that several containers claim: the first one of an engine of
/// root, else the first one. Otherwise an engine of a user could hide the name of a container of root's engine.
fn best(claims: &BTreeMap<Key, Arc<Container>>) -> Option<&Arc<Container>> {
    claims.values().min_by_key(|container| !container.of_root)
}

#[cfg(test)]
mod tests;
