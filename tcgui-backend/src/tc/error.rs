//! Why traffic control did not do what it was asked.

use tcgui_shared::error_kind::ErrorKind;

use super::plan::Refusal;
use crate::error::kind_of;
use crate::kernel::rtnetlink::RtnetlinkError;

/// Why the root qdisc is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum TcError {
    /// What is there could not be read.
    #[error("cannot read the qdiscs of the namespace")]
    Observe(#[source] RtnetlinkError),
    /// Whether there is such a link could not be read.
    #[error("cannot look for the interface")]
    FindLink(#[source] RtnetlinkError),
    /// There is no such link in the namespace (any more).
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
    /// A netem could not be made.
    #[error("cannot install netem")]
    Install(#[source] RtnetlinkError),
    /// The netem could not be changed.
    #[error("cannot change netem")]
    Change(#[source] RtnetlinkError),
    /// The netem is in force, but the token bucket filter below it, which limits the rate, is not.
    #[error("cannot install the rate limit below netem (tbf)")]
    Bottleneck(#[source] RtnetlinkError),
    /// The root could not be deleted.
    #[error("cannot remove the root qdisc")]
    Remove(#[source] RtnetlinkError),
    /// The root was another one each time.
    #[error(
        "another program changed the root qdisc {attempts} times meanwhile: stop that program, or try again"
    )]
    Raced {
        /// How often it was tried.
        attempts: u32,
    },
    /// Another program installed a root qdisc between the last look and the replacement. The replacement has taken effect.
    #[error(
        "the interface was changed, but the root qdisc {0} is lost, which another program installed at the same \
         moment: configure it again after the impairment is removed"
    )]
    Destroyed(String),
    /// The kernel says that it did it, but reports something else.
    #[error("the kernel reports another {} than was set", .fields.join(", "))]
    NotTaken {
        /// What differs.
        fields: Vec<&'static str>,
    },
}

impl TcError {
    /// Returns the meaning of the error on the wire.
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
