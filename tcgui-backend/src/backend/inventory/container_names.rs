//! Decides which of several containers with the same name is listed with the plain name. Pure.
//!
//! Each engine has its own names, so Docker and Podman may both have a container `web`. One of them is listed as `web`, and the
//! others as `web@SHORTID`; no engine allows `@` in a name. Engines of root come before those of users, who must not take over
//! a name. Then the order is that of engine and short id. The order in which they were seen does not matter.

use std::collections::{BTreeMap, BTreeSet};

use tcgui_shared::names::ContainerName;

use crate::kernel::netns::ProcessNetnsId;
use crate::netns_holders::{Container, Runtime};

const FIRST: ProcessNetnsId = ProcessNetnsId::from_parts(0, 0, i32::MIN, 0);
const LAST: ProcessNetnsId = ProcessNetnsId::from_parts(u64::MAX, u64::MAX, i32::MAX, u64::MAX);

/// A container's claim to a name. The least claim gets the plain name.
type Claim = (Rank, String, ProcessNetnsId);

/// Engines of users rank after those of root, independent of the program that they claim to be.
type Rank = (bool, Runtime);

/// The names of all containers.
#[derive(Debug, Default)]
pub(super) struct ContainerNames {
    claims: BTreeMap<String, BTreeSet<Claim>>,
}

impl ContainerNames {
    /// Adds a container. Returns the inode numbers of the namespaces of other containers whose names may change. These are at
    /// most three, however many containers have the name.
    pub(super) fn add(&mut self, container: &Container, id: ProcessNetnsId) -> Vec<u64> {
        let claims = self.claims.entry(plain(container)).or_default();
        let first = claims.first().map(|(.., first)| *first);
        claims.insert(claim(container, id));
        let twins = twins(claims, container, id);
        first
            .into_iter()
            .chain(twins)
            .map(|id| id.inode())
            .collect()
    }

    /// Removes a container. Returns the same as [`Self::add`].
    pub(super) fn remove(&mut self, container: &Container, id: ProcessNetnsId) -> Vec<u64> {
        let name = plain(container);
        let Some(claims) = self.claims.get_mut(&name) else {
            return Vec::new();
        };
        claims.remove(&claim(container, id));
        let first = claims.first().map(|(.., first)| *first);
        let twins = twins(claims, container, id);
        let others = first.into_iter().chain(twins).map(|id| id.inode());
        let others = others.collect();
        if claims.is_empty() {
            self.claims.remove(&name);
        }
        others
    }

    /// Returns the name of a container that was added. `None` if the engine gave it no valid name.
    pub(super) fn name(&self, container: &Container, id: ProcessNetnsId) -> Option<ContainerName> {
        let name = plain(container);
        let claims = self.claims.get(&name)?;
        let own = claim(container, id);
        if claims.first() == Some(&own) {
            return ContainerName::new(&name).ok();
        }
        let suffix = match twins(claims, container, id).first() {
            None => own.1,
            // The same container twice: a new process of it was reported before the end of the old one.
            Some(_) => format!("{}.{}.{}", own.1, id.pid(), id.started()),
        };
        ContainerName::new(&format!("{name}@{suffix}")).ok()
    }
}

/// Returns other containers with the same short id, at most two. With more of them no name changes.
fn twins(
    claims: &BTreeSet<Claim>,
    container: &Container,
    id: ProcessNetnsId,
) -> Vec<ProcessNetnsId> {
    let of = |rank| {
        let short_id = || container.short_id.clone();
        claims.range((rank, short_id(), FIRST)..=(rank, short_id(), LAST))
    };
    let ranks = [false, true]
        .into_iter()
        .flat_map(|of_user| [Runtime::Docker, Runtime::Podman].map(|runtime| (of_user, runtime)));
    let all = ranks.flat_map(of);
    let others = all.map(|(.., other)| *other).filter(|other| *other != id);
    others.take(2).collect()
}

fn plain(container: &Container) -> String {
    container.name.as_str().replace('@', "_")
}

fn claim(container: &Container, id: ProcessNetnsId) -> Claim {
    let rank = (!container.of_root, container.runtime);
    (rank, container.short_id.clone(), id)
}
