//! Tests of leases: the lease of each change, when it ends, and what its end waits for.

use tcgui_shared::netem::FlatNetem;
use tcgui_shared::tc::{TcOperation, TcRequest, TcResponse};

use super::*;
use crate::backend::state::executions::Asked;
use crate::execution::{Claim, InterfaceKey, InterfaceNames, Target};
use crate::kernel::netem::Netem;
use crate::kernel::qdisc::QdiscStatistics;
use crate::lease::terms::{LeaseHolder, Terms};
use crate::lease::{Before, LeaseNetns, Owner};
use crate::tc::handle::{self, Tables};
use crate::tc::observed::{Observed, Root};
use crate::tc::perform::Outcome;
use crate::tc::plan::Plan;

type Answer = tokio::sync::oneshot::Receiver<TcResponse>;

const V0: (NetnsKey, u32) = (NetnsKey::Host, 2);
const SECOND: Duration = Duration::from_secs(1);

pub(super) fn request(ttl_ms: Option<u64>, confirm_within_ms: Option<u64>) -> TcRequest {
    TcRequest {
        namespace: "default".to_owned(),
        interface: "v0".to_owned(),
        operation: TcOperation::Apply(FlatNetem {
            delay_ms: Some(5.0),
            ..FlatNetem::default()
        }),
        ttl_ms,
        confirm_within_ms,
        lease_token: None,
        client: None,
    }
}

fn confirmation() -> TcRequest {
    TcRequest {
        operation: TcOperation::Confirm,
        ..request(None, None)
    }
}

impl Bench {
    pub(super) fn ask(&mut self, request: TcRequest) -> (Vec<Effect>, Answer) {
        let (reply, answer) = Reply::channel();
        let request = Request::Tc(Box::new(request), reply);
        (self.step(Input::Request(request)), answer)
    }

    /// Expects the request to be refused at once, without any work.
    fn refused(&mut self, request: TcRequest) -> TcResponse {
        let (effects, mut answer) = self.ask(request);
        assert!(effects.is_empty(), "{effects:?}");
        answer.try_recv().unwrap()
    }

    /// The lease that a change would be carried out under.
    pub(super) fn lease_of(&self, change: &PendingTcChange) -> Option<Lease> {
        let TcWork::Change { terms, .. } = &change.order.work else {
            panic!("{change:?}");
        };
        let observed = observed();
        let of = (netns(), change.order.link.ifindex, "v0".to_owned());
        let held = change.order.held.as_ref();
        let grant = terms.grant(change.order.begun)?;
        Some(Lease::record(held, of, &observed, None, grant))
    }

    /// Ends the change successfully, and ends the publication that follows.
    pub(super) fn carried_out(
        &mut self,
        change: Box<PendingTcChange>,
        lease: Option<Lease>,
    ) -> Option<TcResponse> {
        self.came_to(change, lease, Ok((outcome(), Instant::now())))
    }

    pub(super) fn changed(
        &mut self,
        change: Box<PendingTcChange>,
        lease: Option<Lease>,
        result: Result<(Outcome, Instant), (ErrorKind, String)>,
    ) -> Vec<Effect> {
        let (done_at, outcome) = match result {
            Ok((outcome, at)) => (at, Ok(outcome)),
            Err(failure) => (Instant::now(), Err(failure)),
        };
        let result = TcResult {
            lease,
            done_at,
            outcome,
        };
        self.step(Input::TcChanged(Box::new(TcOutcome { change, result })))
    }

    pub(super) fn came_to(
        &mut self,
        change: Box<PendingTcChange>,
        lease: Option<Lease>,
        result: Result<(Outcome, Instant), (ErrorKind, String)>,
    ) -> Option<TcResponse> {
        let effects = self.changed(change, lease, result);
        let mut answer = None;
        for effect in effects {
            if let Effect::Publish(publication) = effect {
                answer = publication.answers.into_iter().next();
                self.published();
            }
        }
        answer.map(|(_, response)| response)
    }

    /// Applies a netem, and returns the lease that is in force then.
    pub(super) fn applied(&mut self, request: TcRequest) -> (Lease, TcResponse) {
        let change = work(self.ask(request).0);
        let lease = self.lease_of(&change).unwrap();
        let response = self.carried_out(change, Some(lease.clone())).unwrap();
        (lease, response)
    }

    fn tick(&mut self) -> Vec<Effect> {
        self.step(Input::Timer)
    }
}

fn netns() -> LeaseNetns {
    LeaseNetns::Own {
        device: 4,
        inode: 1,
        cookie: None,
    }
}

fn observed() -> Observed {
    observed_netem(None)
}

/// Returns what a worker reads back: our netem at the root, or nothing.
pub(super) fn observed_netem(netem: Option<Netem>) -> Observed {
    let handle = handle::for_tables(Tables::default(), &[]);
    Observed {
        root: netem.map_or(Root::Absent, |netem| Root::Own { handle, netem }),
        in_use: Vec::new(),
        bottleneck: None,
        bottleneck_qlen: 0,
        below: Vec::new(),
        netems_below: Vec::new(),
        statistics: QdiscStatistics::default(),
    }
}

pub(super) fn outcome() -> Outcome {
    Outcome {
        plan: Plan::Nothing,
        observed: observed(),
        notes: Vec::new(),
    }
}

pub(super) fn lease(owner: Owner, expires: Option<BootTime>) -> Lease {
    Lease {
        netns: netns(),
        also: Vec::new(),
        ifindex: 2,
        ifname: "v0".to_owned(),
        link: None,
        cookie: None,
        before: Before::default(),
        set: vec![None],
        owner,
        expires,
        confirm_by: None,
        holder: LeaseHolder::default(),
        under: None,
        beneath: None,
    }
}

pub(super) fn begins(effects: &[Effect]) -> bool {
    let is_work = |effect: &Effect| matches!(effect, Effect::ChangeTc(_));
    effects.iter().any(is_work)
}

/// Expects exactly one piece of work to begin, and returns it.
pub(super) fn work(effects: Vec<Effect>) -> Box<PendingTcChange> {
    let begun = effects.into_iter().find_map(|effect| match effect {
        Effect::ChangeTc(change) => Some(change),
        _ => None,
    });
    begun.expect("work begins")
}

#[test]
fn a_time_to_live_ends_the_change_and_is_in_the_response() {
    let mut bench = Bench::warm();
    let (_, response) = bench.applied(request(Some(5_000), None));
    assert_eq!(response.expires_at, Some(2_005_000));
    assert!(response.message.contains("ends in 5s"), "{response:?}");
    bench.wait(SECOND * 4);
    assert!(!begins(&bench.tick()));
    assert!(bench.state.wake_at().unwrap() <= bench.moment.now + SECOND);
    bench.wait(SECOND);
    let change = work(bench.tick());
    assert_eq!((&change.order.work, change.lane()), (&TcWork::Restore, V0));
    assert!(change.order.held.is_some());
    bench.carried_out(change, None);
    assert!(bench.state.ledger.get(V0).is_none());
}

#[test]
fn a_change_without_an_end_ends_the_lease_of_the_earlier_change() {
    let mut bench = Bench::warm();
    bench.applied(request(Some(5_000), None));
    let change = work(bench.ask(request(None, None)).0);
    assert!(change.order.held.is_some(), "its lease has to be dropped");
    assert_eq!(bench.lease_of(&change), None);
    let response = bench.carried_out(change, None).unwrap();
    assert_eq!(response.expires_at, None);
    bench.wait(SECOND * 10);
    assert!(!begins(&bench.tick()));
}

#[test]
fn a_renewed_lease_still_restores_the_state_before_the_first_change() {
    let mut bench = Bench::warm();
    let (first, _) = bench.applied(request(Some(5_000), None));
    bench.wait(SECOND * 3);
    let (second, _) = bench.applied(request(Some(5_000), None));
    assert_eq!(first.before, second.before);
    bench.wait(SECOND * 3);
    assert!(!begins(&bench.tick()));
    bench.wait(SECOND * 2);
    work(bench.tick());
}

#[test]
fn the_default_lifetime_applies_to_requests_without_one() {
    let mut bench = Bench::warm();
    bench.state.identity.options.default_ttl = Some(SECOND);
    let (lease, _) = bench.applied(request(None, None));
    assert_eq!(lease.expires, Some(bench.moment.boot.plus(SECOND)));
    let (lease, _) = bench.applied(request(Some(7), None));
    assert_eq!(
        lease.expires,
        Some(bench.moment.boot.plus(Duration::from_millis(7)))
    );
    let removal = TcRequest {
        operation: TcOperation::Remove,
        ..request(None, None)
    };
    let change = work(bench.ask(removal).0);
    assert_eq!(bench.lease_of(&change), None, "nothing is left to end");
}

#[test]
fn a_confirmed_change_stays_and_an_unconfirmed_one_ends() {
    let mut bench = Bench::warm();
    let (lease, response) = bench.applied(request(None, Some(3_000)));
    assert_eq!(lease.owner, Owner::Confirm);
    assert!(
        response.message.contains("unless it is confirmed"),
        "{response:?}"
    );
    let change = work(bench.ask(confirmation()).0);
    assert_eq!(change.order.work, TcWork::Confirm);
    let busy = bench.refused(confirmation());
    assert_eq!(busy.error_kind, Some(ErrorKind::Busy));
    let response = bench.carried_out(change, lease.confirmed()).unwrap();
    assert!(
        response.success && response.expires_at.is_none(),
        "{response:?}"
    );
    assert_eq!(
        bench.refused(confirmation()).error_kind,
        Some(ErrorKind::NotFound)
    );
    bench.wait(SECOND * 5);
    assert!(!begins(&bench.tick()));

    bench.applied(request(Some(60_000), Some(3_000)));
    bench.wait(SECOND * 3);
    assert_eq!(work(bench.tick()).order.work, TcWork::Restore);
}

#[test]
fn a_confirmation_waits_for_a_link_change_and_still_counts() {
    let mut bench = Bench::warm();
    bench.applied(request(None, Some(3_000)));
    let (mut effects, _answer) = bench.request("default", "v0");
    let Some(Effect::ChangeLink(change)) = effects.pop() else {
        panic!("{effects:?}")
    };
    let (effects, _answer) = bench.ask(confirmation());
    assert!(!begins(&effects));
    let busy = bench.refused(confirmation());
    assert_eq!(busy.error_kind, Some(ErrorKind::Busy), "one waits already");
    // The confirmation arrived in time, although its work begins later.
    bench.wait(SECOND * 4);
    assert!(!begins(&bench.tick()));
    let result = Ok(false);
    let effects = bench.step(Input::LinkChanged(Box::new(LinkOutcome { change, result })));
    let change = work(effects);
    assert_eq!(change.order.work, TcWork::Confirm);
    let (confirmed, lease) = (
        bench.changed(change, None, Ok((outcome(), Instant::now()))),
        bench.state.ledger.get(V0),
    );
    assert!(!begins(&confirmed) && lease.is_none(), "{confirmed:?}");
}

#[test]
fn a_confirmed_change_with_a_time_to_live_still_ends() {
    let mut bench = Bench::warm();
    let (lease, _) = bench.applied(request(Some(60_000), Some(3_000)));
    let confirmed = lease.confirmed().unwrap();
    assert_eq!(
        (&confirmed.owner, confirmed.ends()),
        (&Owner::Plain, lease.expires)
    );
}

#[test]
fn invalid_times_are_refused_with_the_name_of_their_field() {
    let mut bench = Bench::warm();
    for (request, field) in [
        (request(Some(0), None), "ttl_ms"),
        (request(Some(30 * 24 * 3_600_000 + 1), None), "ttl_ms"),
        (request(Some(u64::MAX), None), "ttl_ms"),
        (request(None, Some(0)), "confirm_within_ms"),
        (request(None, Some(24 * 3_600_000 + 1)), "confirm_within_ms"),
        (
            TcRequest {
                ttl_ms: Some(1),
                ..confirmation()
            },
            "ttl_ms",
        ),
    ] {
        let response = bench.refused(request);
        assert_eq!(response.error_kind, Some(ErrorKind::Invalid));
        assert!(response.message.contains(field), "{response:?}");
    }
}

#[test]
fn a_failed_restoration_is_retried_later() {
    let mut bench = Bench::warm();
    let (lease, _) = bench.applied(request(Some(1_000), None));
    bench.wait(SECOND);
    for pause in [1, 2, 4] {
        let change = work(bench.tick());
        let failed = Err((ErrorKind::Internal, "no".to_owned()));
        bench.came_to(change, Some(lease.clone()), failed);
        bench.wait(SECOND * pause - Duration::from_millis(1));
        assert!(!begins(&bench.tick()));
        bench.wait(Duration::from_millis(1));
    }
}

#[test]
fn a_lease_of_an_earlier_run_is_restored_when_its_interface_is_seen() {
    let boot = BootTime::after_boot(Duration::from_secs(100));
    for (owner, expires, due) in [
        (Owner::Plain, Some(boot), true),
        (Owner::Plain, Some(boot.plus(SECOND * 9)), false),
        (Owner::Scenario { id: "s".to_owned() }, None, true),
    ] {
        let mut bench = Bench::cold(&[]);
        bench.state.adopt(vec![(V0, lease(owner, expires))], boot);
        assert!(bench.tick().is_empty(), "nothing was seen yet");
        let seen = links(NetnsKey::Host, &[link(2, "v0", true)]);
        let effects = bench.step(seen);
        assert_eq!(begins(&effects), due);
    }
}

#[test]
fn a_recreated_link_is_not_restored() {
    let mut bench = Bench::cold(&[]);
    let expired = lease(Owner::Plain, Some(BootTime::default()));
    bench
        .state
        .adopt(vec![(V0, expired.clone())], bench.moment.boot);
    let effects = bench.step(links(NetnsKey::Host, &[link(3, "v0", true)]));
    assert!(!begins(&effects));
    let forgotten = effects.iter().any(|it| match it {
        Effect::ForgetLease(lease) => **lease == expired,
        _ => false,
    });
    assert!(forgotten, "{effects:?}");
}

#[test]
fn the_release_of_an_execution_ends_only_its_own_lease() {
    let claim = |number| Claim {
        number,
        scenario: "s".into(),
        target: Target {
            key: InterfaceKey {
                netns: V0.0,
                ifindex: V0.1,
            },
            names: InterfaceNames {
                netns: NamespaceName::host(),
                interface: InterfaceName::new("v0").unwrap(),
            },
        },
    };
    let release = |number, owed| {
        let mut bench = Bench::warm();
        let (reply, _answer) = Reply::channel();
        let (claim, asked) = (claim(number), Asked::Release { owed });
        let call = TcCall {
            claim,
            asked,
            reply,
        };
        let id = "s #2".to_owned();
        let held = lease(Owner::Scenario { id }, None);
        bench.state.ledger.settle(V0, Some(held));
        let mut effects = bench.step(Input::TcCall(Box::new(call)));
        effects.extend(bench.tick());
        begins(&effects).then(|| work(effects).order.work)
    };
    assert_eq!(release(1, false), None);
    assert_eq!(release(1, true), None);
    let id = "s #2".to_owned();
    assert_eq!(release(2, false), Some(TcWork::Release { id }));
    assert_eq!(release(2, true), Some(TcWork::Restore));
}

#[test]
fn a_time_to_live_continues_after_a_scenario() {
    let mut bench = Bench::warm();
    let (alive, _) = bench.applied(request(Some(5_000), None));
    let grant = Terms::of_scenario("s #2").grant(bench.moment.boot).unwrap();
    let step = |held: &Lease| {
        let of = (netns(), 2, "v0".to_owned());
        Lease::record(Some(held), of, &observed(), None, grant.clone())
    };
    // The second step keeps the earlier state that the first one recorded.
    let running = step(&step(&alive));
    assert!(running.is_of_a_scenario() && running.ends().is_none());
    bench.state.ledger.settle(V0, Some(running));
    bench.wait(SECOND * 6);
    assert!(!begins(&bench.tick()), "the scenario runs");
    let mut effects = Vec::new();
    let moment = bench.moment;
    bench.state.release_lease(V0, "s #2", moment, &mut effects);
    let change = work(effects);
    let kept = change.order.held.clone().unwrap().released().unwrap();
    assert_eq!((&kept.owner, kept.expires), (&Owner::Plain, alive.expires));
    assert_eq!(kept.before, alive.before);
    let effects = bench.changed(change, Some(kept), Ok((outcome(), Instant::now())));
    assert_eq!(work(effects).order.work, TcWork::Restore);
}

#[test]
fn the_release_of_a_scenario_waits_behind_the_changes_of_clients() {
    let mut bench = Bench::warm();
    let id = "s #2".to_owned();
    let held = lease(Owner::Scenario { id: id.clone() }, None);
    bench.state.ledger.settle(V0, Some(held));
    let first = work(bench.ask(request(None, None)).0);
    let (effects, _answer) = bench.ask(request(Some(5_000), None));
    assert!(!begins(&effects));
    let (moment, mut effects) = (bench.moment, Vec::new());
    bench.state.release_lease(V0, "s #2", moment, &mut effects);
    assert!(effects.is_empty(), "{effects:?}");
    // Both fail, so the lease is still the scenario's.
    let mut fails = |change: Box<PendingTcChange>| {
        let lease = change.order.held.clone();
        let result = Err((ErrorKind::Busy, "htb 1: was configured".to_owned()));
        let mut effects = bench.changed(change, lease, result);
        effects.extend(bench.step(Input::Published(COST)));
        bench.wait(SECOND);
        effects.extend(bench.tick());
        effects
    };
    let second = work(fails(first));
    assert!(matches!(second.order.work, TcWork::Change { .. }));
    let third = work(fails(second));
    assert_eq!(third.order.work, TcWork::Release { id });
}

#[test]
fn scenarios_end_with_the_daemon_unless_keep_on_exit_is_set() {
    let scenario = || lease(Owner::Scenario { id: "s".to_owned() }, None);
    let mut bench = Bench::warm();
    bench.state.ledger.settle(V0, Some(scenario()));
    assert!(!begins(&bench.tick()));
    let effects = bench.state.stop(bench.moment);
    assert_eq!(work(effects).order.work, TcWork::Restore);

    let mut bench = Bench::warm();
    bench.state.identity.options.keep_on_exit = true;
    bench.state.ledger.settle(V0, Some(scenario()));
    let effects = bench.state.stop(bench.moment);
    let id = "s".to_owned();
    assert_eq!(work(effects).order.work, TcWork::Release { id });

    let mut bench = Bench::warm();
    bench.state.ledger.settle(V0, Some(scenario()));
    bench.state.ledger.end_scenario(Some("another"));
    assert!(!begins(&bench.tick()));
    bench.state.ledger.end_scenario(Some("s"));
    assert_eq!(work(bench.tick()).order.work, TcWork::Restore);
}

#[test]
fn a_permanent_change_is_not_replaced_by_one_with_an_end() {
    let mut bench = Bench::warm();
    let first = work(bench.ask(request(None, None)).0);
    let asked: Vec<_> = [None, Some(1_000), None, Some(2_000), Some(3_000)]
        .into_iter()
        .map(|ttl_ms| {
            let (effects, answer) = bench.ask(request(ttl_ms, None));
            assert!(!begins(&effects));
            answer
        })
        .collect();
    let mut carried_out = |change| {
        let effects = bench.changed(change, None, Ok((outcome(), Instant::now())));
        bench.published();
        effects
    };
    let ttl_of = |change: &PendingTcChange| match &change.order.work {
        TcWork::Change { terms, .. } => terms.ttl,
        other => panic!("{other:?}"),
    };
    let second = work(carried_out(first));
    assert_eq!(ttl_of(&second), None);
    let third = work(carried_out(second));
    assert_eq!(ttl_of(&third), Some(SECOND * 3));
    assert!(!begins(&carried_out(third)));
    assert!(!begins(&bench.tick()));
    drop(asked);
}
