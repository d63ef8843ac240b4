//! The listed containers as a frontend sees them, and a record of every list.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::client::{self, array};
use crate::process::run;
use crate::scene::Scene;
use crate::wait::wait_for;

/// Wide, because engines are slow on a busy machine. Tests that need a narrow limit measure.
pub const SOON: Duration = Duration::from_secs(20);

/// The prefix of container names on the wire.
const PREFIX: &str = "container:";

/// Interface names with their ifindex.
pub type Interfaces = BTreeMap<String, u64>;

/// A listed namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its display name.
    pub name: String,
    /// Its other names.
    pub aliases: BTreeSet<String>,
    /// `Docker` or `Podman`. Empty if it is not listed as a container.
    pub runtime: String,
    /// The first digits of the container's id.
    pub short_id: String,
    /// The container's image.
    pub image: String,
    /// Its interfaces.
    pub interfaces: Interfaces,
}

impl Shown {
    fn read(entry: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let container = &entry["namespace_type"]["Container"];
        let interface = |it: &Value| Some((text(&it["name"]), it["index"].as_u64()?));
        Self {
            name: text(&entry["name"]),
            aliases: array(entry, "aliases").map(text).collect(),
            runtime: text(&container["runtime"]),
            short_id: text(&container["container_id"]),
            image: text(&container["image"]),
            interfaces: array(entry, "interfaces").filter_map(interface).collect(),
        }
    }

    /// All its names: the display name and the aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.aliases.iter().chain([&self.name]).map(String::as_str)
    }
}

/// A change between lists, with its time since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A container of this name appeared.
    Added(String, Duration),
    /// No container has this name any more.
    Removed(String, Duration),
}

/// One list.
#[derive(Debug, Clone)]
struct List {
    at: Duration,
    entries: Vec<Shown>,
}

impl List {
    /// The namespace of each container, by its name without the prefix.
    fn containers(&self) -> BTreeMap<String, Shown> {
        let mut containers = BTreeMap::new();
        for entry in &self.entries {
            let names = entry.names().filter_map(|name| name.strip_prefix(PREFIX));
            containers.extend(names.map(|name| (name.to_owned(), entry.clone())));
        }
        containers
    }
}

/// Every list that a client received.
#[derive(Debug, Clone, Default)]
pub struct View(Arc<Mutex<Vec<List>>>);

impl View {
    /// Starts the daemon with these options, and a client that records every list.
    ///
    /// # Errors
    ///
    /// As [`Scene::start`].
    pub fn start<S: AsRef<OsStr>>(scene: &mut Scene, args: &[S]) -> anyhow::Result<Self> {
        let view = Self::default();
        let lists = Arc::clone(&view.0);
        scene.start_watched(args, client::Options::default(), move |list| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let list = List {
                at: now.unwrap_or_default(),
                entries: array(list, "namespaces").map(Shown::read).collect(),
            };
            let mut lists = lists.lock().unwrap_or_else(PoisonError::into_inner);
            lists.push(list);
        })?;
        Ok(view)
    }

    fn lists(&self) -> Vec<List> {
        let lists = self.0.lock();
        lists.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The containers in the newest list, by each of their names.
    #[must_use]
    pub fn shown(&self) -> BTreeMap<String, Shown> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.last().map(List::containers).unwrap_or_default()
    }

    /// The interfaces of the host in the newest list.
    #[must_use]
    pub fn host(&self) -> Interfaces {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = lists.last().map(|list| &list.entries[..]);
        let mut entries = entries.unwrap_or_default().iter();
        let host = entries.find(|it| it.name == "default");
        host.map(|it| it.interfaces.clone()).unwrap_or_default()
    }

    /// The containers that appeared and disappeared so far, by name.
    #[must_use]
    pub fn history(&self) -> Vec<Seen> {
        let mut history = Vec::new();
        let mut before = BTreeSet::new();
        for list in self.lists() {
            let now: BTreeSet<_> = list.containers().into_keys().collect();
            let gone = before.difference(&now).cloned();
            history.extend(gone.map(|name| Seen::Removed(name, list.at)));
            let come = now.difference(&before).cloned();
            history.extend(come.map(|name| Seen::Added(name, list.at)));
            before = now;
        }
        history
    }

    /// Waits until exactly these containers are listed, and returns them.
    ///
    /// # Errors
    ///
    /// When the deadline passes first.
    pub fn wait_names(&self, names: &[&str]) -> anyhow::Result<BTreeMap<String, Shown>> {
        let what = format!("exactly {names:?} are listed");
        wait_for(&what, SOON, || self.shown(), |shown| shown.keys().eq(names))
    }

    /// Checks that no list had a name twice or more than `most` entries for which `belongs` is true.
    ///
    /// # Errors
    ///
    /// When a list violates this. The message contains the list.
    pub fn ensure_always(
        &self,
        most: usize,
        belongs: impl Fn(&Shown) -> bool,
    ) -> anyhow::Result<()> {
        let lists = self.lists();
        ensure!(!lists.is_empty(), "there was no list");
        for list in lists {
            let mut names = BTreeSet::new();
            let mut all = list.entries.iter().flat_map(Shown::names);
            ensure!(all.all(|name| names.insert(name)), "twice: {list:?}");
            let count = list.entries.iter().filter(|it| belongs(it)).count();
            ensure!(count <= most, "{count} entries of one namespace: {list:?}");
        }
        Ok(())
    }
}

/// Runs a program in the network namespace of a process.
///
/// # Errors
///
/// When it fails.
pub fn in_netns_of(pid: u32, command: &[&str]) -> anyhow::Result<String> {
    let place = format!("--net=/proc/{pid}/ns/net");
    run(Command::new("nsenter").arg(place).args(command))
}

/// The actual interfaces in the network namespace of a process.
///
/// # Errors
///
/// When the process has ended.
pub fn really(pid: u32) -> anyhow::Result<Interfaces> {
    let lines = in_netns_of(pid, &["ip", "-o", "link"])?;
    let interface = |line: &str| {
        let mut words = line.split(": ");
        let index = words.next().context("no index")?.parse()?;
        let name = words.next().context("no name")?;
        let (name, _) = name.split_once('@').unwrap_or((name, ""));
        Ok((name.to_owned(), index))
    };
    lines.lines().map(interface).collect()
}
