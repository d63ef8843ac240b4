//! Finds other backends with the same name on the bus by their health messages.
//!
//! Their liveliness tokens have the same key as the daemon's, and Zenoh shows one token for all of them. A token also
//! stays for ten seconds after a daemon has died. So another backend with the same name is reported, but does not
//! prevent the start.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tcgui_shared::health::BackendHealthStatus;
use tcgui_shared::keys::Keys;
use tokio::sync::watch;
use tracing::warn;
use zenoh::pubsub::Subscriber;
use zenoh::sample::{Locality, Sample, SampleKind};
use zenoh::{Session, Wait};

use super::BusError;

/// Time after which a backend without a health message counts as gone. Health messages are sent every 10 s.
pub const NAMESAKE_GONE: Duration = Duration::from_secs(30);

/// Pause after a message, in which further messages are ignored. Any member of the bus can send as many as the link can
/// carry. A backend sends one every 10 s, so none of its messages is ignored.
const PAUSE: Duration = Duration::from_secs(9);

/// Limit of a health message in bytes. Usually it has a few hundred.
const LARGEST_MESSAGE: usize = 4096;
/// The longest host name on Linux (`HOST_NAME_MAX`).
const LONGEST_HOST: usize = 64;

/// The host of another backend with the same name. Each message marks the value as changed.
pub type Namesakes = watch::Receiver<Option<String>>;

/// Receives health messages that another backend publishes under the daemon's name, and sends their host, once in each
/// [`PAUSE`].
pub(super) fn watch_namesakes(
    session: &Session,
    keys: &Keys,
    hosts: watch::Sender<Option<String>>,
) -> Result<Subscriber<()>, BusError> {
    let key = keys.health();
    let latest = Mutex::new(Latest::default());
    session
        .declare_subscriber(key.clone())
        .allowed_origin(Locality::Remote)
        .callback(move |sample| {
            let now = Instant::now();
            let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
            if !latest.is_due(now) {
                return;
            }
            let Some(host) = host_of(&sample) else { return };
            if latest.take(&host, now) {
                warn!(
                    host,
                    "another backend of this name is on the bus: give one of them another --name"
                );
            }
            hosts.send_replace(Some(host));
        })
        .wait()
        .map_err(|err| BusError::Declare { key, err })
}

/// The host of the last message that was not ignored, and its time.
#[derive(Debug, Default)]
struct Latest(Option<(String, Instant)>);

impl Latest {
    /// Returns whether a message that arrives now must not be ignored.
    fn is_due(&self, now: Instant) -> bool {
        let last = self.0.as_ref();
        last.is_none_or(|(_, at)| now.duration_since(*at) >= PAUSE)
    }

    /// Records a message, and returns whether its host must be logged.
    fn take(&mut self, host: &str, now: Instant) -> bool {
        let last = self.0.as_ref();
        let is_news =
            last.is_none_or(|(known, at)| known != host || now.duration_since(*at) > NAMESAKE_GONE);
        self.0 = Some((host.to_owned(), now));
        is_news
    }
}

/// Returns the printable part of the host's name, because the message is untrusted.
fn host_of(sample: &Sample) -> Option<String> {
    if sample.kind() != SampleKind::Put || sample.payload().len() > LARGEST_MESSAGE {
        return None;
    }
    let health: BackendHealthStatus = serde_json::from_slice(&sample.payload().to_bytes()).ok()?;
    let host = health.metadata.hostname.unwrap_or_default();
    let printable = host.chars().filter(|char| char.is_ascii_graphic());
    let host: String = printable.take(LONGEST_HOST).collect();
    Some(if host.is_empty() {
        "an unknown host".to_owned()
    } else {
        host
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namesake_is_reported_once() {
        let mut latest = Latest::default();
        let start = Instant::now();
        assert!(latest.take("a", start));
        assert!(!latest.take("a", start + NAMESAKE_GONE));
        assert!(latest.take("b", start + NAMESAKE_GONE));
        assert!(latest.take("b", start + NAMESAKE_GONE * 3));
    }

    #[test]
    fn of_a_flood_one_message_in_each_pause_is_taken() {
        let mut latest = Latest::default();
        let start = Instant::now();
        let mut taken = 0;
        for number in 0..30_000_u32 {
            let now = start + Duration::from_millis(number.into());
            if latest.is_due(now) {
                latest.take(["a", "b"][number as usize % 2], now);
                taken += 1;
            }
        }
        assert_eq!(taken, 4, "within 30 s");
    }

    #[test]
    fn each_message_of_an_honest_backend_is_taken() {
        let mut latest = Latest::default();
        let start = Instant::now();
        for seconds in [0.0, 10.4, 19.6, 30.0] {
            let now = start + Duration::from_secs_f64(seconds);
            assert!(latest.is_due(now), "after {seconds} s");
            latest.take("a", now);
        }
    }
}
