//! What exists now: names, the namespaces they lead to, and their links. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};

use tcgui_shared::names::{InterfaceName, NamespaceName};

use super::wire::Shown;
use crate::interfaces::{Links, NetnsKey};
use crate::kernel::link::Link;
use crate::namespace_watcher::MountedNamespaceId;

/// One namespace: the names that lead to it and, once dumped, its links.
#[derive(Debug, Default)]
struct Netns {
    names: BTreeSet<OsString>,
    links: Option<Links>,
}

/// A name, where it leads, and what of it is shown.
#[derive(Debug)]
struct Name {
    id: MountedNamespaceId,
    shown: Option<Shown>,
}

/// The present picture of the host.
#[derive(Debug)]
pub(super) struct Inventory {
    exclude_loopback: bool,
    host: Option<(Links, Shown)>,
    named: HashMap<MountedNamespaceId, Netns>,
    by_name: BTreeMap<OsString, Name>,
}

/// Where an interface is, as a client named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) key: NetnsKey,
    /// The names that lead to the namespace; the host needs none.
    pub(super) names: Vec<OsString>,
    pub(super) ifindex: u32,
}

/// Why an interface was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotFound {
    Namespace,
    Interface,
}

impl Inventory {
    pub(super) fn new(exclude_loopback: bool) -> Self {
        Self {
            exclude_loopback,
            host: None,
            named: HashMap::new(),
            by_name: BTreeMap::new(),
        }
    }

    /// Takes in a usable name. A second name of a known namespace is shown at once.
    pub(super) fn add(&mut self, name: OsString, id: MountedNamespaceId) {
        let netns = self.named.entry(id).or_default();
        netns.names.insert(name.clone());
        let links = netns.links.as_deref();
        let shown = links.and_then(|links| show(&name, links, self.exclude_loopback));
        self.by_name.insert(name, Name { id, shown });
    }

    /// Takes a name out; returns whether the namespace went with it.
    pub(super) fn remove(&mut self, name: &OsStr, id: MountedNamespaceId) -> bool {
        if self.by_name.get(name).is_some_and(|known| known.id == id) {
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
        let NetnsKey::Mounted(id) = key else {
            let shown = Shown::new(&NamespaceName::host(), &links, self.exclude_loopback);
            self.host = Some((links, shown));
            return true;
        };
        let Some(netns) = self.named.get_mut(&id) else {
            return false;
        };
        for name in &netns.names {
            if let Some(entry) = self.by_name.get_mut(name) {
                entry.shown = show(name, &links, self.exclude_loopback);
            }
        }
        netns.links = Some(links);
        true
    }

    /// Returns every namespace whose links are known, the host first, then by name. A namespace with
    /// two names appears twice.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Shown> {
        let host = self.host.iter().map(|(_, shown)| shown);
        host.chain(self.by_name.values().filter_map(|name| name.shown.as_ref()))
    }

    /// Returns every interface that is shown and has a netem at its root.
    pub(super) fn netems(&self) -> impl Iterator<Item = (NamespaceName, InterfaceName)> {
        let host = self
            .host
            .iter()
            .map(|(_, shown)| (NamespaceName::host(), shown));
        let named = self.by_name.iter().filter_map(|(name, entry)| {
            let shown = entry
                .shown
                .as_ref()
                .filter(|shown| !shown.netems().is_empty())?;
            Some((NamespaceName::named(name).ok()?, shown))
        });
        host.chain(named).flat_map(|(netns, shown)| {
            shown
                .netems()
                .iter()
                .map(move |interface| (netns.clone(), interface.clone()))
        })
    }

    /// Returns where an interface is.
    pub(super) fn find(
        &self,
        netns: &NamespaceName,
        interface: &InterfaceName,
    ) -> Result<Found, NotFound> {
        let (key, names, links) = match netns {
            NamespaceName::Host => (
                NetnsKey::Host,
                Vec::new(),
                self.host.as_ref().map(|(links, _)| links),
            ),
            NamespaceName::Named(name) => {
                let name = name.as_os_str();
                let id = self.by_name.get(name).ok_or(NotFound::Namespace)?.id;
                let netns = self.named.get(&id).ok_or(NotFound::Namespace)?;
                let names = netns.names.iter().cloned().collect();
                (NetnsKey::Mounted(id), names, netns.links.as_ref())
            }
            NamespaceName::Container(_) => return Err(NotFound::Namespace),
        };
        let has_name = |link: &&Link| link.ifname == interface.as_os_str();
        let link = links
            .and_then(|links| links.iter().find(has_name))
            .ok_or(NotFound::Interface)?;
        Ok(Found {
            key,
            names,
            ifindex: link.ifindex,
        })
    }
}

/// The kernel's directory entries are always valid names.
fn show(name: &OsStr, links: &[Link], exclude_loopback: bool) -> Option<Shown> {
    let netns = NamespaceName::named(name).ok()?;
    Some(Shown::new(&netns, links, exclude_loopback))
}

#[cfg(test)]
mod tests {
    use tcgui_shared::interface::NetworkNamespace;

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
        let name = |shown: &Shown| {
            let json = shown.json().expect("listed").json();
            serde_json::from_str::<NetworkNamespace>(json)
                .expect("a namespace")
                .name
        };
        inventory.shown().map(name).collect()
    }

    #[test]
    fn a_namespace_shows_with_its_first_dump() {
        let mut inventory = Inventory::new(false);
        inventory.add("x".into(), A);
        assert!(shown(&inventory).is_empty());
        assert!(inventory.set_links(NetnsKey::Mounted(A), links(&["lo"])));
        assert!(inventory.set_links(NetnsKey::Host, links(&["lo"])));
        assert_eq!(shown(&inventory), ["default", "x"]);
    }

    #[test]
    fn a_name_made_anew_is_another_namespace() {
        let mut inventory = Inventory::new(false);
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
        let mut inventory = Inventory::new(false);
        inventory.add("x".into(), A);
        inventory.add("y".into(), A);
        inventory.set_links(NetnsKey::Mounted(A), links(&["lo"]));
        assert_eq!(shown(&inventory), ["x", "y"]);
        assert!(!inventory.remove(OsStr::new("x"), A));
        assert_eq!(shown(&inventory), ["y"]);
    }

    #[test]
    fn interfaces_are_found_by_the_clients_names() {
        let mut inventory = Inventory::new(false);
        inventory.add("x".into(), A);
        inventory.set_links(NetnsKey::Mounted(A), links(&["lo", "v0"]));
        let find = |netns: &str, interface: &str| {
            let netns = NamespaceName::from_wire(netns).unwrap();
            inventory.find(&netns, &InterfaceName::from_wire(interface).unwrap())
        };
        let found = Found {
            key: NetnsKey::Mounted(A),
            names: vec!["x".into()],
            ifindex: 2,
        };
        assert_eq!(find("x", "v0"), Ok(found));
        assert_eq!(find("x", "v1"), Err(NotFound::Interface));
        assert_eq!(find("y", "v0"), Err(NotFound::Namespace));
        assert_eq!(find("container:x", "v0"), Err(NotFound::Namespace));
    }
}
