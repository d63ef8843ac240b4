//! The paths at which engines may listen. Pure, except for reading the environment.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The sockets to follow. They do not have to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainersConfig {
    /// Absolute paths without duplicates. The kind of each engine is detected.
    pub sockets: Vec<PathBuf>,
    /// Variables of the environment whose value is not a Unix socket. They are logged once.
    pub unusable: Vec<UnusableHost>,
    /// Interval of the lists of each engine. Values below one second count as one second.
    pub list_interval: Duration,
}

/// A variable of the environment whose value is not the URL of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableHost {
    /// The variable.
    pub variable: &'static str,
    /// Its value.
    pub value: OsString,
}

impl fmt::Display for UnusableHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.variable, self.value.display())
    }
}

/// The parts of the environment that determine where engines listen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    /// `DOCKER_HOST`
    pub docker_host: Option<OsString>,
    /// `CONTAINER_HOST`, which is Podman's.
    pub container_host: Option<OsString>,
    /// `XDG_RUNTIME_DIR`
    pub runtime_dir: Option<OsString>,
    /// The user who started the daemon (`UID`), or who logged in (`man 5 proc_pid_loginuid`).
    pub user: Option<u32>,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn read() -> Self {
        let user = std::env::var("UID").ok();
        let user = user.or_else(|| std::fs::read_to_string("/proc/self/loginuid").ok());
        Self {
            docker_host: std::env::var_os("DOCKER_HOST"),
            container_host: std::env::var_os("CONTAINER_HOST"),
            runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
            user: user.and_then(|text| text.trim().parse().ok()),
        }
    }
}

/// The default sockets of Docker and of root's Podman on all distributions.
const WELL_KNOWN: [&str; 4] = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/var/run/podman/podman.sock",
];

/// The `loginuid` of a process without a login.
const NOBODY: u32 = u32::MAX;

impl ContainersConfig {
    /// Returns the well-known sockets, those of the environment, and those in `named`, in this order.
    pub fn new(
        environment: &Environment,
        named: impl IntoIterator<Item = PathBuf>,
        list_interval: Duration,
    ) -> Self {
        let mut config = Self {
            sockets: Vec::new(),
            unusable: Vec::new(),
            list_interval,
        };
        let podman = |runtime_dir: &Path| runtime_dir.join("podman/podman.sock");
        let mut sockets: Vec<_> = WELL_KNOWN.iter().map(PathBuf::from).collect();
        sockets.extend(
            environment
                .runtime_dir
                .as_deref()
                .map(Path::new)
                .map(podman),
        );
        let user = environment.user.filter(|user| *user != NOBODY);
        sockets.extend(user.map(|user| podman(Path::new(&format!("/run/user/{user}")))));
        for (variable, value) in [
            ("DOCKER_HOST", &environment.docker_host),
            ("CONTAINER_HOST", &environment.container_host),
        ] {
            let Some(value) = value.as_ref().filter(|value| !value.is_empty()) else {
                continue;
            };
            match unix_socket(value) {
                Some(path) => sockets.push(path),
                None => config.unusable.push(UnusableHost {
                    variable,
                    value: value.clone(),
                }),
            }
        }
        sockets.extend(named);
        for socket in sockets {
            if socket.is_absolute() && !config.sockets.contains(&socket) {
                config.sockets.push(socket);
            }
        }
        config
    }
}

/// Returns the path of a `unix://` URL.
fn unix_socket(host: &OsStr) -> Option<PathBuf> {
    let path = host.as_bytes().strip_prefix(b"unix://")?;
    let path = PathBuf::from(OsStr::from_bytes(path));
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(environment: &Environment, named: &[&str]) -> ContainersConfig {
        ContainersConfig::new(environment, named.iter().map(PathBuf::from), Duration::MAX)
    }

    #[test]
    fn well_known_sockets_come_first_and_none_twice() {
        let environment = Environment {
            docker_host: Some("unix:///run/docker.sock".into()),
            container_host: Some("unix:///srv/podman.sock".into()),
            runtime_dir: Some("/run/user/7".into()),
            user: Some(7),
        };
        let config = of(&environment, &["/srv/b", "/srv/podman.sock"]);
        let expected = [
            "/run/user/7/podman/podman.sock",
            "/srv/podman.sock",
            "/srv/b",
        ];
        let (known, others) = config.sockets.split_at(WELL_KNOWN.len());
        assert_eq!(known, WELL_KNOWN.map(PathBuf::from));
        assert_eq!(others, expected.map(PathBuf::from));
        assert_eq!(config.unusable, []);
    }

    #[test]
    fn a_host_without_a_unix_socket_is_reported() {
        for host in [
            "tcp://127.0.0.1:2375",
            "ssh://x",
            "unix://",
            "unix://run/x",
            "/run/x",
        ] {
            let environment = Environment {
                docker_host: Some(host.into()),
                container_host: Some("".into()),
                user: Some(NOBODY),
                ..Environment::default()
            };
            let config = of(&environment, &[]);
            assert_eq!(config.sockets, WELL_KNOWN.map(PathBuf::from), "{host}");
            let [unusable] = &config.unusable[..] else {
                panic!("{config:?}");
            };
            assert_eq!(unusable.to_string(), format!("DOCKER_HOST={host}"));
        }
    }
}
