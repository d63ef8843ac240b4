//! Work on one interface as data: what the main loop orders, and what a worker reports.

use std::ffi::OsString;
use std::time::Instant;

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::tc::TcOperation;

use crate::kernel::link::Link;
use crate::lease::terms::Terms;
use crate::lease::{BootTime, Lease};
use crate::policy::Permit;
use crate::sockets::NetnsTarget;
use crate::tc::perform::Outcome;
use crate::tc::plan::ForeignQdiscs;

/// Why work failed, for the client that asked for it.
pub(super) type Failure = (ErrorKind, String);

/// Which link to change, and whether it is to be up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkOrder {
    pub(super) place: NetnsTarget,
    pub(super) ifindex: u32,
    /// The client names the interface, not its number: a link that was renamed is another one.
    pub(super) ifname: OsString,
    pub(super) up: bool,
    /// Under which condition it may be changed.
    pub(super) permit: Permit,
}

/// What to do to the qdisc of which link.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TcOrder {
    pub(super) place: NetnsTarget,
    /// The link as it was when the request came.
    pub(super) link: Link,
    pub(super) work: TcWork,
    pub(super) foreign: ForeignQdiscs,
    /// The lease that is in force on the link when the work begins.
    pub(super) held: Option<Lease>,
    /// When the work begins.
    pub(super) begun: BootTime,
}

/// The kinds of work on a qdisc.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TcWork {
    /// Carry out a request, on these terms.
    Change {
        operation: Box<TcOperation>,
        terms: Terms,
    },
    /// Keep a change that waits for its confirmation.
    Confirm,
    /// End the lease of a scenario without restoring anything.
    Release {
        /// The scenario's part of the lease.
        id: String,
    },
    /// End the lease and restore what was there before.
    Restore,
    /// Read what is there, and whether it could be changed.
    Look,
}

/// What a worker reports of a link: whether it is up, as read back.
pub(super) type LinkResult = Result<bool, Failure>;

/// What a worker reports of a qdisc.
#[derive(Debug)]
pub(super) struct TcResult {
    /// The lease that is in force from now on.
    pub(super) lease: Option<Lease>,
    /// When the work was done, and the qdisc read back.
    pub(super) done_at: Instant,
    pub(super) outcome: Result<Outcome, Failure>,
}
