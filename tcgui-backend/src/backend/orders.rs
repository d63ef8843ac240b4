//! Work on one interface as data: the orders of the main loop and the results of the workers.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::tc::TcOperation;

use crate::kernel::link::Link;
use crate::lease::terms::Terms;
use crate::lease::{BootTime, Lease};
use crate::policy::Permit;
use crate::sockets::NetnsTarget;
use crate::tc::desired::LinkFacts;
use crate::tc::perform::Outcome;
use crate::tc::plan::ForeignQdiscs;

/// The error of a failed order, for the client that requested it.
pub(super) type Failure = (ErrorKind, String);

/// The link to change, and its new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkOrder {
    pub(super) place: NetnsTarget,
    pub(super) ifindex: u32,
    /// The client names the interface, not its index. A link that was renamed is another interface.
    pub(super) ifname: OsString,
    pub(super) up: bool,
    /// The condition under which the link may be changed.
    pub(super) permit: Permit,
}

/// Work on the root qdisc of a link.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TcOrder {
    pub(super) place: NetnsTarget,
    /// The link at the time of the request.
    pub(super) link: Link,
    pub(super) work: TcWork,
    pub(super) foreign: ForeignQdiscs,
    /// The lease that is in force on the link when the work begins.
    pub(super) held: Option<Lease>,
    /// The time at which the work begins.
    pub(super) begun: BootTime,
}

/// The kinds of work on a qdisc.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TcWork {
    /// Carry out a request on these terms.
    Change {
        operation: Box<TcOperation>,
        terms: Terms,
    },
    /// Keep a change that waits for its confirmation.
    Confirm,
    /// Let the lease with this token end later.
    Renew { token: String, ttl: Duration },
    /// End the lease of a scenario without restoring anything.
    Release {
        /// The scenario's part of the lease.
        id: String,
    },
    /// End the lease and restore the earlier qdisc.
    Restore,
    /// Read the qdisc, and check whether it may be changed.
    Look,
    /// Adjust the sizes of the netem to the MTU and the speed of the link, which have changed.
    Fit {
        /// The link before that.
        before: LinkFacts,
    },
}

/// The result for a link: whether it is up, as read back.
pub(super) type LinkResult = Result<bool, Failure>;

/// The result for a qdisc.
#[derive(Debug)]
pub(super) struct TcResult {
    /// The lease that is in force after the work.
    pub(super) lease: Option<Lease>,
    /// The time at which the qdisc was read back.
    pub(super) done_at: Instant,
    pub(super) outcome: Result<Outcome, Failure>,
}
