//! Checks every change by a client or a scenario with the [`Policy`](crate::policy::Policy). Pure.
//!
//! The end of a lease is not checked: it restores the state before a change that was permitted.

use std::time::{Duration, Instant};

use tcgui_shared::control::InterfaceControlOperation;
use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::names::InterfaceName;
use tcgui_shared::scenario::ScenarioExecutionRequest;

use super::State;
use crate::backend::inventory::Found;
use crate::bus::Request;
use crate::kernel::netns::NetnsKey;
use crate::policy::{Change, Denial, Permit, Target};

impl State {
    /// Permits or refuses a request.
    pub(super) fn permit(&self, request: &Request) -> Result<Permit, Denial> {
        if !request.is_change() {
            return Ok(Permit::Always);
        }
        let (change, netns, interface) = match request {
            Request::Tc(request, _) => (Change::Impair, &request.namespace, &request.interface),
            Request::Interface(request, _) => {
                let change = match request.operation {
                    InterfaceControlOperation::Enable => Change::Enable,
                    InterfaceControlOperation::Disable => Change::Disable,
                };
                (change, &request.namespace, &request.interface)
            }
            Request::Execution(
                ScenarioExecutionRequest::Start {
                    namespace,
                    interface,
                    ..
                },
                _,
            ) => (Change::Impair, namespace, interface),
            Request::Scenario(..)
            | Request::Execution(..)
            | Request::Diagnostics(..)
            | Request::Explain(..)
            | Request::State(..) => return self.permit_without_interface(),
        };
        match self.find(netns, interface) {
            Ok((_, found)) => self.permit_interface(change, &found),
            // The request is answered with this error later, unless the policy permits no change at all.
            Err(_) => self.permit_without_interface(),
        }
    }

    /// Permits a request that changes no known interface, unless the policy permits no change at all.
    fn permit_without_interface(&self) -> Result<Permit, Denial> {
        let policy = &self.identity.options.policy;
        policy.check().map(|()| Permit::Always)
    }

    /// Permits or refuses a change of an interface.
    pub(super) fn permit_interface(&self, change: Change, found: &Found) -> Result<Permit, Denial> {
        let Ok(interface) = InterfaceName::new(&found.link.ifname) else {
            // `InterfaceName` accepts every name that the kernel accepts.
            return self.permit_without_interface();
        };
        self.identity.options.policy.check_interface(
            change,
            Target {
                namespaces: self.inventory.names(found.key),
                interface: &interface,
                is_host: found.key == NetnsKey::Host,
                loopback: found.link.loopback,
            },
        )
    }

    /// Refuses a request. Released frontends ignore the refusal and show the requested state, so the state in force is published
    /// again.
    pub(super) fn refuse(&mut self, request: Request, denial: &Denial) {
        match &request {
            Request::Tc(request, _) => {
                if let Ok((target, _)) = self.find(&request.namespace, &request.interface) {
                    self.tc.repeat(target);
                }
            }
            Request::Interface(request, _) => {
                if self.find(&request.namespace, &request.interface).is_ok() {
                    self.repeat.wanted = true;
                }
            }
            Request::Scenario(..)
            | Request::Execution(..)
            | Request::Diagnostics(..)
            | Request::Explain(..)
            | Request::State(..) => {}
        }
        request.refuse(ErrorKind::Denied, denial.to_string());
    }
}

/// Shortest interval between two repetitions of the list after refusals.
const REPEAT_INTERVAL: Duration = Duration::from_secs(1);

/// The repetition of an unchanged list.
#[derive(Debug, Default)]
pub(super) struct RepeatedList {
    pub(super) wanted: bool,
    last: Option<Instant>,
}

impl RepeatedList {
    /// Returns whether a repetition is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due_at(now).is_some_and(|due| due <= now)
    }

    /// Returns when a repetition is due. `None`: no request was refused.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        let due = self.last.map_or(now, |last| last + REPEAT_INTERVAL);
        self.wanted.then_some(due)
    }

    /// Records that the list is published now.
    pub(super) fn published(&mut self, now: Instant) {
        if std::mem::take(&mut self.wanted) {
            self.last = Some(now);
        }
    }
}
