//! Tests of claims: executions of scenarios and client requests for the same interface.

use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::netem::{FlatNetem, TcNetemConfig};
use tcgui_shared::scenario::{
    ErrorCategory, ExecutionTarget, ScenarioExecutionRequest, ScenarioExecutionResponse,
};
use tcgui_shared::tc::{TcOperation, TcResponse};

use super::*;
use crate::backend::state::executions::Asked;
use crate::execution::{Action, Claim, Command, InterfaceKey, InterfaceNames, Loss, Target};
use crate::kernel::netem::Netem;
use crate::kernel::netns::ProcessNetnsId;
use crate::lease::Owner;
use crate::netns_holders::{Holder, HolderKind};
use crate::tc::perform::Outcome;
use crate::tc::plan::Plan;

const V0: (NetnsKey, u32) = (NetnsKey::Host, 2);

type Answer = tokio::sync::oneshot::Receiver<TcResponse>;

pub(super) fn claim(number: u64, netns: NetnsKey) -> Claim {
    Claim {
        number,
        scenario: "blip".into(),
        target: Target {
            key: InterfaceKey { netns, ifindex: 2 },
            names: InterfaceNames {
                netns: NamespaceName::host(),
                interface: InterfaceName::new("v0").unwrap(),
            },
        },
    }
}

fn apply() -> TcOperation {
    TcOperation::Apply(FlatNetem {
        delay_ms: Some(5.0),
        ..FlatNetem::default()
    })
}

pub(super) fn step() -> Asked {
    Asked::Change(Box::new(TcOperation::ApplyConfig {
        config: TcNetemConfig::default(),
    }))
}

impl Bench {
    pub(super) fn call(&mut self, claim: &Claim, asked: Asked) -> (Vec<Effect>, Answer) {
        let (reply, answer) = Reply::channel();
        let call = TcCall {
            claim: claim.clone(),
            asked,
            reply,
        };
        (self.step(Input::TcCall(Box::new(call))), answer)
    }

    /// Returns a state in which an execution has claimed v0, which has a netem.
    pub(super) fn claimed(claim: &Claim) -> Self {
        let mut bench = Self::warm();
        let (effects, mut answer) = bench.call(claim, Asked::Look);
        let change = Self::begun(effects);
        assert_eq!(change.order.work, TcWork::Look);
        bench.done(change, Some(Netem::default()));
        // The reply precedes the publication: a slow client of the bus does not delay an execution.
        assert!(answer.try_recv().unwrap().applied_config.is_some());
        bench.step(Input::Published(COST));
        bench
    }

    pub(super) fn execution(
        &mut self,
        request: ScenarioExecutionRequest,
    ) -> (
        Vec<Effect>,
        tokio::sync::oneshot::Receiver<ScenarioExecutionResponse>,
    ) {
        let (reply, answer) = Reply::channel();
        let effects = self.step(Input::Request(Request::Execution(request, reply)));
        (effects, answer)
    }
}

pub(super) fn start(netns: &str, interface: &str) -> ScenarioExecutionRequest {
    ScenarioExecutionRequest::Start {
        scenario_id: "blip".to_owned(),
        namespace: netns.to_owned(),
        interface: interface.to_owned(),
        loop_execution: None,
    }
}

pub(super) fn is_lost(effect: &Effect, loss: Loss) -> bool {
    matches!(
        effect,
        Effect::Execution(Command::Lost { number: 1, loss: it, .. }) if *it == loss
    )
}

#[test]
fn a_scenario_starts_only_on_an_interface_that_exists() {
    let mut bench = Bench::warm();
    let (mut effects, _answer) = bench.execution(start("default", "v0"));
    match effects.pop() {
        Some(Effect::Execution(Command::Start(start))) => {
            assert_eq!(start.target, claim(1, NetnsKey::Host).target);
        }
        other => panic!("{other:?}"),
    }
    for (netns, interface, category) in [
        ("nowhere", "v0", ErrorCategory::Permanent),
        ("default", "v9", ErrorCategory::Permanent),
        ("../etc", "v0", ErrorCategory::Validation),
    ] {
        let (effects, mut answer) = bench.execution(start(netns, interface));
        assert!(effects.is_empty(), "{effects:?}");
        match answer.try_recv().unwrap() {
            ScenarioExecutionResponse::Error { error } => assert_eq!(error.category, category),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn requests_about_an_execution_are_passed_on_even_if_its_interface_is_gone() {
    let mut bench = Bench::warm();
    for (interface, known) in [("v0", true), ("v9", false)] {
        let target = ExecutionTarget {
            namespace: "default".to_owned(),
            interface: interface.to_owned(),
        };
        let (effects, _answer) = bench.execution(ScenarioExecutionRequest::Stop(target));
        match &effects[..] {
            [Effect::Execution(Command::On { key, action, .. })] => {
                assert_eq!((key.is_some(), *action), (known, Action::Stop));
            }
            other => panic!("{other:?}"),
        }
    }
    let target = ExecutionTarget {
        namespace: "default".to_owned(),
        interface: "a/b".to_owned(),
    };
    let (effects, mut answer) = bench.execution(ScenarioExecutionRequest::Pause(target));
    assert!(effects.is_empty(), "{effects:?}");
    answer.try_recv().unwrap();
}

#[test]
fn the_first_look_of_an_execution_waits_for_earlier_requests() {
    let mut bench = Bench::warm();
    let (effects, _first) = bench.tc("default", apply());
    let first = Bench::begun(effects);
    let (_, _second) = bench.tc("default", TcOperation::Remove);
    let (effects, mut answer) = bench.call(&claim(1, NetnsKey::Host), Asked::Look);
    assert!(effects.is_empty(), "{effects:?}");
    let mut effects = bench.done(first, Some(Netem::default()));
    let changes = |effect: &Effect| matches!(effect, Effect::ChangeTc(_));
    effects.retain(changes);
    let second = Bench::begun(effects);
    let TcWork::Change { operation, .. } = &second.order.work else {
        panic!("{second:?}")
    };
    assert_eq!(**operation, TcOperation::Remove);
    let mut effects = bench.done(second, None);
    effects.retain(changes);
    let look = Bench::begun(effects);
    assert_eq!(look.order.work, TcWork::Look);
    bench.done(look, None);
    assert!(answer.try_recv().unwrap().applied_config.is_none());
}

#[test]
fn a_change_by_a_client_stops_the_execution_and_reports_it() {
    let mine = claim(1, NetnsKey::Host);
    let mut bench = Bench::claimed(&mine);
    let (mut effects, _answer) = bench.tc("default", apply());
    assert!(is_lost(&effects.remove(0), Loss::TakenOver), "{effects:?}");
    let change = Bench::begun(effects);
    // A call that the execution sent before it learnt of the loss is not carried out.
    let (effects, mut answer) = bench.call(&mine, step());
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(answer.try_recv().unwrap().error_kind, Some(ErrorKind::Busy));
    let effects = bench.done(change, Some(Netem::default()));
    let Some(Effect::Publish(publication)) = effects.last() else {
        panic!("{effects:?}")
    };
    let message = &publication.answers[0].1.message;
    assert!(
        message.contains("\"blip\"") && message.contains("stopped"),
        "{message}"
    );
    bench.step(Input::Published(COST));
    // An invalid request ends no execution.
    let mut bench = Bench::claimed(&mine);
    let wrong = TcOperation::Apply(FlatNetem {
        loss: 101.0,
        ..FlatNetem::default()
    });
    let (effects, _answer) = bench.tc("default", wrong);
    assert!(effects.is_empty(), "{effects:?}");
    let (effects, _answer) = bench.call(&mine, step());
    Bench::begun(effects);
}

#[test]
fn a_change_after_a_start_request_is_not_overwritten_by_the_scenario() {
    let mine = claim(1, NetnsKey::Host);
    let mut bench = Bench::warm();
    let (effects, _started) = bench.execution(start("default", "v0"));
    assert!(matches!(
        &effects[..],
        [Effect::Execution(Command::Start(_))]
    ));
    // The first look of the execution comes after the change.
    let (effects, _answer) = bench.tc("default", apply());
    let change = Bench::begun(effects);
    let (effects, mut answer) = bench.call(&mine, Asked::Look);
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(answer.try_recv().unwrap().error_kind, Some(ErrorKind::Busy));
    bench.done(change, Some(Netem::default()));
    bench.step(Input::Published(COST));
    // The change does not affect the next start.
    drop(bench.execution(start("default", "v0")));
    let (effects, _answer) = bench.call(&claim(2, NetnsKey::Host), Asked::Look);
    assert_eq!(Bench::begun(effects).order.work, TcWork::Look);
}

#[test]
fn a_released_interface_can_be_claimed_again() {
    let mine = claim(1, NetnsKey::Host);
    let mut bench = Bench::claimed(&mine);
    bench.call(&claim(7, NetnsKey::Host), Asked::Release { owed: false });
    let (effects, _answer) = bench.call(&mine, step());
    let change = Bench::begun(effects);
    bench.done(change, None);
    bench.step(Input::Published(COST));
    bench.call(&mine, Asked::Release { owed: false });
    let (effects, mut answer) = bench.call(&mine, step());
    assert!(effects.is_empty(), "{effects:?}");
    assert!(!answer.try_recv().unwrap().success);
    let (effects, _answer) = bench.tc("default", apply());
    Bench::begun(effects);
}

#[test]
fn an_execution_loses_its_deleted_interface() {
    let mine = claim(1, NetnsKey::Host);
    let mut bench = Bench::claimed(&mine);
    let effects = bench.step(links(NetnsKey::Host, &[link(1, "lo", false)]));
    assert!(is_lost(&effects[0], Loss::Gone), "{effects:?}");
    // A new interface with the same name is another interface.
    bench.step(links(NetnsKey::Host, &[link(3, "v0", false)]));
    let (_, mut answer) = bench.call(&mine, step());
    assert!(!answer.try_recv().unwrap().success);
    let (_, mut answer) = bench.call(&mine, Asked::Look);
    assert_eq!(
        answer.try_recv().unwrap().error_kind,
        Some(ErrorKind::NotFound)
    );
}

#[test]
fn a_claim_stays_while_any_reference_to_the_namespace_exists() {
    let web = ProcessNetnsId::from_parts(4, A.inode(), 20, 5);
    let key = NetnsKey::Held(web);
    let kind = HolderKind::Process(std::ffi::OsStr::new("sleep").into());
    let mut bench = Bench::warm();
    let holder = Holder { id: web, kind };
    bench.step(Input::Held(
        HolderSource::Processes,
        HeldEvent::Added(holder),
    ));
    bench.step(links(key, &[link(2, "v0", false)]));
    let (effects, _answer) = bench.call(&claim(1, key), Asked::Look);
    let is_look = |effect: &Effect| matches!(effect, Effect::ChangeTc(_));
    assert!(effects.iter().any(is_look), "{effects:?}");
    let removed = || Input::Held(HolderSource::Processes, HeldEvent::Removed(web));
    for step in [added("a", A), removed()] {
        let effects = bench.step(step);
        assert!(
            !effects.iter().any(|it| is_lost(it, Loss::Gone)),
            "{effects:?}"
        );
    }
    let effects = bench.step(Input::Namespace(NamespaceEvent::Removed {
        name: "a".into(),
        id: A,
    }));
    assert!(
        effects.iter().any(|it| is_lost(it, Loss::Gone)),
        "{effects:?}"
    );
}

#[test]
fn an_execution_loses_its_interface_with_the_namespace() {
    let key = NetnsKey::Mounted(A);
    let mut bench = Bench::warm();
    bench.step(added("a", A));
    bench.step(links(key, &[link(2, "v0", false)]));
    let (effects, _answer) = bench.call(&claim(1, key), Asked::Look);
    let is_look = |effect: &Effect| matches!(effect, Effect::ChangeTc(_));
    assert!(effects.iter().any(is_look), "{effects:?}");
    let effects = bench.step(Input::Namespace(NamespaceEvent::Removed {
        name: "a".into(),
        id: A,
    }));
    assert!(
        effects.iter().any(|it| is_lost(it, Loss::Gone)),
        "{effects:?}"
    );
}

#[test]
fn a_scenario_begins_over_the_reference_that_the_client_named() {
    let id = ProcessNetnsId::from_parts(4, 1, 20, 5);
    let kind = HolderKind::Process(std::ffi::OsStr::new("sh").into());
    let mut bench = Bench::warm();
    let holder = Holder { id, kind };
    bench.step(Input::Held(
        HolderSource::Processes,
        HeldEvent::Added(holder),
    ));
    let key = NetnsKey::Held(id);
    bench.step(links(key, &[link(2, "v0", true)]));
    bench.step(Input::Published(COST));
    let mut claim = claim(1, key);
    claim.target.names.netns = NamespaceName::from_wire("pid:20(sh)").unwrap();
    for (asked, named) in [(Asked::Look, Some(NetnsRef::Process(id))), (step(), None)] {
        let (effects, _answer) = bench.call(&claim, asked);
        let change = Bench::begun(effects);
        assert_eq!(change.order.place.named, named);
        bench.done(change, None);
        bench.step(Input::Published(COST));
    }
}

fn scenario_lease(bench: &Bench) -> Lease {
    let owner = Owner::Scenario {
        id: "blip #1".to_owned(),
    };
    assert!(bench.state.ledger.is_empty());
    leases::lease(owner, None)
}

fn only_work(mut effects: Vec<Effect>) -> Box<PendingTcChange> {
    effects.retain(|effect| matches!(effect, Effect::ChangeTc(_)));
    Bench::begun(effects)
}

/// Ends the work with this lease.
fn done_under(
    bench: &mut Bench,
    change: Box<PendingTcChange>,
    lease: Option<Lease>,
    outcome: Result<(), ErrorKind>,
) -> Vec<Effect> {
    let read_back = |()| Outcome {
        plan: Plan::Nothing,
        observed: leases::observed_netem(Some(Netem::default())),
        notes: Vec::new(),
    };
    let outcome = outcome.map(read_back);
    let outcome = outcome.map_err(|kind| (kind, "no space left on device".to_owned()));
    let result = TcResult {
        lease,
        done_at: bench.moment.now,
        outcome,
    };
    bench.step(Input::TcChanged(Box::new(TcOutcome { change, result })))
}

/// Returns a state in which a scenario has changed v0 under a lease.
fn stepped(mine: &Claim) -> (Bench, Lease) {
    let mut bench = Bench::claimed(mine);
    let lease = scenario_lease(&bench);
    let change = only_work(bench.call(mine, step()).0);
    done_under(&mut bench, change, Some(lease.clone()), Ok(()));
    bench.step(Input::Published(COST));
    (bench, lease)
}

#[test]
fn a_scenario_is_restored_if_the_change_that_stopped_it_fails() {
    let mine = claim(1, NetnsKey::Host);
    for releases_early in [true, false] {
        let (mut bench, lease) = stepped(&mine);
        let (effects, _answer) = bench.tc("default", apply());
        let change = only_work(effects);
        let release = |bench: &mut Bench| bench.call(&mine, Asked::Release { owed: false }).0;
        if releases_early {
            release(&mut bench);
        }
        let failed = Err(ErrorKind::Internal);
        let mut effects = done_under(&mut bench, change, Some(lease.clone()), failed);
        if !releases_early {
            let restoration = only_work(effects);
            assert_eq!(restoration.order.work, TcWork::Restore);
            effects = release(&mut bench);
            assert!(effects.is_empty(), "{effects:?}");
            effects.push(Effect::ChangeTc(restoration));
        }
        let restoration = only_work(effects);
        assert_eq!(restoration.order.work, TcWork::Restore);
        assert_eq!(restoration.order.held, Some(lease));
        done_under(&mut bench, restoration, None, Ok(()));
        assert!(bench.state.ledger.is_empty());
    }
}

#[test]
fn a_stop_restores_what_the_lease_recorded() {
    let mine = claim(1, NetnsKey::Host);
    let (mut bench, lease) = stepped(&mine);
    let (effects, mut answer) = bench.call(&mine, Asked::Restore);
    let restoration = only_work(effects);
    assert_eq!(restoration.order.work, TcWork::Restore);
    assert_eq!(restoration.order.held, Some(lease));
    answer.try_recv().unwrap_err();
    done_under(&mut bench, restoration, None, Ok(()));
    assert!(answer.try_recv().unwrap().success);
    assert!(bench.state.ledger.is_empty());
}

#[test]
fn a_restoration_waits_for_the_step_under_way() {
    let mine = claim(1, NetnsKey::Host);
    let mut bench = Bench::claimed(&mine);
    let lease = scenario_lease(&bench);
    let change = only_work(bench.call(&mine, step()).0);
    let (effects, mut answer) = bench.call(&mine, Asked::Restore);
    assert!(!leases::begins(&effects), "{effects:?}");
    let effects = done_under(&mut bench, change, Some(lease.clone()), Ok(()));
    let restoration = only_work(effects);
    assert_eq!(restoration.order.held, Some(lease));
    // A failure is reported, and the restoration is tried again later.
    let held = restoration.order.held.clone();
    done_under(&mut bench, restoration, held, Err(ErrorKind::Internal));
    assert!(!answer.try_recv().unwrap().success);
    bench.step(Input::Published(COST));
    bench.wait(Duration::from_secs(60));
    let again = only_work(bench.step(Input::Timer));
    assert_eq!(again.order.work, TcWork::Restore);
}

#[test]
fn a_restoration_without_a_lease_is_answered() {
    let mine = claim(1, NetnsKey::Host);
    let mut bench = Bench::claimed(&mine);
    let (effects, mut answer) = bench.call(&mine, Asked::Restore);
    assert!(!leases::begins(&effects), "{effects:?}");
    assert!(answer.try_recv().unwrap().success);
}

#[test]
fn a_failed_change_ends_only_the_lease_of_a_scenario() {
    let mut bench = Bench::claimed(&claim(1, NetnsKey::Host));
    let (effects, _answer) = bench.tc("default", apply());
    let change = only_work(effects);
    let plain = leases::lease(Owner::Plain, Some(bench.moment.boot.plus(COST * 1000)));
    let effects = done_under(&mut bench, change, Some(plain), Err(ErrorKind::Internal));
    let begins = |effect: &Effect| matches!(effect, Effect::ChangeTc(_));
    assert!(!effects.iter().any(begins), "{effects:?}");
}

#[test]
fn a_scenario_is_restored_when_its_namespace_reappears() {
    let key = NetnsKey::Mounted(A);
    let mine = claim(1, key);
    // The namespace disappears while the lease is in force, or while the step that records it is under way. The restorations
    // before the release of the namespace fail.
    for is_under_way in [false, true] {
        let mut bench = Bench::warm();
        bench.step(added("a", A));
        bench.step(links(key, &[link(2, "v0", false)]));
        bench.step(Input::Published(COST));
        let look = only_work(bench.call(&mine, Asked::Look).0);
        done_under(&mut bench, look, None, Ok(()));
        bench.step(Input::Published(COST));
        let lease = scenario_lease(&bench);
        let mut change = Some(only_work(bench.call(&mine, step()).0));
        let mut finish = |bench: &mut Bench| {
            let change = change.take()?;
            let effects = done_under(bench, change, Some(lease.clone()), Ok(()));
            bench.step(Input::Published(COST));
            Some(effects)
        };
        if !is_under_way {
            finish(&mut bench);
        }
        let gone = NamespaceEvent::Removed {
            name: "a".into(),
            id: A,
        };
        let mut effects = bench.step(Input::Namespace(gone));
        assert!(
            effects.iter().any(|it| is_lost(it, Loss::Gone)),
            "{effects:?}"
        );
        bench.step(Input::Published(COST));
        let (released, _answer) = bench.call(&mine, Asked::Release { owed: false });
        assert!(released.is_empty(), "{released:?}");
        if let Some(finished) = finish(&mut bench) {
            effects = finished;
        }
        for _ in 0..2 {
            let restoration = only_work(effects);
            assert_eq!(restoration.order.work, TcWork::Restore);
            let held = restoration.order.held.clone();
            done_under(&mut bench, restoration, held, Err(ErrorKind::NotFound));
            bench.wait(Duration::from_secs(5));
            effects = bench.step(Input::Timer);
        }
        assert!(!leases::begins(&effects), "{effects:?}");
        bench.step(added("a", A));
        let effects = bench.step(links(key, &[link(2, "v0", true)]));
        let restoration = only_work(effects);
        assert_eq!(restoration.order.work, TcWork::Restore);
        assert!(restoration.order.held.is_some());
    }
}

#[test]
fn starts_on_a_blocked_interface_are_refused_when_its_lane_is_full() {
    let mut bench = Bench::claimed(&claim(1, NetnsKey::Host));
    let _hangs = only_work(bench.call(&claim(1, NetnsKey::Host), step()).0);
    let mut refused = 0;
    let mut answers = Vec::new();
    for number in 2..200 {
        let other = claim(number, NetnsKey::Host);
        let (effects, mut answer) = bench.call(&other, Asked::Look);
        assert!(effects.is_empty(), "{effects:?}");
        if let Ok(response) = answer.try_recv() {
            assert_eq!(response.error_kind, Some(ErrorKind::Busy));
            assert!(response.message.contains("too many requests"));
            refused += 1;
        }
        answers.push(answer);
        // The execution ends.
        bench.call(&other, Asked::Release { owed: false });
    }
    assert_eq!(refused, 198 - 32);
    // The release of the execution whose step is under way is added.
    bench.call(&claim(1, NetnsKey::Host), Asked::Release { owed: false });
    assert_eq!(bench.state.lanes.waiting(V0), 33);
}

#[test]
fn shutdown_waits_for_a_restoration_that_has_not_begun() {
    let mine = claim(1, NetnsKey::Host);
    let (mut bench, _lease) = stepped(&mine);
    assert!(!bench.state.has_restorations());
    let (effects, _answer) = bench.request("default", "v0");
    assert!(matches!(&effects[..], [Effect::ChangeLink(_)]));
    assert!(bench.state.stop(bench.moment).is_empty());
    assert!(bench.state.has_restorations());
}
