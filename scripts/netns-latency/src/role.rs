//! What a process in a lab does: one mounter, and one observer of three.

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

/// What this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Does what `ip netns` does, and says when.
    Mounter,
    /// Sees it as fast as the kernel allows.
    Floor,
    /// Sees it through the library.
    Watcher,
    /// Sees it on the bus; starts the daemon too.
    Client,
}

/// Plays the role until the end of standard input.
pub(crate) fn play(role: Role, surroundings: Surroundings) -> anyhow::Result<()> {
    // They go with the user namespace of the lab, of which the observer is the first process.
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
