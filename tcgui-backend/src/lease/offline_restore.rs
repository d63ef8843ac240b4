//! The command `tcgui-backend restore`: restores what the daemon would restore at its start, without the daemon and the
//! bus.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::journal::{Journal, JournalError};
use super::restore::{self, Restored};
use super::{BootTime, Home, Lease, LeaseNetns, Owner};
use crate::error::BoxError;
use crate::kernel::boot;
use crate::kernel::netns::{
    Entry, MountedNamespaceId, NetnsDirectory, NetnsFiles, NetnsKey, NetnsRef, inside,
};
use crate::kernel::rtnetlink::{Refused, RequestSocket, RtnetlinkError};
use crate::tc::error::TcError;
use crate::tc::perform::take_steps;

/// The options of the command.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The state directory.
    pub state: PathBuf,
    /// The directory of named namespaces.
    pub netns: PathBuf,
    /// Whether to restore every lease, also one that has not ended.
    pub all: bool,
}

/// The reasons why no lease could be restored.
#[derive(Debug, thiserror::Error)]
pub enum ByHandError {
    /// `/proc` is not available.
    #[error("cannot look at the kernel's network namespaces")]
    OwnNamespace(#[source] io::Error),
    /// The leases cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The reasons why one lease was not restored.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaseError {
    #[error("cannot open or enter its namespace")]
    Enter(#[source] BoxError),
    #[error("cannot talk to the kernel")]
    Kernel(#[from] RtnetlinkError),
    #[error(transparent)]
    Tc(#[from] TcError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The result for one lease.
#[derive(Debug)]
pub enum Fate {
    /// The lease has ended.
    Ended(Restored),
    /// The lease of a scenario has ended, and the terms that it had suspended apply again.
    GoesOn,
    /// The interface does not exist, so the lease was removed.
    NoInterface,
    /// The namespace was not found. The lease stays.
    NotSeen,
    /// The lease has not ended yet.
    Holds,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(restored) => restored.fmt(f),
            Self::GoesOn => f.write_str(
                "restored what the scenario had interrupted, which a daemon ends in time",
            ),
            Self::NoInterface => f.write_str("the interface is gone"),
            Self::NotSeen => f.write_str("kept, nothing leads to the namespace"),
            Self::Holds => f.write_str("kept, it has not ended (--all restores it too)"),
        }
    }
}

/// Ends leases, and reports the result for each.
///
/// # Errors
/// [`ByHandError`]. A failure of one lease is reported, and the other leases are still restored.
pub fn restore(
    wanted: &Wanted,
    mut tell: impl FnMut(&str, Result<Fate, BoxError>),
) -> Result<(), ByHandError> {
    let files = NetnsFiles::new().map_err(ByHandError::OwnNamespace)?;
    let home = Home::learn(&files).map_err(ByHandError::OwnNamespace)?;
    let journal = Journal::open_existing(&wanted.state, home)?;
    let loaded = journal.load()?;
    for damaged in loaded.damaged {
        let what = damaged.file.display().to_string();
        tell(&what, Err(damaged.err.into()));
    }
    let names = names(&files, &wanted.netns);
    let now = BootTime::now();
    let ending = |lease: &Lease| {
        if wanted.all {
            (lease.for_good(), None)
        } else {
            lease.ending(now)
        }
    };
    for lease in &loaded.leases {
        let is_own = journal.home().key(lease.netns) == Some(NetnsKey::Host);
        let netns_refs = netns_refs(&files, &names, lease);
        let what = format!("{} in {}", lease.ifname, place(&netns_refs, lease));
        let has_ended = wanted.all
            || matches!(lease.owner, Owner::Scenario { .. })
            || lease.ends().is_some_and(|ends| ends <= now);
        let fate = match (has_ended, is_own) {
            (false, _) => Ok(Fate::Holds),
            (true, true) => RequestSocket::open()
                .map_err(LeaseError::from)
                .and_then(|mut socket| end(&mut socket, &journal, ending(lease))),
            (true, false) => {
                let netns_refs = if netns_refs.is_empty() {
                    other_names(&files, &names, lease)
                } else {
                    netns_refs
                };
                end_inside(&files, &netns_refs, &journal, &ending(lease))
            }
        };
        tell(&what, fate.map_err(Into::into));
    }
    Ok(())
}

/// Returns the namespaces that have names, each with one name.
fn names(files: &NetnsFiles, directory: &Path) -> HashMap<MountedNamespaceId, PathBuf> {
    let listed = NetnsDirectory::open(directory).and_then(|mut directory| directory.names());
    // If the directory does not exist, there are no named namespaces.
    let paths = listed.unwrap_or_default().into_iter();
    paths
        .map(|name| directory.join(name))
        .filter_map(|path| match files.look(&path, None) {
            Entry::Network(id) => Some((id, path)),
            _ => None,
        })
        .collect()
}

/// Returns the current references to the namespace of a lease.
fn netns_refs(
    files: &NetnsFiles,
    names: &HashMap<MountedNamespaceId, PathBuf>,
    lease: &Lease,
) -> Vec<NetnsRef> {
    let known = lease
        .netns_refs()
        .filter_map(|known| netns_ref(files, names, known));
    known.collect()
}

/// Returns the names of namespaces with the same inode number as that of the lease. Empty if the lease has no cookie,
/// because only the cookie identifies the right one.
fn other_names(
    files: &NetnsFiles,
    names: &HashMap<MountedNamespaceId, PathBuf>,
    lease: &Lease,
) -> Vec<NetnsRef> {
    let inodes: Vec<_> = lease.netns_refs().filter_map(LeaseNetns::inode).collect();
    let may_be = |id: &MountedNamespaceId| {
        let (device, inode, ..) = id.parts();
        id.inode() != files.own_inode() && inodes.contains(&(device, inode))
    };
    let netns_refs = names.iter().filter(|(id, _)| may_be(id));
    let netns_refs = netns_refs.map(|(id, path)| NetnsRef::Name {
        path: path.clone(),
        id: *id,
    });
    netns_refs.filter(|_| lease.cookie.is_some()).collect()
}

/// Returns a reference in a lease, if it still leads to the namespace.
fn netns_ref(
    files: &NetnsFiles,
    names: &HashMap<MountedNamespaceId, PathBuf>,
    known: LeaseNetns,
) -> Option<NetnsRef> {
    match known.key()? {
        NetnsKey::Mounted(id) => {
            let path = names.get(&id)?.clone();
            Some(NetnsRef::Name { path, id })
        }
        NetnsKey::Held(id) => {
            let holds = files.held_by(id.pid()).is_ok_and(|held| held == id);
            holds.then_some(NetnsRef::Process(id))
        }
        NetnsKey::Host => None,
    }
}

/// Returns a name of the namespace for messages.
fn place(netns_refs: &[NetnsRef], lease: &Lease) -> String {
    let name = netns_refs.iter().find_map(|netns_ref| match netns_ref {
        NetnsRef::Name { path, .. } => path.file_name(),
        NetnsRef::Process(_) => None,
    });
    match name {
        Some(name) => name.display().to_string(),
        None => lease.netns.to_string(),
    }
}

/// Ends a lease in the first of these namespaces that is its own. If a namespace cannot be entered, the next one is
/// tried.
pub(super) fn end_inside(
    files: &NetnsFiles,
    netns_refs: &[NetnsRef],
    journal: &Journal,
    ending: &(Lease, Option<Lease>),
) -> Result<Fate, LeaseError> {
    let mut failed = None;
    for netns_ref in netns_refs {
        match end_in(files, netns_ref, journal, ending) {
            Ok(Fate::NotSeen) => {}
            Ok(fate) => return Ok(fate),
            Err(err) => failed = failed.or(Some(err)),
        }
    }
    failed.map_or(Ok(Fate::NotSeen), Err)
}

/// Ends a lease in a namespace, unless the cookie shows that it is another namespace.
fn end_in(
    files: &NetnsFiles,
    netns_ref: &NetnsRef,
    journal: &Journal,
    (lease, left): &(Lease, Option<Lease>),
) -> Result<Fate, LeaseError> {
    let netns = files
        .open_any(std::slice::from_ref(netns_ref))
        .map_err(|err| LeaseError::Enter(err.into()))?;
    let ended = inside(netns, || {
        let mut socket = RequestSocket::open()?;
        if !lease.is_in(|| boot::netns_cookie_of(&socket)) {
            return Ok(Fate::NotSeen);
        }
        end(&mut socket, journal, (lease.clone(), left.clone()))
    });
    ended.map_err(|err| LeaseError::Enter(err.into()))?
}

/// Ends a lease over a socket in its namespace. Suspended terms may apply again.
fn end(
    socket: &mut RequestSocket,
    journal: &Journal,
    (lease, left): (Lease, Option<Lease>),
) -> Result<Fate, LeaseError> {
    let fate = match socket.link(lease.ifindex) {
        Err(err) if err.refused() == Some(Refused::NoDevice) => Fate::NoInterface,
        Err(err) => return Err(err.into()),
        Ok(link) => {
            let link = lease.compare(link.identity.as_deref());
            let decide = |observed: &_| restore::decide(&lease, observed, link);
            match (take_steps(socket, lease.ifindex, decide)?.0, left) {
                (Restored::Back { .. } | Restored::Already, Some(left)) => {
                    journal.write(&left)?;
                    return Ok(Fate::GoesOn);
                }
                (restored, _) => Fate::Ended(restored),
            }
        }
    };
    journal.erase(&lease)?;
    Ok(fate)
}
