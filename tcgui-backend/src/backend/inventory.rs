//! What exists now: names, the namespaces they lead to, and their links. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Instant;

use tcgui_shared::names::{InterfaceName, NamespaceName};

use super::wire::Shown;
use crate::bandwidth::{Roster, RosterEntry};
use crate::explain::LinkFacts;
use crate::interfaces::{NetnsKey, Snapshot};
use crate::kernel::link::Link;
use crate::kernel::netem::Netem;
use crate::namespace_watcher::MountedNamespaceId;

/// One namespace: the names that lead to it and, once dumped, its links.
#[derive(Debug, Default)]
struct Netns {
    names: BTreeSet<OsString>,
    snapshot: Option<Snapshot>,
    /// Netems that were read back after the look began that saw the links.
    read_back: HashMap<u32, ReadBack>,
    /// What of it is published at a steady pace.
    roster: Option<Arc<RosterEntry>>,
}

/// The root netem of a link after a change, and when it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadBack {
    pub(super) netem: Option<Netem>,
    pub(super) at: Instant,
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
    host: (Netns, Option<Shown>),
    named: HashMap<MountedNamespaceId, Netns>,
    by_name: BTreeMap<OsString, Name>,
}

/// Where an interface is, as a client named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) key: NetnsKey,
    /// The names that lead to the namespace; the host needs none.
    pub(super) names: Vec<OsString>,
    pub(super) link: Link,
}

/// What there is to say of a name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Which namespace it is; `None`: it is not known.
    pub(super) key: Option<NetnsKey>,
    /// Its other names, as wire texts.
    pub(super) aliases: Vec<String>,
    pub(super) links: LinkFacts,
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
            host: (Netns::default(), None),
            named: HashMap::new(),
            by_name: BTreeMap::new(),
        }
    }

    /// Takes in a usable name. A second name of a known namespace is shown at once.
    pub(super) fn add(&mut self, name: OsString, id: MountedNamespaceId) {
        let netns = self.named.entry(id).or_default();
        netns.names.insert(name.clone());
        let shown = netns.show(&name, self.exclude_loopback);
        self.by_name.insert(name, Name { id, shown });
        self.enlist(id);
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
        } else {
            self.enlist(id);
        }
        gone
    }

    /// Takes in what a look has seen; that of an unknown namespace is dropped. Returns whether it is known.
    pub(super) fn set_links(&mut self, key: NetnsKey, snapshot: Snapshot) -> bool {
        let Some(netns) = self.netns_mut(key) else {
            return false;
        };
        netns.set(snapshot);
        self.show(key);
        true
    }

    /// Takes in the netem of a link that was read back after a change.
    pub(super) fn set_netem(&mut self, key: NetnsKey, ifindex: u32, read_back: ReadBack) {
        let Some(netns) = self.netns_mut(key) else {
            return;
        };
        netns.read_back.insert(ifindex, read_back);
        if let Some(snapshot) = netns.snapshot.clone() {
            netns.set(snapshot);
        }
        self.show(key);
    }

    /// Returns the names of a namespace in the words of the wire.
    pub(super) fn names(&self, key: NetnsKey) -> Vec<NamespaceName> {
        match key {
            NetnsKey::Host => vec![NamespaceName::host()],
            NetnsKey::Mounted(id) => {
                let names = self.named.get(&id).into_iter().flat_map(|it| &it.names);
                names
                    .filter_map(|name| NamespaceName::named(name).ok())
                    .collect()
            }
        }
    }

    /// Returns a link by its index, with the names by which clients know it; `None` when it is not there
    /// or has none.
    pub(super) fn locate(
        &self,
        key: NetnsKey,
        ifindex: u32,
    ) -> Option<((NamespaceName, InterfaceName), Found)> {
        let netns = match key {
            NetnsKey::Host => &self.host.0,
            NetnsKey::Mounted(id) => self.named.get(&id)?,
        };
        let links = &netns.snapshot.as_ref()?.links;
        let link = links.iter().find(|link| link.ifindex == ifindex)?.clone();
        let interface = InterfaceName::new(&link.ifname).ok()?;
        let found = Found {
            key,
            names: netns.names.iter().cloned().collect(),
            link,
        };
        Some(((self.names(key).into_iter().next()?, interface), found))
    }

    /// Returns whether a namespace has a name.
    pub(super) fn has(&self, key: NetnsKey) -> bool {
        match key {
            NetnsKey::Host => true,
            NetnsKey::Mounted(id) => self.named.contains_key(&id),
        }
    }

    fn netns_mut(&mut self, key: NetnsKey) -> Option<&mut Netns> {
        match key {
            NetnsKey::Host => Some(&mut self.host.0),
            NetnsKey::Mounted(id) => self.named.get_mut(&id),
        }
    }

    /// Makes anew what is shown of a namespace.
    fn show(&mut self, key: NetnsKey) {
        let exclude_loopback = self.exclude_loopback;
        match key {
            NetnsKey::Host => {
                let (netns, shown) = &mut self.host;
                let links = netns.snapshot.as_ref().map(|it| &it.links);
                *shown =
                    links.map(|links| Shown::new(&NamespaceName::host(), links, exclude_loopback));
                netns.roster = shown.as_ref().map(|shown| {
                    Arc::new(RosterEntry {
                        key,
                        nsid: None,
                        names: vec![NamespaceName::host()],
                        links: Arc::clone(shown.links()),
                    })
                });
            }
            NetnsKey::Mounted(id) => {
                let Some(netns) = self.named.get(&id) else {
                    return;
                };
                for name in &netns.names {
                    if let Some(entry) = self.by_name.get_mut(name) {
                        entry.shown = netns.show(name, exclude_loopback);
                    }
                }
                self.enlist(id);
            }
        }
    }

    /// Makes anew what is in the roster of a namespace that has a name.
    fn enlist(&mut self, id: MountedNamespaceId) {
        let names = self.names(NetnsKey::Mounted(id));
        let Some(netns) = self.named.get_mut(&id) else {
            return;
        };
        let shown = netns.names.first().and_then(|name| self.by_name.get(name));
        let shown = shown.and_then(|name| name.shown.as_ref());
        netns.roster = shown.map(|shown| {
            Arc::new(RosterEntry {
                key: NetnsKey::Mounted(id),
                nsid: netns.snapshot.as_ref().and_then(|it| it.nsid),
                names,
                links: Arc::clone(shown.links()),
            })
        });
    }

    /// Returns what is published at a steady pace: every namespace that is shown, once.
    pub(super) fn roster(&self) -> Roster {
        let named = self.named.values().map(|netns| netns.roster.clone());
        let all = [self.host.0.roster.clone()].into_iter().chain(named);
        Roster {
            namespaces: all.flatten().filter(|it| !it.links.is_empty()).collect(),
        }
    }

    /// Returns every namespace whose links are known, the host first, then by name. A namespace with
    /// two names appears twice.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Shown> {
        let named = self.by_name.values().map(|name| name.shown.as_ref());
        [self.host.1.as_ref()].into_iter().chain(named).flatten()
    }

    /// Returns the interfaces of a namespace that have a netem at their root, and what it does if it
    /// could be read.
    pub(super) fn netems(&self, netns: &NamespaceName) -> &[(InterfaceName, Option<Netem>)] {
        let shown = match netns {
            NamespaceName::Host => self.host.1.as_ref(),
            NamespaceName::Named(name) => {
                let name = self.by_name.get(name.as_os_str());
                name.and_then(|name| name.shown.as_ref())
            }
            NamespaceName::Container(_) => None,
        };
        shown.map_or(&[], Shown::netems)
    }

    /// Returns what there is to say of a name: which namespace it is, its other names, its links.
    pub(super) fn known(&self, name: &NamespaceName) -> Known {
        let (key, netns, shown) = match name {
            NamespaceName::Host => (NetnsKey::Host, &self.host.0, self.host.1.as_ref()),
            NamespaceName::Named(named) => {
                let entry = self.by_name.get(named.as_os_str());
                let netns = entry.and_then(|entry| self.named.get(&entry.id));
                let (Some(entry), Some(netns)) = (entry, netns) else {
                    return Known::default();
                };
                (NetnsKey::Mounted(entry.id), netns, entry.shown.as_ref())
            }
            NamespaceName::Container(_) => return Known::default(),
        };
        let links = match (&netns.snapshot, shown) {
            (Some(snapshot), Some(shown)) => LinkFacts::Seen {
                shown: shown.links().iter().map(|it| it.name.to_wire()).collect(),
                count: snapshot.links.len(),
                began: snapshot.began,
            },
            _ => LinkFacts::NotSeen,
        };
        let others = self.names(key).into_iter().filter(|other| other != name);
        Known {
            key: Some(key),
            aliases: others.map(|other| other.to_wire()).collect(),
            links,
        }
    }

    /// Returns where an interface is.
    pub(super) fn find(
        &self,
        netns: &NamespaceName,
        interface: &InterfaceName,
    ) -> Result<Found, NotFound> {
        let (key, names, netns) = match netns {
            NamespaceName::Host => (NetnsKey::Host, Vec::new(), &self.host.0),
            NamespaceName::Named(name) => {
                let name = name.as_os_str();
                let id = self.by_name.get(name).ok_or(NotFound::Namespace)?.id;
                let netns = self.named.get(&id).ok_or(NotFound::Namespace)?;
                let names = netns.names.iter().cloned().collect();
                (NetnsKey::Mounted(id), names, netns)
            }
            NamespaceName::Container(_) => return Err(NotFound::Namespace),
        };
        let has_name = |link: &&Link| link.ifname == interface.as_os_str();
        let snapshot = netns.snapshot.as_ref().ok_or(NotFound::Interface)?;
        let link = snapshot.links.iter().find(has_name);
        let link = link.ok_or(NotFound::Interface)?;
        Ok(Found {
            key,
            names,
            link: link.clone(),
        })
    }
}

impl Netns {
    /// Takes in what a look has seen, but for netems that were read back since it began. Snapshots come on
    /// two ways, as news and as answers, so an older one may come later; it is of no use then.
    fn set(&mut self, mut snapshot: Snapshot) {
        let stored = self.snapshot.as_ref();
        if stored.is_some_and(|stored| stored.began > snapshot.began) {
            return;
        }
        self.read_back.retain(|_, it| it.at > snapshot.began);
        let is_older = |link: &Link| {
            let newer = self.read_back.get(&link.ifindex);
            newer.is_some_and(|newer| (link.netem, link.root_netem) != newer.on_a_link())
        };
        if snapshot.links.iter().any(is_older) {
            let mut links = snapshot.links.to_vec();
            for link in &mut links {
                if let Some(newer) = self.read_back.get(&link.ifindex) {
                    (link.netem, link.root_netem) = newer.on_a_link();
                }
            }
            snapshot.links = links.into();
        }
        self.snapshot = Some(snapshot);
    }

    /// The kernel's directory entries are always valid names.
    fn show(&self, name: &OsStr, exclude_loopback: bool) -> Option<Shown> {
        let netns = NamespaceName::named(name).ok()?;
        let links = &self.snapshot.as_ref()?.links;
        Some(Shown::new(&netns, links, exclude_loopback))
    }
}

impl ReadBack {
    fn on_a_link(self) -> (Option<Netem>, bool) {
        (self.netem, self.netem.is_some())
    }
}

#[cfg(test)]
mod tests {
    use tcgui_shared::interface::NetworkNamespace;

    use super::*;

    const A: MountedNamespaceId = MountedNamespaceId::from_parts(4, 1, 1, 1);
    const B: MountedNamespaceId = MountedNamespaceId::from_parts(4, 1, 1, 2);

    fn links(names: &[&str]) -> Snapshot {
        let links = (1..)
            .zip(names)
            .map(|(ifindex, name)| Link::sample(ifindex, name));
        Snapshot {
            nsid: None,
            links: links.collect(),
            began: Instant::now(),
        }
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
    fn an_older_look_that_comes_later_is_of_no_use() {
        let mut inventory = Inventory::new(false);
        let (older, newer) = (links(&["lo"]), links(&["lo", "v0"]));
        inventory.set_links(NetnsKey::Host, newer);
        inventory.set_links(NetnsKey::Host, older);
        assert_eq!(
            inventory.shown().next().map(Shown::interface_count),
            Some(2)
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
    fn a_name_is_known_with_its_links_and_other_names() {
        let mut inventory = Inventory::new(true);
        let known = |inventory: &Inventory, name: &str| {
            inventory.known(&NamespaceName::from_wire(name).unwrap())
        };
        inventory.add("x".into(), A);
        inventory.add("y".into(), A);
        let waiting = known(&inventory, "x");
        assert_eq!(waiting.links, LinkFacts::NotSeen);
        assert_eq!(waiting.key, Some(NetnsKey::Mounted(A)));
        inventory.set_links(NetnsKey::Mounted(A), links(&["lo", "v0"]));
        let Known { aliases, links, .. } = known(&inventory, "y");
        assert_eq!(aliases, ["x"]);
        let LinkFacts::Seen { shown, count, .. } = links else {
            panic!("{links:?}")
        };
        assert_eq!((&shown[..], count), (&["v0".to_owned()][..], 2));
        for stranger in ["z", "container:x"] {
            assert_eq!(known(&inventory, stranger), Known::default());
        }
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
            link: Link::sample(2, "v0"),
        };
        assert_eq!(find("x", "v0"), Ok(found));
        assert_eq!(find("x", "v1"), Err(NotFound::Interface));
        assert_eq!(find("y", "v0"), Err(NotFound::Namespace));
        assert_eq!(find("container:x", "v0"), Err(NotFound::Namespace));
    }
}
