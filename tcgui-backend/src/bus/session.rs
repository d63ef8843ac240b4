//! Opening the session with the released defaults, and declaring everything but the liveliness token.

use std::sync::Arc;
use std::time::Duration;

use tcgui_shared::keys::Keys;
use tcgui_shared::names::BackendName;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;
use zenoh::config::{Config, WhatAmI};
use zenoh::sample::SampleKind;
use zenoh::{Session, Wait};

use super::publishers::{Publishers, SharedPublishers};
use super::queries::{Inbox, Queries};
use super::replies::Replies;
use super::task::Frontends;
use super::{BusError, BusHandle, Clients, Door, REQUESTS, Task};
use crate::cli::ZenohMode;
use crate::config::BusConfig;

const PEER_HINT: &str = "if another tcgui-backend runs on this host it has the port: start this one with \
                         --zenoh-mode client --zenoh-connect tcp/127.0.0.1:7447";
const CLIENT_HINT: &str = "check that a router or backend listens where --zenoh-connect points";

/// The largest message taken from the bus, far above the largest request that is understood.
const LARGEST_MESSAGE: usize = 1024 * 1024;
/// How long a reply waits for room in the queue of a client before its link is given up (default 5 s).
const FROZEN_CLIENT: Duration = Duration::from_secs(1);
/// The queue for replies on each link, in batches of up to 64 KiB: Zenoh's maximum (default 2).
///
/// Zenoh fixes the deadline of a message when it first waits for room, however fast the client reads meanwhile. So a
/// reply must fit into the queue. That of a thousand namespaces has about 200 kB. Batches are allocated when
/// they are needed.
const REPLY_BATCHES: usize = 16;
/// Connections that have not yet opened a session. Zenoh closes those above (default 100).
const UNOPENED_CONNECTIONS: usize = 1024;
/// How long a connection may take to open a session (default 10 s).
const OPENING: Duration = Duration::from_secs(5);

/// Opens the session and returns its actor, the way to publish, and what clients ask.
///
/// # Errors
/// [`BusError::Open`] when an endpoint cannot be listened on or connected to.
pub async fn open(
    config: &BusConfig,
    name: &BackendName,
) -> Result<(BusHandle, Clients, Task), BusError> {
    let hint = match config.mode {
        ZenohMode::Peer => PEER_HINT,
        ZenohMode::Client => CLIENT_HINT,
    };
    let session = zenoh::open(zenoh_config(config)?)
        .await
        .map_err(|err| BusError::Open { hint, err })?;
    let keys = Keys::new(name);
    let (request_tx, requests) = mpsc::channel(REQUESTS);
    let unwritten = TaskTracker::new();
    let replies = Replies::new(&unwritten);
    let joined = Arc::new(Notify::new());
    let frontends = watch_frontends(&session, &keys, Arc::clone(&joined))?;
    let (bell, usher) = (Arc::new(Notify::new()), Door::default());
    let inbox = Inbox {
        requests: request_tx,
        bell: Arc::clone(&bell),
        door: usher.clone(),
    };
    let queries = Queries::declare(&session, &keys, inbox, replies)?;
    let publishers = Publishers::declare(&session, keys.clone(), &unwritten)?;
    let publishers = SharedPublishers::new(publishers);
    let (publications, publication_rx) = mpsc::channel(1);
    let handle = BusHandle {
        publications,
        publishers: publishers.clone(),
    };
    let task = Task::new(
        (session, keys),
        publishers,
        (queries, frontends),
        unwritten,
        publication_rx,
    );
    let clients = Clients {
        requests,
        bell,
        usher,
        joined,
    };
    Ok((handle, clients, task))
}

/// Tells when a frontend joins: it declares a token for its subscription to the interface list.
fn watch_frontends(
    session: &Session,
    keys: &Keys,
    joined: Arc<Notify>,
) -> Result<Frontends, BusError> {
    let key = keys.interfaces_list_subscribers();
    session
        .liveliness()
        .declare_subscriber(key.clone())
        .callback(move |token| {
            if token.kind() == SampleKind::Put {
                joined.notify_one();
            }
        })
        .wait()
        .map_err(|err| BusError::Declare { key, err })
}

fn zenoh_config(config: &BusConfig) -> Result<Config, BusError> {
    let mode = match config.mode {
        ZenohMode::Peer => WhatAmI::Peer.to_str(),
        ZenohMode::Client => WhatAmI::Client.to_str(),
    };
    let list = |endpoints: &[String]| serde_json::json!(endpoints).to_string();
    let mut settings = vec![
        ("mode", serde_json::json!(mode).to_string()),
        ("connect/endpoints", list(&config.connect)),
        ("scouting/multicast/enabled", config.multicast.to_string()),
        // Clients that come later get the cached list; nobody is waited for.
        ("open/return_conditions/connect_scouted", "false".to_owned()),
        ("open/return_conditions/declares", "false".to_owned()),
        // Requests are small; without a bound a client could make the daemon assemble gigabytes.
        (
            "transport/link/rx/max_message_size",
            LARGEST_MESSAGE.to_string(),
        ),
        (
            "transport/link/tx/queue/congestion_control/block/wait_before_close",
            FROZEN_CLIENT.as_micros().to_string(),
        ),
        (
            "transport/link/tx/queue/size/data",
            REPLY_BATCHES.to_string(),
        ),
        (
            "transport/unicast/accept_pending",
            UNOPENED_CONNECTIONS.to_string(),
        ),
        (
            "transport/unicast/accept_timeout",
            OPENING.as_millis().to_string(),
        ),
    ];
    if config.mode == ZenohMode::Peer {
        settings.push(("listen/endpoints", list(&config.listen)));
        // A privileged daemon answers scouts but dials out only where it was told to.
        settings.push(("scouting/multicast/autoconnect", "[]".to_owned()));
        settings.push(("scouting/gossip/autoconnect", "[]".to_owned()));
    }
    let mut zenoh = Config::default();
    for (key, value) in settings {
        zenoh
            .insert_json5(key, &value)
            .map_err(|err| BusError::Configure { key, value, err })?;
    }
    Ok(zenoh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_modes_are_accepted_by_zenoh() {
        let peer = BusConfig {
            mode: ZenohMode::Peer,
            connect: vec!["tcp/lab.example:7447".to_owned()],
            listen: vec!["tcp/127.0.0.1:7447".to_owned()],
            multicast: false,
        };
        let zenoh = zenoh_config(&peer).unwrap();
        assert_eq!(
            zenoh.get_json("scouting/multicast/enabled").unwrap(),
            "false"
        );
        assert!(
            zenoh
                .get_json("listen/endpoints")
                .unwrap()
                .contains("tcp/127.0.0.1:7447")
        );
        let client = BusConfig {
            mode: ZenohMode::Client,
            listen: Vec::new(),
            ..peer
        };
        assert_eq!(
            zenoh_config(&client).unwrap().get_json("mode").unwrap(),
            "\"client\""
        );
    }
}
