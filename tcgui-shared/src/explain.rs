//! Why a namespace is shown, or is not: everything the backend knows about one name.
//!
//! An addition of this version, for operators; released frontends neither ask nor need it. Texts are for
//! people, codes for programs.

use serde::{Deserialize, Serialize};

use crate::error_kind::{ErrorKind, FAILURE_CODE};

/// Asks about one name.
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
    /// The wire text of the namespace, whether or not there is one.
    pub namespace: String,
}

/// The answer to an [`ExplainRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainResponse {
    /// Whether there is an explanation, not whether the namespace is listed.
    pub success: bool,
    /// A text for people: the first reason, or what failed.
    pub message: String,
    /// What is known; `None` after a failure.
    pub explanation: Option<Explanation>,
    /// `None` on success, [`FAILURE_CODE`] otherwise.
    pub error_code: Option<i32>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
}

impl ExplainResponse {
    /// Returns the reply with an explanation, whose first reason is the message.
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

    /// Returns the reply without one.
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

/// What is known about one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The wire text of the namespace.
    pub namespace: String,
    /// Whether it is in the interface list.
    pub listed: bool,
    /// Why it is or is not, and what is wrong besides; the most important one first, never empty.
    pub reasons: Vec<Reason>,
    /// The entry of the netns directory; `None` for what has none.
    pub entry: Option<EntryReport>,
    /// Other names of the same namespace, as wire texts.
    pub aliases: Vec<String>,
    /// The wire names of the interfaces that are shown. `None` until the first look.
    pub interfaces: Option<Vec<String>>,
    /// How long ago the look began that saw them, in ms.
    pub looked_ms_ago: Option<u64>,
    /// The doorbells that make the backend look. Empty if it watches nothing.
    pub doorbells: Vec<DoorbellReport>,
    /// Limits of the kernel that matter.
    pub limits: Vec<LimitReport>,
    /// Capabilities that the backend needs and does not have.
    pub missing_capabilities: Vec<String>,
    /// Whether mounts of others arrive where the backend looks: what `/proc/self/mountinfo` says of the mount
    /// that holds the netns directory, such as `shared:5`, `master:1` or `private`; `None` where that is unknown.
    pub propagation: Option<String>,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// For people: a sentence without a full stop, and what to do about it.
    pub text: String,
}

/// What a reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReasonCode {
    /// It is listed.
    Listed,
    /// No namespace can have that name.
    InvalidName,
    /// There is no entry of that name.
    NoEntry,
    /// The netns directory does not exist.
    NoDirectory,
    /// The netns directory cannot be read or watched.
    DirectoryUnreadable,
    /// An empty file on which a namespace is to be mounted, and is not (yet).
    Placeholder,
    /// Something that is no namespace and never becomes one by itself.
    NotANamespace,
    /// A symbolic link that leads nowhere.
    DanglingLink,
    /// A namespace of another type.
    OtherType,
    /// A container that is not running, or not known.
    NoContainer,
    /// A process that is not there, or holds no namespace of its own, or none that is looked for.
    NoProcess,
    /// It is known and has not been looked into yet.
    NotSeenYet,
    /// Its links could not be read.
    Unreadable,
    /// It has no interface that is shown.
    NoInterfaces,
    /// The backend has not heard of what is there.
    Unnoticed,
    /// A doorbell is missing, so that changes are noticed later.
    DoorbellMissing,
    /// A capability is missing.
    CapabilityMissing,
    /// Mounts of others do not arrive where the backend looks.
    NotPropagated,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

/// An entry of the netns directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryReport {
    /// Its path, where bytes that are not UTF-8 are replaced.
    pub path: String,
    /// What it is, in a few words: `network namespace`, `empty file`, `FIFO`, `nothing`.
    pub kind: String,
    /// Where a symbolic link leads.
    pub link_target: Option<String>,
    /// The type of the namespace that it is: `net`, `uts`, …
    pub namespace_type: Option<String>,
    /// The file system it is on, or its magic number.
    pub file_system: Option<String>,
    /// The line of `/proc/self/mountinfo` of what is mounted on it.
    pub mount: Option<String>,
    /// The identity of the namespace: device, inode and change time.
    pub identity: Option<String>,
}

/// One of the things that make the backend look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorbellReport {
    /// What it is, in words.
    pub name: String,
    /// Whether it can ring.
    pub works: bool,
    /// Why it cannot, or why there is nothing to hear.
    pub problem: Option<String>,
    /// How long ago it rang the last time, in ms; `None`: never.
    pub rang_ms_ago: Option<u64>,
}

/// A limit of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitReport {
    /// Its name, as sysctl(8) has it.
    pub name: String,
    /// Its value; `None` where it cannot be read.
    pub value: Option<u64>,
}
