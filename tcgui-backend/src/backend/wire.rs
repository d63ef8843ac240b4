//! Converts the inventory to the types of the wire. Pure.

use std::sync::Arc;

use tcgui_shared::interface::{InterfaceType, NamespaceType, NetworkInterface, NetworkNamespace};
use tcgui_shared::names::{InterfaceName, NamespaceName};

use crate::bandwidth::LinkCounterTarget;
use crate::bus::Rendered;
use crate::kernel::link::Link;
use crate::kernel::netem::Netem;
use crate::netns_holders::{Container, Runtime};

/// The names of a namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct NetnsNames<'a> {
    /// The display name.
    pub(super) name: &'a NamespaceName,
    /// The other names.
    pub(super) aliases: &'a [NamespaceName],
    /// The container of the display name.
    pub(super) container: Option<&'a Container>,
}

/// One namespace as frontends see it. It is serialised when it changes, not with every list.
///
/// The list contains all namespaces whenever one changes. With this cache the unchanged ones cost a copy of bytes.
#[derive(Debug)]
pub(super) struct Shown {
    /// `None` if the namespace has no interface to list. It is only counted.
    json: Option<Rendered>,
    links: Arc<[LinkCounterTarget]>,
    netems: Vec<(InterfaceName, Option<Netem>)>,
}

impl Shown {
    /// Creates the entry of a namespace with its links.
    pub(super) fn new(names: NetnsNames<'_>, links: &[Link], exclude_loopback: bool) -> Self {
        let name = names.name.to_wire();
        let mut interfaces = Vec::with_capacity(links.len());
        let mut counter_targets = Vec::with_capacity(links.len());
        let mut netems = Vec::new();
        for link in links
            .iter()
            .filter(|link| !(exclude_loopback && is_loopback(link)))
        {
            // `InterfaceName` accepts every name that the kernel accepts.
            let Ok(ifname) = InterfaceName::new(&link.ifname) else {
                continue;
            };
            interfaces.push(interface(link, &ifname, &name));
            counter_targets.push(LinkCounterTarget {
                ifindex: link.ifindex,
                name: ifname.clone(),
                root_netem: link.root_netem,
            });
            netems.extend(link.root_netem.then_some((ifname, link.netem)));
        }
        let json = if interfaces.is_empty() {
            None
        } else {
            // Strings, numbers and booleans can always be serialised.
            Rendered::new(&namespace(names, name, interfaces)).ok()
        };
        Self {
            json,
            links: counter_targets.into(),
            netems,
        }
    }

    /// Returns the entry for the list. `None` if it has no interface, because frontends do not expect such a namespace.
    pub(super) fn json(&self) -> Option<&Rendered> {
        self.json.as_ref()
    }

    pub(super) fn interface_count(&self) -> usize {
        self.links.len()
    }

    /// Returns the listed interfaces.
    pub(super) fn links(&self) -> &Arc<[LinkCounterTarget]> {
        &self.links
    }

    /// Returns the interfaces with a netem at the root. The parameters are `None` if they could not be read.
    pub(super) fn netems(&self) -> &[(InterfaceName, Option<Netem>)] {
        &self.netems
    }
}

/// Returns a namespace with all its links, listed or not.
pub(crate) fn network_namespace(
    name: &NamespaceName,
    aliases: &[NamespaceName],
    links: &[Link],
) -> NetworkNamespace {
    let names = NetnsNames {
        name,
        aliases,
        container: None,
    };
    let name = name.to_wire();
    let interfaces = links.iter().filter_map(|link| {
        let ifname = InterfaceName::new(&link.ifname).ok()?;
        Some(interface(link, &ifname, &name))
    });
    let interfaces = interfaces.collect();
    namespace(names, name, interfaces)
}

fn is_loopback(link: &Link) -> bool {
    link.loopback || link.ifname == "lo"
}

fn namespace(
    names: NetnsNames<'_>,
    name: String,
    interfaces: Vec<NetworkInterface>,
) -> NetworkNamespace {
    let namespace_type = match (names.name, names.container) {
        (NamespaceName::Host, _) => NamespaceType::Default,
        (_, Some(container)) => NamespaceType::Container {
            runtime: runtime(container.runtime).to_owned(),
            container_id: container.short_id.clone(),
            image: container.image.clone(),
        },
        (_, None) => NamespaceType::Traditional,
    };
    NetworkNamespace {
        name,
        aliases: names.aliases.iter().map(NamespaceName::to_wire).collect(),
        id: None,
        is_active: true,
        namespace_type,
        interfaces,
    }
}

fn runtime(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Docker => "Docker",
        Runtime::Podman => "Podman",
    }
}

fn interface(link: &Link, ifname: &InterfaceName, netns: &str) -> NetworkInterface {
    NetworkInterface {
        name: ifname.to_wire(),
        index: link.ifindex,
        namespace: netns.to_owned(),
        is_up: link.up,
        is_oper_up: link.carrier,
        has_tc_qdisc: link.root_netem,
        interface_type: interface_type(link),
    }
}

/// Returns the type of a link, derived from its kind. The kernel reports a kind for all links except hardware.
pub(super) fn interface_type(link: &Link) -> InterfaceType {
    match link.kind.as_deref() {
        _ if link.loopback => InterfaceType::Loopback,
        None => InterfaceType::Physical,
        Some("veth") => InterfaceType::Veth,
        Some("bridge") => InterfaceType::Bridge,
        Some("tun") if link.tap => InterfaceType::Tap,
        Some("tun") => InterfaceType::Tun,
        Some(_) => InterfaceType::Virtual,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifname: &str, kind: Option<&str>) -> Link {
        let kind = kind.map(str::to_owned);
        let root_netem = ifname == "v0";
        Link {
            kind,
            root_netem,
            carrier: false,
            ..Link::sample(7, ifname)
        }
    }

    #[test]
    fn link_kinds_are_mapped_to_interface_types() {
        for (kind, expected) in [
            (None, InterfaceType::Physical),
            (Some("veth"), InterfaceType::Veth),
            (Some("bridge"), InterfaceType::Bridge),
            (Some("tun"), InterfaceType::Tun),
            (Some("wireguard"), InterfaceType::Virtual),
            (Some("made-up-tomorrow"), InterfaceType::Virtual),
        ] {
            assert_eq!(interface_type(&link("x", kind)), expected, "{kind:?}");
        }
        let tap = Link {
            tap: true,
            ..link("t", Some("tun"))
        };
        assert_eq!(interface_type(&tap), InterfaceType::Tap);
        assert_eq!(interface_type(&link("lo", None)), InterfaceType::Loopback);
    }

    #[test]
    fn a_namespace_without_visible_interfaces_is_not_listed() {
        let links = [link("lo", None), link("v0", Some("veth"))];
        let names = NetnsNames {
            name: &NamespaceName::host(),
            aliases: &[],
            container: None,
        };
        let show = |links, exclude| Shown::new(names, links, exclude);
        let all = show(&links, false);
        assert_eq!(all.interface_count(), 2);
        assert_eq!(all.netems(), [(InterfaceName::new("v0").unwrap(), None)]);
        let only_lo = show(&links[..1], true);
        assert_eq!((only_lo.json(), only_lo.interface_count()), (None, 0));
        let without_lo = show(&links, true);
        let json = without_lo.json().unwrap();
        let host: NetworkNamespace = serde_json::from_str(json.json()).unwrap();
        assert_eq!(host.namespace_type, NamespaceType::Default);
        let [v0] = &host.interfaces[..] else {
            panic!("{host:?}")
        };
        assert!(v0.has_tc_qdisc && !v0.is_oper_up && v0.name == "v0");
        assert_ne!(all.json(), Some(json));
        assert_eq!(
            show(&links, true).json(),
            Some(json),
            "the same content is the same"
        );
    }
}
