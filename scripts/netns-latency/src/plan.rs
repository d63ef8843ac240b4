//! The plan of a measurement: situations, operations, observers, and the steps of a trial.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::protocol::{Engine, Order, Thing};

/// Number of other namespaces in [`Situation::Others200`].
const OTHERS: u32 = 200;

/// The namespace in which links are created in [`Situation::Link`].
const HOME: &str = "home";

/// Pause between two operations in one lab, so that all processes are idle and nothing is left to publish.
const APART: Duration = Duration::from_millis(100);

/// Pause between two bursts in one lab, so that the kernel can clean up a thousand deleted namespaces.
const BURSTS_APART: Duration = Duration::from_secs(3);

/// Number of changes in [`Situation::Sequence`].
const SEQUENCE: u32 = 10;

/// Time between two changes in [`Situation::Sequence`].
const SEQUENCE_APART: Duration = Duration::from_millis(5);

/// Pause between two sequences in one lab. Afterwards the daemon may again publish ten lists immediately.
const SEQUENCES_APART: Duration = Duration::from_millis(400);

/// The watcher's default sweep interval without change notifications.
const SWEEP: Duration = Duration::from_secs(1);

/// The state of the machine in which operations are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub(crate) enum Situation {
    Present,
    Fresh,
    Recreated,
    Others200,
    Others1000,
    Link,
    Iproute2,
    Burst1000,
    Sequence,
    Degraded,
    Silent,
    Process,
    Unannounced,
    Moved,
    Docker,
    Podman,
}

/// The change notifications that the daemon receives in a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Surroundings {
    /// All notifications of Linux.
    Usual,
    /// Only those of the mount table. The limits of inotify are zero.
    NoInotify,
    /// None. The mount table cannot be polled either.
    NoDoorbells,
    /// The network namespace of the machine, because only there the kernel announces new processes. The daemon lists namespaces
    /// that only processes hold.
    Announced,
    /// A private process namespace. The daemon lists namespaces that only processes hold.
    Processes,
    /// A private process namespace in which a container engine can run.
    Engines,
}

impl Surroundings {
    /// Returns whether the lab has a private process namespace.
    pub(crate) fn has_processes(self) -> bool {
        matches!(self, Self::Processes | Self::Engines)
    }
}

/// A measured operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Op {
    Add,
    Del,
    LinkAdd,
    LinkUp,
    LinkDel,
}

/// An observer of changes. Each observer has its own lab, so that they do not wake up each other.
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
    /// The things that an observer must notice: one, or all of a burst.
    pub(crate) things: Vec<Thing>,
    /// Whether the things appear or disappear.
    pub(crate) present: bool,
    /// An order that follows when the change was noticed. It is not measured.
    pub(crate) then: Option<Order>,
}

/// An order that prepares a situation, and the thing that an observer must see before the first trial.
pub(crate) type Preparation = (Order, Option<Thing>);

impl Situation {
    /// All situations in the order of measurement. Situations with the same surroundings are adjacent.
    pub(crate) const ALL: [Self; 16] = [
        Self::Present,
        Self::Fresh,
        Self::Recreated,
        Self::Others200,
        Self::Others1000,
        Self::Link,
        Self::Iproute2,
        Self::Burst1000,
        Self::Sequence,
        Self::Degraded,
        Self::Silent,
        Self::Process,
        Self::Unannounced,
        Self::Moved,
        Self::Docker,
        Self::Podman,
    ];

    /// Returns the name in tables and pictures.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Present => "directory present",
            Self::Fresh => "first namespace on a fresh boot",
            Self::Recreated => "directory deleted and recreated",
            Self::Others200 => "200 other namespaces",
            Self::Others1000 => "1 000 other namespaces",
            Self::Link => "link inside a namespace",
            Self::Iproute2 => "the real ip netns, from its return",
            Self::Burst1000 => "1 000 in a burst, from the last",
            Self::Sequence => "ten changes, 5 ms apart",
            Self::Degraded => "no inotify",
            Self::Silent => "no doorbell at all",
            Self::Process => "held by a process, announced",
            Self::Unannounced => "held by a process, not announced",
            Self::Moved => "… and a link moves there",
            Self::Docker => "Docker container, from its event",
            Self::Podman => "Podman container, from its event",
        }
    }

    /// Returns the observers that take part.
    pub(crate) fn observers(self) -> &'static [Observer] {
        match self {
            // The watcher does not observe links.
            Self::Link => &[Observer::Floor, Observer::Client],
            // The floor can only wait for one name at a time.
            Self::Burst1000 | Self::Sequence => &[Observer::Watcher, Observer::Client],
            // Without notifications there is no floor, and the sweeps of watcher and daemon are the same.
            Self::Silent => &[Observer::Client],
            // The watcher only observes names in the directory, and no poll reveals other namespaces.
            Self::Process | Self::Unannounced | Self::Moved | Self::Docker | Self::Podman => {
                &[Observer::Client]
            }
            _ => &Observer::ALL,
        }
    }

    /// Returns the surroundings of its labs.
    pub(crate) fn surroundings(self) -> Surroundings {
        match self {
            Self::Degraded => Surroundings::NoInotify,
            Self::Silent => Surroundings::NoDoorbells,
            Self::Process => Surroundings::Announced,
            Self::Unannounced | Self::Moved => Surroundings::Processes,
            Self::Docker | Self::Podman => Surroundings::Engines,
            _ => Surroundings::Usual,
        }
    }

    /// Returns the number of trials for the number on the command line. Trials with a thousand namespaces, a sweep or a container
    /// take seconds each, so there are fewer of them.
    pub(crate) fn trials(self, asked: u32) -> u32 {
        match self {
            Self::Silent | Self::Unannounced | Self::Docker | Self::Podman => (asked / 10).max(1),
            Self::Burst1000 => (asked / 20).max(1),
            _ => asked,
        }
    }

    /// Returns the minimum pause before the operation with this number in the same lab.
    pub(crate) fn pause(self, number: u32) -> Duration {
        match self {
            Self::Burst1000 => BURSTS_APART,
            Self::Sequence => SEQUENCES_APART,
            // The change is found by a sweep. With a constant pause all operations would have the same phase relative to the
            // sweeps. Multiples of the golden ratio distribute the phases evenly.
            Self::Silent | Self::Unannounced => {
                APART + SWEEP.mul_f64((f64::from(number) * 0.618_034).fract())
            }
            _ => APART,
        }
    }

    /// Returns the interval between the steps of a trial if they do not wait for each other.
    pub(crate) fn apart(self) -> Option<Duration> {
        (self == Self::Sequence).then_some(SEQUENCE_APART)
    }

    /// Returns the orders that prepare a lab without a netns directory for the first trial. `many` stands for a thousand.
    pub(crate) fn preparation(self, many: u32) -> Vec<Preparation> {
        match self {
            Self::Fresh => Vec::new(),
            Self::Others200 => others(OTHERS),
            Self::Others1000 => others(many),
            Self::Sequence => sequence_names(None).map(add).collect(),
            Self::Link => {
                let netns = HOME.to_owned();
                vec![add(netns.clone()), (Order::Enter { netns }, None)]
            }
            Self::Process | Self::Unannounced | Self::Moved => Vec::new(),
            Self::Docker => vec![start(Engine::Docker)],
            Self::Podman => vec![start(Engine::Podman)],
            // Only `add` creates the directory. It stays when the namespace is deleted.
            Self::Present
            | Self::Recreated
            | Self::Iproute2
            | Self::Burst1000
            | Self::Degraded
            | Self::Silent => {
                let first = || "first".to_owned();
                vec![
                    (Order::Add { name: first() }, None),
                    (Order::Del { name: first() }, None),
                ]
            }
        }
    }

    /// Returns the orders that undo [`Self::preparation`].
    pub(crate) fn clean_up(self) -> Vec<Order> {
        match self {
            Self::Link => vec![Order::Leave, Order::Clear],
            Self::Process | Self::Unannounced | Self::Moved => Vec::new(),
            Self::Docker | Self::Podman => vec![Order::StopEngine],
            _ => vec![Order::Clear],
        }
    }

    /// Returns the steps of one trial. A name is never used twice in a run.
    pub(crate) fn trial(self, number: u32, many: u32) -> Vec<Step> {
        let name = format!("{self}-{number}");
        let own = || name.clone();
        let (add, del) = match self {
            Self::Link => return link_trial(number),
            Self::Burst1000 => return burst_trial(&name, many),
            Self::Sequence => return sequence_trial(number),
            Self::Present
            | Self::Fresh
            | Self::Others200
            | Self::Others1000
            | Self::Degraded
            | Self::Silent => (Order::Add { name: own() }, Order::Del { name: own() }),
            Self::Recreated => (Order::Recreate { name: own() }, Order::Del { name: own() }),
            Self::Iproute2 => (Order::IpAdd { name: own() }, Order::IpDel { name: own() }),
            Self::Process | Self::Unannounced => {
                (Order::Hold { name: own() }, Order::Release { name: own() })
            }
            Self::Moved => (
                Order::HoldAndMove { name: own() },
                Order::Release { name: own() },
            ),
            Self::Docker | Self::Podman => return container_trial(&name),
        };
        let then = (self == Self::Fresh).then_some(Order::Clear);
        let things = || vec![Thing::Namespace { name: own() }];
        vec![
            step(Op::Add, add, things(), None),
            step(Op::Del, del, things(), then),
        ]
    }
}

/// Returns an order to add a namespace that every observer must see before the first trial.
fn add(name: String) -> Preparation {
    let thing = Thing::Namespace { name: name.clone() };
    (Order::Add { name }, Some(thing))
}

fn start(engine: Engine) -> Preparation {
    (Order::StartEngine { engine }, None)
}

/// Returns the steps of a container trial. A container counts as present once the link from its engine is listed.
fn container_trial(name: &str) -> Vec<Step> {
    let things = || {
        vec![Thing::Link {
            netns: format!("container:{name}"),
            name: "eth0".to_owned(),
        }]
    };
    let own = || name.to_owned();
    vec![
        step(Op::Add, Order::Run { name: own() }, things(), None),
        step(Op::Del, Order::Remove { name: own() }, things(), None),
    ]
}

fn others(count: u32) -> Vec<Preparation> {
    (0..count).map(|n| add(format!("other{n}"))).collect()
}

fn step(op: Op, order: Order, things: Vec<Thing>, then: Option<Order>) -> Step {
    Step {
        op,
        order,
        things,
        present: op != Op::Del && op != Op::LinkDel,
        then,
    }
}

fn burst_trial(name: &str, many: u32) -> Vec<Step> {
    let names: Vec<_> = (0..many).map(|n| format!("{name}-{n}")).collect();
    let thing = |name: &String| Thing::Namespace { name: name.clone() };
    let things: Vec<_> = names.iter().map(thing).collect();
    let add = Order::AddAll {
        names: names.clone(),
    };
    vec![
        step(Op::Add, add, things.clone(), None),
        step(Op::Del, Order::DelAll { names }, things, None),
    ]
}

/// Returns the namespaces that a sequence creates and the next sequence deletes. `None` returns those of the preparation.
fn sequence_names(number: Option<u32>) -> impl Iterator<Item = String> {
    let number = number.map_or("before".to_owned(), |number| number.to_string());
    (0..SEQUENCE / 2).map(move |n| format!("{}-{number}-{n}", Situation::Sequence))
}

/// Returns the steps of a sequence, in which deletions and creations alternate. Each namespace exists from one sequence to the
/// next, so that a late list cannot hide a change.
fn sequence_trial(number: u32) -> Vec<Step> {
    let thing = |name: &String| vec![Thing::Namespace { name: name.clone() }];
    let pair = |(old, new): (String, String)| {
        let (gone, there) = (thing(&old), thing(&new));
        let (del, add) = (Order::Del { name: old }, Order::Add { name: new });
        [
            step(Op::Del, del, gone, None),
            step(Op::Add, add, there, None),
        ]
    };
    let old = sequence_names(number.checked_sub(1));
    old.zip(sequence_names(Some(number)))
        .flat_map(pair)
        .collect()
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
        (Op::LinkAdd, Order::LinkAdd { name: name() }, link()),
        (Op::LinkUp, Order::LinkUp { name: name() }, up),
        (Op::LinkDel, Order::LinkDel { name: name() }, link()),
    ]
    .map(|(op, order, thing)| step(op, order, vec![thing], None))
    .into()
}

impl fmt::Display for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Present => "present",
            Self::Fresh => "fresh",
            Self::Recreated => "recreated",
            Self::Others200 => "others200",
            Self::Others1000 => "others1000",
            Self::Link => "link",
            Self::Iproute2 => "iproute2",
            Self::Burst1000 => "burst1000",
            Self::Sequence => "sequence",
            Self::Degraded => "degraded",
            Self::Silent => "silent",
            Self::Process => "process",
            Self::Unannounced => "unannounced",
            Self::Moved => "moved",
            Self::Docker => "docker",
            Self::Podman => "podman",
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
    /// All observers in the order of their turns.
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
mod tests;
