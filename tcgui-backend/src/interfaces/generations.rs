//! A number for each life of a link, which the kernel does not give. Pure.

use std::collections::HashMap;

use crate::kernel::link::Link;

/// The links of one namespace that the last look has seen, by their index. A link that the kernel has deleted since then is
/// not among them.
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
    /// Notes that the kernel has deleted a link. A later link with this index gets another generation.
    pub(super) fn deleted(&mut self, ifindex: u32) {
        self.known.remove(&ifindex);
    }

    /// Notes that the namespace is gone. All links that are seen later get new generations.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// Returns whether any link is known.
    pub(super) fn has_links(&self) -> bool {
        !self.known.is_empty()
    }

    /// Gives each link of a look its generation. A known link keeps its generation if the kind is the same. If
    /// `is_unsure`, a deletion may have been missed, and the fingerprint must be the same too. Other links get numbers
    /// after `newest`.
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
            // The administrator may change the hardware address.
            known.fingerprint = link.fingerprint;
            link.generation = known.generation;
            seen.insert(link.ifindex, known);
        }
        self.known = seen;
    }
}
