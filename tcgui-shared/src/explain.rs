//! Explains why a namespace is listed or not: all facts that the backend knows about one name.
//!
//! An addition of this version for operators. Released frontends do not use it. Texts are for people, codes for programs.

use serde::{Deserialize, Serialize};

use crate::error_kind::{ErrorKind, FAILURE_CODE};

/// Requests an explanation of one name.
///
/// ```
/// use tcgui_shared::explain::ExplainRequest;
///
/// let request: ExplainRequest = serde_json::from_str(r#"{"namespace":"lab"}"#)?;
/// assert_eq!(request.namespace, "lab");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// The wire text of the namespace, which need not exist.
    pub namespace: String,
}

/// The answer to an [`ExplainRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainResponse {
    /// Whether there is an explanation, not whether the namespace is listed.
    pub success: bool,
    /// Human-readable text: the first reason, or the error.
    pub message: String,
    /// The explanation. `None` after a failure.
    pub explanation: Option<Explanation>,
    /// `None` on success, [`FAILURE_CODE`] otherwise.
    pub error_code: Option<i32>,
    /// The reason for a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
}

impl ExplainResponse {
    /// Returns a reply with an explanation. Its first reason is the message.
    pub fn success(explanation: Explanation) -> Self {
        let first = explanation.reasons.first();
        Self {
            success: true,
            message: first.map(|reason| reason.text.clone()).unwrap_or_default(),
            explanation: Some(explanation),
            error_code: None,
            error_kind: None,
        }
    }

    /// Returns a reply without an explanation.
    pub fn failure(message: impl Into<String>, kind: ErrorKind) -> Self {
        Self {
            success: false,
            message: message.into(),
            explanation: None,
            error_code: Some(FAILURE_CODE),
            error_kind: Some(kind),
        }
    }
}

/// The facts about one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The wire text of the namespace.
    pub namespace: String,
    /// Whether it is in the interface list.
    pub listed: bool,
    /// Why it is listed or not, and further problems. Never empty. The most important reason is first.
    pub reasons: Vec<Reason>,
    /// The entry of the netns directory. `None` for a name without an entry.
    pub entry: Option<EntryReport>,
    /// Other names of the same namespace, as wire texts.
    pub aliases: Vec<String>,
    /// The wire names of the listed interfaces. `None` until the first dump.
    pub interfaces: Option<Vec<String>>,
    /// Age in ms of the dump that returned them, measured from its start.
    pub looked_ms_ago: Option<u64>,
    /// The change notifications (doorbells) that make the backend scan. Empty if it watches nothing.
    pub doorbells: Vec<DoorbellReport>,
    /// Relevant kernel limits.
    pub limits: Vec<LimitReport>,
    /// Capabilities that the backend needs and does not have.
    pub missing_capabilities: Vec<String>,
    /// The propagation of the mount that contains the netns directory, as in `/proc/self/mountinfo`: for example `shared:5`,
    /// `master:1` or `private`. It decides whether the backend sees mounts of other mount namespaces. `None` if unknown.
    pub propagation: Option<String>,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Machine-readable code.
    pub code: ReasonCode,
    /// Human-readable sentence without a full stop, including the remedy.
    pub text: String,
}

/// The subject of a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReasonCode {
    /// The namespace is listed.
    Listed,
    /// No namespace can have that name.
    InvalidName,
    /// There is no entry of that name.
    NoEntry,
    /// The netns directory does not exist.
    NoDirectory,
    /// The netns directory cannot be read or watched.
    DirectoryUnreadable,
    /// An empty file without a mounted namespace (yet).
    Placeholder,
    /// The entry is not a namespace and cannot become one.
    NotANamespace,
    /// A symbolic link whose target does not exist.
    DanglingLink,
    /// A namespace of another type.
    OtherType,
    /// The container does not run or is unknown.
    NoContainer,
    /// The process does not exist, has no namespace of its own, or processes are not scanned.
    NoProcess,
    /// The namespace is known but its links were not read yet.
    NotSeenYet,
    /// Its links could not be read.
    Unreadable,
    /// The namespace has no interface to list.
    NoInterfaces,
    /// The backend has not noticed the entry.
    Unnoticed,
    /// A doorbell is missing, so changes are noticed later.
    DoorbellMissing,
    /// A capability is missing.
    CapabilityMissing,
    /// Mounts of other mount namespaces do not reach the backend.
    NotPropagated,
    /// A code that this version does not know.
    #[serde(other)]
    Other,
}

/// An entry of the netns directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryReport {
    /// Its path. Bytes that are not UTF-8 are replaced.
    pub path: String,
    /// A short description: `network namespace`, `empty file`, `FIFO`, `nothing`.
    pub kind: String,
    /// The target of a symbolic link.
    pub link_target: Option<String>,
    /// The type of the namespace: `net`, `uts`, …
    pub namespace_type: Option<String>,
    /// The file system of the entry, or its magic number.
    pub file_system: Option<String>,
    /// The line of `/proc/self/mountinfo` for the mount on the entry.
    pub mount: Option<String>,
    /// The identity of the namespace: device, inode and change time.
    pub identity: Option<String>,
}

/// A change notification that makes the backend scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorbellReport {
    /// Its name.
    pub name: String,
    /// Whether it works.
    pub works: bool,
    /// Why it does not work, or why it cannot receive anything.
    pub problem: Option<String>,
    /// Time in ms since its last notification. `None` if there was none.
    pub rang_ms_ago: Option<u64>,
}

/// A limit of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitReport {
    /// Its name in sysctl(8).
    pub name: String,
    /// Its value. `None` if it cannot be read.
    pub value: Option<u64>,
}
