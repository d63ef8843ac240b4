//! Writes replies to clients that may not read: on blocking threads, at most one for each client, never on Zenoh's
//! threads.
//!
//! A client that does not read blocks the thread that writes to it until Zenoh closes its link. In the meantime Zenoh
//! holds the lock of the link's queue. There is one queue for each priority (`push_network_message`,
//! `zenoh-transport/src/common/pipeline.rs`). So each client has its own lane, and a blocked client delays only its own
//! replies. A reply has the priority of its query, usually [`WAITING`]. Publications have a higher one ([`PROMPT`]) and
//! are dropped if a queue is full, so they do not wait behind replies.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task;
use tokio_util::task::TaskTracker;
use tracing::error;
use zenoh::bytes::ZBytes;
use zenoh::qos::Priority;
use zenoh::query::Query;

/// The priority of replies and heartbeats.
pub(super) const WAITING: Priority = Priority::Data;
/// The priority of publications.
pub(super) const PROMPT: Priority = Priority::DataHigh;

/// Number of other jobs of the lane that may precede a job with [`ReplyPriority::Last`]. This limits how long that job
/// waits.
const OTHERS_FIRST: usize = 64;

/// Limit of queries that wait to be ended without a reply.
const DISCARDS: usize = 4096;

/// Number of threads that write at the same time, each to one client. If more clients are blocked, all clients wait.
pub(super) const WRITERS: usize = 128;

/// The order of the jobs in one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyPriority {
    /// In the order of arrival.
    InOrder,
    /// After all other waiting jobs, or after [`OTHERS_FIRST`] of them.
    Last,
}

/// The link on which a query arrived.
///
/// Zenoh does not tell a queryable which client sent a query. But it reads each link in a separate task, and calls the
/// queryable in that task. So the id of the task identifies the link. A router forwards the queries of all its clients
/// over one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Link(Option<task::Id>);

impl Link {
    /// No single link: the lane for messages to all clients.
    pub(super) const ALL: Self = Self(None);

    /// Returns the link whose query is being delivered on this thread.
    pub(super) fn of_current_query() -> Self {
        Self(task::try_id())
    }
}

/// Writes replies and heartbeats. Clones share the lanes.
///
/// At most one thread writes in a lane at a time, and up to [`WRITERS`] threads write in different lanes. Several
/// threads in one lane would wait for the same blocked client one after the other, each until its deadline, because
/// Zenoh checks only before the wait whether the link is closed.
///
/// The caller of [`Self::enqueue`] limits the number of jobs.
#[derive(Debug, Clone)]
pub(super) struct Replies {
    tracker: TaskTracker,
    runtime: Handle,
    lanes: Arc<Mutex<Lanes>>,
    discarding: Arc<Semaphore>,
}

type Job = Box<dyn FnOnce() + Send>;

/// The jobs of one client.
#[derive(Default)]
struct Lane {
    in_order: VecDeque<Job>,
    last: VecDeque<Job>,
    /// Number of jobs that have preceded the first job of `last`.
    passed: usize,
}

impl Lane {
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

#[derive(Default)]
struct Lanes {
    /// A lane exists from its first job until a writer has found it empty.
    lanes: HashMap<Link, Lane>,
    /// Lanes with jobs and without a writer, in the order of their first job.
    ready: VecDeque<Link>,
    writers: usize,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes")
            .field("lanes", &self.lanes.len())
            .field("writers", &self.writers)
            .finish_non_exhaustive()
    }
}

impl Replies {
    /// Creates the lanes. Jobs run on blocking threads of the current runtime. `tracker` counts the jobs that are not
    /// done.
    pub(super) fn new(tracker: &TaskTracker) -> Self {
        Self {
            tracker: tracker.clone(),
            runtime: Handle::current(),
            lanes: Arc::default(),
            discarding: Arc::new(Semaphore::new(DISCARDS)),
        }
    }

    /// Adds a job to the lane of a link. Never waits.
    pub(super) fn enqueue(
        &self,
        link: Link,
        turn: ReplyPriority,
        write: impl FnOnce() + Send + 'static,
    ) {
        let token = self.tracker.token();
        let job = Box::new(move || {
            write();
            drop(token);
        });
        let mut lanes = self.lock();
        let is_new = !lanes.lanes.contains_key(&link);
        let lane = lanes.lanes.entry(link).or_default();
        match turn {
            ReplyPriority::InOrder => lane.in_order.push_back(job),
            ReplyPriority::Last => lane.last.push_back(job),
        }
        if !is_new {
            return;
        }
        lanes.ready.push_back(link);
        if lanes.writers == WRITERS {
            return;
        }
        lanes.writers += 1;
        drop(lanes);
        let replies = self.clone();
        // The thread ends when there are no jobs. If the runtime ends before, the clients of the remaining jobs are
        // gone.
        drop(self.runtime.spawn_blocking(move || replies.write_lanes()));
    }

    /// Adds a job for all clients, and returns when it is done.
    pub(super) async fn write_to_all(&self, write: impl FnOnce() + Send + 'static) {
        let (done, written) = oneshot::channel();
        self.enqueue(Link::ALL, ReplyPriority::InOrder, move || {
            write();
            done.send(()).ok();
        });
        // A job that panicked is also done.
        written.await.ok();
    }

    /// Ends a query without a reply. The end is a message that also waits for the client.
    pub(super) fn discard(&self, link: Link, mut query: Query) {
        // Only an attacker sends that many queries. Without a permit, the query ends on the thread of the attacker's
        // own link.
        if let Ok(permit) = Arc::clone(&self.discarding).try_acquire_owned() {
            strip(&mut query);
            self.enqueue(link, ReplyPriority::InOrder, move || {
                drop(query);
                drop(permit);
            });
        }
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Runs the jobs of one ready lane after the other.
    fn write_lanes(&self) {
        while let Some(link) = self.next_lane() {
            while let Some(job) = self.next_job(link) {
                perform(job);
            }
        }
    }

    fn next_lane(&self) -> Option<Link> {
        let mut lanes = self.lock();
        let link = lanes.ready.pop_front();
        if link.is_none() {
            lanes.writers -= 1;
        }
        link
    }

    fn next_job(&self, link: Link) -> Option<Job> {
        let mut lanes = self.lock();
        let job = lanes.lanes.get_mut(&link).and_then(Lane::pop);
        if job.is_none() {
            lanes.lanes.remove(&link);
        }
        job
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn perform(job: Job) {
    // The panic hook has logged the panic. The other jobs must still run.
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        error!("writing to a client failed");
    }
}

/// Drops the payload and the attachment of a query. Each of them keeps the whole received batch in memory, up to 64
/// KiB.
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

    /// Returns a new link: the id of a task.
    async fn link() -> Link {
        TaskTracker::new()
            .spawn(async { Link::of_current_query() })
            .await
            .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn jobs_of_a_lane_run_in_order_and_a_panic_ends_nothing() {
        let tracker = TaskTracker::new();
        let replies = Replies::new(&tracker);
        let (go, gate) = mpsc::channel::<()>();
        let (tx, order) = mpsc::channel();
        let note = |number| {
            let tx = tx.clone();
            move || tx.send(number).unwrap()
        };
        let link = link().await;
        replies.enqueue(link, ReplyPriority::InOrder, move || gate.recv().unwrap());
        replies.enqueue(link, ReplyPriority::Last, note(3));
        replies.enqueue(link, ReplyPriority::InOrder, || panic!("on purpose"));
        replies.enqueue(link, ReplyPriority::InOrder, note(1));
        replies.enqueue(link, ReplyPriority::InOrder, note(2));
        go.send(()).unwrap();
        tracker.close();
        tokio::time::timeout(LONG, tracker.wait()).await.unwrap();
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
        let removed = async {
            while !replies.lock().lanes.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, removed)
            .await
            .expect("an empty lane is removed");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_blocked_client_delays_only_itself() {
        let replies = Replies::new(&TaskTracker::new());
        let mut gates = Vec::new();
        for _ in 0..40 {
            let (go, gate) = mpsc::channel::<()>();
            replies.enqueue(link().await, ReplyPriority::InOrder, move || {
                gate.recv().unwrap()
            });
            gates.push(go);
        }
        let (tx, written) = oneshot::channel();
        replies.enqueue(link().await, ReplyPriority::InOrder, move || {
            tx.send(()).unwrap()
        });
        tokio::time::timeout(LONG, written).await.unwrap().unwrap();
        for go in gates {
            go.send(()).unwrap();
        }
        tokio::time::timeout(LONG, replies.write_to_all(|| {}))
            .await
            .unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn lanes_beyond_the_last_writer_wait_for_one() {
        let tracker = TaskTracker::new();
        let replies = Replies::new(&tracker);
        let (tx, written) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for number in 0..WRITERS * 2 {
            let (tx, gate) = (tx.clone(), Arc::clone(&gate));
            replies.enqueue(link().await, ReplyPriority::InOrder, move || {
                gate.lock().unwrap().recv().unwrap();
                tx.send(number).unwrap();
            });
        }
        assert_eq!(replies.lock().writers, WRITERS);
        for _ in 0..WRITERS * 2 {
            go.send(()).unwrap();
        }
        tracker.close();
        tokio::time::timeout(LONG, tracker.wait()).await.unwrap();
        assert_eq!(written.try_iter().count(), WRITERS * 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_that_yields_runs_in_a_steady_stream_of_others() {
        let tracker = TaskTracker::new();
        let replies = Replies::new(&tracker);
        let (tx, order) = mpsc::channel();
        let note = |number: usize| {
            let tx = tx.clone();
            move || tx.send(number).unwrap()
        };
        let (go, gate) = mpsc::channel::<()>();
        let link = link().await;
        replies.enqueue(link, ReplyPriority::InOrder, move || gate.recv().unwrap());
        replies.enqueue(link, ReplyPriority::Last, note(usize::MAX));
        for number in 0..OTHERS_FIRST * 2 {
            replies.enqueue(link, ReplyPriority::InOrder, note(number));
        }
        go.send(()).unwrap();
        tracker.close();
        tokio::time::timeout(LONG, tracker.wait()).await.unwrap();
        let order: Vec<_> = order.try_iter().collect();
        assert_eq!(order.len(), OTHERS_FIRST * 2 + 1);
        // The first job may have been taken before or after the job with the low priority arrived.
        let at = order
            .iter()
            .position(|number| *number == usize::MAX)
            .unwrap();
        assert!((OTHERS_FIRST - 1..=OTHERS_FIRST).contains(&at), "{at}");
    }
}
