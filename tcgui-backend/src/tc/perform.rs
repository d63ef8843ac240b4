//! Carries a plan out: read, plan, change, read back.
//!
//! Blocks its thread for as long as the kernel takes. Two datagrams with few exceptions: one asks for the link and
//! the qdiscs, one makes the change and asks for the qdiscs again. Before a replacement a third one asks for the qdiscs
//! once more: see [`is_expected`].

use std::ffi::OsStr;

use super::desired::{Desired, LinkFacts};
use super::error::TcError;
use super::note::Note;
use super::observed::{Observed, Root};
use super::plan::{ForeignQdiscs, Plan, is_expected, lost, plan, steps};
use crate::kernel::bottleneck_probe::bottleneck_support;
use crate::kernel::link::Link;
use crate::kernel::netem::Netem;
use crate::kernel::qdisc::{Install, Qdisc, RootChange};
use crate::kernel::rtnetlink::{Refused, RequestSocket, RtnetlinkError};

/// The number of attempts if another program changes the root between reading and changing.
const ATTEMPTS: u32 = 3;

/// What the root of a link is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The link, in the namespace of the socket.
    pub ifindex: u32,
    /// What is wanted.
    pub desired: Desired,
    /// What may be destroyed for it.
    pub foreign: ForeignQdiscs,
}

/// What the root is afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What was done.
    pub plan: Plan,
    /// What is there now, as the kernel says.
    pub observed: Observed,
    /// Notes for the requester.
    pub notes: Vec<Note>,
}

/// Returns the properties of a link that decide the length of the queue in front of it. With a rate limit, this includes
/// whether the kernel can have a bottleneck.
pub fn link_facts(socket: &mut RequestSocket, link: &Link, has_rate: bool) -> LinkFacts {
    LinkFacts {
        mtu: link.mtu,
        speed: socket.speed_of(link),
        bottleneck: has_rate && bottleneck_support(),
    }
}

/// Returns a link, and what is at its root. With `ifname` only if it still has this name: a client that named it
/// knows no more of it.
///
/// # Errors
/// [`TcError::NoInterface`] when it is gone or renamed, [`TcError::FindLink`], [`TcError::Observe`].
pub fn find(
    socket: &mut RequestSocket,
    ifindex: u32,
    ifname: Option<&OsStr>,
) -> Result<(Link, Observed), TcError> {
    let (link, qdiscs) = socket.link_and_qdiscs(ifindex).map_err(not_found)?;
    if ifname.is_none_or(|ifname| link.ifname == ifname) {
        Ok((link, observed(qdiscs, ifindex)?))
    } else {
        Err(TcError::NoInterface)
    }
}

/// Returns what is at the root of a link.
///
/// # Errors
/// [`TcError::Observe`].
pub fn observe(socket: &mut RequestSocket, ifindex: u32) -> Result<Observed, TcError> {
    observed(socket.qdiscs(), ifindex)
}

fn observed(qdiscs: Result<Vec<Qdisc>, RtnetlinkError>, ifindex: u32) -> Result<Observed, TcError> {
    let qdiscs = qdiscs.map_err(TcError::Observe)?;
    Ok(Observed::new(&qdiscs, ifindex))
}

/// Reads what is at the root of a link, and fails if a netem could not take its place.
///
/// # Errors
/// As [`perform`] would without changing anything.
pub fn look(
    socket: &mut RequestSocket,
    ifindex: u32,
    foreign: ForeignQdiscs,
) -> Result<Outcome, TcError> {
    let observed = observe(socket, ifindex)?;
    if observed.root == Root::Absent {
        find_link(socket, ifindex)?;
    }
    plan(Some(&Netem::default()), &observed, foreign)?;
    Ok(Outcome {
        plan: Plan::Nothing,
        observed,
        notes: Vec::new(),
    })
}

/// Makes the root of a link what it should be.
///
/// # Errors
/// See [`TcError`]. After an error the root is as before, except for [`TcError::NotTaken`].
pub fn perform(socket: &mut RequestSocket, order: Order) -> Result<Outcome, TcError> {
    let before = observe(socket, order.ifindex)?;
    perform_recorded(socket, order, before, |_| Ok(()))
}

/// Changes the root of a link from `before` to the desired state.
///
/// Calls `record` with the observed state before each attempt to change it. If another program changes the root
/// meanwhile, starts again: the state that this program left is then the state before the change.
///
/// # Errors
/// As [`perform`], and an error of `record`, after which nothing is changed.
pub fn perform_recorded<E: From<TcError>>(
    socket: &mut RequestSocket,
    order: Order,
    before: Observed,
    mut record: impl FnMut(&Observed) -> Result<(), E>,
) -> Result<Outcome, E> {
    let Order {
        ifindex,
        desired: Desired { netem, mut notes },
        foreign,
    } = order;
    let mut known = Some(before);
    for _ in 0..ATTEMPTS {
        let before = match known.take() {
            Some(before) => before,
            None => observe(socket, ifindex)?,
        };
        let plan = plan(netem.as_ref(), &before, foreign).map_err(TcError::from)?;
        record(&before)?;
        let waiting = Waiting {
            netem: before.netem().copied(),
            packets: before.statistics.qlen,
        };
        let steps = steps(plan, netem.as_ref(), &before);
        let observed = match take(socket, ifindex, &before, &steps) {
            Err(Stopped::Refused(step, err)) if is_race(step, &err) => continue,
            Err(Stopped::Refused(step, err)) => return Err(failure(step, err).into()),
            Err(Stopped::Unexpected) => continue,
            Err(Stopped::NotRead(err)) => return Err(err.into()),
            Ok(None) => before,
            Ok(Some(Taken { after, lost })) => {
                if let Some(lost) = lost {
                    record(&lost)?;
                    allow_loss(netem.as_ref(), &lost, foreign)?;
                }
                after?
            }
        };
        match (&netem, &observed.root) {
            (None, Root::Absent) => drop(find_link(socket, ifindex)?),
            (Some(wanted), Root::Own { netem, .. }) => notes.extend(verify(wanted, netem)?),
            // Another program changed the root between the change and the second look.
            (Some(_), Root::Absent) => {
                find_link(socket, ifindex)?;
                continue;
            }
            (Some(_), _) => continue,
            (None, Root::Foreign(name)) => notes.push(Note::LeftAlone {
                qdisc: name.to_string(),
            }),
            (None, _) => {}
        }
        notes.extend(of_waiting(plan, netem.as_ref(), &waiting));
        return Ok(Outcome {
            plan,
            observed,
            notes,
        });
    }
    Err(TcError::Raced { attempts: ATTEMPTS }.into())
}

/// The netem before a change, and the packets in it.
struct Waiting {
    netem: Option<Netem>,
    packets: u32,
}

/// Says what became of packets that waited in the netem.
fn of_waiting(plan: Plan, netem: Option<&Netem>, waiting: &Waiting) -> Option<Note> {
    let packets = waiting.packets;
    let before = waiting.netem.as_ref().filter(|_| packets > 0)?;
    let times = |netem: &Netem| {
        (
            (netem.latency_ns, netem.jitter_ns, netem.distribution),
            (netem.slot, netem.rate),
        )
    };
    match plan {
        Plan::Change { .. } if netem.map(times) != Some(times(before)) => {
            Some(Note::LeaveAsBefore { packets })
        }
        Plan::Replace { .. } | Plan::Delete { .. } => Some(Note::Dropped { packets }),
        Plan::Nothing | Plan::Add { .. } | Plan::Change { .. } => None,
    }
}

/// Takes the steps that `decide` chooses for the observed root. Returns its other result, with the root after the steps. Starts again
/// if another program changes the root in between.
///
/// # Errors
/// As [`TcError`] says.
pub fn take_steps<T>(
    socket: &mut RequestSocket,
    ifindex: u32,
    mut decide: impl FnMut(&Observed) -> (T, Vec<RootChange>),
) -> Result<(T, Observed), TcError> {
    for _ in 0..ATTEMPTS {
        let before = observe(socket, ifindex)?;
        let (decision, steps) = decide(&before);
        match take(socket, ifindex, &before, &steps) {
            Err(Stopped::Refused(step, err)) if is_race(step, &err) => {}
            Err(Stopped::Refused(step, err)) => return Err(failure(step, err)),
            Err(Stopped::Unexpected) => {}
            Err(Stopped::NotRead(err)) => return Err(err),
            Ok(None) => return Ok((decision, before)),
            Ok(Some(Taken { after, lost: None })) => return Ok((decision, after?)),
            Ok(Some(Taken {
                lost: Some(lost), ..
            })) => return Err(TcError::Destroyed(lost.root.to_string())),
        }
    }
    Err(TcError::Raced { attempts: ATTEMPTS })
}

/// Fails if a qdisc was destroyed that would not have been replaced, had it been there at the first look.
fn allow_loss(
    netem: Option<&Netem>,
    lost: &Observed,
    foreign: ForeignQdiscs,
) -> Result<(), TcError> {
    plan(netem, lost, foreign)
        .map(drop)
        .map_err(|_| TcError::Destroyed(lost.root.to_string()))
}

/// Why not all steps were taken.
enum Stopped<'a> {
    /// The kernel refused a step.
    Refused(&'a RootChange, RtnetlinkError),
    /// Another program has changed the root before it was to be replaced.
    Unexpected,
    /// The root was not read.
    NotRead(TcError),
}

/// What steps have led to.
struct Taken {
    /// What is there after them.
    after: Result<Observed, TcError>,
    /// What they have destroyed, if nothing was known of it.
    lost: Option<Observed>,
}

/// Takes the steps in order where `before` is, up to the first that fails; `None`: there was none to take.
fn take<'a>(
    socket: &mut RequestSocket,
    ifindex: u32,
    before: &Observed,
    steps: &'a [RootChange],
) -> Result<Option<Taken>, Stopped<'a>> {
    let Some((last, others)) = steps.split_last() else {
        return Ok(None);
    };
    let mut unseen = None;
    let mut bottleneck = Ok(());
    for (index, step) in others.iter().enumerate() {
        let changed = index > 0;
        look_before(socket, ifindex, (before, changed), step)?;
        let done = socket.change_root(ifindex, step);
        let done = done.map_err(|err| Stopped::Refused(step, err))?;
        unseen = unseen.or(done.destroyed.and_then(|it| lost(before, changed, it)));
        bottleneck = bottleneck.and(done.bottleneck);
    }
    let changed = !others.is_empty();
    look_before(socket, ifindex, (before, changed), last)?;
    let read = socket.change_root_and_read(ifindex, last);
    let (done, qdiscs) = read.map_err(|err| Stopped::Refused(last, err))?;
    let after = observed(qdiscs, ifindex);
    let bottleneck = bottleneck.and(done.bottleneck);
    Ok(Some(Taken {
        after: after.and_then(|after| match bottleneck {
            Ok(()) => Ok(after),
            Err(err) => Err(TcError::Bottleneck(err)),
        }),
        lost: unseen.or(done.destroyed.and_then(|it| lost(before, changed, it))),
    }))
}

/// Looks once more at what a step would destroy unseen. The kernel itself refuses to add or change where the root is
/// another one.
fn look_before<'a>(
    socket: &mut RequestSocket,
    ifindex: u32,
    (before, changed): (&Observed, bool),
    step: &'a RootChange,
) -> Result<(), Stopped<'a>> {
    let RootChange::Install {
        install: Install::Replace,
        ..
    } = step
    else {
        return Ok(());
    };
    let now = observe(socket, ifindex).map_err(Stopped::NotRead)?;
    if is_expected(before, changed, &now) {
        Ok(())
    } else {
        Err(Stopped::Unexpected)
    }
}

/// Returns whether the kernel refused because the root is not what it was when the plan was made
/// (`tc_modify_qdisc`, `tc_get_qdisc` in `net/sched/sch_api.c`).
fn is_race(step: &RootChange, err: &RtnetlinkError) -> bool {
    match (step, err.refused()) {
        (RootChange::Install { install, .. }, Some(Refused::Exists)) => {
            *install != Install::Replace
        }
        (RootChange::Install { install, .. }, Some(Refused::NotFound)) => {
            *install == Install::Change
        }
        (RootChange::Delete { .. }, Some(Refused::NotFound | Refused::Invalid)) => true,
        _ => false,
    }
}

/// Names the operation that failed. To add or replace, nothing has to be found but the netem itself.
fn failure(step: &RootChange, err: RtnetlinkError) -> TcError {
    match (step, err.refused()) {
        (_, Some(Refused::NoDevice)) => TcError::NoInterface,
        (RootChange::Delete { .. }, _) => TcError::Remove(err),
        (
            RootChange::Install {
                install: Install::Change,
                ..
            },
            _,
        ) => TcError::Change(err),
        (RootChange::Install { .. }, Some(Refused::NotFound)) => TcError::NoNetem(err),
        (RootChange::Install { .. }, _) => TcError::Install(err),
    }
}

/// Looks for a link; one that was never up has no qdisc that would tell it from none.
fn find_link(socket: &mut RequestSocket, ifindex: u32) -> Result<Link, TcError> {
    socket.link(ifindex).map_err(not_found)
}

fn not_found(err: RtnetlinkError) -> TcError {
    match err.refused() {
        Some(Refused::NoDevice) => TcError::NoInterface,
        _ => TcError::FindLink(err),
    }
}

/// Compares what was read back with what was wanted.
fn verify(wanted: &Netem, current: &Netem) -> Result<Option<Note>, TcError> {
    let seed_unknown = wanted.seed.is_some() && current.seed.is_none();
    let seed_differs = wanted.seed.is_some() && !seed_unknown && wanted.seed != current.seed;
    let fields: Vec<_> = [
        ("limit", wanted.limit == current.limit),
        ("delay", wanted.latency_ns == current.latency_ns),
        ("jitter", wanted.jitter_ns == current.jitter_ns),
        (
            "delay correlation",
            wanted.delay_correlation == current.delay_correlation,
        ),
        ("distribution", wanted.distribution == current.distribution),
        ("loss", wanted.loss == current.loss),
        ("duplication", wanted.duplicate == current.duplicate),
        ("corruption", wanted.corrupt == current.corrupt),
        (
            "reordering",
            (wanted.reorder, wanted.gap) == (current.reorder, current.gap),
        ),
        ("rate", wanted.rate == current.rate),
        ("queue", is_same_bottleneck(wanted, current)),
        ("slot", wanted.slot == current.slot),
        ("ecn", wanted.ecn == current.ecn),
        ("seed", !seed_differs),
    ]
    .into_iter()
    .filter(|(_, same)| !same)
    .map(|(field, _)| field)
    .collect();
    if fields.is_empty() {
        Ok(seed_unknown.then_some(Note::SeedUnknown))
    } else {
        Err(TcError::NotTaken { fields })
    }
}

fn is_same_bottleneck(wanted: &Netem, current: &Netem) -> bool {
    match (wanted.bottleneck, current.bottleneck) {
        (Some(wanted), Some(current)) => wanted.is_close_to(&current),
        (wanted, current) => wanted == current,
    }
}

#[cfg(test)]
mod tests;
