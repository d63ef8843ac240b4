//! The publishers: one for each key that late clients must find, none for anything else.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use tcgui_shared::keys::Keys;
use tokio_util::task::TaskTracker;
use tracing::warn;
use zenoh::Session;

use super::cached::{CachedPublisher, History};
use super::replies::Replies;
use super::{BusError, Publication, TcPublication};

/// How soon after a change a client notices that it missed the sample, by kind (released periods).
const LIST_HEARTBEAT: Duration = Duration::from_millis(500);
const HEALTH_HEARTBEAT: Duration = Duration::from_millis(2000);
const PRESETS_HEARTBEAT: Duration = Duration::from_millis(2000);
const TC_HEARTBEAT: Duration = Duration::from_millis(1000);

/// Questions for last samples that wait to be answered. A frontend that joins asks for each key once.
const HISTORY_WAITING: usize = 256;

/// All publishers of a session.
#[derive(Debug)]
pub(super) struct Publishers {
    session: Session,
    keys: Keys,
    history: History,
    list: CachedPublisher,
    health: CachedPublisher,
    presets: CachedPublisher,
    tc: HashMap<String, CachedPublisher>,
}

impl Publishers {
    /// Declares what is always there; answers to late clients are tasks of `tracker`.
    pub(super) fn declare(
        session: &Session,
        keys: Keys,
        tracker: &TaskTracker,
    ) -> Result<Self, BusError> {
        let history = History::new(Replies::new(tracker), HISTORY_WAITING);
        let declare = |key, heartbeat| CachedPublisher::declare(session, key, heartbeat, &history);
        Ok(Self {
            list: declare(keys.interfaces_list(), LIST_HEARTBEAT)?,
            health: declare(keys.health(), HEALTH_HEARTBEAT)?,
            presets: declare(keys.presets_list(), PRESETS_HEARTBEAT)?,
            tc: HashMap::new(),
            session: session.clone(),
            keys,
            history,
        })
    }

    /// Returns the key whose liveliness token says that the backend is there.
    pub(super) fn liveliness_key(&self) -> String {
        self.keys.health()
    }

    /// Returns the keys of the backend.
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Publishes everything of `publication`. May wait for a slow link.
    pub(super) fn publish(&mut self, publication: Publication) {
        let Publication {
            presets,
            list,
            health,
            tc,
            answers,
        } = publication;
        if let Some(presets) = presets {
            put(&self.presets, &presets);
        }
        if let Some(list) = list {
            put(&self.list, &list);
        }
        if let Some(health) = health {
            put(&self.health, &health);
        }
        for TcPublication {
            netns,
            interface,
            update,
        } in tc
        {
            let key = self.keys.tc(&netns, &interface);
            match update {
                Some(update) => self.put_tc(key, &update),
                None => drop(self.tc.remove(&key)),
            }
        }
        for (reply, answer) in answers {
            reply.send(answer);
        }
    }

    fn put_tc(&mut self, key: String, update: &impl Serialize) {
        if !self.tc.contains_key(&key) {
            match CachedPublisher::declare(&self.session, key.clone(), TC_HEARTBEAT, &self.history)
            {
                Ok(publisher) => {
                    self.tc.insert(key.clone(), publisher);
                }
                Err(error) => warn!(%error, key, "publisher not declared"),
            }
        }
        if let Some(publisher) = self.tc.get(&key) {
            put(publisher, update);
        }
    }
}

fn put(publisher: &CachedPublisher, message: &impl Serialize) {
    match serde_json::to_vec(message) {
        Ok(json) => publisher.put(json),
        Err(error) => warn!(%error, "message not serialised"),
    }
}
