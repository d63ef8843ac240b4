//! The actor: waits for inputs, passes them to the executions, and runs calls of the port in separate tasks.

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::executions::{Call, Executions};
use super::handle::Command;
use super::machine::{self, Moment};
use super::port::{Claim, TcPort, UpdateSink};
use crate::clock::{now, unix_milliseconds};

enum Input {
    Stop,
    Command(Command),
    Done(Result<Done, JoinError>),
    Timer,
}

/// The result of a task that the actor started.
#[derive(Debug)]
enum Done {
    Answered(u64, machine::Input),
    Released,
    Published,
}

/// The scenario actor. [`Task::run`] runs it.
#[derive(Debug)]
pub struct Task<P, S> {
    executions: Executions,
    commands: mpsc::Receiver<Command>,
    port: P,
    sink: S,
    /// Running calls of the port (at most two for each execution) and at most one publication.
    work: JoinSet<Done>,
    publishing: bool,
    /// Number of running releases.
    releasing: usize,
    /// Receivers of the end of all executions.
    done: Vec<oneshot::Sender<()>>,
}

impl<P: TcPort, S: UpdateSink> Task<P, S> {
    pub(super) fn new(
        executions: Executions,
        commands: mpsc::Receiver<Command>,
        port: P,
        sink: S,
    ) -> Self {
        Self {
            executions,
            commands,
            port,
            sink,
            work: JoinSet::new(),
            publishing: false,
            releasing: 0,
            done: Vec::new(),
        }
    }

    /// Runs executions until `stop` is cancelled or all command senders were dropped.
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
            let called = !calls.is_empty();
            for (claim, call) in calls {
                self.call(claim, call);
            }
            if called {
                // Let the tasks start their kernel changes before the publication. Cancel-safe: no value is held here.
                tokio::task::yield_now().await;
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
            // Cancel-safe: the deadline is computed again for each wait. It has priority over results, because with many
            // executions there is always another result.
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
            // Tasks are never aborted, so this one panicked. Pass the panic on to the supervisor.
            Err(err) => std::panic::resume_unwind(err.into_panic()),
        }
        Vec::new()
    }

    fn call(&mut self, claim: Claim, call: Call) {
        debug!(
            netns = %claim.target.names.netns, ifname = %claim.target.names.interface,
            scenario = %claim.scenario, ?call, "traffic control called"
        );
        let port = self.port.clone();
        match call {
            Call::Capture => self.work.spawn(async move {
                let captured = port.capture(&claim).await;
                Done::Answered(claim.number, machine::Input::Captured(captured))
            }),
            Call::Set(wanted) => self.work.spawn(async move {
                let result = port.set(&claim, wanted).await;
                Done::Answered(claim.number, machine::Input::Changed(result))
            }),
            Call::Restore => self.work.spawn(async move {
                let result = port.restore(&claim).await;
                Done::Answered(claim.number, machine::Input::Changed(result))
            }),
            Call::Release { owed } => {
                self.releasing += 1;
                self.work.spawn(async move {
                    port.release(&claim, owed).await;
                    Done::Released
                })
            }
        };
    }

    /// Publishes the changes since the last publication. At most one publication runs at a time.
    fn publish(&mut self, moment: Moment) {
        if self.publishing {
            return;
        }
        let updates = self.executions.take_publications(moment);
        if updates.is_empty() {
            return;
        }
        self.publishing = true;
        let sink = self.sink.clone();
        self.work.spawn(async move {
            sink.publish(updates).await;
            Done::Published
        });
    }
}

fn moment() -> Moment {
    Moment {
        now: now(),
        unix_ms: unix_milliseconds(),
    }
}
