//! The publishers: a cached one for each key that clients query when they connect. Other keys have none.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tcgui_shared::keys::Keys;
use tcgui_shared::names::{InterfaceName, NamespaceName};
use tokio_util::task::TaskTracker;
use tracing::warn;
use zenoh::{Session, Wait};

use super::cached::{CachedPublisher, History};
use super::replies::{PROMPT, Replies};
use super::{Answers, BusError, ExecutionPublication, Publication, TcPublication};

/// Delay of the first heartbeat after a change, by kind. A client that missed the sample notices it then. The periods
/// are those of released backends.
const LIST_HEARTBEAT: Duration = Duration::from_millis(500);
const HEALTH_HEARTBEAT: Duration = Duration::from_millis(2000);
const PRESETS_HEARTBEAT: Duration = Duration::from_millis(2000);
const TC_HEARTBEAT: Duration = Duration::from_millis(1000);
/// Released backends have no cached publisher for executions.
const EXECUTION_HEARTBEAT: Duration = Duration::from_millis(1000);

/// Limit of the queries for last samples that wait for their reply. One link can use half of it. A frontend that
/// connects sends one query for each key.
const HISTORY_WAITING: usize = 512;

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
    executions: HashMap<String, CachedPublisher>,
}

impl Publishers {
    /// Declares the publishers that always exist. `tracker` counts the replies to clients that connect later.
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
            executions: HashMap::new(),
            session: session.clone(),
            keys,
            history,
        })
    }

    fn publish(&mut self, publication: Publication) -> Answers {
        let Publication {
            presets,
            list,
            health,
            tc,
            executions,
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
            is_kept,
        } in tc
        {
            let key = self.keys.tc(&netns, &interface);
            if let (Some(update), false, None) = (&update, is_kept, self.tc.get(&key)) {
                put_once(&self.session, key, update);
                continue;
            }
            let (session, history) = (&self.session, &self.history);
            let declare = || CachedPublisher::declare(session, key.clone(), TC_HEARTBEAT, history);
            put_at(&mut self.tc, &key, update.as_ref(), declare);
        }
        for ExecutionPublication {
            netns,
            interface,
            update,
        } in executions
        {
            let key = self.keys.scenario_execution(&netns, &interface);
            let (session, history) = (&self.session, &self.history);
            let declare =
                || CachedPublisher::declare(session, key.clone(), EXECUTION_HEARTBEAT, history);
            put_at(&mut self.executions, &key, update.as_ref(), declare);
        }
        answers
    }
}

/// The publications while there is no session. Only the newest of each key is kept, so the number of interfaces limits
/// the size.
#[derive(Debug, Default)]
struct Unsent {
    newest: Publication,
    tc: BTreeMap<(NamespaceName, InterfaceName), TcPublication>,
    executions: BTreeMap<(NamespaceName, InterfaceName), ExecutionPublication>,
}

impl Unsent {
    fn keep(&mut self, publication: Publication) -> Answers {
        let Publication {
            presets,
            list,
            health,
            tc,
            executions,
            answers,
        } = publication;
        let newest = &mut self.newest;
        newest.presets = presets.or(newest.presets.take());
        newest.list = list.or(newest.list.take());
        newest.health = health.or(newest.health.take());
        for one in tc {
            let key = (one.netns.clone(), one.interface.clone());
            keep_at(&mut self.tc, key, one.update.is_some().then_some(one));
        }
        for one in executions {
            let key = (one.netns.clone(), one.interface.clone());
            keep_at(
                &mut self.executions,
                key,
                one.update.is_some().then_some(one),
            );
        }
        answers
    }

    fn take(self) -> Publication {
        Publication {
            tc: self.tc.into_values().collect(),
            executions: self.executions.into_values().collect(),
            ..self.newest
        }
    }
}

/// Stores the publication for an interface. `None`: the interface is gone. No client has received anything about it, so
/// nothing is stored.
fn keep_at<T>(
    kept: &mut BTreeMap<(NamespaceName, InterfaceName), T>,
    key: (NamespaceName, InterfaceName),
    publication: Option<T>,
) {
    match publication {
        Some(publication) => kept.insert(key, publication),
        None => kept.remove(&key),
    };
}

#[derive(Debug)]
enum Stage {
    /// There is no session yet.
    Waiting(Box<Unsent>),
    Open(Box<Publishers>),
    Ended,
}

/// The publishers. Only one thread publishes at a time. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct SharedPublishers(Arc<Mutex<Stage>>);

impl SharedPublishers {
    /// Returns publishers without a session. They store all publications until [`Self::open`].
    pub(super) fn waiting() -> Self {
        Self(Arc::new(Mutex::new(Stage::Waiting(Box::default()))))
    }

    /// Publishes the stored messages. Later messages are published at once. Returns whether there was a list. May wait
    /// for a slow link.
    pub(super) fn open(&self, mut publishers: Publishers) -> bool {
        let mut stage = self.lock();
        let Stage::Waiting(unsent) = &mut *stage else {
            return false;
        };
        let publication = std::mem::take(&mut **unsent).take();
        let has_list = publication.list.is_some();
        // The responses were sent when the publication was stored.
        publishers.publish(publication);
        *stage = Stage::Open(Box::new(publishers));
        has_list
    }

    /// Publishes all messages of `publication`, and returns the responses that must be sent after it. May wait for a
    /// slow link.
    pub(super) fn publish(&self, publication: Publication) -> Answers {
        match &mut *self.lock() {
            Stage::Waiting(unsent) => unsent.keep(publication),
            Stage::Open(publishers) => publishers.publish(publication),
            Stage::Ended => publication.answers,
        }
    }

    /// Withdraws all publishers. Later messages are dropped.
    pub(super) fn end(&self) {
        let publishers = std::mem::replace(&mut *self.lock(), Stage::Ended);
        drop(publishers);
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes on a key with a temporary publisher. The first update declares the publisher, and `None` withdraws it.
fn put_at(
    publishers: &mut HashMap<String, CachedPublisher>,
    key: &str,
    update: Option<&impl Serialize>,
    declare: impl FnOnce() -> Result<CachedPublisher, BusError>,
) {
    let Some(update) = update else {
        publishers.remove(key);
        return;
    };
    if !publishers.contains_key(key) {
        match declare() {
            Ok(publisher) => {
                publishers.insert(key.to_owned(), publisher);
            }
            Err(error) => return warn!(%error, key, "publisher not declared"),
        }
    }
    if let Some(publisher) = publishers.get(key) {
        put(publisher, update);
    }
}

/// Publishes on a key to clients that are connected now, without a publisher.
fn put_once(session: &Session, key: String, message: &impl Serialize) {
    let json = match serde_json::to_vec(message) {
        Ok(json) => json,
        Err(error) => return warn!(%error, "message not serialised"),
    };
    if let Err(error) = session.put(&key, json).priority(PROMPT).wait() {
        warn!(%error, key, "not published");
    }
}

fn put(publisher: &CachedPublisher, message: &impl Serialize) {
    match serde_json::to_vec(message) {
        Ok(json) => publisher.put(json),
        Err(error) => warn!(%error, "message not serialised"),
    }
}

#[cfg(test)]
mod tests {
    use tcgui_shared::preset::PresetList;
    use tcgui_shared::tc::TcConfigUpdate;

    use super::*;

    fn tc(interface: &str) -> TcPublication {
        TcPublication {
            netns: NamespaceName::named("lab").unwrap(),
            interface: InterfaceName::new(interface).unwrap(),
            is_kept: true,
            update: Some(TcConfigUpdate {
                namespace: "lab".to_owned(),
                interface: interface.to_owned(),
                backend_name: "default".to_owned(),
                timestamp: 0,
                configuration: None,
                has_tc: false,
            }),
        }
    }

    fn gone(interface: &str) -> TcPublication {
        TcPublication {
            update: None,
            ..tc(interface)
        }
    }

    fn publication(tc: Vec<TcPublication>) -> Publication {
        Publication {
            tc,
            ..Publication::default()
        }
    }

    #[test]
    fn the_newest_of_each_key_is_kept_until_there_is_a_session() {
        let mut unsent = Unsent::default();
        for (presets, interface) in [(Some(Vec::new()), "a"), (None, "b"), (None, "a")] {
            let kept = unsent.keep(Publication {
                presets: presets.map(|presets| PresetList { presets }),
                ..publication(vec![tc(interface)])
            });
            assert!(kept.is_empty());
        }
        let publication = unsent.take();
        assert!(publication.presets.is_some() && publication.list.is_none());
        assert_eq!(publication.tc, [tc("a"), tc("b")]);
    }

    #[test]
    fn nothing_is_kept_of_interfaces_that_are_gone() {
        let mut unsent = Unsent::default();
        for number in 0..100 {
            let name = format!("v{number}");
            unsent.keep(publication(vec![tc(&name)]));
            unsent.keep(publication(vec![gone(&name), gone("never-there")]));
        }
        unsent.keep(publication(vec![tc("stays")]));
        unsent.keep(Publication {
            executions: vec![ExecutionPublication {
                netns: NamespaceName::named("lab").unwrap(),
                interface: InterfaceName::new("v0").unwrap(),
                update: None,
            }],
            ..Publication::default()
        });
        let publication = unsent.take();
        assert_eq!(publication.tc, [tc("stays")]);
        assert!(publication.executions.is_empty());
    }
}
