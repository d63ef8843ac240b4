//! Looks at processes: which of them are in another network namespace than the daemon.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use crate::kernel::netns::NetnsFiles;
use crate::kernel::processes::{Process, ProcessTable, Recent, Unseen, thread_cpu_time};

/// A look at every process, and what it took.
#[derive(Debug)]
pub(super) struct Scan {
    /// The processes that are away, or why the table was not read to its end.
    pub(super) away: io::Result<Vec<Process>>,
    /// How many did not let themselves be looked at.
    pub(super) denied: usize,
    /// Processor time.
    pub(super) cost: Duration,
}

/// Where one process is.
#[derive(Debug)]
pub(super) enum Seen {
    /// In the daemon's own namespace.
    Home,
    /// In another one.
    Away(Process),
    /// Nowhere that could be seen.
    Nowhere,
}

/// Looks at processes. It remembers what a look at all found out about those that are away, as long as they
/// stay where they are: describing a process costs three times as much as asking where it is.
#[derive(Debug)]
pub(super) struct Probe {
    table: ProcessTable,
    own_inode: u64,
    known: HashMap<i32, Process>,
}

impl Probe {
    pub(super) fn open(files: NetnsFiles) -> io::Result<Self> {
        Ok(Self {
            table: ProcessTable::open()?,
            own_inode: files.own_inode(),
            known: HashMap::new(),
        })
    }

    /// Looks at one process, trusting nothing.
    pub(super) fn look(&self, pid: i32) -> Seen {
        match self.table.netns_inode(pid) {
            Ok(inode) if inode == self.own_inode => Seen::Home,
            Ok(_) => match self.table.describe(pid, &mut Recent::default()) {
                Ok(process) if process.id.inode() == self.own_inode => Seen::Home,
                Ok(process) => Seen::Away(process),
                Err(_) => Seen::Nowhere,
            },
            Err(_) => Seen::Nowhere,
        }
    }

    /// Looks at every process. Those in `afresh` are described again, as they may run another program.
    pub(super) fn look_at_all(&mut self, afresh: &HashSet<i32>) -> Scan {
        let began = thread_cpu_time();
        let mut denied = 0;
        let mut away = self.scan(afresh, &mut denied);
        if away.as_ref().is_ok_and(|away| !consistent(away)) {
            // An inode number came to mean another namespace since somebody was described.
            self.known.clear();
            denied = 0;
            away = self.scan(afresh, &mut denied);
        }
        let processes = away.iter().flatten();
        self.known = processes
            .map(|process| (process.id.pid(), process.clone()))
            .collect();
        let cost = thread_cpu_time().saturating_sub(began);
        Scan { away, denied, cost }
    }

    fn scan(&mut self, afresh: &HashSet<i32>, denied: &mut usize) -> io::Result<Vec<Process>> {
        let mut away = Vec::new();
        let mut recent = Recent::default();
        for pid in self.table.pids()? {
            let process = match self.table.netns_inode(pid) {
                Ok(inode) if inode == self.own_inode => continue,
                Ok(inode) => match self.known.get(&pid) {
                    Some(known) if known.id.inode() == inode && !afresh.contains(&pid) => {
                        Ok(known.clone())
                    }
                    _ => self.table.describe(pid, &mut recent),
                },
                Err(err) => Err(err),
            };
            match process {
                Ok(process) if process.id.inode() != self.own_inode => away.push(process),
                Ok(_) | Err(Unseen::Gone) => {}
                Err(Unseen::Denied) => *denied += 1,
            }
        }
        Ok(away)
    }
}

/// Returns whether each inode number means one namespace.
fn consistent(away: &[Process]) -> bool {
    let mut numbers = HashMap::new();
    away.iter().all(|process| {
        let number = numbers.entry(process.id.inode()).or_insert(process.netns);
        *number == process.netns
    })
}
