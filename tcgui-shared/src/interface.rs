//! Namespaces and interfaces that exist.
//!
//! Frontends key everything by (`backend_name`, namespace `name`, interface `name`); an ifindex is
//! unique only within its namespace and is shown to nobody.

use serde::{Deserialize, Serialize};

/// The complete list of namespaces and interfaces.
///
/// A snapshot: a frontend removes what is absent from it, and shows a backend as connected from
/// the first list on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InterfaceListUpdate<N = NetworkNamespace> {
    /// Every namespace that has at least one interface to show, in any order. `N` is another type
    /// for those who keep namespaces serialised, because the list repeats them all at each change.
    pub namespaces: Vec<N>,
    /// Seconds since the Unix epoch.
    pub timestamp: u64,
    /// The backend that publishes, as in the key.
    pub backend_name: String,
}

/// A network namespace and what it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkNamespace {
    /// The wire text of a [`NamespaceName`](crate::names::NamespaceName).
    pub name: String,
    /// The wire texts of its other names, by which requests find it as well. Released frontends ignore
    /// them; they are not written where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Unused by frontends; the released backend always writes `null`.
    pub id: Option<u32>,
    /// Unused by frontends; the released backend always writes `true`.
    pub is_active: bool,
    /// What kind of namespace this is: frontends choose the icon and filter by it.
    #[serde(default)]
    pub namespace_type: NamespaceType,
    /// The interfaces; frontends do not render a namespace without any.
    pub interfaces: Vec<NetworkInterface>,
}

/// What a namespace belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceType {
    /// The namespace of the host.
    #[default]
    Default,
    /// A namespace with a name under `/run/netns`, as `ip netns` makes them, or one that only a process
    /// holds, for which released frontends know no type.
    Traditional,
    /// The namespace of a container; frontends show the three values as a subtitle.
    Container {
        /// `Docker`, `Podman` or `unknown`.
        runtime: String,
        /// The short id of 12 characters, or the bare name where no id is known.
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
    /// What kind of device this is; for display.
    pub interface_type: InterfaceType,
}

/// What kind of device an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InterfaceType {
    /// A device of hardware.
    Physical,
    /// A software device of no kind named here.
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
/// Frontends understand it, no released backend sends it: the list carries every change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStateEvent {
    /// The wire text of the namespace.
    pub namespace: String,
    /// The interface as it is after the change.
    pub interface: NetworkInterface,
    /// What changed.
    pub event_type: InterfaceEventType,
    /// Seconds since the Unix epoch.
    pub timestamp: u64,
    /// The backend that publishes, as in the key.
    pub backend_name: String,
}

/// What changed about an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InterfaceEventType {
    /// The interface appeared.
    Added,
    /// The interface disappeared.
    Removed,
    /// `is_up` or `is_oper_up` changed.
    StateChanged,
    /// A netem qdisc was installed.
    QdiscAdded,
    /// The netem qdisc was removed.
    QdiscRemoved,
}
