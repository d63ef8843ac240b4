//! Tests that each namespace has one entry, with examples and with events in any order.

use std::sync::Arc;
use std::time::Instant;

use tcgui_shared::interface::{NamespaceType, NetworkNamespace};
use tcgui_shared::names::ContainerName;

use super::*;
use crate::netns_holders::{Container, Runtime};

mod any_order;

const A: MountedNamespaceId = MountedNamespaceId::from_parts(4, 1, 1, 1);
/// A later namespace with the same inode number.
const B: MountedNamespaceId = MountedNamespaceId::from_parts(4, 1, 1, 2);
const OWN_INODE: u64 = 77;
const PODMANS: &str = "netns-0f3c1b2a-4d5e-6f70-8192-a3b4c5d6e7f8";

fn inventory() -> Inventory {
    Inventory::new(Setting {
        directory: "/run/netns".into(),
        own_inode: OWN_INODE,
        exclude_loopback: false,
    })
}

fn links(names: &[&str]) -> Snapshot {
    let links = (1..)
        .zip(names)
        .map(|(ifindex, name)| Link::sample(ifindex, name));
    Snapshot {
        nsid: None,
        links: links.collect(),
        began: Instant::now(),
    }
}

/// A process that holds the namespace with this inode number. A process with a greater pid started later.
fn held(inode: u64, pid: i32) -> ProcessNetnsId {
    ProcessNetnsId::from_parts(4, inode, pid, u64::from(pid.unsigned_abs()))
}

fn container(name: &str, runtime: Runtime, short_id: &str) -> HolderKind {
    HolderKind::Container(Arc::new(Container {
        name: ContainerName::new(name).unwrap(),
        runtime,
        of_root: true,
        short_id: short_id.to_owned(),
        image: "busybox".to_owned(),
    }))
}

fn docker(name: &str) -> HolderKind {
    container(name, Runtime::Docker, "0a1b2c3d4e5f")
}

fn process(program: &str) -> HolderKind {
    HolderKind::Process(std::ffi::OsStr::new(program).into())
}

fn namespaces(inventory: &Inventory) -> Vec<NetworkNamespace> {
    let namespace = |shown: &Shown| {
        let json = shown.json().expect("listed").json();
        serde_json::from_str(json).expect("a namespace")
    };
    inventory.shown().map(namespace).collect()
}

/// Returns the display name and the aliases of each listed namespace.
fn shown(inventory: &Inventory) -> Vec<Vec<String>> {
    let names = |netns: NetworkNamespace| [vec![netns.name], netns.aliases].concat();
    namespaces(inventory).into_iter().map(names).collect()
}

fn find(inventory: &Inventory, netns: &str, interface: &str) -> Result<Found, NotFound> {
    let netns = NamespaceName::from_wire(netns).unwrap();
    inventory.find(&netns, &InterfaceName::from_wire(interface).unwrap())
}

fn add(inventory: &mut Inventory, id: ProcessNetnsId, kind: HolderKind) -> Change {
    inventory.add_holder(Holder { id, kind })
}

#[test]
fn a_namespace_is_listed_after_its_first_dump() {
    let mut inventory = inventory();
    inventory.add_name("x".into(), A);
    assert!(shown(&inventory).is_empty());
    let first = inventory.set_links(NetnsKey::Mounted(A), links(&["lo"]));
    assert_eq!(first, ChangeResult::New);
    let again = inventory.set_links(NetnsKey::Mounted(A), links(&["lo"]));
    assert_eq!(again, ChangeResult::Same);
    let first = inventory.set_links(NetnsKey::Host, links(&["lo"]));
    assert_eq!(first, ChangeResult::New);
    assert_eq!(shown(&inventory), [["default"], ["x"]]);
}

#[test]
fn a_recreated_name_is_another_namespace() {
    for told in [true, false] {
        let mut inventory = inventory();
        inventory.add_name("x".into(), A);
        inventory.set_links(NetnsKey::Mounted(A), links(&["lo", "old"]));
        if told {
            let change = inventory.remove_name(OsStr::new("x"), A);
            assert_eq!(change.gone, [NetnsKey::Mounted(A)]);
        }
        inventory.add_name("x".into(), B);
        let late = inventory.set_links(NetnsKey::Mounted(A), links(&["late"]));
        assert_eq!(late, ChangeResult::Unknown);
        assert!(
            shown(&inventory).is_empty(),
            "nothing of the old one shows under the new one"
        );
        let late = inventory.remove_name(OsStr::new("x"), A);
        assert_eq!(late, Change::default());
        assert!(inventory.has(NetnsKey::Mounted(B)));
    }
}

#[test]
fn an_older_dump_that_arrives_later_is_ignored() {
    let mut inventory = inventory();
    let (older, newer) = (links(&["lo"]), links(&["lo", "v0"]));
    inventory.set_links(NetnsKey::Host, newer);
    inventory.set_links(NetnsKey::Host, older);
    assert_eq!(
        inventory.shown().next().map(Shown::interface_count),
        Some(2)
    );
}

#[test]
fn two_names_share_a_namespace() {
    let mut inventory = inventory();
    inventory.add_name("y".into(), A);
    inventory.set_links(NetnsKey::Mounted(A), links(&["lo"]));
    let change = inventory.add_name("x".into(), A);
    let name = |name| NamespaceName::named(name).unwrap();
    assert_eq!(change.touched, [name("y"), name("x")], "it is shown as x");
    assert_eq!(shown(&inventory), [["x", "y"]]);
    let change = inventory.remove_name(OsStr::new("x"), A);
    assert!(change.gone.is_empty());
    assert_eq!(shown(&inventory), [["y"]]);
}

#[test]
fn the_best_name_is_listed_and_each_name_finds_the_namespace() {
    let mut inventory = inventory();
    let (web, program) = (held(1, 20), held(1, 20));
    let key = NetnsKey::Held(program);
    let netns_refs = |inventory: &Inventory| inventory.netns_refs(key).len();
    add(&mut inventory, program, process("nginx"));
    inventory.set_links(key, links(&["lo"]));
    assert_eq!(shown(&inventory), [["pid:20(nginx)"]]);
    let change = inventory.add_name(PODMANS.into(), A);
    assert_eq!(shown(&inventory), [[PODMANS, "pid:20(nginx)"]]);
    assert_eq!(change.tracked.len(), 1);
    let change = add(&mut inventory, web, docker("web"));
    assert!(change.tracked.is_empty(), "the same process: {change:?}");
    let all = ["container:web", PODMANS, "pid:20(nginx)"];
    assert_eq!(shown(&inventory), [all]);
    assert_eq!(
        namespaces(&inventory)[0].namespace_type,
        NamespaceType::Container {
            runtime: "Docker".to_owned(),
            container_id: "0a1b2c3d4e5f".to_owned(),
            image: "busybox".to_owned(),
        }
    );
    for name in all {
        let found = find(&inventory, name, "lo").unwrap();
        assert_eq!((found.key, found.netns_refs.len()), (key, 2), "{name}");
        assert_eq!(found.name.to_wire(), "container:web");
    }
    inventory.add_name("lab".into(), A);
    assert_eq!(namespaces(&inventory)[0].name, "lab");
    assert_eq!(
        namespaces(&inventory)[0].namespace_type,
        NamespaceType::Traditional
    );
    inventory.remove_name(OsStr::new("lab"), A);
    let change = inventory.remove_holder(HolderSource::Containers, web);
    assert_eq!((change.untracked.len(), netns_refs(&inventory)), (0, 2));
    let change = inventory.remove_holder(HolderSource::Processes, program);
    assert_eq!((change.untracked.len(), netns_refs(&inventory)), (1, 1));
    assert_eq!(shown(&inventory), [[PODMANS]]);
    assert!(
        inventory.has(key),
        "known by its first way, though that is gone"
    );
    let change = inventory.remove_name(OsStr::new(PODMANS), A);
    assert_eq!(change.gone, [key]);
    assert_eq!(find(&inventory, PODMANS, "lo"), Err(NotFound::Namespace));
}

#[test]
fn a_renamed_holder_is_the_same_namespace() {
    let mut inventory = inventory();
    let id = held(1, 20);
    add(&mut inventory, id, docker("old"));
    inventory.set_links(NetnsKey::Held(id), links(&["lo"]));
    let change = add(&mut inventory, id, docker("new"));
    assert!(change.tracked.is_empty() && change.untracked.is_empty());
    let name = |name| NamespaceName::container(name).unwrap();
    assert_eq!(change.touched, [name("old"), name("new")]);
    assert_eq!(shown(&inventory), [["container:new"]]);
    let again = add(&mut inventory, id, docker("new"));
    assert_eq!(again, Change::default());
}

#[test]
fn containers_of_two_engines_may_have_one_name() {
    for order in [[0, 1], [1, 0]] {
        let mut inventory = inventory();
        let all = [
            (held(1, 20), docker("web")),
            (
                held(2, 10),
                container("web", Runtime::Podman, "ffff00001111"),
            ),
        ];
        for index in order {
            let (id, kind) = all[index].clone();
            add(&mut inventory, id, kind);
            inventory.set_links(NetnsKey::Held(id), links(&["lo"]));
        }
        assert_eq!(
            shown(&inventory),
            [["container:web"], ["container:web@ffff00001111"]]
        );
        let found = find(&inventory, "container:web", "lo").unwrap();
        assert_eq!(found.key, NetnsKey::Held(all[0].0));
        let change = inventory.remove_holder(HolderSource::Containers, all[0].0);
        assert!(
            change
                .touched
                .contains(&NamespaceName::container("web").unwrap())
        );
        assert_eq!(shown(&inventory), [["container:web"]]);
        let found = find(&inventory, "container:web", "lo").unwrap();
        assert_eq!(found.key, NetnsKey::Held(all[1].0));
    }
}

#[test]
fn host_netns_holders_are_ignored_and_its_names_are_aliases() {
    let mut inventory = inventory();
    inventory.set_links(NetnsKey::Host, links(&["lo", "eth0"]));
    let change = add(&mut inventory, held(OWN_INODE, 20), docker("web"));
    assert_eq!(change, Change::default());
    assert_eq!(
        find(&inventory, "container:web", "eth0"),
        Err(NotFound::Namespace)
    );
    let own = MountedNamespaceId::from_parts(4, OWN_INODE, 1, 1);
    let change = inventory.add_name("self".into(), own);
    assert!(change.tracked.is_empty(), "{change:?}");
    assert_eq!(shown(&inventory), [["default", "self"]]);
    assert_eq!(
        find(&inventory, "self", "eth0").unwrap().key,
        NetnsKey::Host
    );
    let change = inventory.remove_name(OsStr::new("self"), own);
    assert!(change.gone.is_empty() && change.untracked.is_empty());
    assert_eq!(shown(&inventory), [["default"]]);
}

#[test]
fn a_process_is_in_one_namespace_at_a_time() {
    let mut inventory = inventory();
    add(&mut inventory, held(1, 20), process("sh"));
    let change = add(&mut inventory, held(2, 20), process("sh"));
    assert_eq!(change.gone, [NetnsKey::Held(held(1, 20))]);
    inventory.set_links(NetnsKey::Held(held(2, 20)), links(&["lo"]));
    assert_eq!(shown(&inventory), [["pid:20(sh)"]]);
    let late = inventory.remove_holder(HolderSource::Processes, held(1, 20));
    assert_eq!(late, Change::default());
    let change = add(&mut inventory, held(OWN_INODE, 20), process("sh"));
    assert_eq!(change.gone, [NetnsKey::Held(held(2, 20))], "it went home");
}

#[test]
fn interfaces_are_found_by_the_clients_names() {
    let mut inventory = inventory();
    inventory.add_name("x".into(), A);
    inventory.set_links(NetnsKey::Mounted(A), links(&["lo", "v0"]));
    let found = Found {
        key: NetnsKey::Mounted(A),
        netns_refs: vec![NetnsRef::Name {
            path: "/run/netns/x".into(),
            id: A,
        }],
        named: Some(NetnsRef::Name {
            path: "/run/netns/x".into(),
            id: A,
        }),
        name: NamespaceName::named("x").unwrap(),
        link: Link::sample(2, "v0"),
    };
    assert_eq!(find(&inventory, "x", "v0"), Ok(found));
    assert_eq!(find(&inventory, "x", "v1"), Err(NotFound::Interface));
    for unknown in ["y", "container:x", "pid:1(x)"] {
        assert_eq!(find(&inventory, unknown, "v0"), Err(NotFound::Namespace));
    }
}

#[test]
fn a_users_engine_cannot_take_over_a_name() {
    let mut inventory = inventory();
    let web = |of_root, runtime, short_id: &str| {
        HolderKind::Container(Arc::new(Container {
            name: ContainerName::new("web").unwrap(),
            runtime,
            of_root,
            short_id: short_id.to_owned(),
            image: "busybox".to_owned(),
        }))
    };
    add(
        &mut inventory,
        held(1, 20),
        web(true, Runtime::Podman, "ffffffffffff"),
    );
    inventory.set_links(NetnsKey::Held(held(1, 20)), links(&["lo"]));
    // It claims to be Docker and reports the least ids.
    add(
        &mut inventory,
        held(2, 10),
        web(false, Runtime::Docker, "000000000000"),
    );
    inventory.set_links(NetnsKey::Held(held(2, 10)), links(&["lo"]));
    let found = find(&inventory, "container:web", "lo").unwrap();
    assert_eq!(found.key, NetnsKey::Held(held(1, 20)));
    let found = find(&inventory, "container:web@000000000000", "lo").unwrap();
    assert_eq!(found.key, NetnsKey::Held(held(2, 10)));
}

#[test]
fn a_found_interface_has_the_reference_of_the_requested_name() {
    let mut inventory = inventory();
    add(&mut inventory, held(1, 20), docker("web"));
    add(&mut inventory, held(1, 20), process("nginx"));
    add(&mut inventory, held(1, 30), process("sh"));
    inventory.set_links(NetnsKey::Held(held(1, 20)), links(&["lo"]));
    // The process may have left, and another namespace may have the inode number.
    inventory.add_name("x".into(), B);
    let path = "/run/netns/x".into();
    for (name, netns_ref) in [
        ("x", NetnsRef::Name { path, id: B }),
        ("container:web", NetnsRef::Process(held(1, 20))),
        ("pid:20(nginx)", NetnsRef::Process(held(1, 20))),
        ("pid:30(sh)", NetnsRef::Process(held(1, 30))),
    ] {
        let found = find(&inventory, name, "lo").unwrap();
        assert_eq!(
            (found.netns_refs.len(), found.named),
            (3, Some(netns_ref)),
            "{name}"
        );
    }
}

#[test]
fn a_recreated_namespace_may_have_the_key_of_the_old_one() {
    let mut inventory = inventory();
    let (old, new) = (A.through_link(), B.through_link());
    inventory.add_name("b".into(), old);
    inventory.add_name("a".into(), new);
    inventory.remove_name(OsStr::new("b"), old);
    let key = NetnsKey::Mounted(old);
    let change = inventory.add_name("a".into(), old);
    assert_eq!((change.gone, change.tracked.len()), (vec![key], 1));
    assert_eq!(inventory.set_links(key, links(&["lo"])), ChangeResult::New);
    assert_eq!(shown(&inventory), [["a"]]);
}

#[test]
fn a_new_namespace_with_a_reused_inode_number_replaces_the_old_one() {
    let mut inventory = inventory();
    inventory.add_name("x".into(), A);
    inventory.set_links(NetnsKey::Mounted(A), links(&["lo", "old"]));
    // The watcher reports the new name before the removal of the old one.
    let change = inventory.add_name("y".into(), B);
    assert_eq!(change.gone, [NetnsKey::Mounted(A)]);
    assert!(shown(&inventory).is_empty());
    inventory.set_links(NetnsKey::Mounted(B), links(&["lo"]));
    assert_eq!(shown(&inventory), [["y"]]);
    let late = inventory.remove_name(OsStr::new("x"), A);
    assert_eq!(late, Change::default());
    // A reference through a symbolic link has its own timestamp.
    inventory.add_name("z".into(), A.through_link());
    assert_eq!(shown(&inventory), [["y", "z"]]);
}

#[test]
fn a_thousand_containers_of_one_name_rename_few_others() {
    const MANY: i32 = 1000;
    let mut inventory = inventory();
    let mut touched = 0;
    for number in (1..=MANY).rev() {
        let short_id = format!("{:04}", number % 500);
        let kind = container("web", Runtime::Docker, &short_id);
        let id = held(1000 + u64::from(number.unsigned_abs()), number);
        let change = add(&mut inventory, id, kind);
        touched += change.touched.len();
        inventory.set_links(NetnsKey::Held(id), links(&["lo"]));
    }
    assert!(
        touched <= 3 * 1000,
        "{touched} names for a thousand containers"
    );
    let names: std::collections::BTreeSet<_> = shown(&inventory).into_iter().collect();
    assert_eq!(names.len(), 1000, "each has a name of its own");
    for number in 1..=MANY {
        let id = held(1000 + u64::from(number.unsigned_abs()), number);
        touched += inventory
            .remove_holder(HolderSource::Containers, id)
            .touched
            .len();
    }
    assert!(shown(&inventory).is_empty());
    assert!(touched <= 6 * 1000, "{touched} names until all were gone");
}
