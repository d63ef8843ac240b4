//! Prints containers as they come and go: `cargo run --example watch_containers [SOCKET]...`.
//!
//! Each line is `+ NAME RUNTIME SHORT_ID PID INODE IMAGE` or `- PID INODE`, flushed at once. Without arguments it
//! follows the engines that the daemon would.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use tcgui_backend::containers::{self, ContainersConfig, Environment};
use tcgui_backend::held::{HeldEvent, Holder, HolderKind};
use tcgui_backend::kernel::netns::NetnsFiles;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// More than a burst of containers; when it is full, the actor waits.
const EVENTS: usize = 64;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let sockets: Vec<_> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let config = if sockets.is_empty() {
        ContainersConfig::new(&Environment::read(), [])
    } else {
        ContainersConfig {
            sockets,
            ..ContainersConfig::default()
        }
    };
    let files = NetnsFiles::new().context("read the own network namespace")?;
    let (sender, mut events) = mpsc::channel(EVENTS);
    let mut actor = JoinSet::new();
    let stop = CancellationToken::new();
    actor.spawn(containers::open(config, files, sender).run(stop));
    while let Some(event) = events.recv().await {
        let mut out = io::stdout().lock();
        match event {
            HeldEvent::Added(Holder { id, kind }) => {
                let HolderKind::Container(it) = kind else {
                    continue;
                };
                let (pid, inode) = (id.pid(), id.inode());
                let (name, runtime) = (it.name.as_str(), it.runtime);
                let (short_id, image) = (&it.short_id, &it.image);
                writeln!(out, "+ {name} {runtime:?} {short_id} {pid} {inode} {image}")?;
            }
            HeldEvent::Removed(id) => writeln!(out, "- {} {}", id.pid(), id.inode())?,
        }
        out.flush()?;
    }
    Ok(())
}
