//! One lane for each interface. Work of every kind runs in the order of arrival. Pure.
//!
//! Work on different interfaces runs at the same time. A burst of requests does not make the lane long: while
//! work is under way, a new Apply replaces the Applies that wait right before it, and a new Remove also replaces
//! a Remove. Every requester gets the result that is then in force. Nothing else is replaced, and the order never changes.

use std::collections::{HashMap, VecDeque};

use super::work::{Kind, Work};
use crate::kernel::netns::NetnsKey;
use crate::lease::ledger::LeaseKey;

/// Number of waiting items of one interface at which client requests and starts of scenarios are refused. Restorations,
/// releases and steps of a scenario are never refused. There is at most one of each for a scenario.
const LONGEST: usize = 32;

/// Returns whether `work` replaces `waiting`, the item right before it.
fn replaces(work: &Work, waiting: &Work) -> bool {
    let (Work::Tc(new), Work::Tc(old)) = (work, waiting) else {
        return false;
    };
    let is_newer_wish = matches!(
        (new.kind(), old.kind()),
        (Kind::Apply, Kind::Apply) | (Kind::Remove, Kind::Apply | Kind::Remove)
    );
    // A change with an end restores the change before it. So it does not replace a change without an end.
    let keeps_what_stays = new.stays() || !old.stays();
    // The client of a token renews its own change, so it must be carried out.
    let is_of_one_holder = old.token().is_none() || new.token() == old.token();
    is_newer_wish && keeps_what_stays && is_of_one_holder && new.names_the_same(old)
}

/// The work on one interface. A lane exists only while work is under way.
#[derive(Debug)]
struct Lane {
    under_way: Kind,
    /// The lease id of the scenario whose step is under way.
    stepping: Option<String>,
    waiting: VecDeque<Work>,
}

impl Lane {
    fn kinds(&self) -> impl Iterator<Item = Kind> {
        std::iter::once(self.under_way).chain(self.waiting.iter().map(Work::kind))
    }
}

/// The lanes of all interfaces.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<LeaseKey, Lane>);

impl Lanes {
    /// Adds work, and returns it if it begins now.
    pub(super) fn enter(&mut self, mut work: Work) -> Option<Work> {
        let Some(lane) = self.0.get_mut(&work.lane()) else {
            let lane = Lane {
                under_way: work.kind(),
                stepping: work.step_of().map(str::to_owned),
                waiting: VecDeque::new(),
            };
            self.0.insert(work.lane(), lane);
            return Some(work);
        };
        while let Some(replaced) = lane.waiting.pop_back_if(|waiting| replaces(&work, waiting)) {
            if let (Work::Tc(new), Work::Tc(old)) = (&mut work, replaced) {
                new.take_requesters_of(*old);
            }
        }
        lane.waiting.push_back(work);
        None
    }

    /// Ends the work under way, and returns the work to begin next.
    pub(super) fn leave(&mut self, key: LeaseKey) -> Option<Work> {
        let lane = self.0.get_mut(&key)?;
        match lane.waiting.pop_front() {
            Some(next) => {
                lane.under_way = next.kind();
                lane.stepping = next.step_of().map(str::to_owned);
                Some(next)
            }
            None => {
                self.0.remove(&key);
                None
            }
        }
    }

    /// Returns whether the lane has reached [`LONGEST`], so that requests are refused.
    pub(super) fn is_full(&self, key: LeaseKey) -> bool {
        self.0
            .get(&key)
            .is_some_and(|lane| lane.waiting.len() >= LONGEST)
    }

    /// Returns whether work on this interface is under way.
    pub(super) fn is_busy(&self, key: LeaseKey) -> bool {
        self.0.contains_key(&key)
    }

    /// Returns whether work is under way on any interface of a namespace.
    pub(super) fn are_busy_in(&self, netns: NetnsKey) -> bool {
        self.0.keys().any(|(key, _)| *key == netns)
    }

    /// Returns whether work of a kind that `is` accepts is under way or waits.
    pub(super) fn has(&self, key: LeaseKey, is: impl Fn(Kind) -> bool) -> bool {
        self.0.get(&key).is_some_and(|lane| lane.kinds().any(is))
    }

    /// Returns whether a step of this scenario is under way or waits.
    pub(super) fn has_step_of(&self, key: LeaseKey, id: &str) -> bool {
        self.0.get(&key).is_some_and(|lane| {
            let waiting = lane.waiting.iter().map(Work::step_of);
            let mut steps = waiting.chain([lane.stepping.as_deref()]);
            steps.any(|step| step == Some(id))
        })
    }

    /// Returns the number of waiting items.
    #[cfg(test)]
    pub(super) fn waiting(&self, key: LeaseKey) -> usize {
        self.0.get(&key).map_or(0, |lane| lane.waiting.len())
    }

    /// Returns whether a restoration or release is under way or waits on any interface.
    pub(super) fn have_restorations(&self) -> bool {
        let mut kinds = self.0.values().flat_map(Lane::kinds);
        kinds.any(|kind| matches!(kind, Kind::Restore | Kind::Release))
    }

    /// Returns whether a link is being changed anywhere.
    pub(super) fn is_changing_links(&self) -> bool {
        let mut lanes = self.0.values();
        lanes.any(|lane| lane.under_way == Kind::LinkChange)
    }

    /// Drops the waiting work of clients and executions. The daemon's own work stays.
    pub(super) fn clear_waiting(&mut self) {
        let is_own = |work: &Work| matches!(work.kind(), Kind::Release | Kind::Restore);
        for lane in self.0.values_mut() {
            lane.waiting.retain(is_own);
        }
    }
}
