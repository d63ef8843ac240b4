//! Scenarios, sequences of netem configurations, and their execution on an interface.
//!
//! Times of an execution are in **milliseconds** since the Unix epoch, those of a scenario in seconds. A frontend follows an
//! execution only through [`ScenarioExecutionUpdate`]. It drops an update that is older than the last one, and removes the
//! execution on a terminal state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error_kind::ErrorKind;
use crate::netem::TcNetemConfig;

/// A sequence of netem configurations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkScenario {
    /// Unique within the backend.
    pub id: String,
    /// The display name.
    pub name: String,
    /// The purpose. May be empty.
    pub description: String,
    /// The steps in order.
    pub steps: Vec<ScenarioStep>,
    /// Whether it runs in a loop if the start request does not specify that.
    pub loop_scenario: bool,
    /// Seconds since the Unix epoch. For a file, the time at which it was loaded.
    pub created_at: u64,
    /// Seconds since the Unix epoch. For a file, the time at which it was loaded.
    pub modified_at: u64,
    /// Further information.
    pub metadata: ScenarioMetadata,
    /// Whether a failed step restores the earlier configuration. True if absent.
    #[serde(default = "cleans_up")]
    pub cleanup_on_failure: bool,
}

fn cleans_up() -> bool {
    true
}

/// A netem configuration and its duration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioStep {
    /// The duration of the step in ms.
    pub duration_ms: u64,
    /// The configuration during the step.
    pub tc_config: TcNetemConfig,
    /// The display text.
    pub description: String,
}

/// Further information about a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScenarioMetadata {
    /// Search terms.
    pub tags: Vec<String>,
    /// The author.
    pub author: Option<String>,
    /// The version of the scenario, such as `1.0`.
    pub version: String,
    /// The sum of the step durations in ms.
    pub duration_ms: u64,
}

/// Reads or changes the scenarios of a backend.
///
/// Released frontends send only `List`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ScenarioRequest {
    /// Stores a new scenario.
    Add(NetworkScenario),
    /// Removes a stored scenario.
    Remove {
        /// Its id.
        id: String,
    },
    /// Returns all scenarios and the files that could not be read.
    List,
    /// Returns one scenario.
    Get {
        /// Its id.
        id: String,
    },
    /// Replaces a stored scenario.
    Update(NetworkScenario),
}

/// The answer to a [`ScenarioRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ScenarioResponse {
    /// The scenario was stored.
    Added {
        /// Its id.
        id: String,
    },
    /// The scenario was removed.
    Removed {
        /// False if it did not exist.
        success: bool,
    },
    /// All scenarios. Only this reply ends the loading state of a frontend.
    Listed {
        /// The scenarios in display order. Several lists may share them.
        #[serde(with = "shared")]
        scenarios: Vec<Arc<NetworkScenario>>,
        /// Files that could not be read.
        load_errors: Vec<LoadError>,
    },
    /// One scenario.
    Retrieved {
        /// `None` if no scenario has this id.
        #[serde(default, with = "shared::option")]
        scenario: Option<Arc<NetworkScenario>>,
    },
    /// The scenario was replaced.
    Updated {
        /// False if it did not exist.
        success: bool,
    },
    /// The request failed.
    Error {
        /// The reason.
        error: ScenarioError,
    },
}

/// Serialises scenarios that are shared in memory.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::NetworkScenario;

    pub(super) fn serialize<S: Serializer>(
        scenarios: &[Arc<NetworkScenario>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(scenarios.iter().map(|scenario| &**scenario))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Arc<NetworkScenario>>, D::Error> {
        let scenarios: Vec<NetworkScenario> = Deserialize::deserialize(deserializer)?;
        Ok(scenarios.into_iter().map(Arc::new).collect())
    }

    pub(super) mod option {
        use super::{Arc, Deserialize, Deserializer, NetworkScenario, Serializer};

        #[expect(
            clippy::ref_option,
            reason = "the signature that serde's derive expects"
        )]
        pub(in crate::scenario) fn serialize<S: Serializer>(
            scenario: &Option<Arc<NetworkScenario>>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match scenario {
                Some(scenario) => serializer.serialize_some(&**scenario),
                None => serializer.serialize_none(),
            }
        }

        pub(in crate::scenario) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Arc<NetworkScenario>>, D::Error> {
            let scenario: Option<NetworkScenario> = Deserialize::deserialize(deserializer)?;
            Ok(scenario.map(Arc::new))
        }
    }
}

impl From<ScenarioError> for ScenarioResponse {
    fn from(error: ScenarioError) -> Self {
        Self::Error { error }
    }
}

/// A scenario file that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadError {
    /// The path of the file.
    pub file_path: String,
    /// The error.
    pub error: ScenarioError,
}

/// Why a scenario could not be read, stored or executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioError {
    /// The kind of failure.
    pub category: ErrorCategory,
    /// Human-readable text.
    pub message: String,
    /// The suggested remedy.
    pub suggestion: Option<String>,
    /// The index of the failed step, from 0.
    pub step_index: Option<usize>,
    /// The operation that failed.
    pub operation: Option<String>,
}

impl ScenarioError {
    /// Returns an error without suggestion, step and operation.
    ///
    /// ```
    /// use tcgui_shared::scenario::{ErrorCategory, ScenarioError};
    ///
    /// let error = ScenarioError {
    ///     suggestion: Some("stop it first".into()),
    ///     ..ScenarioError::new(ErrorCategory::Permanent, "already running")
    /// };
    /// assert_eq!(error.step_index, None);
    /// ```
    pub fn new(category: ErrorCategory, message: impl Into<String>) -> Self {
        Self {
            category,
            message: message.into(),
            suggestion: None,
            step_index: None,
            operation: None,
        }
    }
}

/// The kind of failure of a [`ScenarioError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCategory {
    /// A retry may succeed.
    Transient,
    /// A retry will also fail.
    Permanent,
    /// The request or the file is invalid.
    Validation,
    /// The kernel refused for lack of privilege, or an option of the backend forbids it.
    Permission,
    /// The backend failed in a way that the request did not cause.
    Internal,
}

impl From<ErrorKind> for ErrorCategory {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid => Self::Validation,
            ErrorKind::NotFound | ErrorKind::Unsupported => Self::Permanent,
            ErrorKind::Denied => Self::Permission,
            ErrorKind::Busy => Self::Transient,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

/// Reads or changes the executions of a backend.
///
/// Released frontends send the first four and ignore every reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScenarioExecutionRequest {
    /// Starts a scenario on an interface.
    Start {
        /// The id of the scenario.
        scenario_id: String,
        /// The wire text of the namespace.
        namespace: String,
        /// The wire text of the interface.
        interface: String,
        /// Whether to start over after the last step. Released frontends always send it. If absent, `loop_scenario` of the
        /// scenario applies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loop_execution: Option<bool>,
    },
    /// Stops the execution on an interface.
    Stop(ExecutionTarget),
    /// Pauses the execution on an interface.
    Pause(ExecutionTarget),
    /// Resumes the execution on an interface.
    Resume(ExecutionTarget),
    /// Returns the execution on an interface.
    Status(ExecutionTarget),
    /// Returns all executions.
    ListActive,
}

/// The interface of an execution. An interface has at most one execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionTarget {
    /// The wire text of the namespace.
    pub namespace: String,
    /// The wire text of the interface.
    pub interface: String,
}

/// The answer to a [`ScenarioExecutionRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ScenarioExecutionResponse {
    /// The scenario was started.
    Started {
        /// `NS/IF` in wire text.
        execution_id: String,
        /// The sum of the step durations of one pass, in ms.
        estimated_duration_ms: u64,
    },
    /// The execution was stopped.
    Stopped {
        /// False if no execution was running there.
        success: bool,
    },
    /// The execution was paused.
    Paused {
        /// False if no execution was running there.
        success: bool,
    },
    /// The execution was resumed.
    Resumed {
        /// False if no execution was paused there.
        success: bool,
    },
    /// The execution on the interface.
    Status {
        /// `None` if there is none.
        execution: Option<Box<ScenarioExecution>>,
    },
    /// All executions that have not ended.
    ActiveExecutions {
        /// In any order.
        executions: Vec<ScenarioExecution>,
    },
    /// The request failed.
    Error {
        /// The reason.
        error: ScenarioError,
    },
}

impl From<ScenarioError> for ScenarioExecutionResponse {
    fn from(error: ScenarioError) -> Self {
        Self::Error { error }
    }
}

/// An execution of a scenario on an interface, running or ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioExecution {
    /// The complete scenario at the time of the start.
    pub scenario: NetworkScenario,
    /// Milliseconds since the Unix epoch.
    pub start_time: u64,
    /// The index of the current step, from 0.
    pub current_step: usize,
    /// The state.
    pub state: ExecutionState,
    /// The wire text of the namespace.
    pub target_namespace: String,
    /// The wire text of the interface.
    pub target_interface: String,
    /// Statistics.
    pub stats: ExecutionStats,
    /// Whether it starts over after the last step.
    #[serde(default)]
    pub loop_execution: bool,
    /// The index of the current pass, from 0.
    #[serde(default)]
    pub loop_iteration: u32,
}

/// The statistics of an execution.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ExecutionStats {
    /// Number of completed steps.
    pub steps_completed: usize,
    /// Number of requested netem changes.
    pub tc_operations: u64,
    /// Number of failed netem changes.
    pub failed_operations: u64,
    /// The text of the last failure.
    pub last_error: Option<String>,
    /// 0 to 100. A frontend shows this number unchanged.
    #[serde(serialize_with = "crate::number::finite")]
    pub progress_percent: f64,
}

/// The state of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutionState {
    /// The execution is running.
    Running,
    /// The execution is paused at its current step.
    Paused {
        /// Milliseconds since the Unix epoch.
        paused_at: u64,
    },
    /// The execution was stopped by a request.
    Stopped,
    /// The last step has ended.
    Completed,
    /// The execution ended with an error.
    Failed {
        /// The reason.
        error: ScenarioError,
    },
}

impl ExecutionState {
    /// Returns whether the state is final. A frontend removes the execution then.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Running | Self::Paused { .. } => false,
            Self::Stopped | Self::Completed | Self::Failed { .. } => true,
        }
    }
}

/// The state of one execution after a change.
///
/// `timestamp` never decreases for an interface. No older update may follow a terminal state, because a frontend would show the
/// execution again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioExecutionUpdate {
    /// The wire text of the namespace.
    pub namespace: String,
    /// The wire text of the interface.
    pub interface: String,
    /// The execution.
    pub execution: ScenarioExecution,
    /// The backend that publishes, as in the key.
    pub backend_name: String,
    /// Milliseconds since the Unix epoch.
    pub timestamp: u64,
}
