//! Exit watches on the holders that were reported to the consumer.

use crate::exit_watches::ExitWatches;
use crate::kernel::netns::{NetnsFiles, OpenError, ProcessNetnsId};
use crate::kernel::pidfd::ProcessEnd;

/// One pidfd and one task for each reported holder. Each reported namespace has one holder.
#[derive(Debug)]
pub(super) struct HolderExits {
    files: NetnsFiles,
    watches: ExitWatches<ProcessNetnsId>,
}

impl HolderExits {
    pub(super) fn new(files: NetnsFiles) -> Self {
        Self {
            files,
            watches: ExitWatches::new(),
        }
    }

    /// Watches a holder. Does nothing if it is watched already.
    ///
    /// # Errors
    /// [`OpenError::Gone`] if the process does not hold the namespace any more. With any other error the process
    /// cannot be watched, and a sweep finds its exit.
    pub(super) fn watch(&mut self, id: ProcessNetnsId) -> Result<(), OpenError> {
        if !self.watches.contains(&id) {
            self.watches.watch(id, ProcessEnd::open(self.files, id)?);
        }
        Ok(())
    }

    /// Removes the watch.
    pub(super) fn forget(&mut self, id: ProcessNetnsId) {
        self.watches.forget(&id);
    }

    /// Waits for the exit of a holder. Cancel-safe.
    pub(super) async fn next(&mut self) -> ProcessNetnsId {
        self.watches.next().await
    }
}
