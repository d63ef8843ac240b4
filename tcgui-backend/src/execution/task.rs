//! The actor: waits for what happens, lets the executions decide, calls the port beside itself.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::executions::{Call, Executions};
use super::handle::Command;
use super::machine::{self, Moment};
use super::port::{Claim, Impairment, Ledger, PortError, TcPort, UpdateSink};
use crate::blocking;
use crate::clock::unix_milliseconds;
use crate::error::chain;
use tcgui_shared::error_kind::ErrorKind;

enum Input {
    Stop,
    Command(Command),
    Done(Result<Done, JoinError>),
    Timer,
}

/// Work beside the actor that has come to its end.
#[derive(Debug)]
enum Done {
    Answered(u64, machine::Input),
    Released,
    Published,
}

/// The scenario actor; [`Task::run`] is its life.
#[derive(Debug)]
pub struct Task<P, S> {
    executions: Executions,
    commands: mpsc::Receiver<Command>,
    outside: Outside<P, S>,
    /// Calls of the port, at most two for each execution, and one publication.
    work: JoinSet<Done>,
    publishing: bool,
    /// Releases under way: a ledger that is not written yet.
    releasing: usize,
    /// Who waits for the end of all executions.
    done: Vec<oneshot::Sender<()>>,
}

/// What the actor acts upon.
#[derive(Clone)]
struct Outside<P, S> {
    ledger: Option<Arc<dyn Ledger>>,
    port: P,
    sink: S,
}

impl<P, S> std::fmt::Debug for Outside<P, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").finish_non_exhaustive()
    }
}

impl<P: TcPort, S: UpdateSink> Task<P, S> {
    pub(super) fn new(
        executions: Executions,
        commands: mpsc::Receiver<Command>,
        ledger: Option<Arc<dyn Ledger>>,
        port: P,
        sink: S,
    ) -> Self {
        Self {
            executions,
            commands,
            outside: Outside { ledger, port, sink },
            work: JoinSet::new(),
            publishing: false,
            releasing: 0,
            done: Vec::new(),
        }
    }

    /// Runs executions until `stop` is cancelled or nobody can command any more.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let input = self.next_input(&stop).await;
            let moment = moment();
            let calls = match input {
                Input::Stop => break,
                Input::Command(mut command) => {
                    if let Command::End { done, .. } = &mut command {
                        let (unused, _) = oneshot::channel();
                        self.done.push(std::mem::replace(done, unused));
                    }
                    self.executions.command(command, moment)
                }
                Input::Done(done) => self.done(done, moment),
                Input::Timer => self.executions.tick(moment),
            };
            for (claim, call) in calls {
                self.call(claim, call);
            }
            self.publish(moment);
            if !self.publishing && self.releasing == 0 && self.executions.is_done() {
                for done in self.done.drain(..) {
                    done.send(()).ok();
                }
            }
        }
    }

    async fn next_input(&mut self, stop: &CancellationToken) -> Input {
        let wake = self.executions.wake_at();
        let wake = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Cancel-safe: cancellation is a state.
            () = stop.cancelled() => Input::Stop,
            // Cancel-safe: `recv` takes nothing unless it returns it.
            command = self.commands.recv() => command.map_or(Input::Stop, Input::Command),
            // Cancel-safe: the deadline is computed anew each time. Before the answers, of which there is
            // always another one while many executions run.
            () = wake => Input::Timer,
            // Cancel-safe: the set keeps a result until it is returned.
            Some(done) = self.work.join_next() => Input::Done(done),
        }
    }

    fn done(&mut self, done: Result<Done, JoinError>, moment: Moment) -> Vec<(Claim, Call)> {
        match done {
            Ok(Done::Answered(number, answer)) => {
                return self.executions.answered(number, answer, moment);
            }
            Ok(Done::Released) => self.releasing -= 1,
            Ok(Done::Published) => self.publishing = false,
            // Nobody aborts it, so it panicked; the supervisor is told.
            Err(err) => std::panic::resume_unwind(err.into_panic()),
        }
        Vec::new()
    }

    fn call(&mut self, claim: Claim, call: Call) {
        debug!(
            netns = %claim.target.names.netns, ifname = %claim.target.names.interface,
            scenario = %claim.scenario, ?call, "traffic control called"
        );
        let outside = self.outside.clone();
        match call {
            Call::Capture => self.work.spawn(async move {
                let captured = outside.capture(&claim).await;
                Done::Answered(claim.number, machine::Input::Captured(captured))
            }),
            Call::Set(wanted) => self.work.spawn(async move {
                let result = outside.port.set(&claim, wanted).await;
                Done::Answered(claim.number, machine::Input::Changed(result))
            }),
            Call::Release { owed } => {
                self.releasing += 1;
                self.work.spawn(async move {
                    outside.release(claim, owed).await;
                    Done::Released
                })
            }
        };
    }

    /// Publishes what has changed since the last publication, one at a time.
    fn publish(&mut self, moment: Moment) {
        if self.publishing {
            return;
        }
        let updates = self.executions.take_publications(moment);
        if updates.is_empty() {
            return;
        }
        self.publishing = true;
        let sink = self.outside.sink.clone();
        self.work.spawn(async move {
            sink.publish(updates).await;
            Done::Published
        });
    }
}

impl<P: TcPort, S> Outside<P, S> {
    /// Reads what is there, and remembers it where it outlives the daemon.
    async fn capture(&self, claim: &Claim) -> Result<Impairment, PortError> {
        let captured = self.port.capture(claim).await?;
        if let Some(ledger) = self.ledger.clone() {
            let (claim, entry) = (claim.clone(), captured.clone());
            let entered = blocking::run(move || ledger.enter(&claim, &entry)).await;
            entered.map_err(|err| {
                let err = chain(err.as_ref()).to_string();
                warn!(error = err, "what is to be restored cannot be remembered");
                PortError::Refused {
                    kind: ErrorKind::Internal,
                    message: format!("cannot remember what is to be restored: {err}"),
                }
            })?;
        }
        Ok(captured)
    }

    /// Gives the interface up, and forgets what was there unless that is still owed.
    async fn release(&self, claim: Claim, owed: bool) {
        self.port.release(&claim).await;
        if let Some(ledger) = self.ledger.clone().filter(|_| !owed) {
            blocking::run(move || ledger.strike(&claim)).await;
        }
    }
}

fn moment() -> Moment {
    Moment {
        now: tokio::time::Instant::now().into_std(),
        unix_ms: unix_milliseconds(),
    }
}
