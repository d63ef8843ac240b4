//! Sends samples: messages at regular intervals, of which only the newest is useful.
//!
//! They are plain puts without a cache, a declaration or a publisher. So nothing has to be released when an interface
//! disappears. They are sent concurrently with the publications of [`super::Task`], a few at a time, and with a lower
//! priority. So a list overtakes samples that wait on a link.

use serde::Serialize;
use tcgui_shared::bandwidth::BandwidthUpdate;
use tcgui_shared::keys::Keys;
use tcgui_shared::names::{InterfaceName, NamespaceName};
use tcgui_shared::tc::TcStatisticsUpdate;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use zenoh::qos::{CongestionControl, Priority};
use zenoh::{Session, Wait};

use super::session::SharedSession;
use crate::blocking;

/// Capacity of the channel in batches. The `bandwidth` actor keeps further ones.
const BATCHES: usize = 4;
/// Number of samples that are sent before other users get the thread and the session. This takes well under 1 ms.
const CHUNK: usize = 32;
/// Initial buffer size of a sample in bytes. It fits the example in the wire protocol, also with longer names.
const SAMPLE: usize = 512;

/// One message about one interface.
#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    /// `bandwidth/NS/IF`.
    Bandwidth(NamespaceName, InterfaceName, BandwidthUpdate),
    /// `tc/stats/NS/IF`.
    TcStatistics(NamespaceName, InterfaceName, TcStatisticsUpdate),
}

/// The actor that sends samples. [`SampleTask::run`] runs it.
#[derive(Debug)]
pub struct SampleTask {
    session: SharedSession,
    keys: Keys,
    batches: mpsc::Receiver<Vec<Sample>>,
}

impl SampleTask {
    /// Returns a channel for samples, and the actor that sends them over the session. Samples are dropped while there is
    /// no session.
    pub(super) fn new(session: SharedSession, keys: Keys) -> (mpsc::Sender<Vec<Sample>>, Self) {
        let (sender, batches) = mpsc::channel(BATCHES);
        let task = Self {
            session,
            keys,
            batches,
        };
        (sender, task)
    }

    /// Sends until `stop` is cancelled or all senders were dropped.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(batch) = self.next_batch(&stop).await {
            let Some(session) = self.session.get().cloned() else {
                continue;
            };
            let mut batch = batch.into_iter();
            while !batch.as_slice().is_empty() && !stop.is_cancelled() {
                // A put may wait for a slow link.
                let (session, keys) = (session.clone(), self.keys.clone());
                batch = blocking::run(move || {
                    for sample in batch.by_ref().take(CHUNK) {
                        send(&session, &keys, &sample);
                    }
                    batch
                })
                .await;
            }
        }
    }

    async fn next_batch(&mut self, stop: &CancellationToken) -> Option<Vec<Sample>> {
        tokio::select! {
            biased;
            // Cancel-safe: cancellation is a state.
            () = stop.cancelled() => None,
            // Cancel-safe: `recv` takes nothing unless it returns it.
            batch = self.batches.recv() => batch,
        }
    }
}

fn send(session: &Session, keys: &Keys, sample: &Sample) {
    match sample {
        Sample::Bandwidth(netns, interface, update) => {
            put(session, keys.bandwidth(netns, interface), update);
        }
        Sample::TcStatistics(netns, interface, update) => {
            put(session, keys.tc_stats(netns, interface), update);
        }
    }
}

fn put(session: &Session, key: String, message: &impl Serialize) {
    let mut json = Vec::with_capacity(SAMPLE);
    if let Err(error) = serde_json::to_writer(&mut json, message) {
        warn!(%error, key, "message not serialised");
        return;
    }
    // A client that reads too slowly misses samples. It delays no other client.
    let sent = session
        .put(key, json)
        .congestion_control(CongestionControl::Drop)
        .priority(Priority::DataLow)
        .wait();
    if let Err(error) = sent {
        debug!(%error, "sample not sent");
    }
}
