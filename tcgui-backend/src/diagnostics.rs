//! Looking at an interface from inside its namespace: link, reachability, latency.
//!
//! Nothing is kept between checks. One check is one call of [`Diagnostics::run`], which always returns within [`LONGEST`].
//! A short-lived thread enters the namespace (`probe.rs`) and returns with an open ICMP socket. The echo requests (`echo.rs`,
//! pure) are then sent and awaited without a thread. The socket is closed after the check, or when the namespace goes.
//!
//! ```text
//!  Order ──▶ target.rs (pure) ──▶ probe.rs: link, gateway, socket ──▶ echo.rs (pure) ──▶ report.rs (pure)
//!                                 (a thread inside the namespace)      over EchoChannel
//! ```
//!
//! Host names are refused: the resolver of the C library cannot be given up in time, would hold its
//! namespace until it gives up itself, and reads the host's configuration, not the namespace's.

mod echo;
mod probe;
mod report;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tcgui_shared::diagnostics::DiagnosticsResponse;
use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::names::{InterfaceName, NamespaceName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::blocking;
use crate::error::chain;
use crate::kernel::icmp::EchoChannel;
use crate::kernel::netns::NetnsFiles;
use crate::sockets::NetnsTarget;
use echo::{Echoes, Step};
use probe::{Asking, Found, ProbeError};
use report::Reachability;
use target::Wish;

/// Within this time of being asked, every check is answered.
pub const LONGEST: Duration = Duration::from_secs(4);
/// When the last echo is given up, so that the answer itself has time too.
const ECHOES_END: Duration = Duration::from_millis(3600);
/// How long a check may wait for its turn: what is left is enough for all echoes and a slow reply.
const TURN: Duration = Duration::from_millis(1500);
/// Checks at once; each holds a namespace by its socket, and sends a packet every 200 ms.
const CHECKS: usize = 16;
/// Visits to namespaces at once; a visit blocks its thread for as long as the kernel holds a lock.
const VISITS: usize = 4;
/// Errors heard over one socket before it is no longer listened to.
const ERRORS: usize = 32;

/// What is to be checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Where the namespace is.
    pub place: NetnsTarget,
    /// Its name, for what is said about it.
    pub netns: NamespaceName,
    /// The kernel's index of the interface.
    pub ifindex: u32,
    /// Its name.
    pub interface: InterfaceName,
    /// What to reach; as the client wrote it.
    pub target: Option<String>,
    /// How long to wait for the reply to the last echo, at least a second.
    pub timeout: Duration,
    /// When the client asked.
    pub asked_at: Instant,
}

/// Checks interfaces. Clones share the bounds.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    files: NetnsFiles,
    checks: Arc<Semaphore>,
    visits: Arc<Semaphore>,
}

impl Diagnostics {
    /// Checks interfaces of namespaces that these files lead to.
    pub fn new(files: NetnsFiles) -> Self {
        Self {
            files,
            checks: Arc::new(Semaphore::new(CHECKS)),
            visits: Arc::new(Semaphore::new(VISITS)),
        }
    }

    /// Checks an interface and returns what to answer; always within [`LONGEST`] of `asked_at`.
    ///
    /// When `gone` is ready, the namespace or the interface went, and the check ends. Dropping the
    /// future ends it too.
    pub async fn run(&self, order: Order, gone: impl Future<Output = ()>) -> DiagnosticsResponse {
        tokio::select! {
            biased;
            // Not cancel-safe, both: the one that is given up has no more to say.
            () = gone => vanished(&order),
            response = self.check(&order) => response,
        }
    }

    async fn check(&self, order: &Order) -> DiagnosticsResponse {
        let wish = match target::wish(order.target.as_deref(), &order.interface, order.ifindex) {
            Ok(wish) => wish,
            Err(err) => {
                return DiagnosticsResponse::failure(err.to_string(), ErrorKind::Invalid);
            }
        };
        let turn = timeout_at(order.asked_at + TURN, self.checks.acquire()).await;
        let Ok(Ok(_checking)) = turn else {
            return busy("too many checks are under way, try again");
        };
        let deadline = order.asked_at + ECHOES_END;
        let visit = Arc::clone(&self.visits).acquire_owned();
        let probed = timeout_at(deadline, async {
            // The semaphore is never closed.
            self.probe(order, wish, visit.await.ok()).await
        });
        let found = match probed.await {
            Ok(Ok(found)) => found,
            Ok(Err(ProbeError::Vanished)) => return vanished(order),
            Ok(Err(err)) => {
                return DiagnosticsResponse::failure(chain(&err).to_string(), err.kind());
            }
            Err(_) => return busy("the kernel did not answer in time, try again"),
        };
        let Found {
            link,
            qdisc,
            target,
            asking,
        } = found;
        let reachability = match asking {
            Asking::LinkDown => Reachability::LinkDown,
            Asking::Impossible(err) => Reachability::Unknown(chain(&err).to_string()),
            Asking::NoWay(err) => {
                debug!(%target, error = %chain(&err), "target out of reach");
                Reachability::Asked(Echoes::new(order.asked_at, order.timeout).summary())
            }
            Asking::Over(socket) => match socket.into_channel() {
                Ok(channel) => {
                    let mut echoes = Echoes::new(deadline, order.timeout);
                    exchange(&channel, &mut echoes).await;
                    Reachability::Asked(echoes.summary())
                }
                Err(err) => Reachability::Unknown(chain(&err).to_string()),
            },
        };
        report::response(&link, qdisc.as_ref(), &target, &reachability)
    }

    /// Visits the namespace, on a thread that ends there.
    async fn probe(
        &self,
        order: &Order,
        wish: Wish,
        visit: Option<OwnedSemaphorePermit>,
    ) -> Result<Found, ProbeError> {
        let (files, order) = (self.files, order.clone());
        blocking::run(move || {
            // Kept until the visit ends, also if the caller no longer waits.
            let _visit = visit;
            probe::visit(files, &order, wish)
        })
        .await
    }
}

/// Sends the echoes when they are due and takes in what comes back, until nothing more is to come.
async fn exchange(channel: &EchoChannel, echoes: &mut Echoes) {
    let mut errors = 0;
    while errors < ERRORS {
        let until = match echoes.next(Instant::now()) {
            Step::Done => return,
            Step::Send(sequence) => {
                // Before the call: the reply of the own host comes within it.
                echoes.sent(Instant::now());
                if let Err(error) = channel.send(sequence) {
                    debug!(%error, sequence, "echo not sent");
                }
                continue;
            }
            Step::Wait(until) => until,
        };
        match timeout_at(until, channel.reply()).await {
            Ok(Ok(sequence)) => echoes.answered(sequence, Instant::now()),
            Ok(Err(error)) => {
                errors += 1;
                debug!(%error, "echo refused");
            }
            Err(_) => {}
        }
    }
}

fn vanished(order: &Order) -> DiagnosticsResponse {
    let (interface, netns) = (&order.interface, &order.netns);
    let message = format!("interface {interface} in network namespace {netns} is gone");
    DiagnosticsResponse::failure(message, ErrorKind::NotFound)
}

fn busy(message: &str) -> DiagnosticsResponse {
    DiagnosticsResponse::failure(message, ErrorKind::Busy)
}
