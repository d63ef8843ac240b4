//! The inventory in the words of the wire. Pure.

use std::collections::BTreeMap;

use tcgui_shared::interface::{InterfaceType, NamespaceType, NetworkInterface, NetworkNamespace};
use tcgui_shared::names::{InterfaceName, NamespaceName};

use super::inventory::Inventory;
use crate::kernel::link::Link;

/// What frontends are to see.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Picture {
    /// For the list.
    pub(super) namespaces: Vec<NetworkNamespace>,
    /// Every interface that is shown, and whether a netem is at its root.
    pub(super) netem: BTreeMap<(NamespaceName, InterfaceName), bool>,
    /// All namespaces, also those of which nothing is shown.
    pub(super) namespace_count: usize,
    /// All interfaces that are shown.
    pub(super) interface_count: usize,
}

impl Picture {
    /// Draws the picture. A namespace of which nothing is shown is counted but not listed.
    pub(super) fn of(inventory: &Inventory, exclude_loopback: bool) -> Self {
        let mut picture = Self::default();
        for (netns, links) in inventory.namespaces() {
            picture.namespace_count += 1;
            let name = netns.to_wire();
            let mut interfaces = Vec::with_capacity(links.len());
            for link in links
                .iter()
                .filter(|link| !(exclude_loopback && is_loopback(link)))
            {
                // The kernel accepts fewer names than this does.
                let Ok(ifname) = InterfaceName::new(&link.ifname) else {
                    continue;
                };
                interfaces.push(interface(link, &ifname, &name));
                picture
                    .netem
                    .insert((netns.clone(), ifname), link.root_netem);
            }
            if !interfaces.is_empty() {
                picture.interface_count += interfaces.len();
                picture.namespaces.push(namespace(&netns, name, interfaces));
            }
        }
        picture
    }
}

fn is_loopback(link: &Link) -> bool {
    link.loopback || link.ifname == "lo"
}

fn namespace(
    netns: &NamespaceName,
    name: String,
    interfaces: Vec<NetworkInterface>,
) -> NetworkNamespace {
    let namespace_type = match netns {
        NamespaceName::Host => NamespaceType::Default,
        _ => NamespaceType::Traditional,
    };
    NetworkNamespace {
        name,
        id: None,
        is_active: true,
        namespace_type,
        interfaces,
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

/// Returns the type of a link: by its kind, which the kernel knows of everything but hardware.
fn interface_type(link: &Link) -> InterfaceType {
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
    use crate::interfaces::NetnsKey;
    use crate::namespace_watcher::MountedNamespaceId;

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
    fn kinds_become_types() {
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
    fn a_namespace_without_visible_interfaces_is_counted_only() {
        let id = MountedNamespaceId::from_parts(4, 1, 1, 1);
        let mut inventory = Inventory::default();
        inventory.set_links(
            NetnsKey::Host,
            vec![link("lo", None), link("v0", Some("veth"))].into(),
        );
        inventory.add("x".into(), id);
        inventory.set_links(NetnsKey::Mounted(id), vec![link("lo", None)].into());

        let all = Picture::of(&inventory, false);
        assert_eq!(
            (
                all.namespace_count,
                all.interface_count,
                all.namespaces.len()
            ),
            (2, 3, 2)
        );
        let picture = Picture::of(&inventory, true);
        assert_eq!((picture.namespace_count, picture.interface_count), (2, 1));
        let [host] = &picture.namespaces[..] else {
            panic!("{picture:?}")
        };
        assert_eq!(host.interfaces[0].name, "v0");
        assert!(host.interfaces[0].has_tc_qdisc && !host.interfaces[0].is_oper_up);
        assert_eq!(picture.netem.values().copied().collect::<Vec<_>>(), [true]);
    }
}
