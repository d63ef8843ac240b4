//! Tests of every transition of one execution on a clock that the tests move.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tcgui_shared::error_kind::ErrorKind;
use tcgui_shared::scenario::{ErrorCategory, ExecutionState, NetworkScenario, ScenarioExecution};

use super::*;
use crate::execution::machine::{Effect, Input, Loss, Machine, Moment};
use crate::execution::port::PortError;

const KEPT: Effect = Effect::Release { owed: false };

fn refused(kind: ErrorKind) -> PortError {
    PortError::Refused {
        kind,
        message: "in the words of the kernel".to_owned(),
    }
}

struct Bench {
    machine: Machine,
    moment: Moment,
}

impl Bench {
    fn new(scenario: NetworkScenario, looped: bool) -> Self {
        let moment = Moment {
            now: Instant::now(),
            unix_ms: 1_000_000,
        };
        Self {
            machine: Machine::new(shared(scenario), looped, moment),
            moment,
        }
    }

    /// Returns an execution whose first step is in force.
    fn begun(scenario: NetworkScenario, looped: bool) -> Self {
        let mut bench = Self::new(scenario, looped);
        let effects = bench.step(Input::Captured(Ok(())));
        let first = Impairment::of_step(&config(1));
        assert_eq!(
            effects,
            [Effect::Begun, Effect::Publish, Effect::Set(first)]
        );
        assert_eq!(bench.step(Input::Changed(Ok(()))), [Effect::Publish]);
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        self.machine.step(input, self.moment)
    }

    fn wait(&mut self, ms: u64) {
        self.moment.now += Duration::from_millis(ms);
        self.moment.unix_ms += ms;
    }

    fn see(&self) -> ScenarioExecution {
        self.machine.snapshot(&target(1, 1).names)
    }

    fn failed(&self) -> tcgui_shared::scenario::ScenarioError {
        match self.machine.state() {
            ExecutionState::Failed { error } => error,
            other => panic!("not failed: {other:?}"),
        }
    }
}

#[test]
fn steps_follow_each_other_and_the_last_stays() {
    let mut bench = Bench::begun(scenario("s", &[100, 200]), false);
    bench.wait(99);
    assert!(bench.step(Input::Timer).is_empty());
    bench.wait(1);
    assert_eq!(bench.machine.wake_at(), Some(bench.moment.now));
    assert_eq!(
        bench.step(Input::Timer),
        [Effect::Publish, Effect::Set(netem(2))]
    );
    let seen = bench.see();
    assert_eq!((seen.current_step, seen.stats.steps_completed), (1, 1));
    assert!((seen.stats.progress_percent - 50.0).abs() < 1e-9);
    bench.step(Input::Changed(Ok(())));
    bench.wait(200);
    assert_eq!(
        bench.step(Input::Timer),
        [Effect::Publish, Effect::Ended, KEPT]
    );
    let seen = bench.see();
    assert_eq!(seen.state, ExecutionState::Completed);
    assert_eq!((seen.current_step, seen.stats.steps_completed), (1, 2));
    assert!((seen.stats.progress_percent - 100.0).abs() < 1e-9);
    assert_eq!(seen.stats.tc_operations, 2);
}

#[test]
fn a_loop_starts_over_until_it_is_stopped() {
    let mut bench = Bench::begun(scenario("s", &[100, 100]), true);
    for pass in 1..=3 {
        bench.wait(100);
        bench.step(Input::Timer);
        bench.step(Input::Changed(Ok(())));
        bench.wait(100);
        assert_eq!(
            bench.step(Input::Timer),
            [Effect::Publish, Effect::Set(netem(1))]
        );
        bench.step(Input::Changed(Ok(())));
        let seen = bench.see();
        assert_eq!((seen.loop_iteration, seen.current_step), (pass, 0));
        assert_eq!(seen.stats.steps_completed, 0);
        assert!(seen.stats.progress_percent.abs() < 1e-9);
    }
    assert_eq!(bench.step(Input::Stop), [Effect::Restore]);
    assert_eq!(
        bench.step(Input::Changed(Ok(()))),
        [Effect::Publish, Effect::Ended, KEPT]
    );
    assert_eq!(bench.see().state, ExecutionState::Stopped);
}

#[test]
fn the_duration_of_changes_does_not_delay_later_steps() {
    let mut bench = Bench::begun(scenario("s", &[100; 100]), false);
    let begin = bench.moment.now;
    for step in 1_u32..100 {
        let due = bench.machine.wake_at().unwrap();
        assert_eq!(due, begin + Duration::from_millis(100) * step);
        // The timer and the kernel are late, once by more than a step.
        bench.moment.now = due;
        bench.wait(3);
        assert_eq!(bench.step(Input::Timer).len(), 2);
        bench.wait(if step == 50 { 250 } else { 40 });
        bench.step(Input::Changed(Ok(())));
    }
}

#[test]
fn a_schedule_that_lags_too_far_is_shifted() {
    let mut bench = Bench::begun(scenario("s", &[10; 4]), false);
    bench.wait(60_000);
    bench.step(Input::Timer);
    bench.step(Input::Changed(Ok(())));
    let next = bench.moment.now + Duration::from_millis(10);
    assert_eq!(bench.machine.wake_at(), Some(next));
}

#[test]
fn any_step_duration_is_accepted() {
    let mut bench = Bench::begun(scenario("s", &[u64::MAX]), false);
    assert!(bench.machine.wake_at().unwrap() > bench.moment.now);
    assert_eq!(bench.step(Input::Stop), [Effect::Restore]);
}

#[test]
fn a_pause_keeps_the_remaining_time() {
    let mut bench = Bench::begun(scenario("s", &[100, 100]), false);
    bench.wait(30);
    assert_eq!(bench.step(Input::Pause), [Effect::Publish]);
    let paused_at = bench.moment.unix_ms;
    assert_eq!(bench.see().state, ExecutionState::Paused { paused_at });
    assert_eq!(bench.machine.wake_at(), None);
    bench.wait(5000);
    assert!(bench.step(Input::Timer).is_empty());
    assert!(bench.step(Input::Pause).is_empty(), "it is paused already");
    assert_eq!(bench.step(Input::Resume), [Effect::Publish]);
    assert!(bench.step(Input::Resume).is_empty(), "it runs already");
    let due = bench.moment.now + Duration::from_millis(70);
    assert_eq!(bench.machine.wake_at(), Some(due));
    bench.wait(70);
    bench.step(Input::Timer);
    // The same while a request is with the port.
    assert_eq!(bench.step(Input::Pause), [Effect::Publish]);
    assert_eq!(bench.step(Input::Changed(Ok(()))), [Effect::Publish]);
    assert_eq!(bench.machine.wake_at(), None);
    assert_eq!(
        bench.step(Input::Stop),
        [Effect::Restore],
        "what is paused can be stopped"
    );
}

#[test]
fn a_stop_waits_for_the_kernel_and_then_restores() {
    let mut bench = Bench::begun(scenario("s", &[100, 100]), false);
    bench.wait(100);
    bench.step(Input::Timer);
    assert!(bench.step(Input::Stop).is_empty());
    assert!(!bench.machine.is_under_way());
    assert!(
        bench.step(Input::Pause).is_empty(),
        "it is about to be stopped"
    );
    // The stop restores even if the step failed.
    let result = Err(refused(ErrorKind::Invalid));
    assert_eq!(bench.step(Input::Changed(result)), [Effect::Restore]);
    bench.step(Input::Changed(Ok(())));
    assert_eq!(bench.see().state, ExecutionState::Stopped);
}

#[test]
fn an_execution_that_cannot_begin_reports_the_reason() {
    let mut bench = Bench::new(scenario("s", &[100]), false);
    let effects = bench.step(Input::Captured(Err(refused(ErrorKind::Busy))));
    let [Effect::Refused(error), Effect::Ended, release] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(error.category, ErrorCategory::Transient);
    assert_eq!(error.message, "in the words of the kernel");
    assert_eq!(*release, KEPT);
    let mut stopped = Bench::new(scenario("s", &[100]), false);
    assert!(stopped.step(Input::Stop).is_empty());
    let effects = stopped.step(Input::Captured(Ok(())));
    assert!(
        matches!(&effects[..], [Effect::Refused(_), Effect::Ended, release] if *release == KEPT),
        "{effects:?}"
    );
}

#[test]
fn a_failed_step_ends_the_execution() {
    for (error, category) in [
        (refused(ErrorKind::Invalid), ErrorCategory::Permanent),
        (refused(ErrorKind::Busy), ErrorCategory::Permanent),
        (PortError::Unanswered, ErrorCategory::Transient),
    ] {
        for cleanup in [true, false] {
            let mut scenario = scenario("s", &[100, 100]);
            scenario.cleanup_on_failure = cleanup;
            let mut bench = Bench::begun(scenario, false);
            bench.wait(100);
            bench.step(Input::Timer);
            let mut effects = bench.step(Input::Changed(Err(error.clone())));
            if cleanup {
                assert_eq!(effects, [Effect::Restore]);
                assert_eq!(bench.see().state, ExecutionState::Running);
                effects = bench.step(Input::Changed(Ok(())));
            }
            assert_eq!(effects, [Effect::Publish, Effect::Ended, KEPT]);
            let failure = bench.failed();
            assert_eq!((failure.category, failure.step_index), (category, Some(1)));
            assert_eq!(
                failure.operation.as_deref(),
                Some("applying TC configuration")
            );
            let stats = bench.see().stats;
            assert_eq!(stats.failed_operations, 1);
            assert_eq!(stats.last_error, Some(error.to_string()));
        }
    }
}

#[test]
fn a_deleted_interface_is_not_restored() {
    let mut bench = Bench::begun(scenario("s", &[100, 100]), false);
    bench.wait(100);
    bench.step(Input::Timer);
    let gone = Err(refused(ErrorKind::NotFound));
    assert_eq!(
        bench.step(Input::Changed(gone)),
        [Effect::Publish, Effect::Ended, KEPT]
    );
    assert_eq!(bench.failed().category, ErrorCategory::Permanent);
}

#[test]
fn a_failed_restoration_is_released_as_owed() {
    let mut bench = Bench::begun(scenario("s", &[100]), false);
    bench.step(Input::Stop);
    let result = Err(refused(ErrorKind::Denied));
    assert_eq!(
        bench.step(Input::Changed(result)),
        [
            Effect::Publish,
            Effect::Ended,
            Effect::Release { owed: true }
        ]
    );
    assert_eq!(
        bench.failed().operation.as_deref(),
        Some("restoring the interface")
    );
    let mut gone = Bench::begun(scenario("s", &[100]), false);
    gone.step(Input::Stop);
    gone.step(Input::Changed(Err(refused(ErrorKind::NotFound))));
    assert_eq!(
        gone.see().state,
        ExecutionState::Stopped,
        "there is nothing left to restore"
    );
}

#[test]
fn a_lost_interface_ends_the_execution_and_is_released_after_the_reply() {
    for (loss, is_failure) in [
        (Loss::Gone, true),
        (Loss::TakenOver, false),
        (Loss::Left, false),
    ] {
        let mut holding = Bench::begun(scenario("s", &[100]), false);
        assert_eq!(
            holding.step(Input::Lost(loss)),
            [Effect::Publish, Effect::Ended, KEPT]
        );
        let state = holding.see().state;
        assert_eq!(matches!(state, ExecutionState::Failed { .. }), is_failure);
        assert_eq!(state == ExecutionState::Stopped, !is_failure);

        let mut applying = Bench::new(scenario("s", &[100]), false);
        applying.step(Input::Captured(Ok(())));
        assert_eq!(
            applying.step(Input::Lost(loss)),
            [Effect::Publish, Effect::Ended]
        );
        assert_eq!(applying.step(Input::Changed(Ok(()))), [KEPT]);
        assert!(applying.step(Input::Changed(Ok(()))).is_empty());

        let mut capturing = Bench::new(scenario("s", &[100]), false);
        let effects = capturing.step(Input::Lost(loss));
        assert!(
            matches!(&effects[..], [Effect::Refused(_), Effect::Ended]),
            "{effects:?}"
        );
        assert_eq!(capturing.step(Input::Captured(Ok(()))), [KEPT]);
    }
}

#[test]
fn a_step_without_parameters_needs_no_netem() {
    let mut limited = config(0);
    limited.extensions.limit = Some(5);
    assert_eq!(Impairment::of_step(&limited), Impairment::None);
    assert_eq!(Impairment::of_step(&config(3)), netem(3));
}

fn inputs() -> impl Strategy<Value = Vec<(Input, u64)>> {
    let errors = prop_oneof![
        Just(refused(ErrorKind::NotFound)),
        Just(refused(ErrorKind::Busy)),
        Just(PortError::Unanswered),
    ];
    let result = prop_oneof![4 => Just(Ok(())), 1 => errors.prop_map(Err)];
    let input = prop_oneof![
        4 => result.clone().prop_map(Input::Changed),
        2 => result.prop_map(Input::Captured),
        2 => Just(Input::Pause),
        2 => Just(Input::Resume),
        1 => Just(Input::Stop),
        6 => Just(Input::Timer),
        1 => prop_oneof![Just(Loss::Gone), Just(Loss::TakenOver), Just(Loss::Left)]
            .prop_map(Input::Lost),
    ];
    prop::collection::vec((input, 0_u64..150), 1..60)
}

proptest! {
    #[test]
    fn any_inputs_keep_the_invariants(
        inputs in inputs(),
        durations in prop::collection::vec(0_u64..200, 1..5),
        looped: bool,
        cleanup: bool,
    ) {
        let steps = durations.len();
        let mut scenario = scenario("s", &durations);
        scenario.cleanup_on_failure = cleanup;
        let mut bench = Bench::new(scenario, looped);
        let (mut asked, mut ended, mut released, mut begun) = (true, false, false, false);
        for (input, wait) in inputs {
            bench.wait(wait);
            // The port answers only calls that were made.
            let is_answer = matches!(input, Input::Changed(_) | Input::Captured(_));
            let fits = matches!(input, Input::Captured(_)) == (!begun && !ended);
            if is_answer && !(asked && (fits || ended)) {
                continue;
            }
            asked &= !is_answer;
            let before = bench.see();
            for effect in bench.step(input) {
                prop_assert!(!released, "{:?} after the release", effect);
                match effect {
                    Effect::Begun => begun = true,
                    Effect::Refused(_) => prop_assert!(!begun),
                    Effect::Publish => prop_assert!(begun && !ended),
                    Effect::Set(_) | Effect::Restore => {
                        prop_assert!(begun && !ended && !asked, "one request at a time");
                        asked = true;
                    }
                    Effect::Ended => {
                        prop_assert!(!ended);
                        ended = true;
                    }
                    Effect::Release { .. } => {
                        prop_assert!(ended && !asked);
                        released = true;
                    }
                }
            }
            let seen = bench.see();
            prop_assert_eq!(seen.state.is_terminal(), ended);
            if before.state.is_terminal() {
                prop_assert_eq!(&seen, &before, "something changed after the end");
            }
            prop_assert!(ended || asked || bench.machine.wake_at().is_some()
                || matches!(seen.state, ExecutionState::Paused { .. }), "it waits for nothing");
            prop_assert!(seen.current_step < steps && seen.stats.steps_completed <= steps);
            prop_assert!((0.0..=100.0).contains(&seen.stats.progress_percent));
            prop_assert!(seen.loop_iteration >= before.loop_iteration);
            prop_assert!(seen.stats.tc_operations >= before.stats.tc_operations);
        }
    }
}
