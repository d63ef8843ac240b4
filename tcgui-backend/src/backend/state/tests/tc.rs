//! Wishes about traffic control: their order, what is published of them, who is answered when.

use tcgui_shared::netem::FlatNetem;
use tcgui_shared::tc::{TcOperation, TcRequest, TcResponse};

use super::*;
use crate::kernel::netem::Netem;
use crate::kernel::qdisc::QdiscStatistics;
use crate::tc::handle::{self, Tables};
use crate::tc::observed::{Observed, Root};
use crate::tc::perform::Outcome;
use crate::tc::plan::Plan;

type Answer = tokio::sync::oneshot::Receiver<TcResponse>;

fn delay(ms: f64) -> TcOperation {
    TcOperation::Apply(FlatNetem {
        delay_ms: Some(ms),
        ..FlatNetem::default()
    })
}

/// A netem in which only the delay tells it from others.
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
        };
        let request = Request::Tc(Box::new(request), reply);
        (self.step(Input::Request(request)), answer)
    }

    /// Expects a wish to begin and nothing else to happen.
    pub(super) fn begun(effects: Vec<Effect>) -> Box<TcWish> {
        let mut effects = effects.into_iter();
        match (effects.next(), effects.next()) {
            (Some(Effect::ChangeTc(wish)), None) => wish,
            other => panic!("no wish begins: {other:?}"),
        }
    }

    /// The kernel did what was wished, as far as the caller says.
    pub(super) fn done(&mut self, wish: Box<TcWish>, netem: Option<Netem>) -> Vec<Effect> {
        let handle = handle::for_tables(Tables::default(), &[]);
        let root = netem.map_or(Root::Absent, |netem| Root::Own { handle, netem });
        let observed = Observed {
            root,
            in_use: Vec::new(),
            children: Vec::new(),
            netems_below: Vec::new(),
            statistics: QdiscStatistics::default(),
        };
        let outcome = Outcome {
            plan: Plan::Change { handle },
            observed,
            notes: Vec::new(),
        };
        let result = Ok((outcome, Instant::now()));
        self.step(Input::TcChanged(Box::new(TcOutcome {
            wish,
            lease: None,
            result,
        })))
    }

    /// Whatever was under way to the bus is out.
    fn all_published(&mut self) {
        while self.state.publishing {
            self.step(Input::Published(COST));
        }
    }

    fn done_and_published(&mut self, wish: Box<TcWish>, netem: Option<Netem>) -> Publication {
        let mut effects = self.done(wish, netem);
        match effects.pop() {
            Some(Effect::Publish(publication)) => publication,
            other => panic!("no publication but {other:?}"),
        }
    }
}

/// What is published: interface and delay in ms, 0 without a netem.
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
fn what_was_read_back_is_published_before_the_answer() {
    let mut bench = Bench::warm();
    let (effects, mut answer) = bench.tc("default", delay(40.0));
    let wish = Bench::begun(effects);
    assert_eq!(wish.order.link.ifindex, 2);
    // The kernel is free to report something else.
    let publication = bench.done_and_published(wish, Some(netem(41)));
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
fn a_burst_collapses_to_the_newest_and_all_are_answered() {
    let mut bench = Bench::warm();
    let (effects, first) = bench.tc("default", delay(1.0));
    let wish = Bench::begun(effects);
    let mut answers = vec![first];
    for ms in 2..=200 {
        let (effects, answer) = bench.tc("default", delay(f64::from(ms)));
        assert!(effects.is_empty(), "{effects:?}");
        answers.push(answer);
    }
    bench.wait(COST);
    let effects = bench.done(wish, Some(netem(1)));
    assert!(
        matches!(
            &effects[..],
            [Effect::Recheck(NetnsKey::Host), Effect::Publish(_)]
        ),
        "{effects:?}"
    );
    bench.published();
    // It waits for a newer one four times as long as the first took.
    assert_eq!(bench.state.wake_at(), Some(bench.moment.now + COST * 4));
    bench.wait(COST * 4);
    let next = Bench::begun(bench.step(Input::Timer));
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
fn changes_of_a_burst_follow_each_other_at_growing_distances() {
    /// What a change takes, and a publication.
    const COST: Duration = Duration::from_millis(1);
    let mut bench = Bench::warm();
    let (effects, _first) = bench.tc("default", delay(1.0));
    let mut wish = Bench::begun(effects);
    for factor in [4, 24, 100, 100] {
        let (effects, _answer) = bench.tc("default", delay(f64::from(factor)));
        assert!(effects.is_empty(), "{effects:?}");
        bench.wait(COST);
        bench.done(wish, Some(netem(1)));
        bench.step(Input::Published(COST));
        bench.wait(COST * factor - Duration::from_nanos(1));
        let early = bench.step(Input::Timer);
        let begins = |effect: &Effect| matches!(effect, Effect::ChangeTc(_));
        assert!(!early.iter().any(begins), "{early:?}");
        bench.wait(Duration::from_nanos(1));
        let mut effects = bench.step(Input::Timer);
        wish = match effects.remove(effects.iter().position(begins).expect("it begins")) {
            Effect::ChangeTc(wish) => wish,
            other => panic!("{other:?}"),
        };
        bench.step(Input::Published(COST));
    }
    // In a gap, it may still go on.
    bench.wait(COST);
    bench.done(wish, Some(netem(1)));
    bench.step(Input::Published(COST));
    bench.wait(COST * 40);
    let (effects, _answer) = bench.tc("default", delay(2.0));
    assert!(effects.is_empty(), "{effects:?}");
    bench.wait(COST * 100);
    let wish = Bench::begun(bench.step(Input::Timer));
    bench.done(wish, Some(netem(2)));
    bench.step(Input::Published(COST));
}

/// Waits until what has to wait for something newer begins; returns how long that took.
fn begun_late(bench: &mut Bench, effects: Vec<Effect>) -> (Box<TcWish>, Duration) {
    let begins = |effect| match effect {
        Effect::ChangeTc(wish) => Some(wish),
        _ => None,
    };
    if let Some(wish) = effects.into_iter().find_map(begins) {
        return (wish, Duration::ZERO);
    }
    let due = bench.state.tc.begin_at().expect("it waits");
    let waited = due - bench.moment.now;
    bench.wait(waited);
    let effects = bench.step(Input::Timer);
    let wish = effects.into_iter().find_map(begins).expect("it begins");
    (wish, waited)
}

#[test]
fn whoever_waits_for_answers_is_soon_let_alone() {
    let mut bench = Bench::warm();
    let mut waits = Vec::new();
    for number in 0..50_u32 {
        // It is sent as soon as the answer is there, which may be before that is known here.
        let (effects, _answer) = bench.tc("default", delay(f64::from(number)));
        let (wish, waited) = begun_late(&mut bench, effects);
        waits.push(waited);
        bench.wait(COST);
        bench.all_published();
        let publication = bench.done_and_published(wish, Some(netem(number.into())));
        for (reply, response) in publication.answers {
            reply.send(response);
        }
    }
    assert_eq!(waits[..3], [Duration::ZERO, COST * 4, COST * 2]);
    assert!(waits[7..].iter().all(Duration::is_zero), "{waits:?}");
    // A burst is one all the same.
    let (effects, _answer) = bench.tc("default", delay(1.0));
    let wish = Bench::begun(effects);
    let (effects, _answer) = bench.tc("default", delay(2.0));
    assert!(effects.is_empty(), "{effects:?}");
    bench.wait(COST);
    bench.all_published();
    let effects = bench.done(wish, Some(netem(1)));
    let (_, waited) = begun_late(&mut bench, effects);
    assert_eq!(waited, COST * 4);
}

#[test]
fn whoever_sends_another_while_one_waits_for_it_sends_a_burst() {
    let mut bench = Bench::warm();
    // The sender comes so late that each is answered before.
    for number in 0..2_u32 {
        let (effects, _answer) = bench.tc("default", delay(f64::from(number)));
        let (wish, _) = begun_late(&mut bench, effects);
        bench.wait(COST);
        bench.all_published();
        drop(bench.done_and_published(wish, Some(netem(number.into()))));
    }
    let (_, _third) = bench.tc("default", delay(3.0));
    let (_, _fourth) = bench.tc("default", delay(4.0));
    let (wish, _) = begun_late(&mut bench, Vec::new());
    bench.wait(COST);
    bench.all_published();
    drop(bench.done_and_published(wish, Some(netem(4))));
    // It began with the second: two changes, and twice as long a wait between them.
    let (effects, _fifth) = bench.tc("default", delay(5.0));
    let (_, waited) = begun_late(&mut bench, effects);
    assert_eq!(waited, COST * 4 * 4);
}

#[test]
fn only_what_a_slider_sends_waits_for_something_newer() {
    let mut bench = Bench::warm();
    let (effects, _first) = bench.tc("default", delay(1.0));
    let wish = Bench::begun(effects);
    let (_, _second) = bench.tc("default", delay(2.0));
    bench.wait(COST);
    let effects = bench.done(wish, Some(netem(1)));
    let begins = |effect: &Effect| matches!(effect, Effect::ChangeTc(_));
    assert!(!effects.iter().any(begins), "{effects:?}");
    // While the burst waits, and while it is under way.
    let (effects, _third) = bench.tc("default", TcOperation::Remove);
    let wish = Bench::begun(effects);
    let (_, _fourth) = bench.tc("default", delay(4.0));
    let (_, _fifth) = bench.tc("default", TcOperation::Remove);
    bench.wait(COST);
    let effects = bench.done(wish, None);
    assert!(effects.iter().any(begins), "{effects:?}");
}

#[test]
fn whoever_does_not_wait_for_answers_sends_a_burst() {
    let mut bench = Bench::warm();
    let (effects, _first) = bench.tc("default", delay(1.0));
    let wish = Bench::begun(effects);
    bench.wait(COST);
    let first = bench.done_and_published(wish, Some(netem(1)));
    bench.step(Input::Published(COST));
    let (effects, _second) = bench.tc("default", delay(2.0));
    assert!(effects.is_empty(), "nobody has an answer yet: {effects:?}");
    drop(first);
    bench.wait(COST * 4);
    let wish = Bench::begun(bench.step(Input::Timer));
    bench.wait(COST);
    bench.done(wish, Some(netem(2)));
    bench.step(Input::Published(COST));
    bench.wait(Duration::from_secs(1));
    bench.step(Input::Timer);
    bench.step(Input::Published(COST));
    let (effects, _third) = bench.tc("default", delay(3.0));
    Bench::begun(effects);
}

#[test]
fn what_is_wrong_is_refused_at_once_by_its_name() {
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
fn a_failure_is_answered_and_the_next_wish_begins() {
    let mut bench = Bench::warm();
    let (effects, _first) = bench.tc("default", delay(1.0));
    let wish = Bench::begun(effects);
    let (_, _second) = bench.tc("default", delay(2.0));
    let result = Err((ErrorKind::Busy, "htb 1: was configured".to_owned()));
    let effects = bench.step(Input::TcChanged(Box::new(TcOutcome {
        wish,
        lease: None,
        result,
    })));
    assert!(
        matches!(&effects[..], [Effect::Recheck(NetnsKey::Host), Effect::ChangeTc(_), Effect::Publish(it)]
            if it.tc.is_empty() && it.answers[0].1.error_kind == Some(ErrorKind::Busy)),
        "{effects:?}"
    );
}

#[test]
fn a_change_that_the_list_does_not_show_makes_none() {
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
fn the_list_comes_before_what_is_about_an_interface_that_is_new_in_it() {
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    bench.publication(links(NetnsKey::Host, &[link(1, "lo", false)]));
    bench.published();
    // The interface is known here but not yet to frontends, whose next list is not due.
    let effects = bench.step(links(NetnsKey::Host, &[link(1, "lo", false), v0(None)]));
    assert!(effects.is_empty(), "{effects:?}");
    let (effects, _answer) = bench.tc("default", delay(5.0));
    let wish = Bench::begun(effects);
    let publication = bench.done_and_published(wish, Some(netem(5)));
    assert!(publication.list.is_some());
    assert_eq!(delays(&publication), [("v0".to_owned(), 5.0)]);
}

#[test]
fn a_look_that_began_before_is_older_than_what_was_read_back() {
    let mut bench = Bench::warm();
    let stale = links(NetnsKey::Host, &[link(1, "lo", false), v0(Some(netem(1)))]);
    let (effects, _answer) = bench.tc("default", delay(5.0));
    let wish = Bench::begun(effects);
    bench.done_and_published(wish, Some(netem(5)));
    bench.step(Input::Published(COST));
    bench.wait(Duration::from_secs(1));
    let late = bench.step(stale);
    let changed = |effect: &Effect| matches!(effect, Effect::Publish(it) if !it.tc.is_empty());
    assert!(!late.iter().any(changed), "{late:?}");
    bench.step(Input::Published(COST));
    bench.wait(Duration::from_secs(1));
    // One that began later is newer: somebody else changed it.
    let fresh = links(NetnsKey::Host, &[link(1, "lo", false), v0(Some(netem(7)))]);
    let publication = bench.publication(fresh);
    assert_eq!(delays(&publication), [("v0".to_owned(), 7.0)]);
}

#[test]
fn configurations_are_repeated_for_a_frontend_that_joined() {
    let mut bench = Bench::warm();
    bench.wait(Duration::from_secs(1));
    let netems = [link(1, "lo", false), v0(Some(netem(5)))];
    bench.publication(links(NetnsKey::Host, &netems));
    bench.published();
    bench.step(Input::FrontendJoined);
    // Others that come and go do not put it off.
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
fn what_waits_when_the_daemon_stops_is_given_up_and_what_is_done_is_answered() {
    let mut bench = Bench::warm();
    let (effects, _first) = bench.tc("default", delay(1.0));
    let wish = Bench::begun(effects);
    let (_, mut second) = bench.tc("default", delay(2.0));
    let effects = bench.state.stop(bench.moment);
    assert!(effects.is_empty(), "{effects:?}");
    second.try_recv().unwrap_err();
    let publication = bench.done_and_published(wish, Some(netem(1)));
    assert_eq!(publication.answers.len(), 1);
}
