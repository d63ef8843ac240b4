//! The processes that hold each namespace, and the events for the consumer.
//!
//! Pure: scans of processes go in, events come out. Two scans of all processes make the state right after scans of any parts
//! in any order. A new holder of a namespace is added before the old one is removed. Another namespace with the same inode
//! number is added after the old one is removed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use crate::kernel::netns::ProcessNetnsId;
use crate::kernel::processes::Process;
use crate::netns_holders::{HeldEvent, Holder, HolderKind};

/// Limit of the reported namespaces. Any user can create namespaces without limit.
const NAMESPACES: usize = 4096;
/// Limit of the processes stored for each namespace, the oldest first. The first is the holder, the others may
/// succeed it. After all of them have ended, a scan of all processes finds others.
const MEMBERS: usize = 8;

/// A namespace and the oldest processes in it.
#[derive(Debug, Default)]
struct Space {
    netns: Option<u64>,
    findable: bool,
    members: BTreeMap<Age, Process>,
}

/// Start time and process id. The smallest value is that of the oldest process, the holder.
type Age = (u64, i32);

fn age(id: ProcessNetnsId) -> Age {
    (id.started(), id.pid())
}

/// The state that the consumer has of one inode number.
#[derive(Debug)]
struct Reported {
    holder: Process,
    /// A holder that was replaced, and whose removal is still to be reported.
    leaving: Option<ProcessNetnsId>,
}

/// The namespaces that processes hold, as last seen and as last reported.
#[derive(Debug, Default)]
pub(super) struct Holders {
    spaces: BTreeMap<u64, Space>,
    /// The namespace of each stored process.
    members: HashMap<i32, (u64, Age)>,
    /// Namespaces whose known processes have all ended.
    doubtful: BTreeSet<u64>,
    /// Those of them that [`Self::take_doubts`] has not returned yet.
    unasked: Vec<u64>,
    beyond_limit: bool,
    reported: HashMap<u64, Reported>,
    changed: VecDeque<u64>,
    queued: HashSet<u64>,
}

impl Holders {
    /// Handles a scan of all processes, with the processes in other namespaces.
    ///
    /// A namespace is removed if it had no known process before this scan either. One scan may miss a process that
    /// moves, both in its old and in its new namespace.
    pub(super) fn observe_all(&mut self, processes: Vec<Process>) {
        self.members.clear();
        self.beyond_limit = false;
        for space in self.spaces.values_mut() {
            space.members.clear();
        }
        let suspected = std::mem::take(&mut self.doubtful);
        for process in processes {
            self.insert(process);
        }
        let mut gone = Vec::new();
        for (&inode, space) in &self.spaces {
            if space.members.is_empty() {
                if suspected.contains(&inode) {
                    gone.push(inode);
                } else {
                    self.doubtful.insert(inode);
                    self.unasked.push(inode);
                }
            }
        }
        for inode in &gone {
            self.spaces.remove(inode);
        }
        let seen: Vec<u64> = self.spaces.keys().copied().chain(gone).collect();
        for inode in seen {
            self.note(inode);
        }
    }

    /// Handles a look at one process. `None`: it is in the daemon's namespace, or has ended.
    pub(super) fn observe(&mut self, pid: i32, process: Option<Process>) {
        let known = self.members.get(&pid).copied();
        let same = |process: &Process| known == Some((process.id.inode(), age(process.id)));
        if !process.as_ref().is_some_and(same)
            && let Some((inode, age)) = known
        {
            self.remove(pid, inode, age);
        }
        if let Some(process) = process {
            self.insert(process);
        }
    }

    /// Handles the end of a process. Does nothing if another process has its id now.
    pub(super) fn ended(&mut self, id: ProcessNetnsId) {
        let (pid, member) = (id.pid(), (id.inode(), age(id)));
        if self.members.get(&pid) == Some(&member) {
            self.remove(pid, member.0, member.1);
        }
    }

    /// Returns the inode number and the unique number of each namespace that may have been deleted and that the
    /// kernel can look up by its unique number. Each doubt is returned once.
    pub(super) fn take_doubts(&mut self) -> Vec<(u64, u64)> {
        let doubts = std::mem::take(&mut self.unasked).into_iter();
        let doubtful = doubts.filter(|inode| self.doubtful.contains(inode));
        let numbered = doubtful.filter_map(|inode| {
            let space = self.spaces.get(&inode).filter(|space| space.findable)?;
            Some((inode, space.netns?))
        });
        numbered.collect()
    }

    /// Records that a namespace was deleted.
    pub(super) fn gone(&mut self, inode: u64) {
        if self.doubtful.remove(&inode) {
            self.spaces.remove(&inode);
            self.note(inode);
        }
    }

    /// Returns whether a scan of all processes is needed to find out if a namespace has processes left.
    pub(super) fn in_doubt(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// Returns whether there are more namespaces than the limit.
    pub(super) fn beyond_limit(&self) -> bool {
        self.beyond_limit
    }

    /// Returns the process ids of the holders that the consumer knows.
    pub(super) fn reported_pids(&self) -> HashSet<i32> {
        let reported = self.reported.values();
        reported.map(|reported| reported.holder.id.pid()).collect()
    }

    /// Returns whether an event waits to be reported.
    pub(super) fn has_events(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Returns the next difference between the reported and the current state, and marks it as reported.
    pub(super) fn next_event(&mut self) -> Option<HeldEvent> {
        while let Some(&inode) = self.changed.front() {
            let event = self.difference(inode);
            if !self.differs(inode) {
                self.changed.pop_front();
                self.queued.remove(&inode);
            }
            if event.is_some() {
                return event;
            }
        }
        None
    }

    fn difference(&mut self, inode: u64) -> Option<HeldEvent> {
        let space = self.spaces.get(&inode);
        let holder = space.and_then(|space| space.members.first_key_value());
        let Some(reported) = self.reported.get_mut(&inode) else {
            let holder = holder?.1.clone();
            let event = added(&holder);
            let leaving = None;
            self.reported.insert(inode, Reported { holder, leaving });
            return Some(event);
        };
        if let Some(old) = reported.leaving.take() {
            return Some(HeldEvent::Removed(old));
        }
        match (space, holder) {
            (Some(space), Some((_, now))) if space.netns == reported.holder.netns => {
                let before = std::mem::replace(&mut reported.holder, now.clone());
                if before.id != now.id {
                    reported.leaving = Some(before.id);
                }
                (before != *now).then(|| added(now))
            }
            // The last known holder has ended. The next scan shows whether there is another one.
            (Some(space), None) if space.netns == reported.holder.netns => None,
            _ => {
                let reported = self.reported.remove(&inode)?;
                Some(HeldEvent::Removed(reported.holder.id))
            }
        }
    }

    /// Returns whether the consumer's view of `inode` is out of date.
    fn differs(&self, inode: u64) -> bool {
        let space = self.spaces.get(&inode);
        let holder = space.and_then(|space| space.members.first_key_value());
        match (self.reported.get(&inode), space) {
            (None, _) => holder.is_some(),
            (Some(_), None) => true,
            (Some(reported), Some(space)) => {
                let other = holder.is_some_and(|(_, now)| *now != reported.holder);
                reported.leaving.is_some() || space.netns != reported.holder.netns || other
            }
        }
    }

    fn note(&mut self, inode: u64) {
        if self.differs(inode) && self.queued.insert(inode) {
            self.changed.push_back(inode);
        }
    }

    fn insert(&mut self, process: Process) {
        let (inode, pid, age) = (process.id.inode(), process.id.pid(), age(process.id));
        if !self.spaces.contains_key(&inode) && self.spaces.len() >= NAMESPACES {
            self.beyond_limit = true;
            return;
        }
        let space = self.spaces.entry(inode).or_default();
        if space.netns != process.netns {
            // Two existing namespaces never share an inode number, so the old one was deleted.
            for member in std::mem::take(&mut space.members).into_values() {
                self.members.remove(&member.id.pid());
            }
            space.netns = process.netns;
        }
        space.findable = process.findable;
        space.members.insert(age, process);
        self.members.insert(pid, (inode, age));
        if space.members.len() > MEMBERS
            && let Some((_, youngest)) = space.members.pop_last()
        {
            self.members.remove(&youngest.id.pid());
        }
        self.doubtful.remove(&inode);
        self.note(inode);
    }

    fn remove(&mut self, pid: i32, inode: u64, age: Age) {
        self.members.remove(&pid);
        if let Some(space) = self.spaces.get_mut(&inode) {
            space.members.remove(&age);
            if space.members.is_empty() && self.doubtful.insert(inode) {
                self.unasked.push(inode);
            }
        }
        self.note(inode);
    }
}

fn added(process: &Process) -> HeldEvent {
    HeldEvent::Added(Holder {
        id: process.id,
        kind: HolderKind::Process(process.comm.clone()),
    })
}

#[cfg(test)]
mod tests;
