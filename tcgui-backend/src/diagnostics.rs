//! Checks an interface from inside its namespace: link state, reachability, latency.
//!
//! No state is kept between checks. One check is one call of [`Diagnostics::run`], which always returns within [`LONGEST`]. A
//! short-lived thread enters the namespace (`probe.rs`) and returns an open ICMP socket. The echo requests (`echo.rs`, pure) are
//! then sent and awaited without a thread. The socket is closed after the check, or when the namespace is deleted.
//!
//! ```text
//!  Order ──▶ target.rs (pure) ──▶ probe.rs: link, gateway, socket ──▶ echo.rs (pure) ──▶ report.rs (pure)
//!                                 (a thread inside the namespace)      over EchoChannel
//! ```
//!
//! Host names are refused. A call of the C library's resolver cannot be cancelled and would hold its namespace open until it
//! times out. It also reads the configuration of the host, not of the namespace.

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
use probe::{EchoAccess, Found, ProbeError};
use report::Reachability;
use target::RequestedTarget;

/// Maximum time between a request and its response.
pub const LONGEST: Duration = Duration::from_secs(4);
/// Time after the request at which the daemon stops waiting for echo replies. The rest of [`LONGEST`] is for the response.
const ECHOES_END: Duration = Duration::from_millis(3600);
/// Maximum time that a check waits for a free slot. The rest is enough for all echoes and a slow reply.
const TURN: Duration = Duration::from_millis(1500);
/// Maximum number of concurrent checks. Each one holds a namespace open through its socket and sends a packet every 200 ms.
const CHECKS: usize = 16;
/// Maximum number of threads that are inside namespaces. Such a thread blocks while another process holds the kernel's rtnl lock.
const VISITS: usize = 4;
/// Number of errors after which a socket is no longer read.
const ERRORS: usize = 32;

/// A check to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The namespace to enter.
    pub place: NetnsTarget,
    /// Its name, for messages.
    pub netns: NamespaceName,
    /// The kernel's index of the interface.
    pub ifindex: u32,
    /// Its name.
    pub interface: InterfaceName,
    /// The target to reach, as the client wrote it.
    pub target: Option<String>,
    /// Time to wait for the reply to the last echo, at least one second.
    pub timeout: Duration,
    /// Arrival time of the request.
    pub asked_at: Instant,
}

/// Checks interfaces. Clones share the limits.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    files: NetnsFiles,
    checks: Arc<Semaphore>,
    visits: Arc<Semaphore>,
}

impl Diagnostics {
    /// Creates a checker for namespaces that can be opened through `files`.
    pub fn new(files: NetnsFiles) -> Self {
        Self {
            files,
            checks: Arc::new(Semaphore::new(CHECKS)),
            visits: Arc::new(Semaphore::new(VISITS)),
        }
    }

    /// Checks an interface and returns the response, always within [`LONGEST`] of `asked_at`.
    ///
    /// The check ends early when `gone` resolves, because the namespace or the interface was deleted. Dropping the future also
    /// ends it.
    pub async fn run(&self, order: Order, gone: impl Future<Output = ()>) -> DiagnosticsResponse {
        tokio::select! {
            biased;
            // Neither future is cancel-safe. That does no harm, because the dropped one is never polled again.
            () = gone => vanished(&order),
            response = self.check(&order) => response,
        }
    }

    async fn check(&self, order: &Order) -> DiagnosticsResponse {
        let requested =
            match target::parse_target(order.target.as_deref(), &order.interface, order.ifindex) {
                Ok(requested) => requested,
                Err(err) => {
                    return DiagnosticsResponse::failure(err.to_string(), ErrorKind::Invalid);
                }
            };
        let turn = timeout_at(order.asked_at + TURN, self.checks.acquire()).await;
        let Ok(Ok(_checking)) = turn else {
            return busy("too many checks are under way, try again");
        };
        let deadline = order.asked_at + ECHOES_END;
        let permit = Arc::clone(&self.visits).acquire_owned();
        let probed = timeout_at(deadline, async {
            // The semaphore is never closed.
            self.probe(order, requested, permit.await.ok()).await
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
            echo_access,
        } = found;
        let reachability = match echo_access {
            EchoAccess::LinkDown => Reachability::LinkDown,
            EchoAccess::Failed(err) => Reachability::Unknown(chain(&err).to_string()),
            EchoAccess::NoRoute(err) => {
                debug!(%target, error = %chain(&err), "target out of reach");
                Reachability::Asked(Echoes::new(order.asked_at, order.timeout).summary())
            }
            EchoAccess::Socket(socket) => match socket.into_channel() {
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

    /// Runs the probe on a blocking thread.
    async fn probe(
        &self,
        order: &Order,
        requested: RequestedTarget,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Found, ProbeError> {
        let (files, order) = (self.files, order.clone());
        blocking::run(move || {
            // Keep the permit until the thread leaves the namespace, even if the caller no longer waits.
            let _permit = permit;
            probe::examine(files, &order, requested)
        })
        .await
    }
}

/// Sends the echoes on schedule and receives replies until none is left to wait for.
async fn exchange(channel: &EchoChannel, echoes: &mut Echoes) {
    let mut errors = 0;
    while errors < ERRORS {
        let until = match echoes.next(Instant::now()) {
            Step::Done => return,
            Step::Send(sequence) => {
                // Record the time before the call: if the target is the own host, the reply arrives during the call.
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
