//! Exit watches on the processes behind symbolic links to `/proc/PID/ns/net`. When such a process ends, the name
//! leads to no namespace any more. Neither inotify nor the mount table reports that.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;

use super::MountedNamespaceId;
use crate::exit_watches::ExitWatches;
use crate::kernel::pidfd::ProcessEnd;

/// Limit of the watched processes. Each takes one descriptor. Sweeps find the exit of the others.
const MAX_WATCHED: usize = 256;

/// The links that were followed to a process.
#[derive(Debug)]
pub(super) struct LinkProcesses {
    watches: ExitWatches<OsString>,
    /// The namespace that each link led to when it was followed.
    followed: HashMap<OsString, MountedNamespaceId>,
}

impl LinkProcesses {
    pub(super) fn new() -> Self {
        Self {
            watches: ExitWatches::new(),
            followed: HashMap::new(),
        }
    }

    /// Returns whether the link has to be followed: it is new, leads to another namespace now, or its process has
    /// ended.
    pub(super) fn wants(&self, name: &OsStr, id: MountedNamespaceId) -> bool {
        match self.followed.get(name) {
            Some(followed) => *followed != id,
            None => self.watches.len() < MAX_WATCHED,
        }
    }

    /// Handles the process behind a link. `Ok(None)`: the name depends on no other process. After an error the
    /// link may be followed again.
    pub(super) fn follow(
        &mut self,
        name: &OsStr,
        id: MountedNamespaceId,
        process: io::Result<Option<ProcessEnd>>,
    ) {
        self.forget(name);
        let Ok(process) = process else {
            return;
        };
        self.followed.insert(name.to_owned(), id);
        if let Some(end) = process {
            self.watches.watch(name.to_owned(), end);
        }
    }

    /// Removes a name that is no link to a namespace.
    pub(super) fn forget(&mut self, name: &OsStr) {
        if self.followed.remove(name).is_some() {
            self.watches.forget(&name.to_owned());
        }
    }

    /// Removes all names for which `is_link` is false.
    pub(super) fn retain(&mut self, is_link: impl Fn(&OsStr) -> bool) {
        let is_gone = |name: &&OsString| !is_link(name);
        let gone: Vec<_> = self.followed.keys().filter(is_gone).cloned().collect();
        for name in gone {
            self.forget(&name);
        }
    }

    /// Waits for the exit of a process and returns the name of its link. Cancel-safe.
    pub(super) async fn next(&mut self) -> OsString {
        let name = self.watches.next().await;
        self.followed.remove(&name);
        name
    }
}
