//! Tests of links that are renamed, or deleted and created again: executions, leases and publications follow the link.

use tcgui_shared::scenario::{ExecutionTarget, ScenarioExecutionRequest};

use super::executions::{claim, is_lost, step};
use super::leases::{begins, lease, observed_netem, outcome, request, work};
use super::*;
use crate::backend::state::executions::Asked;
use crate::execution::{Action, Claim, Command, InterfaceKey, Loss};
use crate::kernel::netem::Netem;
use crate::lease::Owner;
use crate::tc::perform::Outcome;
use crate::tc::plan::Plan;

const HOST: NetnsKey = NetnsKey::Host;
const V0: (NetnsKey, u32) = (HOST, 2);
const SECOND: Duration = Duration::from_secs(1);

fn delay(ms: u64) -> Netem {
    Netem {
        limit: 1000,
        latency_ns: ms * 1_000_000,
        ..Netem::default()
    }
}

/// Returns link 2 with a name and a generation, with a netem or without.
fn two(ifname: &str, generation: u64, netem: Option<Netem>) -> Link {
    Link {
        generation,
        netem,
        ..link(2, ifname, netem.is_some())
    }
}

fn seen(bench: &mut Bench, seen: &[Link]) -> Vec<Effect> {
    bench.wait(SECOND);
    let effects = bench.step(links(HOST, seen));
    bench.step(Input::Published(COST));
    effects
}

fn scenario(number: u64) -> Owner {
    let id = format!("blip #{number}");
    Owner::Scenario { id }
}

/// Returns the publications about traffic control: the interface, and whether there is a netem.
fn tc(effects: &[Effect]) -> Vec<(String, Option<bool>)> {
    let mut all = Vec::new();
    for effect in effects {
        if let Effect::Publish(publication) = effect {
            all.extend(publication.tc.iter().map(|it| {
                let has_tc = it.update.as_ref().map(|update| update.has_tc);
                (it.interface.to_wire(), has_tc)
            }));
        }
    }
    all
}

/// Returns a state in which an execution has claimed v0 and has made its first step under a lease.
fn running(mine: &Claim) -> Bench {
    let mut bench = Bench::claimed(mine);
    let (effects, _answer) = bench.call(mine, step());
    let change = work(effects);
    stepped(&mut bench, change);
    bench
}

/// Ends the step under way.
fn stepped(bench: &mut Bench, change: Box<PendingTcChange>) -> Vec<Effect> {
    let held = Lease {
        set: vec![Some(delay(5))],
        ..lease(scenario(1), None)
    };
    let outcome = Outcome {
        plan: Plan::Nothing,
        observed: observed_netem(Some(delay(5))),
        notes: Vec::new(),
    };
    let effects = bench.changed(change, Some(held), Ok((outcome, Instant::now())));
    bench.step(Input::Published(COST));
    effects
}

#[test]
fn an_execution_and_its_lease_follow_a_renamed_link() {
    let mine = claim(1, HOST);
    let mut bench = running(&mine);
    let effects = seen(
        &mut bench,
        &[two("z0", 0, Some(delay(5))), link(3, "v0", false)],
    );
    let renamed = effects.iter().any(|effect| match effect {
        Effect::Execution(Command::LinkRenamed { key, interface }) => {
            *key == mine.target.key && interface.to_wire() == "z0"
        }
        _ => false,
    });
    assert!(renamed, "{effects:?}");
    let written = effects.iter().any(|effect| match effect {
        Effect::AmendLease(lease) => lease.ifname == "z0",
        _ => false,
    });
    assert!(written, "{effects:?}");
    assert!(
        !effects.iter().any(|it| is_lost(it, Loss::Gone)),
        "{effects:?}"
    );
    assert_eq!(
        tc(&effects),
        [
            ("v0".to_owned(), Some(false)),
            ("z0".to_owned(), Some(true))
        ]
    );
    // A call of the execution is carried out, although it has the old name.
    let (effects, _answer) = bench.call(&mine, step());
    assert_eq!(work(effects).order.link.ifname, "z0");
    // Another link has the old name now.
    let target = ExecutionTarget {
        namespace: "default".to_owned(),
        interface: "v0".to_owned(),
    };
    let (effects, _answer) = bench.execution(ScenarioExecutionRequest::Stop(target));
    let [Effect::Execution(Command::On { key, action, .. })] = &effects[..] else {
        panic!("{effects:?}")
    };
    let other = InterfaceKey {
        netns: HOST,
        ifindex: 3,
    };
    assert_eq!((*key, *action), (Some(other), Action::Stop));
}

#[test]
fn the_publication_of_a_deleted_link_is_corrected_once_and_removed() {
    let mut bench = Bench::warm();
    seen(&mut bench, &[two("v0", 0, Some(delay(5)))]);
    let v0 = |has_tc| ("v0".to_owned(), has_tc);
    let effects = seen(&mut bench, &[]);
    assert_eq!(tc(&effects), [v0(Some(false)), v0(None)]);
    assert_eq!(tc(&seen(&mut bench, &[link(3, "v1", false)])), []);
    // The publication without a netem was already sent.
    seen(&mut bench, &[two("v0", 0, Some(delay(5)))]);
    assert_eq!(
        tc(&seen(&mut bench, &[two("v0", 0, None)])),
        [v0(Some(false))]
    );
    assert_eq!(tc(&seen(&mut bench, &[])), [v0(None)]);
}

#[test]
fn a_scenario_does_not_start_on_a_link_that_has_lost_the_name() {
    let mut bench = Bench::warm();
    seen(&mut bench, &[two("z0", 0, None)]);
    let (effects, mut answer) = bench.call(&claim(1, HOST), Asked::Look);
    assert!(!begins(&effects), "{effects:?}");
    let kind = answer.try_recv().unwrap().error_kind;
    assert_eq!(kind, Some(ErrorKind::NotFound));
}

#[test]
fn another_link_with_the_same_name_and_index_takes_over_no_execution_and_no_lease() {
    let mine = claim(1, HOST);
    let mut bench = running(&mine);
    let effects = seen(&mut bench, &[two("v0", 1, None)]);
    assert!(
        effects.iter().any(|it| is_lost(it, Loss::Gone)),
        "{effects:?}"
    );
    // A step may have changed the new link. Only its qdisc shows that.
    let change = work(effects);
    assert_eq!(change.order.work, TcWork::Restore);
    let held = change.order.held.as_ref().unwrap();
    assert_eq!(
        (&held.before.netem, &held.set[..]),
        (&None, &[Some(delay(5))][..])
    );
    bench.came_to(change, None, Ok((outcome(), Instant::now())));
    assert!(bench.state.ledger.is_empty());
    let (effects, mut answer) = bench.call(&mine, step());
    assert!(!begins(&effects) && !answer.try_recv().unwrap().success);
    // The release of the execution does not apply to the new link.
    let (effects, _answer) = bench.call(&mine, Asked::Release { owed: false });
    assert!(!begins(&effects), "{effects:?}");
}

#[test]
fn a_step_that_reached_another_link_is_restored() {
    let mine = claim(1, HOST);
    let mut bench = Bench::claimed(&mine);
    let (effects, _answer) = bench.call(&mine, step());
    let change = work(effects);
    // The link is created again while the worker carries out the step.
    let effects = seen(&mut bench, &[two("v0", 1, None)]);
    assert!(
        effects.iter().any(|it| is_lost(it, Loss::Gone)),
        "{effects:?}"
    );
    assert!(!begins(&effects));
    let (effects, _answer) = bench.call(&mine, Asked::Release { owed: false });
    assert!(!begins(&effects), "the step is under way");
    let effects = stepped(&mut bench, change);
    assert_eq!(work(effects).order.work, TcWork::Restore);
}

#[test]
fn a_step_that_reached_a_later_link_with_the_same_index_is_restored() {
    let mine = claim(1, HOST);
    let mut bench = Bench::claimed(&mine);
    let (effects, _answer) = bench.call(&mine, step());
    let change = work(effects);
    let effects = seen(&mut bench, &[]);
    assert!(
        effects.iter().any(|it| is_lost(it, Loss::Gone)),
        "{effects:?}"
    );
    seen(&mut bench, &[two("v0", 1, None)]);
    let effects = stepped(&mut bench, change);
    assert_eq!(work(effects).order.work, TcWork::Restore);
    let (effects, _answer) = bench.call(&mine, Asked::Release { owed: false });
    assert!(!begins(&effects), "{effects:?}");
}

#[test]
fn a_waiting_step_does_not_begin_on_another_link() {
    let mine = claim(1, HOST);
    let mut bench = Bench::claimed(&mine);
    let (effects, _switched) = bench.request("default", "v0");
    let Some(Effect::ChangeLink(change)) = effects.into_iter().next() else {
        panic!("no change of the link")
    };
    let (effects, mut answer) = bench.call(&mine, step());
    assert!(!begins(&effects));
    seen(&mut bench, &[two("v0", 1, None)]);
    let result = Ok(false);
    let effects = bench.step(Input::LinkChanged(Box::new(LinkOutcome { change, result })));
    assert!(!begins(&effects), "{effects:?}");
    let kind = answer.try_recv().unwrap().error_kind;
    assert_eq!(kind, Some(ErrorKind::NotFound));
}

#[test]
fn the_lease_of_a_request_ends_with_its_link_unless_the_request_reached_the_new_one() {
    for reached in [false, true] {
        let mut bench = Bench::warm();
        let change = work(bench.ask(request(Some(60_000), None)).0);
        let terms = match &change.order.work {
            TcWork::Change { terms, .. } => terms.clone(),
            other => panic!("{other:?}"),
        };
        let expires = terms.grant(bench.moment.boot).unwrap().expires;
        let held = Lease {
            set: vec![Some(delay(5))],
            ..lease(Owner::Plain, expires)
        };
        bench.came_to(change, Some(held), Ok((outcome(), Instant::now())));
        let there = reached.then(|| delay(5));
        let effects = seen(&mut bench, &[two("v0", 1, there)]);
        assert!(!begins(&effects), "{effects:?}");
        let forgotten = effects
            .iter()
            .any(|it| matches!(it, Effect::ForgetLease(_)));
        assert_eq!(forgotten, !reached, "{effects:?}");
        assert_eq!(bench.state.ledger.get(V0).is_some(), reached);
        bench.wait(SECOND * 60);
        assert_eq!(begins(&bench.step(Input::Timer)), reached);
    }
}

#[test]
fn a_dump_that_began_before_an_apply_does_not_end_its_lease() {
    // The dump read the new link without the netem, or it read the links between the deletion and the creation.
    for sees in [vec![two("v0", 1, None)], vec![]] {
        let mut bench = Bench::warm();
        let change = work(bench.ask(request(Some(60_000), None)).0);
        let stale = links(HOST, &sees);
        let held = Lease {
            set: vec![Some(delay(5))],
            ..lease(Owner::Plain, Some(bench.moment.boot.plus(SECOND * 60)))
        };
        let done = Outcome {
            plan: Plan::Nothing,
            observed: observed_netem(Some(delay(5))),
            notes: Vec::new(),
        };
        bench.came_to(change, Some(held), Ok((done, Instant::now())));
        let forgets = |effects: &[Effect]| {
            let is_end = |it: &Effect| matches!(it, Effect::ForgetLease(_));
            effects.iter().any(is_end)
        };
        let effects = bench.step(stale);
        bench.step(Input::Published(COST));
        assert!(!forgets(&effects), "{effects:?}");
        // The next dump finds the netem, but could not read its parameters.
        let unread = Link {
            root_netem: true,
            ..two("v0", 1, None)
        };
        let effects = seen(&mut bench, &[unread]);
        assert!(!forgets(&effects), "{effects:?}");
        assert!(bench.state.ledger.get(V0).is_some());
        let effects = seen(&mut bench, &[two("v0", 2, None)]);
        assert!(forgets(&effects), "the netem went with its link");
    }
}

#[test]
fn an_altname_is_refused_with_the_name_of_its_interface() {
    const LONG: &str = "a-name-of-twenty-two-b";
    let mut bench = Bench::warm();
    let named = Link {
        altnames: vec!["uplink".into(), LONG.into()],
        ..two("v0", 0, None)
    };
    seen(&mut bench, &[named]);
    for (altname, kind) in [("uplink", ErrorKind::NotFound), (LONG, ErrorKind::Invalid)] {
        let (effects, mut answer) = bench.request("default", altname);
        assert!(effects.is_empty(), "{effects:?}");
        let response = answer.try_recv().unwrap();
        assert_eq!(response.error_kind, Some(kind));
        assert!(
            response.message.contains("altname of the interface v0"),
            "{response:?}"
        );
        let target = ExecutionTarget {
            namespace: "default".to_owned(),
            interface: altname.to_owned(),
        };
        let (effects, mut answer) = bench.execution(ScenarioExecutionRequest::Stop(target));
        assert!(effects.is_empty(), "{effects:?}");
        let answer = format!("{:?}", answer.try_recv().unwrap());
        assert!(answer.contains("use the name v0"), "{answer}");
    }
    // A name that is too long and is no altname is refused without a hint.
    let (_, mut answer) = bench.request("default", "b-name-of-twenty-two-b");
    let response = answer.try_recv().unwrap();
    assert!(response.message.contains("at most 15") && !response.message.contains("v0"));
}
