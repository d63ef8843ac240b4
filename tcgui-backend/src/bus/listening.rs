//! Checks whether the daemon can listen on an address now, later or never, and gives the operator a hint.
//!
//! Zenoh reports these cases with one error text. So each address is bound here first. Zenoh retries only for addresses
//! that may appear later.

use std::io;
use std::net::SocketAddr;

use nix::libc;
use tokio::net::{TcpSocket, UdpSocket, lookup_host};
use tracing::warn;

use super::BusError;
use crate::config::DEFAULT_LISTEN;

/// Zenoh's settings for an endpoint that must work at once.
const AT_ONCE: &str = "exit_on_failure=true;retry_period_init_ms=0";
/// Zenoh's settings for an endpoint whose address does not exist yet.
const UNTIL_IT_IS_THERE: &str = "exit_on_failure=false;retry_period_init_ms=500;retry_period_max_ms=4000;\
                                 retry_period_increase_factor=2";

/// Returns the endpoints with their settings for Zenoh. Logs one line for each address that does not exist yet.
///
/// # Errors
/// [`BusError::Listen`] for an address that waiting does not make available.
pub(super) async fn prepare(endpoints: &[String]) -> Result<Vec<String>, BusError> {
    let mut prepared = Vec::new();
    for endpoint in endpoints {
        let settings = match try_bind(endpoint).await {
            Ok(()) => AT_ONCE,
            Err(err) if is_late(&err) => {
                warn!(%endpoint, error = %err, "cannot listen yet: the address is not there; trying until it is");
                UNTIL_IT_IS_THERE
            }
            Err(err) => {
                return Err(BusError::Listen {
                    endpoint: endpoint.clone(),
                    hint: hint(endpoint, &err),
                    err,
                });
            }
        };
        prepared.push(format!("{endpoint}#{settings}"));
    }
    Ok(prepared)
}

/// Binds the address as Zenoh does, and releases it. If a name has several addresses, one that works is enough.
///
/// # Errors
/// The error of the kernel. `AddrNotAvailable` also if a name cannot be resolved.
pub async fn try_bind(endpoint: &str) -> io::Result<()> {
    let Some((protocol, address)) = endpoint.split_once('/') else {
        return Ok(());
    };
    if protocol == "unixsock-stream" {
        return Ok(());
    }
    let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
    let unresolved = |err| io::Error::new(io::ErrorKind::AddrNotAvailable, err);
    for address in lookup_host(address).await.map_err(unresolved)? {
        result = match protocol {
            "tcp" | "tls" => bind_stream(address),
            _ => UdpSocket::bind(address).await.map(drop),
        };
        if result.is_ok() {
            break;
        }
    }
    result
}

fn bind_stream(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

/// Returns whether the address may appear later.
fn is_late(err: &io::Error) -> bool {
    let later = [
        libc::EADDRNOTAVAIL,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::ENODEV,
    ];
    err.kind() == io::ErrorKind::AddrNotAvailable
        || err
            .raw_os_error()
            .is_some_and(|errno| later.contains(&errno))
}

fn hint(endpoint: &str, err: &io::Error) -> &'static str {
    match err.raw_os_error() {
        Some(libc::EADDRINUSE) if endpoint == DEFAULT_LISTEN => {
            "if another tcgui-backend runs on this host it has the port: start this one with --zenoh-mode client \
             --zenoh-connect tcp/127.0.0.1:7447"
        }
        Some(libc::EADDRINUSE) => {
            "another process has the address: 'ss -tulpn' names it; choose another port"
        }
        Some(libc::EACCES) => {
            "a port below 1024 needs CAP_NET_BIND_SERVICE: choose a port from 1024 on"
        }
        Some(libc::EAFNOSUPPORT) => "this host has no IPv6: write an IPv4 address",
        _ => "check the address",
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    async fn prepared(endpoint: &str) -> Result<String, BusError> {
        let mut endpoints = prepare(&[endpoint.to_owned()]).await?;
        Ok(endpoints.remove(0))
    }

    #[tokio::test]
    async fn addresses_are_had_at_once_later_or_never() {
        let free = prepared("tcp/127.0.0.1:0").await.unwrap();
        assert_eq!(free, format!("tcp/127.0.0.1:0#{AT_ONCE}"));
        // RFC 5737: no host has this address.
        for protocol in ["tcp", "tls", "udp", "quic"] {
            let late = prepared(&format!("{protocol}/192.0.2.1:7448"))
                .await
                .unwrap();
            assert!(late.ends_with(UNTIL_IT_IS_THERE), "{late}");
        }
        let late = prepared("tcp/no-such-host.invalid:7448").await.unwrap();
        assert!(late.ends_with(UNTIL_IT_IS_THERE), "{late}");
    }

    #[tokio::test]
    async fn the_hint_names_the_cause() {
        let owner = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = format!("tcp/{}", owner.local_addr().unwrap());
        let message = prepared(&taken).await.unwrap_err().to_string();
        assert!(
            message.contains("ss -tulpn") && message.contains(&taken),
            "{message}"
        );
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        assert!(hint("tcp/0.0.0.0:80", &denied).contains("CAP_NET_BIND_SERVICE"));
        let in_use = io::Error::from_raw_os_error(libc::EADDRINUSE);
        assert!(hint(DEFAULT_LISTEN, &in_use).contains("--zenoh-mode client"));
    }
}
