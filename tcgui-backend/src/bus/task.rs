//! The bus actor: one publication at a time, the liveliness token after the first list.

use std::time::{Duration, Instant};

use tcgui_shared::keys::Keys;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};
use zenoh::Session;
use zenoh::liveliness::LivelinessToken;
use zenoh::pubsub::Subscriber;

use super::publishers::SharedPublishers;
use super::queries::Queries;
use super::{BusError, Publication, Sample, SampleTask, send};
use crate::blocking;

/// How long clients get to take what was sent last, and the session to say goodbye.
const GOODBYE: Duration = Duration::from_millis(800);

/// The liveliness subscription that hears frontends come and go.
pub(super) type Frontends = Subscriber<()>;

type Order = (Publication, oneshot::Sender<Duration>);

/// The bus actor; [`Task::run`] is its life.
#[derive(Debug)]
pub struct Task {
    session: Session,
    keys: Keys,
    publishers: SharedPublishers,
    /// What clients can ask, and who joins.
    ears: (Queries, Frontends),
    /// What clients wait for and is not written yet.
    unwritten: TaskTracker,
    orders: mpsc::Receiver<Order>,
    token: Option<LivelinessToken>,
}

impl Task {
    pub(super) fn new(
        (session, keys): (Session, Keys),
        publishers: SharedPublishers,
        ears: (Queries, Frontends),
        unwritten: TaskTracker,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            session,
            keys,
            publishers,
            ears,
            unwritten,
            orders,
            token: None,
        }
    }

    /// Returns the way to send samples over this session, and the actor that does it.
    pub fn samples(&self) -> (mpsc::Sender<Vec<Sample>>, SampleTask) {
        SampleTask::new(self.session.clone(), self.keys.clone())
    }

    /// Publishes until `stop` is cancelled or the last handle is gone.
    ///
    /// # Errors
    /// The liveliness token is refused: clients would never see the backend.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), BusError> {
        while let Some((publication, reply)) = self.next_order(&stop).await {
            let has_list = publication.list.is_some();
            let started = Instant::now();
            // A put waits for a slow link.
            let publishers = self.publishers.clone();
            send(blocking::run(move || publishers.publish(publication)).await);
            // The backend may be stopping; then nobody wants to know.
            reply.send(started.elapsed()).ok();
            if has_list && self.token.is_none() {
                self.token = Some(self.declare_token().await?);
                info!("backend visible on the bus");
            }
        }
        self.leave().await;
        Ok(())
    }

    async fn next_order(&mut self, stop: &CancellationToken) -> Option<Order> {
        tokio::select! {
            biased;
            // Cancel-safe: cancellation is a state.
            () = stop.cancelled() => None,
            // Cancel-safe: `recv` takes nothing unless it returns it.
            order = self.orders.recv() => order,
        }
    }

    /// Clients ask for the scenario list the moment they see the token, so it comes last.
    async fn declare_token(&self) -> Result<LivelinessToken, BusError> {
        let key = self.keys.health();
        self.session
            .liveliness()
            .declare_token(key.clone())
            .await
            .map_err(|err| BusError::Declare { key, err })
    }

    /// Takes the token back first, so that clients know at once, and answers what was asked before.
    async fn leave(self) {
        let goodbye = async {
            drop(self.token);
            drop(self.ears);
            self.unwritten.close();
            self.unwritten.wait().await;
            // It waits for a publication that is under way.
            let publishers = self.publishers;
            blocking::run(move || publishers.end()).await;
            if let Err(error) = self.session.close().await {
                debug!(%error, "session not closed");
            }
        };
        if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
            debug!("session left without a goodbye");
        }
    }
}
