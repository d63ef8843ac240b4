//! The bus actor. It publishes one publication at a time, and declares the liveliness token after the first list.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use zenoh::Session;
use zenoh::liveliness::LivelinessToken;

use super::joining::Joining;
use super::publishers::SharedPublishers;
use super::session::{Declarations, Declared, SharedSession};
use super::{BusError, Publication, Sample, SampleTask, send};
use crate::blocking;

/// Time limit at the stop: for clients to receive the last messages, and for the session to close.
const GOODBYE: Duration = Duration::from_millis(800);
/// The part of that limit for closing the session. Zenoh's `close()` would wait without a limit for a listener whose
/// address does not exist.
const CLOSE: Duration = Duration::from_millis(200);

type Order = (Publication, oneshot::Sender<Duration>);

/// The bus actor. [`Task::run`] runs it.
#[derive(Debug)]
pub struct Task {
    session: SharedSession,
    /// The session that is being opened. `None`: it is open.
    joining: Option<Joining>,
    declarations: Declarations,
    declared: Option<Declared>,
    publishers: SharedPublishers,
    orders: mpsc::Receiver<Order>,
    /// Whether a list was published on the session.
    has_list: bool,
    token: Option<LivelinessToken>,
    is_visible: watch::Sender<bool>,
}

enum Event {
    Stop,
    Order(Box<Order>),
    Joined(Session),
}

impl Task {
    /// Returns the actor. It has no session yet.
    pub(super) fn new(
        declarations: Declarations,
        publishers: SharedPublishers,
        orders: mpsc::Receiver<Order>,
        is_visible: watch::Sender<bool>,
    ) -> Self {
        Self {
            session: SharedSession::default(),
            joining: None,
            declarations,
            declared: None,
            publishers,
            orders,
            has_list: false,
            token: None,
            is_visible,
        }
    }

    /// Makes [`Self::run`] wait for a session that is being opened.
    pub(super) fn wait_for(&mut self, joining: Joining) {
        self.joining = Some(joining);
    }

    /// Declares everything on a session except the token, and publishes the stored messages.
    pub(super) async fn declare(&mut self, session: Session) -> Result<(), BusError> {
        let (declared, publishers) = self.declarations.declare(&session)?;
        self.declared = Some(declared);
        let shared = self.publishers.clone();
        self.has_list = blocking::run(move || shared.open(publishers)).await;
        // The error means that the session is already set, which does not happen.
        self.session.set(session).ok();
        self.joining = None;
        Ok(())
    }

    /// Returns a channel for samples, and the actor that sends them over this session.
    pub fn samples(&self) -> (mpsc::Sender<Vec<Sample>>, SampleTask) {
        SampleTask::new(self.session.clone(), self.declarations.keys.clone())
    }

    /// Publishes until `stop` is cancelled or the last handle is dropped.
    ///
    /// # Errors
    /// Zenoh refused a declaration. Clients would never see the backend.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), BusError> {
        loop {
            match self.next_event(&stop).await {
                Event::Stop => break,
                Event::Joined(session) => self.declare(session).await?,
                Event::Order(order) => {
                    let (publication, reply) = *order;
                    let has_list = publication.list.is_some();
                    let started = Instant::now();
                    // A put may wait for a slow link.
                    let publishers = self.publishers.clone();
                    send(blocking::run(move || publishers.publish(publication)).await);
                    // The backend may be stopping, and no longer wait for the reply.
                    reply.send(started.elapsed()).ok();
                    self.has_list |= has_list && self.session.get().is_some();
                }
            }
            self.become_visible().await?;
        }
        self.leave().await;
        Ok(())
    }

    async fn next_event(&mut self, stop: &CancellationToken) -> Event {
        let joining = async {
            match &mut self.joining {
                Some(joining) => joining.session().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Cancel-safe: cancellation is a state.
            () = stop.cancelled() => Event::Stop,
            // Cancel-safe: `recv` takes nothing unless it returns it.
            order = self.orders.recv() => order.map_or(Event::Stop, |order| Event::Order(Box::new(order))),
            // Cancel-safe: the next call continues the attempts.
            session = joining => Event::Joined(session),
        }
    }

    /// Declares the liveliness token after the first list.
    async fn become_visible(&mut self) -> Result<(), BusError> {
        let Some(session) = self.session.get() else {
            return Ok(());
        };
        if self.has_list && self.token.is_none() {
            let key = self.declarations.keys.health();
            self.token = Some(declare_token(session, key).await?);
            info!("backend visible on the bus");
            self.is_visible.send_replace(true);
        }
        Ok(())
    }

    /// Withdraws the liveliness token first, so that clients know at once. Then answers the earlier requests.
    async fn leave(self) {
        let goodbye = async {
            drop(self.token);
            drop(self.declared);
            self.declarations.unwritten.close();
            self.declarations.unwritten.wait().await;
            // This waits for a publication under way.
            let publishers = self.publishers;
            blocking::run(move || publishers.end()).await;
            if let Some(session) = self.session.get() {
                close(session).await;
            }
        };
        if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
            debug!("session left without a goodbye");
        }
    }
}

/// Closes the session. Stops waiting after [`CLOSE`].
async fn close(session: &Session) {
    match tokio::time::timeout(CLOSE, session.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "session not closed"),
        Err(_) => debug!("session not closed in time: the end of the process closes it"),
    }
}

/// Declares the liveliness token. It is declared last, because clients query the scenario list as soon as they see it.
async fn declare_token(session: &Session, key: String) -> Result<LivelinessToken, BusError> {
    let token = session.liveliness().declare_token(key.clone()).await;
    token.map_err(|err| BusError::Declare { key, err })
}
