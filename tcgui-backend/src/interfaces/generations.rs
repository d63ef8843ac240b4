//! A number for each life of a link, which the kernel does not give. Pure.

use std::collections::HashMap;

use crate::kernel::link::Link;

/// Gives each link the generation that it had in `last`. A link that was not there, or is not the same, gets a new one.
pub(super) fn number(
    links: &mut [Link],
    last: &[Link],
    is_same: impl Fn(&Link, &Link) -> bool,
    newest: &mut u64,
) {
    let last: HashMap<_, _> = last.iter().map(|link| (link.ifindex, link)).collect();
    for link in links {
        let known = last.get(&link.ifindex);
        let known = known.filter(|known| is_same(known, link));
        link.generation = known.map_or_else(
            || {
                *newest += 1;
                *newest
            },
            |known| known.generation,
        );
    }
}
