//! Links: the dump of a namespace, the counters, and setting a link up or down.

mod counters;

use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::netem::Netem;
use super::qdisc::{self, Qdisc};
use super::rtnetlink::{
    Attributes, Change, Message, Nsid, RequestSocket, RtnetlinkError, string, take,
};

pub use counters::{LinkCounters, LinkName, Traffic};

/// Size of `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
/// `NETNSA_NSID_NOT_ASSIGNED`: in a request, the kernel is to choose the id; in a reply, there is no id.
const NOT_ASSIGNED: i32 = -1;
/// Attributes of a link and inside `IFLA_LINKINFO` (`include/uapi/linux/if_link.h`).
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_QDISC: u16 = 6;
const IFLA_LINKINFO: u16 = 18;
const IFLA_CARRIER: u16 = 33;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
/// Limit of the stored altnames of one link. Root in a container can create thousands.
const MOST_ALTNAMES: usize = 16;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
/// `IFLA_TUN_TYPE` of `IFLA_INFO_DATA`, 1 = tun, 2 = tap (`include/uapi/linux/if_tun.h`).
const IFLA_TUN_TYPE: u16 = 3;
const IFF_TAP: u8 = 2;

/// One link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index, unique inside one namespace.
    pub ifindex: u32,
    /// The name as bytes, not necessarily UTF-8.
    pub ifname: OsString,
    /// `IFF_UP`: an administrator has set the link up.
    pub up: bool,
    /// `IFLA_CARRIER`: the other end is connected.
    pub carrier: bool,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// The largest packet in bytes, without the header of the link.
    pub mtu: u32,
    /// The driver's kind, for instance `veth`; hardware has none.
    pub kind: Option<String>,
    /// A tun device that carries Ethernet frames.
    pub tap: bool,
    /// A netem is the root qdisc. A netem deeper in a tree does not count.
    pub root_netem: bool,
    /// The parameters of that netem. A dump of links does not have them.
    pub netem: Option<Netem>,
    /// The speed in bits per second that limits the traffic. A dump of links does not have it, and it is read only for a link
    /// with a netem. See [`RequestSocket::speed_of`].
    pub speed: Option<u64>,
    /// Its other names (`ip link property add … altname`), as bytes, of up to 127 bytes each. At most 16 are
    /// stored.
    pub altnames: Vec<OsString>,
    /// Distinguishes the link from earlier and later links with the same index. The kernel has no such number: the
    /// tracker assigns it. 0: not assigned.
    pub generation: u64,
    /// A hash of its hardware address and its peer. If it has changed after events were lost, it is another link.
    pub fingerprint: u64,
    /// Identifies the link after a restart of the daemon. `None` in a dump.
    pub identity: Option<Box<LinkIdentity>>,
}

/// Properties that another link with the same index seldom shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkIdentity {
    /// The driver's kind, which never changes.
    pub kind: Option<String>,
    /// `IFLA_LINK`: the index of the other end of a veth, or of the link below. It changes when a peer is moved.
    pub peer: Option<u32>,
    /// `IFLA_ADDRESS`, at most 32 bytes. The administrator may change it.
    pub address: Vec<u8>,
}

impl RequestSocket {
    /// Returns the links of the namespace `nsid`, or of the socket's own.
    ///
    /// The kernel dumps another namespace if `IFLA_TARGET_NETNSID` names it (`rtnl_dump_ifinfo`,
    /// `net/core/rtnetlink.c`).
    ///
    /// # Errors
    /// Refused with `EINVAL` if the id names no namespace (any more).
    pub fn links(&mut self, nsid: Option<Nsid>) -> Result<Vec<Link>, RtnetlinkError> {
        let mut body = LinkMessage::default();
        body.attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        body.attributes
            .extend(nsid.map(|Nsid(id)| LinkAttribute::IfNetnsId(id)));
        let links = self.dump(libc::RTM_GETLINK, &body, |message| {
            if message.kind == libc::RTM_NEWLINK {
                parse(message).map(Some)
            } else {
                Ok(None)
            }
        })?;
        Ok(links.into_iter().flatten().collect())
    }

    /// Returns one link of the socket's own namespace.
    ///
    /// # Errors
    /// Refused with `ENODEV` if the link does not exist (any more).
    pub fn link(&mut self, ifindex: u32) -> Result<Link, RtnetlinkError> {
        self.get(libc::RTM_GETLINK, &one(ifindex), parse_one)
    }

    /// Returns one link of the socket's own namespace, and all qdiscs of that namespace, requested in one
    /// datagram.
    ///
    /// # Errors
    /// As [`Self::link`]. The inner error is that of [`Self::qdiscs`].
    pub fn link_and_qdiscs(
        &mut self,
        ifindex: u32,
    ) -> Result<(Link, Result<Vec<Qdisc>, RtnetlinkError>), RtnetlinkError> {
        let (link, qdiscs) = (one(ifindex), qdisc::every());
        self.get_and_dump(
            (libc::RTM_GETLINK, &link),
            parse_one,
            (libc::RTM_GETQDISC, &qdiscs),
            qdisc::parse,
        )
    }

    /// Sets a link of the socket's own namespace up or down, and reads it back.
    ///
    /// # Errors
    /// Refused with `ENODEV` if the link does not exist (any more). The inner error is that of the read-back, as
    /// [`Self::link`].
    pub fn set_up(
        &mut self,
        ifindex: u32,
        up: bool,
    ) -> Result<Result<Link, RtnetlinkError>, RtnetlinkError> {
        let mut body = LinkMessage::default();
        body.header.index = ifindex;
        body.header.flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
        body.header.change_mask = LinkFlags::Up;
        self.change_and_get(
            (libc::RTM_SETLINK, Change::Existing, &body),
            (libc::RTM_GETLINK, &one(ifindex)),
            parse,
        )
    }

    /// Returns the id of the namespace `netns` in the table of the socket's namespace. If it has none, the kernel
    /// assigns one. The id stays until the namespace is deleted, and does not keep it alive.
    ///
    /// # Errors
    /// Refused with `EPERM` without `CAP_NET_ADMIN` over the other namespace.
    pub fn namespace_id(&mut self, netns: &OwnedFd) -> Result<Nsid, RtnetlinkError> {
        let fd = u32::try_from(netns.as_raw_fd()).expect("an open descriptor is not negative");
        let mut body = NsidMessage::default();
        body.attributes = vec![NsidAttribute::Fd(fd), NsidAttribute::Id(NOT_ASSIGNED)];
        match self.change(RTM_NEWNSID, Change::Existing, &body) {
            Err(err) if err.errno() == Some(libc::EEXIST) => {}
            assigned => assigned?,
        }
        body.attributes = vec![NsidAttribute::Fd(fd)];
        let id = self.get(RTM_GETNSID, &body, |message| message.nsid())?;
        assigned(id).ok_or(RtnetlinkError::Malformed)
    }

    /// Returns the ids in the table of the namespace `nsid`, each with the id of the same namespace in the table
    /// of the socket's own. Assigns no ids. Linux 5.0 (`rtnl_net_dumpid`, `net/core/net_namespace.c`).
    ///
    /// # Errors
    /// Refused with `EACCES` without `CAP_NET_ADMIN` over that namespace, and with `EINVAL` if the id names none.
    pub fn ids_given_by(
        &mut self,
        nsid: Nsid,
    ) -> Result<Vec<(Nsid, Option<Nsid>)>, RtnetlinkError> {
        let mut body = NsidMessage::default();
        body.attributes = vec![NsidAttribute::TargetNsid(nsid.0)];
        self.dump(RTM_GETNSID, &body, |message| {
            let there = assigned(message.nsid()?).ok_or(RtnetlinkError::Malformed)?;
            Ok((there, assigned(message.current_nsid()?)))
        })
    }
}

/// Returns the id, or `None` for [`NOT_ASSIGNED`].
fn assigned(id: i32) -> Option<Nsid> {
    (id != NOT_ASSIGNED).then_some(Nsid(id))
}

/// Returns a request for one link without its counters.
fn one(ifindex: u32) -> LinkMessage {
    let mut body = LinkMessage::default();
    body.header.index = ifindex;
    body.attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    body
}

/// Parses one `RTM_NEWLINK`.
fn parse(message: Message<'_>) -> Result<Link, RtnetlinkError> {
    let flags = u32::from_ne_bytes(take(message.payload, 8)?);
    let flag = |flag: libc::c_int| flags & flag.cast_unsigned() != 0;
    let mut link = Link {
        ifindex: u32::from_ne_bytes(take(message.payload, 4)?),
        ifname: OsString::new(),
        up: flag(libc::IFF_UP),
        carrier: false,
        loopback: flag(libc::IFF_LOOPBACK),
        mtu: 0,
        kind: None,
        tap: false,
        root_netem: false,
        netem: None,
        speed: None,
        altnames: Vec::new(),
        generation: 0,
        fingerprint: 0,
        identity: None,
    };
    let mut fingerprint = DefaultHasher::new();
    for (kind, value) in message.attributes(IFINFOMSG).iter() {
        match kind {
            IFLA_IFNAME => OsStr::from_bytes(string(value)).clone_into(&mut link.ifname),
            IFLA_MTU => link.mtu = u32::from_ne_bytes(take(value, 0)?),
            IFLA_QDISC => link.root_netem = string(value) == b"netem",
            IFLA_ADDRESS | IFLA_LINK => (kind, value).hash(&mut fingerprint),
            IFLA_CARRIER => link.carrier = value == [1],
            IFLA_PROP_LIST => {
                let names = Attributes(value).iter();
                let names = names.filter(|(kind, _)| *kind == IFLA_ALT_IFNAME);
                let names = names.map(|(_, name)| OsStr::from_bytes(string(name)).to_owned());
                link.altnames = names.take(MOST_ALTNAMES).collect();
            }
            IFLA_LINKINFO => {
                let info = Attributes(value);
                let name = info.find(IFLA_INFO_KIND);
                link.kind = name.map(|name| String::from_utf8_lossy(string(name)).into_owned());
                let data = info.find(IFLA_INFO_DATA).map(Attributes);
                link.tap = link.kind.as_deref() == Some("tun")
                    && data.and_then(|data| data.find(IFLA_TUN_TYPE)) == Some(&[IFF_TAP]);
            }
            _ => {}
        }
    }
    link.fingerprint = fingerprint.finish();
    Ok(link)
}

/// Parses one `RTM_NEWLINK`, including the identity of the link.
fn parse_one(message: Message<'_>) -> Result<Link, RtnetlinkError> {
    let mut link = parse(message)?;
    let attributes = message.attributes(IFINFOMSG);
    let peer = attributes.find(IFLA_LINK).map(|peer| take(peer, 0));
    link.identity = Some(Box::new(LinkIdentity {
        kind: link.kind.clone(),
        peer: peer.transpose()?.map(u32::from_ne_bytes),
        address: attributes.find(IFLA_ADDRESS).unwrap_or_default().to_owned(),
    }));
    Ok(link)
}

#[cfg(test)]
impl Link {
    /// Returns a veth that is up, or the loopback if that is its name.
    pub(crate) fn sample(ifindex: u32, ifname: &str) -> Self {
        Self {
            ifindex,
            ifname: ifname.into(),
            up: true,
            carrier: true,
            loopback: ifname == "lo",
            mtu: 1500,
            kind: (ifname != "lo").then(|| "veth".to_owned()),
            tap: false,
            root_netem: false,
            netem: None,
            speed: None,
            altnames: Vec::new(),
            generation: 0,
            fingerprint: 0,
            identity: None,
        }
    }
}
