//! The current namespaces, the names and processes that refer to them, and their links. Pure.
//!
//! Namespaces that exist at the same time have different inode numbers. So references with the same inode number belong to
//! one namespace. It has one entry, which is removed with its last reference. Its key is the reference that was seen first.

mod container_names;
mod netns;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;

use tcgui_shared::names::{InterfaceName, NamespaceName, wire_text};

use super::wire::Shown;
use crate::bandwidth::CounterTargets;
use crate::explain::LinkFacts;
use crate::interfaces::{Links, NetnsKey, Snapshot};
use crate::kernel::link::Link;
use crate::kernel::netem::Netem;
use crate::kernel::netns::{MountedNamespaceId, NetnsRef, ProcessNetnsId};
use crate::netns_holders::{Holder, HolderKind, HolderSource};
use container_names::ContainerNames;
use netns::Netns;
use views::Views;

pub(super) use netns::ReadBack;

/// Settings that do not change while the daemon runs.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// The netns directory, to which names are relative.
    pub(super) directory: PathBuf,
    /// The inode number of the daemon's own namespace.
    pub(super) own_inode: u64,
    pub(super) exclude_loopback: bool,
}

/// The current state of the host.
#[derive(Debug)]
pub(super) struct Inventory {
    setting: Setting,
    /// By inode number. The host is always present.
    all: HashMap<u64, Netns>,
    by_name: HashMap<NamespaceName, u64>,
    /// By display name.
    by_display_name: BTreeMap<NamespaceName, u64>,
    container_names: ContainerNames,
    /// The namespace in which each process was last seen. A process is in one namespace at a time.
    processes: HashMap<(HolderSource, i32), ProcessNetnsId>,
    /// Namespaces that lost their last reference, until [`Self::take_departed`] removes them.
    departed: HashMap<NetnsKey, Departed>,
}

/// The last known state of a namespace without references.
#[derive(Debug)]
pub(super) struct Departed {
    /// Its display name.
    pub(super) display_name: NamespaceName,
    pub(super) links: Links,
}

/// Changes for the interfaces actor and for clients. Apply removals before additions, because a new namespace may have the key of
/// a removed one.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Change {
    /// Namespaces without any reference.
    pub(super) gone: Vec<NetnsKey>,
    pub(super) untracked: Vec<(NetnsKey, NetnsRef)>,
    pub(super) tracked: Vec<(NetnsKey, NetnsRef)>,
    /// Display names that may show another namespace or other data now.
    pub(super) touched: Vec<NamespaceName>,
    /// Namespaces with a new display name.
    pub(super) renamed: Vec<(NetnsKey, NamespaceName)>,
}

/// An interface that was found by the names in a client's request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) key: NetnsKey,
    /// References to the namespace. Empty for the host.
    pub(super) netns_refs: Vec<NetnsRef>,
    /// The reference that has the name in the client's request. `None` for the host, or without a client request.
    pub(super) named: Option<NetnsRef>,
    /// The display name of the namespace.
    pub(super) name: NamespaceName,
    pub(super) link: Link,
}

/// A namespace of the list.
#[derive(Debug)]
pub(super) struct Listed<'a> {
    pub(super) key: NetnsKey,
    /// Its names, the best first.
    pub(super) names: &'a [NamespaceName],
    /// The links that are shown, with their names.
    pub(super) links: Vec<(InterfaceName, &'a Link)>,
}

/// The known facts about a name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The namespace with this name. `None` if it is unknown.
    pub(super) key: Option<NetnsKey>,
    /// Its other names, as wire texts.
    pub(super) aliases: Vec<String>,
    pub(super) links: LinkFacts,
}

/// The effect of a dump or a change on the published data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChangeResult {
    /// The namespace does not exist (any more).
    Unknown,
    /// The interface list and the counter targets are unchanged.
    Same,
    /// The interface list or the counter targets have changed.
    New,
}

/// Why an interface was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotFound {
    Namespace,
    Interface,
}

impl Inventory {
    pub(super) fn new(setting: Setting) -> Self {
        let own = setting.own_inode;
        let mut host = Netns::new(NetnsKey::Host);
        host.names.push(NamespaceName::host());
        Self {
            setting,
            all: HashMap::from([(own, host)]),
            by_name: HashMap::from([(NamespaceName::host(), own)]),
            by_display_name: BTreeMap::from([(NamespaceName::host(), own)]),
            container_names: ContainerNames::default(),
            processes: HashMap::new(),
            departed: HashMap::new(),
        }
    }

    /// Adds a valid name.
    pub(super) fn add_name(&mut self, name: OsString, id: MountedNamespaceId) -> Change {
        let mut change = Change::default();
        if let Some(before) = self.named(&name).filter(|before| *before != id) {
            // A name refers to one namespace at a time.
            self.edit(before.inode(), &mut change, |views| {
                views.remove_name(&name, before)
            });
        }
        for (name, dead) in self.dead_beside(id) {
            // The old namespace was deleted, but its removal was not reported yet. Its state does not apply to the new namespace.
            self.edit(dead.inode(), &mut change, |views| {
                views.remove_name(&name, dead)
            });
        }
        let key = NetnsKey::Mounted(id);
        self.all
            .entry(id.inode())
            .or_insert_with(|| Netns::new(key));
        self.edit(id.inode(), &mut change, |views| views.add_name(name, id));
        change
    }

    /// Removes a name.
    pub(super) fn remove_name(&mut self, name: &OsStr, id: MountedNamespaceId) -> Change {
        let mut change = Change::default();
        self.edit(id.inode(), &mut change, |views| views.remove_name(name, id));
        change
    }

    /// Adds a process that holds a namespace, or changes its name. Processes in the daemon's own namespace are ignored: to
    /// impair a container there would impair the host.
    pub(super) fn add_holder(&mut self, holder: Holder) -> Change {
        let Holder { id, kind } = holder;
        let mut change = Change::default();
        let process = (kind.source(), id.pid());
        if let Some(before) = self.processes.get(&process).filter(|before| **before != id) {
            // The process has left that namespace, or it is a new process with the same pid.
            self.drop_holder(process.0, *before, &mut change);
        }
        if id.inode() == self.setting.own_inode {
            return change;
        }
        self.processes.insert(process, id);
        let key = NetnsKey::Held(id);
        let netns = self
            .all
            .entry(id.inode())
            .or_insert_with(|| Netns::new(key));
        let before = netns.views.netns_refs(&self.setting.directory);
        let replaced = netns.views.remove_holder(process.0, id);
        netns.views.add_holder(id, kind.clone());
        let mut namesakes = self.give_up_name(replaced, id);
        if let HolderKind::Container(container) = &kind {
            namesakes.extend(self.container_names.add(container, id));
        }
        self.settle(id.inode(), before, &mut change);
        self.rename(namesakes, &mut change);
        change
    }

    /// Removes the report of a source about a process.
    pub(super) fn remove_holder(&mut self, source: HolderSource, id: ProcessNetnsId) -> Change {
        let mut change = Change::default();
        self.drop_holder(source, id, &mut change);
        change
    }

    fn drop_holder(&mut self, source: HolderSource, id: ProcessNetnsId, change: &mut Change) {
        let process = (source, id.pid());
        if self.processes.get(&process) == Some(&id) {
            self.processes.remove(&process);
        }
        let Some(netns) = self.all.get_mut(&id.inode()) else {
            return;
        };
        let before = netns.views.netns_refs(&self.setting.directory);
        let dropped = netns.views.remove_holder(source, id);
        let namesakes = self.give_up_name(dropped, id);
        self.settle(id.inode(), before, change);
        self.rename(namesakes, change);
    }

    /// Releases the name of a container. Returns the inode numbers of the namespaces whose container names may change.
    fn give_up_name(&mut self, kind: Option<HolderKind>, id: ProcessNetnsId) -> Vec<u64> {
        match kind {
            Some(HolderKind::Container(container)) => self.container_names.remove(&container, id),
            Some(HolderKind::Process(_)) | None => Vec::new(),
        }
    }

    /// Returns the names of a deleted namespace that had the same inode number.
    fn dead_beside(&self, id: MountedNamespaceId) -> Vec<(OsString, MountedNamespaceId)> {
        let netns = self.all.get(&id.inode());
        netns.map_or_else(Vec::new, |netns| netns.views.dead_beside(id))
    }

    fn named(&self, name: &OsStr) -> Option<MountedNamespaceId> {
        let inode = self.by_name.get(&NamespaceName::named(name).ok()?)?;
        self.all.get(inode)?.views.named(name)
    }

    fn edit<T>(&mut self, inode: u64, change: &mut Change, edit: impl FnOnce(&mut Views) -> T) {
        let Some(netns) = self.all.get_mut(&inode) else {
            return;
        };
        let before = netns.views.netns_refs(&self.setting.directory);
        edit(&mut netns.views);
        self.settle(inode, before, change);
    }

    /// Records which references to a namespace were added and removed. Removes the namespace if it has no reference left.
    fn settle(&mut self, inode: u64, before: Vec<NetnsRef>, change: &mut Change) {
        let Some(netns) = self.all.get(&inode) else {
            return;
        };
        let key = netns.key;
        let display_name = netns.names.first().cloned();
        let mut is_gone = false;
        if key != NetnsKey::Host {
            let after = netns.views.netns_refs(&self.setting.directory);
            // Use sets: a malicious engine may report a thousand containers in one namespace.
            let old: HashSet<_> = before.iter().collect();
            let new: HashSet<_> = after.iter().collect();
            let gone = before.iter().filter(|netns_ref| !new.contains(netns_ref));
            change
                .untracked
                .extend(gone.map(|netns_ref| (key, netns_ref.clone())));
            let come = after.iter().filter(|netns_ref| !old.contains(netns_ref));
            change
                .tracked
                .extend(come.map(|netns_ref| (key, netns_ref.clone())));
            is_gone = after.is_empty();
            change.gone.extend(is_gone.then_some(key));
        }
        self.rename([inode], change);
        if is_gone
            && let Some(netns) = self.all.remove(&inode)
            && let (Some(display_name), Some(links)) = (display_name, netns.last_links())
        {
            self.departed.insert(
                key,
                Departed {
                    display_name,
                    links,
                },
            );
        }
    }

    /// Updates the names and the published data of namespaces.
    fn rename(&mut self, inodes: impl IntoIterator<Item = u64>, change: &mut Change) {
        for inode in inodes {
            let Some(netns) = self.all.get_mut(&inode) else {
                continue;
            };
            let before = netns.update_names(&self.container_names);
            // Another namespace may have taken over a name.
            for name in &before {
                if self.by_name.get(name) == Some(&inode) {
                    self.by_name.remove(name);
                }
                if self.by_display_name.get(name) == Some(&inode) {
                    self.by_display_name.remove(name);
                }
            }
            let names = netns.names.iter().cloned();
            self.by_name.extend(names.map(|name| (name, inode)));
            let (old, new) = (before.first(), netns.names.first());
            self.by_display_name
                .extend(new.map(|display_name| (display_name.clone(), inode)));
            if before != netns.names {
                change.touched.extend(old.cloned());
            }
            if old != new {
                change.touched.extend(new.cloned());
                let renamed = old.and(new).map(|new| (netns.key, new.clone()));
                change.renamed.extend(renamed);
            }
            let is_called_as_before = old == new;
            if netns.show(&self.setting) && is_called_as_before {
                // The list shows more of a container than its name.
                change.touched.extend(before.into_iter().next());
            }
        }
    }

    /// Stores the links of a dump. A dump of an unknown namespace is dropped.
    pub(super) fn set_links(&mut self, key: NetnsKey, snapshot: Snapshot) -> ChangeResult {
        self.change_links(key, |netns| netns.set(snapshot))
    }

    /// Removes the links of a namespace. Returns whether there were any.
    pub(super) fn forget_links(&mut self, key: NetnsKey) -> bool {
        let mut known = false;
        self.change_links(key, |netns| known = netns.forget_links());
        known
    }

    /// Stores the netem of a link that was read back after a change.
    pub(super) fn set_netem(
        &mut self,
        key: NetnsKey,
        ifindex: u32,
        read_back: ReadBack,
    ) -> ChangeResult {
        self.change_links(key, |netns| {
            netns.read_back.insert(ifindex, read_back);
            if let Some(snapshot) = netns.snapshot.clone() {
                netns.set(snapshot);
            }
        })
    }

    fn change_links(&mut self, key: NetnsKey, change: impl FnOnce(&mut Netns)) -> ChangeResult {
        let inode = self.inode(key);
        let netns = self.all.get_mut(&inode);
        let Some(netns) = netns.filter(|netns| netns.key == key) else {
            return ChangeResult::Unknown;
        };
        change(netns);
        if netns.show(&self.setting) {
            ChangeResult::New
        } else {
            ChangeResult::Same
        }
    }

    /// Removes and returns the namespaces that lost their last reference since the last call.
    pub(super) fn take_departed(&mut self) -> HashMap<NetnsKey, Departed> {
        std::mem::take(&mut self.departed)
    }

    /// Returns the links of a namespace. Empty if they are not known.
    pub(super) fn links(&self, key: NetnsKey) -> Links {
        let snapshot = self.get(key).and_then(|netns| netns.snapshot.as_ref());
        snapshot.map_or_else(|| Links::from([]), |snapshot| Arc::clone(&snapshot.links))
    }

    /// Returns the interface of a namespace that has this alternative name, given as wire text.
    pub(super) fn interface_of_altname(
        &self,
        netns: &NamespaceName,
        altname: &str,
    ) -> Option<InterfaceName> {
        let netns = self.all.get(self.by_name.get(netns)?)?;
        let links = &netns.snapshot.as_ref()?.links;
        let mut links = links.iter();
        let is_its = |link: &&Link| link.altnames.iter().any(|name| wire_text(name) == altname);
        InterfaceName::new(&links.find(is_its)?.ifname).ok()
    }

    /// Returns the display name of a namespace.
    pub(super) fn display_name(&self, key: NetnsKey) -> Option<NamespaceName> {
        self.get(key)?.names.first().cloned()
    }

    /// Returns all names of a namespace, the best first.
    pub(super) fn names(&self, key: NetnsKey) -> &[NamespaceName] {
        self.get(key).map_or(&[], |netns| &netns.names)
    }

    /// Returns the references to a namespace. Empty for the host.
    pub(super) fn netns_refs(&self, key: NetnsKey) -> Vec<NetnsRef> {
        let netns = self.get(key);
        netns.map_or_else(Vec::new, |netns| netns.netns_refs(&self.setting))
    }

    /// Returns a link by its index, with its display names. `None` if the link does not exist or has no valid name.
    pub(super) fn locate(
        &self,
        key: NetnsKey,
        ifindex: u32,
    ) -> Option<((NamespaceName, InterfaceName), Found)> {
        let netns = self.get(key)?;
        let links = &netns.snapshot.as_ref()?.links;
        let link = links.iter().find(|link| link.ifindex == ifindex)?.clone();
        let interface = InterfaceName::new(&link.ifname).ok()?;
        let found = netns.found(link, &self.setting)?;
        Some(((found.name.clone(), interface), found))
    }

    /// Returns the key of the current namespace with the same inode number.
    pub(super) fn key_beside(&self, key: NetnsKey) -> Option<NetnsKey> {
        self.all.get(&self.inode(key)).map(|netns| netns.key)
    }

    /// Returns whether a namespace has any reference.
    pub(super) fn has(&self, key: NetnsKey) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: NetnsKey) -> Option<&Netns> {
        let netns = self.all.get(&self.inode(key));
        netns.filter(|netns| netns.key == key)
    }

    fn inode(&self, key: NetnsKey) -> u64 {
        match key {
            NetnsKey::Host => self.setting.own_inode,
            NetnsKey::Mounted(id) => id.inode(),
            NetnsKey::Held(id) => id.inode(),
        }
    }

    /// Returns every namespace that is listed, with its names and the links that are shown, in the order of the list.
    pub(super) fn listed(&self) -> impl Iterator<Item = Listed<'_>> {
        self.in_order().filter_map(|netns| {
            let links = netns.snapshot.as_ref()?.links.iter();
            let shown = netns
                .shown
                .as_ref()
                .filter(|shown| shown.json().is_some())?;
            let name = |link: &Link| {
                let mut shown = shown.links().iter();
                Some(shown.find(|it| it.ifindex == link.ifindex)?.name.clone())
            };
            Some(Listed {
                key: netns.key,
                names: &netns.names,
                links: links.filter_map(|link| Some((name(link)?, link))).collect(),
            })
        })
    }

    /// Returns the counter targets: every listed namespace, once.
    pub(super) fn counter_targets(&self) -> CounterTargets {
        let all = self
            .in_order()
            .filter_map(|netns| netns.counter_targets.clone());
        CounterTargets {
            namespaces: all.filter(|target| !target.links.is_empty()).collect(),
        }
    }

    /// Returns every namespace with known links: the host first, then by name.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Shown> {
        self.in_order().filter_map(|netns| netns.shown.as_ref())
    }

    fn in_order(&self) -> impl Iterator<Item = &Netns> {
        let inodes = self.by_display_name.values();
        inodes.filter_map(|inode| self.all.get(inode))
    }

    /// Returns the namespace with this display name. Other names are not searched.
    fn displayed(&self, display_name: &NamespaceName) -> Option<&Netns> {
        self.all.get(self.by_display_name.get(display_name)?)
    }

    /// Returns the interfaces with a netem at the root, for the namespace with this display name. The parameters are `None` if
    /// they could not be read.
    pub(super) fn netems(&self, display_name: &NamespaceName) -> &[(InterfaceName, Option<Netem>)] {
        let shown = self
            .displayed(display_name)
            .and_then(|netns| netns.shown.as_ref());
        shown.map_or(&[], Shown::netems)
    }

    /// Returns the known facts about a name: its namespace, the other names of that, and its links.
    pub(super) fn known(&self, name: &NamespaceName) -> Known {
        let inode = self.by_name.get(name);
        let Some(netns) = inode.and_then(|inode| self.all.get(inode)) else {
            return Known::default();
        };
        let links = match (&netns.snapshot, &netns.shown) {
            (Some(snapshot), Some(shown)) => LinkFacts::Seen {
                shown: shown
                    .links()
                    .iter()
                    .map(|link| link.name.to_wire())
                    .collect(),
                count: snapshot.links.len(),
                began: snapshot.began,
            },
            _ => LinkFacts::NotSeen,
        };
        let others = netns.names.iter().filter(|other| *other != name);
        Known {
            key: Some(netns.key),
            aliases: others.map(NamespaceName::to_wire).collect(),
            links,
        }
    }

    /// Returns whether the namespace with this display name has such an interface.
    pub(super) fn shows(&self, display_name: &NamespaceName, interface: &InterfaceName) -> bool {
        let netns = self.displayed(display_name);
        netns.is_some_and(|netns| netns.link(interface).is_some())
    }

    /// Finds an interface by any name of its namespace.
    pub(super) fn find(
        &self,
        netns: &NamespaceName,
        interface: &InterfaceName,
    ) -> Result<Found, NotFound> {
        let name = netns;
        let inode = self.by_name.get(name).ok_or(NotFound::Namespace)?;
        let netns = self.all.get(inode).ok_or(NotFound::Namespace)?;
        let link = netns.link(interface).ok_or(NotFound::Interface)?;
        let found = netns.found(link.clone(), &self.setting);
        let found = found.ok_or(NotFound::Namespace)?;
        let views = &netns.views;
        let named = views.reference_named(name, &self.container_names, &self.setting.directory);
        Ok(Found { named, ..found })
    }
}
