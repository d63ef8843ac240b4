//! Tests of requests about traffic control: their order, the publications, and the time of each response.

use tcgui_shared::netem::FlatNetem;
use tcgui_shared::tc::{TcOperation, TcRequest, TcResponse};

use super::leases::observed_netem;
use super::*;
use crate::kernel::netem::Netem;
use crate::kernel::tbf::Tbf;
use crate::tc::handle::{self, Tables};
use crate::tc::perform::Outcome;
use crate::tc::plan::Plan;

type Answer = tokio::sync::oneshot::Receiver<TcResponse>;

fn delay(ms: f64) -> TcOperation {
    TcOperation::Apply(FlatNetem {
        delay_ms: Some(ms),
        ..FlatNetem::default()
    })
}

/// Returns a netem with this delay and no other parameters.
fn netem(latency_ms: u64) -> Netem {
    Netem {
        limit: 1000,
        latency_ns: latency_ms * 1_000_000,
        ..Netem::default()
    }
}

fn v0(netem: Option<Netem>) -> Link {
    Link {
        netem,
        ..link(2, "v0", netem.is_some())
    }
}

impl Bench {
    pub(super) fn tc(&mut self, netns: &str, operation: TcOperation) -> (Vec<Effect>, Answer) {
        let (reply, answer) = Reply::channel();
        let request = TcRequest {
            namespace: netns.to_owned(),
            interface: "v0".to_owned(),
            operation,
            ttl_ms: None,
            confirm_within_ms: None,
            lease_token: None,
            client: None,
        };
        let request = Request::Tc(Box::new(request), reply);
        (self.step(Input::Request(request)), answer)
    }

    /// Expects a change to begin and nothing else to happen.
    pub(super) fn begun(effects: Vec<Effect>) -> Box<PendingTcChange> {
        let mut effects = effects.into_iter();
        match (effects.next(), effects.next()) {
            (Some(Effect::ChangeTc(change)), None) => change,
            other => panic!("no change begins: {other:?}"),
        }
    }

    /// Ends the change with the netem that the caller says was read back.
    pub(super) fn done(
        &mut self,
        change: Box<PendingTcChange>,
        netem: Option<Netem>,
    ) -> Vec<Effect> {
        let handle = handle::for_tables(Tables::default(), &[]);
        let observed = observed_netem(netem);
        let outcome = Outcome {
            plan: Plan::Change { handle },
            observed,
            notes: Vec::new(),
        };
        let result = TcResult {
            lease: None,
            done_at: Instant::now(),
            outcome: Ok(outcome),
        };
        self.step(Input::TcChanged(Box::new(TcOutcome { change, result })))
    }

    fn done_and_published(
        &mut self,
        change: Box<PendingTcChange>,
        netem: Option<Netem>,
    ) -> Publication {
        let mut effects = self.done(change, netem);
        match effects.pop() {
            Some(Effect::Publish(publication)) => publication,
            other => panic!("no publication but {other:?}"),
        }
    }
}

/// Returns the published interfaces with their delay in ms, 0 without a netem.
fn delays(publication: &Publication) -> Vec<(String, f64)> {
    let delay = |tc: &TcPublication| {
        let update = tc.update.as_ref().expect("not gone");
        let configuration = update.configuration.as_ref();
        assert_eq!(update.has_tc, configuration.is_some());
        let delay = configuration.and_then(|it| it.netem.delay_ms);
        (update.interface.clone(), delay.unwrap_or(0.0))
    };
    publication.tc.iter().map(delay).collect()
}

#[test]
fn the_result_is_published_before_the_reply() {
    let mut bench = Bench::warm();
    let (effects, mut answer) = bench.tc("default", delay(40.0));
    let change = Bench::begun(effects);
    assert_eq!(change.order.link.ifindex, 2);
    // The kernel may report another value.
    let publication = bench.done_and_published(change, Some(netem(41)));
    assert_eq!(delays(&publication), [("v0".to_owned(), 41.0)]);
    answer.try_recv().unwrap_err();
    let [(reply, response)] = <[_; 1]>::try_from(publication.answers).unwrap();
    assert!(response.success, "{response:?}");
    let applied = response.applied_config.as_ref().unwrap();
    assert_eq!(applied.netem.delay_ms, Some(41.0));
    reply.send(response);
    answer.try_recv().unwrap();
}

#[test]
fn a_burst_is_reduced_to_the_newest_request_and_all_are_answered() {
    let mut bench = Bench::warm();
    let (effects, first) = bench.tc("default", delay(1.0));
    let change = Bench::begun(effects);
    let mut answers = vec![first];
    for ms in 2..=200 {
        let (effects, answer) = bench.tc("default", delay(f64::from(ms)));
        assert!(effects.is_empty(), "{effects:?}");
        answers.push(answer);
    }
    bench.wait(COST);
    let mut effects = bench.done(change, Some(netem(1)));
    assert!(
        matches!(
            &effects[..],
            [
                Effect::Recheck(NetnsKey::Host),
                Effect::ChangeTc(_),
                Effect::Publish(_)
            ]
        ),
        "the newest begins at once: {effects:?}"
    );
    let next = Bench::begun(vec![effects.swap_remove(1)]);
    drop(effects);
    bench.published();
    let TcWork::Change { operation, .. } = &next.order.work else {
        panic!("{next:?}");
    };
    assert_eq!(**operation, delay(200.0));
    let publication = bench.done_and_published(next, Some(netem(200)));
    assert_eq!(delays(&publication), [("v0".to_owned(), 200.0)]);
    assert_eq!(publication.answers.len(), 199);
    for (_, response) in publication.answers {
        let applied = response.applied_config.expect("what is in force");
        assert_eq!(applied.netem.delay_ms, Some(200.0));
    }
    let (effects, _answer) = bench.tc("default", TcOperation::Remove);
    Bench::begun(effects);
}

#[test]
fn invalid_values_are_refused_at_once_with_the_name_of_the_field() {
    let mut bench = Bench::warm();
    for (operation, field) in [
        (delay(10_001.0), "delay_ms"),
        (delay(f64::NAN), "delay_ms"),
        (
            TcOperation::Apply(FlatNetem {
                loss: 100.5,
                ..FlatNetem::default()
            }),
            "loss",
        ),
    ] {
        let (effects, mut answer) = bench.tc("default", operation);
        assert!(effects.is_empty(), "{effects:?}");
        let answer = answer.try_recv().unwrap();
        assert_eq!(answer.error_kind, Some(ErrorKind::Invalid));
        assert!(answer.message.contains(field), "{answer:?}");
    }
    let (effects, mut answer) = bench.tc("nowhere", delay(1.0));
    assert!(effects.is_empty(), "{effects:?}");
    let answer = answer.try_recv().unwrap();
    assert_eq!(answer.error_kind, Some(ErrorKind::NotFound));
}

#[test]
fn a_failure_is_answered_and_the_next_change_begins() {
    let mut bench = Bench::warm();
    let (effects, _first) = bench.tc("default", delay(1.0));
    let change = Bench::begun(effects);
    let (_, _second) = bench.tc("default", delay(2.0));
    let outcome = Err((ErrorKind::Busy, "htb 1: was configured".to_owned()));
    let result = TcResult {
        lease: None,
        done_at: Instant::now(),
        outcome,
    };
    let effects = bench.step(Input::TcChanged(Box::new(TcOutcome { change, result })));
    assert!(
        matches!(&effects[..], [Effect::Recheck(NetnsKey::Host), Effect::ChangeTc(_), Effect::Publish(it)]
            if it.tc.is_empty() && it.answers[0].1.error_kind == Some(ErrorKind::Busy)),
        "{effects:?}"
    );
}

#[test]
fn a_change_that_the_list_does_not_contain_causes_no_list() {
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    let (effects, _answer) = bench.tc("default", delay(1.0));
    let publication = bench.done_and_published(Bench::begun(effects), Some(netem(1)));
    assert!(publication.list.is_some(), "there is a netem now");
    drop(publication);
    bench.step(Input::Published(COST));
    bench.wait(Duration::from_secs(1));
    let (effects, _answer) = bench.tc("default", delay(2.0));
    bench.done(Bench::begun(effects), Some(netem(2)));
    assert!(!bench.state.changed);
}

#[test]
fn the_list_is_published_before_the_tc_of_a_new_interface() {
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    bench.publication(links(NetnsKey::Host, &[link(1, "lo", false)]));
    bench.published();
    // The daemon knows the interface. Frontends do not, because the next list is not due.
    let effects = bench.step(links(NetnsKey::Host, &[link(1, "lo", false), v0(None)]));
    assert!(effects.is_empty(), "{effects:?}");
    let (effects, _answer) = bench.tc("default", delay(5.0));
    let change = Bench::begun(effects);
    let publication = bench.done_and_published(change, Some(netem(5)));
    assert!(publication.list.is_some());
    assert_eq!(delays(&publication), [("v0".to_owned(), 5.0)]);
}

#[test]
fn a_dump_that_began_earlier_does_not_override_a_read_back() {
    let replaced = Link {
        generation: 1,
        ..v0(None)
    };
    for v0 in [v0(Some(netem(1))), replaced] {
        is_older_than_what_was_read_back(v0);
    }
}

/// Checks a dump that found this, and that ended after an Apply was done.
fn is_older_than_what_was_read_back(seen: Link) {
    let mut bench = Bench::warm();
    let stale = links(NetnsKey::Host, &[link(1, "lo", false), seen]);
    let (effects, _answer) = bench.tc("default", delay(5.0));
    let change = Bench::begun(effects);
    bench.done_and_published(change, Some(netem(5)));
    bench.step(Input::Published(COST));
    bench.wait(Duration::from_secs(1));
    let late = bench.step(stale);
    let changed = |effect: &Effect| matches!(effect, Effect::Publish(it) if !it.tc.is_empty());
    assert!(!late.iter().any(changed), "{late:?}");
    bench.step(Input::Published(COST));
    bench.wait(Duration::from_secs(1));
    // A dump that began later is newer: another program changed the netem.
    let fresh = links(NetnsKey::Host, &[link(1, "lo", false), v0(Some(netem(7)))]);
    let publication = bench.publication(fresh);
    assert_eq!(delays(&publication), [("v0".to_owned(), 7.0)]);
}

#[test]
fn configurations_are_repeated_for_a_new_frontend() {
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    let netems = [link(1, "lo", false), v0(Some(netem(5)))];
    bench.publication(links(NetnsKey::Host, &netems));
    bench.published();
    bench.step(Input::FrontendJoined);
    // Other frontends that appear do not delay the repetition.
    bench.wait(Duration::from_millis(400));
    bench.step(Input::FrontendJoined);
    bench.moment.now -= Duration::from_millis(400);
    let joined = bench.moment.now;
    for after in [500, 2000] {
        let due = bench.state.wake_at().expect("a repetition is due");
        assert_eq!(due, joined + Duration::from_millis(after));
        bench.moment.now = due;
        let publication = bench.publication(Input::Timer);
        assert_eq!(delays(&publication), [("v0".to_owned(), 5.0)]);
        assert!(publication.list.is_none());
        bench.published();
    }
}

#[test]
fn shutdown_drops_waiting_work_and_answers_finished_work() {
    let mut bench = Bench::warm();
    let (effects, _first) = bench.tc("default", delay(1.0));
    let change = Bench::begun(effects);
    let (_, mut second) = bench.tc("default", delay(2.0));
    let effects = bench.state.stop(bench.moment);
    assert!(effects.is_empty(), "{effects:?}");
    second.try_recv().unwrap_err();
    let publication = bench.done_and_published(change, Some(netem(1)));
    assert_eq!(publication.answers.len(), 1);
}

/// Returns the number of adjustments that a dump of a link begins.
fn fits(bench: &mut Bench, link: Link) -> usize {
    let effects = bench.step(links(NetnsKey::Host, &[link]));
    let is_fit = |effect: &Effect| matches!(effect, Effect::ChangeTc(change) if matches!(change.order.work, TcWork::Fit { .. }));
    effects.iter().filter(|effect| is_fit(effect)).count()
}

#[test]
fn a_raised_mtu_makes_the_bottleneck_fit() {
    let mut bench = Bench::warm();
    let bottleneck = Tbf {
        bytes_per_s: 64_000,
        burst: 1_838,
        limit: 15_140,
    };
    let impaired = Netem {
        bottleneck: Some(bottleneck),
        ..netem(5)
    };
    let with_mtu = |mtu| Link {
        mtu,
        ..v0(Some(impaired))
    };
    assert_eq!(fits(&mut bench, with_mtu(1_500)), 0);
    assert_eq!(fits(&mut bench, with_mtu(9_000)), 1);
    // It is under way.
    assert_eq!(fits(&mut bench, with_mtu(9_000)), 0);
}

#[test]
fn a_restored_bottleneck_that_is_too_small_is_made_to_fit() {
    let mut bench = Bench::warm();
    let with_burst = |burst| Netem {
        bottleneck: Some(Tbf {
            bytes_per_s: 64_000,
            burst,
            limit: 15_140,
        }),
        ..netem(5)
    };
    let large_frames = |netem| Link {
        mtu: 9_000,
        ..v0(Some(netem))
    };
    assert_eq!(fits(&mut bench, large_frames(with_burst(9_338))), 0);
    // A lease ends, and its interface gets the netem that it had before its MTU was raised.
    assert_eq!(fits(&mut bench, large_frames(with_burst(1_838))), 1);
}

#[test]
fn another_speed_adjusts_the_limit_once() {
    let mut bench = Bench::warm();
    // The limit for 1 Gbit/s, which is assumed if the driver reports no speed.
    let impaired = Netem {
        limit: 9_766,
        ..netem(5)
    };
    let with_speed = |speed| Link {
        speed,
        ..v0(Some(impaired))
    };
    assert_eq!(fits(&mut bench, with_speed(None)), 0);
    let fast = Some(10_000_000_000);
    assert_eq!(fits(&mut bench, with_speed(fast)), 1);
    assert_eq!(fits(&mut bench, with_speed(fast)), 0);
}
