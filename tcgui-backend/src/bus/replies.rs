//! Writing to clients that may not read: on a blocking thread, one at a time, never on Zenoh's.
//!
//! A client that is frozen blocks whoever writes to it until its link is given up. Zenoh holds the lock
//! of the link's queue meanwhile, one queue for each priority (`push_network_message`,
//! `zenoh-transport/src/common/pipeline.rs`). A reply has the priority of its query, which is
//! [`WAITING`] unless the client chose another one; publications have a higher one ([`PROMPT`]) and are
//! dropped rather than kept, so they never wait behind a reply.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use zenoh::bytes::ZBytes;
use zenoh::qos::Priority;
use zenoh::query::Query;

/// Of what waits for clients: replies, and numbers of samples.
pub(super) const WAITING: Priority = Priority::Data;
/// Of publications.
pub(super) const PROMPT: Priority = Priority::DataHigh;

/// Writes what clients wait for.
#[derive(Debug, Clone)]
pub(super) struct Replies {
    tracker: TaskTracker,
    runtime: Handle,
    writing: Arc<Semaphore>,
    discarding: Arc<Semaphore>,
}

/// Queries that may wait to be ended without an answer.
const DISCARDS: usize = 4096;

impl Replies {
    /// Writes one after the other, as tasks of `tracker`.
    ///
    /// Several at once would not be faster, and wait for a frozen client one after the other, each for the
    /// whole time: Zenoh sees that a link is given up only before it waits. With one, the first waits
    /// and the others fail at once.
    pub(super) fn new(tracker: &TaskTracker) -> Self {
        Self {
            tracker: tracker.clone(),
            runtime: Handle::current(),
            writing: Arc::new(Semaphore::new(1)),
            discarding: Arc::new(Semaphore::new(DISCARDS)),
        }
    }

    /// Writes the answer once it is there. `permit` is given back when that is done. What the query
    /// carries is gone by then.
    pub(super) fn deliver<A: Send + 'static>(
        &self,
        mut query: Query,
        permit: OwnedSemaphorePermit,
        answer: impl Future<Output = A> + Send + 'static,
        write: impl FnOnce(Query, A) + Send + 'static,
    ) {
        strip(&mut query);
        let replies = self.clone();
        let deliver = async move {
            let answer = answer.await;
            replies.write(move || write(query, answer)).await;
            drop(permit);
        };
        self.tracker.spawn_on(deliver, &self.runtime);
    }

    /// Ends a query that gets no answer, which is a message that waits for its client too.
    pub(super) fn discard(&self, query: Query) {
        // So many at once come from an attacker, whom the thread of Zenoh that brings them waits for.
        if let Ok(permit) = Arc::clone(&self.discarding).try_acquire_owned() {
            self.deliver(query, permit, std::future::ready(()), |query, ()| {
                drop(query)
            });
        }
    }

    /// Writes when it is its turn, and returns when it is written.
    pub(super) async fn write(&self, write: impl FnOnce() + Send + 'static) {
        // The semaphore is never closed.
        let _writing = self.writing.acquire().await;
        // A write that panicked has no answer to give.
        tokio::task::spawn_blocking(write).await.ok();
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// Drops what a query carries: each part of it keeps the whole batch that was received, up to 64 KiB.
fn strip(query: &mut Query) {
    if let Some(payload) = query.payload_mut() {
        *payload = ZBytes::new();
    }
    if let Some(attachment) = query.attachment_mut() {
        *attachment = ZBytes::new();
    }
}
