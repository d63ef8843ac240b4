//! The daemon as an operator starts it, and a client with the subscriptions of the released frontends.
//!
//! The arrival of a list is stamped in the callback of the subscription, before its JSON is read; what
//! differs from the list before is then said with that stamp.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::Value;
use tcgui_tests::client::{Options, array};
use tcgui_tests::daemon::Daemon;
use tcgui_tests::doorbells::NO_MOUNTS;

use crate::plan::Surroundings;
use crate::progress;
use crate::protocol::{self, Message, Thing};

/// A session of the bus takes a while on a busy machine.
const START: Duration = Duration::from_secs(20);

pub(super) fn play(surroundings: Surroundings) -> anyhow::Result<()> {
    let last = Mutex::new(BTreeSet::new());
    let client = Options::default()
        .on_list(move |at_ns, list| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let now = things(list);
            if let Err(error) = say_difference(&last, &now, at_ns) {
                progress::complain(&error);
            }
            *last = now;
        })
        .open()?;
    let wrapper: &[&str] = match surroundings {
        Surroundings::NoDoorbells => &NO_MOUNTS,
        Surroundings::Usual | Surroundings::NoInotify => &[],
    };
    let mut daemon = Daemon::start::<&str>(wrapper, &[])?;
    let started = client
        .wait_for("the daemon sends a list", START, |state| {
            state.alive() && state.lists() > 0
        })
        .map(drop);
    // Its log comes with the failure to stop it.
    let mut check = || {
        daemon
            .ensure_alive()
            .map_err(|_| anyhow!("the daemon ended"))
    };
    let served = started.and_then(|()| protocol::serve(|_: Thing| check().map(|()| 0)));
    if served.is_err() {
        return served.with_context(|| format!("the daemon wrote: {}", daemon.stderr()));
    }
    client.close()?;
    daemon.stop().map(drop).context("stop the daemon")
}

fn say_difference(last: &BTreeSet<Thing>, now: &BTreeSet<Thing>, at_ns: u64) -> anyhow::Result<()> {
    let gone = last.difference(now).map(|it| (it, false));
    let new = now.difference(last).map(|it| (it, true));
    let changes = gone.chain(new);
    let changes = changes.map(|(thing, present)| protocol::saw(thing.clone(), present, at_ns));
    let listed = std::iter::once(Message::Listed { at_ns });
    protocol::say_all(&listed.chain(changes).collect::<Vec<_>>())
}

/// Everything in the *named* namespaces of a list.
fn things(list: &Value) -> BTreeSet<Thing> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut things = BTreeSet::new();
    let named = array(list, "namespaces").filter(|it| it["namespace_type"] == "Traditional");
    for namespace in named {
        let netns = text(&namespace["name"]);
        for interface in array(namespace, "interfaces") {
            let name = text(&interface["name"]);
            let link = |netns: &str| (netns.to_owned(), name.clone());
            if interface["is_up"] == true {
                let (netns, name) = link(&netns);
                things.insert(Thing::LinkUp { netns, name });
            }
            let (netns, name) = link(&netns);
            things.insert(Thing::Link { netns, name });
        }
        things.insert(Thing::Namespace { name: netns });
    }
    things
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_taken_apart() {
        let list = json!({"namespaces": [
            {"name": "default", "namespace_type": "Default", "interfaces": [{"name": "lo", "is_up": true}]},
            {"name": "blue", "namespace_type": "Traditional", "interfaces": [
                {"name": "lo", "is_up": false},
                {"name": "v0", "is_up": true},
            ]},
        ]});
        let link = |name: &str| Thing::Link {
            netns: "blue".to_owned(),
            name: name.to_owned(),
        };
        let expected = BTreeSet::from([
            Thing::Namespace {
                name: "blue".to_owned(),
            },
            link("lo"),
            link("v0"),
            Thing::LinkUp {
                netns: "blue".to_owned(),
                name: "v0".to_owned(),
            },
        ]);
        assert_eq!(things(&list), expected);
    }
}
