//! Finds the interface that a client names. Pure.

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::names::{InterfaceName, NameError, NamespaceName};
use tcgui_shared::scenario::ExecutionTarget;

use super::State;
use super::work::Target;
use crate::backend::inventory::{Found, NotFound};
use crate::execution::{InterfaceKey, InterfaceNames};

impl State {
    /// Returns the interface that a client names, with its display names, or the error for the client.
    pub(super) fn find(
        &self,
        netns: &str,
        interface: &str,
    ) -> Result<(Target, Found), (ErrorKind, String)> {
        let named = interface;
        let (netns, interface) = self.names(netns, named)?;
        match self.inventory.find(&netns, &interface) {
            Ok(found) => Ok(((found.name.clone(), interface), found)),
            Err(reason) => {
                let hint = self.other_name(&netns, named);
                let message = hint.unwrap_or_else(|| not_found(reason, &netns, &interface));
                Err((ErrorKind::NotFound, message))
            }
        }
    }

    /// Parses the names of a namespace and an interface. If the interface name is invalid but is the altname of an interface, the
    /// error names that interface.
    fn names(&self, netns: &str, interface: &str) -> Result<Target, (ErrorKind, String)> {
        let invalid = |err: NameError| (ErrorKind::Invalid, err.to_string());
        let netns = NamespaceName::from_wire(netns).map_err(invalid)?;
        match InterfaceName::from_wire(interface) {
            Ok(interface) => Ok((netns, interface)),
            Err(err) => match self.other_name(&netns, interface) {
                Some(hint) => Err((ErrorKind::Invalid, format!("{err}; {hint}"))),
                None => Err(invalid(err)),
            },
        }
    }

    /// Returns the error for a client that names an interface by its altname. `None`: no interface has this altname.
    fn other_name(&self, netns: &NamespaceName, altname: &str) -> Option<String> {
        let interface = self.inventory.interface_of_altname(netns, altname)?;
        Some(format!(
            "{altname:?} is an altname of the interface {interface} in network namespace {netns}, \
             use the name {interface}"
        ))
    }

    /// Returns the names from a client's request, and the key of the interface if it exists. The interface of an execution may be
    /// gone.
    pub(super) fn addressed(
        &self,
        target: &ExecutionTarget,
    ) -> Result<(InterfaceNames, Option<InterfaceKey>), (ErrorKind, String)> {
        let (netns, interface) = self.names(&target.namespace, &target.interface)?;
        let key = match self.inventory.find(&netns, &interface) {
            Ok(found) => Some(InterfaceKey {
                netns: found.key,
                ifindex: found.link.ifindex,
            }),
            Err(_) => match self.other_name(&netns, &target.interface) {
                Some(hint) => return Err((ErrorKind::NotFound, hint)),
                None => None,
            },
        };
        Ok((InterfaceNames { netns, interface }, key))
    }
}

fn not_found(reason: NotFound, netns: &NamespaceName, interface: &InterfaceName) -> String {
    match reason {
        NotFound::Namespace => format!("no network namespace {netns}"),
        NotFound::Interface => format!("no interface {interface} in network namespace {netns}"),
    }
}
