//! Tests that requests for one interface take effect in the order of arrival, whatever their kind.
//!
//! Two states get the same random requests. In one of them work takes time, so that requests wait in the lane. In the other
//! one all work is done before the next request. The state of the kernel must be the same at the end.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tcgui_shared::netem::FlatNetem;
use tcgui_shared::tc::{TcOperation, TcRequest, TcResponse};
use tokio::sync::oneshot;

use super::leases::observed_netem;
use super::*;
use crate::backend::state::executions::Asked;
use crate::execution::{Claim, InterfaceKey, InterfaceNames, Target};
use crate::kernel::netem::Netem;
use crate::lease::LeaseNetns;
use crate::tc::perform::Outcome;
use crate::tc::plan::Plan;

const V0: (NetnsKey, u32) = (NetnsKey::Host, 2);
const NETNS: LeaseNetns = LeaseNetns::Own {
    device: 4,
    inode: 1,
    cookie: None,
};

/// The end of a client's change.
#[derive(Debug, Clone, Copy)]
enum End {
    TimeToLive,
    Unconfirmed,
}

#[derive(Debug, Clone)]
enum Event {
    Link {
        up: bool,
    },
    Apply {
        end: Option<End>,
    },
    Remove {
        end: Option<End>,
    },
    /// A scenario claims the interface with its first look.
    Start,
    Step,
    /// The scenario ends.
    End {
        owed: bool,
    },
    /// A second passes, after all work is done.
    Tick,
    /// The work under way ends.
    Done,
}

fn end() -> impl Strategy<Value = Option<End>> {
    prop_oneof![
        2 => Just(None),
        1 => Just(Some(End::TimeToLive)),
        1 => Just(Some(End::Unconfirmed)),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => any::<bool>().prop_map(|up| Event::Link { up }),
        4 => end().prop_map(|end| Event::Apply { end }),
        2 => end().prop_map(|end| Event::Remove { end }),
        1 => Just(Event::Start),
        2 => Just(Event::Step),
        1 => any::<bool>().prop_map(|owed| Event::End { owed }),
        1 => Just(Event::Tick),
        4 => Just(Event::Done),
    ]
}

/// The changes that were sent to the kernel, in order.
#[derive(Debug, Clone, PartialEq)]
enum Operation {
    Up(bool),
    /// The delay in milliseconds that a client requested. `None`: a removal.
    Tc(Option<u64>),
}

impl Operation {
    /// Returns whether this change may be skipped if `next` follows it.
    fn is_replaced_by(&self, next: Option<&Self>) -> bool {
        match (self, next) {
            (Self::Tc(Some(_)), Some(Self::Tc(_))) => true,
            (Self::Tc(None), Some(Self::Tc(next))) => next.is_none(),
            _ => false,
        }
    }
}

/// Returns whether `done` is `asked` without requests that a newer one replaced.
fn is_in_order(asked: &[Operation], done: &[Operation]) -> bool {
    let Some((first, rest)) = asked.split_first() else {
        return done.is_empty();
    };
    let is_done = done.first() == Some(first) && is_in_order(rest, &done[1..]);
    is_done || first.is_replaced_by(done.first()) && is_in_order(rest, done)
}

enum Answer {
    Link(bool, oneshot::Receiver<InterfaceControlResponse>),
    /// The operation, and the number of requests before it.
    Tc(Operation, usize, oneshot::Receiver<TcResponse>),
}

/// A state with a kernel that has one link, v0.
struct Lab {
    bench: Bench,
    under_way: Option<Effect>,
    up: bool,
    delay: Option<u64>,
    /// The requests of clients and the work done for them, without scenarios, restorations and refusals.
    asked: Vec<Operation>,
    done: Vec<Operation>,
    answers: Vec<Answer>,
    claim: u64,
    is_slow: bool,
}

fn netem(delay_ms: u64) -> Netem {
    Netem {
        limit: 1000,
        latency_ns: delay_ms * 1_000_000,
        ..Netem::default()
    }
}

impl Lab {
    fn new(is_slow: bool) -> Self {
        Self {
            bench: Bench::warm(),
            under_way: None,
            up: true,
            delay: None,
            asked: Vec::new(),
            done: Vec::new(),
            answers: Vec::new(),
            claim: 0,
            is_slow,
        }
    }

    fn step(&mut self, input: Input) {
        let effects = self.bench.step(input);
        let mut published = false;
        for effect in effects {
            match effect {
                Effect::ChangeLink(_) | Effect::ChangeTc(_) => {
                    assert!(self.under_way.is_none(), "two at a time: {effect:?}");
                    self.under_way = Some(effect);
                }
                Effect::Publish(publication) => {
                    for (reply, response) in publication.answers {
                        reply.send(response);
                    }
                    published = true;
                }
                _ => {}
            }
        }
        if published {
            self.step(Input::Published(COST));
        }
    }

    fn call(&mut self, asked: Asked) {
        let (reply, _answer) = Reply::channel();
        let claim = Claim {
            number: self.claim,
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
        self.step(Input::TcCall(Box::new(TcCall {
            claim,
            asked,
            reply,
        })));
    }

    fn tc(&mut self, delay: Option<u64>, end: Option<End>) {
        let (reply, answer) = Reply::channel();
        let request = TcRequest {
            namespace: "default".to_owned(),
            interface: "v0".to_owned(),
            operation: operation(delay),
            ttl_ms: matches!(end, Some(End::TimeToLive)).then_some(1500),
            confirm_within_ms: matches!(end, Some(End::Unconfirmed)).then_some(1500),
            lease_token: None,
            client: None,
        };
        let operation = Operation::Tc(delay);
        let number = self.asked.len();
        self.asked.push(operation.clone());
        self.answers.push(Answer::Tc(operation, number, answer));
        self.step(Input::Request(Request::Tc(Box::new(request), reply)));
    }

    /// `number` makes each netem different.
    fn take(&mut self, event: &Event, number: u64) {
        match event {
            Event::Link { up } => {
                let (reply, answer) = Reply::channel();
                let request = InterfaceControlRequest {
                    namespace: "default".to_owned(),
                    interface: "v0".to_owned(),
                    operation: match up {
                        true => InterfaceControlOperation::Enable,
                        false => InterfaceControlOperation::Disable,
                    },
                };
                self.asked.push(Operation::Up(*up));
                self.answers.push(Answer::Link(*up, answer));
                self.step(Input::Request(Request::Interface(request, reply)));
            }
            Event::Apply { end } => self.tc(Some(number), *end),
            Event::Remove { end } => self.tc(None, *end),
            Event::Start => {
                // At most one scenario runs on an interface.
                self.call(Asked::Release { owed: true });
                self.claim = number;
                self.call(Asked::Look);
            }
            Event::Step => self.call(Asked::Change(Box::new(operation(Some(number))))),
            Event::End { owed } => self.call(Asked::Release { owed: *owed }),
            Event::Tick => {
                // Work takes milliseconds. A lease must not end while its work is under way in only one of the states.
                while self.under_way.is_some() {
                    self.finish_one();
                }
                self.bench.wait(Duration::from_secs(1));
                self.step(Input::Timer);
            }
            Event::Done => self.finish_one(),
        }
        while !self.is_slow && self.under_way.is_some() {
            self.finish_one();
        }
    }

    /// The work under way is done.
    fn finish_one(&mut self) {
        match self.under_way.take() {
            Some(Effect::ChangeLink(change)) => {
                self.up = change.order.up;
                self.done.push(Operation::Up(self.up));
                let result = Ok(self.up);
                let outcome = LinkOutcome { change, result };
                self.step(Input::LinkChanged(Box::new(outcome)));
            }
            Some(Effect::ChangeTc(change)) => {
                let lease = self.carry_out(&change);
                let outcome = Outcome {
                    plan: Plan::Nothing,
                    observed: observed_netem(self.delay.map(netem)),
                    notes: Vec::new(),
                };
                let result = TcResult {
                    lease,
                    done_at: Instant::now(),
                    outcome: Ok(outcome),
                };
                self.step(Input::TcChanged(Box::new(TcOutcome { change, result })));
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }

    /// Carries out the work as `tc_worker` does, and returns the lease that is in force then.
    fn carry_out(&mut self, change: &PendingTcChange) -> Option<Lease> {
        let order = &change.order;
        let held = order.held.as_ref();
        match &order.work {
            TcWork::Change { operation, terms } => {
                let wanted = match &**operation {
                    TcOperation::Apply(FlatNetem { delay_ms, .. }) => delay_ms.map(to_ms),
                    _ => None,
                };
                if terms.scenario.is_none() {
                    self.done.push(Operation::Tc(wanted));
                }
                let observed = observed_netem(self.delay.map(netem));
                let of = (NETNS, V0.1, "v0".to_owned());
                self.delay = wanted;
                let wanted = wanted.map(netem);
                let grant = terms.grant(order.begun)?;
                let mut lease = Lease::record(held, of, &observed, wanted, grant);
                lease.set = vec![wanted];
                Some(lease)
            }
            TcWork::Confirm | TcWork::Renew { .. } => panic!("nothing was to be kept"),
            TcWork::Release { .. } => held.cloned().and_then(Lease::released),
            TcWork::Look | TcWork::Fit { .. } => held.cloned(),
            TcWork::Restore => {
                let (ended, left) = held.expect("only what is due").ending(order.begun);
                self.delay = ended.before.netem.map(|(_, it)| it.latency_ns / 1_000_000);
                left
            }
        }
    }

    /// Carries out all work under way and waiting, and ends every lease.
    fn finish_all(&mut self) {
        while self.under_way.is_some() {
            self.finish_one();
        }
        self.call(Asked::Release { owed: true });
        for _ in 0..4 {
            self.bench.wait(Duration::from_secs(1));
            self.step(Input::Timer);
            while self.under_way.is_some() {
                self.finish_one();
            }
        }
        assert!(self.bench.state.ledger.is_empty(), "a lease was lost");
    }

    /// Checks that every client got one response, with the state that was in force after its request.
    fn check_answers(&mut self) {
        for answer in self.answers.drain(..) {
            match answer {
                Answer::Link(up, mut answer) => {
                    let response = answer.try_recv().expect("an answer");
                    assert_eq!((response.success, response.new_state), (true, up));
                }
                Answer::Tc(operation, number, mut answer) => {
                    let response = answer.try_recv().expect("an answer");
                    assert!(response.success, "{response:?}");
                    let applied = response.applied_config.and_then(|it| it.netem.delay_ms);
                    let in_force = Operation::Tc(applied.map(to_ms));
                    let replaced_by = self.asked[number..]
                        .windows(2)
                        .take_while(|pair| pair[0].is_replaced_by(Some(&pair[1])))
                        .map(|pair| &pair[1]);
                    let mut may_be = std::iter::once(&operation).chain(replaced_by);
                    assert!(
                        may_be.any(|it| *it == in_force),
                        "{operation:?}: {in_force:?}"
                    );
                }
            }
        }
    }
}

fn operation(delay_ms: Option<u64>) -> TcOperation {
    match delay_ms {
        None => TcOperation::Remove,
        Some(ms) => TcOperation::Apply(FlatNetem {
            delay_ms: Some(f64::from(u32::try_from(ms).unwrap())),
            ..FlatNetem::default()
        }),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole milliseconds that the test chose"
)]
fn to_ms(delay: f64) -> u64 {
    delay as u64
}

#[test]
fn a_removal_with_an_end_does_not_replace_a_permanent_one() {
    for end in [End::TimeToLive, End::Unconfirmed] {
        let mut lab = Lab::new(true);
        lab.take(&Event::Apply { end: None }, 1);
        lab.finish_one();
        lab.take(&Event::Link { up: false }, 2);
        lab.take(&Event::Remove { end: None }, 3);
        lab.take(&Event::Remove { end: Some(end) }, 4);
        lab.finish_all();
        assert_eq!(lab.delay, None, "{end:?}");
        lab.check_answers();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]
    #[test]
    fn requests_take_effect_in_the_order_of_arrival(
        events in prop::collection::vec(event(), 1..40),
    ) {
        let (mut slow, mut quick) = (Lab::new(true), Lab::new(false));
        for (number, event) in (1..).zip(&events) {
            slow.take(event, number);
            quick.take(event, number);
        }
        slow.finish_all();
        quick.finish_all();
        assert_eq!(quick.asked, quick.done);
        assert!(is_in_order(&slow.asked, &slow.done), "{:?}\n{:?}", slow.asked, slow.done);
        assert_eq!((slow.up, slow.delay), (quick.up, quick.delay));
        slow.check_answers();
        quick.check_answers();
    }
}
