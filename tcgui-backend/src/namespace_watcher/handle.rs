//! The consumer's handle: receives events singly or as a stream, and gives access to the status.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{NamespaceEvent, StatusHandle};

/// Receives the events of a watcher. Dropping it ends the watcher.
///
/// The stream ends when the watcher ends, so the usual combinators apply:
///
/// ```
/// use futures_util::StreamExt;
/// use tcgui_backend::namespace_watcher::{NamespaceEvent, WatchConfig, list_and_watch};
/// use tokio_util::sync::CancellationToken;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let netns = tempfile::tempdir()?;
/// # let config = WatchConfig { directory: netns.path().to_owned(), ..WatchConfig::default() };
/// let stop = CancellationToken::new();
/// let (_, watcher) = list_and_watch(config, stop.clone()).await?;
/// # std::os::unix::fs::symlink("/proc/self/ns/net", netns.path().join("own"))?;
/// let events: Vec<NamespaceEvent> = watcher
///     .inspect(|_| stop.cancel())
///     .collect()
///     .await;
/// assert_eq!(events.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct NamespaceWatcherHandle {
    events: mpsc::Receiver<NamespaceEvent>,
    directory: PathBuf,
    status: StatusHandle,
    /// The actor, if it has no other supervisor. It is aborted when the set is dropped.
    actor: JoinSet<()>,
}

impl NamespaceWatcherHandle {
    pub(super) fn new(
        events: mpsc::Receiver<NamespaceEvent>,
        directory: PathBuf,
        status: StatusHandle,
    ) -> Self {
        Self {
            events,
            directory,
            status,
            actor: JoinSet::new(),
        }
    }

    /// Runs the actor until it ends or the handle is dropped.
    pub(super) fn own(&mut self, life: impl Future<Output = ()> + Send + 'static) {
        self.actor.spawn(life);
    }

    /// Returns the watched directory as it was configured. All names are relative to it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns a handle for status requests. It can be cloned. It returns no status after the watcher has ended.
    pub fn status(&self) -> StatusHandle {
        self.status.clone()
    }

    /// Waits for the next event. Always returns `None` after the watcher has ended.
    ///
    /// Cancel-safe: an event that was not returned is returned by the next call.
    pub async fn next(&mut self) -> Option<NamespaceEvent> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for NamespaceWatcherHandle {
    type Item = NamespaceEvent;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<NamespaceEvent>> {
        if let Some(event) = ready!(self.events.poll_recv(context)) {
            return Poll::Ready(Some(event));
        }
        match ready!(self.actor.poll_join_next(context)) {
            Some(Err(err)) if err.is_panic() => std::panic::resume_unwind(err.into_panic()),
            _ => Poll::Ready(None),
        }
    }
}
