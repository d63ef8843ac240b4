//! Selects the target: the client's, or the gateway of a default route. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use tcgui_shared::names::InterfaceName;

use crate::kernel::route::DefaultRoute;

/// Maximum length in bytes: that of a host name (RFC 1035 §2.3.4). Every address is much shorter.
const LONGEST: usize = 253;
/// The target if there is no gateway, as in released backends.
const FALLBACK: IpAddr = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));

/// Why a text is not a valid target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TargetError {
    #[error("the target is longer than {LONGEST} bytes")]
    TooLong,
    #[error("the target must be an IPv4 or IPv6 address, host names are not resolved")]
    NotAnAddress,
    #[error("the zone of the target must be the interface that is checked")]
    OtherZone,
    #[error("the target must be the address of one host")]
    ManyHosts,
}

/// The target that the client requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestedTarget {
    /// This address.
    Target(Target),
    /// The default gateway.
    Gateway,
}

/// An address to check, and its text form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    address: IpAddr,
    /// The ifindex of a link-local address, otherwise 0.
    scope: u32,
    text: String,
}

impl Target {
    fn new(address: IpAddr, interface: &InterfaceName, ifindex: u32) -> Self {
        let local = is_link_local(address);
        Self {
            address,
            scope: if local { ifindex } else { 0 },
            text: if local {
                format!("{address}%{interface}")
            } else {
                address.to_string()
            },
        }
    }

    /// Returns the socket address. The port is 0 because ICMP has no ports.
    pub(super) fn address(&self) -> SocketAddr {
        match self.address {
            IpAddr::V4(address) => SocketAddr::new(address.into(), 0),
            IpAddr::V6(address) => SocketAddrV6::new(address, 0, 0, self.scope).into(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Parses the client's target. A zone must be the name or the index of the checked link.
/// It matters only for link-local addresses.
pub(super) fn parse_target(
    text: Option<&str>,
    interface: &InterfaceName,
    ifindex: u32,
) -> Result<RequestedTarget, TargetError> {
    let text = text.unwrap_or_default();
    if text.len() > LONGEST {
        return Err(TargetError::TooLong);
    }
    let text = text.trim();
    if text.is_empty() {
        return Ok(RequestedTarget::Gateway);
    }
    let address = match text.split_once('%') {
        None => text.parse().map_err(|_| TargetError::NotAnAddress)?,
        Some((address, zone)) => {
            let address: Ipv6Addr = address.parse().map_err(|_| TargetError::NotAnAddress)?;
            if zone != interface.to_wire() && zone != ifindex.to_string() {
                return Err(TargetError::OtherZone);
            }
            IpAddr::V6(address)
        }
    };
    let address = address.to_canonical();
    let many = address.is_multicast() || address.is_unspecified();
    if many || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(TargetError::ManyHosts);
    }
    Ok(RequestedTarget::Target(Target {
        text: text.to_owned(),
        ..Target::new(address, interface, ifindex)
    }))
}

/// Chooses the default gateway that is most significant for the interface: on this interface, IPv4 before IPv6, lowest metric. A
/// gateway on another link is used only if there is none on this one, and never if it is link-local, because on this link that
/// address belongs to another host.
pub(super) fn gateway(routes: &[DefaultRoute], interface: &InterfaceName, ifindex: u32) -> Target {
    let elsewhere = |route: &DefaultRoute| route.ifindex != ifindex;
    let candidates = routes
        .iter()
        .filter(|route| !(elsewhere(route) && is_link_local(route.gateway)));
    let best = candidates.min_by_key(|route| {
        let v6 = route.gateway.is_ipv6();
        (elsewhere(route), v6, route.metric)
    });
    let address = best.map_or(FALLBACK, |route| route.gateway);
    Target::new(address, interface, ifindex)
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn eth0() -> InterfaceName {
        InterfaceName::new("eth0").unwrap()
    }

    fn parsed(text: &str) -> Result<(String, String), TargetError> {
        match parse_target(Some(text), &eth0(), 3)? {
            RequestedTarget::Target(target) => {
                Ok((target.to_string(), target.address().to_string()))
            }
            RequestedTarget::Gateway => Ok(Default::default()),
        }
    }

    #[test]
    fn addresses_are_parsed() {
        for (text, address) in [
            ("192.0.2.1", "192.0.2.1:0"),
            (" 192.0.2.1 ", "192.0.2.1:0"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("::ffff:192.0.2.1", "192.0.2.1:0"),
            ("fe80::1", "[fe80::1%3]:0"),
            ("fe80::1%eth0", "[fe80::1%3]:0"),
            ("fe80::1%3", "[fe80::1%3]:0"),
            ("2001:db8::1%eth0", "[2001:db8::1]:0"),
            ("127.0.0.1", "127.0.0.1:0"),
        ] {
            let expected = (text.trim().to_owned(), address.to_owned());
            assert_eq!(parsed(text), Ok(expected));
        }
        assert_eq!(parse_target(None, &eth0(), 3), Ok(RequestedTarget::Gateway));
        assert_eq!(
            parse_target(Some(" "), &eth0(), 3),
            Ok(RequestedTarget::Gateway)
        );
    }

    #[test]
    fn invalid_targets_are_refused() {
        use TargetError::*;
        let long = "1".repeat(254);
        for (text, error) in [
            (long.as_str(), TooLong),
            ("gateway.example", NotAnAddress),
            ("192.0.2.1/24", NotAnAddress),
            ("192.0.2.1:80", NotAnAddress),
            ("192.0.2.1%eth0", NotAnAddress),
            ("[::1]", NotAnAddress),
            ("-c1", NotAnAddress),
            ("fe80::1%eth1", OtherZone),
            ("fe80::1%", OtherZone),
            ("0.0.0.0", ManyHosts),
            ("::", ManyHosts),
            ("255.255.255.255", ManyHosts),
            ("224.0.0.1", ManyHosts),
            ("ff02::1%eth0", ManyHosts),
            ("::ffff:224.0.0.1", ManyHosts),
        ] {
            assert_eq!(parsed(text), Err(error), "{text}");
        }
    }

    fn route(gateway: &str, ifindex: u32, metric: u32) -> DefaultRoute {
        DefaultRoute {
            gateway: gateway.parse().unwrap(),
            ifindex,
            metric,
        }
    }

    #[test]
    fn the_gateway_on_the_interface_is_preferred() {
        let chosen = |routes: &[DefaultRoute]| gateway(routes, &eth0(), 3).to_string();
        let (far, near) = (route("192.0.2.1", 2, 0), route("192.0.2.2", 3, 100));
        let (better, v6) = (route("192.0.2.3", 3, 50), route("fe80::1", 3, 0));
        assert_eq!(chosen(&[]), "8.8.8.8");
        assert_eq!(chosen(&[far]), "192.0.2.1");
        assert_eq!(chosen(&[far, near]), "192.0.2.2");
        assert_eq!(chosen(&[far, near, better, v6]), "192.0.2.3");
        assert_eq!(chosen(&[far, v6]), "fe80::1%eth0");
        assert_eq!(
            gateway(&[v6], &eth0(), 3).address().to_string(),
            "[fe80::1%3]:0"
        );
        assert_eq!(
            chosen(&[route("fe80::1", 2, 0)]),
            "8.8.8.8",
            "of another link"
        );
        assert_eq!(chosen(&[route("2001:db8::1", 2, 0)]), "2001:db8::1");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text: String, zone: String) {
            parsed(&text).ok();
            parsed(&format!("fe80::1%{zone}")).ok();
        }

        #[test]
        fn every_host_address_is_a_target(v4: u32, v6: u128) {
            for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                let parsed = parse_target(Some(&address.to_string()), &eth0(), 3);
                match parsed {
                    Ok(RequestedTarget::Target(target)) => {
                        prop_assert_eq!(target.address().ip(), address.to_canonical());
                    }
                    other => prop_assert_eq!(other, Err(TargetError::ManyHosts)),
                }
            }
        }
    }
}
