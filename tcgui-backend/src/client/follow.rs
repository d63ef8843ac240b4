//! Following what daemons publish.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tcgui_shared::interface::InterfaceListUpdate;
use tcgui_shared::keys::{self, Keys, subscription};
use tcgui_shared::names::BackendName;
use tokio::sync::{mpsc, watch};
use tracing::debug;
use zenoh::pubsub::Subscriber;
use zenoh::sample::{Sample, SampleKind};
use zenoh_ext::{AdvancedSubscriber, AdvancedSubscriberBuilderExt, HistoryConfig, RecoveryConfig};

use super::{BACKENDS, Client, ClientError, LARGEST_ANSWER};
use crate::error::BoxError;

/// Messages that wait to be taken. Later ones are dropped: the next sample of a key replaces them.
const WAITING: usize = 8192;

/// The newest list of every backend that is present.
pub type Lists = BTreeMap<String, Arc<InterfaceListUpdate>>;

/// The lists that are followed until this is dropped.
pub struct Following {
    _lists: AdvancedSubscriber<()>,
    _presence: Subscriber<()>,
    /// The newest lists.
    pub lists: watch::Receiver<Lists>,
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").finish_non_exhaustive()
    }
}

/// Messages of one type, until this is dropped.
pub struct Samples<T> {
    _subscriber: Box<dyn Any + Send>,
    received: mpsc::Receiver<T>,
}

impl<T> fmt::Debug for Samples<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Samples").finish_non_exhaustive()
    }
}

impl<T> Samples<T> {
    /// Waits for the next message; `None`: the session is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<T> {
        self.received.recv().await
    }
}

impl Client {
    /// Follows the lists of one backend, or of all, beginning with their newest.
    ///
    /// # Errors
    /// [`ClientError::Subscribe`].
    pub async fn follow(&self, backend: Option<&BackendName>) -> Result<Following, ClientError> {
        let (lists_key, presence_key) = match backend.map(Keys::new) {
            Some(keys) => (keys.interfaces_list(), keys.health()),
            None => (
                subscription::INTERFACES_LIST.to_owned(),
                subscription::HEALTH.to_owned(),
            ),
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
            .map_err(refused(&lists_key))?;
        let presence = self
            .session
            .liveliness()
            .declare_subscriber(presence_key.clone())
            .callback(move |token| leave(&sender, &token))
            .await
            .map_err(refused(&presence_key))?;
        Ok(Following {
            _lists: list,
            _presence: presence,
            lists,
        })
    }

    /// Receives the messages of a key expression that are published from now on. Messages that are not understood are
    /// dropped.
    ///
    /// # Errors
    /// [`ClientError::Subscribe`].
    pub async fn subscribe<T>(&self, key: &str) -> Result<Samples<T>, ClientError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let (sender, received) = mpsc::channel(WAITING);
        let subscriber = self
            .session
            .declare_subscriber(key.to_owned())
            .callback(move |sample: Sample| {
                if let Some(message) = read(&sample) {
                    sender.try_send(message).ok();
                }
            })
            .await
            .map_err(refused(key))?;
        Ok(Samples {
            _subscriber: Box::new(subscriber),
            received,
        })
    }
}

impl Client {
    /// As [`Self::subscribe`], beginning with the newest sample of each key that a daemon keeps.
    ///
    /// # Errors
    /// [`ClientError::Subscribe`].
    pub async fn subscribe_cached<T>(&self, key: &str) -> Result<Samples<T>, ClientError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let (sender, received) = mpsc::channel(WAITING);
        let subscriber = self
            .session
            .declare_subscriber(key.to_owned())
            .callback(move |sample: Sample| {
                if let Some(message) = read(&sample) {
                    sender.try_send(message).ok();
                }
            })
            .history(HistoryConfig::default().detect_late_publishers())
            .await
            .map_err(refused(key))?;
        Ok(Samples {
            _subscriber: Box::new(subscriber),
            received,
        })
    }
}

fn refused(key: &str) -> impl FnOnce(BoxError) -> ClientError {
    let key = key.to_owned();
    move |err| ClientError::Subscribe { key, err }
}

/// Reads a message. `None`: it is too large, or not understood.
fn read<T: DeserializeOwned>(sample: &Sample) -> Option<T> {
    if sample.payload().len() > LARGEST_ANSWER {
        return None;
    }
    match serde_json::from_slice(&sample.payload().to_bytes()) {
        Ok(message) => Some(message),
        Err(error) => {
            debug!(%error, key = sample.key_expr().as_str(), "message not understood");
            None
        }
    }
}

/// Keeps a list. A message that cannot be read is ignored.
fn take(lists: &watch::Sender<Lists>, sample: &Sample) {
    let Some(backend) = keys::backend_of(sample.key_expr().as_str()) else {
        return;
    };
    let Some(list) = read::<InterfaceListUpdate>(sample) else {
        return;
    };
    lists.send_if_modified(|lists| {
        let has_room = lists.len() < BACKENDS || lists.contains_key(backend);
        if has_room {
            lists.insert(backend.to_owned(), Arc::new(list));
        }
        has_room
    });
}

/// Forgets the list of a backend that has left.
fn leave(lists: &watch::Sender<Lists>, token: &Sample) {
    let backend = keys::backend_of(token.key_expr().as_str());
    if let (SampleKind::Delete, Some(backend)) = (token.kind(), backend) {
        lists.send_if_modified(|lists| lists.remove(backend).is_some());
    }
}
