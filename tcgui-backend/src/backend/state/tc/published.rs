//! What is published about traffic control: the netems that frontends were told of, and the responses that
//! wait until what they report is published. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tcgui_shared::names::{BackendName, NamespaceName};
use tcgui_shared::tc::{TcConfigUpdate, TcResponse};

use super::super::Moment;
use super::{PendingTcChange, Requester, Target};
use crate::backend::inventory::Inventory;
use crate::bus::{Answers, Reply, TcPublication};
use crate::kernel::netem::Netem;
use crate::tc::report;

/// After a frontend appeared, all configurations are published again so much later: one that came before
/// the frontend had the interface list was lost on it.
const REPEATS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// What was published of an interface.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shown {
    /// There was a netem, and is none.
    Off,
    /// A netem; `None`: what it does could not be read.
    On(Option<Netem>),
}

/// Publications about traffic control, and the responses that follow them.
#[derive(Debug, Default)]
pub(in crate::backend::state) struct PublishedTc {
    shown: BTreeMap<Target, Shown>,
    /// Namespaces to be compared with what was published.
    touched: BTreeSet<NamespaceName>,
    /// Those of which frontends do not know all interfaces yet: the list comes first.
    unlisted: BTreeSet<NamespaceName>,
    /// Responses that wait for the publication of what they report.
    answers: Vec<(NamespaceName, Reply<TcResponse>, TcResponse)>,
    repeat_at: [Option<Instant>; REPEATS.len()],
    /// Interfaces of which a client may show something that is not in force.
    doubted: BTreeSet<Target>,
}

impl PublishedTc {
    /// Something about the interfaces of these namespaces may have changed since the last list.
    pub(in crate::backend::state) fn links_changed(
        &mut self,
        names: impl IntoIterator<Item = NamespaceName>,
    ) {
        for name in names {
            self.unlisted.insert(name.clone());
            self.touched.insert(name);
        }
    }

    /// A netem of these namespaces was read back; their interfaces are the same.
    pub(in crate::backend::state) fn netem_changed(
        &mut self,
        names: impl IntoIterator<Item = NamespaceName>,
    ) {
        self.touched.extend(names);
    }

    /// A request was refused: what is in force is to be published again.
    pub(in crate::backend::state) fn repeat(&mut self, target: Target) {
        self.doubted.insert(target);
    }

    /// All interfaces are in the list that goes out now.
    pub(in crate::backend::state) fn listed(&mut self) {
        self.unlisted.clear();
    }

    /// Answers the requesters of a change: clients once the change is published.
    pub(super) fn answer(&mut self, change: PendingTcChange, response: &TcResponse) {
        let PendingTcChange {
            target: (netns, _),
            requesters,
            ..
        } = change;
        let newest = requesters.len().saturating_sub(1);
        for (number, requester) in requesters.into_iter().enumerate() {
            match requester {
                Requester::Client(reply) => {
                    // The newest request is answered first: there may be hundreds of older ones.
                    let reply = if number < newest {
                        reply.yielding()
                    } else {
                        reply
                    };
                    self.answers.push((netns.clone(), reply, response.clone()));
                }
                Requester::Execution(reply) => reply.send(response.clone()),
            }
        }
    }

    /// Returns whether an answer waits for a list that would otherwise come later.
    pub(in crate::backend::state) fn is_urgent(&self) -> bool {
        let waits = |(netns, ..): &(NamespaceName, _, _)| self.unlisted.contains(netns);
        self.answers.iter().any(waits)
    }

    /// Returns the answers that go out with the publication that is made now.
    pub(in crate::backend::state) fn take_answers(&mut self) -> Answers {
        let answers = std::mem::take(&mut self.answers);
        answers
            .into_iter()
            .map(|(_, reply, response)| (reply, response))
            .collect()
    }

    /// A frontend has joined.
    pub(in crate::backend::state) fn frontend_joined(&mut self, now: Instant) {
        // What is due already stays so, or frontends that come and go would put it off for ever.
        for (at, after) in self.repeat_at.iter_mut().zip(REPEATS) {
            at.get_or_insert(now + after);
        }
    }

    /// Returns when something is to be published though nothing changes.
    pub(in crate::backend::state) fn publish_at(&self) -> Option<Instant> {
        if self.shown.is_empty() {
            return None;
        }
        self.repeat_at.iter().flatten().min().copied()
    }

    /// Compares the netems that are with those that were published.
    pub(in crate::backend::state) fn changes(
        &mut self,
        inventory: &Inventory,
        backend: &BackendName,
        moment: Moment,
    ) -> Vec<TcPublication> {
        let mut changes = Vec::new();
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= moment.now).is_some();
        if self
            .repeat_at
            .iter_mut()
            .filter_map(|at| due(at).then_some(()))
            .count()
            > 0
        {
            for (target, shown) in &self.shown {
                if *shown != Shown::Off {
                    changes.push(publication(target, Some(shown), backend, moment));
                }
            }
        }
        let ready: Vec<_> = self.touched.difference(&self.unlisted).cloned().collect();
        for netns in ready {
            self.touched.remove(&netns);
            self.compare(&netns, inventory, |target, shown| {
                changes.push(publication(target, shown, backend, moment));
            });
        }
        let doubted = std::mem::take(&mut self.doubted);
        for target in doubted {
            if self.unlisted.contains(&target.0) {
                // Frontends do not know the interface before the list.
                self.doubted.insert(target);
            } else if inventory.shows(&target.0, &target.1) {
                let shown = self.shown.get(&target);
                // An interface that never had a netem has no publisher, and gets none for a refusal.
                changes.push(TcPublication {
                    is_kept: shown.is_some(),
                    ..publication(&target, shown.or(Some(&Shown::Off)), backend, moment)
                });
            }
        }
        changes
    }

    /// Calls `differs` for each interface of a namespace of which something else was published; with
    /// [`Shown::Off`] once and then with `None` when it is gone.
    fn compare(
        &mut self,
        netns: &NamespaceName,
        inventory: &Inventory,
        mut differs: impl FnMut(&Target, Option<&Shown>),
    ) {
        let present: BTreeMap<_, _> = inventory
            .netems(netns)
            .iter()
            .map(|(interface, netem)| ((netns.clone(), interface.clone()), Shown::On(*netem)))
            .collect();
        let before: Vec<_> = self
            .shown
            .keys()
            .filter(|(known, _)| known == netns)
            .filter(|target| !present.contains_key(*target))
            .cloned()
            .collect();
        for target in before {
            if !inventory.shows(&target.0, &target.1) {
                // Not every reader knows from the list that the interface is gone.
                if self.shown.remove(&target) != Some(Shown::Off) {
                    differs(&target, Some(&Shown::Off));
                }
                differs(&target, None);
            } else if self.shown.insert(target.clone(), Shown::Off) != Some(Shown::Off) {
                differs(&target, Some(&Shown::Off));
            }
        }
        for (target, shown) in present {
            if self.shown.insert(target.clone(), shown) != Some(shown) {
                differs(&target, Some(&shown));
            }
        }
    }
}

fn publication(
    (netns, interface): &Target,
    shown: Option<&Shown>,
    backend: &BackendName,
    moment: Moment,
) -> TcPublication {
    let ifname = interface.to_wire();
    let update = shown.map(|shown| TcConfigUpdate {
        namespace: netns.to_wire(),
        interface: ifname.clone(),
        backend_name: backend.to_string(),
        timestamp: moment.unix_s,
        configuration: match shown {
            Shown::On(Some(netem)) => Some(report::configuration(&ifname, netem)),
            Shown::On(None) | Shown::Off => None,
        },
        has_tc: *shown != Shown::Off,
    });
    TcPublication {
        netns: netns.clone(),
        interface: interface.clone(),
        update,
        is_kept: true,
    }
}
