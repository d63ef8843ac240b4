//! Tests of changes that the operator forbids: no work begins, the response names the option, and the state in force is published.

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::netem::FlatNetem;
use tcgui_shared::scenario::{ErrorCategory, ExecutionTarget, ScenarioExecutionRequest};
use tcgui_shared::tc::{TcOperation, TcResponse};

use super::*;
use crate::bus::Request;
use crate::execution::{Claim, InterfaceKey, InterfaceNames, Target};
use crate::kernel::netem::Netem;
use crate::lease::Owner;
use crate::policy::{Permit, Policy};

const OWN: MountedNamespaceId = MountedNamespaceId::from_parts(4, OWN_INODE, 1, 1);

fn policy(read_only: bool, allow: &[&str], protect: &[&str]) -> Policy {
    let allow = allow.iter().map(|it| it.parse().unwrap()).collect();
    let protect = protect.iter().map(|it| it.parse().unwrap()).collect();
    Policy::new(read_only, allow, protect)
}

fn delay() -> TcOperation {
    TcOperation::Apply(FlatNetem {
        delay_ms: Some(5.0),
        ..FlatNetem::default()
    })
}

impl Bench {
    /// As [`Self::warm`], with a real loopback interface and a policy.
    fn guarded(policy: Policy) -> Self {
        let mut bench = Self::warm();
        bench.state.identity.options.policy = policy;
        let lo = Link {
            loopback: true,
            ..link(1, "lo", false)
        };
        bench.step(links(NetnsKey::Host, &[lo, link(2, "v0", false)]));
        bench.wait(Duration::from_secs(1));
        bench.step(Input::Timer);
        bench.all_published_now();
        bench
    }

    fn all_published_now(&mut self) {
        while self.state.publishing {
            self.step(Input::Published(COST));
        }
        self.wait(Duration::from_secs(1));
    }

    fn switch(
        &mut self,
        netns: &str,
        interface: &str,
        operation: InterfaceControlOperation,
    ) -> (Vec<Effect>, Option<InterfaceControlResponse>) {
        let (reply, mut answer) = Reply::channel();
        let request = InterfaceControlRequest {
            namespace: netns.to_owned(),
            interface: interface.to_owned(),
            operation,
        };
        let effects = self.step(Input::Request(Request::Interface(request, reply)));
        (effects, answer.try_recv().ok())
    }
}

fn only_publication(mut effects: Vec<Effect>) -> Publication {
    match (effects.pop(), effects.pop()) {
        (Some(Effect::Publish(publication)), None) => publication,
        other => panic!("more or less than a publication: {other:?}"),
    }
}

/// Returns the only published configuration: whether there is a netem, and whether later clients get it.
fn republished(publication: &Publication) -> (bool, bool) {
    let [tc] = &publication.tc[..] else {
        panic!("{:?}", publication.tc)
    };
    assert_eq!(tc.interface.to_wire(), "v0");
    (tc.update.as_ref().unwrap().has_tc, tc.is_kept)
}

#[test]
fn a_refused_impairment_publishes_the_state_in_force() {
    let mut bench = Bench::guarded(policy(false, &[], &["default/v*"]));
    for operation in [delay(), TcOperation::Remove, TcOperation::Confirm] {
        let (effects, mut answer) = bench.tc("default", operation);
        let response = answer.try_recv().unwrap();
        assert_eq!(response.error_kind, Some(ErrorKind::Denied));
        assert!(response.message.contains("--protect default/v*"));
        // The interface never had a netem, so it has no publisher.
        assert_eq!(republished(&only_publication(effects)), (false, false));
        bench.all_published_now();
    }
    // The netem of another program is published as it is.
    let netem = Some(Netem::default());
    let impaired = Link {
        netem,
        ..link(2, "v0", true)
    };
    bench.step(links(NetnsKey::Host, &[link(1, "lo", false), impaired]));
    bench.all_published_now();
    bench.step(Input::Timer);
    bench.all_published_now();
    let (effects, _answer) = bench.tc("default", delay());
    assert_eq!(republished(&only_publication(effects)), (true, true));
}

#[test]
fn refusals_during_a_publication_are_published_together_after_it() {
    let mut bench = Bench::guarded(policy(false, &["lab/*"], &[]));
    let first = bench.tc("default", delay());
    only_publication(first.0);
    for _ in 0..100 {
        let (effects, mut answer) = bench.tc("default", delay());
        assert!(effects.is_empty(), "{effects:?}");
        assert!(answer.try_recv().unwrap().message.contains("--allow lab/*"));
    }
    let effects = bench.step(Input::Published(COST));
    assert_eq!(republished(&only_publication(effects)), (false, false));
    bench.published();
}

#[test]
fn a_refused_switch_publishes_the_list_again() {
    let mut bench = Bench::guarded(policy(true, &[], &[]));
    for operation in [
        InterfaceControlOperation::Enable,
        InterfaceControlOperation::Disable,
    ] {
        let (effects, answer) = bench.switch("default", "v0", operation);
        let answer = answer.expect("answered at once");
        assert_eq!(answer.error_kind, Some(ErrorKind::Denied));
        assert!(answer.message.contains("--read-only"), "{answer:?}");
        let publication = only_publication(effects);
        assert_eq!(listed(&publication), ["default"]);
        bench.all_published_now();
    }
}

#[test]
fn the_links_through_which_the_host_is_reached_cannot_be_disabled() {
    let mut bench = Bench::guarded(Policy::default());
    let down = InterfaceControlOperation::Disable;
    let (effects, answer) = bench.switch("default", "lo", down);
    let answer = answer.expect("answered at once");
    assert_eq!(answer.error_kind, Some(ErrorKind::Denied));
    assert!(answer.message.contains("--protect none"), "{answer:?}");
    assert!(answer.new_state, "it stays up");
    only_publication(effects);
    bench.all_published_now();
    // The same under another name of the host's namespace.
    bench.step(added("root", OWN));
    bench.all_published_now();
    let (_, answer) = bench.switch("root", "lo", down);
    assert_eq!(answer.unwrap().error_kind, Some(ErrorKind::Denied));
    bench.all_published_now();

    let permit = |effects: Vec<Effect>| match &effects[..] {
        [Effect::ChangeLink(change)] => change.order.permit,
        other => panic!("{other:?}"),
    };
    let (effects, _) = bench.switch("default", "v0", down);
    assert_eq!(permit(effects), Permit::UnlessDefaultRoute);
    let mut bench = Bench::guarded(policy(false, &[], &["none"]));
    let (effects, _) = bench.switch("default", "lo", down);
    assert_eq!(permit(effects), Permit::Always);
}

#[test]
fn a_request_under_an_alias_is_refused_like_one_under_the_name() {
    let mut bench = Bench::guarded(policy(false, &[], &["default/*"]));
    bench.step(added("root", OWN));
    bench.all_published_now();
    let (_, mut answer) = bench.tc("root", delay());
    assert_eq!(
        answer.try_recv().unwrap().error_kind,
        Some(ErrorKind::Denied)
    );
}

#[test]
fn read_only_refuses_changes_and_permits_reads() {
    let at = || ExecutionTarget {
        namespace: "default".to_owned(),
        interface: "v0".to_owned(),
    };
    let start = || ScenarioExecutionRequest::Start {
        scenario_id: "blip".to_owned(),
        namespace: "default".to_owned(),
        interface: "v0".to_owned(),
        loop_execution: None,
    };
    let category = |bench: &mut Bench, request| {
        let (reply, mut answer) = Reply::channel();
        let effects = bench.step(Input::Request(Request::Execution(request, reply)));
        match answer.try_recv() {
            Ok(tcgui_shared::scenario::ScenarioExecutionResponse::Error { error }) => {
                assert!(effects.is_empty(), "{effects:?}");
                Some(error.category)
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        }
    };
    let denied = Some(ErrorCategory::Permission);
    let mut bench = Bench::guarded(policy(true, &[], &[]));
    for request in [
        start(),
        ScenarioExecutionRequest::Stop(at()),
        ScenarioExecutionRequest::Pause(at()),
        ScenarioExecutionRequest::Resume(at()),
    ] {
        assert_eq!(category(&mut bench, request), denied);
    }
    for request in [
        ScenarioExecutionRequest::Status(at()),
        ScenarioExecutionRequest::ListActive,
    ] {
        assert_eq!(category(&mut bench, request), None);
    }
    for (request, is_refused) in [
        (ScenarioRequest::List, false),
        (ScenarioRequest::Get { id: "x".to_owned() }, false),
        (ScenarioRequest::Remove { id: "x".to_owned() }, true),
    ] {
        let (reply, mut answer) = Reply::channel();
        let effects = bench.step(Input::Request(Request::Scenario(request, reply)));
        assert_eq!(answer.try_recv().is_ok(), is_refused, "{effects:?}");
        assert_eq!(effects.is_empty(), is_refused, "{effects:?}");
    }
    // No scenario starts on a protected interface. Scenarios on other interfaces can be stopped.
    let mut bench = Bench::guarded(policy(false, &[], &["default/v0"]));
    assert_eq!(category(&mut bench, start()), denied);
    assert_eq!(
        category(&mut bench, ScenarioExecutionRequest::Stop(at())),
        None
    );
}

#[test]
fn steps_are_checked_by_the_policy_and_restorations_are_not() {
    let mut bench = Bench::guarded(policy(false, &[], &["default/v0"]));
    let claim = Claim {
        number: 1,
        scenario: "blip".into(),
        target: Target {
            key: InterfaceKey {
                netns: NetnsKey::Host,
                ifindex: 2,
            },
            names: InterfaceNames {
                netns: NamespaceName::host(),
                interface: InterfaceName::new("v0").unwrap(),
            },
        },
    };
    let call = |bench: &mut Bench, asked| -> (Vec<Effect>, Option<TcResponse>) {
        let (reply, mut answer) = Reply::channel();
        let claim = claim.clone();
        let call = TcCall {
            claim,
            asked,
            reply,
        };
        let effects = bench.step(Input::TcCall(Box::new(call)));
        (effects, answer.try_recv().ok())
    };
    let denied = |answer: Option<TcResponse>| answer.and_then(|it| it.error_kind);
    let (effects, answer) = call(&mut bench, super::super::Asked::Look);
    assert_eq!(denied(answer), Some(ErrorKind::Denied));
    assert!(effects.is_empty(), "{effects:?}");

    // The namespace or interface was renamed while the scenario ran.
    bench.state.identity.options.policy = Policy::default();
    let (mut effects, _) = call(&mut bench, super::super::Asked::Look);
    let Some(Effect::ChangeTc(change)) = effects.pop() else {
        panic!("{effects:?}")
    };
    bench.done(change, None);
    bench.all_published_now();
    bench.state.identity.options.policy = policy(false, &[], &["default/v0"]);
    let step = || super::super::Asked::Change(Box::new(delay()));
    let (effects, answer) = call(&mut bench, step());
    assert_eq!(denied(answer), Some(ErrorKind::Denied));
    assert!(effects.is_empty(), "{effects:?}");
    let (_, answer) = call(&mut bench, super::super::Asked::Release { owed: true });
    assert!(answer.unwrap().success);
}

#[test]
fn a_lease_of_an_earlier_run_ends_under_stricter_options() {
    let mut bench = Bench::cold(&[]);
    bench.state.identity.options.policy = policy(true, &[], &["*/*"]);
    let now = bench.moment.boot;
    let lease = leases::lease(Owner::Plain, Some(now));
    bench.state.adopt(vec![((NetnsKey::Host, 2), lease)], now);
    let effects = bench.step(links(NetnsKey::Host, &[link(2, "v0", true)]));
    let is_restored = |effect: &Effect| match effect {
        Effect::ChangeTc(change) => change.order.work == TcWork::Restore,
        _ => false,
    };
    assert!(effects.iter().any(is_restored), "{effects:?}");
}

#[test]
fn refused_switches_repeat_the_list_once_a_second_and_the_last_one_counts() {
    let mut bench = Bench::guarded(policy(true, &[], &[]));
    let down = InterfaceControlOperation::Disable;
    let count = |effects: &[Effect]| {
        let is_list = |effect: &&Effect| matches!(effect, Effect::Publish(publication) if publication.list.is_some());
        effects.iter().filter(is_list).count()
    };
    let mut lists = 0;
    for _ in 0..30 {
        let (effects, answer) = bench.switch("default", "v0", down);
        assert_eq!(answer.unwrap().error_kind, Some(ErrorKind::Denied));
        lists += count(&effects);
        if bench.state.publishing {
            lists += count(&bench.step(Input::Published(COST)));
        }
        bench.wait(Duration::from_millis(100));
    }
    assert!(bench.state.wake_at().unwrap() <= bench.moment.now + Duration::from_secs(1));
    bench.wait(Duration::from_secs(1));
    lists += count(&bench.step(Input::Timer));
    // Lists at 0, 1 and 2 s, and one for the refusals since then.
    assert_eq!(lists, 4);
    bench.all_published_now();
    bench.wait(Duration::from_secs(5));
    lists += count(&bench.step(Input::Timer));
    assert_eq!(lists, 4);
}

#[test]
fn a_refused_switch_of_an_unknown_interface_publishes_nothing() {
    let mut bench = Bench::guarded(policy(true, &[], &[]));
    for (netns, interface) in [("nowhere", "v0"), ("default", "v9"), ("../x", "v0")] {
        let down = InterfaceControlOperation::Disable;
        let (effects, answer) = bench.switch(netns, interface, down);
        assert_eq!(answer.unwrap().error_kind, Some(ErrorKind::Denied));
        assert!(effects.is_empty(), "{effects:?}");
    }
}

#[test]
fn options_that_were_read_again_apply_to_the_next_request() {
    let mut bench = Bench::guarded(Policy::default());
    let (effects, _answer) = bench.switch("default", "v0", InterfaceControlOperation::Enable);
    assert!(effects.iter().any(|it| matches!(it, Effect::ChangeLink(_))));

    let mut bench = Bench::guarded(Policy::default());
    let options = Reloadable {
        policy: policy(true, &[], &[]),
        default_ttl: Some(Duration::from_secs(60)),
        keep_on_exit: true,
        ..bench.state.identity.options.clone()
    };
    assert!(!bench.state.keeps_on_exit());
    bench.step(Input::Options(options.clone()));
    assert!(bench.state.keeps_on_exit());
    let (_, answer) = bench.switch("default", "v0", InterfaceControlOperation::Enable);
    assert_eq!(answer.unwrap().error_kind, Some(ErrorKind::Denied));
    bench.all_published_now();

    let policy = Policy::default();
    bench.step(Input::Options(Reloadable { policy, ..options }));
    let (effects, _answer) = bench.tc("default", delay());
    let change = effects.into_iter().find_map(|effect| match effect {
        Effect::ChangeTc(change) => Some(change),
        _ => None,
    });
    let TcWork::Change { terms, .. } = change.unwrap().order.work else {
        panic!("no change");
    };
    assert_eq!(terms.ttl, Some(Duration::from_secs(60)));
}
