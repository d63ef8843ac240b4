//! Publications about traffic control: the netems that were published, and the responses that wait until their
//! result is published. Pure.

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

/// Delays after which all configurations are published again for a new frontend. A frontend ignores a configuration that
/// arrives before the interface list.
const REPEATS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// The published state of an interface.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shown {
    /// There was a netem, and there is none now.
    Off,
    /// There is a netem. `None`: its parameters could not be read.
    On(Option<Netem>),
}

/// Publications about traffic control, and the responses that follow them.
#[derive(Debug, Default)]
pub(in crate::backend::state) struct PublishedTc {
    shown: BTreeMap<Target, Shown>,
    /// Namespaces whose netems are to be compared with the published ones.
    touched: BTreeSet<NamespaceName>,
    /// Namespaces with interfaces that frontends do not know yet. The list is published first.
    unlisted: BTreeSet<NamespaceName>,
    /// Responses that wait until their result is published.
    answers: Vec<(NamespaceName, Reply<TcResponse>, TcResponse)>,
    repeat_at: [Option<Instant>; REPEATS.len()],
    /// Interfaces of which a client may show a state that is not in force.
    doubted: BTreeSet<Target>,
}

impl PublishedTc {
    /// Records that the interfaces of these namespaces may have changed since the last list.
    pub(in crate::backend::state) fn links_changed(
        &mut self,
        names: impl IntoIterator<Item = NamespaceName>,
    ) {
        for name in names {
            self.unlisted.insert(name.clone());
            self.touched.insert(name);
        }
    }

    /// Records that a netem in these namespaces was read back. Their interfaces are unchanged.
    pub(in crate::backend::state) fn netem_changed(
        &mut self,
        names: impl IntoIterator<Item = NamespaceName>,
    ) {
        self.touched.extend(names);
    }

    /// Publishes the state of an interface again, because a request was refused.
    pub(in crate::backend::state) fn repeat(&mut self, target: Target) {
        self.doubted.insert(target);
    }

    /// Records that the list is published now, with all interfaces.
    pub(in crate::backend::state) fn listed(&mut self) {
        self.unlisted.clear();
    }

    /// Answers the requesters of a change. Clients get the response after the change is published.
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
                    // The newest request is answered first, because hundreds of older ones may wait.
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

    /// Returns whether a response waits for the list, so that the list must not be delayed.
    pub(in crate::backend::state) fn is_urgent(&self) -> bool {
        let waits = |(netns, ..): &(NamespaceName, _, _)| self.unlisted.contains(netns);
        self.answers.iter().any(waits)
    }

    /// Removes and returns the responses for the publication that is made now.
    pub(in crate::backend::state) fn take_answers(&mut self) -> Answers {
        let answers = std::mem::take(&mut self.answers);
        answers
            .into_iter()
            .map(|(_, reply, response)| (reply, response))
            .collect()
    }

    /// Schedules the repetitions for a new frontend.
    pub(in crate::backend::state) fn frontend_joined(&mut self, now: Instant) {
        // Keep an earlier time. Otherwise frontends that appear repeatedly would postpone it without limit.
        for (at, after) in self.repeat_at.iter_mut().zip(REPEATS) {
            at.get_or_insert(now + after);
        }
    }

    /// Returns when a repetition is due without a change.
    pub(in crate::backend::state) fn publish_at(&self) -> Option<Instant> {
        if self.shown.is_empty() {
            return None;
        }
        self.repeat_at.iter().flatten().min().copied()
    }

    /// Compares the current netems with the published ones, and returns the differences and repetitions.
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
                // An interface that never had a netem has no publisher. A refusal does not create one.
                changes.push(TcPublication {
                    is_kept: shown.is_some(),
                    ..publication(&target, shown.or(Some(&Shown::Off)), backend, moment)
                });
            }
        }
        changes
    }

    /// Calls `differs` for each interface of a namespace whose published state differs. For an interface that is gone, it is
    /// called with [`Shown::Off`] and then with `None`.
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
                // Some clients do not read the list.
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
