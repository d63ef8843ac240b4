//! Default routes: the gateways through which a namespace reaches other networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use nix::libc;

use super::rtnetlink::{Attributes, Message, RequestSocket, RtnetlinkError, take};

/// Size of `struct rtmsg` (`include/uapi/linux/rtnetlink.h`).
const RTMSG: usize = 12;
/// Size of `struct rtnexthop`: length, flags, weight and link index.
const RTNEXTHOP: usize = 8;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
/// The id of a nexthop object, which may replace links and gateways.
const RTA_NH_ID: u16 = 30;
/// A gateway of another address family: `struct rtvia`.
const RTA_VIA: u16 = 18;
const RTN_UNICAST: u8 = 1;
/// `RTNH_F_DEAD`: the kernel no longer uses this nexthop. A nexthop whose link has no carrier is not dead.
const RTNH_F_DEAD: u32 = 1;
/// Errors for a table without any route, and for an address family that the kernel does not support.
const NO_ROUTES: [i32; 3] = [libc::ENOENT, libc::EOPNOTSUPP, libc::EAFNOSUPPORT];

/// One gateway of a default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The gateway, for IPv6 often a link-local address.
    pub gateway: IpAddr,
    /// The index of the link to the gateway.
    pub ifindex: u32,
    /// The priority. The lowest metric is preferred.
    pub metric: u32,
}

impl RequestSocket {
    /// Returns the default routes through a gateway in the main table of the socket's namespace, those
    /// of IPv4 first.
    ///
    /// # Errors
    /// A request failed.
    pub fn default_routes(&mut self) -> Result<Vec<DefaultRoute>, RtnetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut body = RouteMessage::default();
            body.header.address_family = family;
            body.header.table = RouteHeader::RT_TABLE_MAIN;
            let dump = self.dump(libc::RTM_GETROUTE, &body, |message| {
                if message.kind == libc::RTM_NEWROUTE {
                    parse(message)
                } else {
                    Ok(Vec::new())
                }
            });
            match dump {
                Err(err) if err.errno().is_some_and(|errno| NO_ROUTES.contains(&errno)) => {}
                dump => routes.extend(dump?.into_iter().flatten()),
            }
        }
        Ok(routes)
    }
}

impl RequestSocket {
    /// Returns whether a default route of the socket's namespace leads through a link: of IPv4 or IPv6, in any
    /// table, with a gateway or without one.
    ///
    /// # Errors
    /// A request failed.
    pub fn has_default_route(&mut self, ifindex: u32) -> Result<bool, RtnetlinkError> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut body = RouteMessage::default();
            body.header.address_family = family;
            let dump = self.dump(libc::RTM_GETROUTE, &body, |message| {
                Ok(message.kind == libc::RTM_NEWROUTE && leads_through(message, ifindex)?)
            });
            match dump {
                Err(err) if err.errno().is_some_and(|errno| NO_ROUTES.contains(&errno)) => {}
                dump => {
                    if dump?.contains(&true) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }
}

/// Returns whether one `RTM_NEWROUTE` is a default route through a link. A route to one half of all addresses
/// counts too: VPNs set two of them. If the route names only a nexthop object, it counts for every link.
fn leads_through(message: Message<'_>, wanted: u32) -> Result<bool, RtnetlinkError> {
    let [_family, destination_length, ..] = take::<RTMSG>(message.payload, 0)?;
    let [_table, _protocol, _scope, kind] = take(message.payload, 4)?;
    if destination_length > 1 || kind != RTN_UNICAST {
        return Ok(false);
    }
    let attributes = message.attributes(RTMSG);
    let wanted = wanted.to_ne_bytes();
    let (link, hops) = (attributes.find(RTA_OIF), attributes.find(RTA_MULTIPATH));
    if link.is_none() && hops.is_none() {
        return Ok(attributes.find(RTA_NH_ID).is_some());
    }
    if link == Some(&wanted) {
        return Ok(true);
    }
    let mut hops = hops.unwrap_or_default();
    while let Some((length, ifindex)) = hop(hops) {
        if ifindex == wanted {
            return Ok(true);
        }
        hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Reads the length and the link of the first `struct rtnexthop`. `None` after the last one.
fn hop(hops: &[u8]) -> Option<(usize, [u8; 4])> {
    let length = usize::from(u16::from_ne_bytes(take(hops, 0).ok()?));
    let is_whole = (RTNEXTHOP..=hops.len()).contains(&length);
    let ifindex = take(hops, 4).ok()?;
    is_whole.then_some((length, ifindex))
}

/// Returns the gateways of one `RTM_NEWROUTE`. Empty: it is not a default route.
fn parse(message: Message<'_>) -> Result<Vec<DefaultRoute>, RtnetlinkError> {
    let [_family, destination_length, ..] = take::<RTMSG>(message.payload, 0)?;
    let [_table, _protocol, _scope, kind] = take(message.payload, 4)?;
    let flags = u32::from_ne_bytes(take(message.payload, 8)?);
    if destination_length != 0 || kind != RTN_UNICAST {
        return Ok(Vec::new());
    }
    let attributes = message.attributes(RTMSG);
    let number = |kind| attributes.find(kind).and_then(|value| take(value, 0).ok());
    let metric = number(RTA_PRIORITY).map_or(0, u32::from_ne_bytes);
    let mut routes = Vec::new();
    let mut add = |flags: u32, ifindex, attributes| {
        if let (Some(gateway), 0) = (gateway(attributes), flags & RTNH_F_DEAD) {
            routes.push(DefaultRoute {
                gateway,
                ifindex,
                metric,
            });
        }
    };
    if let Some(ifindex) = number(RTA_OIF) {
        add(flags, u32::from_ne_bytes(ifindex), attributes);
    }
    let mut hops = attributes.find(RTA_MULTIPATH).unwrap_or_default();
    while let Ok([low, high, flags, _weight]) = take(hops, 0) {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let (Some(inside), Ok(ifindex)) = (hops.get(RTNEXTHOP..length), take(hops, 4)) else {
            break;
        };
        add(
            flags.into(),
            u32::from_ne_bytes(ifindex),
            Attributes(inside),
        );
        hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(routes)
}

fn gateway(attributes: Attributes<'_>) -> Option<IpAddr> {
    let plain = attributes.find(RTA_GATEWAY);
    let via = || attributes.find(RTA_VIA)?.get(2..);
    let bytes = plain.or_else(via)?;
    match bytes.len() {
        4 => Some(Ipv4Addr::from(take::<4>(bytes, 0).ok()?).into()),
        16 => Some(Ipv6Addr::from(take::<16>(bytes, 0).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::lab::PrivateNetns;

    fn routes(netns: &PrivateNetns) -> Vec<(String, u32, u32)> {
        let routes = netns.inside(|| RequestSocket::open().unwrap().default_routes());
        let plain = |route: DefaultRoute| (route.gateway.to_string(), route.ifindex, route.metric);
        routes.unwrap().into_iter().map(plain).collect()
    }

    /// A veth pair whose end `v0` has the index 10 and addresses without duplicate address detection.
    fn lab() -> PrivateNetns {
        let netns = PrivateNetns::new();
        netns.ip("link add v0 index 10 type veth peer name v1");
        netns.ip("link set v0 up");
        netns.ip("link set v1 up");
        netns.ip("address add 192.0.2.1/24 dev v0");
        netns.ip("address add 2001:db8::1/64 dev v0 nodad");
        netns
    }

    #[test]
    fn a_new_namespace_has_none() {
        assert!(routes(&PrivateNetns::new()).is_empty());
    }

    #[test]
    fn gateways_of_both_families_are_found() {
        let netns = lab();
        netns.ip("route add default via 192.0.2.254 metric 100");
        netns.ip("route add 198.51.100.0/24 via 192.0.2.253");
        netns.ip("route add unreachable default metric 4000");
        netns.ip("-6 route add default via fe80::99 dev v0 metric 7");
        assert_eq!(
            routes(&netns),
            [("192.0.2.254".into(), 10, 100), ("fe80::99".into(), 10, 7)]
        );
    }

    #[test]
    fn a_default_without_a_gateway_is_none() {
        let netns = lab();
        netns.ip("route add default dev v0");
        assert!(routes(&netns).is_empty());
    }

    #[test]
    fn every_gateway_of_a_shared_default_is_found() {
        let netns = lab();
        netns.ip("route add default nexthop via 192.0.2.2 dev v0 nexthop via 192.0.2.3 dev v0");
        netns.ip("-6 route add default nexthop via 2001:db8::2 nexthop via 2001:db8::3");
        let mut gateways: Vec<_> = routes(&netns).into_iter().map(|(to, ..)| to).collect();
        gateways.sort();
        assert_eq!(
            gateways,
            ["192.0.2.2", "192.0.2.3", "2001:db8::2", "2001:db8::3"]
        );
    }

    /// Returns the links through which a default route leads.
    fn through(netns: &PrivateNetns, links: &[u32]) -> Vec<u32> {
        let is_through = |ifindex: &u32| {
            let ifindex = *ifindex;
            let asked = netns.inside(|| RequestSocket::open().unwrap().has_default_route(ifindex));
            asked.unwrap()
        };
        links.iter().copied().filter(is_through).collect()
    }

    #[test]
    fn any_default_route_through_a_link_counts() {
        const LINKS: [u32; 3] = [10, 20, 30];
        let netns = lab();
        for (link, peer, index) in [("v2", "p2", 20), ("v3", "p3", 30)] {
            netns.ip(&format!(
                "link add {link} index {index} type veth peer name {peer}"
            ));
            netns.ip(&format!("link set {link} up"));
            netns.ip(&format!("link set {peer} up"));
        }
        netns.ip("address add 203.0.113.1/24 dev v2");
        netns.ip("route add 198.51.100.0/24 via 192.0.2.253");
        netns.ip("route add unreachable default metric 4000");
        assert!(through(&netns, &LINKS).is_empty());
        for (route, expected) in [
            ("default via 192.0.2.254", &[10][..]),
            ("default dev v2", &[20]),
            ("default via 203.0.113.9 dev v2 table 100", &[20]),
            (
                "default nexthop via 192.0.2.2 dev v0 nexthop via 203.0.113.2 dev v2",
                &[10, 20],
            ),
        ] {
            netns.ip(&format!("route add {route}"));
            assert_eq!(through(&netns, &LINKS), expected, "{route}");
            netns.ip(&format!("route del {route}"));
        }
        for (route, expected) in [
            ("default via fe80::99 dev v3", &[30][..]),
            ("default dev v2 table 100", &[20]),
        ] {
            netns.ip(&format!("-6 route add {route}"));
            assert_eq!(through(&netns, &LINKS), expected, "{route}");
            netns.ip(&format!("-6 route del {route}"));
        }
        assert!(through(&netns, &LINKS).is_empty());
    }

    #[test]
    fn a_default_route_in_two_halves_counts() {
        let netns = lab();
        netns.ip("link set lo up");
        for (half, family) in [
            ("0.0.0.0/1", "-4"),
            ("128.0.0.0/1", "-4"),
            ("::/1", "-6"),
            ("8000::/1", "-6"),
        ] {
            netns.ip(&format!("{family} route add {half} dev v0"));
            assert_eq!(through(&netns, &[1, 10]), [10], "{half}");
            netns.ip(&format!("{family} route del {half} dev v0"));
        }
        netns.ip("-6 route add 2000::/3 dev v0");
        netns.ip("route add 192.0.0.0/2 dev v0");
        assert!(through(&netns, &[1, 10]).is_empty());
    }

    /// An `RTM_NEWROUTE` of unicast with these attributes.
    fn route(destination_length: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![
            2,
            destination_length,
            0,
            0,
            254,
            3,
            0,
            RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).unwrap();
            bytes.extend(length.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend_from_slice(value);
        }
        bytes
    }

    #[test]
    fn a_default_route_that_names_only_a_nexthop_object_counts_for_every_link() {
        let leads = |length, attributes: &[(u16, &[u8])]| {
            let bytes = route(length, attributes);
            leads_through(Message::sample(libc::RTM_NEWROUTE, &bytes), 10).unwrap()
        };
        let nexthop = (RTA_NH_ID, &7_u32.to_ne_bytes()[..]);
        let link = |ifindex: u32| ifindex.to_ne_bytes();
        assert!(leads(0, &[nexthop]));
        assert!(!leads(24, &[nexthop]));
        assert!(!leads(0, &[]));
        // With `net.ipv4.nexthop_compat_mode`, the route also contains the link.
        assert!(leads(0, &[nexthop, (RTA_OIF, &link(10))]));
        assert!(!leads(0, &[nexthop, (RTA_OIF, &link(11))]));
    }

    #[test]
    fn a_route_with_a_nexthop_object_is_a_default_route() {
        let netns = lab();
        netns.ip("nexthop add id 7 via 192.0.2.254 dev v0");
        netns.ip("route add default nhid 7");
        for mode in ["1", "0"] {
            netns
                .inside(|| std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", mode).unwrap());
            assert!(through(&netns, &[10]) == [10], "compat mode {mode}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic_or_spin(
            mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            default: bool,
        ) {
            if let (true, Some(length)) = (default, bytes.get_mut(1)) {
                *length = 0;
            }
            if let (true, Some(kind)) = (default, bytes.get_mut(7)) {
                *kind = RTN_UNICAST;
            }
            parse(Message::sample(libc::RTM_NEWROUTE, &bytes)).ok();
            leads_through(Message::sample(libc::RTM_NEWROUTE, &bytes), 7).ok();
        }
    }
}
