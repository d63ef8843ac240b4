//! What is in force on the interfaces of a backend, since when, until when, and who set it.
//!
//! An addition of this version, for command lines and programs that read the state once. Released frontends do not
//! use it. All times are milliseconds since the Unix epoch. An absent field means "not set" or "not known".

use serde::{Deserialize, Serialize};

use crate::error_kind::{ErrorKind, FAILURE_CODE};
use crate::interface::InterfaceType;
use crate::tc::TcConfiguration;

/// Asks for the state of interfaces; without fields, for that of all.
///
/// ```
/// use tcgui_shared::state::StateRequest;
///
/// let request: StateRequest = serde_json::from_str(r#"{"impaired":true}"#)?;
/// assert!(request.impaired && request.namespace.is_none());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StateRequest {
    /// Only interfaces of the namespace with this wire text, by any of its names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only interfaces with this wire text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Only interfaces with a netem at their root, or on which a scenario runs.
    #[serde(default)]
    pub impaired: bool,
}

/// The answer to a [`StateRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateResponse {
    /// Whether there is a state. It may have no interfaces.
    pub success: bool,
    /// A text for people.
    pub message: String,
    /// What is in force; `None` after a failure.
    pub state: Option<BackendState>,
    /// `None` on success, [`FAILURE_CODE`] otherwise.
    pub error_code: Option<i32>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
}

impl StateResponse {
    /// Returns the reply with a state.
    pub fn success(state: BackendState) -> Self {
        let count = state.interfaces.len();
        Self {
            success: true,
            message: format!("{count} interfaces"),
            state: Some(state),
            error_code: None,
            error_kind: None,
        }
    }

    /// Returns the reply without one.
    pub fn failure(message: impl Into<String>, kind: ErrorKind) -> Self {
        Self {
            success: false,
            message: message.into(),
            state: None,
            error_code: Some(FAILURE_CODE),
            error_kind: Some(kind),
        }
    }
}

/// The state of a backend at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendState {
    /// The name of the backend, as in the key.
    pub backend_name: String,
    /// The version of the backend.
    pub version: String,
    /// The name of its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// When the backend started.
    pub started_at: u64,
    /// When the state was read.
    pub timestamp: u64,
    /// How many namespaces it lists.
    pub namespace_count: usize,
    /// How many interfaces it lists, whether they were asked for or not.
    pub interface_count: usize,
    /// The interfaces that were asked for, in the order of the interface list.
    pub interfaces: Vec<InterfaceState>,
}

/// One interface and what is in force on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InterfaceState {
    /// The wire text of the namespace.
    pub namespace: String,
    /// The wire texts of its other names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespace_aliases: Vec<String>,
    /// The wire text of the interface.
    pub interface: String,
    /// The administrative state, `IFF_UP`.
    pub is_up: bool,
    /// Whether there is a carrier.
    pub is_oper_up: bool,
    /// What kind of device this is.
    pub interface_type: InterfaceType,
    /// Whether a netem is at the root, readable or not.
    pub has_tc_qdisc: bool,
    /// The netem as the kernel reported it last; absent without one, and if it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<TcConfiguration>,
    /// When this backend set it; absent if another program did, or before the backend started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// When it ends unless it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<u64>,
    /// The scenario that runs on the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<ScenarioProgress>,
    /// Who set it; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_by: Option<SetBy>,
}

/// How far a scenario is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioProgress {
    /// The id of the scenario.
    pub id: String,
    /// What people see; absent while the execution begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The step that runs, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// How many steps there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// What the author says about the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it is held at the step.
    #[serde(default)]
    pub paused: bool,
    /// The pass that runs, from 0.
    #[serde(default)]
    pub loop_iteration: u32,
    /// 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_percent: Option<f64>,
}

/// Who set what is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum SetBy {
    /// A client of this backend.
    Client {
        /// What the client calls itself; absent for released frontends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// A scenario.
    Scenario {
        /// Its id.
        id: String,
    },
    /// Another program, such as tc(8).
    OtherProgram,
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}
