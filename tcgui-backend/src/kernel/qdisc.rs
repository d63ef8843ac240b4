//! Queueing disciplines: reads all qdiscs of a namespace, and changes the root qdisc of a link.
//!
//! `RTM_GETQDISC` returns all qdiscs of the socket's namespace. The kernel supports no filter for this dump
//! (`tc_dump_qdisc`, `net/sched/sch_api.c`).

use netlink_packet_core::Emitable;
use nix::libc;

use super::netem::Netem;
use super::rtnetlink::{
    Attributes, Change, Message, RequestSocket, RtnetlinkError, push_attribute, string, take,
};
use super::tbf::Tbf;

/// Size of `struct tcmsg`.
const TCMSG: usize = 20;
/// `TC_H_ROOT`: the parent of a root qdisc.
const ROOT: u32 = u32::MAX;
/// The class of a netem to which its child is attached.
const LEAF: u32 = 1;
/// Attributes of a qdisc (`include/uapi/linux/rtnetlink.h`).
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_STATS: u16 = 3;
const TCA_STATS2: u16 = 7;
/// Attributes inside `TCA_STATS2` (`include/uapi/linux/gen_stats.h`).
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_RATE_EST: u16 = 2;
const TCA_STATS_QUEUE: u16 = 3;
const TCA_STATS_PKT64: u16 = 8;

/// One qdisc as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qdisc {
    /// The ifindex of its link.
    pub ifindex: u32,
    /// Its handle. The lower 16 bits are 0. The kernel's default qdiscs have handle 0.
    pub handle: u32,
    /// The class to which it is attached.
    pub parent: u32,
    /// For instance `netem`.
    pub kind: String,
    /// Its parameters if it is a netem.
    pub netem: Option<Netem>,
    /// Its parameters if it is a token bucket filter.
    pub tbf: Option<Tbf>,
    /// Its counters.
    pub statistics: QdiscStatistics,
}

impl Qdisc {
    /// Returns whether this is the root qdisc of its link.
    pub fn is_root(&self) -> bool {
        self.parent == ROOT
    }

    /// Returns whether this is a child of `other`.
    pub fn is_child_of(&self, other: &Self) -> bool {
        let major = |handle: u32| handle >> 16;
        self.ifindex == other.ifindex
            && !self.is_root()
            && major(self.parent) == major(other.handle)
    }
}

/// The counters of a qdisc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QdiscStatistics {
    /// Bytes sent.
    pub bytes: u64,
    /// Packets sent.
    pub packets: u64,
    /// Packets waiting.
    pub qlen: u32,
    /// Bytes waiting.
    pub backlog: u32,
    /// Packets dropped.
    pub drops: u32,
    /// Packets queued again after a failed send.
    pub requeues: u32,
    /// How often a limit was hit.
    pub overlimits: u32,
    /// The kernel's estimate, if a program configured an estimator.
    pub rate: Option<QdiscRate>,
}

/// The rates that the kernel estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QdiscRate {
    /// Bytes per second.
    pub bytes_per_s: u32,
    /// Packets per second.
    pub packets_per_s: u32,
}

/// How a netem becomes the root qdisc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Install {
    /// Adds it. The kernel refuses with `EEXIST` if the root is not the kernel's default.
    Add,
    /// Changes the netem with this handle. The kernel refuses if it is no longer the root.
    Change,
    /// Replaces any root qdisc in one step.
    Replace,
}

/// The change of the token bucket filter (the bottleneck) below a netem. It is sent in the same datagram as the change
/// of the netem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BottleneckChange {
    /// No request: the bottleneck stays, or there is none.
    Keep,
    /// Creates the bottleneck. If there is one with this handle, changes it, which keeps its queue.
    Set {
        /// Its handle.
        handle: u32,
        /// Its parameters.
        tbf: Tbf,
    },
    /// Removes the bottleneck and drops the packets in its queue.
    Remove {
        /// Its handle.
        handle: u32,
    },
}

/// A change of the root qdisc of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are at most three at a time, and most of them install"
)]
pub enum RootChange {
    /// Installs a netem. The kernel refuses with `ENODEV` if the link is gone. It refuses with `ENOENT` if it has no
    /// netem, or if there is no netem to change; the text of the error distinguishes the two. For other refusals see
    /// [`Install`].
    Install {
        /// The kind of change.
        install: Install,
        /// The handle of the netem.
        handle: u32,
        /// The parameters. Their `bottleneck` is ignored here.
        netem: Netem,
        /// The change of the bottleneck.
        bottleneck: BottleneckChange,
    },
    /// Deletes the root qdisc, so that the kernel's default returns. The kernel refuses with `ENODEV` if the link is
    /// gone, with `ENOENT` if the root is the default, and with `EINVAL` if the handle is another one.
    Delete {
        /// The handle of the root qdisc.
        handle: u32,
    },
}

/// All qdiscs after a change, or the error of the read-back.
pub type ReadBack = Result<Vec<Qdisc>, RtnetlinkError>;

impl RequestSocket {
    /// Returns all qdiscs of the socket's namespace, except those that the kernel hides.
    ///
    /// # Errors
    /// The exchange fails.
    pub fn qdiscs(&mut self) -> Result<Vec<Qdisc>, RtnetlinkError> {
        self.dump(libc::RTM_GETQDISC, &every(), parse)
    }

    /// Changes the root qdisc of a link and the bottleneck below it. Both requests are in one datagram, so a crash of
    /// the daemon cannot come between them.
    ///
    /// # Errors
    /// The kernel refuses the change of the root: see [`RootChange`].
    pub fn change_root(
        &mut self,
        ifindex: u32,
        change: &RootChange,
    ) -> Result<Changed, RtnetlinkError> {
        let root = change.request(ifindex);
        let below = change.request_below(ifindex);
        let (notified, below) = self.change_both(part(&root), removed, below.as_ref().map(part))?;
        Ok(Changed::new(notified, below))
    }

    /// Changes the root qdisc of a link as [`Self::change_root`] does. Also returns all qdiscs of the socket's
    /// namespace after the change. The request for them is in the same datagram.
    ///
    /// # Errors
    /// The kernel refuses the change of the root: see [`RootChange`]. The inner error is that of [`Self::qdiscs`] after
    /// the change.
    pub fn change_root_and_read(
        &mut self,
        ifindex: u32,
        change: &RootChange,
    ) -> Result<(Changed, ReadBack), RtnetlinkError> {
        let root = change.request(ifindex);
        let below = change.request_below(ifindex);
        let every = (libc::RTM_GETQDISC, &every());
        let below = below.as_ref().map(part);
        let (notified, below, read) =
            self.change_both_and_dump(part(&root), removed, below, every, parse)?;
        Ok((Changed::new(notified, below), read))
    }
}

/// The result of a change of the root qdisc.
#[derive(Debug)]
pub struct Changed {
    /// The qdisc that [`Install::Replace`] replaced. The kernel reports it in the same step, unless it is a built-in
    /// default such as `noqueue`.
    pub destroyed: Option<Qdisc>,
    /// The result of the change of the bottleneck.
    pub bottleneck: Result<(), RtnetlinkError>,
}

impl Changed {
    fn new(notified: Vec<Option<Qdisc>>, bottleneck: Result<(), RtnetlinkError>) -> Self {
        Self {
            destroyed: notified.into_iter().flatten().next(),
            bottleneck,
        }
    }
}

fn part((kind, change, body): &(u16, Change, Request)) -> (u16, Change, &Request) {
    (*kind, *change, body)
}

impl RootChange {
    fn request(&self, ifindex: u32) -> (u16, Change, Request) {
        match self {
            Self::Install {
                install,
                handle,
                netem,
                bottleneck: _,
            } => {
                let mut body = Request::new(ifindex, *handle, ROOT);
                push_attribute(&mut body.attributes, TCA_KIND, b"netem\0");
                push_attribute(&mut body.attributes, TCA_OPTIONS, &netem.to_options());
                let change = match install {
                    Install::Add => Change::Create,
                    Install::Change => Change::Existing,
                    Install::Replace => Change::Replace,
                };
                (libc::RTM_NEWQDISC, change, body)
            }
            Self::Delete { handle } => {
                let body = Request::new(ifindex, *handle, ROOT);
                (libc::RTM_DELQDISC, Change::Existing, body)
            }
        }
    }

    /// Returns the request for the bottleneck. Its parent is the netem of this change. If the kernel refuses the netem,
    /// it also refuses this request.
    fn request_below(&self, ifindex: u32) -> Option<(u16, Change, Request)> {
        let Self::Install {
            handle: netem,
            bottleneck,
            ..
        } = self
        else {
            return None;
        };
        let parent = netem | LEAF;
        match bottleneck {
            BottleneckChange::Keep => None,
            BottleneckChange::Set { handle, tbf } => {
                let mut body = Request::new(ifindex, *handle, parent);
                push_attribute(&mut body.attributes, TCA_KIND, b"tbf\0");
                push_attribute(&mut body.attributes, TCA_OPTIONS, &tbf.to_options());
                Some((libc::RTM_NEWQDISC, Change::CreateOrAlter, body))
            }
            BottleneckChange::Remove { handle } => {
                let body = Request::new(ifindex, *handle, parent);
                Some((libc::RTM_DELQDISC, Change::Existing, body))
            }
        }
    }
}

/// Returns the request for all qdiscs.
pub(super) fn every() -> Request {
    Request::new(0, 0, 0)
}

/// `struct tcmsg`, followed by attributes.
pub(super) struct Request {
    header: [u8; TCMSG],
    attributes: Vec<u8>,
}

impl Request {
    fn new(ifindex: u32, handle: u32, parent: u32) -> Self {
        let mut header = [0; TCMSG];
        for (field, value) in header.chunks_exact_mut(4).zip([0, ifindex, handle, parent]) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
        Self {
            header,
            attributes: Vec::new(),
        }
    }
}

impl Emitable for Request {
    fn buffer_len(&self) -> usize {
        TCMSG + self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(TCMSG);
        header.copy_from_slice(&self.header);
        attributes.copy_from_slice(&self.attributes);
    }
}

/// Parses a notification about a qdisc that was removed. `None`: it is about something else (`qdisc_notify`,
/// `net/sched/sch_api.c`).
fn removed(message: Message<'_>) -> Result<Option<Qdisc>, RtnetlinkError> {
    let is_removed = message.kind == libc::RTM_DELQDISC;
    is_removed.then(|| parse(message)).transpose()
}

/// Parses a `RTM_NEWQDISC` message.
pub(super) fn parse(message: Message<'_>) -> Result<Qdisc, RtnetlinkError> {
    let field = |at| take(message.payload, at).map(u32::from_ne_bytes);
    let mut qdisc = Qdisc {
        ifindex: field(4)?,
        handle: field(8)?,
        parent: field(12)?,
        kind: String::new(),
        netem: None,
        tbf: None,
        statistics: QdiscStatistics::default(),
    };
    let mut options = None;
    let (mut legacy, mut nested) = (None, None);
    for (kind, value) in message.attributes(TCMSG).iter() {
        match kind {
            TCA_KIND => qdisc.kind = String::from_utf8_lossy(string(value)).into_owned(),
            TCA_OPTIONS => options = Some(value),
            TCA_STATS => legacy = Some(value),
            TCA_STATS2 => nested = Some(value),
            _ => {}
        }
    }
    if qdisc.kind == "netem" {
        qdisc.netem = options.and_then(Netem::from_options);
    }
    if qdisc.kind == "tbf" {
        qdisc.tbf = options.and_then(Tbf::from_options);
    }
    qdisc.statistics = nested
        .map(|nested| nested_statistics(Attributes(nested)))
        .or_else(|| legacy_statistics(legacy?).ok())
        .unwrap_or_default();
    Ok(qdisc)
}

/// Parses `TCA_STATS2`. A malformed part is treated as missing.
fn nested_statistics(attributes: Attributes<'_>) -> QdiscStatistics {
    let mut statistics = QdiscStatistics::default();
    let mut packets64 = None;
    for (kind, value) in attributes.iter() {
        let word = |at: usize| take(value, at * 4).map_or(0, u32::from_ne_bytes);
        let double = |at: usize| take(value, at).map_or(0, u64::from_ne_bytes);
        match kind {
            TCA_STATS_BASIC => {
                statistics.bytes = double(0);
                statistics.packets = word(2).into();
            }
            // The 32-bit counter in `TCA_STATS_BASIC` may have overflowed.
            TCA_STATS_PKT64 => packets64 = Some(double(0)),
            TCA_STATS_RATE_EST => {
                statistics.rate = Some(QdiscRate {
                    bytes_per_s: word(0),
                    packets_per_s: word(1),
                });
            }
            TCA_STATS_QUEUE => {
                statistics.qlen = word(0);
                statistics.backlog = word(1);
                statistics.drops = word(2);
                statistics.requeues = word(3);
                statistics.overlimits = word(4);
            }
            _ => {}
        }
    }
    statistics.packets = packets64.unwrap_or(statistics.packets);
    statistics
}

/// Parses `struct tc_stats` (`include/uapi/linux/pkt_sched.h`). Without an estimator its rates are 0.
fn legacy_statistics(value: &[u8]) -> Result<QdiscStatistics, RtnetlinkError> {
    let word = |at| take(value, at).map(u32::from_ne_bytes);
    let rate = QdiscRate {
        bytes_per_s: word(20)?,
        packets_per_s: word(24)?,
    };
    Ok(QdiscStatistics {
        bytes: u64::from_ne_bytes(take(value, 0)?),
        packets: word(8)?.into(),
        drops: word(12)?,
        overlimits: word(16)?,
        qlen: word(28)?,
        backlog: word(32)?,
        requeues: 0,
        rate: (rate != QdiscRate::default()).then_some(rate),
    })
}

#[cfg(test)]
mod tests;
