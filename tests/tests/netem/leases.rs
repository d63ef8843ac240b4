//! Impairments that end: on time, after a crash of the daemon, by `restore`. They follow their links.
//!
//! `scripts/crashes.sh` sets `TCGUI_CRASHES`.

pub(crate) mod crashes;
mod histories;
mod identity;
mod inside;

pub(crate) use inside::{restores, short_ms};
