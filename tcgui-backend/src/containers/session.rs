//! One session with an engine: subscribes, lists, and reports events until it fails.

use std::convert::Infallible;
use std::pin::pin;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::answers::{self, Event, Listing};
use super::client::{Client, EngineError, EventStream, Reply};
use super::limits::{EVENT_BYTES, LIST_WITHOUT_EVENTS, SUBSCRIBE_AGAIN, SUBSCRIPTION};
use super::lines::Lines;
use crate::clock::{now, unix_seconds};
use crate::netns_holders::Runtime;

/// Identifies a session. Reports of earlier sessions are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionId {
    /// The number of the engine's socket.
    pub(super) engine: usize,
    /// The number of the session since the start of the daemon.
    pub(super) count: u64,
}

/// A report of a session.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) session: SessionId,
    pub(super) news: News,
}

/// The content of a report.
#[derive(Debug)]
pub(super) enum News {
    /// The kind of the engine and its running containers. Later events are newer than this list, or are about
    /// containers in it.
    Listed(Runtime, Reply<Listing>),
    /// The engine refuses to send events. Its containers are listed regularly instead.
    NoEvents(EngineError),
    /// Events, in the order in which they arrived.
    Events(Vec<Event>),
    /// The engine sends more than is read. Events may be lost.
    Flooding,
    /// The session has ended.
    Ended(EngineError),
}

/// Sends reports to the actor. A report waits while the actor's queue is full.
#[derive(Debug)]
pub(super) struct Reporter {
    session: SessionId,
    reports: mpsc::Sender<Report>,
}

impl Reporter {
    pub(super) fn new(session: SessionId, reports: mpsc::Sender<Report>) -> Self {
        Self { session, reports }
    }

    pub(super) async fn send(&self, news: News) {
        let session = self.session;
        // An error means that the actor has ended, and this session with it.
        self.reports.send(Report { session, news }).await.ok();
    }
}

/// Runs a session until it fails. The error is the last report.
pub(super) async fn run(client: Client, reporter: Reporter) {
    let err = match follow(&client, &reporter).await {
        Ok(never) => match never {},
        Err(err) => err,
    };
    reporter.send(News::Ended(err)).await;
}

async fn follow(client: &Client, reporter: &Reporter) -> Result<Infallible, EngineError> {
    let runtime = client.ping().await?;
    let mut is_reported = false;
    loop {
        match subscribe(client, reporter, runtime).await? {
            Ok(stream) => return read(stream, reporter).await,
            Err(err @ EngineError::Refused { .. }) => {
                if !std::mem::replace(&mut is_reported, true) {
                    reporter.send(News::NoEvents(err)).await;
                }
                list_instead(client, reporter, runtime).await?;
            }
            Err(err) => return Err(err),
        }
    }
}

/// Subscribes to events, then lists. The outer error is that of the list, the inner one that of the subscription.
///
/// The list is requested after the subscription, so that nothing is missed between them. An engine may send
/// nothing until the first event, so the list does not wait for the reply longer than [`SUBSCRIPTION`].
async fn subscribe(
    client: &Client,
    reporter: &Reporter,
    runtime: Runtime,
) -> Result<Result<EventStream, EngineError>, EngineError> {
    // One second earlier, because events have whole seconds and the clock may be set.
    let mut subscription = pin!(client.events(unix_seconds().saturating_sub(1)));
    let stream = timeout(SUBSCRIPTION, &mut subscription).await;
    reporter
        .send(News::Listed(runtime, client.list().await?))
        .await;
    Ok(match stream {
        Ok(stream) => stream,
        Err(_) => subscription.await,
    })
}

/// Lists the containers regularly, until the subscription is due for a retry.
async fn list_instead(
    client: &Client,
    reporter: &Reporter,
    runtime: Runtime,
) -> Result<(), EngineError> {
    let until = now() + SUBSCRIBE_AGAIN;
    loop {
        tokio::time::sleep(LIST_WITHOUT_EVENTS).await;
        if now() >= until {
            return Ok(());
        }
        reporter
            .send(News::Listed(runtime, client.list().await?))
            .await;
    }
}

/// Reports events until an error occurs.
async fn read(mut stream: EventStream, reporter: &Reporter) -> Result<Infallible, EngineError> {
    let mut lines = Lines::default();
    let mut bytes = EVENT_BYTES;
    loop {
        let piece = stream.next().await?;
        let mut events = Vec::new();
        lines.feed(&piece, |line| {
            let event = answers::event(line).map_err(|err| EngineError::Strange {
                question: "events",
                err,
            })?;
            events.extend(event);
            Ok::<_, EngineError>(())
        })?;
        if !events.is_empty() {
            reporter.send(News::Events(events)).await;
        }
        let now = now();
        bytes.spend(now, u32::try_from(piece.len()).unwrap_or(u32::MAX));
        if let Some(until) = bytes.not_before().filter(|until| *until > now) {
            reporter.send(News::Flooding).await;
            // This pause bounds the cost of reading.
            tokio::time::sleep_until(until.into()).await;
        }
    }
}
