//! Exit statuses, and the one place where failures of the daemon become one.

use tcgui_backend::client::ClientError;
use tcgui_backend::error::chain;
use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::scenario::{ErrorCategory, ScenarioError};

/// Why a verb has not done everything that it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// The daemon refused or failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// No daemon answers.
    NoDaemon,
    /// There is no such interface, namespace, preset or scenario.
    NotFound,
    /// The daemon or the kernel does not permit it.
    Denied,
    /// It took too long, or something else is in the way.
    Busy,
    /// Some of several targets failed.
    Partial,
}

impl Status {
    /// Returns the exit status.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoDaemon => 3,
            Self::NotFound => 4,
            Self::Denied => 5,
            Self::Busy => 6,
            Self::Partial => 7,
        }
    }
}

impl From<ErrorKind> for Status {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Internal => Self::Failed,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Busy => Self::Busy,
        }
    }
}

/// A failure with its exit status and its message. An empty message was printed already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: Status,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(status: Status, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// Returns a failure that the daemon reports.
    pub(super) fn of_reply(kind: Option<ErrorKind>, message: impl Into<String>) -> Self {
        let status = kind.map_or(Status::Failed, Status::from);
        Self::new(status, message)
    }

    /// Returns it with the operation before its message.
    pub(super) fn within(self, operation: &str) -> Self {
        Self {
            message: format!("{operation}: {}", self.message),
            ..self
        }
    }
}

impl From<ClientError> for Failure {
    fn from(err: ClientError) -> Self {
        let status = match &err {
            ClientError::Unreachable { .. } | ClientError::Unanswered { .. } => Status::NoDaemon,
            ClientError::TimedOut { .. } => Status::Busy,
            ClientError::Configure { .. }
            | ClientError::Send { .. }
            | ClientError::TooLarge { .. }
            | ClientError::Malformed { .. }
            | ClientError::Subscribe { .. } => Status::Failed,
        };
        let remedy = match &err {
            ClientError::Unreachable { .. } => {
                "; start one with `systemctl start tcgui-backend`, or name another endpoint with --connect"
            }
            ClientError::Unanswered { .. } => "; `tcgui-backend backends` lists the daemons",
            ClientError::TimedOut { .. } => "; try again, or give it more time with --timeout",
            ClientError::TooLarge { .. } | ClientError::Malformed { .. } => {
                "; `tcgui-backend backends` shows its version"
            }
            _ => "",
        };
        let text = match &err {
            // The causes are Zenoh's words for the same.
            ClientError::Unreachable { .. } => err.to_string(),
            err => chain(err).to_string(),
        };
        Self::new(status, text + remedy)
    }
}

impl From<ScenarioError> for Failure {
    fn from(error: ScenarioError) -> Self {
        // The category does not tell these apart. The messages are those of the daemon.
        let is_missing = error.message.starts_with("no ");
        let is_running = error.message.contains("already running");
        let status = match error.category {
            ErrorCategory::Permission => Status::Denied,
            ErrorCategory::Transient => Status::Busy,
            ErrorCategory::Permanent if is_running => Status::Busy,
            ErrorCategory::Permanent if is_missing => Status::NotFound,
            ErrorCategory::Permanent | ErrorCategory::Validation | ErrorCategory::Internal => {
                Status::Failed
            }
        };
        let suggestion = error.suggestion.map(|text| format!("; {text}"));
        Self::new(status, error.message + &suggestion.unwrap_or_default())
    }
}

/// Returns the status of several targets: that of their failures if all failed alike.
pub(super) fn of_several(count: usize, failures: &[Status]) -> Option<Status> {
    let first = *failures.first()?;
    let is_alike = failures.iter().all(|status| *status == first);
    Some(if failures.len() == count && is_alike {
        first
    } else {
        Status::Partial
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_the_wire_has_a_status() {
        let code = |kind: ErrorKind| Status::from(kind).code();
        assert_eq!(code(ErrorKind::Invalid), 1);
        assert_eq!(code(ErrorKind::Unsupported), 1);
        assert_eq!(code(ErrorKind::Internal), 1);
        assert_eq!(code(ErrorKind::NotFound), 4);
        assert_eq!(code(ErrorKind::Denied), 5);
        assert_eq!(code(ErrorKind::Busy), 6);
    }

    #[test]
    fn several_targets_that_fail_alike_have_the_status_of_one() {
        use Status::{Busy, NotFound, Partial};
        assert_eq!(of_several(2, &[]), None);
        assert_eq!(of_several(1, &[Busy]), Some(Busy));
        assert_eq!(of_several(2, &[NotFound, NotFound]), Some(NotFound));
        assert_eq!(of_several(2, &[NotFound, Busy]), Some(Partial));
        assert_eq!(of_several(3, &[NotFound, NotFound]), Some(Partial));
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_not_nothing() {
        let key = "tcgui/x/query/state".to_owned();
        let silent = ClientError::TimedOut {
            key: key.clone(),
            within: std::time::Duration::from_secs(10),
        };
        let failure = Failure::from(silent);
        assert_eq!(failure.status, Status::Busy);
        assert!(failure.message.contains("within 10s"), "{failure:?}");
        let gone = Failure::from(ClientError::Unanswered { key });
        assert_eq!(gone.status, Status::NoDaemon);
    }
}
