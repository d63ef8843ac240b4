//! Tests of the actor on a paused clock, which advances only while all tasks wait.

use std::time::Duration;

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::scenario::{ExecutionState, ScenarioExecutionResponse};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fakes::{Bus, RecordingPort};
use super::*;
use crate::bus::Reply;
use crate::execution::port::PortError;
use crate::execution::{Action, Command, ScenarioHandle, Start, open};

pub(super) struct Lab {
    pub(super) handle: ScenarioHandle,
    pub(super) port: RecordingPort,
    pub(super) bus: Bus,
    pub(super) stop: CancellationToken,
    pub(super) actor: JoinSet<()>,
}

impl Lab {
    /// All executions run this scenario.
    pub(super) fn new(scenario: NetworkScenario, latency: Duration) -> Self {
        let scenario = shared(scenario);
        let port = RecordingPort::new(latency);
        let bus = Bus::default();
        let source = Arc::new(move |_: &str| Some(Arc::clone(&scenario)));
        let name = "lab".parse().unwrap();
        let (handle, task) = open(&name, source, port.clone(), bus.clone());
        let stop = CancellationToken::new();
        let mut actor = JoinSet::new();
        actor.spawn(task.run(stop.clone()));
        Self {
            handle,
            port,
            bus,
            stop,
            actor,
        }
    }

    pub(super) async fn start(&self, number: u32, looped: bool) -> ScenarioExecutionResponse {
        let (reply, answer) = Reply::channel();
        let start = Start {
            scenario_id: "s".to_owned(),
            looped: Some(looped),
            target: target(number, number),
            reply,
        };
        self.handle.send(Command::Start(Box::new(start))).await;
        answer.await.unwrap()
    }

    pub(super) async fn act(&self, action: Action, number: u32) -> ScenarioExecutionResponse {
        self.ask(action, number).await.await.unwrap()
    }

    /// Sends a request without waiting for the answer.
    pub(super) async fn ask(
        &self,
        action: Action,
        number: u32,
    ) -> oneshot::Receiver<ScenarioExecutionResponse> {
        let (reply, answer) = Reply::channel();
        let target = target(number, number);
        let command = Command::On {
            names: target.names,
            key: Some(target.key),
            action,
            reply,
        };
        self.handle.send(command).await;
        answer
    }

    pub(super) async fn end(mut self) {
        self.stop.cancel();
        self.actor.join_next().await.unwrap().unwrap();
    }

    async fn wait_for_state(&self, state: &ExecutionState) {
        while self.bus.last_state().as_ref() != Some(state) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_steps_do_not_drift() {
    let lab = Lab::new(scenario("s", &[100; 100]), Duration::from_millis(7));
    lab.start(1, false).await;
    lab.wait_for_state(&ExecutionState::Completed).await;
    let recorded = lab.port.recorded();
    assert_eq!(recorded.len(), 100);
    for (step, it) in (0..).zip(&recorded) {
        let due = recorded[0].at + Duration::from_millis(100) * step;
        let late = it.at.saturating_duration_since(due);
        // Tokio's clock has a resolution of 1 ms.
        assert!(late <= Duration::from_millis(2), "{step}: {late:?}");
    }
    assert_eq!(lab.port.root(1), netem(100), "the last step stays");
    assert_eq!(lab.port.released(), [(1, false)]);
    lab.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_execution_is_started_paused_resumed_and_stopped() {
    let lab = Lab::new(scenario("s", &[100, 100]), Duration::ZERO);
    lab.port.set_root(1, netem(70));
    let begin = Instant::now();
    lab.start(1, true).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(lab.port.root(1), netem(2));
    lab.act(Action::Pause, 1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(lab.port.root(1), netem(2));
    lab.act(Action::Resume, 1).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(lab.port.root(1), netem(1), "the second pass");
    let stopped = lab.act(Action::Stop, 1).await;
    assert_eq!(
        stopped,
        ScenarioExecutionResponse::Stopped { success: true }
    );
    assert_eq!(lab.port.root(1), netem(70));
    assert!(begin.elapsed() < Duration::from_millis(60_220));
    lab.wait_for_state(&ExecutionState::Stopped).await;
    let updates = lab.bus.updates();
    assert!(updates.is_sorted_by_key(|it| it.timestamp));
    let pass = |update: &&tcgui_shared::scenario::ScenarioExecutionUpdate| {
        update.execution.loop_iteration == 1
    };
    assert!(updates.iter().any(|it| pass(&it)));
    // The publisher is removed after `RETIRE_AFTER`.
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(lab.bus.publications().pop().unwrap().update.is_none());
    lab.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_at_the_start_is_reported() {
    let lab = Lab::new(scenario("s", &[100]), Duration::ZERO);
    lab.port.refuse(PortError::Refused {
        kind: ErrorKind::Busy,
        message: "the root qdisc htb 1: belongs to another program".to_owned(),
    });
    let ScenarioExecutionResponse::Error { error } = lab.start(1, false).await else {
        panic!("started")
    };
    assert!(error.message.contains("htb 1:"), "{error:?}");
    assert!(lab.bus.publications().is_empty() && lab.port.recorded().is_empty());
    lab.end().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_restores_the_interfaces_or_leaves_them() {
    for (restore, root) in [(true, Impairment::None), (false, netem(1))] {
        let lab = Lab::new(scenario("s", &[60_000]), Duration::from_millis(5));
        for number in 1..=20 {
            lab.start(number, true).await;
        }
        let begin = Instant::now();
        lab.handle.end(restore).await.await.unwrap();
        assert!(begin.elapsed() < Duration::from_millis(50));
        for number in 1..=20 {
            assert_eq!(lab.port.root(number), root);
        }
        let stopped = lab.bus.updates().into_iter().rev().take(20);
        let is_stopped = |state| state == ExecutionState::Stopped;
        assert!(stopped.map(|it| it.execution.state).all(is_stopped));
        assert!(matches!(
            lab.start(1, true).await,
            ScenarioExecutionResponse::Error { .. }
        ));
        lab.end().await;
    }
}

#[tokio::test]
async fn a_failed_restoration_is_released_as_owed() {
    let lab = Lab::new(scenario("s", &[60_000]), Duration::ZERO);
    lab.start(1, false).await;
    lab.start(2, false).await;
    lab.act(Action::Stop, 1).await;
    lab.port.refuse(PortError::Refused {
        kind: ErrorKind::Denied,
        message: "not permitted".to_owned(),
    });
    lab.handle.end(true).await.await.unwrap();
    assert_eq!(lab.port.released(), [(1, false), (2, true)]);
    lab.end().await;
}
