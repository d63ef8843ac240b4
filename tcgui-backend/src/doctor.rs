//! What is wrong with a machine: from facts to findings. Pure; [`look`] reads the facts.

pub mod look;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::chain;
use crate::kernel::modules::{Module, Presence};
use crate::kernel::private_dir::PrivateDirError;
use crate::kernel::socket_file::SocketFile;

/// The modules that the daemon uses.
pub const MODULES: [(Module, Need); 6] = [
    (
        Module {
            name: "sch_netem",
            function: "netem_enqueue",
        },
        Need::Required,
    ),
    (
        Module {
            name: "sch_tbf",
            function: "tbf_enqueue",
        },
        Need::Optional("rates are limited by netem, whose queue is not bounded in time"),
    ),
    (
        Module {
            name: "sch_prio",
            function: "prio_enqueue",
        },
        Need::Optional("traffic cannot be divided into classes"),
    ),
    (
        Module {
            name: "ifb",
            function: "ifb_xmit",
        },
        Need::Optional("incoming traffic cannot be redirected"),
    ),
    (
        Module {
            name: "cls_flower",
            function: "fl_classify",
        },
        Need::Optional("traffic cannot be selected by address or port"),
    ),
    (
        Module {
            name: "act_mirred",
            function: "tcf_mirred_act",
        },
        Need::Optional("incoming traffic cannot be redirected"),
    ),
];

/// Whether the daemon can work without something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing can be impaired without it.
    Required,
    /// The consequence if it is missing.
    Optional(&'static str),
}

/// What to do if no inotify watch can be made (inotify(7); the limits of user namespaces: namespaces(7)).
const INOTIFY_REMEDY: &str = "raise the limit, for example: sysctl -w fs.inotify.max_user_instances=1024 \
                              fs.inotify.max_user_watches=1048576 (and user.max_inotify_instances in a container)";
/// The wall clock of a correct machine is later: 2026-01-01 as seconds since the Unix epoch.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);
/// Free space that the state directory needs, in bytes.
const LEAST_SPACE: u64 = 1024 * 1024;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing to do.
    Ok,
    /// The daemon works, but not everything does.
    Warning,
    /// The daemon does not start, or cannot impair, or misses namespaces.
    Fault,
}

/// The result of one check, as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How serious it is.
    pub verdict: Verdict,
    /// What was checked, and the result.
    pub text: String,
    /// What to do. Empty if there is nothing to do.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Fault => "FAULT",
        };
        write!(f, "{verdict:<8}{}", self.text)?;
        match self.remedy.as_str() {
            "" => Ok(()),
            remedy => write!(f, ". Remedy: {remedy}"),
        }
    }
}

fn good(text: impl Into<String>) -> Finding {
    finding(Verdict::Ok, text, "")
}

fn finding(verdict: Verdict, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        verdict,
        text: text.into(),
        remedy: remedy.into(),
    }
}

/// What an endpoint to listen on is like.
#[derive(Debug)]
pub enum EndpointState {
    /// The daemon can listen there.
    Free,
    /// These backends answer there.
    Answered(Vec<String>),
    /// The daemon cannot listen there, and no backend answers.
    Refused(String),
}

/// The directory of named namespaces.
#[derive(Debug)]
pub struct NetnsDirectory {
    /// Its path.
    pub path: PathBuf,
    /// Whether it exists.
    pub exists: bool,
    /// How mounts propagate there, and whether those of other processes arrive.
    pub propagation: Option<(String, bool)>,
    /// Whether the mounts are those of PID 1.
    pub mounts_of_init: bool,
}

/// The state directory.
#[derive(Debug)]
pub struct StateDirectory {
    /// Its path.
    pub path: PathBuf,
    /// Whether it exists. An error if other users can change it, or if it cannot be opened.
    pub opened: Result<bool, PrivateDirError>,
    /// The free space in bytes. An error if no file can be written.
    pub space: io::Result<u64>,
}

/// Returns the finding about a kernel module.
#[must_use]
pub fn module(release: &str, module: Module, presence: Presence, need: Need) -> Finding {
    let what = format!("kernel module {}", module.name);
    let state = match presence {
        Presence::Loaded => return good(format!("{what}: loaded")),
        Presence::BuiltIn => return good(format!("{what}: built into the kernel")),
        Presence::Loadable => return good(format!("{what}: loaded when it is needed")),
        Presence::Missing => format!("{what}: not in the kernel {release}"),
        Presence::LoadingDisabled => format!("{what}: not loaded, and loading is disabled"),
    };
    let remedy = match presence {
        Presence::LoadingDisabled => format!(
            "reboot, and load {} before kernel.modules_disabled is set",
            module.name
        ),
        _ => format!(
            "install the modules of this kernel (Debian: linux-image-…, not -cloud; Fedora: kernel-modules-extra), then \
             modprobe {}",
            module.name
        ),
    };
    match need {
        Need::Required => finding(
            Verdict::Fault,
            format!("{state}: nothing can be impaired"),
            remedy,
        ),
        Need::Optional(consequence) => {
            finding(Verdict::Warning, format!("{state}: {consequence}"), remedy)
        }
    }
}

/// Returns the finding about capabilities.
#[must_use]
pub fn capabilities(required: &[&str], optional: &[&str]) -> Finding {
    const REMEDY: &str = "run as root, or grant them in the unit (AmbientCapabilities=, CapabilityBoundingSet=) or to the \
                          container (--cap-add)";
    let names = |names: &[&str]| names.join(", ");
    match (required, optional) {
        ([], []) => good("capabilities: all that the daemon uses"),
        ([], missing) => finding(
            Verdict::Warning,
            format!(
                "capabilities: {} missing: containers, checks or sockets of users may be out of reach",
                names(missing)
            ),
            REMEDY,
        ),
        (missing, _) => finding(
            Verdict::Fault,
            format!(
                "capabilities: {} missing: the daemon does not start",
                names(missing)
            ),
            REMEDY,
        ),
    }
}

/// Returns the finding about inotify: the result of a watch, and the limits.
#[must_use]
pub fn inotify(watched: &Result<(), String>, limits: &[(&'static str, Option<u64>)]) -> Finding {
    let limits: Vec<_> = limits
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)))
        .collect();
    let limits = limits.join(" ");
    match watched {
        Ok(()) => good(format!("inotify: a watch was made ({limits})")),
        Err(err) => finding(
            Verdict::Fault,
            format!("inotify: no watch can be made: {err} ({limits}): changes are noticed late"),
            INOTIFY_REMEDY,
        ),
    }
}

/// Returns the finding about the directory of named namespaces.
#[must_use]
pub fn netns_directory(facts: &NetnsDirectory) -> Finding {
    let path = facts.path.display();
    let Some((propagation, receives)) = &facts.propagation else {
        return finding(
            Verdict::Fault,
            format!("netns directory {path}: the mount table cannot be read"),
            "mount /proc",
        );
    };
    let state = if facts.exists {
        "exists"
    } else {
        "does not exist yet, the daemon waits for it"
    };
    match (facts.mounts_of_init, receives) {
        (true, _) => good(format!("netns directory {path}: {state}")),
        (false, true) => good(format!(
            "netns directory {path}: {state}, mounts arrive ({propagation})"
        )),
        (false, false) => finding(
            Verdict::Fault,
            format!(
                "netns directory {path}: {state}, but mounts of other processes do not arrive ({propagation}): new \
                 namespaces are not seen"
            ),
            "remove options with a private mount namespace from the service, or mount the directory with rslave into the \
             container (-v /run/netns:/run/netns:rslave)",
        ),
    }
}

/// Returns the finding about one socket of a container engine. `None`: there is no file.
#[must_use]
pub fn engine(path: &std::path::Path, found: &io::Result<SocketFile>) -> Option<Finding> {
    let what = format!("container engine {}", path.display());
    Some(match found {
        Ok(SocketFile::Absent) => return None,
        Ok(SocketFile::Live) => good(format!("{what}: listens")),
        Ok(SocketFile::Stale) => finding(
            Verdict::Warning,
            format!("{what}: no process listens: its containers are not shown"),
            "start the engine, for example: systemctl start docker.socket podman.socket",
        ),
        Ok(SocketFile::Other(kind)) => finding(
            Verdict::Fault,
            format!("{what}: {kind}, not a socket"),
            "correct --container-socket, or remove the file and start the engine again",
        ),
        Err(err) => finding(
            Verdict::Fault,
            format!("{what}: {err}: its containers are not shown"),
            "add the group of the socket to the unit (SupplementaryGroups=), see docs/containers.md",
        ),
    })
}

/// Returns the finding about an endpoint. `others_answer`: a backend answers at another endpoint of the same options.
#[must_use]
pub fn endpoint(endpoint: &str, state: &EndpointState, others_answer: bool) -> Finding {
    match state {
        EndpointState::Free => good(format!("bus endpoint {endpoint}: free")),
        EndpointState::Answered(names) => good(format!(
            "bus endpoint {endpoint}: the backend {} answers",
            names.join(", ")
        )),
        EndpointState::Refused(_) if others_answer => good(format!(
            "bus endpoint {endpoint}: in use while the daemon runs"
        )),
        EndpointState::Refused(err) => finding(
            Verdict::Fault,
            format!("bus endpoint {endpoint}: {err}, and no backend answers there"),
            "find the program with ss -tulpn and stop it, or choose another endpoint (--zenoh-listen, or --zenoh-mode client \
             with --zenoh-connect)",
        ),
    }
}

/// Returns the finding about a router to which the options connect.
#[must_use]
pub fn router(endpoint: &str, reached: &Result<(), String>) -> Finding {
    match reached {
        Ok(()) => good(format!("bus endpoint {endpoint}: reached")),
        Err(err) => finding(
            Verdict::Warning,
            format!(
                "bus endpoint {endpoint}: {err}: the daemon starts, and tries until it is reached"
            ),
            "start the Zenoh router there, or correct --zenoh-connect",
        ),
    }
}

/// Returns the finding about the state directory.
#[must_use]
pub fn state_directory(facts: &StateDirectory) -> Finding {
    let what = format!("state directory {}", facts.path.display());
    let exists = match &facts.opened {
        Ok(exists) => *exists,
        Err(PrivateDirError::Distrust(distrust)) => {
            let text = format!("{what}: the daemon does not start");
            return finding(Verdict::Fault, text, distrust.to_string());
        }
        Err(err) => {
            let text = format!("{what}: {}: changes that end are refused", chain(err));
            return finding(
                Verdict::Fault,
                text,
                "make it a directory, or choose another one with --state-dir",
            );
        }
    };
    match &facts.space {
        Err(err) => finding(
            Verdict::Fault,
            format!("{what}: cannot be written: {err}: changes that end are refused"),
            "mount its file system read-write, or choose another directory with --state-dir",
        ),
        Ok(bytes) if *bytes < LEAST_SPACE => finding(
            Verdict::Fault,
            format!("{what}: {bytes} bytes are free: changes that end are refused"),
            "free at least 1 MiB, or choose another directory with --state-dir",
        ),
        Ok(_) if exists => good(format!("{what}: private and writable")),
        Ok(_) => good(format!("{what}: made when the daemon starts")),
    }
}

/// Returns the finding about the clock: the time since the Unix epoch, and whether the kernel is told that it is right.
#[must_use]
pub fn clock(since_epoch: Duration, is_synchronised: Option<bool>) -> Finding {
    const REMEDY: &str = "enable time synchronisation, for example: timedatectl set-ntp true";
    if since_epoch < EARLIEST {
        let seconds = since_epoch.as_secs();
        return finding(
            Verdict::Fault,
            format!(
                "clock: {seconds} s since 1970, which is in the past: times in messages are wrong"
            ),
            REMEDY,
        );
    }
    match is_synchronised {
        Some(true) => good("clock: synchronised"),
        Some(false) => finding(
            Verdict::Warning,
            "clock: not synchronised: times in messages may differ from those of other hosts",
            REMEDY,
        ),
        None => good("clock: set (whether it is synchronised cannot be read)"),
    }
}

#[cfg(test)]
mod tests;
