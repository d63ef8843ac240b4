//! The handles by which the daemon recognises its own qdiscs, also after a restart.
//!
//! The kernel chooses handles from 8000: upwards, and people usually choose small numbers. So the handles 7c60: to
//! 7c7f: are free in practice. The bottleneck below a netem of the daemon has the handle 7c80:, or 7c81: if that is in
//! use.
//!
//! The kernel neither reports nor clears distribution tables. So the handle of a netem encodes which tables it has. To
//! change the tables, the daemon changes the handle. The kernel does this as one replacement, so the link is never
//! without a netem.

use crate::kernel::netem::{Distribution, Netem};

const FIRST_MAJOR: u32 = 0x7c60;
const LAST_MAJOR: u32 = 0x7c7f;
const FIRST_BOTTLENECK: u32 = 0x7c80;
const LAST_BOTTLENECK: u32 = 0x7c81;
/// Selects the second half of the handles, for a link on which another qdisc has the first choice.
const ALTERNATE: u32 = 0x10;

/// The distribution tables that a netem has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tables {
    /// For the delay.
    pub delay: Option<Distribution>,
    /// For the time between slots.
    pub slot: Option<Distribution>,
}

impl Tables {
    /// Returns the tables that a netem needs.
    pub fn of(netem: &Netem) -> Self {
        Self {
            delay: netem.distribution,
            slot: netem.slot.and_then(|slot| slot.distribution),
        }
    }

    /// Returns whether a netem with these tables can become `netem` by a change. A table that is not used has no
    /// effect: without jitter the kernel does not use the delay table, and without a slot it does not use the slot
    /// table.
    pub fn serve(self, netem: &Netem) -> bool {
        let wanted = Self::of(netem);
        (netem.jitter_ns == 0 || self.delay == wanted.delay)
            && (netem.slot.is_none() || self.slot == wanted.slot)
    }
}

/// Returns a handle for a netem with these tables. It is not in use on the link.
pub fn for_tables(tables: Tables, in_use: &[u32]) -> u32 {
    let major = FIRST_MAJOR | (code(tables.delay) << 2) | code(tables.slot);
    let handle = major << 16;
    if in_use.contains(&handle) {
        (major | ALTERNATE) << 16
    } else {
        handle
    }
}

/// Returns the tables that a netem with this handle has. `None`: it is not a handle of the daemon.
pub fn tables(handle: u32) -> Option<Tables> {
    let major = handle >> 16;
    (FIRST_MAJOR..=LAST_MAJOR).contains(&major).then(|| Tables {
        delay: distribution((major >> 2) & 3),
        slot: distribution(major & 3),
    })
}

/// Returns a handle for a new bottleneck. It is not in use on the link.
pub fn for_bottleneck(in_use: &[u32]) -> u32 {
    let first = FIRST_BOTTLENECK << 16;
    if in_use.contains(&first) {
        LAST_BOTTLENECK << 16
    } else {
        first
    }
}

/// Returns whether this is the handle of a bottleneck of the daemon.
pub fn is_bottleneck(handle: u32) -> bool {
    (FIRST_BOTTLENECK..=LAST_BOTTLENECK).contains(&(handle >> 16))
}

/// Returns a handle as `tc` prints it.
pub fn text(handle: u32) -> String {
    format!("{:x}:", handle >> 16)
}

fn code(distribution: Option<Distribution>) -> u32 {
    match distribution {
        None => 0,
        Some(Distribution::Normal) => 1,
        Some(Distribution::Pareto) => 2,
        Some(Distribution::ParetoNormal) => 3,
    }
}

fn distribution(code: u32) -> Option<Distribution> {
    Distribution::ALL
        .into_iter()
        .find(|distribution| self::code(Some(*distribution)) == code)
}
