//! Writing to clients that may not read: on a blocking thread, one after the other, never on Zenoh's.
//!
//! A client that is frozen blocks whoever writes to it until its link is given up. Zenoh holds the lock
//! of the link's queue meanwhile, one queue for each priority (`push_network_message`,
//! `zenoh-transport/src/common/pipeline.rs`). A reply has the priority of its query, which is
//! [`WAITING`] unless the client chose another one; publications have a higher one ([`PROMPT`]) and are
//! dropped rather than kept, so they never wait behind a reply.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::TaskTracker;
use tracing::error;
use zenoh::bytes::ZBytes;
use zenoh::qos::Priority;
use zenoh::query::Query;

/// Of what waits for clients: replies, and numbers of samples.
pub(super) const WAITING: Priority = Priority::Data;
/// Of publications.
pub(super) const PROMPT: Priority = Priority::DataHigh;

/// So many others may go before an answer that yields: however steady their stream is, it is written.
const OTHERS_FIRST: usize = 64;

/// So many are written by who has something else to do then.
const WRITTEN_HERE: usize = 4;

/// Queries that may wait to be ended without an answer.
const DISCARDS: usize = 4096;

/// Whose answer is written first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// In the order in which they come.
    InOrder,
    /// When no other waits, or many others have gone first.
    Last,
}

/// Writes what clients wait for; clones share the queue.
///
/// One thread writes at a time, for as long as there is something to write. Several would not be faster,
/// and wait for a frozen client one after the other, each for the whole time: Zenoh sees that a link is
/// given up only before it waits. With one, the first write waits and the others fail at once.
///
/// Whoever puts a job into the queue bounds how many there are.
#[derive(Debug, Clone)]
pub(super) struct Replies {
    tracker: TaskTracker,
    runtime: Handle,
    queue: Arc<Mutex<Queue>>,
    discarding: Arc<Semaphore>,
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    in_order: VecDeque<Job>,
    last: VecDeque<Job>,
    /// How many went before the first of `last`.
    passed: usize,
    /// A thread takes jobs out until there are none.
    writing: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.in_order.is_empty() && self.last.is_empty()
    }

    fn pop(&mut self) -> Option<Job> {
        let yields = self.passed < OTHERS_FIRST;
        let other = self
            .in_order
            .pop_front_if(|_| yields || self.last.is_empty());
        if other.is_some() && !self.last.is_empty() {
            self.passed += 1;
            return other;
        }
        self.passed = 0;
        other.or_else(|| self.last.pop_front())
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.in_order.len() + self.last.len();
        f.debug_struct("Queue").field("waiting", &waiting).finish()
    }
}

impl Replies {
    /// Writes on blocking threads of the current runtime; `tracker` counts what is not written yet.
    pub(super) fn new(tracker: &TaskTracker) -> Self {
        Self {
            tracker: tracker.clone(),
            runtime: Handle::current(),
            queue: Arc::default(),
            discarding: Arc::new(Semaphore::new(DISCARDS)),
        }
    }

    /// Writes when it is its turn. Never waits.
    pub(super) fn enqueue(&self, turn: Turn, write: impl FnOnce() + Send + 'static) {
        let token = self.tracker.token();
        let job = Box::new(move || {
            write();
            drop(token);
        });
        let mut queue = self.lock();
        match turn {
            Turn::InOrder => queue.in_order.push_back(job),
            Turn::Last => queue.last.push_back(job),
        }
        if std::mem::replace(&mut queue.writing, true) {
            return;
        }
        drop(queue);
        self.spawn_writer();
    }

    fn spawn_writer(&self) {
        let replies = self.clone();
        let writer = self.runtime.spawn_blocking(move || replies.write_all());
        // It ends with the queue; what is left when the runtime ends has no client any more.
        drop(writer);
    }

    /// Calls `answer` and writes what it puts into the queue, on this thread, which may block: nobody has
    /// to be woken for it.
    pub(super) fn write_here(&self, answer: impl FnOnce()) {
        if self.gather(answer).0.take().is_some() {
            self.write_all();
        }
    }

    /// Calls `answer`, and keeps what it puts into the queue, to be written on this thread.
    pub(super) fn gather(&self, answer: impl FnOnce()) -> Unwritten {
        let mine = !std::mem::replace(&mut self.lock().writing, true);
        // Also after a panic it is written.
        let unwritten = Unwritten(mine.then(|| self.clone()));
        answer();
        unwritten
    }

    /// Writes when it is its turn, and returns when it is written.
    pub(super) async fn write(&self, write: impl FnOnce() + Send + 'static) {
        let (done, written) = oneshot::channel();
        self.enqueue(Turn::InOrder, move || {
            write();
            done.send(()).ok();
        });
        // A write that panicked is done too.
        written.await.ok();
    }

    /// Ends a query that gets no answer, which is a message that waits for its client too.
    pub(super) fn discard(&self, mut query: Query) {
        // So many at once come from an attacker, whom the thread of Zenoh that brings them waits for.
        if let Ok(permit) = Arc::clone(&self.discarding).try_acquire_owned() {
            strip(&mut query);
            self.enqueue(Turn::InOrder, move || {
                drop(query);
                drop(permit);
            });
        }
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn write_all(&self) {
        while let Some(job) = self.next() {
            perform(job);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        let job = queue.pop();
        queue.writing = job.is_some();
        job
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What nobody else writes meanwhile. Dropped, it is written by another thread.
#[derive(Debug)]
#[must_use = "a thread is woken to write it"]
pub struct Unwritten(Option<Replies>);

impl Unwritten {
    /// Writes on this thread, which may block for as long as it takes to give up a few clients. Whatever more there
    /// is, another thread writes.
    pub fn write(mut self) {
        let Some(replies) = &self.0 else { return };
        for _ in 0..WRITTEN_HERE {
            let Some(job) = replies.next() else {
                self.0 = None;
                return;
            };
            perform(job);
        }
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        if let Some(replies) = self.0.take() {
            let mut queue = replies.lock();
            queue.writing = !queue.is_empty();
            let is_left = queue.writing;
            drop(queue);
            if is_left {
                replies.spawn_writer();
            }
        }
    }
}

fn perform(job: Job) {
    // The others still have to be written; the hook has said where it was.
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        error!("writing to a client failed");
    }
}

/// Drops what a query carries: each part of it keeps the whole batch that was received, up to 64 KiB.
pub(super) fn strip(query: &mut Query) {
    if let Some(payload) = query.payload_mut() {
        *payload = ZBytes::new();
    }
    if let Some(attachment) = query.attachment_mut() {
        *attachment = ZBytes::new();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(5);

    #[tokio::test(flavor = "multi_thread")]
    async fn others_come_first_and_a_panic_ends_nothing() {
        let tracker = TaskTracker::new();
        let replies = Replies::new(&tracker);
        let (go, gate) = mpsc::channel::<()>();
        let (tx, order) = mpsc::channel();
        let note = |number| {
            let tx = tx.clone();
            move || tx.send(number).unwrap()
        };
        replies.enqueue(Turn::InOrder, move || gate.recv().unwrap());
        replies.enqueue(Turn::Last, note(3));
        replies.enqueue(Turn::InOrder, || panic!("on purpose"));
        replies.enqueue(Turn::InOrder, note(1));
        replies.enqueue(Turn::InOrder, note(2));
        go.send(()).unwrap();
        tracker.close();
        tokio::time::timeout(LONG, tracker.wait()).await.unwrap();
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn written_on_the_thread_of_whoever_answers() {
        let replies = Replies::new(&TaskTracker::new());
        let writer = Arc::new(Mutex::new(None));
        let (seen, answering) = (Arc::clone(&writer), replies.clone());
        replies.write_here(|| {
            answering.enqueue(Turn::InOrder, move || {
                *seen.lock().unwrap() = Some(std::thread::current().id());
            });
        });
        assert_eq!(*writer.lock().unwrap(), Some(std::thread::current().id()));
        replies.write(|| {}).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_has_something_else_to_do_writes_few() {
        for written_here in [true, false] {
            let replies = Replies::new(&TaskTracker::new());
            let (tx, writers) = mpsc::channel();
            let unwritten = replies.gather(|| {
                for _ in 0..=WRITTEN_HERE {
                    let tx = tx.clone();
                    replies.enqueue(Turn::InOrder, move || {
                        tx.send(std::thread::current().id()).unwrap();
                    });
                }
            });
            assert!(writers.try_recv().is_err(), "nobody writes yet");
            if written_here {
                unwritten.write();
            } else {
                drop(unwritten);
            }
            drop(tx);
            let writers = tokio::task::spawn_blocking(move || writers.iter().collect::<Vec<_>>());
            let writers = tokio::time::timeout(LONG, writers).await.unwrap().unwrap();
            let here = std::thread::current().id();
            let count = writers.iter().filter(|writer| **writer == here).count();
            assert_eq!(count, if written_here { WRITTEN_HERE } else { 0 });
            assert_eq!(writers.len(), WRITTEN_HERE + 1);
            // The next one finds nobody writing.
            tokio::time::timeout(LONG, replies.write(|| {}))
                .await
                .unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_yields_has_a_turn_in_a_steady_stream_of_others() {
        let replies = Replies::new(&TaskTracker::new());
        let (tx, order) = mpsc::channel();
        let note = |number: usize| {
            let tx = tx.clone();
            move || tx.send(number).unwrap()
        };
        replies.write_here(|| {
            replies.enqueue(Turn::Last, note(usize::MAX));
            for number in 0..OTHERS_FIRST * 2 {
                replies.enqueue(Turn::InOrder, note(number));
            }
        });
        let order: Vec<_> = order.try_iter().collect();
        assert_eq!(order.len(), OTHERS_FIRST * 2 + 1);
        assert_eq!(order[OTHERS_FIRST], usize::MAX);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_in_the_queue_is_written_though_whoever_answers_panics() {
        let replies = Replies::new(&TaskTracker::new());
        let answering = AssertUnwindSafe(|| replies.write_here(|| panic!("on purpose")));
        catch_unwind(answering).unwrap_err();
        let written = replies.write(|| {});
        tokio::time::timeout(LONG, written).await.expect("a writer");
    }
}
