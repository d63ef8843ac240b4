//! Watches on the ends of the holders that the consumer was told of.

use std::collections::HashMap;
use std::future::pending;

use tokio::task::{AbortHandle, JoinSet};

use crate::kernel::netns::{HeldNamespaceId, NetnsFiles, OpenError};
use crate::kernel::pidfd::ProcessEnd;

/// One descriptor and one task for each holder, of which there is one for each reported namespace.
#[derive(Debug)]
pub(super) struct Ends {
    files: NetnsFiles,
    waits: JoinSet<HeldNamespaceId>,
    watched: HashMap<HeldNamespaceId, AbortHandle>,
}

impl Ends {
    pub(super) fn new(files: NetnsFiles) -> Self {
        Self {
            files,
            waits: JoinSet::new(),
            watched: HashMap::new(),
        }
    }

    /// Watches a holder, unless it is watched already.
    ///
    /// # Errors
    /// [`OpenError::Gone`] when it is not a holder any more; otherwise it cannot be watched, and its end is
    /// found by a sweep.
    pub(super) fn watch(&mut self, id: HeldNamespaceId) -> Result<(), OpenError> {
        if self.watched.contains_key(&id) {
            return Ok(());
        }
        let end = ProcessEnd::open(self.files, id)?;
        let wait = self.waits.spawn(async move {
            // It fails only while the runtime shuts down.
            end.wait().await.ok();
            id
        });
        self.watched.insert(id, wait);
        Ok(())
    }

    /// Forgets a holder.
    pub(super) fn forget(&mut self, id: HeldNamespaceId) {
        if let Some(wait) = self.watched.remove(&id) {
            wait.abort();
        }
    }

    /// Waits for the end of a holder. Cancel-safe: the set keeps what is not returned.
    pub(super) async fn next(&mut self) -> HeldNamespaceId {
        loop {
            match self.waits.join_next().await {
                Some(Ok(id)) => {
                    self.watched.remove(&id);
                    return id;
                }
                // Forgotten.
                Some(Err(_)) => {}
                None => return pending().await,
            }
        }
    }
}
