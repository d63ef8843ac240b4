//! `scenario start`, and waiting for the end of what it started.

use std::sync::Arc;
use std::time::Duration;

use tcgui_backend::cli::verbs::StartArgs;
use tcgui_shared::scenario::{
    ExecutionState, ExecutionTarget, ScenarioExecution, ScenarioExecutionRequest,
    ScenarioExecutionResponse, ScenarioExecutionUpdate,
};

use super::{get, named, other_answer};
use crate::commands::verbs::failure::{Failure, Status};
use crate::commands::verbs::output::Output;
use crate::commands::verbs::progress::Progress;
use crate::commands::verbs::session::Session;
use crate::commands::verbs::targets::{Done, Interface, Loopback, Outcome, each, report, resolve};
use crate::commands::verbs::times;

/// How often an execution is asked for, besides what it publishes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often the progress is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);

/// Starts a scenario on interfaces.
pub(super) async fn start(args: StartArgs) -> Result<(), Failure> {
    let output = Output::of(&args.client);
    let session = Arc::new(Session::open(&args.client).await?);
    let scenario = get(&session, &args.id).await?;
    let interfaces = resolve(&session, &args.on.targets, Loopback::Excluded).await?;
    let repeats = args.repeat || scenario.loop_scenario;
    let mut updates = Vec::new();
    if args.wait {
        if repeats {
            output.note(
                "the scenario starts over after its last step, so this waits until it is stopped",
            );
        }
        let key = format!("tcgui/{}/scenario/execution/*/*", session.backend);
        updates.push(
            session
                .client
                .subscribe::<ScenarioExecutionUpdate>(&key)
                .await?,
        );
    }
    let (id, repeat) = (scenario.id.clone(), args.repeat);
    let act = move |session: Arc<Session>, (namespace, interface): Interface| {
        let request = ScenarioExecutionRequest::Start {
            scenario_id: id.clone(),
            namespace,
            interface,
            loop_execution: repeat.then_some(true),
        };
        async move {
            match session.execution(&request).await? {
                ScenarioExecutionResponse::Started {
                    estimated_duration_ms,
                    ..
                } => Ok(Done {
                    text: Some(started(estimated_duration_ms)),
                    ..Done::default()
                }),
                _ => Err(other_answer()),
            }
        }
    };
    let mut outcomes = each(&session, interfaces, "starting", output.quiet, act).await;
    if let Some(updates) = updates.pop() {
        let begun: Vec<_> = outcomes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Done(_)))
            .map(|(interface, _)| interface.clone())
            .collect();
        let ended = wait(&session, updates, begun, output.quiet).await?;
        for (interface, end) in ended {
            if let Some((_, outcome)) = outcomes.iter_mut().find(|(it, _)| *it == interface) {
                *outcome = end;
            }
        }
    }
    report(&session, output, &outcomes, false)
}

fn started(ms: u64) -> String {
    format!(
        "started, one pass takes {}",
        times::duration(Duration::from_millis(ms))
    )
}

/// Waits until the executions on all interfaces have ended.
async fn wait(
    session: &Session,
    mut updates: tcgui_backend::client::Samples<ScenarioExecutionUpdate>,
    mut running: Vec<Interface>,
    quiet: bool,
) -> Result<Vec<(Interface, Outcome)>, Failure> {
    let progress = Progress::share(quiet);
    let mut ended = Vec::new();
    // Their end was published, or will be soon.
    let mut gone = Vec::new();
    let mut newest: Option<(Interface, ScenarioExecution)> = None;
    let mut poll = tokio::time::interval(POLL_INTERVAL);
    let mut draw = tokio::time::interval(DRAW_INTERVAL);
    while !running.is_empty() {
        tokio::select! {
            update = updates.next() => {
                let Some(update) = update else {
                    return Err(Failure::new(Status::NoDaemon, "the session was closed"));
                };
                let interface = (update.namespace, update.interface);
                if !running.contains(&interface) {
                    continue;
                }
                if let Some(end) = end(&update.execution) {
                    running.retain(|it| *it != interface);
                    ended.push((interface, end));
                } else {
                    newest = Some((interface, update.execution));
                }
            }
            // The last update may be lost, and a daemon that has ended publishes none.
            _ = poll.tick() => {
                for interface in running.clone() {
                    let end = match polled(session, &interface, &mut newest).await? {
                        Polled::Running => continue,
                        Polled::Ended(end) => end,
                        Polled::Gone if gone.contains(&interface) => done("ended"),
                        Polled::Gone => {
                            gone.push(interface);
                            continue;
                        }
                    };
                    running.retain(|it| *it != interface);
                    ended.push((interface, end));
                }
            }
            _ = draw.tick() => {
                if let Some((interface, execution)) = &newest {
                    progress.percent(percent(execution), &text(interface, execution, running.len()));
                }
            }
        }
    }
    Ok(ended)
}

/// What the daemon says of an execution.
enum Polled {
    Running,
    Ended(Outcome),
    /// It has ended. How is only published.
    Gone,
}

/// Asks for an execution.
async fn polled(
    session: &Session,
    interface: &Interface,
    newest: &mut Option<(Interface, ScenarioExecution)>,
) -> Result<Polled, Failure> {
    let request = ScenarioExecutionRequest::Status(ExecutionTarget {
        namespace: interface.0.clone(),
        interface: interface.1.clone(),
    });
    let ScenarioExecutionResponse::Status { execution } = session.execution(&request).await? else {
        return Err(other_answer());
    };
    match execution {
        Some(execution) => {
            let end = end(&execution);
            *newest = Some((interface.clone(), *execution));
            Ok(end.map_or(Polled::Running, Polled::Ended))
        }
        None => Ok(Polled::Gone),
    }
}

fn done(text: &str) -> Outcome {
    Outcome::Done(Done {
        text: Some(text.to_owned()),
        ..Done::default()
    })
}

/// Returns how an execution has ended. `None`: it has not.
fn end(execution: &ScenarioExecution) -> Option<Outcome> {
    match &execution.state {
        ExecutionState::Running | ExecutionState::Paused { .. } => None,
        ExecutionState::Completed => Some(done("completed")),
        ExecutionState::Stopped => Some(Outcome::Failed(Failure::new(
            Status::Failed,
            "the scenario was stopped before its end",
        ))),
        ExecutionState::Failed { error } => Some(Outcome::Failed(error.clone().into())),
    }
}

/// Returns the share that is done, from 0 to 100.
fn percent(execution: &ScenarioExecution) -> f64 {
    execution.stats.progress_percent.clamp(0.0, 100.0)
}

fn text(interface: &Interface, execution: &ScenarioExecution, running: usize) -> String {
    let steps = execution.scenario.steps.len();
    let step = execution.current_step + 1;
    let total = execution.scenario.steps.iter();
    let total = total.fold(0, |sum: u64, step| sum.saturating_add(step.duration_ms));
    let left = Duration::from_millis(total).mul_f64(1.0 - percent(execution) / 100.0);
    let left = times::duration(Duration::from_secs(left.as_secs()));
    let pass = match execution.loop_execution {
        true => format!("pass {}, ", execution.loop_iteration.saturating_add(1)),
        false => String::new(),
    };
    let paused = match execution.state {
        ExecutionState::Paused { .. } => ", paused",
        _ => "",
    };
    let others = match running {
        0 | 1 => String::new(),
        more => format!(" (and {} others)", more - 1),
    };
    format!(
        "{}: {pass}step {step} of {steps}{paused}, {left} left{others}",
        named(interface)
    )
}
