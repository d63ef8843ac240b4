//! Tests with the running kernel, each in its own network namespace.

use std::future::pending;

use super::*;
use crate::kernel::lab::PrivateNetns;
use crate::kernel::netns::{NetnsKey, NetnsRef};

/// [`ECHOES_END`] plus the time for the response on a busy machine.
const IN_TIME: Duration = LONGEST;

/// Creates a veth pair, both ends up. The tests check `v0` (index 10). `v1` has index 11.
fn lab() -> PrivateNetns {
    let netns = PrivateNetns::new();
    netns.ip("link set lo up");
    netns.ip("link add v0 index 10 type veth peer name v1 index 11");
    netns.ip("link set v0 up");
    netns.ip("link set v1 up");
    netns.ip("address add 192.0.2.1/24 dev v0");
    netns.ip("address add 2001:db8::1/64 dev v0 nodad");
    netns
}

fn order(netns: &PrivateNetns, ifindex: u32, interface: &str, target: Option<&str>) -> Order {
    let (path, id) = netns.path();
    Order {
        place: NetnsTarget {
            key: NetnsKey::Mounted(id),
            netns_refs: vec![NetnsRef::Name { path, id }],
            named: None,
        },
        netns: NamespaceName::named("lab").unwrap(),
        ifindex,
        interface: InterfaceName::new(interface).unwrap(),
        target: target.map(str::to_owned),
        timeout: Duration::from_secs(5),
        asked_at: Instant::now(),
    }
}

fn diagnostics() -> Diagnostics {
    Diagnostics::new(NetnsFiles::new().unwrap())
}

async fn check(order: Order) -> (DiagnosticsResponse, Duration) {
    let asked_at = order.asked_at;
    let diagnostics = diagnostics();
    let response = sendable(diagnostics.run(order, pending())).await;
    (response, asked_at.elapsed())
}

/// Requires `Send`, because the main loop runs a check as a task that may move between threads.
fn sendable<F: Future + Send>(check: F) -> F {
    check
}

/// Returns the target, whether it answered, and the check method.
fn asked(response: &DiagnosticsResponse) -> (&str, bool, &str) {
    let connectivity = response.results.connectivity.as_ref();
    let connectivity = connectivity.unwrap_or_else(|| panic!("{response:?}"));
    (
        &connectivity.target,
        connectivity.reachable,
        &connectivity.method,
    )
}

#[tokio::test]
async fn addresses_of_both_families_are_reached() {
    let netns = lab();
    for target in ["127.0.0.1", "::1"] {
        let (response, time) = check(order(&netns, 1, "lo", Some(target))).await;
        assert_eq!(asked(&response), (target, true, "ping"), "{response:?}");
        let latency = response.results.latency.as_ref().expect("it answered");
        assert_eq!((latency.samples, latency.packet_loss_percent), (5, 0.0));
        assert!(latency.min_ms > 0.0 && latency.min_ms <= latency.max_ms);
        assert!(response.results.link_status.mtu > 1500, "{response:?}");
        assert!(time < IN_TIME, "{time:?}");
    }
}

#[tokio::test]
async fn an_unreachable_target_is_answered_in_time() {
    let netns = lab();
    let unreachable = |target| {
        let order = order(&netns, 10, "v0", Some(target));
        async move { (target, check(order).await) }
    };
    let at_once = tokio::join!(
        unreachable("192.0.2.77"),
        unreachable("2001:db8::77"),
        unreachable("fe80::77%v0"),
    );
    for (target, (response, time)) in [at_once.0, at_once.1, at_once.2] {
        assert_eq!(asked(&response), (target, false, "ping"), "{response:?}");
        assert!(response.success && response.results.latency.is_none());
        assert!(time < IN_TIME, "{time:?}");
    }
    let (response, time) = check(order(&netns, 1, "lo", Some("2001:db8:1::1"))).await;
    assert!(!asked(&response).1, "{response:?}");
    assert!(
        time < Duration::from_secs(1),
        "no route is known at once: {time:?}"
    );
}

#[tokio::test]
async fn no_echo_is_sent_over_a_link_that_is_down() {
    let netns = PrivateNetns::new();
    let (response, _) = check(order(&netns, 1, "lo", Some("127.0.0.1"))).await;
    assert_eq!(
        asked(&response),
        ("127.0.0.1", false, "skipped (link down)")
    );
    let netns = lab();
    netns.ip("link set v1 down");
    let (response, _) = check(order(&netns, 10, "v0", Some("192.0.2.2"))).await;
    assert_eq!(
        asked(&response),
        ("192.0.2.2", false, "skipped (link down)")
    );
    assert!(response.results.link_status.is_up && !response.results.link_status.has_carrier);
}

#[tokio::test]
async fn the_gateway_is_the_default_target() {
    let netns = lab();
    // Without a carrier no echo is sent. The response names the target nevertheless.
    netns.ip("link set v1 down");
    let target = async || {
        let (response, _) = check(order(&netns, 10, "v0", None)).await;
        let (target, reachable, method) = asked(&response);
        assert_eq!((reachable, method), (false, "skipped (link down)"));
        target.to_owned()
    };
    assert_eq!(target().await, "8.8.8.8", "there is none");
    netns.ip("-6 route add default via fe80::99 dev v0");
    assert_eq!(target().await, "fe80::99%v0");
    netns.ip("route add default via 192.0.2.254");
    assert_eq!(target().await, "192.0.2.254");
}

/// Connects two namespaces by a link. The first is checked, the second is its gateway.
#[tokio::test]
async fn gateways_behind_a_link_reply() {
    let (netns, gateway) = (PrivateNetns::new(), PrivateNetns::new());
    netns.ip("link add v0 index 10 type veth peer name v1");
    // `ip` accepts a path instead of a name.
    let (path, _) = gateway.path();
    netns.ip(&format!("link set v1 netns {}", path.display()));
    gateway.ip("link set v1 up");
    gateway.ip("address add 192.0.2.254/24 dev v1");
    netns.ip("link set v0 up");
    netns.ip("address add 192.0.2.1/24 dev v0");
    netns.ip("-6 address add fe80::5/64 dev v0 nodad");
    gateway.ip("-6 address add fe80::99/64 dev v1 nodad");
    netns.ip("-6 route add default via fe80::99 dev v0");
    let (response, _) = check(order(&netns, 10, "v0", None)).await;
    assert_eq!(
        asked(&response),
        ("fe80::99%v0", true, "ping"),
        "{response:?}"
    );
    netns.ip("route add default via 192.0.2.254");
    let (response, _) = check(order(&netns, 10, "v0", None)).await;
    assert_eq!(
        asked(&response),
        ("192.0.2.254", true, "ping"),
        "{response:?}"
    );
}

#[tokio::test]
async fn a_missing_interface_is_reported_as_gone() {
    let netns = lab();
    for (ifindex, interface) in [(99, "v9"), (10, "renamed")] {
        let (response, _) = check(order(&netns, ifindex, interface, None)).await;
        assert_eq!(response.error_kind, Some(ErrorKind::NotFound));
        assert!(!response.success && response.message.contains(interface));
    }
    let mut unnamed = order(&netns, 10, "v0", None);
    unnamed.place.netns_refs.clear();
    let (response, _) = check(unnamed).await;
    assert_eq!(response.error_kind, Some(ErrorKind::NotFound));
}

#[tokio::test]
async fn a_bad_target_is_refused() {
    let netns = lab();
    let (response, _) = check(order(&netns, 10, "v0", Some("host.example"))).await;
    assert_eq!(response.error_kind, Some(ErrorKind::Invalid));
}

#[tokio::test]
async fn a_check_ends_when_the_namespace_is_deleted() {
    let netns = lab();
    let order = order(&netns, 10, "v0", Some("192.0.2.77"));
    let (asked_at, gone_at) = (order.asked_at, order.asked_at + Duration::from_millis(500));
    let gone = tokio::time::sleep_until(gone_at);
    let response = diagnostics().run(order, gone).await;
    assert_eq!(response.error_kind, Some(ErrorKind::NotFound));
    assert!(asked_at.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn excess_checks_are_refused_in_time() {
    let netns = lab();
    let diagnostics = diagnostics();
    let all = diagnostics.checks.clone().acquire_many_owned(16).await;
    let order = order(&netns, 10, "v0", None);
    let asked_at = order.asked_at;
    let response = diagnostics.run(order, pending()).await;
    drop(all);
    assert_eq!(response.error_kind, Some(ErrorKind::Busy));
    assert!(asked_at.elapsed() < IN_TIME);
}

#[tokio::test(start_paused = true)]
async fn a_check_ends_in_time_if_the_kernel_does_not_reply() {
    let netns = lab();
    let diagnostics = diagnostics();
    let all = diagnostics.visits.clone().acquire_many_owned(4).await;
    let order = order(&netns, 10, "v0", None);
    let asked_at = order.asked_at;
    let response = diagnostics.run(order, pending()).await;
    drop(all);
    assert_eq!(response.error_kind, Some(ErrorKind::Busy));
    assert!(asked_at.elapsed() < IN_TIME);
}
