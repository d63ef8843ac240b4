//! Tests of the effects of inputs.

use tcgui_shared::control::{
    InterfaceControlOperation, InterfaceControlRequest, InterfaceControlResponse,
};
use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::interface::NetworkNamespace;
use tcgui_shared::names::InterfaceName;
use tcgui_shared::netem::TcNetemConfig;
use tcgui_shared::tc::TcOperation;

use super::*;
use crate::backend::orders::{TcResult, TcWork};
use crate::bus::TcPublication;
use crate::kernel::link::Link;
use crate::kernel::netns::MountedNamespaceId;
use crate::policy::Policy;
use crate::tc::plan::ForeignQdiscs;

mod departures;
mod executions;
mod held;
mod histories;
mod identity;
mod leases;
mod notifications;
mod order;
mod permits;
mod reports;
mod tc;
mod tokens;

const A: MountedNamespaceId = MountedNamespaceId::from_parts(4, 1, 1, 1);
const OWN_INODE: u64 = 77;
const COST: Duration = Duration::from_millis(4);

fn link(ifindex: u32, ifname: &str, root_netem: bool) -> Link {
    Link {
        root_netem,
        ..Link::sample(ifindex, ifname)
    }
}

fn snapshot(links: &[Link]) -> Snapshot {
    Snapshot {
        nsid: None,
        links: links.into(),
        began: Instant::now(),
    }
}

fn links(key: NetnsKey, links: &[Link]) -> Input {
    Input::Interfaces(InterfacesEvent::Links {
        key,
        snapshot: snapshot(links),
    })
}

fn added(name: &str, id: MountedNamespaceId) -> Input {
    Input::Namespace(NamespaceEvent::Added {
        name: name.into(),
        id,
    })
}

/// A state with a clock that the test moves.
struct Bench {
    state: State,
    moment: Moment,
    counter_targets: CounterTargets,
}

impl Bench {
    /// Returns a state before the first dump.
    fn cold(namespaces: &[(&str, MountedNamespaceId)]) -> Self {
        let identity = Identity {
            name: "lab".parse().unwrap(),
            hostname: Some("box".to_owned()),
            started_at: 1000,
            options: Reloadable {
                foreign_qdiscs: ForeignQdiscs::Keep,
                default_ttl: None,
                keep_on_exit: false,
                policy: Policy::default(),
            },
            fails_with: None,
        };
        let setting = Setting {
            directory: "/run/netns".into(),
            own_inode: OWN_INODE,
            exclude_loopback: false,
        };
        let mut state = State::new(identity, setting, Arc::default());
        let namespace = |(name, id): &(&str, _)| Namespace {
            name: name.into(),
            id: *id,
        };
        let effects = state.begin(namespaces.iter().map(namespace).collect());
        assert_eq!(
            effects.len(),
            namespaces.len(),
            "each is tracked: {effects:?}"
        );
        Self {
            state,
            moment: Moment {
                now: Instant::now(),
                unix_s: 2000,
                unix_ms: 2_000_000,
                boot: BootTime::after_boot(Duration::from_secs(100)),
            },
            counter_targets: CounterTargets::default(),
        }
    }

    /// Returns a state in which the host has lo and v0 and everything was published.
    fn warm() -> Self {
        let mut bench = Self::cold(&[]);
        bench.publication(links(
            NetnsKey::Host,
            &[link(1, "lo", false), link(2, "v0", false)],
        ));
        bench.published();
        bench
    }

    /// Keeps the newest counter targets, which accompany every list, and returns the other effects.
    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = self.state.step(input, self.moment);
        for counter_targets in
            effects.extract_if(.., |effect| matches!(effect, Effect::CounterTargets(_)))
        {
            if let Effect::CounterTargets(counter_targets) = counter_targets {
                self.counter_targets = counter_targets;
            }
        }
        effects
    }

    /// Expects a publication among the effects of the input.
    fn publication(&mut self, input: Input) -> Publication {
        let mut effects = self.step(input);
        match effects.pop() {
            Some(Effect::Publish(publication)) => publication,
            other => panic!("no publication but {other:?}"),
        }
    }

    /// Ends the publication under way, and expects no further effect.
    fn published(&mut self) {
        let effects = self.step(Input::Published(COST));
        assert!(effects.is_empty(), "{effects:?}");
    }

    fn wait(&mut self, time: Duration) {
        self.moment.now += time;
        self.moment.boot = self.moment.boot.plus(time);
    }

    fn request(&mut self, netns: &str, interface: &str) -> (Vec<Effect>, Asked) {
        let (reply, answer) = Reply::channel();
        let request = InterfaceControlRequest {
            namespace: netns.to_owned(),
            interface: interface.to_owned(),
            operation: InterfaceControlOperation::Disable,
        };
        (
            self.step(Input::Request(Request::Interface(request, reply))),
            answer,
        )
    }
}

type Asked = tokio::sync::oneshot::Receiver<InterfaceControlResponse>;

fn namespaces(publication: &Publication) -> Vec<NetworkNamespace> {
    let list = publication.list.as_ref().expect("a list");
    list.namespaces
        .iter()
        .map(|netns| serde_json::from_str(netns.json()).unwrap())
        .collect()
}

fn listed(publication: &Publication) -> Vec<String> {
    namespaces(publication)
        .into_iter()
        .map(|netns| netns.name)
        .collect()
}

#[test]
fn the_first_list_waits_for_all_initial_namespaces_and_contains_them() {
    let mut bench = Bench::cold(&[("a", A)]);
    let host = links(NetnsKey::Host, &[link(1, "lo", false)]);
    assert!(bench.step(host).is_empty(), "a is not dumped yet");
    assert_eq!(bench.state.wake_at(), None);
    let first = bench.publication(links(NetnsKey::Mounted(A), &[link(1, "lo", false)]));
    assert_eq!(listed(&first), ["default", "a"]);
    assert_eq!(
        first.presets,
        Some(PresetList {
            presets: Vec::new()
        })
    );
    let health = first.health.expect("health at the start");
    assert_eq!((health.namespace_count, health.interface_count), (2, 2));
    assert_eq!(health.metadata.started_at, Some(1000));
    assert_eq!(health.metadata.hostname.as_deref(), Some("box"));
}

#[test]
fn an_unreadable_namespace_does_not_delay_the_first_list() {
    let mut bench = Bench::cold(&[("a", A)]);
    bench.step(links(NetnsKey::Host, &[link(1, "lo", false)]));
    let event = InterfacesEvent::Unreadable {
        key: NetnsKey::Mounted(A),
    };
    assert_eq!(
        listed(&bench.publication(Input::Interfaces(event))),
        ["default"]
    );
}

#[test]
fn a_namespace_is_listed_after_its_first_dump_and_removed_at_once() {
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    let effects = bench.step(added("a", A));
    assert!(
        matches!(&effects[..], [Effect::Track(NetnsKey::Mounted(A), NetnsRef::Name { path, id: A })]
            if path.ends_with("a")),
        "{effects:?}"
    );
    let shown = bench.publication(links(NetnsKey::Mounted(A), &[link(1, "lo", false)]));
    assert_eq!(listed(&shown), ["default", "a"]);
    assert_eq!(shown.health.map(|health| health.namespace_count), Some(2));
    bench.published();
    bench.wait(Duration::from_secs(1));
    let removed = NamespaceEvent::Removed {
        name: "a".into(),
        id: A,
    };
    assert_eq!(
        listed(&bench.publication(Input::Namespace(removed))),
        ["default"]
    );
}

#[test]
fn counters_of_a_recreated_namespace_are_read_even_if_the_list_is_the_same() {
    const B: MountedNamespaceId = MountedNamespaceId::from_parts(4, 1, 1, 2);
    let mut bench = Bench::warm();
    let mut keys = Vec::new();
    for id in [A, B] {
        bench.wait(Duration::from_secs(1));
        bench.step(added("a", id));
        bench.step(Input::Published(COST));
        bench.wait(Duration::from_secs(1));
        bench.step(links(NetnsKey::Mounted(id), &[link(1, "lo", false)]));
        bench.step(Input::Published(COST));
        keys.extend(
            bench
                .counter_targets
                .namespaces
                .iter()
                .map(|entry| entry.key),
        );
        let name = "a".into();
        bench.step(Input::Namespace(NamespaceEvent::Removed { name, id }));
    }
    let host = NetnsKey::Host;
    assert_eq!(
        keys,
        [host, NetnsKey::Mounted(A), host, NetnsKey::Mounted(B)]
    );
}

#[test]
fn lists_are_paced_during_continuous_changes_and_the_last_one_is_current() {
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    bench.publication(links(NetnsKey::Host, &[link(1, "a", false)]));
    let mut gaps = Vec::new();
    for number in 0..30 {
        let name = format!("b{number}");
        let during = bench.step(links(NetnsKey::Host, &[link(1, &name, false)]));
        assert!(during.is_empty(), "one publication at a time");
        bench.published();
        let due = bench.state.wake_at().expect("a list is due");
        gaps.push(due - bench.moment.now);
        let name = format!("c{number}");
        bench.step(links(NetnsKey::Host, &[link(1, &name, false)]));
        bench.moment.now = due;
        let last = bench.publication(Input::Timer);
        assert_eq!(namespaces(&last)[0].interfaces[0].name, name);
    }
    assert_eq!(gaps, [COST * 10; 30], "ten times the cost of the last one");
}

#[test]
fn ten_quick_changes_are_published_at_once() {
    let cost = Duration::from_micros(300);
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    for number in 0..10 {
        let name = format!("b{number}");
        let change = links(NetnsKey::Host, &[link(1, &name, false)]);
        let publication = bench.publication(change);
        assert_eq!(namespaces(&publication)[0].interfaces[0].name, name);
        bench.step(Input::Published(cost));
        bench.wait(Duration::from_millis(5));
    }
    // Two tokens were earned during the 50 ms of the first ten. Then 40 lists a second are allowed.
    let mut waits = Vec::new();
    for number in 0..5 {
        let name = format!("c{number}");
        let before = bench.moment.now;
        let change = links(NetnsKey::Host, &[link(1, &name, false)]);
        if bench.step(change).is_empty() {
            bench.moment.now = bench.state.wake_at().expect("a list is due");
            bench.publication(Input::Timer);
        }
        waits.push(bench.moment.now - before);
        bench.step(Input::Published(cost));
    }
    let ms = Duration::from_millis;
    assert_eq!(waits, [ms(0), ms(3), ms(22), ms(25), ms(25)]);
}

#[test]
fn a_change_that_is_undone_before_the_next_list_is_not_published() {
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    let effects = bench.step(links(
        NetnsKey::Host,
        &[link(1, "lo", false), link(2, "v0", false)],
    ));
    assert!(effects.is_empty(), "{effects:?}");
}

#[test]
fn health_is_repeated_without_a_change() {
    let mut bench = Bench::warm();
    for _ in 0..3 {
        let due = bench.state.wake_at().expect("health is due");
        assert_eq!(due, bench.moment.now + HEALTH_INTERVAL);
        bench.moment.now = due;
        let publication = bench.publication(Input::Timer);
        assert!(publication.health.is_some() && publication.list.is_none());
        bench.published();
    }
}

#[test]
fn tc_is_published_only_for_interfaces_that_have_or_had_a_netem() {
    let mut bench = Bench::warm();
    let tc = |publication: Publication| -> Vec<(String, Option<bool>)> {
        let entry = |tc: TcPublication| {
            (
                tc.interface.to_wire(),
                tc.update.map(|update| update.has_tc),
            )
        };
        publication.tc.into_iter().map(entry).collect()
    };
    let expectations: [(&[Link], _); 3] = [
        (&[link(1, "lo", false), link(2, "v0", true)], Some(true)),
        (&[link(1, "lo", false), link(2, "v0", false)], Some(false)),
        (&[link(1, "lo", false)], None),
    ];
    for (now, expected) in expectations {
        bench.wait(Duration::from_secs(1));
        let publication = bench.publication(links(NetnsKey::Host, now));
        assert_eq!(tc(publication), [("v0".to_owned(), expected)]);
        bench.published();
    }
}

#[test]
fn a_switched_link_is_read_back_published_and_answered() {
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    let (effects, mut answer) = bench.request("default", "v0");
    let change = switching(effects);
    assert_eq!((change.order.ifindex, change.order.up), (2, false));
    let down = Link {
        up: false,
        ..link(2, "v0", false)
    };
    let heard = bench.step(links(NetnsKey::Host, std::slice::from_ref(&down)));
    assert!(heard.is_empty(), "the answer comes first: {heard:?}");
    let outcome = LinkOutcome {
        change,
        result: Ok(false),
    };
    let effects = bench.step(Input::LinkChanged(Box::new(outcome)));
    assert!(
        matches!(&effects[..], [Effect::Recheck(NetnsKey::Host)]),
        "{effects:?}"
    );
    let answer = answer.try_recv().unwrap();
    assert!(answer.success && !answer.new_state, "{answer:?}");
    bench.wait(ANSWER_FIRST);
    let publication = bench.publication(Input::Timer);
    assert!(!namespaces(&publication)[0].interfaces[0].is_up);
}

#[test]
fn the_list_waits_for_a_slow_link_change() {
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    let (effects, _answer) = bench.request("default", "v0");
    let change = switching(effects);
    bench.wait(LIST_WAITS * 3);
    let down = Link {
        up: false,
        ..link(2, "v0", false)
    };
    let heard = bench.step(links(NetnsKey::Host, std::slice::from_ref(&down)));
    assert!(heard.is_empty(), "{heard:?}");
    bench.wait(ANSWER_FIRST / 2);
    let result = Ok(false);
    let effects = bench.step(Input::LinkChanged(Box::new(LinkOutcome { change, result })));
    assert!(!effects.iter().any(is_list), "{effects:?}");
    let due = bench.moment.now + ANSWER_FIRST;
    assert_eq!(bench.state.wake_at(), Some(due));
    bench.wait(ANSWER_FIRST);
    bench.publication(Input::Timer);
}

#[test]
fn continuous_link_changes_do_not_delay_the_list_without_limit() {
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    let mut waited = Duration::ZERO;
    for up in [false, true].into_iter().cycle() {
        let (effects, _answer) = bench.request("default", "v0");
        if effects.iter().any(is_list) {
            break;
        }
        let change = switching(effects);
        let now = Link {
            up,
            ..link(2, "v0", false)
        };
        let result = Ok(up);
        let mut effects = bench.step(links(NetnsKey::Host, &[now]));
        effects.extend(bench.step(Input::LinkChanged(Box::new(LinkOutcome { change, result }))));
        if effects.iter().any(is_list) {
            break;
        }
        waited += ANSWER_FIRST / 2;
        bench.wait(ANSWER_FIRST / 2);
        assert!(waited < LIST_WAITS * 2, "no list");
    }
}

/// Expects a change of a link among the effects.
fn switching(mut effects: Vec<Effect>) -> Box<PendingLinkChange> {
    match effects.pop() {
        Some(Effect::ChangeLink(change)) => change,
        other => panic!("no link is switched: {other:?}"),
    }
}

fn is_list(effect: &Effect) -> bool {
    matches!(effect, Effect::Publish(Publication { list: Some(_), .. }))
}

#[test]
fn requests_for_one_link_run_one_at_a_time_and_a_failure_has_its_reason() {
    let mut bench = Bench::warm();
    let (effects, mut first) = bench.request("default", "v0");
    let (waits, mut second) = bench.request("default", "v0");
    assert!(waits.is_empty(), "{waits:?}");
    let change = switching(effects);
    let result = Err((ErrorKind::Denied, "not permitted".to_owned()));
    let effects = bench.step(Input::LinkChanged(Box::new(LinkOutcome { change, result })));
    assert!(
        matches!(&effects[..], [Effect::ChangeLink(_), Effect::Recheck(_)]),
        "the second begins: {effects:?}"
    );
    let answer = first.try_recv().unwrap();
    assert_eq!((answer.success, answer.error_code), (false, Some(-1)));
    assert_eq!(answer.error_kind, Some(ErrorKind::Denied));
    second.try_recv().unwrap_err();
}

#[test]
fn link_and_qdisc_changes_of_one_interface_run_in_order_and_others_run_at_once() {
    let mut bench = Bench::warm();
    let present = [link(2, "v0", false), link(3, "v1", false)];
    bench.step(links(NetnsKey::Host, &present));
    let (effects, _link) = bench.request("default", "v0");
    let change = switching(effects);
    let (effects, _tc) = bench.tc("default", TcOperation::Remove);
    assert!(effects.is_empty(), "{effects:?}");
    let (effects, _other) = bench.request("default", "v1");
    switching(effects);
    let result = Ok(false);
    let effects = bench.step(Input::LinkChanged(Box::new(LinkOutcome { change, result })));
    assert!(
        matches!(&effects[..], [Effect::ChangeTc(_), Effect::Recheck(_)]),
        "{effects:?}"
    );
}

#[test]
fn a_full_lane_refuses_new_requests_and_keeps_the_waiting_ones() {
    let mut bench = Bench::warm();
    let (effects, first) = bench.request("default", "v0");
    let mut under_way = Some(switching(effects));
    let mut asked = vec![first];
    let refused = loop {
        let (effects, mut answer) = bench.request("default", "v0");
        assert!(effects.is_empty(), "{effects:?}");
        match answer.try_recv() {
            Ok(refused) => break refused,
            Err(_) => asked.push(answer),
        }
    };
    assert_eq!(refused.error_kind, Some(ErrorKind::Busy));
    assert_eq!(asked.len(), 33);
    let (_, mut change) = bench.tc("default", TcOperation::Remove);
    assert_eq!(change.try_recv().unwrap().error_kind, Some(ErrorKind::Busy));
    for mut answer in asked {
        let change = under_way.take().expect("the next one has begun");
        let result = Ok(false);
        let mut effects = bench.step(Input::LinkChanged(Box::new(LinkOutcome { change, result })));
        assert!(answer.try_recv().unwrap().success);
        under_way = effects
            .extract_if(.., |it| !matches!(it, Effect::Recheck(_)))
            .next()
            .map(|it| switching(vec![it]));
    }
    assert!(under_way.is_none());
}

#[test]
fn unknown_and_impossible_names_are_refused() {
    let mut bench = Bench::warm();
    for (netns, interface, kind) in [
        ("nowhere", "v0", ErrorKind::NotFound),
        ("default", "v9", ErrorKind::NotFound),
        ("container:web", "eth0", ErrorKind::NotFound),
        ("../../etc", "v0", ErrorKind::Invalid),
        ("", "v0", ErrorKind::Invalid),
        ("default", "a/b", ErrorKind::Invalid),
        ("default", "longer-than-any-name", ErrorKind::Invalid),
    ] {
        let (effects, mut answer) = bench.request(netns, interface);
        assert!(effects.is_empty(), "{effects:?}");
        let answer = answer.try_recv().unwrap();
        assert_eq!(
            answer.error_kind,
            Some(kind),
            "{netns} {interface}: {answer:?}"
        );
        assert!(answer.new_state, "a failed Disable leaves the interface up");
    }
}

#[test]
fn scenario_requests_go_to_the_library() {
    let mut bench = Bench::warm();
    let (reply, mut answer) = Reply::channel();
    let request = Request::Scenario(ScenarioRequest::List, reply);
    let effects = bench.step(Input::Request(request));
    let [Effect::Scenario(ScenarioRequest::List, _)] = &effects[..] else {
        panic!("{effects:?}")
    };
    answer.try_recv().unwrap_err();
}

fn library(ids: &[&str]) -> Input {
    let preset = |id: &&str| CustomPreset {
        id: (*id).to_owned(),
        name: String::new(),
        description: String::new(),
        config: TcNetemConfig::default(),
    };
    Input::Library(Arc::new(Library {
        presets: ids.iter().map(preset).collect(),
        ..Library::default()
    }))
}

#[test]
fn other_publications_do_not_delay_the_list() {
    let mut bench = Bench::warm();
    bench.step(links(NetnsKey::Host, &[link(1, "lo", false)]));
    let mut waited = Duration::ZERO;
    for id in ["a", "b"].into_iter().cycle() {
        let publication = bench.publication(library(&[id]));
        if publication.list.is_some() || bench.step(Input::Published(COST)).iter().any(is_list) {
            break;
        }
        waited += COST;
        bench.wait(COST);
        assert!(waited < COST * 11, "ten times what the last list cost");
    }
}

#[test]
fn presets_follow_the_first_list_and_every_change() {
    let ids = |publication: Publication| {
        let presets = publication.presets.map(|list| list.presets);
        let id = |preset: CustomPreset| preset.id;
        presets.map(|presets| presets.into_iter().map(id).collect::<Vec<_>>())
    };
    let mut bench = Bench::cold(&[]);
    assert!(
        bench.step(library(&["a"])).is_empty(),
        "not before the list"
    );
    let first = bench.publication(links(NetnsKey::Host, &[link(1, "lo", false)]));
    assert!(first.list.is_some());
    assert_eq!(ids(first), Some(vec!["a".to_owned()]));
    assert!(
        bench.step(library(&["a", "b"])).is_empty(),
        "one publication at a time"
    );
    let second = bench.publication(Input::Published(COST));
    assert!(second.list.is_none() && second.health.is_none());
    assert_eq!(ids(second), Some(vec!["a".to_owned(), "b".to_owned()]));
    bench.published();
    assert!(bench.step(library(&["a", "b"])).is_empty(), "nothing new");
}

#[test]
fn a_check_is_ordered_for_the_interface_that_the_client_named() {
    let mut bench = Bench::warm();
    let mut ask = |interface: &str| {
        let (reply, answer) = Reply::channel();
        let request = DiagnosticsRequest {
            namespace: "default".to_owned(),
            interface: interface.to_owned(),
            target: Some("192.0.2.1".to_owned()),
            timeout_ms: 5000,
        };
        let effects = bench.step(Input::Request(Request::Diagnostics(request, reply)));
        (effects, answer)
    };
    let (effects, _answer) = ask("v0");
    let [Effect::Diagnose(order, _)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((order.place.key, order.ifindex), (NetnsKey::Host, 2));
    assert_eq!(order.target.as_deref(), Some("192.0.2.1"));
    let (effects, mut answer) = ask("v9");
    assert!(effects.is_empty(), "{effects:?}");
    let answer = answer.try_recv().unwrap();
    assert_eq!(answer.error_kind, Some(ErrorKind::NotFound));
}

#[test]
fn an_explain_request_is_passed_on_with_the_known_facts() {
    let mut bench = Bench::cold(&[("lab", A)]);
    let mut ask = |name: &str| {
        let (reply, answer) = Reply::channel();
        let request = ExplainRequest {
            namespace: name.to_owned(),
        };
        let effects = bench.step(Input::Request(Request::Explain(request, reply)));
        (effects, answer)
    };
    let (effects, _answer) = ask("lab");
    let [Effect::Explain(question, _)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(question.name, NamespaceName::named("lab").unwrap());
    assert_eq!(question.known.key, Some(NetnsKey::Mounted(A)));

    let (effects, mut answer) = ask("a/b");
    assert!(effects.is_empty(), "{effects:?}");
    let answer = answer.try_recv().expect("answered at once");
    assert!(
        answer.success && answer.message.contains("contains '/'"),
        "{answer:?}"
    );
}
