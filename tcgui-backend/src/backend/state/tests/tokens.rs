//! Leases with a token: only the client that has it extends them, and a second client with a token is refused.

use tcgui_shared::tc::{TcOperation, TcRequest, TcResponse};

use super::leases::{outcome, request, work};
use super::*;
use crate::lease::ledger::LeaseKey;

const V0: LeaseKey = (NetnsKey::Host, 2);
const SECOND: Duration = Duration::from_secs(1);

fn held_by(token: &str) -> TcRequest {
    TcRequest {
        lease_token: Some(token.to_owned()),
        client: Some(format!("run of {token}")),
        ..request(Some(5_000), None)
    }
}

fn renewal(token: &str, ttl_ms: u64) -> TcRequest {
    TcRequest {
        operation: TcOperation::Renew,
        ttl_ms: Some(ttl_ms),
        client: None,
        ..held_by(token)
    }
}

/// The answers that go out with the publication.
fn answers(effects: Vec<Effect>) -> Vec<TcResponse> {
    let publications = effects.into_iter().filter_map(|effect| match effect {
        Effect::Publish(publication) => Some(publication),
        _ => None,
    });
    let answers = publications.flat_map(|publication| publication.answers);
    answers.map(|(_, response)| response).collect()
}

impl Bench {
    /// Asks, and returns the refusal. Nothing begins.
    fn refusal(&mut self, request: TcRequest) -> (ErrorKind, String) {
        let (effects, mut answer) = self.ask(request);
        assert!(effects.is_empty(), "{effects:?}");
        let answer = answer.try_recv().expect("answered at once");
        (answer.error_kind.expect("refused"), answer.message)
    }

    /// Renews, as a worker does, and returns whether the token was that of the lease.
    fn renew(&mut self, token: &str, ttl_ms: u64) -> bool {
        let change = work(self.ask(renewal(token, ttl_ms)).0);
        let TcWork::Renew { token, ttl } = &change.order.work else {
            panic!("{change:?}");
        };
        let held = change.order.held.clone();
        let expires = change.order.begun.plus(*ttl);
        let renewed = held.as_ref().and_then(|held| held.renewed(token, expires));
        let is_renewed = renewed.is_some();
        self.carried_out(change, renewed.or(held));
        is_renewed
    }
}

#[test]
fn a_renewal_extends_the_lease_of_its_token_only() {
    let mut bench = Bench::warm();
    bench.applied(held_by("a"));
    bench.wait(SECOND * 3);
    assert!(bench.renew("a", 10_000));
    assert!(!bench.renew("b", 60_000));
    let expires = bench.state.ledger.get(V0).unwrap().expires.unwrap();
    assert_eq!(expires.since(bench.moment.boot), SECOND * 10);
}

#[test]
fn a_renewal_does_not_touch_what_another_client_did_meanwhile() {
    let mut bench = Bench::warm();
    bench.applied(held_by("a"));
    let (other, _) = bench.applied(request(Some(60_000), None));
    assert!(!bench.renew("a", 1));
    assert_eq!(bench.state.ledger.get(V0), Some(&other));
    let change = work(bench.ask(request(None, None)).0);
    bench.carried_out(change, None);
    assert!(!bench.renew("a", 1_000), "the change is permanent");
    assert!(bench.state.ledger.get(V0).is_none());
}

#[test]
fn a_second_token_is_refused_and_the_holder_is_named() {
    let mut bench = Bench::warm();
    bench.applied(held_by("a"));
    let (kind, message) = bench.refusal(held_by("b"));
    assert_eq!(kind, ErrorKind::Busy);
    assert!(message.contains("run of a"), "{message}");
    bench.applied(held_by("a"));
    assert!(bench.renew("a", 1));
    bench.wait(SECOND);
    let restoration = work(bench.step(Input::Timer));
    assert_eq!(restoration.order.work, TcWork::Restore);
    bench.carried_out(restoration, None);
    bench.applied(held_by("b"));
}

#[test]
fn a_second_token_that_waits_in_the_lane_is_refused_too() {
    let mut bench = Bench::warm();
    let change = work(bench.ask(held_by("a")).0);
    let (effects, _answer) = bench.ask(held_by("b"));
    assert!(effects.is_empty(), "it waits: {effects:?}");
    let lease = bench.lease_of(&change);
    let effects = bench.changed(change, lease, Ok((outcome(), Instant::now())));
    let kinds: Vec<_> = answers(effects).iter().map(|it| it.error_kind).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Busy)]);
    assert!(bench.state.ledger.get(V0).unwrap().holder.has("a"));
}

#[test]
fn a_change_with_a_token_is_carried_out_before_a_newer_one() {
    let mut bench = Bench::warm();
    let first = work(bench.ask(request(None, None)).0);
    let (_, _answer) = bench.ask(held_by("a"));
    let (_, _newer) = bench.ask(request(None, None));
    assert_eq!(bench.state.lanes.waiting(V0), 2);
    let result = Ok((outcome(), Instant::now()));
    let second = work(bench.changed(first, None, result));
    assert_eq!(second.token(), Some("a"));
}

#[test]
fn a_token_needs_an_end_and_an_operation_that_has_one() {
    let mut bench = Bench::warm();
    let without_end = TcRequest {
        ttl_ms: None,
        ..held_by("a")
    };
    let removal = TcRequest {
        operation: TcOperation::Remove,
        ..held_by("a")
    };
    let without_token = TcRequest {
        lease_token: None,
        ..renewal("a", 1_000)
    };
    let long = held_by(&"x".repeat(65));
    let odd = held_by("a/b");
    let client = TcRequest {
        client: Some("a\u{1b}[2J".to_owned()),
        ..held_by("a")
    };
    for (wrong, word) in [
        (without_end, "ttl_ms"),
        (removal, "Apply"),
        (without_token, "lease_token"),
        (long, "64"),
        (odd, "letters"),
        (held_by(""), "letters"),
        (client, "control"),
    ] {
        let (kind, message) = bench.refusal(wrong);
        assert_eq!(kind, ErrorKind::Invalid, "{message}");
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn a_renewal_while_a_scenario_runs_is_for_the_change_that_it_interrupts() {
    let mut bench = Bench::warm();
    let (lease, _) = bench.applied(held_by("a"));
    let scenario = Lease {
        owner: crate::lease::Owner::Scenario { id: "s".to_owned() },
        expires: None,
        holder: crate::lease::terms::LeaseHolder::default(),
        under: Some(crate::lease::terms::Grant {
            owner: lease.owner.clone(),
            expires: lease.expires,
            confirm_by: None,
            holder: lease.holder.clone(),
        }),
        ..lease
    };
    let later = bench.moment.boot.plus(SECOND * 60);
    let renewed = scenario.renewed("a", later).unwrap();
    assert_eq!(
        (renewed.expires, renewed.under.unwrap().expires),
        (None, Some(later))
    );
    assert_eq!(scenario.renewed("b", later), None);
    assert!(scenario.token_holder().unwrap().has("a"));
}

#[test]
fn a_change_that_is_being_taken_back_is_not_renewed() {
    let mut bench = Bench::warm();
    bench.applied(held_by("a"));
    bench.state.ledger.depart(NetnsKey::Host);
    let (effects, _answer) = bench.ask(renewal("a", 60_000));
    let begins_restoration = |effect: &Effect| matches!(effect, Effect::ChangeTc(change) if change.order.work == TcWork::Restore);
    assert!(effects.iter().any(begins_restoration), "{effects:?}");
    let kinds: Vec<_> = answers(effects).iter().map(|it| it.error_kind).collect();
    assert_eq!(kinds, [Some(ErrorKind::NotFound)]);
}
