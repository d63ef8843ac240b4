//! Decisions about namespaces and references that appear and disappear. Pure.

use super::{Effect, State};
use crate::backend::inventory::Change;
use crate::execution;
use crate::interfaces::NetnsKey;
use crate::namespace_watcher::NamespaceEvent;
use crate::netns_holders::{HeldEvent, HolderSource};

impl State {
    pub(super) fn namespace(&mut self, event: NamespaceEvent, effects: &mut Vec<Effect>) {
        let change = match event {
            NamespaceEvent::Added { name, id } => {
                let fails = self.identity.fails_with.as_ref() == Some(&name);
                let change = self.inventory.add_name(name, id);
                assert!(!fails, "told to fail");
                change
            }
            NamespaceEvent::Removed { name, id } => self.inventory.remove_name(&name, id),
            // The list shows namespaces, not directories.
            NamespaceEvent::DirectoryAppeared | NamespaceEvent::DirectoryVanished => return,
        };
        self.follow(change, effects);
    }

    pub(super) fn held(
        &mut self,
        source: HolderSource,
        event: HeldEvent,
        effects: &mut Vec<Effect>,
    ) {
        let change = match event {
            HeldEvent::Added(holder) => self.inventory.add_holder(holder),
            HeldEvent::Removed(id) => self.inventory.remove_holder(source, id),
        };
        self.follow(change, effects);
    }

    /// Handles a namespace whose links cannot be read. If its links were known, it was deleted, and the removal of its references
    /// was not reported yet.
    pub(super) fn unreadable(&mut self, key: NetnsKey, effects: &mut Vec<Effect>) {
        self.awaited.remove(&key);
        if self.inventory.forget_links(key) {
            self.tc.links_changed(self.inventory.display_name(key));
            self.namespace_lost(key, effects);
            self.follow_claims(key, &[], effects);
            self.changed = true;
        }
    }

    /// Passes a change of the inventory on to the other parts of the state, and returns its effects.
    pub(super) fn follow(&mut self, change: Change, effects: &mut Vec<Effect>) {
        if change == Change::default() {
            return;
        }
        // Another name of a known namespace is published at once, without a dump.
        self.changed = true;
        self.tc.links_changed(change.touched);
        for (netns, name) in change.renamed {
            let renamed = execution::Command::Renamed { netns, name };
            effects.push(Effect::Execution(renamed));
        }
        let mut departed = self.inventory.take_departed();
        for key in change.gone {
            self.awaited.remove(&key);
            self.follow_claims(key, &[], effects);
            self.depart(key, departed.remove(&key), effects);
        }
        let untracked = change.untracked.into_iter();
        effects.extend(untracked.map(|(key, netns_ref)| Effect::Untrack(key, netns_ref)));
        for (key, netns_ref) in change.tracked {
            if self.departing.remove(&key).is_some() {
                // It has come back before the daemon let go of it. Its links are still to be seen, and get new generations.
                self.namespace_lost(key, effects);
            }
            self.match_leases(key, effects);
            effects.push(Effect::Track(key, netns_ref));
        }
    }
}
