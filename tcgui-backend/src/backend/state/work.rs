//! Work on interfaces: what waits in a lane or is under way, and its requesters. Pure.

use std::sync::Arc;

use tcgui_shared::control::{InterfaceControlRequest, InterfaceControlResponse};
use tcgui_shared::names::{InterfaceName, NamespaceName};
use tcgui_shared::tc::{TcOperation, TcResponse};

use crate::backend::orders::{LinkOrder, TcOrder, TcWork};
use crate::bus::Reply;
use crate::lease::ledger::LeaseKey;

/// Work on one interface, with what its requesters wait for.
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

/// What matters to other work on the same interface.
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

    /// Returns the scenario whose step it is, by the name of its lease.
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

/// Who waits for the result of a change.
#[derive(Debug)]
pub(super) enum Requester {
    /// A client. What is in force is published before it is answered.
    Client(Reply<TcResponse>),
    /// An execution. It is answered at once: its next step must not wait for a slow client of the bus.
    Execution(Reply<TcResponse>),
}

/// Work on a qdisc that waits or is under way.
#[derive(Debug)]
pub(in crate::backend) struct PendingTcChange {
    pub(in crate::backend) order: TcOrder,
    pub(super) target: Target,
    /// Those that asked for it, or for changes that it replaces, the newest last.
    pub(super) requesters: Vec<Requester>,
    /// The scenario that it has stopped.
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
        }
    }

    /// Returns the scenario whose step it is, by the name of its lease.
    pub(super) fn step_of(&self) -> Option<&str> {
        match &self.order.work {
            TcWork::Change { terms, .. } => terms.scenario.as_deref(),
            TcWork::Confirm
            | TcWork::Renew { .. }
            | TcWork::Release { .. }
            | TcWork::Restore
            | TcWork::Look => None,
        }
    }

    /// Returns whether nothing ends what it asks for.
    pub(super) fn stays(&self) -> bool {
        match &self.order.work {
            TcWork::Change { terms, .. } => terms.stay(),
            TcWork::Confirm
            | TcWork::Renew { .. }
            | TcWork::Release { .. }
            | TcWork::Restore
            | TcWork::Look => false,
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
            | TcWork::Look => None,
        }
    }

    /// Returns whether both requests named the same interface by the same names. Under another name the
    /// worker may have to refuse one of them.
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
