//! The publishers: one for each key that late clients must find, none for anything else.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use tcgui_shared::keys::Keys;
use tracing::warn;
use zenoh::{Session, Wait};
use zenoh_ext::{AdvancedPublisher, AdvancedPublisherBuilderExt, CacheConfig, MissDetectionConfig};

use super::{BusError, Publication, TcPublication};

/// How soon after a change a client notices that it missed the sample, by kind (released periods).
const LIST_HEARTBEAT: Duration = Duration::from_millis(500);
const HEALTH_HEARTBEAT: Duration = Duration::from_millis(2000);
const PRESETS_HEARTBEAT: Duration = Duration::from_millis(2000);
const TC_HEARTBEAT: Duration = Duration::from_millis(1000);

type Publisher = AdvancedPublisher<'static>;

/// All publishers of a session.
#[derive(Debug)]
pub(super) struct Publishers {
    session: Session,
    keys: Keys,
    list: Publisher,
    health: Publisher,
    presets: Publisher,
    tc: HashMap<String, Publisher>,
}

impl Publishers {
    pub(super) fn declare(session: &Session, keys: Keys) -> Result<Self, BusError> {
        Ok(Self {
            list: declare(session, keys.interfaces_list(), LIST_HEARTBEAT)?,
            health: declare(session, keys.health(), HEALTH_HEARTBEAT)?,
            presets: declare(session, keys.presets_list(), PRESETS_HEARTBEAT)?,
            tc: HashMap::new(),
            session: session.clone(),
            keys,
        })
    }

    /// Returns the key whose liveliness token says that the backend is there.
    pub(super) fn liveliness_key(&self) -> String {
        self.keys.health()
    }

    /// Publishes everything of `publication`. May wait for a slow link.
    pub(super) fn publish(&mut self, publication: Publication) {
        let Publication {
            presets,
            list,
            health,
            tc,
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
    }

    fn put_tc(&mut self, key: String, update: &impl Serialize) {
        if !self.tc.contains_key(&key) {
            match declare(&self.session, key.clone(), TC_HEARTBEAT) {
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

/// Declares a publisher whose last sample reaches clients that join or miss it, as released ones are.
///
/// The heartbeat is sporadic: nothing is sent while nothing changes.
fn declare(session: &Session, key: String, heartbeat: Duration) -> Result<Publisher, BusError> {
    session
        .declare_publisher(key.clone())
        .cache(CacheConfig::default().max_samples(1))
        .sample_miss_detection(MissDetectionConfig::default().sporadic_heartbeat(heartbeat))
        .publisher_detection()
        .wait()
        .map_err(|err| BusError::Declare { key, err })
}

fn put(publisher: &Publisher, message: &impl Serialize) {
    let key = publisher.key_expr();
    match serde_json::to_vec(message) {
        Ok(json) => {
            if let Err(error) = publisher.put(json).wait() {
                warn!(%error, %key, "not published");
            }
        }
        Err(error) => warn!(%error, %key, "message not serialised"),
    }
}
