//! A publisher that keeps its last sample for clients that connect later or missed it.
//!
//! The format is that of zenoh-ext's `AdvancedPublisher` with a cache of one sample, miss detection and publisher
//! detection. Samples are numbered for each source, from 0. The key `KEY/@adv/pub/ZID/EID/_` has three uses: the
//! liveliness token of the publisher, the heartbeats with the last number, and a queryable that replies with the last
//! sample.
//!
//! `AdvancedPublisher` itself keeps its cache locked while it replies, and its heartbeats wait for clients in the queue
//! of the publications. Here, replies and heartbeats wait separately ([`Replies`]). So a client that does not read its
//! reply does not delay the lists of other clients.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};
use zenoh::bytes::ZBytes;
use zenoh::liveliness::LivelinessToken;
use zenoh::pubsub::Publisher;
use zenoh::qos::CongestionControl;
use zenoh::query::{Query, Queryable};
use zenoh::sample::SourceInfo;
use zenoh::session::EntityGlobalId;
use zenoh::{Session, Wait};

use super::BusError;
use super::admission::Admission;
use super::replies::{Link, PROMPT, Replies, ReplyPriority, WAITING, strip};

/// The parameter with the sequence numbers that a client missed: `FIRST..LAST`, both optional.
const SEQUENCE_NUMBERS: &str = "_sn";

/// How often a number is sent. With the list's period of 0.5 s, the last time is 64 s after the publication.
const REPEATS: u32 = 7;

/// Answers queries for last samples. All publishers of a session share it.
#[derive(Debug, Clone)]
pub(super) struct History {
    replies: Replies,
    waiting: Admission,
}

impl History {
    /// At most `waiting` queries wait for their reply. Further ones end at once without a reply.
    pub(super) fn new(replies: Replies, waiting: usize) -> Self {
        Self {
            replies,
            waiting: Admission::new(waiting),
        }
    }
}

#[derive(Debug, Clone)]
struct Last {
    sequence_number: u32,
    payload: ZBytes,
}

#[derive(Debug)]
struct Shared {
    key: String,
    source: EntityGlobalId,
    last: Mutex<Option<Last>>,
    published: Notify,
}

impl Shared {
    fn last(&self) -> Option<Last> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns the last sample if the query asks for its number.
    fn asked_for(&self, query: &Query) -> Option<Last> {
        let numbers = query.parameters().get(SEQUENCE_NUMBERS);
        self.last()
            .filter(|last| is_asked_for(numbers, last.sequence_number))
    }

    /// Stores a sample and returns its number.
    fn keep(&self, payload: ZBytes) -> u32 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let next = |last: &Last| last.sequence_number.wrapping_add(1);
        let sequence_number = last.as_ref().map_or(0, next);
        *last = Some(Last {
            sequence_number,
            payload,
        });
        sequence_number
    }

    fn source_info(&self, sequence_number: u32) -> SourceInfo {
        SourceInfo::new(self.source, sequence_number)
    }
}

/// The publisher of one key. Dropping it withdraws its declarations.
#[derive(Debug)]
pub(super) struct CachedPublisher {
    publisher: Publisher<'static>,
    shared: Arc<Shared>,
    _history: Queryable<()>,
    _token: LivelinessToken,
    /// The task ends with the publisher.
    _heartbeat: JoinSet<()>,
}

impl CachedPublisher {
    /// Declares the publisher. The first heartbeat follows a publication after `heartbeat`.
    pub(super) fn declare(
        session: &Session,
        key: String,
        heartbeat: Duration,
        history: &History,
    ) -> Result<Self, BusError> {
        Self::try_declare(session, &key, heartbeat, history)
            .map_err(|err| BusError::Declare { key, err })
    }

    fn try_declare(
        session: &Session,
        key: &str,
        heartbeat: Duration,
        history: &History,
    ) -> zenoh::Result<Self> {
        let publisher = session
            .declare_publisher(key.to_owned())
            .priority(PROMPT)
            .wait()?;
        let source = publisher.id();
        let own_key = format!("{key}/@adv/pub/{}/{}/_", source.zid(), source.eid());
        let shared = Arc::new(Shared {
            key: key.to_owned(),
            source,
            last: Mutex::new(None),
            published: Notify::new(),
        });
        let (asked, desk) = (Arc::clone(&shared), history.clone());
        let queryable = session
            .declare_queryable(own_key.clone())
            .callback(move |query| answer(query, &asked, &desk))
            .wait()?;
        let token = session.liveliness().declare_token(own_key.clone()).wait()?;
        let numbers = session
            .declare_publisher(own_key)
            .congestion_control(CongestionControl::Block)
            .priority(WAITING)
            .wait()?;
        let telling = tell_numbers(
            numbers,
            Arc::clone(&shared),
            heartbeat,
            history.replies.clone(),
        );
        let mut heartbeats = JoinSet::new();
        heartbeats.spawn_on(telling, history.replies.runtime());
        Ok(Self {
            publisher,
            shared,
            _history: queryable,
            _token: token,
            _heartbeat: heartbeats,
        })
    }

    /// Publishes a message, and keeps it as the last sample.
    pub(super) fn put(&self, json: Vec<u8>) {
        let payload = ZBytes::from(json);
        let number = self.shared.keep(payload.clone());
        let put = self
            .publisher
            .put(payload)
            .source_info(self.shared.source_info(number));
        if let Err(error) = put.wait() {
            warn!(%error, key = self.shared.key, "not published");
        }
        self.shared.published.notify_one();
    }
}

/// Sends the last number after each burst of publications. A client that missed the sample then asks for it.
///
/// Sending waits for a client that does not read, until its link is closed. When that client connects again, it asks
/// for all samples. If the number were dropped instead, the client would keep an old sample.
///
/// The number is sent again at growing intervals. A client behind a slow link may stop waiting before the reply
/// arrives. It asks again only after it has received the number again.
async fn tell_numbers(
    numbers: Publisher<'static>,
    shared: Arc<Shared>,
    period: Duration,
    replies: Replies,
) {
    let numbers = Arc::new(numbers);
    let mut sent = REPEATS;
    loop {
        if sent < REPEATS {
            let pause = period * 2_u32.pow(sent);
            if timeout(pause, shared.published.notified()).await.is_ok() {
                sent = 0;
                sleep(period).await;
            }
        } else {
            shared.published.notified().await;
            sent = 0;
            sleep(period).await;
        }
        sent += 1;
        let Some(last) = shared.last() else { continue };
        let (numbers, key) = (Arc::clone(&numbers), shared.key.clone());
        replies
            .write_to_all(move || {
                let number = zenoh_ext::z_serialize(&last.sequence_number);
                if let Err(error) = numbers.put(number).wait() {
                    debug!(%error, key, "heartbeat not sent");
                }
            })
            .await;
    }
}

/// Answers a query for the last sample. The reply is not sent on Zenoh's thread that delivers the query.
fn answer(mut query: Query, shared: &Arc<Shared>, history: &History) {
    let link = Link::of_current_query();
    if shared.asked_for(&query).is_none() {
        return history.replies.discard(link, query);
    }
    let Some(permit) = history.waiting.admit(link) else {
        debug!(key = shared.key, "too many ask for the last sample");
        return history.replies.discard(link, query);
    };
    strip(&mut query);
    let shared = Arc::clone(shared);
    // Read the sample when the reply is sent. Waiting replies would otherwise keep all lists since then in memory.
    history
        .replies
        .enqueue(link, ReplyPriority::InOrder, move || {
            write_last(&query, &shared);
            drop(permit);
        });
}

fn write_last(query: &Query, shared: &Shared) {
    let Some(last) = shared.asked_for(query) else {
        return;
    };
    let reply = query
        .reply(shared.key.as_str(), last.payload)
        .source_info(shared.source_info(last.sequence_number));
    if let Err(error) = reply.wait() {
        debug!(%error, key = shared.key, "last sample not delivered");
    }
}

/// Returns whether a number is in the range. A range that cannot be parsed contains all numbers.
fn is_asked_for(range: Option<&str>, number: u32) -> bool {
    let Some(range) = range else { return true };
    let bound = |text: &str| text.parse::<u32>().ok();
    let (first, last) = range.split_once("..").unwrap_or((range, range));
    bound(first).is_none_or(|first| first <= number)
        && bound(last).is_none_or(|last| number <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_sequence_numbers() {
        for (range, expected) in [
            ("7..", true),
            ("8..", false),
            ("..7", true),
            ("..6", false),
            ("3..9", true),
            ("9..3", false),
            ("7", true),
            ("6", false),
            ("..", true),
            ("", true),
            ("x..y", true),
        ] {
            assert_eq!(is_asked_for(Some(range), 7), expected, "{range}");
        }
        assert!(is_asked_for(None, 7));
    }
}
