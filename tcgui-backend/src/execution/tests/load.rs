//! Measures many concurrent executions on the real clock: the delay of steps, the time of a stop, and the CPU time.
//!
//! `cargo test --release -p tcgui-backend --lib execution::tests::load -- --ignored --nocapture` prints the figures in
//! docs/measurements.md.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::task::JoinSet;

use super::actor::Lab;
use super::*;
use crate::execution::{Action, Command, Start};

#[derive(Debug)]
struct Figures {
    steps: usize,
    median: Duration,
    p99: Duration,
    worst: Duration,
    /// Time until all executions have stopped, if they are stopped at once.
    stopped: Duration,
    /// Percent of one core.
    cpu_percent: f64,
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let microseconds =
        usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(microseconds.try_into().unwrap())
}

/// Runs this many executions of a loop of two steps.
async fn run(executions: u32, step: Duration, steps: u32) -> Figures {
    let step_ms = step.as_millis().try_into().unwrap();
    let lab = Lab::new(scenario("s", &[step_ms, step_ms]), Duration::ZERO);
    let mut answers = JoinSet::new();
    for number in 1..=executions {
        let (reply, answer) = crate::bus::Reply::channel();
        let start = Start {
            scenario_id: "s".to_owned(),
            looped: Some(true),
            target: target(number, number),
            reply,
        };
        lab.handle.send(Command::Start(Box::new(start))).await;
        answers.spawn(answer);
    }
    answers.join_all().await;
    let (begin, used) = (Instant::now(), cpu());
    tokio::time::sleep(step * steps).await;
    let share = (cpu() - used).as_secs_f64() / begin.elapsed().as_secs_f64();
    let stop = Instant::now();
    let mut answers = JoinSet::new();
    for number in 1..=executions {
        answers.spawn(lab.ask(Action::Stop, number).await);
    }
    answers.join_all().await;
    let stopped = stop.elapsed();
    let recorded = lab.port.recorded();
    let mut firsts: HashMap<u64, (Instant, u32)> = HashMap::new();
    let mut late = Vec::new();
    for it in recorded.iter().filter(|it| it.wanted != Impairment::None) {
        let (first, count) = firsts.entry(it.number).or_insert((it.at, 0));
        late.push(it.at.saturating_duration_since(*first + step * *count));
        *count += 1;
    }
    late.sort();
    lab.end().await;
    Figures {
        steps: late.len(),
        median: late[late.len() / 2],
        p99: late[late.len() * 99 / 100],
        worst: late[late.len() - 1],
        stopped,
        cpu_percent: share * 100.0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_are_in_time_while_some_run() {
    let figures = run(40, Duration::from_millis(100), 10).await;
    // Wide limits, because other tests run at the same time. `two_hundred_executions` measures the figures.
    assert!(figures.median < Duration::from_millis(20), "{figures:?}");
    assert!(figures.steps >= 40 * 9, "{figures:?}");
    assert!(figures.stopped < Duration::from_secs(1), "{figures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures for 20 s"]
async fn two_hundred_executions() {
    let figures = run(200, Duration::from_secs(1), 20).await;
    writeln!(std::io::stderr(), "measured: {figures:?}").unwrap();
    assert!(figures.worst < Duration::from_secs(1), "{figures:?}");
    assert!(figures.p99 < Duration::from_millis(5), "{figures:?}");
    assert!(figures.stopped < Duration::from_millis(50), "{figures:?}");
    assert!(figures.cpu_percent < 10.0, "{figures:?}");
}
