//! Which container has a name for itself when several have the same. Pure.
//!
//! Every engine has names of its own, so Docker and Podman may each have a `web`. The one whose engine and
//! short id come first is `web`, whoever was seen first, and the others are `web@SHORTID`: no engine
//! allows `@` in a name, so that nobody else can be called so.

use std::collections::{BTreeMap, BTreeSet};

use tcgui_shared::names::ContainerName;

use crate::held::{Container, Runtime};
use crate::kernel::netns::HeldNamespaceId;

/// A container that would like to have a name.
type Claim = (Runtime, String, HeldNamespaceId);

/// The names of all containers.
#[derive(Debug, Default)]
pub(super) struct ContainerNames {
    claims: BTreeMap<String, BTreeSet<Claim>>,
}

impl ContainerNames {
    /// Takes a container in, and returns the inodes of the namespaces of others with its name: theirs may
    /// be another one by now.
    pub(super) fn add(&mut self, container: &Container, id: HeldNamespaceId) -> Vec<u64> {
        let claims = self.claims.entry(plain(container)).or_default();
        let others = claims.iter().map(|(.., other)| other.inode()).collect();
        claims.insert(claim(container, id));
        others
    }

    /// Takes a container out, and returns the same.
    pub(super) fn remove(&mut self, container: &Container, id: HeldNamespaceId) -> Vec<u64> {
        let name = plain(container);
        let Some(claims) = self.claims.get_mut(&name) else {
            return Vec::new();
        };
        claims.remove(&claim(container, id));
        let others = claims.iter().map(|(.., other)| other.inode()).collect();
        if claims.is_empty() {
            self.claims.remove(&name);
        }
        others
    }

    /// Returns the name of a container that was taken in; `None` where an engine gave it none.
    pub(super) fn name(&self, container: &Container, id: HeldNamespaceId) -> Option<ContainerName> {
        let name = plain(container);
        let claims = self.claims.get(&name)?;
        let own = claim(container, id);
        if claims.first() == Some(&own) {
            return ContainerName::new(&name).ok();
        }
        let is_namesake = |(_, short_id, other): &&Claim| *short_id == own.1 && *other != id;
        let suffix = match claims.iter().find(is_namesake) {
            None => own.1,
            // One container twice: a new process of it was reported before the end of the old one.
            Some(_) => format!("{}.{}.{}", own.1, id.pid(), id.started()),
        };
        ContainerName::new(&format!("{name}@{suffix}")).ok()
    }
}

fn plain(container: &Container) -> String {
    container.name.as_str().replace('@', "_")
}

fn claim(container: &Container, id: HeldNamespaceId) -> Claim {
    (container.runtime, container.short_id.clone(), id)
}
