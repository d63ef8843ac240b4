//! Checks endpoints, and removes those that another endpoint includes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ConfigError, DEFAULT_LISTEN};

/// The transports that an endpoint may name.
const PROTOCOLS: [&str; 5] = ["tcp", "udp", "tls", "quic", "unixsock-stream"];

/// Checks an endpoint before Zenoh reads it, because Zenoh's errors are less specific.
///
/// # Errors
/// [`ConfigError::Protocol`] and [`ConfigError::Address`].
pub fn check_endpoint(endpoint: &str) -> Result<(), ConfigError> {
    let wrong = |problem| ConfigError::Address {
        endpoint: endpoint.to_owned(),
        problem,
    };
    let (protocol, address) = endpoint
        .split_once('/')
        .filter(|(protocol, _)| PROTOCOLS.contains(protocol))
        .ok_or_else(|| ConfigError::Protocol {
            endpoint: endpoint.to_owned(),
        })?;
    if protocol == "unixsock-stream" {
        return match address {
            "" => Err(wrong("write a path")),
            // Zenoh reads the rest as settings, so it would listen at another path than the one that was checked.
            _ if address.contains(['#', '?']) => Err(wrong("write a path without # and ?")),
            _ => Ok(()),
        };
    }
    let Ok(socket) = address.parse::<SocketAddr>() else {
        return check_host_name(address).map_err(wrong);
    };
    let stream = matches!(protocol, "tcp" | "tls");
    if stream && socket.ip().is_multicast() {
        return Err(wrong("a multicast address cannot carry a connection"));
    }
    if !stream && socket.ip().is_unspecified() && socket.port() < 1024 {
        return Err(wrong("write a specific address or a port from 1024 on"));
    }
    Ok(())
}

/// Checks `name:port`. The session resolves the name later.
fn check_host_name(address: &str) -> Result<(), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("write HOST:PORT")?;
    port.parse::<u16>()
        .map_err(|_| "the port must be a number from 0 to 65535")?;
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let looks_numeric = host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if host.len() > 253 || looks_numeric || !host.split('.').all(label) {
        return Err("write an IPv4 address, an IPv6 address in brackets, or a host name");
    }
    Ok(())
}

/// Returns whether an endpoint needs a certificate to listen.
pub(super) fn is_encrypted(endpoint: &str) -> bool {
    endpoint.starts_with("tls/") || endpoint.starts_with("quic/")
}

/// Returns whether a socket on `[::]` takes IPv4 connections too (`man 7 ipv6`, `bindv6only`).
pub(super) fn has_dual_stack() -> bool {
    // Without IPv6 there is no such file.
    let only = fs::read_to_string("/proc/sys/net/ipv6/bindv6only").unwrap_or_default();
    only.trim() == "0"
}

/// Leaves out each endpoint whose address is included in that of another: binding both fails.
///
/// `tcp/0.0.0.0:7447` replaces the built-in `tcp/127.0.0.1:7447` in this way.
///
/// # Errors
/// [`ConfigError::BuiltInPort`] for an encrypted endpoint that includes the built-in address.
pub(super) fn widened(listen: &[String], dual_stack: bool) -> Result<Vec<String>, ConfigError> {
    let addresses: Vec<_> = listen.iter().map(|endpoint| parse(endpoint)).collect();
    let built_in = listen.contains(&DEFAULT_LISTEN.to_owned());
    let default = parse(DEFAULT_LISTEN).filter(|_| built_in);
    for (endpoint, address) in listen.iter().zip(&addresses) {
        let (Some(default), Some((protocol, _))) = (default, address) else {
            continue;
        };
        let same_protocol = address.map(|(_, address)| (default.0, address));
        if *protocol == "tls" && is_included(default, same_protocol, dual_stack) {
            return Err(ConfigError::BuiltInPort {
                endpoint: endpoint.clone(),
            });
        }
    }
    let is_left_out = |index: usize| {
        addresses[index].is_some_and(|address| {
            addresses.iter().enumerate().any(|(other_index, other)| {
                let is_equal = *other == Some(address);
                // Of equal endpoints, keep the first.
                other_index != index
                    && is_included(address, *other, dual_stack)
                    && (!is_equal || other_index < index)
            })
        })
    };
    let kept = listen.iter().enumerate();
    let kept = kept.filter(|(index, _)| !is_left_out(*index));
    Ok(kept.map(|(_, endpoint)| endpoint.clone()).collect())
}

type Address<'a> = (&'a str, SocketAddr);

/// Returns protocol and address, with IPv4-mapped addresses as IPv4. Of host names only `localhost` is known, as
/// the address of the built-in endpoint; the other names are resolved when the session is opened.
fn parse(endpoint: &str) -> Option<Address<'_>> {
    let (protocol, address) = endpoint.split_once('/')?;
    if let Some(port) = address.strip_prefix("localhost:") {
        let port = port.parse().ok()?;
        return Some((protocol, (Ipv4Addr::LOCALHOST, port).into()));
    }
    let socket: SocketAddr = address.parse().ok()?;
    let ip = socket.ip().to_canonical();
    Some((protocol, SocketAddr::new(ip, socket.port())))
}

/// Returns whether a socket that listens at `wide` takes what would come to `address`.
fn is_included(address: Address<'_>, wide: Option<Address<'_>>, dual_stack: bool) -> bool {
    let Some(wide) = wide else { return false };
    // The kernel chooses another port each time.
    if wide.0 != address.0 || wide.1.port() != address.1.port() || address.1.port() == 0 {
        return false;
    }
    match wide.1.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.1.is_ipv4(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.1.is_ipv6() || dual_stack,
        ip => ip == address.1.ip(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widened(more: &[&str], dual_stack: bool) -> Vec<String> {
        let all = [DEFAULT_LISTEN].iter().chain(more);
        let all: Vec<_> = all.map(|&endpoint| endpoint.to_owned()).collect();
        super::widened(&all, dual_stack).unwrap()
    }

    #[test]
    fn addresses_that_include_the_built_in_one_widen_it() {
        for wide in [
            "tcp/0.0.0.0:7447",
            "tcp/[::]:7447",
            "tcp/[0:0:0:0:0:0:0:0]:7447",
            "tcp/[::ffff:0.0.0.0]:7447",
        ] {
            assert_eq!(widened(&[wide], true), [wide]);
        }
        for same in [
            "tcp/localhost:7447",
            "tcp/127.0.0.1:07447",
            "tcp/[::ffff:127.0.0.1]:7447",
            "tcp/[::ffff:7f00:1]:7447",
        ] {
            assert_eq!(widened(&[same], true), [DEFAULT_LISTEN], "{same}");
        }
        let both = ["tcp/0.0.0.0:7447", "tcp/[::]:7447"];
        assert_eq!(widened(&both, true), ["tcp/[::]:7447"]);
        assert_eq!(widened(&both, false), both);
        assert_eq!(
            widened(&["tcp/[::]:7447"], false),
            [DEFAULT_LISTEN, "tcp/[::]:7447"]
        );
        let others = ["tcp/0.0.0.0:7448", "tcp/192.0.2.1:7448", "udp/0.0.0.0:7447"];
        let expected = [DEFAULT_LISTEN, "tcp/0.0.0.0:7448", "udp/0.0.0.0:7447"];
        assert_eq!(widened(&others, true), expected);
        let free = [
            "tcp/127.0.0.1:0",
            "tcp/0.0.0.0:0",
            "tcp/lab.example:7447",
            "unixsock-stream/run/x",
        ];
        assert_eq!(widened(&free, true).len(), 5);
    }

    #[test]
    fn an_encrypted_endpoint_does_not_replace_the_built_in_one() {
        for endpoint in ["tls/0.0.0.0:7447", "tls/127.0.0.1:7447", "tls/[::]:7447"] {
            let all = [DEFAULT_LISTEN.to_owned(), endpoint.to_owned()];
            let err = super::widened(&all, true).unwrap_err();
            assert!(err.to_string().contains("another port"), "{err}");
        }
        assert_eq!(
            widened(&["tls/0.0.0.0:7448", "quic/0.0.0.0:7447"], true).len(),
            3
        );
    }
}
