//! Scans this host without a daemon. It uses the same actors as the daemon, without bus and inventory.
//!
//! It owns the watcher, the interfaces actor (if the privileges suffice) and the state that they reported. Its inputs are their
//! events. Its output is a [picture](StandaloneScan::next_picture) after each change. It ends when it is dropped. It only reads:
//! it does not change, restore or create anything, and keeps nothing open in a namespace.

mod explain;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::time::Duration;

use tcgui_shared::interface::NetworkNamespace;
use tcgui_shared::names::NamespaceName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::backend::network_namespace;
use crate::error::{BoxError, chain};
use crate::interfaces::{
    self, InterfacesEvent, InterfacesHandle, KernelLinks, Links, NetnsKey, Snapshot,
    UnknownNamespaces,
};
use crate::kernel::netns::{MountedNamespaceId, NetnsFiles, NetnsRef};
use crate::kernel::rtnetlink::{Observer, Rtnetlink};
use crate::namespace_watcher::{
    self, Namespace, NamespaceEvent, NamespaceWatcherHandle, WatchConfig, WatchError,
};
use crate::sockets::NetnsSockets;

pub use explain::explain;

/// Maximum number of concurrent kernel requests: one dump, and one that overlaps with it.
const REQUESTS: usize = 2;
/// Interval of link dumps without a notification.
const LINK_SWEEP: Duration = Duration::from_secs(120);

/// Why the scan cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneScanError {
    /// `/proc` does not show the namespace of the caller.
    #[error("cannot read network namespaces: is /proc mounted?")]
    OwnNamespace(#[source] io::Error),
    /// The netns directory cannot be watched.
    #[error("cannot watch network namespaces")]
    Watch(#[from] WatchError),
}

/// An input of the scan.
enum Input {
    Namespace(Option<NamespaceEvent>),
    Links(InterfacesEvent),
}

/// A scan of this host without a daemon.
#[derive(Debug)]
pub struct StandaloneScan {
    watcher: NamespaceWatcherHandle,
    links: LinkSource,
    names: BTreeMap<OsString, MountedNamespaceId>,
    /// The inode number of the caller's namespace, which may also have names.
    own_inode: u64,
    /// The namespaces that exist now. Events about other namespaces arrive late and are ignored.
    seen: HashMap<NetnsKey, Seen>,
}

/// The known state of a namespace.
#[derive(Debug)]
enum Seen {
    /// Not read yet. A picture waits for it.
    Awaited,
    /// Reading has failed so far.
    InVain,
    Links(Links),
}

/// The interfaces actor. It is missing without the privileges that it needs.
#[derive(Debug)]
struct LinkSource {
    tracker: Option<InterfacesHandle>,
    events: mpsc::Receiver<InterfacesEvent>,
    /// Why the actor is missing.
    problem: Option<String>,
    /// Owns the actor, which ends when the set is dropped.
    _actor: JoinSet<()>,
}

impl LinkSource {
    fn open(files: NetnsFiles) -> Self {
        let mut actor = JoinSet::new();
        match Self::actor(files) {
            Ok((tracker, events, task)) => {
                actor.spawn(async move {
                    if let Err(err) = task.run(CancellationToken::new()).await {
                        debug!(error = %chain(&err), "link events ended");
                    }
                });
                Self {
                    tracker: Some(tracker),
                    events,
                    problem: None,
                    _actor: actor,
                }
            }
            Err(err) => Self {
                tracker: None,
                // A closed channel, because there are no events.
                events: mpsc::channel(1).1,
                problem: Some(chain(err.as_ref()).to_string()),
                _actor: actor,
            },
        }
    }

    fn actor(
        files: NetnsFiles,
    ) -> Result<
        (
            InterfacesHandle,
            mpsc::Receiver<InterfacesEvent>,
            interfaces::Task<KernelLinks>,
        ),
        BoxError,
    > {
        let sockets = NetnsSockets::new(Rtnetlink::open(REQUESTS)?, files, REQUESTS);
        let looks = Rtnetlink::open_from(Some(Observer::open()?), REQUESTS)?;
        let kernel = KernelLinks::open(looks, files, sockets)?;
        Ok(interfaces::open(
            kernel,
            LINK_SWEEP,
            UnknownNamespaces::Ignore,
        ))
    }
}

impl StandaloneScan {
    /// Starts the scan. Parts for which privileges are missing are omitted.
    ///
    /// # Errors
    /// [`StandaloneScanError`]: `/proc` is missing, or the netns directory exists but cannot be read.
    pub async fn open(config: WatchConfig) -> Result<Self, StandaloneScanError> {
        let files = NetnsFiles::new().map_err(StandaloneScanError::OwnNamespace)?;
        let links = LinkSource::open(files);
        let (namespaces, watcher) =
            namespace_watcher::list_and_watch(config, CancellationToken::new()).await?;
        let mut look = Self {
            watcher,
            links,
            names: BTreeMap::new(),
            own_inode: files.own_inode(),
            seen: HashMap::new(),
        };
        if let Some(tracker) = &look.links.tracker {
            tracker.track_host().await;
            look.seen.insert(NetnsKey::Host, Seen::Awaited);
        }
        for Namespace { name, id } in namespaces {
            look.add(name, id).await;
        }
        Ok(look)
    }

    /// Returns why interfaces are missing. `None` if they are not.
    pub fn problem(&self) -> Option<&str> {
        self.links.problem.as_deref()
    }

    /// Waits until every namespace was read and something has changed since the last picture. Returns all namespaces, the host
    /// first. `None` after the watcher has ended.
    ///
    /// Not cancel-safe: an event may be lost. If the future is dropped, drop the scan as well.
    pub async fn next_picture(&mut self) -> Option<Vec<NetworkNamespace>> {
        while !self.links.events.is_empty() || !self.is_complete() {
            self.take_one().await?;
        }
        Some(self.picture())
    }

    /// Returns whether every namespace was read, or no further events will arrive.
    fn is_complete(&self) -> bool {
        let awaits = |seen: &Seen| matches!(seen, Seen::Awaited);
        self.links.events.is_closed() || !self.seen.values().any(awaits)
    }

    /// Waits for one more change. The next picture contains it. Not cancel-safe, like [`Self::next_picture`].
    pub async fn changed(&mut self) -> Option<()> {
        self.take_one().await
    }

    async fn take_one(&mut self) -> Option<()> {
        let input = tokio::select! {
            biased;
            // Both are cancel-safe: a dropped future removes no event.
            event = self.watcher.next() => Input::Namespace(event),
            Some(event) = self.links.events.recv() => Input::Links(event),
        };
        match input {
            Input::Namespace(event) => self.namespace(event?).await,
            Input::Links(InterfacesEvent::Links { key, snapshot }) => {
                if let Some(seen) = self.seen.get_mut(&key) {
                    *seen = Seen::Links(snapshot.links);
                }
            }
            Input::Links(InterfacesEvent::Unreadable { key }) => {
                if let Some(seen @ Seen::Awaited) = self.seen.get_mut(&key) {
                    *seen = Seen::InVain;
                }
            }
            // Never reported, because only named namespaces are tracked.
            Input::Links(InterfacesEvent::UnknownNsid) => {}
        }
        Some(())
    }

    async fn namespace(&mut self, event: NamespaceEvent) {
        match event {
            NamespaceEvent::Added { name, id } => self.add(name, id).await,
            NamespaceEvent::Removed { name, id } => {
                self.names.remove(&name);
                let path = self.watcher.directory().join(&name);
                if let Some(tracker) = &self.links.tracker {
                    let netns_ref = NetnsRef::Name { path, id };
                    tracker.untrack(NetnsKey::Mounted(id), netns_ref).await;
                }
                if !self.names.values().any(|known| *known == id) {
                    self.seen.remove(&NetnsKey::Mounted(id));
                }
            }
            NamespaceEvent::DirectoryAppeared | NamespaceEvent::DirectoryVanished => {}
        }
    }

    async fn add(&mut self, name: OsString, id: MountedNamespaceId) {
        let path = self.watcher.directory().join(&name);
        if let Some(tracker) = &self.links.tracker {
            let key = NetnsKey::Mounted(id);
            tracker.track(key, NetnsRef::Name { path, id }).await;
            self.seen.entry(key).or_insert(Seen::Awaited);
        }
        self.names.insert(name, id);
    }

    /// Returns all namespaces, each once, under the first of its names and with the others as aliases.
    fn picture(&self) -> Vec<NetworkNamespace> {
        let mut names: BTreeMap<u64, (NetnsKey, Vec<NamespaceName>)> = BTreeMap::new();
        let host = (NetnsKey::Host, vec![NamespaceName::host()]);
        names.insert(self.own_inode, host);
        for (name, id) in &self.names {
            if let Ok(name) = NamespaceName::named(name) {
                let key = NetnsKey::Mounted(*id);
                let entry = names.entry(id.inode());
                entry.or_insert((key, Vec::new())).1.push(name);
            }
        }
        let mut all: Vec<_> = names.into_values().collect();
        all.sort_by(|(_, a), (_, b)| a.cmp(b));
        let picture = all.iter().filter_map(|(key, names)| {
            let links = match self.seen.get(key) {
                Some(Seen::Links(links)) => &links[..],
                _ => &[],
            };
            let (name, aliases) = names.split_first()?;
            Some(network_namespace(name, aliases, links))
        });
        picture.collect()
    }

    /// Reads the links of a namespace now.
    async fn read(&self, key: NetnsKey) -> Result<Snapshot, String> {
        let Some(tracker) = &self.links.tracker else {
            return Err(self.links.problem.clone().unwrap_or_default());
        };
        let read = tracker.refresh(key).await;
        read.map_err(|err| chain(err.as_ref()).to_string())
    }
}
