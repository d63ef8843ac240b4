//! One session with an engine: subscribe, list, then report what the events say, until it fails.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::answers::{self, Event, Listing};
use super::client::{Client, EngineError, EventStream, Reply};
use super::limits::{EVENT_BYTES, LIST_WITHOUT_EVENTS, SUBSCRIBE_AGAIN, SUBSCRIPTION};
use super::lines::Lines;
use crate::clock::unix_seconds;
use crate::netns_holders::Runtime;

/// Which session. Reports of earlier sessions are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionId {
    /// The socket, by its number.
    pub(super) engine: usize,
    /// Counts the sessions of this daemon.
    pub(super) count: u64,
}

/// A report of a session.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) session: SessionId,
    pub(super) news: News,
}

/// News of an engine.
#[derive(Debug)]
pub(super) enum News {
    /// It is this engine, and these containers run. Events that follow are later than this list, or about
    /// what is in it.
    Listed(Runtime, Reply<Listing>),
    /// The engine refuses to send events: it is only listed.
    NoEvents(EngineError),
    /// Something happened, in this order.
    Events(Vec<Event>),
    /// It sends more than is read: events may be lost.
    Flooding,
    /// The session is over.
    Ended(EngineError),
}

/// To report to the actor, at its pace.
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
        // The actor ends together with its sessions.
        self.reports.send(Report { session, news }).await.ok();
    }
}

/// Follows an engine until that fails. The error is the last report.
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
/// The list comes after the subscription, so that nothing is missed between them. An engine may be silent until the
/// first event: the list does not wait for that.
async fn subscribe(
    client: &Client,
    reporter: &Reporter,
    runtime: Runtime,
) -> Result<Result<EventStream, EngineError>, EngineError> {
    // The clock may be set meanwhile, and events carry whole seconds.
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

/// Lists an engine that refuses to send events, until it is time to subscribe again.
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

/// Reports events until that fails.
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
            // Not a wait for something: it bounds what reading may cost.
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
