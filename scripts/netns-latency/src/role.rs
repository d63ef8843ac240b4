//! The roles of a process in a lab: one mounter, and one of three observers.

mod client;
mod containers;
mod floor;
mod holders;
mod links;
mod mounter;
mod watcher;

use clap::ValueEnum;
use tcgui_tests::doorbells::{INOTIFY, Limit};

use crate::plan::Surroundings;

/// The role of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Makes the system calls of `ip netns`, and reports their time.
    Mounter,
    /// Observes changes as fast as the kernel allows.
    Floor,
    /// Observes changes through the library.
    Watcher,
    /// Observes changes on the bus. Also starts the daemon.
    Client,
}

/// Runs the role until the end of standard input.
pub(crate) fn play(role: Role, surroundings: Surroundings) -> anyhow::Result<()> {
    // The limits end with the user namespace of the lab, whose first process is the observer.
    let is_deaf = matches!(
        surroundings,
        Surroundings::NoInotify | Surroundings::NoDoorbells
    );
    if is_deaf && role != Role::Mounter {
        for limit in INOTIFY {
            Limit::zero(limit)?;
        }
    }
    match role {
        Role::Mounter => mounter::play(),
        Role::Floor => floor::play(),
        Role::Watcher => watcher::play(),
        Role::Client => client::play(surroundings),
    }
}
