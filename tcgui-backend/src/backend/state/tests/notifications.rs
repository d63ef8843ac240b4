//! Tests of the messages to the service manager.

use super::*;
use crate::backend::state::notifications::Notifications;

/// Takes the message among the effects.
fn message(effects: Vec<Effect>) -> Option<String> {
    effects.into_iter().find_map(|effect| match effect {
        Effect::Notify(message) => Some(message),
        _ => None,
    })
}

fn supervised(watchdog: Option<Duration>) -> Bench {
    let mut bench = Bench::cold(&[("a", A)]);
    bench.state.notify(Notifications::enabled(watchdog));
    bench
}

/// Publishes the first list, and returns the message that follows.
fn start(bench: &mut Bench) -> Option<String> {
    let lo = [link(1, "lo", false)];
    let dumps = [NetnsKey::Host, NetnsKey::Mounted(A)];
    for effects in dumps.map(|key| bench.step(links(key, &lo))) {
        assert_eq!(message(effects), None, "the list is not published yet");
    }
    message(bench.step(Input::Published(COST)))
}

#[test]
fn the_daemon_is_ready_when_its_first_list_is_published() {
    let mut bench = supervised(None);
    let ready = start(&mut bench).expect("a message");
    let expected = "READY=1\nSTATUS=Not on the bus yet: 2 network namespaces, 2 interfaces";
    assert_eq!(ready, expected);
    bench.step(Input::Notified);
    let joined = message(bench.step(Input::OnBus)).expect("a message");
    assert!(joined.starts_with("STATUS=On the bus"), "{joined}");
}

#[test]
fn every_input_answers_a_watchdog_that_is_due_and_the_loop_wakes_up_for_it() {
    let interval = Duration::from_secs(15);
    let mut bench = supervised(Some(interval));
    start(&mut bench).expect("a message");
    bench.step(Input::Notified);
    let due = bench.moment.now + interval;
    assert!(bench.state.wake_at().is_some_and(|at| at <= due));
    bench.wait(interval);
    let message = message(bench.step(Input::Library(Arc::default())));
    assert_eq!(message.as_deref(), Some("WATCHDOG=1"));
}

#[test]
fn a_stop_before_the_first_list_is_told_without_readiness() {
    let mut bench = supervised(None);
    let message = message(bench.step(Input::Ending));
    assert_eq!(message.as_deref(), Some("STOPPING=1\nSTATUS=Stopping"));
}

#[test]
fn a_daemon_without_a_service_manager_sends_no_message() {
    let mut bench = Bench::cold(&[("a", A)]);
    assert_eq!(start(&mut bench), None);
    assert_eq!(message(bench.step(Input::OnBus)), None);
    assert_eq!(message(bench.step(Input::Ending)), None);
}
