//! Random histories of links, with leases and executions, against a model of the kernel.
//!
//! The state learns of the model only by dumps, and work takes time. At the end, after all work is done, each netem has a lease
//! or an execution, and each lease and execution has its link.

mod world;

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tcgui_shared::netem::FlatNetem;
use tcgui_shared::tc::{TcOperation, TcRequest, TcResponse};
use tokio::sync::oneshot;

use super::executions::start;
use super::*;
use crate::backend::state::executions::Asked;
use crate::execution::{Claim, Command};
use crate::lease::Owner;
use world::{NAMESPACES, World};

/// Lifetime of a client's change.
const TTL: Duration = Duration::from_secs(5);

/// A random event. Namespaces, indexes and names are numbers. Events that are impossible in the model are skipped.
#[derive(Debug, Clone, Copy)]
enum Event {
    Add {
        netns: usize,
        index: u32,
        name: usize,
    },
    Delete {
        netns: usize,
        index: u32,
    },
    Rename {
        netns: usize,
        index: u32,
        name: usize,
    },
    /// The link is deleted and created again with the same name and index.
    Remake {
        netns: usize,
        index: u32,
    },
    /// The link is moved to the other namespace, with the same name and index.
    Move {
        netns: usize,
        index: u32,
    },
    /// The daemon dumps the links of a namespace.
    Look {
        netns: usize,
    },
    Apply {
        netns: usize,
        name: usize,
    },
    Start {
        netns: usize,
        name: usize,
    },
    /// An execution begins its next step.
    Step {
        run: usize,
    },
    Stop {
        run: usize,
    },
    /// The oldest work under way ends.
    Done,
    Wait,
}

fn event() -> impl Strategy<Value = Event> {
    let at = || (0..2_usize, 2..5_u32);
    let named = || (0..2_usize, 0..3_usize);
    prop_oneof![
        2 => (at(), 0..3_usize).prop_map(|((netns, index), name)| Event::Add { netns, index, name }),
        1 => at().prop_map(|(netns, index)| Event::Delete { netns, index }),
        2 => (at(), 0..3_usize)
            .prop_map(|((netns, index), name)| Event::Rename { netns, index, name }),
        2 => at().prop_map(|(netns, index)| Event::Remake { netns, index }),
        1 => at().prop_map(|(netns, index)| Event::Move { netns, index }),
        3 => (0..2_usize).prop_map(|netns| Event::Look { netns }),
        3 => named().prop_map(|(netns, name)| Event::Apply { netns, name }),
        3 => named().prop_map(|(netns, name)| Event::Start { netns, name }),
        3 => (0..4_usize).prop_map(|run| Event::Step { run }),
        1 => (0..4_usize).prop_map(|run| Event::Stop { run }),
        5 => Just(Event::Done),
        1 => Just(Event::Wait),
    ]
}

/// The reply that an execution waits for.
#[derive(Debug)]
enum Phase {
    Looking(oneshot::Receiver<TcResponse>),
    Stepping(oneshot::Receiver<TcResponse>),
    Restoring(oneshot::Receiver<TcResponse>),
    Holding,
    Over,
}

/// An execution, reduced to its calls about traffic control.
#[derive(Debug)]
struct Run {
    claim: Claim,
    phase: Phase,
    is_lost: bool,
}

struct Lab {
    bench: Bench,
    world: World,
    under_way: VecDeque<Box<PendingTcChange>>,
    runs: Vec<Run>,
}

impl Lab {
    fn new() -> Self {
        let mut lab = Self {
            bench: Bench::cold(&[("a", A)]),
            world: World::default(),
            under_way: VecDeque::new(),
            runs: Vec::new(),
        };
        for (number, netns) in NAMESPACES.into_iter().enumerate() {
            lab.world.add(netns, 2, World::name(1));
            lab.world.add(netns, 3, World::name(2));
            lab.look(number);
        }
        lab
    }

    fn step(&mut self, input: Input) {
        let effects = self.bench.step(input);
        let mut is_published = false;
        let mut started = Vec::new();
        for effect in effects {
            match effect {
                Effect::ChangeTc(change) => self.under_way.push_back(change),
                Effect::Publish(publication) => {
                    is_published = true;
                    for (reply, response) in publication.answers {
                        reply.send(response);
                    }
                }
                Effect::Execution(command) => started.extend(self.command(command)),
                _ => {}
            }
        }
        for claim in started {
            let phase = Phase::Looking(self.call(claim.clone(), Asked::Look));
            self.runs.push(Run {
                claim,
                phase,
                is_lost: false,
            });
        }
        if is_published {
            self.step(Input::Published(COST));
        }
        self.poll();
    }

    /// Starts an execution and returns its claim.
    fn command(&mut self, command: Command) -> Option<Claim> {
        let is_over = |run: &Run| matches!(run.phase, Phase::Over);
        match command {
            Command::Start(start) => {
                let runs = self.runs.iter().filter(|run| !is_over(run));
                let mut keys = runs.map(|run| run.claim.target.key);
                if keys.any(|key| key == start.target.key) {
                    return None;
                }
                return Some(Claim {
                    number: self.runs.len() as u64 + 1,
                    scenario: "blip".into(),
                    target: start.target,
                });
            }
            Command::Lost { number, .. } => {
                let run = self.runs.iter_mut().find(|run| run.claim.number == number);
                run.expect("it was started").is_lost = true;
            }
            Command::LinkRenamed { key, interface } => {
                let mut runs = self.runs.iter_mut().filter(|run| !is_over(run));
                if let Some(run) = runs.find(|run| run.claim.target.key == key) {
                    run.claim.target.names.interface = interface;
                }
            }
            _ => {}
        }
        None
    }

    fn call(&mut self, claim: Claim, asked: Asked) -> oneshot::Receiver<TcResponse> {
        let (reply, answer) = Reply::channel();
        let call = TcCall {
            claim,
            asked,
            reply,
        };
        self.step(Input::TcCall(Box::new(call)));
        answer
    }

    /// Continues the executions that have a reply or have lost their interface.
    fn poll(&mut self) {
        for number in 0..self.runs.len() {
            let run = &mut self.runs[number];
            let answered = match &mut run.phase {
                Phase::Looking(answer) | Phase::Stepping(answer) | Phase::Restoring(answer) => {
                    match answer.try_recv() {
                        Ok(response) => Some(response),
                        Err(_) => continue,
                    }
                }
                Phase::Holding if run.is_lost => None,
                Phase::Holding | Phase::Over => continue,
            };
            let succeeded = answered.as_ref().is_none_or(|it| it.success);
            let is_gone = answered.is_some_and(|it| it.error_kind == Some(ErrorKind::NotFound));
            let is_restoring = matches!(run.phase, Phase::Restoring(_));
            if succeeded && !run.is_lost && !is_restoring {
                run.phase = Phase::Holding;
                continue;
            }
            let owed = is_restoring && !run.is_lost && !succeeded && !is_gone;
            run.phase = Phase::Over;
            let claim = run.claim.clone();
            drop(self.call(claim, Asked::Release { owed }));
        }
    }

    fn look(&mut self, netns: usize) {
        let key = NAMESPACES[netns];
        let seen = self.world.links(key);
        self.bench.wait(Duration::from_millis(10));
        self.step(links(key, &seen));
    }

    fn apply(&mut self, netns: usize, name: usize) {
        let (reply, _) = Reply::channel();
        let request = TcRequest {
            namespace: ["default", "a"][netns].to_owned(),
            interface: World::name(name).to_owned(),
            operation: TcOperation::Apply(FlatNetem {
                delay_ms: Some(5.0),
                ..FlatNetem::default()
            }),
            ttl_ms: u64::try_from(TTL.as_millis()).ok(),
            confirm_within_ms: None,
            lease_token: None,
            client: None,
        };
        self.step(Input::Request(Request::Tc(Box::new(request), reply)));
    }

    fn run_asks(
        &mut self,
        run: usize,
        asked: Asked,
        then: fn(oneshot::Receiver<TcResponse>) -> Phase,
    ) {
        let found = self.runs.get(run);
        let Some(run_now) = found.filter(|run| matches!(run.phase, Phase::Holding)) else {
            return;
        };
        let answer = self.call(run_now.claim.clone(), asked);
        // The call may have caused the loss of the interface.
        if matches!(self.runs[run].phase, Phase::Holding) {
            self.runs[run].phase = then(answer);
        }
        self.poll();
    }

    fn next_step(&mut self, run: usize) {
        let config = TcNetemConfig::default();
        let step = Asked::Change(Box::new(TcOperation::ApplyConfig { config }));
        self.run_asks(run, step, Phase::Stepping);
    }

    fn stop(&mut self, run: usize) {
        let restore = Asked::Change(Box::new(TcOperation::Remove));
        self.run_asks(run, restore, Phase::Restoring);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Add { netns, index, name } => {
                self.world.add(NAMESPACES[netns], index, World::name(name));
            }
            Event::Delete { netns, index } => self.world.delete(NAMESPACES[netns], index),
            Event::Rename { netns, index, name } => {
                self.world
                    .rename(NAMESPACES[netns], index, World::name(name));
            }
            Event::Remake { netns, index } => self.world.remake(NAMESPACES[netns], index),
            Event::Move { netns, index } => {
                self.world
                    .move_to(NAMESPACES[netns], NAMESPACES[1 - netns], index);
            }
            Event::Look { netns } => self.look(netns),
            Event::Apply { netns, name } => self.apply(netns, name),
            Event::Start { netns, name } => {
                let (reply, _) = Reply::channel();
                let request = start(["default", "a"][netns], World::name(name));
                self.step(Input::Request(Request::Execution(request, reply)));
            }
            Event::Step { run } => self.next_step(run),
            Event::Stop { run } => self.stop(run),
            Event::Done => self.done(),
            Event::Wait => {
                self.bench.wait(Duration::from_secs(1));
                self.step(Input::Timer);
            }
        }
    }

    /// Ends the oldest work under way with the state that is read back.
    fn done(&mut self) {
        if let Some(change) = self.under_way.pop_front() {
            let result = self.world.carry_out(&change.order);
            self.step(Input::TcChanged(Box::new(TcOutcome { change, result })));
        }
    }

    /// Dumps the links and ends all work until there is no further effect.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.look(0);
            self.look(1);
            while !self.under_way.is_empty() {
                self.done();
            }
        }
    }

    /// Checks that each netem has a lease or an execution, and that each of these has its link.
    fn check(&self) {
        let ledger = &self.bench.state.ledger;
        let alive = |run: &&Run| !matches!(run.phase, Phase::Over);
        let alive: Vec<_> = self.runs.iter().filter(alive).collect();
        for run in &alive {
            let key = run.claim.target.key;
            let link = self.world.get((key.netns, key.ifindex));
            let link = link.unwrap_or_else(|| panic!("{run:?} runs without its link"));
            let named = run.claim.target.names.interface.to_wire();
            assert_eq!(named, link.name, "it goes along with the name");
            assert!(!run.is_lost, "{run:?}");
            let begun_on = self.world.life_of(run.claim.number);
            let is_its = begun_on.is_none_or(|life| life == link.life);
            assert!(
                is_its,
                "{run:?} began on {begun_on:?} and goes on on {link:?}"
            );
        }
        for (key, link) in self.world.all() {
            let lease = ledger.get(key);
            let is_free = link.netem.is_none() || lease.is_some();
            assert!(is_free, "{key:?} {link:?} is impaired without a lease");
            if let Some(Owner::Scenario { id }) = lease.map(|lease| &lease.owner) {
                let is_its = |run: &&&Run| *id == format!("blip #{}", run.claim.number);
                let is_running = alive.iter().any(|run| is_its(&run));
                assert!(
                    is_running,
                    "{link:?} is under a lease of {id:?}, which is over"
                );
            }
            let written = lease.is_none_or(|lease| lease.ifname == link.name);
            assert!(written, "{lease:?} has another name than {link:?}");
        }
        for (key, _) in ledger.scenarios() {
            assert!(
                self.world.get(key).is_some(),
                "a lease without a link: {key:?}"
            );
        }
    }

    /// Ends all executions and leases.
    fn end(&mut self) {
        for run in 0..self.runs.len() {
            self.stop(run);
        }
        self.settle();
        self.bench.wait(TTL * 2);
        self.settle();
        let all = self.world.all().map(|(_, link)| link);
        let impaired: Vec<_> = all.filter(|link| link.netem.is_some()).collect();
        assert!(impaired.is_empty(), "{impaired:?}");
        assert!(self.bench.state.ledger.is_empty());
        let over = |run: &Run| matches!(run.phase, Phase::Over);
        assert!(self.runs.iter().all(over), "{:?}", self.runs);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]
    #[test]
    fn executions_and_leases_follow_their_links(events in prop::collection::vec(event(), 1..60)) {
        let mut lab = Lab::new();
        for event in events {
            lab.take(event);
        }
        lab.settle();
        lab.check();
        lab.end();
    }
}
