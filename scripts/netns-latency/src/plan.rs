//! What is measured: situations, operations, observers, and the steps of a trial.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::protocol::{Order, Thing};

/// How many namespaces exist beside the measured one in [`Situation::Others200`].
const OTHERS: u32 = 200;

/// The namespace in which links are made in [`Situation::Link`].
const HOME: &str = "home";

/// The state of the machine in which operations are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub(crate) enum Situation {
    Present,
    Fresh,
    Recreated,
    Others200,
    Link,
    Iproute2,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Op {
    Add,
    Del,
    LinkAdd,
    LinkUp,
    LinkDel,
}

/// Who sees it; each has a lab of its own, so that they do not wake each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Observer {
    Floor,
    Watcher,
    Client,
}

/// One measured operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) order: Order,
    /// What an observer has to notice …
    pub(crate) thing: Thing,
    /// … and whether it comes or goes.
    pub(crate) present: bool,
    /// What follows when it was noticed, not measured.
    pub(crate) then: Option<Order>,
}

/// An order that prepares a situation, and what an observer must see of it before the first trial.
pub(crate) type Preparation = (Order, Option<Thing>);

impl Situation {
    /// In the order in which they are measured.
    pub(crate) const ALL: [Self; 6] = [
        Self::Present,
        Self::Fresh,
        Self::Recreated,
        Self::Others200,
        Self::Link,
        Self::Iproute2,
    ];

    /// Whom it concerns: the watcher knows nothing of links.
    pub(crate) fn observers(self) -> &'static [Observer] {
        match self {
            Self::Link => &[Observer::Floor, Observer::Client],
            _ => &Observer::ALL,
        }
    }

    /// What makes a lab with no netns directory ready for the first trial.
    pub(crate) fn preparation(self) -> Vec<Preparation> {
        match self {
            Self::Fresh => Vec::new(),
            // Only `add` makes the directory; it stays when the namespace goes.
            Self::Present | Self::Recreated | Self::Iproute2 => {
                let first = || "first".to_owned();
                vec![
                    (Order::Add { name: first() }, None),
                    (Order::Del { name: first() }, None),
                ]
            }
            Self::Others200 => (0..OTHERS).map(|n| add(format!("other{n}"))).collect(),
            Self::Link => {
                let netns = HOME.to_owned();
                vec![add(netns.clone()), (Order::Enter { netns }, None)]
            }
        }
    }

    /// What undoes [`Self::preparation`].
    pub(crate) fn clean_up(self) -> Vec<Order> {
        match self {
            Self::Link => vec![Order::Leave, Order::Clear],
            _ => vec![Order::Clear],
        }
    }

    /// The steps of one trial. Names are never used twice in a run.
    pub(crate) fn trial(self, number: u32) -> Vec<Step> {
        let name = format!("{self}{number}");
        match self {
            Self::Present | Self::Others200 => vec![
                step(Op::Add, Order::Add { name: name.clone() }, &name, None),
                step(Op::Del, Order::Del { name: name.clone() }, &name, None),
            ],
            Self::Fresh => vec![
                step(Op::Add, Order::Add { name: name.clone() }, &name, None),
                step(
                    Op::Del,
                    Order::Del { name: name.clone() },
                    &name,
                    Some(Order::Clear),
                ),
            ],
            Self::Recreated => vec![
                step(Op::Add, Order::Recreate { name: name.clone() }, &name, None),
                step(Op::Del, Order::Del { name: name.clone() }, &name, None),
            ],
            Self::Iproute2 => vec![
                step(Op::Add, Order::IpAdd { name: name.clone() }, &name, None),
                step(Op::Del, Order::IpDel { name: name.clone() }, &name, None),
            ],
            Self::Link => link_trial(number),
        }
    }
}

/// An order to add a namespace that every observer must have seen before the first trial.
fn add(name: String) -> Preparation {
    let thing = Thing::Namespace { name: name.clone() };
    (Order::Add { name }, Some(thing))
}

fn step(op: Op, order: Order, name: &str, then: Option<Order>) -> Step {
    Step {
        op,
        order,
        thing: Thing::Namespace {
            name: name.to_owned(),
        },
        present: op == Op::Add,
        then,
    }
}

fn link_trial(number: u32) -> Vec<Step> {
    let name = || format!("v{number}");
    let link = || Thing::Link {
        netns: HOME.to_owned(),
        name: name(),
    };
    let up = Thing::LinkUp {
        netns: HOME.to_owned(),
        name: name(),
    };
    [
        (Op::LinkAdd, Order::LinkAdd { name: name() }, link(), true),
        (Op::LinkUp, Order::LinkUp { name: name() }, up, true),
        (Op::LinkDel, Order::LinkDel { name: name() }, link(), false),
    ]
    .map(|(op, order, thing, present)| Step {
        op,
        order,
        thing,
        present,
        then: None,
    })
    .into()
}

impl fmt::Display for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Present => "present",
            Self::Fresh => "fresh",
            Self::Recreated => "recreated",
            Self::Others200 => "others200",
            Self::Link => "link",
            Self::Iproute2 => "iproute2",
        })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Add => "add",
            Self::Del => "del",
            Self::LinkAdd => "link-add",
            Self::LinkUp => "link-up",
            Self::LinkDel => "link-del",
        })
    }
}

impl Observer {
    /// In the order of their turns.
    pub(crate) const ALL: [Self; 3] = [Self::Floor, Self::Watcher, Self::Client];
}

impl fmt::Display for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Floor => "floor",
            Self::Watcher => "watcher",
            Self::Client => "list",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_a_trial_adds_it_takes_away() {
        for situation in Situation::ALL {
            let steps = situation.trial(3);
            let mut there = BTreeSet::new();
            for step in &steps {
                match (&step.thing, step.present) {
                    (Thing::LinkUp { .. }, _) => {}
                    (thing, true) => assert!(there.insert(thing.clone())),
                    (thing, false) => assert!(there.remove(thing)),
                }
            }
            assert!(there.is_empty(), "{situation} leaves {there:?}");
        }
    }

    #[test]
    fn names_are_never_used_twice() {
        let mut names = BTreeSet::new();
        for situation in Situation::ALL {
            for number in 0..20 {
                let first = situation.trial(number).swap_remove(0);
                assert!(names.insert(first.thing.clone()), "{:?}", first.thing);
            }
        }
    }

    #[test]
    fn others_are_waited_for() {
        let preparation = Situation::Others200.preparation();
        assert_eq!(preparation.len(), 200);
        assert!(preparation.iter().all(|(_, awaited)| awaited.is_some()));
    }

    #[test]
    fn words_are_the_same_everywhere() {
        for situation in Situation::ALL {
            let json = serde_json::to_string(&situation).unwrap();
            assert_eq!(json, format!("\"{situation}\""));
            let value = situation.to_possible_value().unwrap();
            assert_eq!(value.get_name(), situation.to_string());
        }
    }
}
