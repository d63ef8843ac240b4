//! The validated configuration from the command line, the environment and the configuration files, or the error in it.

mod endpoint;
mod environment;
mod file;
mod options;
mod sources;
mod tls;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tcgui_shared::names::{BackendName, NameError};

use crate::cli::{Args, ZenohMode};
use crate::containers::{ContainersConfig, Environment};
use crate::library::LibraryConfig;
use crate::namespace_watcher::WatchConfig;
use crate::policy::Policy;
use crate::processes::ProcessesConfig;
use crate::tc::plan::ForeignQdiscs;

pub use endpoint::check_endpoint;
pub use file::{ReadFile, is_configuration, read_for_check};
pub use options::{Kind, Options, variable_of};
pub use sources::{InvalidConfig, Loaded, Origin, Problem, Setting, Sources};
pub use tls::{TlsError, TlsFiles};

/// The endpoint at which released frontends look for a backend on their own host.
pub const DEFAULT_LISTEN: &str = "tcp/127.0.0.1:7447";

/// The configuration of the daemon.
#[derive(Debug, Clone)]
pub struct Config {
    /// The backend's name in every key.
    pub name: BackendName,
    /// Leave loopback interfaces out of the list.
    pub exclude_loopback: bool,
    /// Create the netns directory if it is missing.
    pub create_netns_dir: bool,
    /// Read links by namespace ids. If false, read them over sockets inside the namespaces.
    pub namespace_ids: bool,
    /// The sockets of container engines. `None`: containers are not followed.
    pub containers: Option<ContainersConfig>,
    /// The scan intervals for namespaces that processes hold. `None`: processes are not scanned.
    pub processes: Option<ProcessesConfig>,
    /// Whether a netem may replace the qdisc of another program.
    pub foreign_qdiscs: ForeignQdiscs,
    /// The bus session.
    pub bus: BusConfig,
    /// The netns directory and the sweep intervals.
    pub watch: WatchConfig,
    /// The interval of counters and rates.
    pub bandwidth_interval: Duration,
    /// The directories of presets and scenarios.
    pub library: LibraryConfig,
    /// The state directory. It contains the files of leases.
    pub state_dir: PathBuf,
    /// Lifetime of a change whose request sets none. `None`: it stays.
    pub default_ttl: Option<Duration>,
    /// Keep the changes of scenarios when the daemon stops in order.
    pub keep_on_exit: bool,
    /// The permitted changes.
    pub policy: Policy,
}

/// The options that SIGHUP changes. Other options need a restart.
pub const RELOADABLE: [&str; 6] = [
    "replace-foreign-qdiscs",
    "read-only",
    "allow",
    "protect",
    "default-ttl",
    "keep-on-exit",
];

/// The values of the options that SIGHUP changes ([`RELOADABLE`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloadable {
    /// Whether a netem may replace the qdisc of another program.
    pub foreign_qdiscs: ForeignQdiscs,
    /// Lifetime of a change whose request sets none. `None`: it stays.
    pub default_ttl: Option<Duration>,
    /// Keep the changes of scenarios when the daemon stops in order.
    pub keep_on_exit: bool,
    /// The permitted changes.
    pub policy: Policy,
}

impl Config {
    /// Returns the values that SIGHUP changes.
    pub fn reloadable(&self) -> Reloadable {
        Reloadable {
            foreign_qdiscs: self.foreign_qdiscs,
            default_ttl: self.default_ttl,
            keep_on_exit: self.keep_on_exit,
            policy: self.policy.clone(),
        }
    }
}

/// The settings of the bus session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusConfig {
    /// Peer or client.
    pub mode: ZenohMode,
    /// Endpoints to connect to.
    pub connect: Vec<String>,
    /// Endpoints to listen on.
    pub listen: Vec<String>,
    /// Whether multicast scouting is answered.
    pub multicast: bool,
    /// Certificates for `tls/` and `quic/` endpoints.
    pub tls: TlsFiles,
}

/// Why options are not valid together.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The name cannot be part of a key.
    #[error("--name {name:?} is not a backend name")]
    Name {
        /// The name as given.
        name: String,
        /// The error of the name.
        #[source]
        err: NameError,
    },
    /// A client does not listen.
    #[error("--zenoh-listen needs --zenoh-mode peer: a client does not listen")]
    ClientListens,
    /// The same endpoint was given twice.
    #[error("duplicate endpoint {endpoint:?} (peers always listen on {DEFAULT_LISTEN})")]
    Duplicate {
        /// The endpoint as given.
        endpoint: String,
    },
    /// The client has no endpoint to connect to and no scouting.
    #[error(
        "--zenoh-mode client with --no-multicast needs --zenoh-connect: otherwise it finds no router"
    )]
    NothingToConnectTo,
    /// An encrypted endpoint on the port of the built-in one.
    #[error(
        "endpoint {endpoint:?} has the port of {DEFAULT_LISTEN}, on which frontends of this host connect \
         unencrypted: choose another port"
    )]
    BuiltInPort {
        /// The endpoint as given.
        endpoint: String,
    },
    /// Sockets of engines that would not be used.
    #[error("--container-socket is of no use with --no-containers: set only one of them")]
    UnusedSocket,
    /// A certificate without its key, or a key without its certificate.
    #[error("--tls-cert needs --tls-key, and the other way round")]
    HalfIdentity,
    /// `tls/` and `quic/` without a certificate.
    #[error("endpoint {endpoint:?} needs --tls-cert and --tls-key")]
    NoCertificate {
        /// The endpoint as given.
        endpoint: String,
    },
    /// A file with certificates or a key cannot be used.
    #[error("cannot use the certificates")]
    Tls(#[from] TlsError),
    /// The endpoint names no known transport.
    #[error(
        "endpoint {endpoint:?} does not start with one of tcp/ udp/ tls/ quic/ unixsock-stream/"
    )]
    Protocol {
        /// The endpoint as given.
        endpoint: String,
    },
    /// The endpoint has no valid address.
    #[error("endpoint {endpoint:?} has no usable address: {problem}")]
    Address {
        /// The endpoint as given.
        endpoint: String,
        /// The error, and what to write instead.
        problem: &'static str,
    },
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        check_combinations(&args)?;
        let containers = containers(&args);
        let name: BackendName = args.name.parse().map_err(|err| ConfigError::Name {
            name: args.name.clone(),
            err,
        })?;
        let connect = endpoints(args.zenoh_connect.as_deref());
        let mut listen = endpoints(args.zenoh_listen.as_deref());
        match args.zenoh_mode {
            ZenohMode::Client if !listen.is_empty() => return Err(ConfigError::ClientListens),
            ZenohMode::Client if connect.is_empty() && args.no_multicast => {
                return Err(ConfigError::NothingToConnectTo);
            }
            ZenohMode::Client => {}
            ZenohMode::Peer => listen.insert(0, DEFAULT_LISTEN.to_owned()),
        }
        for list in [&connect, &listen] {
            for (index, endpoint) in list.iter().enumerate() {
                if list[..index].contains(endpoint) {
                    return Err(ConfigError::Duplicate {
                        endpoint: endpoint.clone(),
                    });
                }
                check_endpoint(endpoint)?;
            }
        }
        let tls = TlsFiles::check(args.tls_cert, args.tls_key, args.tls_client_ca)?;
        let listen = endpoint::widened(&listen, endpoint::has_dual_stack())?;
        if tls.identity.is_none()
            && let Some(endpoint) = listen.iter().find(|listen| endpoint::is_encrypted(listen))
        {
            return Err(ConfigError::NoCertificate {
                endpoint: endpoint.clone(),
            });
        }
        let home = std::env::var_os("HOME");
        let defaults = |wanted: bool, kind| wanted.then(|| default_dirs(home.as_deref(), kind));
        let presets = defaults(!args.no_default_presets, "presets");
        let scenarios = defaults(!args.no_default_scenarios, "scenarios");
        let library = LibraryConfig {
            preset_dirs: directories(presets, args.preset_dir),
            scenario_dirs: directories(scenarios, args.scenario_dir),
            // Backends on one host have separate directories for the scenarios that clients store.
            store: absolute(args.state_dir.clone())
                .join("scenarios")
                .join(name.as_str()),
        };
        Ok(Self {
            library,
            containers,
            name,
            exclude_loopback: args.exclude_loopback,
            create_netns_dir: args.create_netns_dir,
            namespace_ids: !args.no_namespace_ids,
            processes: args.process_namespaces.then_some(ProcessesConfig {
                sweep_interval: args.sweep_interval,
                degraded_sweep_interval: args.degraded_sweep_interval,
            }),
            foreign_qdiscs: if args.replace_foreign_qdiscs {
                ForeignQdiscs::Replace
            } else {
                ForeignQdiscs::Keep
            },
            bus: BusConfig {
                mode: args.zenoh_mode,
                connect,
                listen,
                multicast: !args.no_multicast,
                tls,
            },
            watch: WatchConfig {
                directory: args.netns_dir,
                sweep_interval: args.sweep_interval,
                degraded_sweep_interval: args.degraded_sweep_interval,
            },
            bandwidth_interval: args.bandwidth_interval,
            state_dir: args.state_dir,
            default_ttl: args.default_ttl,
            keep_on_exit: args.keep_on_exit,
            policy: Policy::new(args.read_only, args.allow, args.protect),
        })
    }
}

/// Checks options that belong together or exclude each other. The parser cannot do that, because they may come from different
/// sources.
fn check_combinations(args: &Args) -> Result<(), ConfigError> {
    if args.no_containers && !args.container_socket.is_empty() {
        return Err(ConfigError::UnusedSocket);
    }
    if args.tls_cert.is_some() != args.tls_key.is_some() {
        return Err(ConfigError::HalfIdentity);
    }
    Ok(())
}

/// Returns the default directories. Later ones take precedence.
fn default_dirs(home: Option<&OsStr>, kind: &str) -> Vec<PathBuf> {
    let user = home.filter(|home| !home.is_empty());
    let user = user.map(|home| Path::new(home).join(".config/tcgui").join(kind));
    let mut all = vec![Path::new("/usr/share/tcgui").join(kind)];
    all.extend(user);
    all.push(PathBuf::from(kind));
    all
}

fn directories(defaults: Option<Vec<PathBuf>>, named: Vec<PathBuf>) -> Vec<PathBuf> {
    let all = defaults.unwrap_or_default().into_iter().chain(named);
    all.map(absolute).collect()
}

/// Returns the container engines to follow. `None`: containers are not followed.
pub fn containers(args: &Args) -> Option<ContainersConfig> {
    let named = args.container_socket.iter().cloned().map(absolute);
    let of = |environment| ContainersConfig::new(&environment, named, args.sweep_interval);
    (!args.no_containers).then(Environment::read).map(of)
}

/// Makes a path absolute, relative to the current working directory.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Splits a list at commas, and removes blanks around the parts.
fn endpoints(list: Option<&str>) -> Vec<String> {
    list.map(|list| list.split(',').map(|one| one.trim().to_owned()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn config(args: &[&str]) -> Result<Config, ConfigError> {
        Args::parse_from([&["tcgui-backend"], args].concat()).try_into()
    }

    #[test]
    fn defaults_are_those_that_frontends_expect() {
        let config = config(&[]).unwrap();
        assert_eq!(config.name.as_str(), "default");
        assert_eq!(config.bus.listen, [DEFAULT_LISTEN]);
        assert!(config.bus.multicast && config.bus.connect.is_empty());
        assert_eq!(config.watch.directory.to_str(), Some("/run/netns"));
        assert_eq!(config.bandwidth_interval, Duration::from_secs(2));
        assert_eq!(
            config.library.store,
            Path::new("/var/lib/tcgui/scenarios/default")
        );
    }

    #[test]
    fn processes_are_scanned_only_with_the_option() {
        assert_eq!(config(&[]).unwrap().processes, None);
        let options = ["--process-namespaces", "--sweep-interval", "5s"];
        let expected = ProcessesConfig {
            sweep_interval: Duration::from_secs(5),
            degraded_sweep_interval: Duration::from_secs(1),
        };
        assert_eq!(config(&options).unwrap().processes, Some(expected));
    }

    #[test]
    fn later_directories_win() {
        let here = std::env::current_dir().unwrap();
        let config = config(&["--scenario-dir", "/a", "--scenario-dir", "b"]).unwrap();
        let dirs = config.library.scenario_dirs;
        assert_eq!(dirs[0], Path::new("/usr/share/tcgui/scenarios"));
        let expected = [here.join("scenarios"), "/a".into(), here.join("b")];
        assert!(dirs.ends_with(&expected), "{dirs:?}");
        let options = ["--no-default-presets", "--preset-dir", "/p"];
        let config = super::tests::config(&options).unwrap();
        assert_eq!(config.library.preset_dirs, [PathBuf::from("/p")]);
        let home = default_dirs(Some("/home/me".as_ref()), "presets");
        assert_eq!(home[1], Path::new("/home/me/.config/tcgui/presets"));
        assert_eq!(default_dirs(None, "presets").len(), 2);
    }

    #[test]
    fn sockets_of_engines_are_absolute() {
        let here = std::env::current_dir().unwrap();
        let config = config(&["--container-socket", "x.sock", "--sweep-interval", "5s"]).unwrap();
        let containers = config.containers.unwrap();
        assert_eq!(containers.list_interval, Duration::from_secs(5));
        let sockets = containers.sockets;
        assert!(sockets.contains(&"/run/podman/podman.sock".into()));
        assert_eq!(sockets.last(), Some(&here.join("x.sock")));
        let config = super::tests::config(&["--no-containers"]).unwrap();
        assert_eq!(config.containers, None);
    }

    #[test]
    fn lists_are_trimmed_and_names_allowed() {
        let config =
            config(&["--zenoh-connect", " tcp/lab.example:7447 , quic/[::1]:9000"]).unwrap();
        assert_eq!(
            config.bus.connect,
            ["tcp/lab.example:7447", "quic/[::1]:9000"]
        );
        let client = ["--zenoh-mode", "client"];
        assert!(super::tests::config(&client).unwrap().bus.listen.is_empty());
    }

    #[test]
    fn errors_name_the_invalid_option() {
        let error = |args: &[&str]| config(args).unwrap_err().to_string();
        assert!(error(&["--name", "a/b"]).contains("--name"));
        assert!(error(&["--name", ""]).contains("--name"));
        let client = [
            "--zenoh-mode",
            "client",
            "--zenoh-listen",
            "tcp/127.0.0.1:1",
        ];
        assert!(error(&client).contains("--zenoh-mode peer"));
        for (endpoint, expected) in [
            ("tcp/127.0.0.1:7447", "duplicate"),
            ("ws/127.0.0.1:80", "does not start with"),
            ("127.0.0.1:80", "does not start with"),
            ("tcp/127.0.0.1", "HOST:PORT"),
            ("tcp/127.0.0.1:70000", "port"),
            ("tcp/300.0.0.1:80", "IPv4"),
            ("tcp/::1:80", "brackets"),
            ("tcp/224.0.0.1:80", "multicast"),
            ("udp/0.0.0.0:80", "1024"),
            ("tcp/a b:80", "host name"),
            ("unixsock-stream/", "write a path"),
            ("unixsock-stream//run/a#b", "without # and ?"),
            ("unixsock-stream//run/a?b", "without # and ?"),
            ("", "does not start with"),
        ] {
            let message = error(&["--zenoh-listen", endpoint]);
            assert!(message.contains(expected), "{endpoint}: {message}");
        }
    }
}
