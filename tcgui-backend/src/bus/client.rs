//! The other side of the bus: asking daemons and following their lists, as the command line does.
//!
//! A session as a client of one endpoint, with no listener and no scouting: it reaches whom it was told
//! to, or nobody. What comes is untrusted: sizes and counts are bounded, and nothing waits without a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tcgui_shared::explain::{ExplainRequest, ExplainResponse};
use tcgui_shared::interface::InterfaceListUpdate;
use tcgui_shared::keys::{self, Keys, subscription};
use tcgui_shared::names::BackendName;
use tokio::sync::watch;
use tracing::debug;
use zenoh::Session;
use zenoh::config::{Config, WhatAmI};
use zenoh::pubsub::Subscriber;
use zenoh::sample::{Sample, SampleKind};
use zenoh_ext::{AdvancedSubscriber, AdvancedSubscriberBuilderExt, HistoryConfig, RecoveryConfig};

use super::BusError;
use crate::error::BoxError;

/// A list of ten thousand namespaces has a few MiB.
const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;
/// Backends that are followed, more than any site has; what others would publish is not kept.
const BACKENDS: usize = 1024;
/// How long joining the bus may take; a daemon on this host answers in milliseconds.
const JOINING: Duration = Duration::from_secs(2);

const HINT: &str = "check that a daemon or router listens where --connect points";

/// Why a daemon has not answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no bus.
    #[error("cannot reach the bus")]
    Bus(#[from] BusError),
    /// The question was not sent.
    #[error("cannot send the question to {key}")]
    Send {
        /// The key.
        key: String,
        /// What Zenoh said.
        #[source]
        err: BoxError,
    },
    /// Nobody answers on that key: there is no such daemon, or it is older.
    #[error("nobody answers {key}")]
    Unanswered {
        /// The key.
        key: String,
    },
    /// The answer is not understood.
    #[error("the answer from {key} is not understood")]
    Malformed {
        /// The key.
        key: String,
        /// What is wrong.
        #[source]
        err: serde_json::Error,
    },
}

/// The newest list of every backend that is present.
pub type Lists = BTreeMap<String, Arc<InterfaceListUpdate>>;

/// A session that asks and listens; closed when it is dropped.
#[derive(Debug)]
pub struct BusClient {
    session: Session,
}

/// What follows the lists; dropping it ends that.
#[derive(Debug)]
pub struct Following {
    _lists: AdvancedSubscriber<()>,
    _presence: Subscriber<()>,
    /// The newest lists.
    pub lists: watch::Receiver<Lists>,
}

impl BusClient {
    /// Joins the bus through one endpoint.
    ///
    /// # Errors
    /// [`AskError::Bus`]: nothing listens there, or it does not answer within two seconds.
    pub async fn connect(endpoint: &str) -> Result<Self, AskError> {
        let opened = zenoh::open(config(endpoint)?).await;
        let session = opened.map_err(|err| BusError::Open { hint: HINT, err })?;
        Ok(Self { session })
    }

    /// Returns the names of the backends that are present.
    ///
    /// # Errors
    /// [`AskError::Send`].
    pub async fn backends(&self, within: Duration) -> Result<BTreeSet<String>, AskError> {
        let key = subscription::HEALTH;
        let asked = self.session.liveliness().get(key).timeout(within).await;
        let replies = asked.map_err(|err| sending(key, err))?;
        let mut backends = BTreeSet::new();
        while let Ok(reply) = replies.recv_async().await {
            if let Ok(token) = reply.result()
                && let Some(backend) = keys::backend_of(token.key_expr().as_str())
                && backends.len() < BACKENDS
            {
                backends.insert(backend.to_owned());
            }
        }
        Ok(backends)
    }

    /// Asks a daemon why a name is or is not listed.
    ///
    /// # Errors
    /// [`AskError`], but for [`AskError::Bus`].
    pub async fn explain(
        &self,
        backend: &BackendName,
        request: &ExplainRequest,
        within: Duration,
    ) -> Result<ExplainResponse, AskError> {
        let key = Keys::new(backend).query_explain();
        let payload = json!(request).to_string();
        let query = self.session.get(&key).payload(payload).timeout(within);
        let replies = query.await.map_err(|err| sending(&key, err))?;
        while let Ok(reply) = replies.recv_async().await {
            // An error reply is Zenoh's word for a timeout.
            if let Ok(sample) = reply.result() {
                let answer = serde_json::from_slice(&sample.payload().to_bytes());
                return answer.map_err(|err| AskError::Malformed { key, err });
            }
        }
        Err(AskError::Unanswered { key })
    }

    /// Follows the lists of one backend, or of all, beginning with their newest.
    ///
    /// # Errors
    /// [`AskError::Bus`]: a subscription is refused.
    pub async fn follow(&self, backend: Option<&BackendName>) -> Result<Following, AskError> {
        let (lists_key, presence_key) = match backend.map(Keys::new) {
            Some(keys) => (keys.interfaces_list(), keys.health()),
            None => (
                subscription::INTERFACES_LIST.to_owned(),
                subscription::HEALTH.to_owned(),
            ),
        };
        let declare = |key: &str| {
            let key = key.to_owned();
            move |err| BusError::Declare { key, err }
        };
        let (sender, lists) = watch::channel(Lists::new());
        let sender = Arc::new(sender);
        let newest = Arc::clone(&sender);
        let list = self
            .session
            .declare_subscriber(lists_key.clone())
            .callback(move |sample| take(&newest, &sample))
            .history(HistoryConfig::default().detect_late_publishers())
            .recovery(RecoveryConfig::default().heartbeat())
            .await
            .map_err(declare(&lists_key))?;
        let presence = self
            .session
            .liveliness()
            .declare_subscriber(presence_key.clone())
            .callback(move |token| leave(&sender, &token))
            .await
            .map_err(declare(&presence_key))?;
        Ok(Following {
            _lists: list,
            _presence: presence,
            lists,
        })
    }

    /// Leaves the bus.
    pub async fn close(self) {
        if let Err(error) = self.session.close().await {
            debug!(%error, "session not closed");
        }
    }
}

fn sending(key: &str, err: BoxError) -> AskError {
    AskError::Send {
        key: key.to_owned(),
        err,
    }
}

/// Keeps a list. A message that cannot be read is ignored.
fn take(lists: &watch::Sender<Lists>, sample: &Sample) {
    let key = sample.key_expr().as_str();
    let Some(backend) = keys::backend_of(key) else {
        return;
    };
    let list: InterfaceListUpdate = match serde_json::from_slice(&sample.payload().to_bytes()) {
        Ok(list) => list,
        Err(error) => return debug!(%error, key, "list not understood"),
    };
    lists.send_if_modified(|lists| {
        let room = lists.len() < BACKENDS || lists.contains_key(backend);
        if room {
            lists.insert(backend.to_owned(), Arc::new(list));
        }
        room
    });
}

/// Forgets the list of a backend that has left.
fn leave(lists: &watch::Sender<Lists>, token: &Sample) {
    let backend = keys::backend_of(token.key_expr().as_str());
    if let (SampleKind::Delete, Some(backend)) = (token.kind(), backend) {
        lists.send_if_modified(|lists| lists.remove(backend).is_some());
    }
}

fn config(endpoint: &str) -> Result<Config, BusError> {
    let settings = [
        ("mode", json!(WhatAmI::Client.to_str())),
        ("connect/endpoints", json!([endpoint])),
        ("connect/timeout_ms", json!(0)),
        ("connect/exit_on_failure", json!(true)),
        // Opening blocks its thread: Zenoh's own limit is the one that holds.
        (
            "transport/unicast/open_timeout",
            json!(u64::try_from(JOINING.as_millis()).unwrap_or(u64::MAX)),
        ),
        ("scouting/multicast/enabled", json!(false)),
        ("transport/link/rx/max_message_size", json!(LARGEST_MESSAGE)),
    ];
    let mut config = Config::default();
    for (key, value) in settings {
        let value = value.to_string();
        config
            .insert_json5(key, &value)
            .map_err(|err| BusError::Configure { key, value, err })?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_accepted_by_zenoh() {
        let config = config("tcp/127.0.0.1:7447").unwrap();
        assert_eq!(config.get_json("mode").unwrap(), "\"client\"");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_there_is_said_at_once() {
        // Nobody listens on port 1 of this host.
        let refused = BusClient::connect("tcp/127.0.0.1:1").await.unwrap_err();
        assert!(matches!(refused, AskError::Bus(_)), "{refused:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_accepts_and_says_nothing_is_given_up() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp/{}", silent.local_addr().unwrap());
        let begun = std::time::Instant::now();
        BusClient::connect(&endpoint).await.unwrap_err();
        assert!(begun.elapsed() < JOINING * 3);
    }
}
