//! Prints named network namespaces as they come and go: `cargo run --example watch_namespaces [DIR]`.
#![expect(clippy::print_stdout, reason = "printing is what this example is for")]

use tcgui_backend::namespace_watcher::{WatchConfig, list_and_watch};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut config = WatchConfig::default();
    if let Some(directory) = std::env::args_os().nth(1) {
        config.directory = directory.into();
    }
    let (namespaces, mut watcher) = list_and_watch(config, CancellationToken::new()).await?;
    for namespace in namespaces {
        println!("{:?} is {}", namespace.name, namespace.id);
    }
    while let Some(event) = watcher.next().await {
        println!("{event:?}");
    }
    Ok(())
}
