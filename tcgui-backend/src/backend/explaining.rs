//! Explains a name from the inventory at the time of the request, the status of the watcher, and a new read of the host.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tcgui_shared::explain::ExplainResponse;
use tcgui_shared::names::NamespaceName;

use super::inventory::Known;
use crate::blocking;
use crate::error::chain;
use crate::explain::{self, Facts, LinkFacts, entry_facts, host_facts};
use crate::interfaces::InterfacesHandle;
use crate::kernel::netns::NetnsFiles;
use crate::namespace_watcher::StatusHandle;

/// Maximum time for reading links that were not seen yet. The result is only used for the explanation.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// A client's request, with the facts from the inventory.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) name: NamespaceName,
    pub(super) known: Known,
}

/// The handles and paths that an explanation needs.
#[derive(Debug)]
pub(super) struct Explainer {
    pub(super) files: NetnsFiles,
    /// The netns directory.
    pub(super) directory: PathBuf,
    pub(super) watcher: StatusHandle,
    pub(super) tracker: InterfacesHandle,
}

impl Explainer {
    /// Returns the explanation. Reads files on a blocking thread.
    pub(super) async fn explain(self, question: Question) -> ExplainResponse {
        let Question { name, known } = question;
        let entry_name = match &name {
            NamespaceName::Named(name) => Some(name.clone()),
            _ => None,
        };
        let asked = entry_name.as_ref().map(|name| name.as_os_str().to_owned());
        // The watcher does not reply while it is blocked in a file system that hangs.
        let watcher = tokio::time::timeout(READ_TIMEOUT, self.watcher.ask(asked)).await;
        let watcher = match watcher {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("the watcher has ended".to_owned()),
            Err(_) => Err("the watcher does not answer: a file system may hang".to_owned()),
        };
        let (files, directory) = (self.files, self.directory);
        let (entry, host) = blocking::run(move || {
            let entry = entry_name.map(|name| entry_facts(&files, &directory, &name));
            (entry, host_facts())
        })
        .await;
        let links = match (known.links, known.key) {
            (LinkFacts::NotSeen, Some(key)) => {
                let look = self.tracker.refresh(key);
                match tokio::time::timeout(READ_TIMEOUT, look).await {
                    Ok(Err(err)) => LinkFacts::Unreadable(chain(err.as_ref()).to_string()),
                    // The next list will contain it.
                    Ok(Ok(_)) | Err(_) => LinkFacts::NotSeen,
                }
            }
            (links, _) => links,
        };
        explain::explain(&Facts {
            name,
            entry,
            host,
            watcher,
            aliases: known.aliases,
            links,
            netlink: Some(self.tracker.last_event_at()),
            now: Instant::now(),
        })
    }
}
