//! One namespace: its references, its links, and its published data. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tcgui_shared::names::{InterfaceName, NamespaceName};

use super::container_names::ContainerNames;
use super::views::Views;
use super::{Found, Setting};
use crate::backend::wire::{NetnsNames, Shown};
use crate::bandwidth::NetnsCounterTarget;
use crate::interfaces::{Links, NetnsKey, Snapshot};
use crate::kernel::link::Link;
use crate::kernel::netem::Netem;
use crate::kernel::netns::NetnsRef;
use crate::netns_holders::Container;

/// One namespace.
#[derive(Debug)]
pub(super) struct Netns {
    pub(super) key: NetnsKey,
    pub(super) views: Views,
    /// Its names, the best first.
    pub(super) names: Vec<NamespaceName>,
    /// The container of the display name.
    container: Option<Arc<Container>>,
    /// Its links, once dumped.
    pub(super) snapshot: Option<Snapshot>,
    /// Its links before they were removed. They may still need a restoration.
    forgotten: Option<Links>,
    /// Netems that were read back after the start of the dump in `snapshot`, by ifindex.
    pub(super) read_back: HashMap<u32, ReadBack>,
    /// Its entry in the interface list.
    pub(super) shown: Option<Shown>,
    /// Its entry in the counter targets.
    pub(super) counter_targets: Option<Arc<NetnsCounterTarget>>,
}

/// The root netem of a link after a change, and the time of the read.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) struct ReadBack {
    pub(in crate::backend) netem: Option<Netem>,
    pub(in crate::backend) at: Instant,
}

impl Netns {
    pub(super) fn new(key: NetnsKey) -> Self {
        Self {
            key,
            views: Views::default(),
            names: Vec::new(),
            container: None,
            snapshot: None,
            forgotten: None,
            read_back: HashMap::new(),
            shown: None,
            counter_targets: None,
        }
    }

    /// Updates its names, and returns the earlier ones.
    pub(super) fn update_names(&mut self, container_names: &ContainerNames) -> Vec<NamespaceName> {
        let (mut names, mut containers) = (Vec::new(), Vec::new());
        if self.key == NetnsKey::Host {
            names.push(NamespaceName::host());
            containers.push(None);
        }
        for (name, container) in self.views.names(container_names) {
            names.push(name);
            containers.push(container);
        }
        self.container = containers.into_iter().next().flatten();
        std::mem::replace(&mut self.names, names)
    }

    pub(super) fn netns_refs(&self, setting: &Setting) -> Vec<NetnsRef> {
        match self.key {
            NetnsKey::Host => Vec::new(),
            NetnsKey::Mounted(_) | NetnsKey::Held(_) => self.views.netns_refs(&setting.directory),
        }
    }

    pub(super) fn link(&self, interface: &InterfaceName) -> Option<&Link> {
        let links = &self.snapshot.as_ref()?.links;
        links
            .iter()
            .find(|link| link.ifname == interface.as_os_str())
    }

    pub(super) fn found(&self, link: Link, setting: &Setting) -> Option<Found> {
        Some(Found {
            key: self.key,
            netns_refs: self.netns_refs(setting),
            named: None,
            name: self.names.first()?.clone(),
            link,
        })
    }

    /// Updates its published data. Returns whether the interface list or the counter targets change.
    pub(super) fn show(&mut self, setting: &Setting) -> bool {
        let (shown, counter_targets) = (self.shown.take(), self.counter_targets.take());
        self.make_shown(setting);
        let json = |shown: &Option<Shown>| shown.as_ref().map(|shown| shown.json().cloned());
        json(&shown) != json(&self.shown) || counter_targets != self.counter_targets
    }

    fn make_shown(&mut self, setting: &Setting) {
        let (Some(snapshot), Some((name, aliases))) = (&self.snapshot, self.names.split_first())
        else {
            return;
        };
        let names = NetnsNames {
            name,
            aliases,
            container: self.container.as_deref(),
        };
        let shown = Shown::new(names, &snapshot.links, setting.exclude_loopback);
        self.counter_targets = Some(Arc::new(NetnsCounterTarget {
            key: self.key,
            nsid: snapshot.nsid,
            name: name.clone(),
            netns_refs: self.netns_refs(setting),
            links: Arc::clone(shown.links()),
        }));
        self.shown = Some(shown);
    }

    /// Stores the links of a dump. Netems that were read back after the dump began replace those of the dump. This is also done
    /// if another link has the ifindex by now, because the netem may be on either link. A dump follows each change and corrects
    /// that.
    ///
    /// Snapshots arrive as notifications and as replies, so an older one may arrive after a newer one. It is ignored.
    pub(super) fn set(&mut self, mut snapshot: Snapshot) {
        let stored = self.snapshot.as_ref();
        if stored.is_some_and(|stored| stored.began > snapshot.began) {
            return;
        }
        self.read_back
            .retain(|_, read_back| read_back.at > snapshot.began);
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
        self.forgotten = None;
    }

    /// Removes its links. Returns whether there were any.
    pub(super) fn forget_links(&mut self) -> bool {
        let Some(snapshot) = self.snapshot.take() else {
            return false;
        };
        self.forgotten = Some(snapshot.links);
        true
    }

    /// Returns the links of the last dump, even if they were removed since.
    pub(super) fn last_links(self) -> Option<Links> {
        let seen = self.snapshot.map(|snapshot| snapshot.links);
        seen.or(self.forgotten)
    }
}

impl ReadBack {
    fn on_a_link(self) -> (Option<Netem>, bool) {
        (self.netem, self.netem.is_some())
    }
}
