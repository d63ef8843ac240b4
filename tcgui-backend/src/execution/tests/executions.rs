//! Tests of the lookup of executions, the time of replies, and the publications.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tcgui_shared::scenario::{
    ErrorCategory, ExecutionState, NetworkScenario, ScenarioExecutionResponse,
    ScenarioExecutionUpdate,
};
use tokio::sync::oneshot;

use super::*;
use crate::bus::{ExecutionPublication, Reply};
use crate::execution::executions::{AT_ONCE, Call, EARLY, Executions};
use crate::execution::machine::{Input, Loss, Moment};
use crate::execution::port::Claim;
use crate::execution::{Action, Command, Start};

type Answer = oneshot::Receiver<ScenarioExecutionResponse>;

struct Bench {
    executions: Executions,
    moment: Moment,
    /// Calls that the port has not answered.
    calls: Vec<(Claim, Call)>,
}

/// Every scenario exists unless its id begins with `no`. `loop` sets its loop flag.
fn known(id: &str) -> Option<Arc<NetworkScenario>> {
    let durations: &[u64] = match id {
        "empty" => &[],
        "fast" => &[50],
        _ => &[100, 100],
    };
    let mut scenario = scenario(id, durations);
    scenario.loop_scenario = id == "loop";
    if id == "wrong" {
        scenario.steps[1].tc_config.delay.base_ms = 1e9;
    }
    (!id.starts_with("no")).then(|| shared(scenario))
}

impl Bench {
    fn new() -> Self {
        Self {
            executions: Executions::new(&"lab".parse().unwrap(), Arc::new(known)),
            moment: Moment {
                now: Instant::now(),
                unix_ms: 5_000_000,
            },
            calls: Vec::new(),
        }
    }

    fn command(&mut self, command: Command) {
        let calls = self.executions.command(command, self.moment);
        self.take(calls);
    }

    /// Keeps the calls that have a reply.
    fn take(&mut self, calls: Vec<(Claim, Call)>) {
        let has_answer = |(_, call): &(_, Call)| !matches!(call, Call::Release { .. });
        self.calls.extend(calls.into_iter().filter(has_answer));
    }

    fn start(&mut self, id: &str, looped: Option<bool>, target: Target) -> Answer {
        let (reply, answer) = Reply::channel();
        self.command(Command::Start(Box::new(Start {
            scenario_id: id.to_owned(),
            looped,
            target,
            reply,
        })));
        answer
    }

    fn act(&mut self, action: Action, target: &Target, known: bool) -> Answer {
        let (reply, answer) = Reply::channel();
        self.command(Command::On {
            names: target.names.clone(),
            key: known.then_some(target.key),
            action,
            reply,
        });
        answer
    }

    /// Answers the oldest call of the port.
    fn answer(&mut self) {
        let (claim, call) = self.calls.remove(0);
        let answer = match call {
            Call::Capture => Input::Captured(Ok(())),
            Call::Set(_) | Call::Restore | Call::Release { .. } => Input::Changed(Ok(())),
        };
        let calls = self.executions.answered(claim.number, answer, self.moment);
        self.take(calls);
    }

    fn running(id: &str, target: Target) -> Self {
        let mut bench = Self::new();
        let mut answer = bench.start(id, None, target);
        bench.answer();
        bench.answer();
        let answer = answer.try_recv().unwrap();
        assert!(
            matches!(answer, ScenarioExecutionResponse::Started { .. }),
            "{answer:?}"
        );
        bench.updates();
        bench
    }

    fn tick(&mut self) {
        let calls = self.executions.tick(self.moment);
        self.take(calls);
    }

    fn wait(&mut self, ms: u64) {
        self.moment.now += Duration::from_millis(ms);
        self.moment.unix_ms += ms;
    }

    fn updates(&mut self) -> Vec<Option<ScenarioExecutionUpdate>> {
        let publications = self.executions.take_publications(self.moment);
        publications.into_iter().map(|it| it.update).collect()
    }
}

fn error(answer: &mut Answer) -> tcgui_shared::scenario::ScenarioError {
    match answer.try_recv().unwrap() {
        ScenarioExecutionResponse::Error { error } => error,
        other => panic!("no error: {other:?}"),
    }
}

#[test]
fn invalid_start_requests_are_refused() {
    let mut bench = Bench::new();
    for (id, looped, category, word) in [
        ("nowhere", None, ErrorCategory::Permanent, "nowhere"),
        ("empty", None, ErrorCategory::Validation, "no steps"),
        ("fast", Some(true), ErrorCategory::Validation, "100 ms"),
        ("wrong", None, ErrorCategory::Validation, "step 2"),
    ] {
        let error = error(&mut bench.start(id, looped, target(1, 1)));
        assert_eq!(error.category, category, "{error:?}");
        assert!(error.message.contains(word), "{error:?}");
    }
    assert!(bench.calls.is_empty() && bench.updates().is_empty());
}

#[test]
fn an_interface_has_one_execution_under_any_name() {
    let mut bench = Bench::running("a", target(1, 1));
    for same in [target(1, 1), target(1, 2), target(3, 1)] {
        let error = error(&mut bench.start("b", None, same));
        assert_eq!(error.category, ErrorCategory::Permanent);
        assert!(error.message.contains("already running"), "{error:?}");
        assert!(error.suggestion.is_some());
    }
    bench.start("b", None, target(2, 2));
    assert_eq!(bench.calls.len(), 1);
    // It is found by its key and by the name under which it was started.
    for (at, known) in [(target(1, 9), true), (target(9, 1), false)] {
        let mut answer = bench.act(Action::Status, &at, known);
        let ScenarioExecutionResponse::Status { execution } = answer.try_recv().unwrap() else {
            panic!("no status")
        };
        assert_eq!(execution.unwrap().target_interface, "v1");
    }
}

#[test]
fn an_execution_follows_a_rename_of_its_namespace() {
    let mut bench = Bench::running("a", target(1, 1));
    let name = NamespaceName::named("lab").unwrap();
    let renamed = || Command::Renamed {
        netns: NetnsKey::Host,
        name: name.clone(),
    };
    bench.command(renamed());
    let publications = bench.executions.take_publications(bench.moment);
    let published: Vec<_> = publications
        .into_iter()
        .map(|it| (it.netns.to_wire(), it.update.map(|it| it.execution.state)))
        .collect();
    assert_eq!(
        published,
        [
            // Without this update frontends would show it there for ever.
            ("default".to_owned(), Some(ExecutionState::Stopped)),
            ("default".to_owned(), None),
            ("lab".to_owned(), Some(ExecutionState::Running))
        ]
    );
    // Another namespace may have the old name, so that name finds nothing.
    let mut answer = bench.act(Action::Status, &target(9, 1), false);
    assert_eq!(
        answer.try_recv().unwrap(),
        ScenarioExecutionResponse::Status { execution: None }
    );
    let mut lab = target(9, 1);
    lab.names.netns = name;
    let mut answer = bench.act(Action::Stop, &lab, false);
    bench.answer();
    assert_eq!(
        answer.try_recv().unwrap(),
        ScenarioExecutionResponse::Stopped { success: true }
    );
    let last = bench.updates().remove(0).unwrap();
    assert_eq!(last.execution.target_namespace, "lab");
    bench.wait(10_000);
    bench.tick();
    assert_eq!(bench.updates(), [None], "one publisher, which is removed");
}

/// Returns the key and state of each publication. `None` means that it was withdrawn.
fn states(bench: &mut Bench) -> Vec<(String, Option<ExecutionState>)> {
    let publications = bench.executions.take_publications(bench.moment);
    let state = |it: ExecutionPublication| {
        let state = it.update.map(|update| update.execution.state);
        (it.interface.to_wire(), state)
    };
    publications.into_iter().map(state).collect()
}

fn link_renamed(ifindex: u32, name: u32) -> Command {
    let Target { key, names } = target(ifindex, name);
    let interface = names.interface;
    Command::LinkRenamed { key, interface }
}

#[test]
fn an_execution_follows_a_rename_of_its_link() {
    let mut bench = Bench::running("a", target(1, 1));
    bench.command(link_renamed(1, 2));
    assert_eq!(
        states(&mut bench),
        [
            ("v1".to_owned(), Some(ExecutionState::Stopped)),
            ("v1".to_owned(), None),
            ("v2".to_owned(), Some(ExecutionState::Running)),
        ]
    );
    bench.command(link_renamed(1, 2));
    assert!(states(&mut bench).is_empty(), "it is called so already");
    // Another link has the old name. Requests to it must not reach the execution.
    for action in [Action::Stop, Action::Pause, Action::Resume, Action::Status] {
        bench.act(action, &target(5, 1), true).try_recv().unwrap();
    }
    assert!(bench.calls.is_empty() && states(&mut bench).is_empty());
    let mut answer = bench.act(Action::Stop, &target(1, 2), true);
    bench.answer();
    assert_eq!(
        answer.try_recv().unwrap(),
        ScenarioExecutionResponse::Stopped { success: true }
    );
    let last = states(&mut bench);
    assert_eq!(last, [("v2".to_owned(), Some(ExecutionState::Stopped))]);
}

#[test]
fn executions_of_links_that_swap_names_swap_their_keys() {
    let mut bench = Bench::running("a", target(1, 1));
    bench.start("b", None, target(2, 2));
    bench.answer();
    bench.answer();
    bench.updates();
    bench.command(link_renamed(1, 2));
    bench.command(link_renamed(2, 1));
    let publications = bench.executions.take_publications(bench.moment);
    let published: Vec<_> = publications
        .into_iter()
        .map(|it| (it.interface.to_wire(), it.update.unwrap().execution))
        .map(|(interface, execution)| (interface, execution.scenario.id, execution.state))
        .collect();
    let running = |at: &str, id: &str| (at.to_owned(), id.to_owned(), ExecutionState::Running);
    assert_eq!(published, [running("v1", "b"), running("v2", "a")]);
}

#[test]
fn an_execution_renamed_while_capturing_begins_under_the_new_name() {
    let mut bench = Bench::new();
    let mut answer = bench.start("a", None, target(1, 1));
    bench.command(link_renamed(1, 2));
    assert!(states(&mut bench).is_empty(), "nothing was published");
    bench.answer();
    answer.try_recv().unwrap();
    let begun = states(&mut bench);
    assert_eq!(begun, [("v2".to_owned(), Some(ExecutionState::Running))]);
}

#[test]
fn the_reply_names_the_execution_and_the_length_of_one_pass() {
    let mut bench = Bench::new();
    let mut answer = bench.start("a", Some(true), target(1, 1));
    answer.try_recv().unwrap_err();
    bench.answer();
    assert_eq!(
        answer.try_recv().unwrap(),
        ScenarioExecutionResponse::Started {
            execution_id: "default/v1".to_owned(),
            estimated_duration_ms: 200,
        }
    );
}

#[test]
fn the_scenario_decides_about_the_loop_if_the_request_does_not() {
    for (id, looped, expected) in [
        ("a", None, false),
        ("loop", None, true),
        ("loop", Some(false), false),
        ("a", Some(true), true),
    ] {
        let mut bench = Bench::new();
        bench.start(id, looped, target(1, 1));
        bench.answer();
        let updates = bench.updates();
        let update = updates[0].as_ref().unwrap();
        assert_eq!(update.execution.loop_execution, expected, "{id} {looped:?}");
    }
}

#[test]
fn a_stop_is_answered_when_the_interface_is_restored() {
    let mut bench = Bench::running("a", target(1, 1));
    let mut answer = bench.act(Action::Stop, &target(1, 1), true);
    let mut again = bench.act(Action::Stop, &target(1, 1), true);
    answer.try_recv().unwrap_err();
    assert_eq!(bench.calls[0].1, Call::Restore);
    bench.answer();
    let stopped = ScenarioExecutionResponse::Stopped { success: true };
    assert_eq!(answer.try_recv().unwrap(), stopped);
    assert_eq!(again.try_recv().unwrap(), stopped);
    let mut late = bench.act(Action::Stop, &target(1, 1), true);
    let nothing = ScenarioExecutionResponse::Stopped { success: false };
    assert_eq!(late.try_recv().unwrap(), nothing);
    // Another execution can begin before the last update is published.
    let mut next = bench.start("b", None, target(1, 1));
    bench.answer();
    next.try_recv().unwrap();
}

#[test]
fn updates_and_replies_contain_current_data() {
    let mut bench = Bench::running("a", target(1, 1));
    bench.wait(100);
    bench.tick();
    bench.answer();
    bench.act(Action::Pause, &target(1, 1), true);
    let updates = bench.updates();
    let [Some(update)] = &updates[..] else {
        panic!("{updates:?}")
    };
    assert_eq!(update.execution.current_step, 1);
    assert_eq!(update.execution.stats.steps_completed, 1);
    assert_eq!(update.execution.stats.tc_operations, 2);
    let paused_at = bench.moment.unix_ms;
    assert_eq!(update.execution.state, ExecutionState::Paused { paused_at });
    let mut status = bench.act(Action::Status, &target(1, 1), true);
    let expected = ScenarioExecutionResponse::Status {
        execution: Some(Box::new(update.execution.clone())),
    };
    assert_eq!(status.try_recv().unwrap(), expected);
    let (reply, mut listed) = Reply::channel();
    bench.command(Command::ListActive(reply));
    let expected = ScenarioExecutionResponse::ActiveExecutions {
        executions: vec![update.execution.clone()],
    };
    assert_eq!(listed.try_recv().unwrap(), expected);
}

#[test]
fn the_publisher_is_removed_some_time_after_the_end() {
    let mut bench = Bench::running("a", target(1, 1));
    bench.command(Command::Lost {
        key: target(1, 1).key,
        number: 1,
        loss: Loss::Gone,
    });
    let updates = bench.updates();
    assert!(
        updates[0].as_ref().unwrap().execution.state.is_terminal(),
        "{updates:?}"
    );
    let due = bench.executions.wake_at().expect("it retires");
    assert_eq!(due, bench.moment.now + Duration::from_secs(10));
    // The publisher stays while another execution runs there.
    bench.wait(9000);
    bench.start("b", None, target(2, 1));
    bench.answer();
    bench.answer();
    bench.act(Action::Pause, &target(2, 1), true);
    bench.updates();
    bench.wait(5000);
    bench.tick();
    assert_eq!(bench.updates(), []);
    bench.act(Action::Stop, &target(2, 1), true);
    bench.answer();
    bench.updates();
    bench.wait(10_000);
    bench.tick();
    assert_eq!(bench.updates(), [None]);
    assert_eq!(bench.executions.wake_at(), None);
}

#[test]
fn timestamps_never_go_back() {
    let mut bench = Bench::running("a", target(1, 1));
    bench.moment.unix_ms -= 1_000_000;
    bench.act(Action::Pause, &target(1, 1), true);
    let updates = bench.updates();
    assert_eq!(updates[0].as_ref().unwrap().timestamp, 5_000_000);
}

#[test]
fn a_late_loss_of_an_earlier_execution_does_not_end_the_next() {
    let mut bench = Bench::running("a", target(1, 1));
    bench.act(Action::Stop, &target(1, 1), true);
    bench.answer();
    bench.start("b", None, target(1, 1));
    bench.answer();
    bench.command(Command::Lost {
        key: target(1, 1).key,
        number: 1,
        loss: Loss::TakenOver,
    });
    let updates = bench.updates();
    let state = &updates[0].as_ref().unwrap().execution.state;
    assert_eq!(*state, ExecutionState::Running);
}

#[derive(Debug, Clone)]
enum Act {
    Start(u32, u32, Option<bool>),
    On(u8, u32, u32, bool),
    Lost(u32, Loss),
    Answer,
    Publish,
    Wait(u64),
    End(bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let loss = prop_oneof![Just(Loss::Gone), Just(Loss::TakenOver), Just(Loss::Left)];
    let looped = prop_oneof![Just(None), Just(Some(false)), Just(Some(true))];
    let act = prop_oneof![
        6 => (1_u32..4, 1_u32..4, looped).prop_map(|(a, b, c)| Act::Start(a, b, c)),
        6 => (0_u8..4, 1_u32..4, 1_u32..4, any::<bool>())
            .prop_map(|(a, b, c, d)| Act::On(a, b, c, d)),
        2 => (1_u32..4, loss).prop_map(|(a, b)| Act::Lost(a, b)),
        16 => Just(Act::Answer),
        6 => Just(Act::Publish),
        8 => (0_u64..120).prop_map(Act::Wait),
        1 => any::<bool>().prop_map(Act::End),
    ];
    prop::collection::vec(act, 1..120)
}

/// Checks the invariants of all publications from the view of a frontend.
#[derive(Default)]
struct Frontend {
    timestamp: u64,
    ended: Vec<String>,
    /// The execution that is shown for each name.
    shown: std::collections::HashMap<String, String>,
}

impl Frontend {
    fn see(&mut self, update: &ScenarioExecutionUpdate) -> Result<(), TestCaseError> {
        let id = &update.execution.scenario.id;
        prop_assert!(update.timestamp >= self.timestamp);
        self.timestamp = update.timestamp;
        prop_assert!(!self.ended.contains(id), "{} after its end", id);
        if update.execution.state.is_terminal() {
            self.ended.push(id.clone());
            self.shown.remove(&update.interface);
        } else {
            self.shown.insert(update.interface.clone(), id.clone());
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn any_requests_keep_one_execution_per_interface(acts in acts()) {
        let mut bench = Bench::new();
        let mut frontend = Frontend::default();
        let mut answers = Vec::new();
        for (index, act) in acts.into_iter().enumerate() {
            match act {
                Act::Start(ifindex, name, looped) => {
                    answers.push(bench.start(&format!("s{index}"), looped, target(ifindex, name)));
                }
                Act::On(action, ifindex, name, known) => {
                    let action = [Action::Stop, Action::Pause, Action::Resume, Action::Status]
                        [usize::from(action)];
                    answers.push(bench.act(action, &target(ifindex, name), known));
                }
                Act::Lost(ifindex, loss) => {
                    let key = target(ifindex, 1).key;
                    let of_key = |(claim, _): &&(Claim, Call)| claim.target.key == key;
                    let number = bench.calls.iter().rev().find(of_key).map_or(1, |it| it.0.number);
                    bench.command(Command::Lost { key, number, loss });
                }
                Act::Answer if bench.calls.is_empty() => {}
                Act::Answer => bench.answer(),
                Act::Publish => {
                    for update in bench.updates().into_iter().flatten() {
                        frontend.see(&update)?;
                    }
                }
                Act::Wait(ms) => {
                    bench.wait(ms);
                    bench.tick();
                }
                Act::End(restore) => {
                    let (done, _) = oneshot::channel();
                    bench.command(Command::End { restore, done });
                }
            }
            let (reply, mut listed) = Reply::channel();
            bench.command(Command::ListActive(reply));
            let ScenarioExecutionResponse::ActiveExecutions { executions } =
                listed.try_recv().unwrap() else { panic!("no list") };
            let mut interfaces: Vec<_> =
                executions.iter().map(|it| it.target_interface.clone()).collect();
            interfaces.sort();
            interfaces.dedup();
            prop_assert_eq!(interfaces.len(), executions.len(), "two on one interface");
            prop_assert!(executions.iter().all(|it| !it.state.is_terminal()));
        }
        let (done, _) = oneshot::channel();
        bench.command(Command::End { restore: true, done });
        while !bench.calls.is_empty() {
            bench.answer();
        }
        for update in bench.updates().into_iter().flatten() {
            frontend.see(&update)?;
        }
        prop_assert!(bench.executions.is_done());
        prop_assert!(frontend.shown.is_empty(), "still shown: {:?}", frontend.shown);
        for mut answer in answers {
            answer.try_recv().expect("every request is answered");
        }
    }
}

#[test]
fn all_due_steps_begin_and_none_begins_earlier_than_the_clock_resolution() {
    let mut bench = Bench::new();
    let count = u32::try_from(AT_ONCE).unwrap() + 1;
    for number in 1..=count {
        bench.start("a", None, target(number, number));
        bench.answer();
        bench.answer();
    }
    let due = bench.executions.wake_at().unwrap();
    bench.moment.now = due - EARLY - Duration::from_micros(1);
    bench.tick();
    assert!(bench.calls.is_empty(), "too early");
    bench.moment.now = due - EARLY;
    bench.tick();
    assert_eq!(bench.calls.len(), AT_ONCE);
    assert_eq!(bench.executions.wake_at(), Some(due), "at once again");
    bench.tick();
    assert_eq!(bench.calls.len(), AT_ONCE + 1);
}
