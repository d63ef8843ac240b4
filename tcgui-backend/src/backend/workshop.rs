//! Work on links and qdiscs, from its beginning to its answer.
//!
//! Waking one thread after the other is most of what a change costs, so one is woken: Zenoh's thread that brings a
//! request lets the state decide and begins the work; the thread that does it lets the state decide what follows,
//! publishes that, and answers. Whatever else there is to do is left to the main loop, and so is everything when
//! somebody else is deciding: Zenoh's threads wait for nobody.
//!
//! All decisions are made under one lock, one after the other, and what they lead to is begun in that order.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, mpsc};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::link_worker;
use super::state::{Effect, Input, LinkWish, Moment, State, TcWish};
use super::task::{moment, now};
use super::tc_worker::{self, Leases};
use crate::bus::{BusHandle, Publication, Request, send};
use crate::sockets::NetnsSockets;

/// The state, and what waits for the main loop.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) state: State,
    /// What nobody has taken from clients yet.
    pub(super) requests: mpsc::Receiver<Request>,
    left: Vec<Effect>,
    /// When the main loop wakes by itself.
    wakes_at: Option<Instant>,
    /// The daemon stops: no request is taken any more.
    closed: bool,
}

impl Desk {
    pub(super) fn new(state: State, requests: mpsc::Receiver<Request>) -> Self {
        Self {
            state,
            requests,
            left: Vec::new(),
            wakes_at: None,
            closed: false,
        }
    }

    /// Returns what was left to the main loop, to be done before anything that is decided later.
    pub(super) fn take_left(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.left)
    }

    /// Takes no requests any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.requests.close();
    }

    /// Returns what was asked first and not taken; what comes when the daemon stops is dropped, and so answered.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        let request = self.requests.try_recv().ok();
        request.filter(|_| !self.closed)
    }

    /// Returns when the main loop has to wake by itself, unless it hears the bell before.
    pub(super) fn note_wake(&mut self) -> Option<Instant> {
        self.wakes_at = self.state.wake_at();
        self.wakes_at
    }

    /// Returns whether the main loop has to know at once what was decided. A look that was put off anyhow, it has
    /// not.
    fn is_pressing(&self) -> bool {
        let is_look = |effect: &Effect| matches!(effect, Effect::Recheck(_));
        let is_late = |at| self.wakes_at.is_none_or(|wakes| at < wakes);
        self.closed || !self.left.iter().all(is_look) || self.state.wake_at().is_some_and(is_late)
    }

    /// Returns whether all that waits may as well be done later than what is decided now.
    fn is_clear(&self) -> bool {
        self.left.iter().all(Effect::is_beside)
    }
}

/// A piece of work on one interface.
#[derive(Debug)]
pub(super) enum Work {
    Link(Box<LinkWish>),
    Tc(Box<TcWish>),
}

/// Who publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Publishing {
    Here,
    /// The main loop.
    Later,
}

/// What came of a decision, but for what was begun or left.
struct Decided {
    at: Moment,
    publication: Option<Publication>,
}

/// What it takes to do it. Clones share everything; none keeps the state alive.
#[derive(Clone)]
pub(super) struct Workshop {
    desk: Weak<Mutex<Desk>>,
    sockets: NetnsSockets,
    leases: Leases,
    publisher: BusHandle,
    /// Rung when something is left to the main loop, or it has to wake at another time.
    bell: Arc<Notify>,
    under_way: TaskTracker,
    /// Something has panicked that is not an actor: what it was about stays under way for ever.
    panicked: Arc<AtomicBool>,
    runtime: Handle,
}

impl fmt::Debug for Workshop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let under_way = self.under_way.len();
        f.debug_struct("Workshop")
            .field("under_way", &under_way)
            .finish_non_exhaustive()
    }
}

impl Workshop {
    /// Works on the blocking threads of the current runtime.
    pub(super) fn new(
        desk: &Arc<Mutex<Desk>>,
        sockets: NetnsSockets,
        leases: Leases,
        publisher: BusHandle,
        bell: Arc<Notify>,
    ) -> Self {
        Self {
            desk: Arc::downgrade(desk),
            sockets,
            leases,
            publisher,
            bell,
            under_way: TaskTracker::new(),
            panicked: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// Returns whether no work is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Returns, once, whether the daemon cannot go on as if nothing had happened.
    pub(super) fn take_panic(&self) -> bool {
        self.panicked.swap(false, Ordering::AcqRel)
    }

    /// Takes a request that is about one interface, or gives it back. Waits for nothing.
    pub(super) fn usher(&self, request: Request) -> Option<Request> {
        self.survive(|| self.decide_at_once(request)).flatten()
    }

    fn decide_at_once(&self, request: Request) -> Option<Request> {
        let Some(desk) = self.desk.upgrade() else {
            return Some(request);
        };
        let Ok(mut desk) = desk.try_lock() else {
            return Some(request);
        };
        let moment = moment();
        // A list takes milliseconds to make up. What came before goes first.
        let is_due = desk.state.wake_at().is_some_and(|at| at <= moment.now);
        if is_due || desk.closed || !desk.left.is_empty() || !desk.requests.is_empty() {
            return Some(request);
        }
        // The main loop may be about to hear of what is not known yet.
        if !desk.state.knows(&request) {
            return Some(request);
        }
        let effects = desk.state.step(Input::Request(request), moment);
        self.hand_out(&mut desk, effects, Publishing::Later);
        if desk.is_pressing() {
            self.bell.notify_one();
        }
        None
    }

    /// Sets a thread to work.
    pub(super) fn begin(&self, work: Work) {
        let key = match &work {
            Work::Link(wish) => wish.order.place.key,
            Work::Tc(wish) => wish.order.place.key,
        };
        let running = self.sockets.running(key);
        let (workshop, token) = (self.clone(), self.under_way.token());
        let carry_out = move |permit| {
            workshop.survive(|| workshop.carry_out(work, permit, token));
        };
        // What comes of it is told by the work itself, in both cases.
        if let Ok(permit) = Arc::clone(&running).try_acquire_owned() {
            drop(self.runtime.spawn_blocking(move || carry_out(permit)));
        } else {
            drop(self.runtime.spawn(async move {
                let permit = running.acquire_owned().await.expect("never closed");
                drop(tokio::task::spawn_blocking(move || carry_out(permit)));
            }));
        }
    }

    fn carry_out(&self, work: Work, permit: OwnedSemaphorePermit, token: TaskTrackerToken) {
        if self.desk.strong_count() == 0 {
            // Given up before it was begun; whoever waits for it hears so.
            return;
        }
        let input = match work {
            Work::Link(wish) => link_worker::switch(&self.sockets, *wish),
            Work::Tc(wish) => tc_worker::impair(&self.sockets, &self.leases, wish),
        };
        let Some(mut decided) = self.decide(input, Publishing::Here, moment) else {
            return;
        };
        // Not before: it bounds the threads that wait for their turn to decide, too.
        drop(permit);
        if let Some(publication) = decided.publication.take() {
            send(self.publisher.publish_here(publication));
            // Whoever publishes next does not wait for clients that read slowly. What it has cost matters for lists.
            let published = Input::Published(Duration::ZERO);
            let at = decided.at;
            let clocks = || at.later(now());
            if self.decide(published, Publishing::Later, clocks).is_none() {
                return;
            }
        }
        drop(token);
        self.bell.notify_one();
    }

    /// Lets the state decide what follows, and begins it.
    fn decide(
        &self,
        input: Input,
        publishing: Publishing,
        clocks: impl FnOnce() -> Moment,
    ) -> Option<Decided> {
        let mut desk = self.desk.upgrade()?.blocking_lock_owned();
        let at = clocks();
        let effects = desk.state.step(input, at);
        let publication = self.hand_out(&mut desk, effects, publishing);
        Some(Decided { at, publication })
    }

    /// Returns what `work` returns. When it panics, which the hook has told, the main loop ends the daemon.
    fn survive<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(work)).ok();
        if done.is_none() {
            self.panicked.store(true, Ordering::Release);
            self.bell.notify_one();
        }
        done
    }

    /// Begins the work that was decided on, returns what is to be published here, and leaves the rest.
    fn hand_out(
        &self,
        desk: &mut Desk,
        effects: Vec<Effect>,
        publishing: Publishing,
    ) -> Option<Publication> {
        let here = publishing == Publishing::Here;
        let mut publication = None;
        for effect in effects {
            match effect {
                Effect::SwitchLink(wish) if desk.is_clear() => {
                    self.begin(Work::Link(Box::new(wish)))
                }
                Effect::ChangeTc(wish) if desk.is_clear() => self.begin(Work::Tc(wish)),
                // A list takes long to send, and the liveliness token follows the first one.
                Effect::Publish(it) if here && it.list.is_none() && desk.is_clear() => {
                    publication = Some(it);
                }
                other => desk.left.push(other),
            }
        }
        publication
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tcgui_shared::control::InterfaceControlResponse;
    use tcgui_shared::error_kind::ErrorKind;
    use tcgui_shared::scenario::ScenarioRequest;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;
    use crate::backend::state::tests::Bench;
    use crate::bus::Reply;
    use crate::kernel::netns::{NetnsFiles, NetnsKey};
    use crate::kernel::rtnetlink::Rtnetlink;

    const SOON: Duration = Duration::from_secs(5);

    /// A desk, the workshop beside it, and where clients put what nobody takes.
    struct Room {
        desk: Arc<Mutex<Desk>>,
        workshop: Workshop,
        requests: mpsc::Sender<Request>,
    }

    impl Room {
        fn new() -> Self {
            let (requests, waiting) = mpsc::channel(4);
            let mut desk = Desk::new(Bench::warm().state, waiting);
            // As a main loop that sleeps: a request alone does not wake it.
            desk.note_wake();
            let desk = Arc::new(Mutex::new(desk));
            let host = Rtnetlink::open(1).unwrap();
            let sockets = NetnsSockets::new(host, NetnsFiles::new().unwrap(), 1);
            let workshop = Workshop::new(
                &desk,
                sockets,
                Err("a test".into()),
                BusHandle::without_bus(),
                Arc::default(),
            );
            Self {
                desk,
                workshop,
                requests,
            }
        }

        async fn rung(&self) {
            let bell = self.workshop.bell.notified();
            timeout(SOON, bell).await.expect("the bell rings");
        }
    }

    /// Asks for a link that the state knows and the kernel does not.
    fn enable() -> (Request, oneshot::Receiver<InterfaceControlResponse>) {
        let request = json!({"namespace": "default", "interface": "v0", "operation": "Enable"});
        let (reply, answer) = Reply::channel();
        let request = serde_json::from_value(request).unwrap();
        (Request::Interface(request, reply), answer)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn done_and_answered_without_the_main_loop() {
        let room = Room::new();
        let (request, answer) = enable();
        assert!(room.workshop.usher(request).is_none());
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert!(!answer.success);
        assert_eq!(answer.error_kind, Some(ErrorKind::NotFound));
        room.rung().await;
        assert!(room.workshop.is_idle());
        let left = room.desk.lock().await.take_left();
        assert!(
            matches!(left[..], [Effect::Recheck(NetnsKey::Host)]),
            "{left:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn given_back_when_it_is_not_its_turn() {
        let is_given_back = |room: &Room| room.workshop.usher(enable().0).is_some();
        let room = Room::new();
        let guard = room.desk.lock().await;
        assert!(is_given_back(&room), "somebody else decides");
        drop(guard);
        room.desk.lock().await.left = vec![Effect::LookForHolders];
        assert!(
            is_given_back(&room),
            "the main loop has something to do first"
        );
        room.desk.lock().await.take_left();
        let (earlier, _answer) = enable();
        room.requests.try_send(earlier).unwrap();
        assert!(is_given_back(&room), "an earlier one waits");
        room.desk.lock().await.requests.try_recv().unwrap();
        let (reply, _answer) = Reply::channel();
        let other = Request::Scenario(ScenarioRequest::List, reply);
        assert!(room.workshop.usher(other).is_some(), "about no interface");
        let (reply, _answer) = Reply::channel();
        let unknown = json!({"namespace": "x", "interface": "v0", "operation": "Enable"});
        let unknown = Request::Interface(serde_json::from_value(unknown).unwrap(), reply);
        assert!(
            room.workshop.usher(unknown).is_some(),
            "the main loop may know more soon"
        );
        assert!(!is_given_back(&room));
        room.desk.lock().await.close();
        assert!(is_given_back(&room), "the daemon stops");
        let Room { desk, workshop, .. } = room;
        drop(desk);
        assert!(workshop.usher(enable().0).is_some(), "it has stopped");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_does_not_overtake_what_has_to_come_first() {
        let room = Room::new();
        let mut desk = room.desk.lock().await;
        let wish = |desk: &mut Desk| {
            let request = Input::Request(enable().0);
            let mut effects = desk.state.step(request, moment());
            assert_eq!(effects.len(), 1);
            effects.remove(0)
        };
        let begins = wish(&mut desk);
        let first = Effect::Forget(NetnsKey::Host);
        assert!(
            room.workshop
                .hand_out(&mut desk, vec![first, begins], Publishing::Here)
                .is_none()
        );
        let left = desk.take_left();
        assert!(
            matches!(left[..], [Effect::Forget(_), Effect::SwitchLink(_)]),
            "{left:?}"
        );
        assert!(room.workshop.is_idle());
        // What is beside everything keeps nothing.
        let mut left = left;
        let begins = left.remove(1);
        room.workshop.hand_out(
            &mut desk,
            vec![Effect::LookForHolders, begins],
            Publishing::Here,
        );
        assert!(matches!(desk.take_left()[..], [Effect::LookForHolders]));
        drop(desk);
        room.rung().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_main_loop_hears_of_a_panic() {
        let room = Room::new();
        assert!(!room.workshop.take_panic());
        let done: Option<()> = room.workshop.survive(|| panic!("on purpose"));
        assert!(done.is_none());
        assert!(room.workshop.take_panic());
        room.rung().await;
    }
}
