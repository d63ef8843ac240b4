//! What a daemon that would run like this process makes of a name.

use std::time::{Duration, Instant};

use tcgui_shared::explain::ExplainResponse;
use tcgui_shared::names::{InterfaceName, NamespaceName};

use super::{OwnLook, OwnLookError};
use crate::blocking;
use crate::error::chain;
use crate::explain::{self, Facts, LinkFacts, entry_facts, host_facts};
use crate::interfaces::NetnsKey;
use crate::kernel::netns::NetnsFiles;
use crate::namespace_watcher::WatchConfig;

/// A namespace that is made at this moment is worth this much patience: the watcher's first looks at a
/// placeholder.
const SETTLE: Duration = Duration::from_millis(100);

/// Explains a name without a daemon: watches for a moment, and looks.
///
/// # Errors
/// [`OwnLookError::OwnNamespace`]: without `/proc` nothing can be said. A directory that cannot be watched
/// is part of the explanation.
pub async fn explain(
    name: NamespaceName,
    config: WatchConfig,
) -> Result<ExplainResponse, OwnLookError> {
    let files = NetnsFiles::new().map_err(OwnLookError::OwnNamespace)?;
    let directory = config.directory.clone();
    let opened = match OwnLook::open(config).await {
        Ok(look) => Ok(look),
        Err(err @ OwnLookError::Watch(_)) => Err(chain(&err).to_string()),
        Err(err) => return Err(err),
    };
    let entry_name = match &name {
        NamespaceName::Named(name) => Some(name.clone()),
        _ => None,
    };
    let place = opened
        .as_ref()
        .map_or(directory, |look| look.watcher.directory().to_owned());
    let (entry, host) = blocking::run(move || {
        let entry = entry_name.map(|name| entry_facts(&files, &place, &name));
        (entry, host_facts())
    })
    .await;
    let (watcher, links, aliases, netlink) = match opened {
        Ok(mut look) => {
            look.settle().await;
            let (links, aliases) = look.links_of(&name).await;
            let asked = match &name {
                NamespaceName::Named(name) => Some(name.as_os_str().to_owned()),
                _ => None,
            };
            let status = look.watcher.status().ask(asked).await;
            let status = status.ok_or_else(|| "the watcher has ended".to_owned());
            let heard = look.links.tracker.as_ref().map(|it| it.last_heard());
            (status, links, aliases, heard)
        }
        Err(err) => (Err(err), LinkFacts::Unknown, Vec::new(), None),
    };
    Ok(explain::explain(&Facts {
        name,
        entry,
        host,
        watcher,
        aliases,
        links,
        netlink,
        now: Instant::now(),
    }))
}

impl OwnLook {
    /// Takes in what comes within a moment.
    async fn settle(&mut self) {
        let complete = async {
            while !self.is_complete() {
                if self.take_one().await.is_none() {
                    break;
                }
            }
        };
        // What is not seen by then is read on demand, and no event is waited for after that.
        tokio::time::timeout(SETTLE, complete).await.ok();
    }

    async fn links_of(&self, name: &NamespaceName) -> (LinkFacts, Vec<String>) {
        let (key, aliases) = match name {
            NamespaceName::Host => (NetnsKey::Host, Vec::new()),
            NamespaceName::Named(name) => match self.names.get(name.as_os_str()) {
                Some(id) => {
                    let others = self.names.iter().filter(|(other, known)| {
                        *known == id && other.as_os_str() != name.as_os_str()
                    });
                    let wire = |(other, _)| NamespaceName::named(other).ok();
                    let others = others.filter_map(wire).map(|it| it.to_wire());
                    (NetnsKey::Mounted(*id), others.collect())
                }
                None => return (LinkFacts::Unknown, Vec::new()),
            },
            // Only a daemon asks engines.
            _ => return (LinkFacts::Unknown, Vec::new()),
        };
        let links = match self.read(key).await {
            Ok(snapshot) => {
                let names = snapshot.links.iter();
                let names = names.filter_map(|link| InterfaceName::new(&link.ifname).ok());
                LinkFacts::Seen {
                    shown: names.map(|name| name.to_wire()).collect(),
                    count: snapshot.links.len(),
                    began: snapshot.began,
                }
            }
            Err(err) => LinkFacts::Unreadable(err),
        };
        (links, aliases)
    }
}
