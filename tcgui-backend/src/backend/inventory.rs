//! What exists now: names, the namespaces they lead to, and their links. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};

use tcgui_shared::names::{InterfaceName, NamespaceName};

use crate::interfaces::{Links, NetnsKey};
use crate::kernel::link::Link;
use crate::namespace_watcher::MountedNamespaceId;

/// One namespace: the names that lead to it and, once dumped, its links.
#[derive(Debug, Default)]
struct Netns {
    names: BTreeSet<OsString>,
    links: Option<Links>,
}

/// The present picture of the host.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    host: Option<Links>,
    named: HashMap<MountedNamespaceId, Netns>,
    by_name: BTreeMap<OsString, MountedNamespaceId>,
}

/// Where an interface is, as a client named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) key: NetnsKey,
    /// A name that leads to the namespace; the host needs none.
    pub(super) name: Option<OsString>,
    pub(super) ifindex: u32,
}

/// Why an interface was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotFound {
    Namespace,
    Interface,
}

impl Inventory {
    /// Takes in a usable name.
    pub(super) fn add(&mut self, name: OsString, id: MountedNamespaceId) {
        self.named.entry(id).or_default().names.insert(name.clone());
        self.by_name.insert(name, id);
    }

    /// Takes a name out; returns whether the namespace went with it.
    pub(super) fn remove(&mut self, name: &OsStr, id: MountedNamespaceId) -> bool {
        if self.by_name.get(name) == Some(&id) {
            self.by_name.remove(name);
        }
        let Some(netns) = self.named.get_mut(&id) else {
            return false;
        };
        netns.names.remove(name);
        let gone = netns.names.is_empty();
        if gone {
            self.named.remove(&id);
        }
        gone
    }

    /// Takes in the links of a namespace; those of an unknown one are dropped. Returns whether it is known.
    pub(super) fn set_links(&mut self, key: NetnsKey, links: Links) -> bool {
        match key {
            NetnsKey::Host => self.host = Some(links),
            NetnsKey::Mounted(id) => match self.named.get_mut(&id) {
                Some(netns) => netns.links = Some(links),
                None => return false,
            },
        }
        true
    }

    /// Returns every namespace whose links are known, the host first, then by name. A namespace with
    /// two names appears twice.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (NamespaceName, &Links)> {
        let host = self.host.iter().map(|links| (NamespaceName::host(), links));
        let named = self.by_name.iter().filter_map(|(name, id)| {
            let links = self.named.get(id)?.links.as_ref()?;
            // The kernel's directory entries are always valid names.
            Some((NamespaceName::named(name).ok()?, links))
        });
        host.chain(named)
    }

    /// Returns where an interface is.
    pub(super) fn find(
        &self,
        netns: &NamespaceName,
        interface: &InterfaceName,
    ) -> Result<Found, NotFound> {
        let (key, name, links) = match netns {
            NamespaceName::Host => (NetnsKey::Host, None, self.host.as_ref()),
            NamespaceName::Named(name) => {
                let name = name.as_os_str();
                let id = *self.by_name.get(name).ok_or(NotFound::Namespace)?;
                let links = self.named.get(&id).and_then(|netns| netns.links.as_ref());
                (NetnsKey::Mounted(id), Some(name.to_owned()), links)
            }
            NamespaceName::Container(_) => return Err(NotFound::Namespace),
        };
        let has_name = |link: &&Link| link.ifname == interface.as_os_str();
        let link = links
            .and_then(|links| links.iter().find(has_name))
            .ok_or(NotFound::Interface)?;
        Ok(Found {
            key,
            name,
            ifindex: link.ifindex,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MountedNamespaceId = MountedNamespaceId::from_parts(4, 1, 1, 1);
    const B: MountedNamespaceId = MountedNamespaceId::from_parts(4, 1, 1, 2);

    fn links(names: &[&str]) -> Links {
        (1..)
            .zip(names)
            .map(|(ifindex, name)| Link::sample(ifindex, name))
            .collect()
    }

    fn shown(inventory: &Inventory) -> Vec<String> {
        inventory
            .namespaces()
            .map(|(name, _)| name.to_wire())
            .collect()
    }

    #[test]
    fn a_namespace_shows_with_its_first_dump() {
        let mut inventory = Inventory::default();
        inventory.add("x".into(), A);
        assert!(shown(&inventory).is_empty());
        assert!(inventory.set_links(NetnsKey::Mounted(A), links(&["lo"])));
        assert!(inventory.set_links(NetnsKey::Host, links(&["lo"])));
        assert_eq!(shown(&inventory), ["default", "x"]);
    }

    #[test]
    fn a_name_made_anew_is_another_namespace() {
        let mut inventory = Inventory::default();
        inventory.add("x".into(), A);
        inventory.set_links(NetnsKey::Mounted(A), links(&["lo", "old"]));
        assert!(inventory.remove(OsStr::new("x"), A));
        inventory.add("x".into(), B);
        assert!(!inventory.set_links(NetnsKey::Mounted(A), links(&["late"])));
        assert!(
            shown(&inventory).is_empty(),
            "nothing of the old one shows under the new one"
        );
    }

    #[test]
    fn two_names_share_a_namespace() {
        let mut inventory = Inventory::default();
        inventory.add("x".into(), A);
        inventory.add("y".into(), A);
        inventory.set_links(NetnsKey::Mounted(A), links(&["lo"]));
        assert_eq!(shown(&inventory), ["x", "y"]);
        assert!(!inventory.remove(OsStr::new("x"), A));
        assert_eq!(shown(&inventory), ["y"]);
    }

    #[test]
    fn interfaces_are_found_by_the_clients_names() {
        let mut inventory = Inventory::default();
        inventory.add("x".into(), A);
        inventory.set_links(NetnsKey::Mounted(A), links(&["lo", "v0"]));
        let find = |netns: &str, interface: &str| {
            let netns = NamespaceName::from_wire(netns).unwrap();
            inventory.find(&netns, &InterfaceName::from_wire(interface).unwrap())
        };
        let found = Found {
            key: NetnsKey::Mounted(A),
            name: Some("x".into()),
            ifindex: 2,
        };
        assert_eq!(find("x", "v0"), Ok(found));
        assert_eq!(find("x", "v1"), Err(NotFound::Interface));
        assert_eq!(find("y", "v0"), Err(NotFound::Namespace));
        assert_eq!(find("container:x", "v0"), Err(NotFound::Namespace));
    }
}
