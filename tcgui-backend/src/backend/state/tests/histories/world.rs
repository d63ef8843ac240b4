//! The kernel of the model: links that are created, deleted and renamed, and the changes by a worker.

use std::collections::{BTreeMap, HashMap};

use tcgui_shared::tc::TcOperation;

use super::super::leases::observed_netem;
use super::super::*;
use crate::backend::orders::TcOrder;
use crate::kernel::netem::Netem;
use crate::kernel::qdisc::RootChange;
use crate::lease::ledger::LeaseKey;
use crate::lease::{LeaseNetns, LinkMatch, restore};
use crate::tc::observed::Observed;
use crate::tc::perform::Outcome;
use crate::tc::plan::Plan;

pub(super) const NAMESPACES: [NetnsKey; 2] = [NetnsKey::Host, NetnsKey::Mounted(A)];

/// One life of a link.
#[derive(Debug, Clone)]
pub(super) struct WorldLink {
    pub(super) name: &'static str,
    /// The generation that the tracker gives to the link.
    pub(super) life: u64,
    pub(super) netem: Option<Netem>,
}

#[derive(Debug, Default)]
pub(super) struct World {
    links: BTreeMap<LeaseKey, WorldLink>,
    lives: u64,
    /// The link of the first step of each execution.
    stepped_on: HashMap<u64, u64>,
}

impl World {
    pub(super) fn name(number: usize) -> &'static str {
        ["x0", "y0", "z0", "w0"][number]
    }

    pub(super) fn get(&self, key: LeaseKey) -> Option<&WorldLink> {
        self.links.get(&key)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (LeaseKey, &WorldLink)> {
        self.links.iter().map(|(key, link)| (*key, link))
    }

    /// Returns the link on which an execution began. `None`: it has made no step.
    pub(super) fn life_of(&self, execution: u64) -> Option<u64> {
        self.stepped_on.get(&execution).copied()
    }

    fn has_name(&self, netns: NetnsKey, name: &str) -> bool {
        let mut links = self.links.iter().filter(|(key, _)| key.0 == netns);
        links.any(|(_, link)| link.name == name)
    }

    pub(super) fn add(&mut self, netns: NetnsKey, index: u32, name: &'static str) {
        let key = (netns, index);
        if self.links.contains_key(&key) || self.has_name(netns, name) {
            return;
        }
        self.lives += 1;
        let link = WorldLink {
            name,
            life: self.lives,
            netem: None,
        };
        self.links.insert(key, link);
    }

    pub(super) fn delete(&mut self, netns: NetnsKey, index: u32) {
        self.links.remove(&(netns, index));
    }

    pub(super) fn rename(&mut self, netns: NetnsKey, index: u32, name: &'static str) {
        let is_taken = self.has_name(netns, name);
        if let Some(link) = self.links.get_mut(&(netns, index)).filter(|_| !is_taken) {
            link.name = name;
        }
    }

    pub(super) fn remake(&mut self, netns: NetnsKey, index: u32) {
        if let Some(link) = self.links.remove(&(netns, index)) {
            self.add(netns, index, link.name);
        }
    }

    /// Moves the link. The kernel removes its qdisc (`dev_change_net_namespace`, `net/core/dev.c`).
    pub(super) fn move_to(&mut self, from: NetnsKey, to: NetnsKey, index: u32) {
        if let Some(link) = self.links.remove(&(from, index)) {
            self.add(to, index, link.name);
        }
    }

    /// Returns the result of a dump, with the generations that the tracker gives.
    pub(super) fn links(&self, netns: NetnsKey) -> Vec<Link> {
        let here = self.links.iter().filter(|(key, _)| key.0 == netns);
        let link = |(key, it): (&LeaseKey, &WorldLink)| Link {
            generation: it.life,
            netem: it.netem,
            ..link(key.1, it.name, it.netem.is_some())
        };
        here.map(link).collect()
    }

    fn observed(&self, key: LeaseKey) -> Observed {
        observed_netem(self.get(key).and_then(|link| link.netem))
    }

    /// Changes the link that has the index now, as a worker does.
    pub(super) fn carry_out(&mut self, order: &TcOrder) -> TcResult {
        let key = (order.place.key, order.link.ifindex);
        let held = order.held.clone();
        let gone = || Err((ErrorKind::NotFound, "no such interface".to_owned()));
        let (lease, outcome) = match &order.work {
            TcWork::Change { operation, terms } => {
                let is_step = terms.scenario.is_some();
                let found = self.links.get(&key).map(|link| (link.name, link.life));
                match found.filter(|(name, _)| is_step || order.link.ifname == *name) {
                    None => (held, gone()),
                    Some((_, life)) => (self.change(key, order, operation, terms), Ok(life)),
                }
            }
            TcWork::Look | TcWork::Fit { .. } => (
                held,
                self.get(key)
                    .map(|it| it.life)
                    .ok_or(())
                    .or_else(|()| gone()),
            ),
            TcWork::Confirm | TcWork::Renew { .. } => (held, gone()),
            TcWork::Release { id } => {
                let is_its = held.as_ref().is_some_and(|lease| lease.is_of(id));
                let lease = if is_its {
                    held.and_then(Lease::released)
                } else {
                    held
                };
                (lease, Ok(0))
            }
            TcWork::Restore => (self.restore(key, order), Ok(0)),
        };
        let observed = self.observed(key);
        let outcome = outcome.map(|_| Outcome {
            plan: Plan::Nothing,
            observed,
            notes: Vec::new(),
        });
        TcResult {
            lease,
            done_at: Instant::now(),
            outcome,
        }
    }

    fn change(
        &mut self,
        key: LeaseKey,
        order: &TcOrder,
        operation: &TcOperation,
        terms: &crate::lease::terms::Terms,
    ) -> Option<Lease> {
        let wanted = (*operation != TcOperation::Remove).then(|| Netem {
            limit: 1000,
            latency_ns: if terms.scenario.is_some() { 7 } else { 5 },
            ..Netem::default()
        });
        let observed = self.observed(key);
        let of = (
            LeaseNetns::from(A),
            key.1,
            order.link.ifname.to_str().unwrap().to_owned(),
        );
        let grant = terms.grant(order.begun)?;
        let mut lease = Lease::record(order.held.as_ref(), of, &observed, wanted, grant);
        let link = self.links.get_mut(&key)?;
        link.netem = wanted;
        lease.set = vec![wanted];
        let number = terms
            .scenario
            .as_ref()
            .and_then(|id| id.rsplit('#').next()?.parse().ok());
        if let Some(number) = number {
            self.stepped_on.entry(number).or_insert(link.life);
        }
        Some(lease)
    }

    fn restore(&mut self, key: LeaseKey, order: &TcOrder) -> Option<Lease> {
        let (ended, left) = order.held.as_ref()?.ending(order.begun);
        let observed = self.observed(key);
        let (restored, steps) = restore::decide(&ended, &observed, LinkMatch::Same);
        let link = self.links.get_mut(&key)?;
        for step in steps {
            link.netem = match step {
                RootChange::Delete { .. } => None,
                RootChange::Install { netem, .. } => Some(netem),
            };
        }
        left.filter(|_| !matches!(restored, restore::Restored::Left { .. }))
    }
}
