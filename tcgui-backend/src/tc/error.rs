//! Errors of traffic control.

use tcgui_shared::error_kind::ErrorKind;

use super::plan::Refusal;
use crate::error::kind_of;
use crate::kernel::rtnetlink::RtnetlinkError;

/// The reasons why the root qdisc is not as requested.
#[derive(Debug, thiserror::Error)]
pub enum TcError {
    /// The qdiscs could not be read.
    #[error("cannot read the qdiscs of the namespace")]
    Observe(#[source] RtnetlinkError),
    /// The link could not be read.
    #[error("cannot look for the interface")]
    FindLink(#[source] RtnetlinkError),
    /// The link does not exist, or no longer exists, in the namespace.
    #[error("the interface does not exist")]
    NoInterface,
    /// Another program configured the root qdisc.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The kernel was built without netem, or its module is not installed.
    #[error(
        "the kernel has no netem: the module sch_netem is missing (try `modprobe sch_netem`; it is in the \
         package linux-modules-extra-$(uname -r) of Ubuntu, linux-image of Debian, kernel-modules-extra of \
         Fedora and RHEL)"
    )]
    NoNetem(#[source] RtnetlinkError),
    /// The kernel refused to install a netem.
    #[error("cannot install netem")]
    Install(#[source] RtnetlinkError),
    /// The kernel refused to change the netem.
    #[error("cannot change netem")]
    Change(#[source] RtnetlinkError),
    /// The netem is in force, but the bottleneck below it is not. So the rate is not limited as requested.
    #[error("cannot install the rate limit below netem (tbf)")]
    Bottleneck(#[source] RtnetlinkError),
    /// The kernel refused to delete the root.
    #[error("cannot remove the root qdisc")]
    Remove(#[source] RtnetlinkError),
    /// At each attempt, another program had changed the root in the meantime.
    #[error(
        "another program changed the root qdisc {attempts} times meanwhile: stop that program, or try again"
    )]
    Raced {
        /// The number of attempts.
        attempts: u32,
    },
    /// Another program installed a root qdisc between the last look and the replacement. The replacement has taken effect.
    #[error(
        "the interface was changed, but the root qdisc {0} is lost, which another program installed at the same \
         moment: configure it again after the impairment is removed"
    )]
    Destroyed(String),
    /// The kernel reported success, but the state that was read back differs.
    #[error("the kernel reports another {} than was set", .fields.join(", "))]
    NotTaken {
        /// The fields that differ.
        fields: Vec<&'static str>,
    },
}

impl TcError {
    /// Returns the kind of the error on the wire.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoInterface => ErrorKind::NotFound,
            // An option permits it.
            Self::Refused(_) => ErrorKind::Denied,
            Self::Raced { .. } | Self::Destroyed(_) => ErrorKind::Busy,
            Self::NoNetem(_) => ErrorKind::Unsupported,
            Self::NotTaken { .. } => ErrorKind::Internal,
            Self::Observe(err)
            | Self::FindLink(err)
            | Self::Install(err)
            | Self::Change(err)
            | Self::Bottleneck(err)
            | Self::Remove(err) => kind_of(err.errno()),
        }
    }
}
