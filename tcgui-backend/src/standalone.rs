//! A look at this host without a daemon: the same actors as the daemon's, without bus and inventory.
//!
//! It owns the watcher, the interfaces actor (where the kernel gives one) and what they have said. Inputs:
//! their events. Output: a [picture](StandaloneScan::next_picture) whenever it has changed. It ends when it is
//! dropped. It only reads: nothing is impaired, restored, created or kept open in a namespace.

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
    self, InterfacesEvent, InterfacesHandle, KernelLinks, Links, NetnsKey, Snapshot, Strangers,
};
use crate::kernel::netns::{MountedNamespaceId, NetnsFiles, NetnsRef};
use crate::kernel::rtnetlink::{Observer, Rtnetlink};
use crate::namespace_watcher::{
    self, Namespace, NamespaceEvent, NamespaceWatcherHandle, WatchConfig, WatchError,
};
use crate::sockets::NetnsSockets;

pub use explain::explain;

/// Requests to the kernel at once: one look, and one more that overlaps with it.
const REQUESTS: usize = 2;
/// How often links are looked at though nothing rang.
const LINK_SWEEP: Duration = Duration::from_secs(120);

/// Why nothing can be seen.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneScanError {
    /// `/proc` does not show the caller's own namespace.
    #[error("cannot look at network namespaces: is /proc mounted?")]
    OwnNamespace(#[source] io::Error),
    /// The netns directory cannot be watched.
    #[error("cannot watch network namespaces")]
    Watch(#[from] WatchError),
}

/// What happened.
enum Input {
    Namespace(Option<NamespaceEvent>),
    Links(InterfacesEvent),
}

/// This host as seen without a daemon.
#[derive(Debug)]
pub struct StandaloneScan {
    watcher: NamespaceWatcherHandle,
    links: LinkSource,
    names: BTreeMap<OsString, MountedNamespaceId>,
    /// The inode number of the caller's own namespace, which may have names too.
    own_inode: u64,
    /// Every namespace that is looked at; what comes about others comes too late.
    seen: HashMap<NetnsKey, Seen>,
}

/// What was seen of a namespace.
#[derive(Debug)]
enum Seen {
    /// Nothing yet: a picture waits for it.
    Awaited,
    /// It could not be read so far.
    InVain,
    Links(Links),
}

/// The interfaces actor; without the privileges that it needs there is none.
#[derive(Debug)]
struct LinkSource {
    tracker: Option<InterfacesHandle>,
    events: mpsc::Receiver<InterfacesEvent>,
    /// Why there is no actor.
    problem: Option<String>,
    /// Holds it; it goes with the set.
    _actor: JoinSet<()>,
}

impl LinkSource {
    fn open(files: NetnsFiles) -> Self {
        let mut actor = JoinSet::new();
        match Self::actor(files) {
            Ok((tracker, events, task)) => {
                actor.spawn(async move {
                    if let Err(err) = task.run(CancellationToken::new()).await {
                        debug!(error = %chain(&err), "links no longer heard");
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
                // Closed from the start: nothing will come.
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
        Ok(interfaces::open(kernel, LINK_SWEEP, Strangers::Ignore))
    }
}

impl StandaloneScan {
    /// Begins to look. What privileges do not allow is left out, not refused.
    ///
    /// # Errors
    /// [`StandaloneScanError`]: `/proc` is missing, or the netns directory exists and cannot be read.
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

    /// Returns why interfaces are not shown, where they are not.
    pub fn problem(&self) -> Option<&str> {
        self.links.problem.as_deref()
    }

    /// Waits until every namespace was looked at and something has changed since the last picture, and
    /// returns them all, the host first; `None` once the watcher has ended.
    ///
    /// Not cancel-safe: an event may be lost. To stop, drop the scan too.
    pub async fn next_picture(&mut self) -> Option<Vec<NetworkNamespace>> {
        while !self.links.events.is_empty() || !self.is_complete() {
            self.take_one().await?;
        }
        Some(self.picture())
    }

    /// Returns whether everything was looked at, or nothing more will be.
    fn is_complete(&self) -> bool {
        let awaits = |seen: &Seen| matches!(seen, Seen::Awaited);
        self.links.events.is_closed() || !self.seen.values().any(awaits)
    }

    /// Waits for one more change, after which there is another picture. Not cancel-safe, as
    /// [`Self::next_picture`].
    pub async fn changed(&mut self) -> Option<()> {
        self.take_one().await
    }

    async fn take_one(&mut self) -> Option<()> {
        let input = tokio::select! {
            biased;
            // Cancel-safe, both: what was not returned is still to come.
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
            // Never reported: only names are looked for.
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

    /// Returns what is there, each namespace once: under the first of its names, with the others.
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
