//! The state machine of one execution. Pure.
//!
//! Each step begins at the scheduled end of the step before, however long a change takes. Therefore delays do not accumulate. The
//! port has at most one request of an execution at a time. A stop waits for the reply. The loss of the interface does not wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tcgui_shared::scenario::{
    ErrorCategory, ExecutionState, ExecutionStats, NetworkScenario, ScenarioError,
    ScenarioExecution,
};

use super::InterfaceNames;
use super::port::{Impairment, PortError};

/// Maximum delay of a step. If a step begins later, the rest of the schedule is shifted by the delay.
const MOST_LAG: Duration = Duration::from_secs(1);
/// Upper limit of the duration of a step. It also prevents an overflow of `Instant`.
const LONGEST_STEP: Duration = Duration::from_secs(365 * 24 * 3600);

const APPLYING: &str = "applying TC configuration";
const HOLDING: &str = "holding the step";
/// The operation in an error about a failed restoration.
pub(super) const RESTORING: &str = "restoring the interface";

/// The time of an input on the monotonic clock and on the wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// Milliseconds since the Unix epoch.
    pub(super) unix_ms: u64,
}

/// How an execution lost its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The interface or its namespace was deleted.
    Gone,
    /// A client changed the interface. The client's configuration stays.
    TakenOver,
    /// The daemon stops and leaves the configuration in force.
    Left,
}

#[derive(Debug, Clone)]
pub(super) enum Input {
    /// The interface belongs to the execution now, or why not.
    Captured(Result<(), PortError>),
    Changed(Result<(), PortError>),
    Pause,
    Resume,
    Stop,
    Lost(Loss),
    Timer,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    /// The execution has begun: answer the start request.
    Begun,
    /// The execution was refused and has published nothing.
    Refused(ScenarioError),
    /// Set the root qdisc. The reply is [`Input::Changed`].
    Set(Impairment),
    /// Restore the earlier root qdisc. The reply is [`Input::Changed`].
    Restore,
    /// Publish the current state.
    Publish,
    /// The execution has ended. Only `Release` may follow.
    Ended,
    /// Release the interface. No request is with the port. This is the last effect.
    Release {
        /// The earlier state was not restored.
        owed: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// The current state of the interface is being read.
    Capturing,
    /// The current step is being applied.
    Applying,
    /// The current step is in force.
    Holding,
    /// The earlier state is being restored. Then the execution ends in this state.
    Restoring(ExecutionState),
    Ended(ExecutionState),
}

/// When the current step ends.
#[derive(Debug, Clone, Copy)]
enum Course {
    Running { due: Instant },
    Held { remaining: Duration, paused_at: u64 },
}

#[derive(Debug)]
pub(super) struct Machine {
    scenario: Arc<NetworkScenario>,
    looped: bool,
    started_ms: u64,
    phase: Phase,
    course: Course,
    /// A request is with the port.
    busy: bool,
    /// A stop was requested and waits for the reply of the port.
    stopping: bool,
    /// The earlier state could not be restored.
    owed: bool,
    current_step: usize,
    iteration: u32,
    stats: ExecutionStats,
}

impl Machine {
    /// Creates an execution that waits for the captured state. The scenario must have at least one step.
    pub(super) fn new(scenario: Arc<NetworkScenario>, looped: bool, moment: Moment) -> Self {
        Self {
            scenario,
            looped,
            started_ms: moment.unix_ms,
            phase: Phase::Capturing,
            course: Course::Running { due: moment.now },
            busy: true,
            stopping: false,
            owed: false,
            current_step: 0,
            iteration: 0,
            stats: ExecutionStats::default(),
        }
    }

    /// Processes one input and returns the effects in the order in which they must be carried out.
    pub(super) fn step(&mut self, input: Input, moment: Moment) -> Vec<Effect> {
        let is_answer = matches!(input, Input::Captured(_) | Input::Changed(_));
        let answered = is_answer && std::mem::take(&mut self.busy);
        match (input, &self.phase) {
            (_, Phase::Ended(_)) if answered => vec![self.release()],
            (_, Phase::Ended(_)) => Vec::new(),
            (Input::Captured(captured), Phase::Capturing) => self.captured(captured, moment),
            (Input::Changed(result), Phase::Applying) => self.applied(result),
            (Input::Changed(result), Phase::Restoring(_)) => self.restored(result),
            (Input::Stop, _) => self.stop(),
            (Input::Pause, _) => self.pause(moment),
            (Input::Resume, _) => self.resume(moment),
            (Input::Lost(loss), _) => self.lost(loss),
            (Input::Timer, Phase::Holding) => self.finish_step(moment),
            (Input::Captured(_) | Input::Changed(_) | Input::Timer, _) => Vec::new(),
        }
    }

    /// Returns the time at which [`Input::Timer`] is due.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        match (&self.phase, self.course) {
            (Phase::Holding, Course::Running { due }) => Some(due),
            _ => None,
        }
    }

    /// Returns whether the execution has begun and no stop was requested.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Applying | Phase::Holding) && !self.stopping
    }

    /// Returns whether the execution has begun, so that clients receive updates about it.
    pub(super) fn has_begun(&self) -> bool {
        self.phase != Phase::Capturing
    }

    pub(super) fn state(&self) -> ExecutionState {
        match (&self.phase, self.course) {
            (Phase::Ended(state), _) => state.clone(),
            (_, Course::Held { paused_at, .. }) => ExecutionState::Paused { paused_at },
            (_, Course::Running { .. }) => ExecutionState::Running,
        }
    }

    pub(super) fn scenario(&self) -> &NetworkScenario {
        &self.scenario
    }

    /// Returns the current state in the form of the wire.
    pub(super) fn snapshot(&self, names: &InterfaceNames) -> ScenarioExecution {
        ScenarioExecution {
            scenario: NetworkScenario::clone(&self.scenario),
            start_time: self.started_ms,
            current_step: self.current_step,
            state: self.state(),
            target_namespace: names.netns.to_wire(),
            target_interface: names.interface.to_wire(),
            stats: self.stats.clone(),
            loop_execution: self.looped,
            loop_iteration: self.iteration,
        }
    }

    fn captured(&mut self, captured: Result<(), PortError>, moment: Moment) -> Vec<Effect> {
        match captured {
            Err(err) => self.refuse(refusal(&err)),
            Ok(_) if self.stopping => self.refuse(ScenarioError::new(
                ErrorCategory::Transient,
                "stopped before it began",
            )),
            Ok(()) => {
                let first = self.begin_step(moment.now, moment.now);
                vec![Effect::Begun, Effect::Publish, first]
            }
        }
    }

    fn refuse(&mut self, error: ScenarioError) -> Vec<Effect> {
        self.phase = Phase::Ended(ExecutionState::Failed {
            error: error.clone(),
        });
        vec![Effect::Refused(error), Effect::Ended, self.release()]
    }

    fn release(&self) -> Effect {
        Effect::Release { owed: self.owed }
    }

    /// Begins the current step, which was due at `due`.
    fn begin_step(&mut self, due: Instant, now: Instant) -> Effect {
        let begin = if now.saturating_duration_since(due) > MOST_LAG {
            now
        } else {
            due
        };
        // The index is valid: scenarios have steps, and `finish_step` checks the bounds.
        let step = self.scenario.steps.get(self.current_step);
        let hold = step.map_or(0, |step| step.duration_ms);
        self.course = Course::Running {
            due: begin + Duration::from_millis(hold).min(LONGEST_STEP),
        };
        self.phase = Phase::Applying;
        self.busy = true;
        Effect::Set(step.map_or(Impairment::None, |step| {
            Impairment::of_step(&step.tc_config)
        }))
    }

    fn applied(&mut self, result: Result<(), PortError>) -> Vec<Effect> {
        let failure = match result {
            Ok(()) => {
                self.stats.tc_operations += 1;
                None
            }
            Err(err) => {
                self.stats.failed_operations += 1;
                self.stats.last_error = Some(err.to_string());
                Some(err)
            }
        };
        match failure {
            // A deleted interface cannot be restored.
            Some(err) if err.is_gone() => self.end(self.failed(&err, APPLYING)),
            _ if self.stopping => self.restore(ExecutionState::Stopped),
            Some(err) if self.scenario.cleanup_on_failure => {
                self.restore(self.failed(&err, APPLYING))
            }
            Some(err) => self.end(self.failed(&err, APPLYING)),
            None => {
                self.phase = Phase::Holding;
                vec![Effect::Publish]
            }
        }
    }

    fn finish_step(&mut self, moment: Moment) -> Vec<Effect> {
        let due = match self.course {
            Course::Running { due } if due <= moment.now => due,
            _ => return Vec::new(),
        };
        let steps = self.scenario.steps.len();
        let completed = self.current_step + 1;
        if completed < steps {
            self.current_step = completed;
            self.complete(completed);
        } else if self.looped {
            self.iteration = self.iteration.saturating_add(1);
            self.current_step = 0;
            self.complete(0);
        } else {
            self.complete(completed);
            return self.end(ExecutionState::Completed);
        }
        vec![Effect::Publish, self.begin_step(due, moment.now)]
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a percentage of counts far below 2^52"
    )]
    fn complete(&mut self, completed: usize) {
        self.stats.steps_completed = completed;
        self.stats.progress_percent =
            100.0 * completed as f64 / self.scenario.steps.len().max(1) as f64;
    }

    fn stop(&mut self) -> Vec<Effect> {
        match self.phase {
            Phase::Holding => self.restore(ExecutionState::Stopped),
            _ => {
                self.stopping = true;
                Vec::new()
            }
        }
    }

    fn restore(&mut self, then: ExecutionState) -> Vec<Effect> {
        self.phase = Phase::Restoring(then);
        self.busy = true;
        vec![Effect::Restore]
    }

    fn restored(&mut self, result: Result<(), PortError>) -> Vec<Effect> {
        let Phase::Restoring(then) = &self.phase else {
            return Vec::new();
        };
        let then = then.clone();
        match result {
            Ok(()) => {
                self.stats.tc_operations += 1;
                self.end(then)
            }
            Err(err) => {
                self.stats.failed_operations += 1;
                self.stats.last_error = Some(format!("{RESTORING}: {err}"));
                self.owed = !err.is_gone();
                // A deleted interface needs no restoration. If a step failed before, that failure stays the reason.
                let keeps = err.is_gone() || matches!(then, ExecutionState::Failed { .. });
                let failed = self.failed(&err, RESTORING);
                self.end(if keeps { then } else { failed })
            }
        }
    }

    fn pause(&mut self, moment: Moment) -> Vec<Effect> {
        let Course::Running { due } = self.course else {
            return Vec::new();
        };
        if !self.is_under_way() {
            return Vec::new();
        }
        self.course = Course::Held {
            remaining: due.saturating_duration_since(moment.now),
            paused_at: moment.unix_ms,
        };
        vec![Effect::Publish]
    }

    fn resume(&mut self, moment: Moment) -> Vec<Effect> {
        let Course::Held { remaining, .. } = self.course else {
            return Vec::new();
        };
        if !self.is_under_way() {
            return Vec::new();
        }
        self.course = Course::Running {
            due: moment.now + remaining,
        };
        vec![Effect::Publish]
    }

    fn lost(&mut self, loss: Loss) -> Vec<Effect> {
        let operation = match self.phase {
            Phase::Holding => HOLDING,
            Phase::Restoring(_) => RESTORING,
            _ => APPLYING,
        };
        let state = match loss {
            Loss::Gone => {
                let message = "the interface is gone";
                self.stats.last_error = Some(message.to_owned());
                let error = ScenarioError::new(ErrorCategory::Permanent, message);
                self.failure(error, operation)
            }
            Loss::TakenOver => {
                let message = "a request changed the interface";
                self.stats.last_error = Some(message.to_owned());
                ExecutionState::Stopped
            }
            Loss::Left => ExecutionState::Stopped,
        };
        if self.phase == Phase::Capturing {
            self.phase = Phase::Ended(state);
            let error = ScenarioError::new(
                ErrorCategory::Transient,
                "the interface was gone or changed before the scenario began",
            );
            return vec![Effect::Refused(error), Effect::Ended];
        }
        self.end(state)
    }

    fn end(&mut self, state: ExecutionState) -> Vec<Effect> {
        self.phase = Phase::Ended(state);
        let mut effects = vec![Effect::Publish, Effect::Ended];
        effects.extend((!self.busy).then(|| self.release()));
        effects
    }

    fn failed(&self, err: &PortError, operation: &str) -> ExecutionState {
        let error = match err {
            PortError::Refused { message, .. } => {
                ScenarioError::new(ErrorCategory::Permanent, message.clone())
            }
            PortError::Unanswered => ScenarioError {
                suggestion: Some("start the scenario again when the host is less busy".to_owned()),
                ..ScenarioError::new(ErrorCategory::Transient, err.to_string())
            },
        };
        self.failure(error, operation)
    }

    fn failure(&self, error: ScenarioError, operation: &str) -> ExecutionState {
        ExecutionState::Failed {
            error: ScenarioError {
                step_index: Some(self.current_step),
                operation: Some(operation.to_owned()),
                ..error
            },
        }
    }
}

/// Returns the error of a scenario that does not begin, in the form of a refused request.
fn refusal(err: &PortError) -> ScenarioError {
    let category = match err {
        PortError::Refused { kind, .. } => (*kind).into(),
        PortError::Unanswered => ErrorCategory::Transient,
    };
    ScenarioError::new(category, err.to_string())
}
