//! Opens the session as a client. Retries until a router is reachable.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};
use zenoh::Session;
use zenoh::config::Config;

/// How long the start waits for the session. After this time, the daemon discovers namespaces while the session is
/// being opened.
const FIRST_ATTEMPT: Duration = Duration::from_secs(2);
/// Timeout of a later attempt.
const ATTEMPT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Timeout for finding the cause of a failure.
const LOOK: Duration = Duration::from_millis(500);

/// A session that is being opened.
pub(super) struct Joining(Pin<Box<dyn Future<Output = Session> + Send>>);

impl fmt::Debug for Joining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joining").finish_non_exhaustive()
    }
}

impl Joining {
    /// Waits for the session. Cancel-safe: the next call continues the attempts.
    pub(super) async fn session(&mut self) -> Session {
        (&mut self.0).await
    }
}

/// Opens the session. If the first attempt fails, logs the cause and returns the future that retries.
pub(super) async fn join(settings: Config, connect: &[String]) -> Result<Session, Joining> {
    let attempt = timeout(FIRST_ATTEMPT, zenoh::open(settings.clone())).await;
    let failure = match attempt {
        Ok(Ok(session)) => return Ok(session),
        Ok(Err(err)) => err.to_string(),
        Err(elapsed) => elapsed.to_string(),
    };
    debug!(error = failure, "session not opened");
    let cause = cause(connect).await;
    warn!(cause, "cannot join the bus yet, trying until it is there");
    Err(Joining(Box::pin(retry(settings))))
}

async fn retry(settings: Config) -> Session {
    let mut pause = FIRST_PAUSE;
    loop {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        match timeout(ATTEMPT, zenoh::open(settings.clone())).await {
            Ok(Ok(session)) => return session,
            Ok(Err(error)) => debug!(%error, "session not opened"),
            Err(elapsed) => debug!(%elapsed, "session not opened"),
        }
    }
}

/// Returns the result of a connection to each endpoint.
async fn cause(connect: &[String]) -> String {
    if connect.is_empty() {
        return "no router answers multicast scouting".to_owned();
    }
    let mut causes = Vec::new();
    for endpoint in connect {
        causes.push(format!("{endpoint}: {}", cause_at(endpoint).await));
    }
    causes.join("; ")
}

async fn cause_at(endpoint: &str) -> String {
    match endpoint.split_once('/') {
        Some(("tcp", address)) => match reach(address).await {
            Ok(()) => "connected, but no Zenoh session was opened".to_owned(),
            Err(err) => err.to_string(),
        },
        Some(("tls", address)) => match reach(address).await {
            Ok(()) => "connected, but the certificates do not fit: see --tls-client-ca, --tls-cert and --tls-key"
                .to_owned(),
            Err(err) => err.to_string(),
        },
        _ => "no answer".to_owned(),
    }
}

async fn reach(address: &str) -> io::Result<()> {
    match timeout(LOOK, TcpStream::connect(address)).await {
        Ok(connected) => connected.map(drop),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_cause_is_what_a_connection_meets() {
        let owner = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = owner.local_addr().unwrap();
        let there = cause(&[format!("tcp/{address}")]).await;
        assert!(there.contains("no Zenoh session"), "{there}");
        let there = cause(&[format!("tls/{address}")]).await;
        assert!(there.contains("--tls-client-ca"), "{there}");
        drop(owner);
        let refused = cause(&[format!("tcp/{address}")]).await;
        assert!(refused.contains("refused"), "{refused}");
        assert!(cause(&[]).await.contains("multicast"));
    }
}
