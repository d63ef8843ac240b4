//! The schedule of the echoes, the timeouts, and the summary of the replies. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Number of echoes in a check. Released backends send the same number.
const ECHOES: u16 = 5;
/// Interval between echoes: the shortest that `ping` allows to an unprivileged user.
const SPACING: Duration = Duration::from_millis(200);
/// Minimum wait for the last reply, as in released backends.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// The next action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Send the echo with this number.
    Send(u16),
    /// Wait for replies until this time.
    Wait(Instant),
    /// All replies have arrived or timed out.
    Done,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    latency: Option<Duration>,
}

/// The echoes of one check. The index of an echo is its sequence number.
#[derive(Debug)]
pub(super) struct Echoes {
    sent: Vec<Sent>,
    deadline: Instant,
    wait: Duration,
}

/// Summary of the replies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    pub(super) sent: u32,
    pub(super) received: u32,
    /// Shortest, mean and longest latency. `None` if there was no reply.
    pub(super) latency: Option<(Duration, Duration, Duration)>,
}

impl Echoes {
    /// Creates a check without sent echoes. It ends at `deadline`, or `wait` after the last echo.
    pub(super) fn new(deadline: Instant, wait: Duration) -> Self {
        Self {
            sent: Vec::new(),
            deadline,
            wait: wait.max(SHORTEST_WAIT),
        }
    }

    /// Returns the next action.
    pub(super) fn next(&self, now: Instant) -> Step {
        let all_sent = self.sent.len() == usize::from(ECHOES);
        let all_answered = self.sent.iter().all(|sent| sent.latency.is_some());
        let due = match self.sent.last() {
            Some(last) if all_sent => last.at.checked_add(self.wait),
            Some(last) => Some(last.at + SPACING),
            None => Some(now),
        };
        // If the wait overflows `Instant`, the deadline applies.
        let due = due.map_or(self.deadline, |due| due.min(self.deadline));
        if (all_sent && all_answered) || now >= self.deadline {
            Step::Done
        } else if now < due {
            Step::Wait(due)
        } else if all_sent {
            Step::Done
        } else {
            Step::Send(self.number())
        }
    }

    /// Records that the next echo was sent.
    pub(super) fn sent(&mut self, at: Instant) {
        self.sent.push(Sent { at, latency: None });
    }

    /// Records a reply. Only the first reply to an echo counts, because the link may be configured to duplicate packets.
    pub(super) fn answered(&mut self, number: u16, at: Instant) {
        if let Some(sent) = self.sent.get_mut(usize::from(number)) {
            let latency = at.saturating_duration_since(sent.at);
            sent.latency.get_or_insert(latency);
        }
    }

    /// Returns the summary of the echoes sent so far.
    pub(super) fn summary(&self) -> Summary {
        let latencies = || self.sent.iter().filter_map(|sent| sent.latency);
        let received = latencies().map(|_| 1).sum();
        let mean = latencies().sum::<Duration>().checked_div(received);
        let latency = match (latencies().min(), mean, latencies().max()) {
            (Some(min), Some(mean), Some(max)) => Some((min, mean, max)),
            _ => None,
        };
        Summary {
            sent: self.number().into(),
            received,
            latency,
        }
    }

    /// Returns the sequence number of the next echo.
    fn number(&self) -> u16 {
        u16::try_from(self.sent.len()).unwrap_or(ECHOES)
    }
}

impl Summary {
    /// Returns the percentage of echoes without a reply, 0 to 100.
    pub(super) fn loss_percent(&self) -> f64 {
        if self.sent == 0 {
            return 100.0;
        }
        100.0 * f64::from(self.sent - self.received) / f64::from(self.sent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Runs a check against a target that answers each echo after some time or never. Returns the summary and the duration.
    fn run(limit: Duration, wait: Duration, answers: &[Option<Duration>]) -> (Summary, Duration) {
        let start = Instant::now();
        let mut now = start;
        let mut echoes = Echoes::new(start + limit, wait);
        let mut coming: Vec<(Instant, u16)> = Vec::new();
        for _ in 0..1000 {
            match echoes.next(now) {
                Step::Done => return (echoes.summary(), now - start),
                Step::Send(number) => {
                    echoes.sent(now);
                    let answer = answers.get(usize::from(number)).copied().flatten();
                    coming.extend(answer.map(|after| (now + after, number)));
                }
                Step::Wait(until) => {
                    assert!(until > now, "waiting takes time");
                    coming.sort();
                    match coming.first().copied() {
                        Some((at, number)) if at <= until => {
                            coming.remove(0);
                            now = at;
                            echoes.answered(number, at);
                        }
                        _ => now = until,
                    }
                }
            }
        }
        panic!("it never ends: {echoes:?}")
    }

    #[test]
    fn five_echoes_in_steps_of_200_ms() {
        let (summary, time) = run(3600 * MS, 5000 * MS, &[Some(MS); 5]);
        assert_eq!((summary.sent, summary.received), (5, 5));
        assert_eq!(summary.latency, Some((MS, MS, MS)));
        assert_eq!(time, 801 * MS, "no time is lost with waiting");
    }

    #[test]
    fn a_check_of_an_unreachable_target_ends_after_the_wait_or_at_the_deadline() {
        let (nothing, time) = run(3600 * MS, 5000 * MS, &[]);
        assert_eq!((nothing.sent, nothing.latency), (5, None));
        assert_eq!((time, nothing.loss_percent()), (3600 * MS, 100.0));
        assert_eq!(
            run(3600 * MS, Duration::ZERO, &[]).1,
            1800 * MS,
            "at least a second"
        );
        assert_eq!(run(3600 * MS, Duration::MAX, &[]).1, 3600 * MS);
    }

    #[test]
    fn a_slow_and_lossy_link_is_measured() {
        let answers = [
            Some(1000 * MS),
            None,
            Some(2000 * MS),
            None,
            Some(1500 * MS),
        ];
        let (summary, _) = run(3600 * MS, 5000 * MS, &answers);
        assert_eq!(summary.latency, Some((1000 * MS, 1500 * MS, 2000 * MS)));
        assert!((summary.loss_percent() - 40.0).abs() < 1e-9);
    }

    #[test]
    fn duplicate_and_unknown_replies_are_ignored() {
        let start = Instant::now();
        let mut echoes = Echoes::new(start + 3600 * MS, Duration::ZERO);
        echoes.sent(start);
        echoes.answered(0, start + MS);
        echoes.answered(0, start + 9 * MS);
        echoes.answered(1, start + 9 * MS);
        echoes.answered(u16::MAX, start + 9 * MS);
        let summary = echoes.summary();
        assert_eq!((summary.sent, summary.received), (1, 1));
        assert_eq!(summary.latency, Some((MS, MS, MS)));
    }

    proptest! {
        #[test]
        fn a_check_ends_in_time_and_counts_every_echo(
            limit in 0..4000_u32,
            wait in prop_oneof![0..10_000_u32, Just(u32::MAX)],
            answers in vec(proptest::option::of(0..5000_u32), 0..6),
        ) {
            let answers: Vec<_> = answers.iter().map(|ms| ms.map(|ms| ms * MS)).collect();
            let (summary, time) = run(limit * MS, wait * MS, &answers);
            prop_assert!(time <= limit * MS, "{:?}", time);
            prop_assert!(summary.sent <= 5 && summary.received <= summary.sent);
            prop_assert!((0.0..=100.0).contains(&summary.loss_percent()));
            prop_assert_eq!(summary.latency.is_some(), summary.received > 0);
            if let Some((min, mean, max)) = summary.latency {
                prop_assert!(min <= mean && mean <= max, "{:?}", summary);
                prop_assert!(answers.contains(&Some(min)) && answers.contains(&Some(max)));
            }
        }
    }
}
