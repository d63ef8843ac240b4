//! Scans processes for those in another network namespace than the daemon.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use crate::kernel::netns::NetnsFiles;
use crate::kernel::processes::{Process, ProcessTable, Recent, Unseen, thread_cpu_time};

/// The result of a scan of all processes.
#[derive(Debug)]
pub(super) struct Scan {
    /// The processes in other namespaces, or the error that ended the scan.
    pub(super) in_other_netns: io::Result<Vec<Process>>,
    /// Number of processes whose namespace could not be read for lack of permission.
    pub(super) denied: usize,
    /// Processor time that the scan used.
    pub(super) cost: Duration,
}

/// The namespace of one process.
#[derive(Debug)]
pub(super) enum ProcessNetns {
    /// The daemon's own namespace.
    Own,
    /// Another namespace.
    Other(Process),
    /// Unknown: the process has ended or cannot be read.
    Unknown,
}

/// Reads processes. It caches the descriptions of the processes in other namespaces while their inode number stays
/// the same: a description costs three times as much as reading the inode number.
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

    /// Reads one process without the cache.
    pub(super) fn look(&self, pid: i32) -> ProcessNetns {
        match self.table.netns_inode(pid) {
            Ok(inode) if inode == self.own_inode => ProcessNetns::Own,
            Ok(_) => match self.table.describe(pid, &mut Recent::default()) {
                Ok(process) if process.id.inode() == self.own_inode => ProcessNetns::Own,
                Ok(process) => ProcessNetns::Other(process),
                Err(_) => ProcessNetns::Unknown,
            },
            Err(_) => ProcessNetns::Unknown,
        }
    }

    /// Reads every process. Those in `afresh` are described again, because they may run another program.
    pub(super) fn look_at_all(&mut self, afresh: &HashSet<i32>) -> Scan {
        let began = thread_cpu_time();
        let mut denied = 0;
        let mut in_other_netns = self.scan(afresh, &mut denied);
        if in_other_netns
            .as_ref()
            .is_ok_and(|processes| !has_one_netns_for_each_inode(processes))
        {
            // A namespace was deleted and its inode number given to another one, so the cache is stale.
            self.known.clear();
            denied = 0;
            in_other_netns = self.scan(afresh, &mut denied);
        }
        let processes = in_other_netns.iter().flatten();
        self.known = processes
            .map(|process| (process.id.pid(), process.clone()))
            .collect();
        let cost = thread_cpu_time().saturating_sub(began);
        Scan {
            in_other_netns,
            denied,
            cost,
        }
    }

    fn scan(&mut self, afresh: &HashSet<i32>, denied: &mut usize) -> io::Result<Vec<Process>> {
        let mut in_other_netns = Vec::new();
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
                Ok(process) if process.id.inode() != self.own_inode => in_other_netns.push(process),
                Ok(_) | Err(Unseen::Gone) => {}
                Err(Unseen::Denied) => *denied += 1,
            }
        }
        Ok(in_other_netns)
    }
}

/// Returns whether each inode number stands for one namespace.
fn has_one_netns_for_each_inode(processes: &[Process]) -> bool {
    let mut numbers = HashMap::new();
    processes.iter().all(|process| {
        let number = numbers.entry(process.id.inode()).or_insert(process.netns);
        *number == process.netns
    })
}
