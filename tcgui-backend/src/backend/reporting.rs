//! Completes the answer to `query/state` with the steps of the scenarios that run.

use std::collections::HashMap;
use std::time::Duration;

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::scenario::{ExecutionState, ScenarioExecution, ScenarioExecutionResponse};
use tcgui_shared::state::{BackendState, ScenarioProgress, StateResponse};

use crate::bus::Reply;
use crate::execution::{Command, ScenarioHandle};

/// The executions answer in microseconds unless thousands of them have something to do.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Adds the steps, as the executions report them.
pub(super) async fn complete(state: BackendState, scenarios: &ScenarioHandle) -> StateResponse {
    let asked = async {
        let (reply, answer) = Reply::channel();
        scenarios.send(Command::ListActive(reply)).await;
        answer.await.ok()
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Some(ScenarioExecutionResponse::ActiveExecutions { executions })) => {
            StateResponse::success(with_steps(state, &executions))
        }
        _ => {
            let message = "the scenarios that run cannot be read, try again";
            StateResponse::failure(message, ErrorKind::Busy)
        }
    }
}

fn with_steps(mut state: BackendState, executions: &[ScenarioExecution]) -> BackendState {
    let by_target: HashMap<_, _> = executions
        .iter()
        .map(|it| ((&*it.target_namespace, &*it.target_interface), it))
        .collect();
    for interface in &mut state.interfaces {
        let target = (&*interface.namespace, &*interface.interface);
        if let (Some(scenario), Some(execution)) = (&mut interface.scenario, by_target.get(&target))
        {
            *scenario = progress(execution);
        }
    }
    state
}

fn progress(execution: &ScenarioExecution) -> ScenarioProgress {
    let steps = &execution.scenario.steps;
    let step = steps.get(execution.current_step);
    let description = step.map(|step| step.description.clone());
    ScenarioProgress {
        id: execution.scenario.id.clone(),
        name: Some(execution.scenario.name.clone()),
        step: Some(execution.current_step),
        steps: Some(steps.len()),
        description: description.filter(|text| !text.is_empty()),
        paused: matches!(execution.state, ExecutionState::Paused { .. }),
        loop_iteration: execution.loop_iteration,
        progress_percent: Some(execution.stats.progress_percent),
    }
}
