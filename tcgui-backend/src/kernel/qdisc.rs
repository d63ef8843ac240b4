//! Queueing disciplines: the dump of a namespace, and the netem at the root of a link.
//!
//! `RTM_GETQDISC` answers for the namespace of the socket only, and dumps it whole: the kernel looks at
//! no filter (`tc_dump_qdisc`, `net/sched/sch_api.c`).

use netlink_packet_core::Emitable;
use nix::libc;

use super::netem::Netem;
use super::rtnetlink::{
    Attributes, Change, Message, RequestSocket, RtnetlinkError, push_attribute, string, take,
};

/// Size of `struct tcmsg`.
const TCMSG: usize = 20;
/// `TC_H_ROOT`: the parent of a root qdisc.
const ROOT: u32 = u32::MAX;
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
    /// The link it belongs to.
    pub ifindex: u32,
    /// Its number; the minor half is 0. The kernel's own default qdiscs have 0.
    pub handle: u32,
    /// The class it hangs on.
    pub parent: u32,
    /// For instance `netem`.
    pub kind: String,
    /// Its parameters if it is a netem.
    pub netem: Option<Netem>,
    /// What passed through it.
    pub statistics: QdiscStatistics,
}

impl Qdisc {
    /// Returns whether it is what the link sends through.
    pub fn is_root(&self) -> bool {
        self.parent == ROOT
    }

    /// Returns whether it hangs below `other`.
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

/// How a netem gets to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Install {
    /// Where nothing but the kernel's default is; otherwise refused with `EEXIST`.
    Add,
    /// By changing the netem with this handle; refused when it is not at the root any more.
    Change,
    /// In place of whatever is there, in one step.
    Replace,
}

/// What the root qdisc of a link is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootChange {
    /// This netem. Refused with `ENODEV` if the link is gone, and with `ENOENT` if the kernel has no netem or there is no netem to
    /// change; the error text tells which. For other refusals see [`Install`].
    Install {
        /// How.
        install: Install,
        /// With this handle.
        handle: u32,
        /// What it does.
        netem: Netem,
    },
    /// The kernel's default. Refused with `ENODEV` when the link is gone, `ENOENT` when nothing but the default is
    /// there, `EINVAL` when the handle is another.
    Delete {
        /// Of what is there.
        handle: u32,
    },
}

/// All qdiscs after a change, or why they were not read.
pub type ReadBack = Result<Vec<Qdisc>, RtnetlinkError>;

impl RequestSocket {
    /// Returns all qdiscs of the socket's namespace, but for those that the kernel hides.
    ///
    /// # Errors
    /// The exchange fails.
    pub fn qdiscs(&mut self) -> Result<Vec<Qdisc>, RtnetlinkError> {
        self.dump(libc::RTM_GETQDISC, &every(), parse)
    }

    /// Changes the root qdisc of a link, and returns the qdisc that [`Install::Replace`] took the place of. The kernel
    /// reports it in the same step, unless it is a built-in default such as `noqueue`.
    ///
    /// # Errors
    /// Refused as [`RootChange`] says.
    pub fn change_root(
        &mut self,
        ifindex: u32,
        change: &RootChange,
    ) -> Result<Option<Qdisc>, RtnetlinkError> {
        let (kind, change, body) = change.request(ifindex);
        let notified = self.change_and_report((kind, change, &body), removed)?;
        Ok(notified.into_iter().flatten().next())
    }

    /// Changes the root qdisc of a link as [`Self::change_root`] does, and returns all qdiscs of the socket's namespace as
    /// they are then, which is asked for in the same datagram.
    ///
    /// # Errors
    /// Refused as [`RootChange`] says; inside, when it was changed, as [`Self::qdiscs`].
    pub fn change_root_and_read(
        &mut self,
        ifindex: u32,
        change: &RootChange,
    ) -> Result<(Option<Qdisc>, ReadBack), RtnetlinkError> {
        let (kind, change, body) = change.request(ifindex);
        let every = (libc::RTM_GETQDISC, &every());
        let (notified, read) =
            self.change_and_dump((kind, change, &body), removed, every, parse)?;
        Ok((notified.into_iter().flatten().next(), read))
    }
}

impl RootChange {
    fn request(&self, ifindex: u32) -> (u16, Change, Request) {
        match self {
            Self::Install {
                install,
                handle,
                netem,
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
}

/// Asks for all qdiscs.
pub(super) fn every() -> Request {
    Request::new(0, 0, 0)
}

/// `struct tcmsg` and the attributes behind it.
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

/// Reads a notification, if it is about a qdisc that is gone (`qdisc_notify`, `net/sched/sch_api.c`).
fn removed(message: Message<'_>) -> Result<Option<Qdisc>, RtnetlinkError> {
    let is_removed = message.kind == libc::RTM_DELQDISC;
    is_removed.then(|| parse(message)).transpose()
}

/// Reads one `RTM_NEWQDISC`.
pub(super) fn parse(message: Message<'_>) -> Result<Qdisc, RtnetlinkError> {
    let field = |at| take(message.payload, at).map(u32::from_ne_bytes);
    let mut qdisc = Qdisc {
        ifindex: field(4)?,
        handle: field(8)?,
        parent: field(12)?,
        kind: String::new(),
        netem: None,
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
    qdisc.statistics = nested
        .map(|nested| nested_statistics(Attributes(nested)))
        .or_else(|| legacy_statistics(legacy?).ok())
        .unwrap_or_default();
    Ok(qdisc)
}

/// Reads `TCA_STATS2`; a part that is malformed counts as absent.
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
            // The 32 bits of packets above may have wrapped around.
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

/// Reads `struct tc_stats` (`include/uapi/linux/pkt_sched.h`), in which the rates are 0 without an
/// estimator.
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IFINDEX: u32 = 7;
    const HANDLE: u32 = 0x7c60_0000;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// A root qdisc with these attributes, as the payload of a message.
    fn payload(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = Request::new(IFINDEX, HANDLE, ROOT);
        for (kind, value) in attributes {
            push_attribute(&mut body.attributes, *kind, value);
        }
        let mut bytes = vec![0; body.buffer_len()];
        body.emit(&mut bytes);
        bytes
    }

    fn read(attributes: &[(u16, Vec<u8>)]) -> Qdisc {
        let payload = payload(attributes);
        parse(Message::sample(libc::RTM_NEWQDISC, &payload)).unwrap()
    }

    #[test]
    fn a_netem_is_read_with_its_counters() {
        let netem = Netem {
            limit: 9,
            latency_ns: 77,
            ..Netem::default()
        };
        let mut nested = Vec::new();
        // Four bytes of padding follow the structure in the kernel's own form.
        let basic = [&5_000_000_000_u64.to_ne_bytes()[..], &words(&[3, 0])].concat();
        push_attribute(&mut nested, TCA_STATS_BASIC, &basic);
        let packets = (1_u64 << 32) + 3;
        push_attribute(&mut nested, TCA_STATS_PKT64, &packets.to_ne_bytes());
        push_attribute(&mut nested, TCA_STATS_QUEUE, &words(&[1, 2, 3, 4, 5]));
        push_attribute(&mut nested, TCA_STATS_RATE_EST, &words(&[6, 7]));
        let qdisc = read(&[
            (TCA_KIND, b"netem\0".to_vec()),
            (TCA_OPTIONS, netem.to_options()),
            (99, vec![1, 2, 3]),
            (TCA_STATS2, nested),
            (TCA_STATS, vec![0xff; 36]),
        ]);
        let statistics = QdiscStatistics {
            bytes: 5_000_000_000,
            packets,
            qlen: 1,
            backlog: 2,
            drops: 3,
            requeues: 4,
            overlimits: 5,
            rate: Some(QdiscRate {
                bytes_per_s: 6,
                packets_per_s: 7,
            }),
        };
        let expected = Qdisc {
            ifindex: IFINDEX,
            handle: HANDLE,
            parent: ROOT,
            kind: "netem".into(),
            netem: Some(netem),
            statistics,
        };
        assert_eq!(qdisc, expected);
        assert!(qdisc.is_root());
    }

    #[test]
    fn old_counters_are_read_where_there_are_no_new_ones() {
        let old = [&4_u64.to_ne_bytes()[..], &words(&[5, 6, 7, 0, 0, 8, 9])].concat();
        let qdisc = read(&[(TCA_KIND, b"htb\0".to_vec()), (TCA_STATS, old)]);
        let expected = QdiscStatistics {
            bytes: 4,
            packets: 5,
            drops: 6,
            overlimits: 7,
            qlen: 8,
            backlog: 9,
            ..QdiscStatistics::default()
        };
        assert_eq!(qdisc.statistics, expected);
        assert_eq!(qdisc.netem, None);
    }

    #[test]
    fn a_child_is_told_by_the_handle_of_its_parent() {
        let root = read(&[(TCA_KIND, b"netem\0".to_vec())]);
        let at = |ifindex, parent| Qdisc {
            ifindex,
            parent,
            ..root.clone()
        };
        assert!(at(IFINDEX, HANDLE | 1).is_child_of(&root));
        assert!(!at(IFINDEX + 1, HANDLE | 1).is_child_of(&root));
        assert!(!at(IFINDEX, HANDLE + 0x1_0001).is_child_of(&root));
        assert!(!root.is_child_of(&root));
    }

    proptest! {
        #[test]
        fn nothing_makes_the_reader_panic(bytes: Vec<u8>, kind in 0..12_u16) {
            parse(Message::sample(libc::RTM_NEWQDISC, &bytes)).ok();
            let netem = (TCA_KIND, b"netem\0".to_vec());
            let payload = payload(&[netem, (kind, bytes)]);
            prop_assert!(parse(Message::sample(libc::RTM_NEWQDISC, &payload)).is_ok());
        }
    }
}
