//! Other backends of the same name on the bus, known by their health messages.
//!
//! Their liveliness tokens have the key of our own, and Zenoh shows one token for all of them. A token also stays
//! for ten seconds after a daemon died, so a namesake is reported and not refused.

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

/// Health messages come every 10 s. Without one for so long the namesake is gone.
pub const NAMESAKE_GONE: Duration = Duration::from_secs(30);

/// A health message has a few hundred bytes.
const LARGEST_MESSAGE: usize = 4096;
/// The longest host name that Linux takes (`HOST_NAME_MAX`).
const LONGEST_HOST: usize = 64;

/// The host of another backend of this name; each message marks the value as changed.
pub type Namesakes = watch::Receiver<Option<String>>;

/// Sends the host of each health message that another backend publishes under our name.
pub(super) fn watch_namesakes(
    session: &Session,
    keys: &Keys,
    hosts: watch::Sender<Option<String>>,
) -> Result<Subscriber<()>, BusError> {
    let key = keys.health();
    let last = Mutex::new(None);
    session
        .declare_subscriber(key.clone())
        .allowed_origin(Locality::Remote)
        .callback(move |sample| {
            let Some(host) = host_of(&sample) else { return };
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if is_news(last.as_ref(), &host) {
                warn!(
                    host,
                    "another backend of this name is on the bus: give one of them another --name"
                );
            }
            *last = Some((host.clone(), Instant::now()));
            hosts.send_replace(Some(host));
        })
        .wait()
        .map_err(|err| BusError::Declare { key, err })
}

fn is_news(last: Option<&(String, Instant)>, host: &str) -> bool {
    last.is_none_or(|(known, at)| known != host || at.elapsed() > NAMESAKE_GONE)
}

/// Returns the printable part of the host's name; the message is not trusted.
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
        assert!(is_news(None, "a"));
        let now = Instant::now();
        assert!(!is_news(Some(&("a".to_owned(), now)), "a"));
        assert!(is_news(Some(&("a".to_owned(), now)), "b"));
        if let Some(before) = now.checked_sub(NAMESAKE_GONE * 2) {
            assert!(is_news(Some(&("a".to_owned(), before)), "a"));
        }
    }
}
