//! The processes that hold each namespace, and the events for the consumer.
//!
//! Pure: scans of processes go in, events come out. Two scans of all processes make the state right after scans of any parts
//! in any order. A new holder of a namespace is added before the old one is removed. Another namespace with the same inode
//! number is added after the old one is removed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use crate::kernel::netns::ProcessNetnsId;
use crate::kernel::processes::Process;
use crate::netns_holders::{HeldEvent, Holder, HolderKind};

/// How many namespaces are reported: what any user may make without end is cut off somewhere.
const NAMESPACES: usize = 4096;
/// How many processes are remembered of each namespace, the oldest: one is its holder, the others are its
/// successors. When none of them is left, a look at everything finds others.
const MEMBERS: usize = 8;

/// A namespace and the oldest processes in it.
#[derive(Debug, Default)]
struct Space {
    netns: Option<u64>,
    findable: bool,
    members: BTreeMap<Age, Process>,
}

/// When a process started, and its id: the order of holders.
type Age = (u64, i32);

fn age(id: ProcessNetnsId) -> Age {
    (id.started(), id.pid())
}

/// What the consumer knows of one inode number.
#[derive(Debug)]
struct Reported {
    holder: Process,
    /// Another one that it knows too, for as long as it takes to be told of its removal.
    leaving: Option<ProcessNetnsId>,
}

/// The namespaces that processes hold, as seen and as told.
#[derive(Debug, Default)]
pub(super) struct Holders {
    spaces: BTreeMap<u64, Space>,
    /// Where each remembered process is.
    members: HashMap<i32, (u64, Age)>,
    /// Namespaces that had processes, and have no known one now.
    doubtful: BTreeSet<u64>,
    /// Those of which it was not asked yet whether they live.
    unasked: Vec<u64>,
    beyond_limit: bool,
    told: HashMap<u64, Reported>,
    changed: VecDeque<u64>,
    queued: HashSet<u64>,
}

impl Holders {
    /// Takes in a look at every process: those that are away from home.
    ///
    /// A namespace is gone if it had no known process before this scan either. One scan may miss a process that moves, both
    /// in its old and in its new namespace.
    pub(super) fn observe_all(&mut self, away: Vec<Process>) {
        self.members.clear();
        self.beyond_limit = false;
        for space in self.spaces.values_mut() {
            space.members.clear();
        }
        let suspected = std::mem::take(&mut self.doubtful);
        for process in away {
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

    /// Takes in a look at one process; `None`: it is at home or gone.
    pub(super) fn observe(&mut self, pid: i32, away: Option<Process>) {
        let known = self.members.get(&pid).copied();
        let same = |process: &Process| known == Some((process.id.inode(), age(process.id)));
        if !away.as_ref().is_some_and(same)
            && let Some((inode, age)) = known
        {
            self.remove(pid, inode, age);
        }
        if let Some(process) = away {
            self.insert(process);
        }
    }

    /// Takes in the end of a process, unless its id is another one's by now.
    pub(super) fn ended(&mut self, id: ProcessNetnsId) {
        let (pid, member) = (id.pid(), (id.inode(), age(id)));
        if self.members.get(&pid) == Some(&member) {
            self.remove(pid, member.0, member.1);
        }
    }

    /// Returns the inode and other numbers of the namespaces that may have ended, once, if the kernel can tell.
    pub(super) fn take_doubts(&mut self) -> Vec<(u64, u64)> {
        let doubts = std::mem::take(&mut self.unasked).into_iter();
        let doubtful = doubts.filter(|inode| self.doubtful.contains(inode));
        let numbered = doubtful.filter_map(|inode| {
            let space = self.spaces.get(&inode).filter(|space| space.findable)?;
            Some((inode, space.netns?))
        });
        numbered.collect()
    }

    /// Takes in that a namespace has ended.
    pub(super) fn gone(&mut self, inode: u64) {
        if self.doubtful.remove(&inode) {
            self.spaces.remove(&inode);
            self.note(inode);
        }
    }

    /// Returns whether a scan of all processes must tell if a namespace has processes left.
    pub(super) fn in_doubt(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// Returns whether there are more namespaces than are reported.
    pub(super) fn beyond_limit(&self) -> bool {
        self.beyond_limit
    }

    /// Returns the processes that the consumer was told of.
    pub(super) fn reported(&self) -> HashSet<i32> {
        let told = self.told.values();
        told.map(|told| told.holder.id.pid()).collect()
    }

    /// Returns whether there is something to tell.
    pub(super) fn has_events(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Returns the next difference between what was told and what is, and takes it as told.
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
        let Some(told) = self.told.get_mut(&inode) else {
            let holder = holder?.1.clone();
            let event = added(&holder);
            let leaving = None;
            self.told.insert(inode, Reported { holder, leaving });
            return Some(event);
        };
        if let Some(old) = told.leaving.take() {
            return Some(HeldEvent::Removed(old));
        }
        match (space, holder) {
            (Some(space), Some((_, now))) if space.netns == told.holder.netns => {
                let before = std::mem::replace(&mut told.holder, now.clone());
                if before.id != now.id {
                    told.leaving = Some(before.id);
                }
                (before != *now).then(|| added(now))
            }
            // The last holder has ended, and whether there is another one remains to be seen.
            (Some(space), None) if space.netns == told.holder.netns => None,
            _ => {
                let told = self.told.remove(&inode)?;
                Some(HeldEvent::Removed(told.holder.id))
            }
        }
    }

    /// Returns whether the consumer's view of `inode` is out of date.
    fn differs(&self, inode: u64) -> bool {
        let space = self.spaces.get(&inode);
        let holder = space.and_then(|space| space.members.first_key_value());
        match (self.told.get(&inode), space) {
            (None, _) => holder.is_some(),
            (Some(_), None) => true,
            (Some(told), Some(space)) => {
                let other = holder.is_some_and(|(_, now)| *now != told.holder);
                told.leaving.is_some() || space.netns != told.holder.netns || other
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
            // Two namespaces that live at the same time have two inode numbers: the old one is gone.
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
