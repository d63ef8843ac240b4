//! Counters of links: one dump for each namespace, from which all rates are computed.
//!
//! It runs for every namespace every few seconds. So nothing is allocated for each link, and only the index, the
//! name and the counters are parsed.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::libc;

use super::{IFINFOMSG, IFLA_IFNAME, string};
use crate::kernel::rtnetlink::{Message, Nsid, RequestSocket, RtnetlinkError, take};

/// `struct rtnl_link_stats` and `struct rtnl_link_stats64` (`include/uapi/linux/if_link.h`): the same
/// fields in the same order, 32 and 64 bits wide. Every kernel since 2.6.35 sends both.
const IFLA_STATS: u16 = 7;
const IFLA_STATS64: u16 = 23;
/// The longest name of a link with its terminator (`IFNAMSIZ`, `include/uapi/linux/if.h`).
const IFNAMSIZ: usize = 16;

/// The name of a link, stored without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkName([u8; IFNAMSIZ]);

impl LinkName {
    /// Returns a name of these bytes. Names that are too long for a link are cut.
    pub fn new(name: &[u8]) -> Self {
        let mut bytes = [0; IFNAMSIZ];
        let name = string(name);
        let name = name.get(..IFNAMSIZ - 1).unwrap_or(name);
        for (byte, of_name) in bytes.iter_mut().zip(name) {
            *byte = *of_name;
        }
        Self(bytes)
    }

    /// Returns the name as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        string(&self.0)
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(OsStr::from_bytes(self.as_bytes()), f)
    }
}

/// The traffic in one direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets with errors.
    pub errors: u64,
    /// Packets dropped for lack of space.
    pub dropped: u64,
}

/// The counters of one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkCounters {
    /// The kernel's index, unique inside one namespace.
    pub ifindex: u32,
    /// The name at the time of the dump.
    pub name: LinkName,
    /// Received traffic.
    pub rx: Traffic,
    /// Sent traffic.
    pub tx: Traffic,
}

impl RequestSocket {
    /// Returns the counters of the links of the namespace `nsid`, or of the socket's own.
    ///
    /// A link for which the kernel sends no counters is left out.
    ///
    /// # Errors
    /// Refused with `EINVAL` when the id names no namespace (any more).
    pub fn link_counters(
        &mut self,
        nsid: Option<Nsid>,
    ) -> Result<Vec<LinkCounters>, RtnetlinkError> {
        let mut body = LinkMessage::default();
        // Without an extension mask, because a dump contains statistics unless the mask excludes them.
        body.attributes
            .extend(nsid.map(|Nsid(id)| LinkAttribute::IfNetnsId(id)));
        let links = self.dump(libc::RTM_GETLINK, &body, |message| {
            if message.kind == libc::RTM_NEWLINK {
                parse(message)
            } else {
                Ok(None)
            }
        })?;
        Ok(links.into_iter().flatten().collect())
    }
}

/// Parses one `RTM_NEWLINK`. `None`: it has no counters.
fn parse(message: Message<'_>) -> Result<Option<LinkCounters>, RtnetlinkError> {
    let ifindex = u32::from_ne_bytes(take(message.payload, 4)?);
    let mut name = LinkName([0; IFNAMSIZ]);
    let (mut narrow, mut wide) = (None, None);
    for (kind, value) in message.attributes(IFINFOMSG).iter() {
        match kind {
            IFLA_IFNAME => name = LinkName::new(value),
            IFLA_STATS => narrow = Some(value),
            IFLA_STATS64 => {
                wide = Some(value);
                // The kernel sends this attribute as the last one of the three. The rest is not needed.
                break;
            }
            _ => {}
        }
    }
    let (rx, tx) = match (wide, narrow) {
        (Some(stats), _) => traffic(|field| Ok(u64::from_ne_bytes(take(stats, field * 8)?)))?,
        (None, Some(stats)) => {
            traffic(|field| Ok(u32::from_ne_bytes(take(stats, field * 4)?).into()))?
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(LinkCounters {
        ifindex,
        name,
        rx,
        tx,
    }))
}

/// Reads received and sent traffic from either struct, by the number of the field.
fn traffic(
    field: impl Fn(usize) -> Result<u64, RtnetlinkError>,
) -> Result<(Traffic, Traffic), RtnetlinkError> {
    let direction = |first: usize| {
        Ok::<_, RtnetlinkError>(Traffic {
            packets: field(first)?,
            bytes: field(first + 2)?,
            errors: field(first + 4)?,
            dropped: field(first + 6)?,
        })
    };
    Ok((direction(0)?, direction(1)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::lab::PrivateNetns;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn read(attributes: &[Vec<u8>]) -> Result<Option<LinkCounters>, RtnetlinkError> {
        let mut payload = vec![0; IFINFOMSG];
        payload[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        payload.extend(attributes.concat());
        parse(Message::sample(libc::RTM_NEWLINK, &payload))
    }

    #[test]
    fn wide_counters_are_preferred_to_narrow_ones() {
        let name = attribute(IFLA_IFNAME, b"v0\0");
        let narrow: Vec<u8> = (1..=24_u32).flat_map(u32::to_ne_bytes).collect();
        let wide: Vec<u8> = (1..=25_u64).flat_map(|n| (n << 40).to_ne_bytes()).collect();
        let expected = |shift: u32| LinkCounters {
            ifindex: 7,
            name: LinkName::new(b"v0"),
            rx: Traffic {
                packets: 1 << shift,
                bytes: 3 << shift,
                errors: 5 << shift,
                dropped: 7 << shift,
            },
            tx: Traffic {
                packets: 2 << shift,
                bytes: 4 << shift,
                errors: 6 << shift,
                dropped: 8 << shift,
            },
        };
        let narrow = attribute(IFLA_STATS, &narrow);
        let wide = attribute(IFLA_STATS64, &wide);
        let both = read(&[name.clone(), narrow.clone(), wide]).unwrap();
        assert_eq!(both, Some(expected(40)));
        assert_eq!(read(&[name.clone(), narrow]).unwrap(), Some(expected(0)));
        assert_eq!(read(&[name]).unwrap(), None, "no counters, no sample");
        let short = read(&[attribute(IFLA_STATS64, &[0; 60])]).unwrap_err();
        assert!(matches!(short, RtnetlinkError::Malformed), "{short}");
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(bytes: Vec<u8>) {
            parse(Message::sample(libc::RTM_NEWLINK, &bytes)).ok();
        }

        #[test]
        fn names_are_kept_up_to_their_terminator(name in proptest::collection::vec(1..=255_u8, 0..16)) {
            let kept = LinkName::new(&name);
            prop_assert_eq!(kept.as_bytes(), &name[..name.len().min(15)]);
        }
    }

    #[test]
    fn the_kernel_counts_traffic_on_the_loopback() {
        let netns = PrivateNetns::new();
        netns.ip("link set lo up");
        let (before, after) = netns.inside(|| {
            let mut socket = RequestSocket::open().unwrap();
            let before = socket.link_counters(None).unwrap();
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            sender
                .send_to(&[0; 972], sender.local_addr().unwrap())
                .unwrap();
            // The received packet has been counted.
            sender.recv(&mut [0; 2000]).unwrap();
            (before, socket.link_counters(None).unwrap())
        });
        let lo = |links: &[LinkCounters]| {
            let lo = links.iter().find(|link| link.name.as_bytes() == b"lo");
            *lo.expect("every namespace has lo")
        };
        let (before, after) = (lo(&before), lo(&after));
        assert_eq!(before.ifindex, 1);
        assert_eq!(after.rx.packets - before.rx.packets, 1);
        // The headers of IP and UDP count, but not that of Ethernet (`loopback_xmit`, `drivers/net/loopback.c`).
        assert_eq!(after.rx.bytes - before.rx.bytes, 20 + 8 + 972);
        assert_eq!(after.tx, after.rx);
    }

    #[test]
    fn another_namespace_is_read_by_its_id() {
        let netns = PrivateNetns::new();
        netns.ip("link add v0 type veth peer name v1");
        let mut socket = RequestSocket::open().unwrap();
        let nsid = socket.namespace_id(&netns.open()).unwrap();
        let counters = socket.link_counters(Some(nsid)).unwrap();
        let names: Vec<_> = counters.iter().map(|link| link.name.as_bytes()).collect();
        assert_eq!(names.len(), 3, "{counters:?}");
        for name in [&b"lo"[..], b"v0", b"v1"] {
            assert!(names.contains(&name), "{counters:?}");
        }
    }
}
