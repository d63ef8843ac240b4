//! Work on interfaces: what waits in a lane or is under way, and its requesters. Pure.

use std::sync::Arc;

use tcgui_shared::control::{InterfaceControlRequest, InterfaceControlResponse};
use tcgui_shared::names::{InterfaceName, NamespaceName};
use tcgui_shared::tc::{TcOperation, TcResponse};

use crate::backend::orders::{LinkOrder, TcOrder, TcWork};
use crate::bus::Reply;
use crate::lease::ledger::LeaseKey;

/// Work on one interface, with the replies that its requesters wait for.
#[derive(Debug)]
pub(super) enum Work {
    Link(Box<PendingLinkChange>),
    Tc(Box<PendingTcChange>),
    /// A scenario has ended without restoring the interface: its lease ends now, which restores it.
    EndScenario {
        lane: LeaseKey,
        /// The scenario's part of the lease.
        id: String,
    },
}

/// The kind of work. Other work on the same interface depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    LinkChange,
    Apply,
    Remove,
    ScenarioStep,
    Confirm,
    Renew,
    Release,
    Restore,
    Look,
    Fit,
}

impl Work {
    pub(super) fn lane(&self) -> LeaseKey {
        match self {
            Self::Link(change) => change.lane(),
            Self::Tc(change) => change.lane(),
            Self::EndScenario { lane, .. } => *lane,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Link(_) => Kind::LinkChange,
            Self::Tc(change) => change.kind(),
            Self::EndScenario { .. } => Kind::Release,
        }
    }

    /// Returns the lease id of the scenario if the work is a step of one.
    pub(super) fn step_of(&self) -> Option<&str> {
        match self {
            Self::Tc(change) => change.step_of(),
            Self::Link(_) | Self::EndScenario { .. } => None,
        }
    }
}

/// A client's request to bring a link up or down.
#[derive(Debug)]
pub(in crate::backend) struct PendingLinkChange {
    pub(in crate::backend) order: LinkOrder,
    pub(super) request: InterfaceControlRequest,
    pub(super) reply: Reply<InterfaceControlResponse>,
}

impl PendingLinkChange {
    pub(super) fn lane(&self) -> LeaseKey {
        (self.order.place.key, self.order.ifindex)
    }
}

/// An interface as clients name it.
pub(in crate::backend) type Target = (NamespaceName, InterfaceName);

/// A requester that waits for the result of a change.
#[derive(Debug)]
pub(super) enum Requester {
    /// A client. The new state is published before the reply is sent.
    Client(Reply<TcResponse>),
    /// An execution. The reply is sent at once, because the next step must not wait for a slow client of the bus.
    Execution(Reply<TcResponse>),
}

/// Work on a qdisc that waits or is under way.
#[derive(Debug)]
pub(in crate::backend) struct PendingTcChange {
    pub(in crate::backend) order: TcOrder,
    pub(super) target: Target,
    /// The requesters of this change and of the changes that it replaced, the newest last.
    pub(super) requesters: Vec<Requester>,
    /// The scenario that this change has stopped.
    pub(super) stopped: Option<Arc<str>>,
}

impl PendingTcChange {
    pub(super) fn new(order: TcOrder, target: Target, requester: Option<Requester>) -> Self {
        Self {
            order,
            target,
            requesters: requester.into_iter().collect(),
            stopped: None,
        }
    }

    pub(super) fn lane(&self) -> LeaseKey {
        (self.order.place.key, self.order.link.ifindex)
    }

    pub(super) fn kind(&self) -> Kind {
        match &self.order.work {
            TcWork::Change { terms, .. } if terms.scenario.is_some() => Kind::ScenarioStep,
            TcWork::Change { operation, .. } if **operation == TcOperation::Remove => Kind::Remove,
            TcWork::Change { .. } => Kind::Apply,
            TcWork::Confirm => Kind::Confirm,
            TcWork::Renew { .. } => Kind::Renew,
            TcWork::Release { .. } => Kind::Release,
            TcWork::Restore => Kind::Restore,
            TcWork::Look => Kind::Look,
            TcWork::Fit { .. } => Kind::Fit,
        }
    }

    /// Returns the lease id of the scenario if the work is a step of one.
    pub(super) fn step_of(&self) -> Option<&str> {
        match &self.order.work {
            TcWork::Change { terms, .. } => terms.scenario.as_deref(),
            TcWork::Confirm
            | TcWork::Renew { .. }
            | TcWork::Release { .. }
            | TcWork::Restore
            | TcWork::Look
            | TcWork::Fit { .. } => None,
        }
    }

    /// Returns whether the work is a change without an end.
    pub(super) fn stays(&self) -> bool {
        match &self.order.work {
            TcWork::Change { terms, .. } => terms.stay(),
            TcWork::Confirm
            | TcWork::Renew { .. }
            | TcWork::Release { .. }
            | TcWork::Restore
            | TcWork::Look
            | TcWork::Fit { .. } => false,
        }
    }

    /// Returns the token under which it asks for the interface.
    pub(super) fn token(&self) -> Option<&str> {
        match &self.order.work {
            TcWork::Change { terms, .. } => terms.holder.token.as_deref(),
            TcWork::Confirm
            | TcWork::Renew { .. }
            | TcWork::Release { .. }
            | TcWork::Restore
            | TcWork::Look
            | TcWork::Fit { .. } => None,
        }
    }

    /// Returns whether both requests name the interface by the same names. The worker may have to refuse a request under another
    /// name.
    pub(super) fn names_the_same(&self, other: &Self) -> bool {
        let names = |change: &Self| {
            (
                change.order.place.named.clone(),
                change.order.link.ifname.clone(),
            )
        };
        self.target == other.target && names(self) == names(other)
    }

    /// Answers the requesters of `replaced` with the result of this change.
    pub(super) fn take_requesters_of(&mut self, replaced: Self) {
        self.requesters.splice(0..0, replaced.requesters);
        self.stopped = self.stopped.take().or(replaced.stopped);
    }
}
