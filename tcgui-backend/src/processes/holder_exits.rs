//! Watches on the ends of the holders that the consumer was told of.

use crate::exit_watches::ExitWatches;
use crate::kernel::netns::{NetnsFiles, OpenError, ProcessNetnsId};
use crate::kernel::pidfd::ProcessEnd;

/// One descriptor and one task for each holder, of which there is one for each reported namespace.
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

    /// Watches a holder, unless it is watched already.
    ///
    /// # Errors
    /// [`OpenError::Gone`] when it is not a holder any more; otherwise it cannot be watched, and its end is
    /// found by a sweep.
    pub(super) fn watch(&mut self, id: ProcessNetnsId) -> Result<(), OpenError> {
        if !self.watches.contains(&id) {
            self.watches.watch(id, ProcessEnd::open(self.files, id)?);
        }
        Ok(())
    }

    /// Forgets a holder.
    pub(super) fn forget(&mut self, id: ProcessNetnsId) {
        self.watches.forget(&id);
    }

    /// Waits for the end of a holder. Cancel-safe.
    pub(super) async fn next(&mut self) -> ProcessNetnsId {
        self.watches.next().await
    }
}
