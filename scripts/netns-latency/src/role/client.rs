//! The daemon, started like by an operator, and a client with the subscriptions of released frontends.
//!
//! The callback of the subscription records the arrival of a list before it parses the JSON. The changes to the preceding list
//! are then reported with that time.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::Value;
use tcgui_tests::client::{Options, array};
use tcgui_tests::daemon::Daemon;
use tcgui_tests::doorbells::NO_MOUNTS;
use tcgui_tests::frontend::Route;

use crate::plan::Surroundings;
use crate::progress;
use crate::protocol::{self, Message, Thing};

/// Timeout for the start. Opening a session takes long on a busy machine.
const START: Duration = Duration::from_secs(20);

pub(super) fn play(surroundings: Surroundings) -> anyhow::Result<()> {
    let last = Mutex::new(BTreeSet::new());
    let (route, options) = daemon_of(surroundings)?;
    let client = Options::default()
        .route(route)
        .on_list(move |at_ns, list| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let now = things(list);
            if let Err(error) = send_difference(&last, &now, at_ns) {
                progress::complain(&error);
            }
            *last = now;
        })
        .open()?;
    let wrapper: &[&str] = match surroundings {
        Surroundings::NoDoorbells => &NO_MOUNTS,
        _ => &[],
    };
    let mut daemon = Daemon::start(wrapper, &options)?;
    let started = client
        .wait_for("the daemon sends a list", START, |state| {
            state.alive() && state.lists() > 0
        })
        .map(drop);
    // If stopping fails, its log is part of the error.
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

/// Returns the route to the daemon and its arguments.
fn daemon_of(surroundings: Surroundings) -> anyhow::Result<(Route, Vec<String>)> {
    let shown = "--process-namespaces".to_owned();
    match surroundings {
        Surroundings::Processes => Ok((Route::default(), vec![shown])),
        // Use a free port, because a daemon of the machine may use the default one. The port is not reachable from other
        // machines.
        Surroundings::Announced => {
            let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let endpoint = format!("tcp/{free}");
            let route = Route::peer(&endpoint);
            let more = ["--no-containers", "--no-multicast", "--zenoh-listen"];
            let more = more.map(str::to_owned).into_iter().chain([endpoint]);
            Ok((route, [shown].into_iter().chain(more).collect()))
        }
        _ => Ok((Route::default(), Vec::new())),
    }
}

fn send_difference(
    last: &BTreeSet<Thing>,
    now: &BTreeSet<Thing>,
    at_ns: u64,
) -> anyhow::Result<()> {
    let gone = last.difference(now).map(|it| (it, false));
    let new = now.difference(last).map(|it| (it, true));
    let changes = gone.chain(new);
    let changes =
        changes.map(|(thing, present)| protocol::sight_message(thing.clone(), present, at_ns));
    let listed = std::iter::once(Message::Listed { at_ns });
    protocol::send_all(&listed.chain(changes).collect::<Vec<_>>())
}

/// Returns the name of a namespace, or the program name if only a process holds it.
fn name_of(namespace: &Value) -> String {
    let name = namespace["name"].as_str().unwrap_or_default();
    let program = name
        .strip_prefix("pid:")
        .and_then(|it| it.split_once('(')?.1.strip_suffix(')'));
    program.unwrap_or(name).to_owned()
}

/// Returns all things in the namespaces of a list, except those of the host.
fn things(list: &Value) -> BTreeSet<Thing> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut things = BTreeSet::new();
    let others = array(list, "namespaces").filter(|it| it["namespace_type"] != "Default");
    for namespace in others {
        let netns = name_of(namespace);
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
    fn a_list_is_split_into_namespaces_and_links() {
        let list = json!({"namespaces": [
            {"name": "default", "namespace_type": "Default", "interfaces": [{"name": "lo", "is_up": true}]},
            {"name": "blue", "namespace_type": "Traditional", "interfaces": [
                {"name": "lo", "is_up": false},
                {"name": "v0", "is_up": true},
            ]},
            {"name": "pid:12(a(b))", "namespace_type": "Traditional", "interfaces": []},
            {"name": "container:web", "namespace_type": {"Container": {}}, "interfaces": []},
        ]});
        let link = |name: &str| Thing::Link {
            netns: "blue".to_owned(),
            name: name.to_owned(),
        };
        let namespace = |name: &str| Thing::Namespace {
            name: name.to_owned(),
        };
        let expected = BTreeSet::from([
            namespace("a(b)"),
            namespace("container:web"),
            namespace("blue"),
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
