//! Explains a name as a daemon with the privileges of this process would.

use std::fs;
use std::time::{Duration, Instant};

use tcgui_shared::explain::ExplainResponse;
use tcgui_shared::names::{ContainerName, InterfaceName, NamespaceName};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{StandaloneScan, StandaloneScanError};
use crate::blocking;
use crate::containers::{self, ContainersConfig};
use crate::error::chain;
use crate::explain::{self, Facts, LinkFacts, entry_facts, host_facts};
use crate::interfaces::NetnsKey;
use crate::kernel::netns::{NetnsFiles, NetnsRef, ProcessNetnsId};
use crate::namespace_watcher::WatchConfig;
use crate::netns_holders::{HeldEvent, Holder, HolderKind};

/// Time to wait for a namespace that is being created: the first retries of the watcher on a placeholder.
const SETTLE: Duration = Duration::from_millis(100);
/// Timeout for reports of engines about a container. Afterwards the container is treated as missing.
const ENGINES: Duration = Duration::from_secs(2);
/// Capacity of the channel of engine reports.
const REPORTS: usize = 256;

/// Explains a name without a daemon. It watches for a moment and reads the host. For a container name it also queries the engines
/// of `containers`. Process names are valid only if `processes` is set.
///
/// # Errors
/// [`StandaloneScanError::OwnNamespace`]: `/proc` is missing. If a directory cannot be watched, the explanation reports that.
pub async fn explain(
    name: NamespaceName,
    config: WatchConfig,
    containers: Option<ContainersConfig>,
    processes: bool,
) -> Result<ExplainResponse, StandaloneScanError> {
    let files = NetnsFiles::new().map_err(StandaloneScanError::OwnNamespace)?;
    let directory = config.directory.clone();
    let opened = match StandaloneScan::open(config).await {
        Ok(look) => Ok(look),
        Err(err @ StandaloneScanError::Watch(_)) => Err(chain(&err).to_string()),
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
            let holder = match &name {
                NamespaceName::Container(name) => match containers {
                    Some(engines) => container(name, engines, files).await,
                    None => None,
                },
                NamespaceName::Process(process) if processes => {
                    let runs = fs::read(format!("/proc/{}/comm", process.pid()));
                    let is_it =
                        runs.is_ok_and(|comm| comm.strip_suffix(b"\n") == Some(process.program()));
                    is_it.then(|| files.held_by(process.pid()).ok()).flatten()
                }
                _ => None,
            };
            let (links, aliases) = look.links_of(&name, holder).await;
            let asked = match &name {
                NamespaceName::Named(name) => Some(name.as_os_str().to_owned()),
                _ => None,
            };
            let status = look.watcher.status().ask(asked).await;
            let status = status.ok_or_else(|| "the watcher has ended".to_owned());
            let last_event = look
                .links
                .tracker
                .as_ref()
                .map(|tracker| tracker.last_event_at());
            (status, links, aliases, last_event)
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

/// Queries engines until one reports the container. Returns its first process.
async fn container(
    wanted: &ContainerName,
    config: ContainersConfig,
    files: NetnsFiles,
) -> Option<ProcessNetnsId> {
    if !config.sockets.iter().any(|socket| socket.exists()) {
        return None;
    }
    let (events, mut reports) = mpsc::channel(REPORTS);
    // The actor ends when the set is dropped.
    let mut actor = JoinSet::new();
    actor.spawn(containers::open(config, files, events).run(CancellationToken::new()));
    let found = async {
        while let Some(event) = reports.recv().await {
            if let HeldEvent::Added(Holder {
                id,
                kind: HolderKind::Container(container),
            }) = event
                && container.name == *wanted
            {
                return Some(id);
            }
        }
        None
    };
    tokio::time::timeout(ENGINES, found).await.ok().flatten()
}

impl StandaloneScan {
    /// Processes the events of a short time.
    async fn settle(&mut self) {
        let complete = async {
            while !self.is_complete() {
                if self.take_one().await.is_none() {
                    break;
                }
            }
        };
        // Namespaces that were not read by then are read on demand. No further events are awaited.
        tokio::time::timeout(SETTLE, complete).await.ok();
    }

    /// Returns the known links and the other names of a namespace. A process may hold the namespace.
    async fn links_of(
        &self,
        name: &NamespaceName,
        holder: Option<ProcessNetnsId>,
    ) -> (LinkFacts, Vec<String>) {
        let own = match name {
            NamespaceName::Named(name) => Some(name.as_os_str()),
            _ => None,
        };
        let (key, inode) = match (own.and_then(|own| self.names.get(own)), holder) {
            (Some(id), _) => (NetnsKey::Mounted(*id), Some(id.inode())),
            (None, Some(id)) if id.inode() != self.own_inode => {
                let key = NetnsKey::Held(id);
                if let Some(tracker) = &self.links.tracker {
                    tracker.track(key, NetnsRef::Process(id)).await;
                }
                (key, Some(id.inode()))
            }
            (None, _) if *name == NamespaceName::Host => (NetnsKey::Host, None),
            (None, _) => return (LinkFacts::Unknown, Vec::new()),
        };
        let others = self.names.iter().filter(|(other, known)| {
            Some(known.inode()) == inode && own != Some(other.as_os_str())
        });
        let wire = |(other, _)| NamespaceName::named(other).ok();
        let aliases = others.filter_map(wire).map(|name| name.to_wire()).collect();
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
