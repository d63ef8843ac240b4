//! Scenarios, sequences of netem configurations, and their execution on an interface.
//!
//! Times of an execution are in **milliseconds** since the Unix epoch, those of a scenario in
//! seconds. A frontend follows an execution by [`ScenarioExecutionUpdate`] alone: it drops an
//! update older than the last, and forgets the execution on a terminal state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error_kind::ErrorKind;
use crate::netem::TcNetemConfig;

/// A sequence of netem configurations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkScenario {
    /// Unique within the backend.
    pub id: String,
    /// What people see.
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// The steps in order.
    pub steps: Vec<ScenarioStep>,
    /// Whether it runs in a loop if the request to start it does not say.
    pub loop_scenario: bool,
    /// Seconds since the Unix epoch; for a file the time of loading.
    pub created_at: u64,
    /// Seconds since the Unix epoch; for a file the time of loading.
    pub modified_at: u64,
    /// Facts about it.
    pub metadata: ScenarioMetadata,
    /// Whether a failed step restores what was there before; true if absent.
    #[serde(default = "cleans_up")]
    pub cleanup_on_failure: bool,
}

fn cleans_up() -> bool {
    true
}

/// A netem configuration and how long it stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioStep {
    /// How long the step lasts, in ms.
    pub duration_ms: u64,
    /// What is installed meanwhile.
    pub tc_config: TcNetemConfig,
    /// What people see.
    pub description: String,
}

/// Facts about a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScenarioMetadata {
    /// Words to search by.
    pub tags: Vec<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// The version of the scenario, such as `1.0`.
    pub version: String,
    /// The sum of the steps, in ms.
    pub duration_ms: u64,
}

/// Asks for a change of, or a look at, the scenarios of a backend.
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
    /// Asks for all scenarios and for the files that could not be read.
    List,
    /// Asks for one scenario.
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
    /// The scenario is stored.
    Added {
        /// Its id.
        id: String,
    },
    /// The scenario is removed.
    Removed {
        /// False when there was none.
        success: bool,
    },
    /// All scenarios; the only reply that ends the loading state of a frontend.
    Listed {
        /// The scenarios in the order of display. Other lists share them.
        #[serde(with = "shared")]
        scenarios: Vec<Arc<NetworkScenario>>,
        /// Files that could not be read.
        load_errors: Vec<LoadError>,
    },
    /// One scenario.
    Retrieved {
        /// `None` when there is none of that id.
        #[serde(default, with = "shared::option")]
        scenario: Option<Arc<NetworkScenario>>,
    },
    /// The scenario is replaced.
    Updated {
        /// False when there was none.
        success: bool,
    },
    /// The request failed.
    Error {
        /// Why.
        error: ScenarioError,
    },
}

/// Scenarios that are shared in memory and copied on the wire.
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
    /// What is wrong with it.
    pub error: ScenarioError,
}

/// Why a scenario could not be read, stored or executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioError {
    /// What kind of failure it is.
    pub category: ErrorCategory,
    /// A text for people.
    pub message: String,
    /// What they can do about it.
    pub suggestion: Option<String>,
    /// The step that failed, from 0.
    pub step_index: Option<usize>,
    /// What was attempted.
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

/// What kind of failure a [`ScenarioError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCategory {
    /// A later try may succeed.
    Transient,
    /// A later try will fail as well.
    Permanent,
    /// The request or the file is wrong.
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

/// Asks for a change of, or a look at, the executions of a backend.
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
        /// Whether to start over after the last step. Released frontends always say it; absent, the
        /// scenario's own `loop_scenario` decides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loop_execution: Option<bool>,
    },
    /// Stops what runs on an interface.
    Stop(ExecutionTarget),
    /// Holds what runs on an interface.
    Pause(ExecutionTarget),
    /// Goes on with what was held on an interface.
    Resume(ExecutionTarget),
    /// Asks what runs on an interface.
    Status(ExecutionTarget),
    /// Asks for all executions.
    ListActive,
}

/// The interface that a request about an execution is for; at most one execution runs there.
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
    /// The scenario runs.
    Started {
        /// `NS/IF` in wire text.
        execution_id: String,
        /// The sum of the steps of one pass, in ms.
        estimated_duration_ms: u64,
    },
    /// The execution is stopped.
    Stopped {
        /// False when nothing was running there.
        success: bool,
    },
    /// The execution is held.
    Paused {
        /// False when nothing was running there.
        success: bool,
    },
    /// The execution goes on.
    Resumed {
        /// False when nothing was held there.
        success: bool,
    },
    /// What runs on the interface.
    Status {
        /// `None` when nothing does.
        execution: Option<Box<ScenarioExecution>>,
    },
    /// All executions that have not ended.
    ActiveExecutions {
        /// In any order.
        executions: Vec<ScenarioExecution>,
    },
    /// The request failed.
    Error {
        /// Why.
        error: ScenarioError,
    },
}

impl From<ScenarioError> for ScenarioExecutionResponse {
    fn from(error: ScenarioError) -> Self {
        Self::Error { error }
    }
}

/// A scenario that runs, or ran, on an interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioExecution {
    /// The whole scenario as it was at the start.
    pub scenario: NetworkScenario,
    /// Milliseconds since the Unix epoch.
    pub start_time: u64,
    /// The step that runs, from 0.
    pub current_step: usize,
    /// Whether and how it runs.
    pub state: ExecutionState,
    /// The wire text of the namespace.
    pub target_namespace: String,
    /// The wire text of the interface.
    pub target_interface: String,
    /// What happened so far.
    pub stats: ExecutionStats,
    /// Whether it starts over after the last step.
    #[serde(default)]
    pub loop_execution: bool,
    /// The pass that runs, from 0.
    #[serde(default)]
    pub loop_iteration: u32,
}

/// What happened so far in an execution.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ExecutionStats {
    /// Steps that came to their end.
    pub steps_completed: usize,
    /// Changes of the netem that were asked for.
    pub tc_operations: u64,
    /// Those of them that failed.
    pub failed_operations: u64,
    /// The text of the last failure.
    pub last_error: Option<String>,
    /// 0 to 100; a frontend shows exactly this number.
    #[serde(serialize_with = "crate::number::finite")]
    pub progress_percent: f64,
}

/// Whether and how an execution runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutionState {
    /// Its steps take their course.
    Running,
    /// It holds at its current step.
    Paused {
        /// Milliseconds since the Unix epoch.
        paused_at: u64,
    },
    /// It was stopped by a request.
    Stopped,
    /// It came to its end.
    Completed,
    /// It gave up.
    Failed {
        /// Why.
        error: ScenarioError,
    },
}

impl ExecutionState {
    /// Returns whether nothing follows this state; a frontend forgets the execution then.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Running | Self::Paused { .. } => false,
            Self::Stopped | Self::Completed | Self::Failed { .. } => true,
        }
    }
}

/// The state of one execution after a change.
///
/// `timestamp` never decreases for an interface, and nothing older may follow a terminal state:
/// a frontend would show the execution again.
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
