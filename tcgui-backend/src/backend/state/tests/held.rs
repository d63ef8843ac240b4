//! Tests of namespaces that processes hold, and of several names for one namespace.

use tcgui_shared::names::ContainerName;

use super::*;
use crate::kernel::netns::ProcessNetnsId;
use crate::lease::terms::LeaseHolder;
use crate::lease::{Before, LeaseNetns, Owner};
use crate::netns_holders::{Container, Holder, HolderKind, Runtime};

const WEB: ProcessNetnsId = ProcessNetnsId::from_parts(4, 1, 20, 5);

fn container(name: &str) -> HolderKind {
    HolderKind::Container(Arc::new(Container {
        name: ContainerName::new(name).unwrap(),
        runtime: Runtime::Docker,
        of_root: true,
        short_id: "0a1b2c3d4e5f".to_owned(),
        image: "busybox".to_owned(),
    }))
}

fn appears(id: ProcessNetnsId, kind: HolderKind) -> Input {
    Input::Held(kind.source(), HeldEvent::Added(Holder { id, kind }))
}

fn goes(id: ProcessNetnsId) -> Input {
    Input::Held(HolderSource::Containers, HeldEvent::Removed(id))
}

/// Returns the publications about traffic control: the namespace, and whether there is a netem. `None`: the publication is removed.
fn tc(publication: &Publication) -> Vec<(String, Option<bool>)> {
    let entry = |tc: &TcPublication| {
        let update = tc.update.as_ref();
        (tc.netns.to_wire(), update.map(|update| update.has_tc))
    };
    publication.tc.iter().map(entry).collect()
}

#[test]
fn a_container_is_listed_after_its_first_dump_and_removed_with_its_process() {
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    let effects = bench.step(appears(WEB, container("web")));
    let key = NetnsKey::Held(WEB);
    assert!(
        matches!(&effects[..], [Effect::Track(to, NetnsRef::Process(WEB))] if *to == key),
        "{effects:?}"
    );
    let shown = bench.publication(links(key, &[link(1, "lo", false)]));
    assert_eq!(listed(&shown), ["default", "container:web"]);
    assert_eq!(
        bench.counter_targets.namespaces[1].netns_refs,
        [NetnsRef::Process(WEB)]
    );
    bench.published();
    bench.wait(Duration::from_secs(1));
    let mut effects = bench.step(goes(WEB));
    let Some(Effect::Publish(gone)) = effects.pop() else {
        panic!("{effects:?}")
    };
    assert_eq!(listed(&gone), ["default"]);
    assert!(
        matches!(&effects[..], [Effect::Forget(forgotten), Effect::Untrack(to, NetnsRef::Process(WEB))]
            if *forgotten == key && *to == key),
        "{effects:?}"
    );
}

#[test]
fn a_process_that_ended_before_its_report_is_never_listed() {
    let mut bench = Bench::warm();
    bench.step(appears(WEB, container("web")));
    bench.wait(Duration::from_secs(1));
    let key = NetnsKey::Held(WEB);
    bench.step(Input::Interfaces(InterfacesEvent::Unreadable { key }));
    bench.step(Input::Published(COST));
    bench.wait(Duration::from_secs(1));
    bench.step(goes(WEB));
    bench.step(Input::Published(COST));
    assert_eq!(bench.counter_targets.namespaces.len(), 1, "only the host");
}

#[test]
fn a_deleted_namespace_is_not_listed_even_if_its_references_are_still_reported() {
    let mut bench = Bench::warm();
    let key = NetnsKey::Held(WEB);
    bench.step(appears(WEB, container("web")));
    bench.wait(Duration::from_secs(1));
    bench.publication(links(key, &[link(2, "eth0", true)]));
    bench.published();
    bench.wait(Duration::from_secs(1));
    let dead = || Input::Interfaces(InterfacesEvent::Unreadable { key });
    let gone = bench.publication(dead());
    assert_eq!(listed(&gone), ["default"]);
    let web = |has_tc| ("container:web".to_owned(), has_tc);
    assert_eq!(tc(&gone), [web(Some(false)), web(None)]);
    let (_, mut answer) = bench.request("container:web", "eth0");
    let answer = answer.try_recv().unwrap();
    assert_eq!(answer.error_kind, Some(ErrorKind::NotFound));
    bench.published();
    assert!(bench.step(dead()).is_empty(), "it was said");
    // A reference still leads to the namespace.
    bench.wait(Duration::from_secs(1));
    let back = bench.publication(links(key, &[link(2, "eth0", false)]));
    assert_eq!(listed(&back), ["default", "container:web"]);
}

#[test]
fn publications_under_a_name_are_removed_with_the_name() {
    let mut bench = Bench::warm();
    let key = NetnsKey::Held(WEB);
    bench.step(appears(WEB, container("web")));
    bench.wait(Duration::from_secs(1));
    let shown = bench.publication(links(key, &[link(2, "eth0", true)]));
    assert_eq!(tc(&shown), [("container:web".to_owned(), Some(true))]);
    bench.published();
    bench.wait(Duration::from_secs(1));
    let mut effects = bench.step(added("lab", A));
    let Some(Effect::Publish(named)) = effects.pop() else {
        panic!("{effects:?}")
    };
    let [
        Effect::Execution(renamed),
        Effect::Track(to, NetnsRef::Name { .. }),
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(*to, key, "one namespace");
    assert!(
        matches!(renamed, execution::Command::Renamed { netns, name }
            if *netns == key && name.to_wire() == "lab"),
        "{renamed:?}"
    );
    assert_eq!(listed(&named), ["default", "lab"]);
    assert_eq!(namespaces(&named)[1].aliases, ["container:web"]);
    let mut changes = tc(&named);
    changes.sort();
    assert_eq!(
        changes,
        [
            ("container:web".to_owned(), None),
            ("container:web".to_owned(), Some(false)),
            ("lab".to_owned(), Some(true))
        ]
    );
    bench.published();
    // The first name of the namespace is removed. The key stays.
    bench.wait(Duration::from_secs(1));
    let mut effects = bench.step(goes(WEB));
    let Some(Effect::Publish(unheld)) = effects.pop() else {
        panic!("{effects:?}")
    };
    assert!(tc(&unheld).is_empty() && namespaces(&unheld)[1].aliases.is_empty());
    assert!(
        matches!(&effects[..], [Effect::Untrack(to, NetnsRef::Process(WEB))] if *to == key),
        "{effects:?}"
    );
    let (effects, _answer) = bench.request("lab", "eth0");
    let [Effect::ChangeLink(change)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(change.order.place.key, key);
    assert!(matches!(
        &change.order.place.netns_refs[..],
        [NetnsRef::Name { id: A, .. }]
    ));
}

/// Returns a lease of link 2 that has ended.
fn ended(netns: LeaseNetns, also: Vec<LeaseNetns>) -> Lease {
    Lease {
        netns,
        also,
        ifindex: 2,
        ifname: "eth0".to_owned(),
        link: None,
        cookie: None,
        before: Before::default(),
        set: vec![None],
        owner: Owner::Plain,
        expires: Some(BootTime::default()),
        confirm_by: None,
        holder: LeaseHolder::default(),
        under: None,
        beneath: None,
    }
}

#[test]
fn a_lease_ends_after_a_restart_whichever_reference_is_seen_first() {
    let process = || appears(WEB, container("web"));
    for (first, also, seen, key) in [
        (
            WEB.into(),
            vec![A.into()],
            added("lab", A),
            NetnsKey::Mounted(A),
        ),
        (A.into(), vec![WEB.into()], process(), NetnsKey::Held(WEB)),
        (WEB.into(), vec![], process(), NetnsKey::Held(WEB)),
    ] {
        let mut bench = Bench::warm();
        let lease = ended(first, also);
        let adopted = lease.netns.key().unwrap();
        let left = vec![((adopted, 2), lease.clone())];
        bench.state.adopt(left, bench.moment.boot);
        bench.step(seen);
        let effects = bench.step(links(key, &[link(2, "eth0", true)]));
        let work = effects.iter().find_map(|effect| match effect {
            Effect::ChangeTc(change) => Some(&change.order),
            _ => None,
        });
        let order = work.expect("it is restored");
        assert_eq!((order.place.key, &order.work), (key, &TcWork::Restore));
        let held = order.held.as_ref().unwrap();
        assert_eq!(held.netns, lease.netns, "its file has the same name");
    }
}

#[test]
fn a_new_reference_is_written_into_the_leases_of_its_namespace() {
    let mut bench = Bench::warm();
    let key = NetnsKey::Held(WEB);
    bench.step(appears(WEB, container("web")));
    bench.step(links(key, &[link(2, "eth0", true)]));
    let lease = Lease {
        expires: Some(bench.moment.boot.plus(Duration::from_secs(60))),
        ..ended(WEB.into(), Vec::new())
    };
    bench.state.ledger.settle((key, 2), Some(lease));
    let effects = bench.step(added("lab", A));
    let amended = effects.iter().find_map(|effect| match effect {
        Effect::AmendLease(lease) => Some(lease),
        _ => None,
    });
    assert_eq!(amended.expect("it is written").also, [A.into()]);
    let effects = bench.step(added("later", A));
    assert!(
        !effects.iter().any(|it| matches!(it, Effect::AmendLease(_))),
        "the same file system entry: {effects:?}"
    );
}

#[test]
fn requests_find_a_namespace_by_any_of_its_names() {
    let mut bench = Bench::warm();
    bench.step(added("lab", A));
    bench.step(appears(WEB, container("web")));
    bench.step(appears(
        WEB,
        HolderKind::Process(std::ffi::OsStr::new("nginx").into()),
    ));
    let key = NetnsKey::Mounted(A);
    bench.step(links(key, &[link(2, "eth0", false)]));
    for name in ["lab", "container:web", "pid:20(nginx)"] {
        let (reply, _answer) = Reply::channel();
        let request = DiagnosticsRequest {
            namespace: name.to_owned(),
            interface: "eth0".to_owned(),
            target: None,
            timeout_ms: 5000,
        };
        let effects = bench.step(Input::Request(Request::Diagnostics(request, reply)));
        let [Effect::Diagnose(order, _)] = &effects[..] else {
            panic!("{name}: {effects:?}")
        };
        assert_eq!((order.place.key, order.place.netns_refs.len()), (key, 2));
        assert_eq!(order.netns.to_wire(), "lab");
    }
    for name in ["container:other", "pid:21(nginx)", "pid:20(other)"] {
        let (_, mut answer) = bench.request(name, "eth0");
        let answer = answer.try_recv().unwrap();
        assert_eq!(answer.error_kind, Some(ErrorKind::NotFound), "{name}");
    }
}

#[test]
fn each_holder_source_removes_only_its_own_report_of_a_process() {
    let mut bench = Bench::warm();
    let key = NetnsKey::Held(WEB);
    bench.step(appears(WEB, container("web")));
    let program = HolderKind::Process(std::ffi::OsStr::new("nginx").into());
    assert!(bench.step(appears(WEB, program)).is_empty(), "one way");
    bench.wait(Duration::from_secs(1));
    let shown = bench.publication(links(key, &[link(1, "lo", false)]));
    assert_eq!(namespaces(&shown)[1].aliases, ["pid:20(nginx)"]);
    bench.published();
    // The engine ends, but its container does not.
    bench.wait(Duration::from_secs(1));
    let shown = bench.publication(goes(WEB));
    assert_eq!(listed(&shown), ["default", "pid:20(nginx)"]);
}
