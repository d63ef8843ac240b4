//! Opens the session with the defaults of released backends, and declares everything except the liveliness token.

use std::mem;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tcgui_shared::keys::Keys;
use tcgui_shared::names::BackendName;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::task::TaskTracker;
use zenoh::config::{Config, WhatAmI};
use zenoh::pubsub::Subscriber;
use zenoh::sample::SampleKind;
use zenoh::{Session, Wait};

use super::joining::join;
use super::listening;
use super::namesakes::watch_namesakes;
use super::publishers::{Publishers, SharedPublishers};
use super::queries::Queries;
use super::replies::Replies;
use super::{BusError, BusHandle, Clients, REQUESTS, Request, Task};
use crate::blocking;
use crate::cli::ZenohMode;
use crate::config::{BusConfig, TlsFiles};

const PEER_HINT: &str = "the addresses to listen on are free; RUST_LOG=zenoh=debug says more";

/// The largest message that is accepted, in bytes. It is far above the largest valid request.
const LARGEST_MESSAGE: usize = 1024 * 1024;
/// How long a reply waits for room in the queue of a client before its link is closed (Zenoh's default: 5 s).
const FROZEN_CLIENT: Duration = Duration::from_secs(1);
/// The length of the queue for replies on each link, in batches of up to 64 KiB: Zenoh's maximum (Zenoh's default: 2).
///
/// Zenoh sets the deadline of a message when it first waits for room, even if the client reads. So a whole reply must
/// fit into the queue. A list of a thousand namespaces has about 200 kB. Batches are allocated on demand.
const REPLY_BATCHES: usize = 16;
/// Limit of connections that have not opened a session yet. Zenoh closes further ones (Zenoh's default: 100).
const UNOPENED_CONNECTIONS: usize = 1024;
/// How long a connection may take to open a session (Zenoh's default: 10 s).
const OPENING: Duration = Duration::from_secs(5);

/// Opens the session. Returns its actor, the handle for publications, and the inputs from other members of the bus.
///
/// If a client cannot reach its router, the actor retries. It stores publications in the meantime.
///
/// # Errors
/// [`BusError::Listen`] and [`BusError::Open`] if the daemon cannot listen on an endpoint.
pub async fn open(
    config: &BusConfig,
    name: &BackendName,
) -> Result<(BusHandle, Clients, Task), BusError> {
    let listen = listening::prepare(&config.listen).await?;
    let settings = zenoh_config(config, &listen)?;
    let opened = match config.mode {
        ZenohMode::Peer => Ok(open_peer(settings).await?),
        ZenohMode::Client => join(settings, &config.connect).await,
    };
    let (request_tx, requests) = mpsc::channel(REQUESTS);
    let unwritten = TaskTracker::new();
    let joined = Arc::default();
    let (hosts, namesakes) = watch::channel(None);
    let declarations = Declarations {
        keys: Keys::new(name),
        requests: request_tx,
        replies: Replies::new(&unwritten),
        joined: Arc::clone(&joined),
        hosts,
        unwritten,
    };
    let publishers = SharedPublishers::waiting();
    let (publications, publication_rx) = mpsc::channel(1);
    let handle = BusHandle { publications };
    let (visible, is_visible) = watch::channel(false);
    let mut task = Task::new(declarations, publishers, publication_rx, visible);
    match opened {
        Ok(session) => task.declare(session).await?,
        Err(joining) => task.wait_for(joining),
    }
    let clients = Clients {
        requests,
        joined,
        namesakes,
        is_visible,
    };
    Ok((handle, clients, task))
}

/// Opens a session that only its `close()` closes.
///
/// Zenoh closes a session when it is dropped. The thread that drops it waits up to 10 s for a listener whose address
/// does not exist. A start that fails or is interrupted would also wait for this time. So the session is opened on a
/// thread that is never interrupted, and one clone of it is never dropped. If `close()` was not called, the end of the
/// process closes the connections.
async fn open_peer(settings: Config) -> Result<Session, BusError> {
    let opening = || {
        let session = zenoh::open(settings).wait()?;
        mem::forget(session.clone());
        Ok(session)
    };
    let opened: zenoh::Result<_> = blocking::run(opening).await;
    opened.map_err(|err| BusError::Open {
        hint: PEER_HINT,
        err,
    })
}

/// The parts that are needed to declare everything on a session.
#[derive(Debug)]
pub(super) struct Declarations {
    pub(super) keys: Keys,
    requests: mpsc::Sender<Request>,
    replies: Replies,
    /// Notified when a frontend joins.
    joined: Arc<Notify>,
    /// Sends the hosts of other backends with the same name.
    hosts: watch::Sender<Option<String>>,
    /// Counts the replies that are not written yet.
    pub(super) unwritten: TaskTracker,
}

/// The declarations that exist as long as the session is used.
#[derive(Debug)]
pub(super) struct Declared {
    _queries: Queries,
    _frontends: Subscriber<()>,
    _namesakes: Subscriber<()>,
}

impl Declarations {
    /// Declares everything except the liveliness token.
    pub(super) fn declare(&self, session: &Session) -> Result<(Declared, Publishers), BusError> {
        let keys = &self.keys;
        let frontends = watch_frontends(session, keys, Arc::clone(&self.joined))?;
        let namesakes = watch_namesakes(session, keys, self.hosts.clone())?;
        let queries = Queries::declare(session, keys, self.requests.clone(), self.replies.clone())?;
        let publishers = Publishers::declare(session, keys.clone(), &self.unwritten)?;
        let declared = Declared {
            _queries: queries,
            _frontends: frontends,
            _namesakes: namesakes,
        };
        Ok((declared, publishers))
    }
}

/// The session, once it is open. Clones share it.
pub(super) type SharedSession = Arc<OnceLock<Session>>;

/// Notifies `joined` when a frontend connects: it then declares a token for its subscription to the interface list.
fn watch_frontends(
    session: &Session,
    keys: &Keys,
    joined: Arc<Notify>,
) -> Result<Subscriber<()>, BusError> {
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

/// Returns Zenoh's configuration. `listen` contains the endpoints with their settings for Zenoh.
fn zenoh_config(config: &BusConfig, listen: &[String]) -> Result<Config, BusError> {
    let mode = match config.mode {
        ZenohMode::Peer => WhatAmI::Peer.to_str(),
        ZenohMode::Client => WhatAmI::Client.to_str(),
    };
    let list = |endpoints: &[String]| serde_json::json!(endpoints).to_string();
    let mut settings = vec![
        ("mode", serde_json::json!(mode).to_string()),
        ("connect/endpoints", list(&config.connect)),
        ("scouting/multicast/enabled", config.multicast.to_string()),
        // The session does not wait for clients. Clients that connect later get the cached list.
        ("open/return_conditions/connect_scouted", "false".to_owned()),
        ("open/return_conditions/declares", "false".to_owned()),
        // Requests are small. Without this limit a client could make the daemon assemble gigabytes.
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
        settings.push(("listen/endpoints", list(listen)));
        // The settings of each endpoint decide whether Zenoh retries.
        settings.push(("listen/timeout_ms", "-1".to_owned()));
        // A privileged daemon answers scouting, but connects only to configured endpoints.
        settings.push(("scouting/multicast/autoconnect", "[]".to_owned()));
        settings.push(("scouting/gossip/autoconnect", "[]".to_owned()));
    }
    settings.extend(tls_settings(&config.tls));
    let mut zenoh = Config::default();
    for (key, value) in settings {
        zenoh
            .insert_json5(key, &value)
            .map_err(|err| BusError::Configure { key, value, err })?;
    }
    Ok(zenoh)
}

/// Returns the settings for TLS. Mutual TLS needs the daemon's own certificate, also to connect. Without one, only the
/// other side is checked.
fn tls_settings(tls: &TlsFiles) -> Vec<(&'static str, String)> {
    let path = |path: &Path| serde_json::json!(path.to_string_lossy()).to_string();
    let mut settings = Vec::new();
    if let Some((cert, key)) = &tls.identity {
        settings.extend([
            ("transport/link/tls/listen_certificate", path(cert)),
            ("transport/link/tls/listen_private_key", path(key)),
            ("transport/link/tls/connect_certificate", path(cert)),
            ("transport/link/tls/connect_private_key", path(key)),
        ]);
    }
    if let Some(authorities) = &tls.authorities {
        let is_mutual = tls.identity.is_some();
        settings.push(("transport/link/tls/root_ca_certificate", path(authorities)));
        settings.push(("transport/link/tls/enable_mtls", is_mutual.to_string()));
    }
    settings
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
            tls: TlsFiles {
                identity: Some(("/cert.pem".into(), "/key.pem".into())),
                authorities: Some("/ca.pem".into()),
            },
        };
        let zenoh = zenoh_config(&peer, &peer.listen).unwrap();
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
            zenoh_config(&client, &[])
                .unwrap()
                .get_json("mode")
                .unwrap(),
            "\"client\""
        );
    }
}
