//! Messages to the service manager that started the daemon, in the protocol of sd_notify(3): the socket and the watchdog.
//! The decisions about them are in `backend/state/notifications`.
//!
//! The crate `sd-notify` is not used: it takes an abstract address for the path of a file, and its socket blocks.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdUnixDatagram};
use std::process;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tracing::warn;

/// The shortest interval between two watchdog messages. It prevents a busy loop.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// The service manager, or its absence.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    socket: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

/// Why a variable of the service manager cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// `NOTIFY_SOCKET` is neither a path nor an abstract address.
    #[error("NOTIFY_SOCKET is {0:?}: it must be an absolute path or '@' and an abstract address")]
    Socket(String),
    /// `NOTIFY_SOCKET` is longer than a socket address.
    #[error("NOTIFY_SOCKET is not a socket address")]
    Address(#[source] io::Error),
    /// `WATCHDOG_USEC` or `WATCHDOG_PID` is not a number above zero.
    #[error("{name} is {value:?}: it must be a number above zero")]
    Number {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
}

impl ServiceManager {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. A variable that cannot be used is logged and ignored.
    #[must_use]
    pub fn from_environment() -> Self {
        let variable = |name: &'static str| env::var_os(name);
        let socket = variable("NOTIFY_SOCKET").map(|value| address(&value));
        let watchdog = watchdog_interval(
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
            process::id(),
        );
        Self {
            socket: socket.transpose().unwrap_or_else(ignored),
            watchdog: watchdog.unwrap_or_else(ignored),
        }
    }

    /// Returns whether messages are sent.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.socket.is_some()
    }

    /// Returns the interval of watchdog messages: half of the service manager's limit. `None`: it expects none.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends a message: lines of the form `NAME=VALUE`. Waits while the queue of the service manager is full.
    ///
    /// The socket is opened for each message, because a service manager that starts again binds a new one.
    ///
    /// # Errors
    /// The error of the kernel, such as `ECONNREFUSED` if no process listens.
    pub async fn send(&self, message: &str) -> io::Result<()> {
        let Some(address) = &self.socket else {
            return Ok(());
        };
        let socket = StdUnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(address)?;
        let socket = UnixDatagram::from_std(socket)?;
        // A datagram is sent completely or not at all.
        socket.send(message.as_bytes()).await.map(drop)
    }
}

fn ignored<T>(err: EnvironmentError) -> Option<T> {
    let error = crate::error::chain(&err).to_string();
    warn!(error, "variable of the service manager ignored");
    None
}

/// Parses `NOTIFY_SOCKET`.
fn address(value: &OsStr) -> Result<SocketAddr, EnvironmentError> {
    let parsed = match value.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(value),
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => {
            let value = value.to_string_lossy().into_owned();
            return Err(EnvironmentError::Socket(value));
        }
    };
    parsed.map_err(EnvironmentError::Address)
}

/// Returns the interval of watchdog messages, as sd_watchdog_enabled(3) defines it. `None`: the variables are missing or for
/// another process.
fn watchdog_interval(
    limit_us: Option<&OsStr>,
    pid: Option<&OsStr>,
    own_pid: u32,
) -> Result<Option<Duration>, EnvironmentError> {
    let Some(limit_us) = limit_us else {
        return Ok(None);
    };
    if let Some(pid) = pid
        && number("WATCHDOG_PID", pid)? != u64::from(own_pid)
    {
        return Ok(None);
    }
    let limit = Duration::from_micros(number("WATCHDOG_USEC", limit_us)?);
    Ok(Some((limit / 2).max(SHORTEST_INTERVAL)))
}

fn number(name: &'static str, value: &OsStr) -> Result<u64, EnvironmentError> {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed
        .filter(|number| *number > 0)
        .ok_or_else(|| EnvironmentError::Number {
            name,
            value: value.to_string_lossy().into_owned(),
        })
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[test]
    fn an_address_is_a_path_or_an_abstract_name() {
        let path = address(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(
            path.as_pathname().unwrap().to_str(),
            Some("/run/systemd/notify")
        );
        let name = address(OsStr::new("@/org/freedesktop/systemd1/notify")).unwrap();
        let expected: &[u8] = b"/org/freedesktop/systemd1/notify";
        assert_eq!(name.as_abstract_name(), Some(expected));
        for wrong in ["", "run/notify", "vsock:2:9"] {
            let error = address(OsStr::new(wrong)).unwrap_err().to_string();
            assert!(error.contains("absolute path"), "{error}");
        }
        let long = format!("/{}", "x".repeat(200));
        let error = address(OsStr::new(&long)).unwrap_err();
        assert!(matches!(error, EnvironmentError::Address(_)), "{error}");
    }

    #[test]
    fn the_watchdog_is_answered_twice_in_each_period() {
        let interval = |limit, pid: Option<&str>| {
            watchdog_interval(Some(OsStr::new(limit)), pid.map(OsStr::new), 7).unwrap()
        };
        let half = Some(Duration::from_secs(15));
        assert_eq!(interval("30000000", None), half);
        assert_eq!(interval("30000000", Some("7")), half);
        assert_eq!(interval("30000000", Some("8")), None);
        assert_eq!(interval("1", None), Some(SHORTEST_INTERVAL));
        assert_eq!(watchdog_interval(None, None, 7).unwrap(), None);
    }

    #[test]
    fn a_watchdog_without_a_number_is_an_error() {
        for (limit, pid, name) in [
            ("0", None, "WATCHDOG_USEC"),
            ("soon", None, "WATCHDOG_USEC"),
            ("-1", None, "WATCHDOG_USEC"),
            ("18446744073709551616", None, "WATCHDOG_USEC"),
            ("1", Some("x"), "WATCHDOG_PID"),
        ] {
            let pid = pid.map(OsStr::new);
            let error = watchdog_interval(Some(OsStr::new(limit)), pid, 7).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[tokio::test]
    async fn a_message_arrives_as_one_datagram() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let receiver = StdUnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager {
            socket: Some(address(path.as_os_str()).unwrap()),
            watchdog: None,
        };
        manager.send("READY=1\nSTATUS=here").await.unwrap();
        let mut buffer = [0; 64];
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\nSTATUS=here");
        drop(receiver);
        let error = manager.send("WATCHDOG=1").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        ServiceManager::default().send("READY=1").await.unwrap();
    }

    #[tokio::test]
    async fn a_full_queue_delays_the_message_but_blocks_no_thread() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let receiver = StdUnixDatagram::bind(&path).unwrap();
        let filler = StdUnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        filler.connect(&path).unwrap();
        while filler.send(b"WATCHDOG=1").is_ok() {}
        let manager = ServiceManager {
            socket: Some(address(path.as_os_str()).unwrap()),
            watchdog: None,
        };
        // The test runs on one thread: a blocking send would never return.
        let mut sending = JoinSet::new();
        sending.spawn(async move { manager.send("READY=1").await });
        tokio::task::yield_now().await;
        assert!(sending.try_join_next().is_none());
        let mut buffer = [0; 64];
        let is_ready = |buffer: &mut [u8; 64]| {
            let length = receiver.recv(buffer).unwrap();
            buffer[..length].starts_with(b"READY")
        };
        assert!(!is_ready(&mut buffer));
        sending.join_next().await.unwrap().unwrap().unwrap();
        while !is_ready(&mut buffer) {}
    }
}
