//! One log line for peers that are refused in the TLS handshake.
//!
//! Zenoh logs each refusal and always adds a hint about open files. A peer that retries each second would fill the log.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Time after which a cause is logged again.
const SILENCE: Duration = Duration::from_mins(10);
/// Maximum number of distinct causes. Further causes are not logged, because the peer influences the text.
const CAUSES: usize = 32;
/// Maximum length of a cause in characters.
const LONGEST_CAUSE: usize = 200;

/// The log targets of Zenoh's encrypted links, and their names in our log.
const TRANSPORTS: [(&str, &str); 2] = [
    ("zenoh_link_tls", "tls"),
    ("zenoh_link_commons::quic", "quic"),
];
/// The text that Zenoh adds to every failed accept.
const ITS_HINT: &str = ". Hint: increase the system open file limit.";

/// Replaces Zenoh's log lines about refused peers.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    logged: Mutex<HashMap<(&'static str, String), Instant>>,
}

impl Handshakes {
    fn is_news(&self, transport: &'static str, cause: &str, now: Instant) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|_, at| now.duration_since(*at) < SILENCE);
        let key = (transport, cause.to_owned());
        if logged.len() >= CAUSES || logged.contains_key(&key) {
            return false;
        }
        logged.insert(key, now);
        true
    }
}

impl<S: Subscriber> Layer<S> for Handshakes {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let target = event.metadata().target();
        let transport = TRANSPORTS.iter().find(|(from, _)| target.starts_with(from));
        let Some((_, transport)) = transport else {
            return true;
        };
        let mut message = Message::default();
        event.record(&mut message);
        let Some(cause) = refusal(&message.0) else {
            return true;
        };
        if self.is_news(transport, &cause, Instant::now()) {
            warn!(
                transport,
                cause, "peer refused in the TLS handshake; not logged again for 10 minutes"
            );
        }
        false
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Returns why a peer was refused. `None` for other messages, including a real shortage of file descriptors.
fn refusal(message: &str) -> Option<String> {
    let failure = message.strip_suffix(ITS_HINT)?;
    if failure.contains("Too many open files") {
        return None;
    }
    let quoted = failure.split_once("reason: \"");
    let reason = quoted.and_then(|(_, rest)| rest.split_once('"'));
    let cause = match reason {
        Some((reason, _)) => reason,
        // Remove the source location in Zenoh.
        None => failure.split(" at /").next().unwrap_or(failure),
    };
    let printable = cause.chars().filter(|char| !char.is_control());
    Some(printable.take(LONGEST_CAUSE).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_the_one_of_the_handshake() {
        let cause = |text: &str| refusal(&format!("{text}{ITS_HINT}"));
        let bad = "invalid peer certificate: BadSignature";
        assert_eq!(cause(bad).as_deref(), Some(bad));
        let quic = format!(
            "QUIC acceptor failed: TransportError(Error {{ code: Code::crypto(33), frame: None, reason: \"{bad}\" }}) \
             at /root/x.rs:686"
        );
        assert_eq!(cause(&quic).as_deref(), Some(bad));
        assert_eq!(
            cause("timed out at /root/x.rs:1").as_deref(),
            Some("timed out")
        );
        assert_eq!(cause("Too many open files (os error 24)"), None);
        assert_eq!(refusal(bad), None);
    }

    #[test]
    fn a_cause_is_logged_once_in_ten_minutes() {
        let handshakes = Handshakes::default();
        let now = Instant::now();
        assert!(handshakes.is_news("tls", "a", now));
        assert!(!handshakes.is_news("tls", "a", now + SILENCE / 2));
        assert!(handshakes.is_news("quic", "a", now));
        for number in 0..CAUSES * 2 {
            handshakes.is_news("tls", &number.to_string(), now);
        }
        assert_eq!(handshakes.logged.lock().unwrap().len(), CAUSES);
        assert!(handshakes.is_news("tls", "a", now + SILENCE));
    }
}
