//! The watcher as a library: records the time of each event of [`list_and_watch`].

use anyhow::Context;
use tcgui_backend::namespace_watcher::{
    NamespaceEvent, NamespaceWatcherHandle, WatchConfig, list_and_watch,
};
use tcgui_tests::client::monotonic_ns;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::progress;
use crate::protocol::{self, Thing};

pub(super) fn play() -> anyhow::Result<()> {
    let runtime = Runtime::new().context("start the runtime")?;
    let stop = CancellationToken::new();
    let watch = list_and_watch(WatchConfig::default(), stop.clone());
    let (_, events) = runtime.block_on(watch).context("watch namespaces")?;
    // The consumer is a task, like in the daemon.
    let mut tasks = JoinSet::new();
    tasks.spawn_on(report(events), runtime.handle());

    let served = protocol::serve(|_: Thing| Ok(0));
    stop.cancel();
    while let Some(ended) = runtime.block_on(tasks.join_next()) {
        ended.context("the watcher's consumer")?;
    }
    served
}

async fn report(mut events: NamespaceWatcherHandle) {
    while let Some(event) = events.next().await {
        let said = monotonic_ns().and_then(|now| {
            let (thing, present) = seen(event);
            protocol::send_sight(thing, present, now)
        });
        if let Err(error) = said {
            return progress::complain(&error);
        }
    }
}

fn seen(event: NamespaceEvent) -> (Thing, bool) {
    let namespace = |name: std::ffi::OsString| Thing::Namespace {
        name: name.to_string_lossy().into_owned(),
    };
    match event {
        NamespaceEvent::DirectoryAppeared => (Thing::Directory, true),
        NamespaceEvent::DirectoryVanished => (Thing::Directory, false),
        NamespaceEvent::Added { name, .. } => (namespace(name), true),
        NamespaceEvent::Removed { name, .. } => (namespace(name), false),
    }
}
