//! Namespaces and interfaces that exist.
//!
//! Frontends identify an interface by (`backend_name`, namespace `name`, interface `name`). An ifindex is unique only within its
//! namespace, and frontends do not show it.

use serde::{Deserialize, Serialize};

/// The complete list of namespaces and interfaces.
///
/// A snapshot: a frontend removes every entry that is absent. It shows a backend as connected after the first list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InterfaceListUpdate<N = NetworkNamespace> {
    /// Every namespace with at least one listed interface, in any order. A backend may use another type for `N` that holds
    /// serialised namespaces, because each list repeats all of them.
    pub namespaces: Vec<N>,
    /// Seconds since the Unix epoch.
    pub timestamp: u64,
    /// The backend that publishes, as in the key.
    pub backend_name: String,
}

/// A network namespace and its interfaces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkNamespace {
    /// The wire text of a [`NamespaceName`](crate::names::NamespaceName).
    pub name: String,
    /// The wire texts of its other names. Requests may use them. Released frontends ignore them. Omitted if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Unused by frontends; the released backend always writes `null`.
    pub id: Option<u32>,
    /// Unused by frontends; the released backend always writes `true`.
    pub is_active: bool,
    /// The kind of namespace. Frontends use it for the icon and a filter.
    #[serde(default)]
    pub namespace_type: NamespaceType,
    /// The interfaces. Frontends do not render a namespace without interfaces.
    pub interfaces: Vec<NetworkInterface>,
}

/// The owner of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceType {
    /// The namespace of the host.
    #[default]
    Default,
    /// A namespace with a name under `/run/netns`, as created by `ip netns`. Also used for a namespace that only a process holds,
    /// because released frontends have no type for it.
    Traditional,
    /// The namespace of a container. Frontends show the three values as a subtitle.
    Container {
        /// `Docker`, `Podman` or `unknown`.
        runtime: String,
        /// The short id of 12 characters, or the name if no id is known.
        container_id: String,
        /// The image reference, or `unknown`.
        image: String,
    },
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// The wire text of an [`InterfaceName`](crate::names::InterfaceName).
    pub name: String,
    /// The kernel's ifindex within the namespace.
    pub index: u32,
    /// The `name` of the namespace that holds the interface.
    pub namespace: String,
    /// The administrative state, `IFF_UP`.
    pub is_up: bool,
    /// Whether there is a carrier. Releases before 0.5 do not send it.
    #[serde(default)]
    pub is_oper_up: bool,
    /// Whether a netem qdisc is at the root of the interface.
    pub has_tc_qdisc: bool,
    /// The kind of device, for display.
    pub interface_type: InterfaceType,
}

/// The kind of device of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InterfaceType {
    /// A hardware device.
    Physical,
    /// A software device of another kind.
    Virtual,
    /// One end of a veth pair.
    Veth,
    /// A bridge.
    Bridge,
    /// A tun device (layer 3).
    Tun,
    /// A tap device (layer 2).
    Tap,
    /// The loopback device.
    Loopback,
}

/// One change of one interface.
///
/// Frontends understand this message, but no released backend sends it, because the list contains every change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStateEvent {
    /// The wire text of the namespace.
    pub namespace: String,
    /// The interface after the change.
    pub interface: NetworkInterface,
    /// The kind of change.
    pub event_type: InterfaceEventType,
    /// Seconds since the Unix epoch.
    pub timestamp: u64,
    /// The backend that publishes, as in the key.
    pub backend_name: String,
}

/// The kind of change of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InterfaceEventType {
    /// The interface appeared in the namespace.
    Added,
    /// The interface disappeared from the namespace.
    Removed,
    /// `is_up` or `is_oper_up` changed.
    StateChanged,
    /// A netem qdisc was installed.
    QdiscAdded,
    /// The netem qdisc was removed.
    QdiscRemoved,
}
