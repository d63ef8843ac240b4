//! A client of running daemons: it asks, and follows what they publish. For the verbs of the command line.
//!
//! This module imports nothing of the daemon. Its session is a Zenoh client of one endpoint, without a listener and
//! without scouting, so opening it takes milliseconds. What arrives is untrusted: sizes and counts are bounded, and
//! nothing waits without a deadline.

mod follow;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tcgui_shared::keys::{self, subscription};
use tracing::debug;
use zenoh::Session;
use zenoh::config::{Config, WhatAmI};

use crate::error::BoxError;

pub use follow::{Following, Lists, Samples};

/// The largest answer that is read. A list of ten thousand namespaces has a few MiB.
const LARGEST_ANSWER: usize = 8 * 1024 * 1024;
/// The largest message that is received at all.
const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;
/// The most backends that are noticed. No site has so many.
const BACKENDS: usize = 1024;
/// The timeout for opening a session if the user has no option for it. A daemon on this host answers in milliseconds.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a daemon was not reached, or has not answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens at the endpoint.
    #[error("no daemon answers at {endpoint}")]
    Unreachable {
        /// As given.
        endpoint: String,
        /// The cause that Zenoh reports.
        #[source]
        err: BoxError,
    },
    /// A value of the configuration that Zenoh refuses.
    #[error("cannot configure the session: {key}")]
    Configure {
        /// Its path in Zenoh's configuration.
        key: &'static str,
        /// The cause that Zenoh reports.
        #[source]
        err: BoxError,
    },
    /// The query was not sent.
    #[error("cannot send the query {key}")]
    Send {
        /// The key.
        key: String,
        /// The cause that Zenoh reports.
        #[source]
        err: BoxError,
    },
    /// No daemon has this key: there is no such daemon (any more), or it is older.
    #[error("no daemon answers {key}: it has ended, or its version does not have this query")]
    Unanswered {
        /// The key.
        key: String,
    },
    /// The daemon is there and has not answered in time.
    #[error("the daemon has not answered {key} within {}", humantime::format_duration(*.within))]
    TimedOut {
        /// The key.
        key: String,
        /// The deadline.
        within: Duration,
    },
    /// The answer is larger than any daemon sends.
    #[error("the answer to {key} has {size} bytes, more than {LARGEST_ANSWER}")]
    TooLarge {
        /// The key.
        key: String,
        /// Its size in bytes.
        size: usize,
    },
    /// The answer is not understood.
    #[error("the answer to {key} is not understood")]
    Malformed {
        /// The key.
        key: String,
        /// What is wrong with it.
        #[source]
        err: serde_json::Error,
    },
    /// A subscription was refused.
    #[error("cannot subscribe to {key}")]
    Subscribe {
        /// The key expression.
        key: String,
        /// The cause that Zenoh reports.
        #[source]
        err: BoxError,
    },
}

/// A session that asks and listens. It is closed when it is dropped.
pub struct Client {
    session: Session,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Joins the bus through one endpoint.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`]: nothing listens there, or it does not answer within this time.
    pub async fn connect(endpoint: &str, within: Duration) -> Result<Self, ClientError> {
        let opened = zenoh::open(config(endpoint, within)?).await;
        let session = opened.map_err(|err| ClientError::Unreachable {
            endpoint: endpoint.to_owned(),
            err,
        })?;
        Ok(Self { session })
    }

    /// Returns the names of the backends that are present.
    ///
    /// # Errors
    /// [`ClientError::Send`].
    pub async fn backends(&self, within: Duration) -> Result<BTreeSet<String>, ClientError> {
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

    /// Sends a request to a key, and returns the first answer of this key.
    ///
    /// # Errors
    /// All but [`ClientError::Unreachable`], [`ClientError::Configure`] and [`ClientError::Subscribe`].
    pub async fn ask<Q, R>(
        &self,
        key: &str,
        request: &Q,
        within: Duration,
    ) -> Result<R, ClientError>
    where
        Q: Serialize,
        R: DeserializeOwned,
    {
        let named = || key.to_owned();
        let malformed = |err| ClientError::Malformed { key: named(), err };
        let payload = serde_json::to_vec(request).map_err(malformed)?;
        let begun = tokio::time::Instant::now();
        let query = self.session.get(key).payload(payload).timeout(within);
        let replies = query.await.map_err(|err| sending(key, err))?;
        while let Ok(reply) = replies.recv_async().await {
            // An error reply is Zenoh's report of a timeout.
            let Ok(sample) = reply.result() else {
                continue;
            };
            if sample.key_expr().as_str() != key {
                continue;
            }
            let size = sample.payload().len();
            if size > LARGEST_ANSWER {
                return Err(ClientError::TooLarge { key: named(), size });
            }
            return serde_json::from_slice(&sample.payload().to_bytes()).map_err(malformed);
        }
        if begun.elapsed() >= within {
            let key = named();
            return Err(ClientError::TimedOut { key, within });
        }
        Err(ClientError::Unanswered { key: named() })
    }

    /// Leaves the bus.
    pub async fn close(self) {
        if let Err(error) = self.session.close().await {
            debug!(%error, "session not closed");
        }
    }
}

fn sending(key: &str, err: BoxError) -> ClientError {
    ClientError::Send {
        key: key.to_owned(),
        err,
    }
}

fn config(endpoint: &str, within: Duration) -> Result<Config, ClientError> {
    let settings = [
        ("mode", json!(WhatAmI::Client.to_str())),
        ("connect/endpoints", json!([endpoint])),
        ("connect/timeout_ms", json!(0)),
        ("connect/exit_on_failure", json!(true)),
        // After the loss of the link, for programs that go on: the daemon may be restarted.
        (
            "connect/retry",
            json!({"period_init_ms": 100, "period_max_ms": 500, "period_increase_factor": 2}),
        ),
        // Opening blocks its thread, so only Zenoh's own limit ends it.
        (
            "transport/unicast/open_timeout",
            json!(u64::try_from(within.as_millis()).unwrap_or(u64::MAX)),
        ),
        ("scouting/multicast/enabled", json!(false)),
        ("transport/link/rx/max_message_size", json!(LARGEST_MESSAGE)),
    ];
    let mut config = Config::default();
    for (key, value) in settings {
        config
            .insert_json5(key, &value.to_string())
            .map_err(|err| ClientError::Configure { key, err })?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_accepted_by_zenoh() {
        let config = config("tcp/127.0.0.1:7447", OPEN_TIMEOUT).unwrap();
        assert_eq!(config.get_json("mode").unwrap(), "\"client\"");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_endpoint_without_a_listener_is_reported_at_once() {
        // No program listens on port 1 of this host.
        let refused = Client::connect("tcp/127.0.0.1:1", OPEN_TIMEOUT)
            .await
            .unwrap_err();
        assert!(
            matches!(refused, ClientError::Unreachable { .. }),
            "{refused:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_listener_that_never_answers_is_given_up() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp/{}", silent.local_addr().unwrap());
        let begun = std::time::Instant::now();
        Client::connect(&endpoint, OPEN_TIMEOUT).await.unwrap_err();
        assert!(begun.elapsed() < OPEN_TIMEOUT * 3);
    }
}
