//! Gives each link a generation number, which the kernel does not have. Pure.

use std::collections::HashMap;

use crate::kernel::link::Link;

/// The links that the last dump of one namespace contained, by index. Links that the kernel has deleted since then
/// are removed.
#[derive(Debug, Default)]
pub(super) struct Generations {
    known: HashMap<u32, Known>,
}

#[derive(Debug)]
struct Known {
    generation: u64,
    kind: Option<String>,
    fingerprint: u64,
}

impl Generations {
    /// Removes a link that the kernel has deleted. A later link with this index gets another generation.
    pub(super) fn deleted(&mut self, ifindex: u32) {
        self.known.remove(&ifindex);
    }

    /// Removes all links, because the namespace was deleted. Later links get new generations.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// Returns whether any link is known.
    pub(super) fn has_links(&self) -> bool {
        !self.known.is_empty()
    }

    /// Sets the generation of each link of a dump. A known link keeps its generation if its kind is the same. If
    /// `is_unsure`, the event of a deletion may have been missed, so the fingerprint must be the same too. Other
    /// links get the numbers after `newest`.
    pub(super) fn number(&mut self, links: &mut [Link], is_unsure: bool, newest: &mut u64) {
        let mut seen = HashMap::with_capacity(links.len());
        for link in links {
            let is_same = |known: &Known| {
                known.kind == link.kind && (!is_unsure || known.fingerprint == link.fingerprint)
            };
            let known = self.known.remove(&link.ifindex).filter(is_same);
            let mut known = known.unwrap_or_else(|| {
                *newest += 1;
                Known {
                    generation: *newest,
                    kind: link.kind.clone(),
                    fingerprint: 0,
                }
            });
            // The fingerprint includes the hardware address, which an administrator may change.
            known.fingerprint = link.fingerprint;
            link.generation = known.generation;
            seen.insert(link.ifindex, known);
        }
        self.known = seen;
    }
}
