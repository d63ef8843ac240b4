//! Holders of namespaces: the common form in which `containers` and `processes` report to the backend.
//!
//! Both report holders, not namespaces. Two holders of one namespace have the same inode number, like a name in
//! the netns directory that leads to it. The inventory merges them into one entry.

use std::ffi::OsStr;
use std::sync::Arc;

use tcgui_shared::names::ContainerName;

use crate::kernel::netns::ProcessNetnsId;

/// A process that holds a namespace, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process and its namespace.
    pub id: ProcessNetnsId,
    /// Its kind.
    pub kind: HolderKind,
}

/// The kind of a holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HolderKind {
    /// The first process of a container.
    Container(Arc<Container>),
    /// Any other process, with the name of its program (`man 5 proc_pid_comm`, at most 15 bytes).
    Process(Arc<OsStr>),
}

impl HolderKind {
    /// Returns the source that reports holders of this kind.
    pub const fn source(&self) -> HolderSource {
        match self {
            Self::Container(_) => HolderSource::Containers,
            Self::Process(_) => HolderSource::Processes,
        }
    }
}

/// A running container, as its engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name, without the leading `/` of the engine's answers.
    pub name: ContainerName,
    /// The kind of the engine, from its replies.
    pub runtime: Runtime,
    /// Whether root serves the engine. An engine of a user may report false data.
    pub of_root: bool,
    /// The first twelve hexadecimal digits of its id.
    pub short_id: String,
    /// The image from which it was created, as in its configuration.
    pub image: String,
}

/// A source of reports about holders. Both may report one process. Each removes only its own reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HolderSource {
    /// The actor that asks container engines.
    Containers,
    /// The actor that looks at all processes.
    Processes,
}

/// A container engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

/// A difference between the reported and the current holders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldEvent {
    /// A holder appeared, or a reported holder has another name now.
    Added(Holder),
    /// The holder has ended, or no longer holds its namespace.
    Removed(ProcessNetnsId),
}
