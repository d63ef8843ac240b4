//! Namespaces without references. Pure.
//!
//! A process may stay in a namespace whose last reference is gone. The daemon first restores the interfaces under a lease
//! there, over the socket that it still has, and then closes the socket. If a restoration fails, the leases wait until the
//! namespace is seen again.

use tcgui_shared::names::InterfaceName;

use super::work::{PendingTcChange, Work};
use super::{Effect, Moment, State};
use crate::backend::inventory::Departed;
use crate::backend::orders::{TcOrder, TcWork};
use crate::interfaces::NetnsKey;
use crate::lease::BootTime;
use crate::lease::ledger::LeaseKey;
use crate::sockets::NetnsTarget;

impl State {
    /// Handles the loss of the last reference to a namespace.
    pub(super) fn depart(
        &mut self,
        key: NetnsKey,
        departed: Option<Departed>,
        effects: &mut Vec<Effect>,
    ) {
        let leased = self.ledger.depart(key);
        let is_owed = !leased.is_empty() || self.lanes.are_busy_in(key);
        let (Some(departed), Some(moment), true) = (departed, self.last, is_owed) else {
            self.namespace_lost(key, effects);
            effects.push(Effect::Forget(key));
            return;
        };
        self.departing.insert(key, departed);
        for ifindex in leased {
            self.restore_departing((key, ifindex), moment, effects);
        }
    }

    /// Adds the restoration of an interface to its lane, if its namespace has no reference any more. Returns whether that is
    /// so.
    pub(super) fn restore_departing(
        &mut self,
        lane: LeaseKey,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(Departed {
            display_name,
            links,
        }) = self.departing.get(&lane.0)
        else {
            return false;
        };
        let link = links.iter().find(|link| link.ifindex == lane.1);
        let interface = link.and_then(|link| InterfaceName::new(&link.ifname).ok());
        let (Some(link), Some(interface)) = (link.cloned(), interface) else {
            self.ledger.put_off(lane, moment.boot);
            return true;
        };
        let target = (display_name.clone(), interface);
        let order = TcOrder {
            // There is no reference. The socket in the namespace is still open.
            place: NetnsTarget {
                key: lane.0,
                netns_refs: Vec::new(),
                named: None,
            },
            link,
            work: TcWork::Restore,
            foreign: self.identity.options.foreign_qdiscs,
            held: None,
            begun: BootTime::default(),
        };
        let restoration = PendingTcChange::new(order, target, None);
        self.enter(Work::Tc(Box::new(restoration)), moment, effects);
        true
    }

    /// Releases the namespaces in which nothing is left to restore, or in which a restoration failed twice.
    pub(super) fn release_departed(&mut self, effects: &mut Vec<Effect>) {
        let is_done =
            |key: &NetnsKey| !self.lanes.are_busy_in(*key) && !self.ledger.is_departing(*key);
        let done: Vec<_> = self.departing.keys().copied().filter(is_done).collect();
        for key in done {
            self.departing.remove(&key);
            self.namespace_lost(key, effects);
            effects.push(Effect::Forget(key));
        }
    }
}
