//! Carries out work on a qdisc on a blocking thread: a change, a confirmation, a release or a restoration. Each also
//! updates the lease of the interface.
//!
//! The daemon may be killed at any moment. So a lease is written to disk before its change is sent to the kernel, and removed
//! from disk only after the kernel has the final state.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::names::InterfaceName;
use tracing::{debug, info, warn};

use super::orders::{TcOrder, TcResult, TcWork};
use crate::clock::now;
use crate::error::chain;
use crate::kernel::boot;
use crate::kernel::netns::NetnsKey;
use crate::kernel::rtnetlink::{RequestSocket, RtnetlinkError};
use crate::lease::failed_change::{AfterFailure, after_failure};
use crate::lease::journal::{Journal, JournalError};
use crate::lease::restore::{self, Restored};
use crate::lease::terms::Terms;
use crate::lease::{Lease, LeaseNetns};
use crate::sockets::{NetnsSockets, SocketError};
use crate::tc::desired::{Desired, LinkFacts, TcInputError, fitted, has_rate};
use crate::tc::error::TcError;
use crate::tc::observed::{Observed, Root};
use crate::tc::perform::{self, Outcome};
use crate::tc::plan::Plan;
use tcgui_shared::tc::TcOperation;

#[cfg(test)]
mod tests;

/// The journal of leases, or the reason why there is none.
pub(super) type Leases = Result<Arc<Journal>, Arc<str>>;

/// Why work on a qdisc failed.
#[derive(Debug, thiserror::Error)]
enum ImpairError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("cannot talk to the kernel")]
    Kernel(#[from] RtnetlinkError),
    #[error(transparent)]
    Input(#[from] TcInputError),
    #[error(transparent)]
    Tc(#[from] TcError),
    #[error("nothing was changed, the lease cannot be recorded")]
    Record(#[from] JournalError),
    #[error("nothing was changed, it needs a lease and there are none: {reason}")]
    NoLeases { reason: Arc<str> },
    #[error("nothing waits for a confirmation any more")]
    NothingToConfirm,
    #[error(
        "the change of this lease_token has ended, or another client has changed the interface since"
    )]
    NothingToRenew,
    #[error("another program has changed the interface since")]
    ChangedSince,
}

impl ImpairError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Socket(err) => err.kind(),
            Self::Kernel(_) | Self::Record(_) | Self::NoLeases { .. } => ErrorKind::Internal,
            Self::Input(_) => ErrorKind::Invalid,
            Self::Tc(err) => err.kind(),
            Self::NothingToConfirm | Self::NothingToRenew | Self::ChangedSince => {
                ErrorKind::NotFound
            }
        }
    }
}

/// The result of the work, and the lease that is in force after it.
type Impaired = (Result<Outcome, ImpairError>, Option<Lease>);

/// Carries out an order and reads the result back. Blocks its thread.
pub(super) fn carry_out(sockets: &NetnsSockets, leases: &Leases, order: &TcOrder) -> TcResult {
    let work = |socket: &mut RequestSocket| {
        let order = &*without_lease_of_another_netns(socket, leases, order);
        let impaired: Impaired = match &order.work {
            TcWork::Change { operation, terms } => change(socket, leases, order, operation, terms),
            TcWork::Confirm => confirm(socket, leases, order),
            TcWork::Renew { token, ttl } => renew(socket, leases, order, (token, *ttl)),
            TcWork::Look => (look(socket, leases, order), order.held.clone()),
            TcWork::Fit { before } => fit(socket, leases, order, *before),
            TcWork::Release { id } => release(socket, leases, order, id),
            TcWork::Restore => put_back(socket, leases, order),
        };
        let netem = |outcome: &Outcome| outcome.observed.netem().is_some();
        if impaired.0.as_ref().is_ok_and(netem) {
            // The counters of the qdisc are read from now on, and more changes may follow.
            sockets.keep(order.place.key, true);
        }
        Ok::<_, ImpairError>((impaired, now()))
    };
    let ((result, lease), done_at) = match sockets.run_here(&order.place, work) {
        Ok(done) => done,
        Err(err) => ((Err(err), order.held.clone()), now()),
    };
    log(order, &result);
    let outcome = result.map_err(|err| (err.kind(), chain(&err).to_string()));
    TcResult {
        lease,
        done_at,
        outcome,
    }
}

/// Returns the order without its lease if that belongs to another namespace. The kernel gives an inode number to another
/// namespace only when the first one is gone, so nothing is left to restore.
fn without_lease_of_another_netns<'a>(
    socket: &RequestSocket,
    leases: &Leases,
    order: &'a TcOrder,
) -> Cow<'a, TcOrder> {
    let held = order.held.as_ref();
    // Most work has no lease. Then this costs no system call.
    let Some(lease) = held.filter(|lease| !lease.is_in(|| boot::netns_cookie_of(socket))) else {
        return Cow::Borrowed(order);
    };
    let ifname = &lease.ifname;
    info!(ifname, netns = %lease.netns, "lease ended with its namespace");
    forget(leases, Some(lease));
    Cow::Owned(TcOrder {
        held: None,
        ..order.clone()
    })
}

fn change(
    socket: &mut RequestSocket,
    leases: &Leases,
    order: &TcOrder,
    operation: &TcOperation,
    terms: &Terms,
) -> Impaired {
    let held = order.held.as_ref();
    let ifindex = order.link.ifindex;
    // A client names the interface. A scenario follows its link under any name.
    let ifname = terms.scenario.is_none().then_some(&*order.link.ifname);
    let (link, there) = match perform::find(socket, ifindex, ifname) {
        Ok(found) => found,
        Err(err) => return (Err(err.into()), held.cloned()),
    };
    if terms.scenario.is_some() && link.kind != order.link.kind {
        return (Err(TcError::NoInterface.into()), held.cloned());
    }
    let cookie = match order.place.key {
        NetnsKey::Host => None,
        NetnsKey::Mounted(_) | NetnsKey::Held(_) => boot::netns_cookie_of(socket),
    };
    let identity = link.identity.as_deref().cloned();
    // The netem of another link must not be restored on this one.
    let continued =
        held.filter(|held| restore::is_on(held.compare(identity.as_ref()), &there.root));
    let facts = perform::link_facts(socket, &link, has_rate(operation));
    let desired = match Desired::from_operation(operation, facts) {
        Ok(desired) => desired,
        Err(err) => return (Err(err.into()), held.cloned()),
    };
    let wanted = desired.netem;
    let grant = terms.grant(order.begun);
    let (mut recorded, mut before) = (None, None);
    let record = |observed: &Observed| {
        before = Some(observed.root.clone());
        let Some(grant) = &grant else {
            return Ok(());
        };
        let journal = journal(leases)?;
        // One interface has one file, even if another reference to its namespace was seen first in this run.
        let netns = held.map_or_else(|| journal.home().netns(order.place.key), |it| it.netns);
        let of = about(netns, order);
        let mut lease = Lease::record(continued, of, observed, wanted, grant.clone());
        lease.led_to_by(&order.place.netns_refs);
        lease.link = identity.clone();
        lease.cookie = cookie;
        journal.write(&lease)?;
        recorded = Some(lease);
        Ok::<_, ImpairError>(())
    };
    let order = perform::Order {
        ifindex,
        desired,
        foreign: order.foreign,
    };
    let result = perform::perform_recorded(socket, order, there, record);
    match &result {
        Ok(outcome) => {
            if let Some(lease) = &mut recorded {
                // The file still contains the earlier netem too, which does no harm.
                lease.set = vec![outcome.observed.netem().copied()];
            } else {
                forget(leases, held);
            }
            (result, recorded)
        }
        Err(_) => {
            let lease = settle_failure(socket, ifindex, leases, held, (recorded, before));
            (result, lease)
        }
    }
}

/// Checks whether an interface can be changed under a lease, and reads its qdisc. Changes nothing.
fn look(
    socket: &mut RequestSocket,
    leases: &Leases,
    order: &TcOrder,
) -> Result<Outcome, ImpairError> {
    journal(leases)?.probe()?;
    Ok(perform::look(socket, order.link.ifindex, order.foreign)?)
}

/// Adjusts the sizes of our netem to the link, whose MTU or speed was other `before`.
fn fit(
    socket: &mut RequestSocket,
    leases: &Leases,
    order: &TcOrder,
    before: LinkFacts,
) -> Impaired {
    let held = order.held.as_ref();
    let ifindex = order.link.ifindex;
    let (link, there) = match perform::find(socket, ifindex, None) {
        Ok(found) => found,
        Err(err) => return (Err(err.into()), held.cloned()),
    };
    let now = perform::link_facts(socket, &link, false);
    let netem = match &there.root {
        Root::Own { netem, .. } => fitted(netem, before, now),
        Root::Absent | Root::Default { .. } | Root::ForeignNetem { .. } | Root::Foreign(_) => None,
    };
    let Some(netem) = netem else {
        return (Ok(read(there)), held.cloned());
    };
    let mut lease = held.cloned();
    let record = |_: &Observed| {
        if let Some(lease) = &mut lease {
            lease.may_be(Some(netem));
            journal(leases)?.write(lease)?;
        }
        Ok::<_, ImpairError>(())
    };
    let desired = Desired {
        netem: Some(netem),
        notes: Vec::new(),
    };
    let order = perform::Order {
        ifindex,
        desired,
        foreign: order.foreign,
    };
    let result = perform::perform_recorded(socket, order, there, record);
    (result, lease)
}

/// Updates the file of the lease after a change that failed, and returns the lease that is in force.
fn settle_failure(
    socket: &mut RequestSocket,
    ifindex: u32,
    leases: &Leases,
    held: Option<&Lease>,
    (recorded, before): (Option<Lease>, Option<Root>),
) -> Option<Lease> {
    let after = perform::observe(socket, ifindex).map(|observed| observed.root);
    match after_failure(held, recorded, before.as_ref(), after.as_ref().ok()) {
        AfterFailure::AsBefore(lease) => lease,
        AfterFailure::Write(lease) => {
            keep(leases, &lease);
            Some(lease)
        }
        AfterFailure::Erase(lease) => {
            forget(leases, Some(&lease));
            None
        }
    }
}

/// Confirms a change: the lease ends or continues without the confirmation. The qdisc is only read.
fn confirm(socket: &mut RequestSocket, leases: &Leases, order: &TcOrder) -> Impaired {
    let Some(held) = order.held.as_ref().filter(|held| held.confirm_by.is_some()) else {
        return (Err(ImpairError::NothingToConfirm), order.held.clone());
    };
    let confirmed = held.confirmed();
    let kept = || {
        let observed = perform::observe(socket, order.link.ifindex)?;
        let journal = journal(leases)?;
        match &confirmed {
            Some(lease) => journal.write(lease)?,
            None => journal.erase(held)?,
        }
        Ok(observed)
    };
    match { kept }() {
        Ok(observed) => (Ok(read(observed)), confirmed),
        Err(err) => (Err(err), Some(held.clone())),
    }
}

/// Lets the lease with a token end later. The qdisc is only read.
fn renew(
    socket: &mut RequestSocket,
    leases: &Leases,
    order: &TcOrder,
    (token, ttl): (&str, Duration),
) -> Impaired {
    let held = order.held.as_ref();
    let renewed = held.and_then(|held| held.renewed(token, order.begun.plus(ttl)));
    let (Some(held), Some(renewed)) = (held, renewed) else {
        return (Err(ImpairError::NothingToRenew), order.held.clone());
    };
    let write = || {
        let observed = perform::observe(socket, order.link.ifindex)?;
        if !restore::knows(held, &observed) {
            return Err(ImpairError::ChangedSince);
        }
        journal(leases)?.write(&renewed)?;
        Ok(observed)
    };
    match { write }() {
        Ok(observed) => (Ok(read(observed)), Some(renewed)),
        Err(err) => (Err(err), Some(held.clone())),
    }
}

/// Releases an interface from its scenario. The lease continues on the terms that the scenario suspended, or ends. Does
/// nothing if the lease no longer belongs to the scenario.
fn release(socket: &mut RequestSocket, leases: &Leases, order: &TcOrder, id: &str) -> Impaired {
    let observed = perform::observe(socket, order.link.ifindex);
    let observed = observed.map(read).map_err(ImpairError::from);
    let held = order.held.as_ref();
    let Some(ended) = held.filter(|lease| lease.is_of(id)) else {
        return (observed, order.held.clone());
    };
    let left = ended.clone().released();
    match &left {
        Some(left) => keep(leases, left),
        None => forget(leases, held),
    }
    (observed, left)
}

/// Ends a lease and restores the earlier netem. A lease that it had suspended continues.
fn put_back(socket: &mut RequestSocket, leases: &Leases, order: &TcOrder) -> Impaired {
    let Some(lease) = &order.held else {
        let observed = perform::observe(socket, order.link.ifindex);
        return (observed.map(read).map_err(Into::into), None);
    };
    let (ended, left) = lease.ending(order.begun);
    // Another link may have the index, and the daemon may not know that yet. So read the link from the kernel each time.
    let link = match perform::find(socket, order.link.ifindex, None) {
        Ok((link, _)) => lease.compare(link.identity.as_deref()),
        Err(err) => return (Err(err.into()), Some(lease.clone())),
    };
    let decide = |observed: &_| restore::decide(&ended, observed, link);
    match perform::take_steps(socket, order.link.ifindex, decide) {
        Ok((restored, observed)) => {
            log_restored(order, &restored);
            // A configuration of another program stays.
            let left = left.filter(|_| !matches!(restored, Restored::Left { .. }));
            match &left {
                Some(left) => keep(leases, left),
                None => forget(leases, Some(lease)),
            }
            (Ok(read(observed)), left)
        }
        Err(err) => (Err(err.into()), Some(lease.clone())),
    }
}

fn read(observed: Observed) -> Outcome {
    Outcome {
        plan: Plan::Nothing,
        observed,
        notes: Vec::new(),
    }
}

fn journal(leases: &Leases) -> Result<&Journal, ImpairError> {
    leases.as_deref().map_err(|reason| ImpairError::NoLeases {
        reason: Arc::clone(reason),
    })
}

fn about(netns: LeaseNetns, order: &TcOrder) -> (LeaseNetns, u32, String) {
    let ifname = InterfaceName::new(&order.link.ifname).map(|name| name.to_wire());
    // `InterfaceName` accepts every name that the kernel accepts.
    (netns, order.link.ifindex, ifname.unwrap_or_default())
}

/// Writes a lease that is already in force. If the write fails, the lease does not outlast a crash.
fn keep(leases: &Leases, lease: &Lease) {
    if let Err(err) = journal(leases).and_then(|journal| Ok(journal.write(lease)?)) {
        warn!(ifname = lease.ifname, error = %chain(&err), "lease not recorded");
    }
}

/// Carries out the deferred write or removal of a lease's file. After a failure, a reference may be missing after a restart,
/// or the file of an ended lease stays, which does little harm.
pub(super) fn catch_up(journal: &Journal, lease: &Lease) {
    if let Err(err) = journal.catch_up(lease) {
        warn!(ifname = lease.ifname, error = %chain(&err), "file of a lease not up to date");
    }
}

/// Removes the file of an ended lease. A file that stays does little harm: at the next start the qdisc differs from the lease, and
/// is not changed.
fn forget(leases: &Leases, lease: Option<&Lease>) {
    let (Some(lease), Ok(journal)) = (lease, leases) else {
        return;
    };
    if let Err(err) = journal.erase(lease) {
        warn!(ifname = lease.ifname, error = %chain(&err), "ended lease not removed");
    }
}

fn log_restored(order: &TcOrder, restored: &Restored) {
    let netns_ref = order.place.netns_refs.first().map(ToString::to_string);
    let (netns, ifname) = (netns_ref, &order.link.ifname);
    match restored {
        Restored::Back { lost } if lost.is_empty() => {
            info!(
                ?netns,
                ?ifname,
                "lease ended, restored what was there before"
            );
        }
        Restored::Already => info!(?netns, ?ifname, "lease ended, nothing to restore"),
        Restored::Back { .. } | Restored::Left { .. } => {
            warn!(?netns, ?ifname, result = %restored, "lease ended, not all of it restored");
        }
    }
}

fn log(order: &TcOrder, result: &Result<Outcome, ImpairError>) {
    let (TcWork::Restore, Err(err)) = (&order.work, result) else {
        return;
    };
    let ifname = &order.link.ifname;
    if err.kind() == ErrorKind::NotFound {
        debug!(?ifname, error = %chain(err), "lease ended with its interface");
    } else {
        warn!(?ifname, error = %chain(err), "lease ended, cannot restore what was there before");
    }
}
