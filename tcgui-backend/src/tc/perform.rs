//! Executes a plan: read, plan, change, read back.
//!
//! It blocks its thread until the kernel has replied. Usually it sends two datagrams. The first asks for the link and
//! the qdiscs. The second makes the change and asks for the qdiscs again. Before a replacement, another datagram asks
//! for the qdiscs once more: see [`is_expected`].

use std::ffi::OsStr;

use super::desired::{Desired, LinkFacts};
use super::error::TcError;
use super::note::Note;
use super::observed::{Observed, Root};
use super::plan::{ForeignQdiscs, Plan, is_expected, lost, plan, steps};
use crate::kernel::bottleneck_probe::bottleneck_support;
use crate::kernel::link::Link;
use crate::kernel::netem::{Netem, Rate};
use crate::kernel::qdisc::{BottleneckChange, Install, Qdisc, RootChange};
use crate::kernel::rtnetlink::{Refused, RequestSocket, RtnetlinkError};

/// The number of attempts. A further attempt is made if another program changes the root between the read and the
/// change.
const ATTEMPTS: u32 = 3;

/// A requested change of the root of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The ifindex of the link, in the namespace of the socket.
    pub ifindex: u32,
    /// The desired state.
    pub desired: Desired,
    /// Whether qdiscs of other programs may be replaced.
    pub foreign: ForeignQdiscs,
}

/// The result of a change of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The plan that was executed.
    pub plan: Plan,
    /// The state that was read back.
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

/// Returns a link and the qdiscs of it. If `ifname` is given, the link must still have this name, because the client
/// named it by nothing else.
///
/// # Errors
/// [`TcError::NoInterface`] if it is gone or renamed, [`TcError::FindLink`], [`TcError::Observe`].
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

/// Returns the qdiscs of a link.
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

/// Reads the qdiscs of a link, and checks whether a netem could be installed at its root.
///
/// # Errors
/// The errors that [`perform`] would return before the change.
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

/// Brings the root of a link to the desired state.
///
/// # Errors
/// See [`TcError`]. In spite of [`TcError::Bottleneck`], [`TcError::NotTaken`] and [`TcError::Destroyed`], the root was
/// changed. If a later step of a plan fails, the steps before it have taken effect.
pub fn perform(socket: &mut RequestSocket, order: Order) -> Result<Outcome, TcError> {
    let before = observe(socket, order.ifindex)?;
    perform_recorded(socket, order, before, |_| Ok(()))
}

/// Changes the root of a link from `before` to the desired state.
///
/// Calls `record` with the observed state before each attempt. If another program changes the root in the meantime, the
/// next attempt starts with the state that this program left.
///
/// # Errors
/// See [`perform`]. If `record` fails, nothing is changed and its error is returned.
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
        let steps = steps(plan, netem.as_ref(), &before);
        let observed = match take(socket, ifindex, &before, &steps) {
            Err(Stopped::Refused(step, err)) if is_race(step, &err) => continue,
            Err(Stopped::Refused(step, err)) => return Err(failure(step, err).into()),
            Err(Stopped::Unexpected) => continue,
            Err(Stopped::NotRead(err)) => return Err(err.into()),
            Ok(None) => before.clone(),
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
            // Another program changed the root between the change and the read-back.
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
        notes.extend(note_about_waiting_packets(plan, netem.as_ref(), &before));
        return Ok(Outcome {
            plan,
            observed,
            notes,
        });
    }
    Err(TcError::Raced { attempts: ATTEMPTS }.into())
}

/// Returns the note about packets that waited on the link.
fn note_about_waiting_packets(
    plan: Plan,
    netem: Option<&Netem>,
    before: &Observed,
) -> Option<Note> {
    let old = before.netem()?;
    let own_rate = |netem: &Netem| match netem.rate {
        // It only keeps packets in order.
        Rate::ORDER => Rate::default(),
        rate => rate,
    };
    let times = |netem: &Netem| {
        (
            (netem.latency_ns, netem.jitter_ns, netem.distribution),
            (netem.slot, own_rate(netem)),
        )
    };
    let in_bottleneck = before.bottleneck_qlen;
    // On kernels with the fix (see `bottleneck_probe`), the queue of the netem includes that of the bottleneck.
    let in_netem = before.statistics.qlen.saturating_sub(in_bottleneck);
    let loses_bottleneck =
        old.bottleneck.is_some() && netem.is_some_and(|it| it.bottleneck.is_none());
    let note = match plan {
        Plan::Replace { .. } | Plan::Delete { .. } => Note::Dropped {
            packets: before.statistics.qlen.max(in_bottleneck),
        },
        Plan::Change { .. } if loses_bottleneck && in_bottleneck > 0 => Note::Dropped {
            packets: in_bottleneck,
        },
        Plan::Change { .. } if netem.map(times) != Some(times(old)) => {
            Note::LeaveAsBefore { packets: in_netem }
        }
        Plan::Nothing | Plan::Add { .. } | Plan::Change { .. } => return None,
    };
    match note {
        Note::Dropped { packets: 0 } | Note::LeaveAsBefore { packets: 0 } => None,
        note => Some(note),
    }
}

/// Executes the steps that `decide` chooses for the observed root. Returns the other result of `decide`, with the root
/// after the steps. Starts again if another program changes the root in between.
///
/// # Errors
/// See [`TcError`].
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

/// Fails if the change destroyed a qdisc that the daemon would have refused to replace.
fn allow_loss(
    netem: Option<&Netem>,
    lost: &Observed,
    foreign: ForeignQdiscs,
) -> Result<(), TcError> {
    plan(netem, lost, foreign)
        .map(drop)
        .map_err(|_| TcError::Destroyed(lost.root.to_string()))
}

/// The reason why not all steps were executed.
enum Stopped<'a> {
    /// The kernel refused a step.
    Refused(&'a RootChange, RtnetlinkError),
    /// Another program changed the root before the replacement.
    Unexpected,
    /// The root could not be read.
    NotRead(TcError),
}

/// The result of the steps.
struct Taken {
    /// The state after them.
    after: Result<Observed, TcError>,
    /// A destroyed root that was not the expected one.
    lost: Option<Observed>,
}

/// Executes the steps in order, up to the first one that fails. `None`: there are no steps.
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
        bottleneck = bottleneck.and(bottleneck_result(step, done.bottleneck));
    }
    let changed = !others.is_empty();
    look_before(socket, ifindex, (before, changed), last)?;
    let read = socket.change_root_and_read(ifindex, last);
    let (done, qdiscs) = read.map_err(|err| Stopped::Refused(last, err))?;
    let after = observed(qdiscs, ifindex);
    let bottleneck = bottleneck.and(bottleneck_result(last, done.bottleneck));
    Ok(Some(Taken {
        after: after.and_then(|after| match bottleneck {
            Ok(()) => Ok(after),
            Err(err) => Err(TcError::Bottleneck(err)),
        }),
        lost: unseen.or(done.destroyed.and_then(|it| lost(before, changed, it))),
    }))
}

/// Returns the result of the change of the bottleneck. If it is to be removed and another program removed it first, the
/// change has succeeded.
fn bottleneck_result(
    step: &RootChange,
    result: Result<(), RtnetlinkError>,
) -> Result<(), RtnetlinkError> {
    let removes = matches!(
        step,
        RootChange::Install {
            bottleneck: BottleneckChange::Remove { .. },
            ..
        }
    );
    match result {
        Err(err) if removes && err.refused() == Some(Refused::NotFound) => Ok(()),
        result => result,
    }
}

/// Reads the root again before a replacement, because the kernel replaces any root. The kernel itself refuses other
/// steps if the root is not the expected one.
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

/// Returns whether the kernel refused because the root changed after the plan was made (`tc_modify_qdisc`,
/// `tc_get_qdisc` in `net/sched/sch_api.c`).
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

/// Returns the error of the failed operation. If an addition or a replacement is refused with "not found", the kernel
/// has no netem.
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

/// Reads a link. This distinguishes a link that does not exist from one that was never up and has no qdisc.
fn find_link(socket: &mut RequestSocket, ifindex: u32) -> Result<Link, TcError> {
    socket.link(ifindex).map_err(not_found)
}

fn not_found(err: RtnetlinkError) -> TcError {
    match err.refused() {
        Some(Refused::NoDevice) => TcError::NoInterface,
        _ => TcError::FindLink(err),
    }
}

/// Compares the netem that was read back with the desired one.
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
