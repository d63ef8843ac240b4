//! Decides which processes to look at, and when: one process for each event, all of them when events were lost.
//!
//! Pure: no clock, no `/proc`. The kernel does not announce that a process enters a namespace, but announces the
//! fork or exec that happens shortly before. So after its event, a process is looked at several times while it
//! stays in the daemon's namespace.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::token_bucket::TokenBucket;

/// The delays before a process is looked at again.
const AGAIN: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(90),
    Duration::from_millis(900),
];
/// Limit of the processes that are looked at in one step on the actor's own thread. One step takes less than 1 ms.
const AT_ONCE: usize = 64;
/// Limit of the processes that wait. Beyond it, all processes are scanned instead.
const WAITING: usize = 4096;

/// The processor time for scans, in nanoseconds. The burst is 25 ms: ten scans of 600 processes, or looks at two
/// thousand single processes. The long-term share is 1/80 (1.25 % of one processor). After the budget is used up,
/// 0.5 ms must be available before the next look: wake-ups cost too, and otherwise the wake-ups alone would use up
/// the budget.
const BUDGET: TokenBucket =
    TokenBucket::new(25_000_000, Duration::from_secs(2)).resume_with(500_000);

/// The delay between looks while less than half of the budget is left. One wake-up for several processes costs
/// less than one for each process.
const GATHER: Duration = Duration::from_millis(10);

/// The processes to look at now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All processes.
    Everything,
    /// These processes.
    Some(Vec<Due>),
}

/// A process that is due for a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) pid: i32,
    /// Number of looks since its event.
    looks: usize,
}

/// The processes to look at, and the budget.
#[derive(Debug)]
pub(super) struct ScanScheduler {
    /// Processes that had an event and were not looked at since.
    event_pids: BTreeSet<i32>,
    /// Processes to look at again, one queue for each delay of [`AGAIN`].
    repeats: [VecDeque<(Instant, i32)>; AGAIN.len()],
    /// A scan of all processes is due.
    everything: bool,
    /// Single processes were looked at while a scan was due. The scan comes next.
    single_looks_ran: bool,
    /// When a requested scan of all processes is due.
    everything_at: Option<Instant>,
    sweep_interval: Duration,
    next_sweep: Instant,
    budget: TokenBucket,
    gather_until: Option<Instant>,
}

impl ScanScheduler {
    /// Schedules a scan of all processes at once.
    pub(super) fn new(now: Instant, sweep_interval: Duration) -> Self {
        Self {
            event_pids: BTreeSet::new(),
            repeats: Default::default(),
            everything: true,
            single_looks_ran: false,
            everything_at: None,
            sweep_interval,
            next_sweep: now + sweep_interval,
            budget: BUDGET,
            gather_until: None,
        }
    }

    /// Schedules looks at processes that had an event.
    pub(super) fn schedule(&mut self, pids: impl IntoIterator<Item = i32>) {
        self.event_pids.extend(pids);
        if self.waiting() > WAITING {
            self.event_pids.clear();
            self.repeats = Default::default();
            self.everything = true;
        }
    }

    /// Schedules a scan of all processes, because an unknown process had an event.
    pub(super) fn schedule_scan(&mut self) {
        self.everything = true;
    }

    /// Schedules one more scan of all processes at this time.
    pub(super) fn schedule_scan_at(&mut self, at: Instant) {
        let sooner = self.everything_at.map_or(at, |other| other.min(at));
        self.everything_at = Some(sooner);
    }

    /// Sets the interval of the scans of all processes.
    pub(super) fn set_sweep_interval(&mut self, now: Instant, interval: Duration) {
        self.sweep_interval = interval;
        self.next_sweep = self.next_sweep.min(now + interval);
    }

    /// Returns whether the budget allows a look, or receiving events, now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.not_before().is_none_or(|at| at <= now)
    }

    fn not_before(&self) -> Option<Instant> {
        self.gather_until.max(self.budget.not_before())
    }

    /// Returns the look that is due now, and removes it from the schedule.
    ///
    /// Looks at single processes come first, because they cost less. A pending scan of all processes runs after at
    /// most one of them.
    pub(super) fn next_look(&mut self, now: Instant) -> Option<Look> {
        if !self.allows(now) {
            return None;
        }
        let sooner = self.everything_at.is_some_and(|at| at <= now);
        let everything = self.everything || sooner || self.next_sweep <= now;
        if !(everything && self.single_looks_ran) {
            let due = self.due(now);
            if !due.is_empty() {
                self.single_looks_ran = everything;
                self.gather_until = self.budget.is_below_half(now).then(|| now + GATHER);
                return Some(Look::Some(due));
            }
        }
        if !everything {
            return None;
        }
        self.single_looks_ran = false;
        self.everything = false;
        self.everything_at = self.everything_at.filter(|_| !sooner);
        self.next_sweep = now + self.sweep_interval;
        Some(Look::Everything)
    }

    /// Records that a process is still in the daemon's namespace. It is looked at again after a delay, at most
    /// three times.
    pub(super) fn still_in_own_netns(&mut self, now: Instant, due: Due) {
        if let (Some(queue), Some(pause)) = (self.repeats.get_mut(due.looks), AGAIN.get(due.looks))
        {
            queue.push_back((now + *pause, due.pid));
        }
    }

    /// Subtracts the cost of scanning, receiving and reporting from the budget.
    pub(super) fn spend(&mut self, now: Instant, cost: Duration) {
        let nanoseconds = u32::try_from(cost.as_nanos()).unwrap_or(u32::MAX);
        self.budget.spend(now, nanoseconds);
    }

    /// Returns when the next look is due without a further event. `None`: at once.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        // Events are not received before that either.
        if !self.allows(now) {
            return self.not_before();
        }
        if self.everything || !self.event_pids.is_empty() {
            return None;
        }
        let later = self.repeats.iter().filter_map(|queue| queue.front());
        let later = later.map(|(at, _)| *at);
        later
            .chain(self.everything_at)
            .chain([self.next_sweep])
            .min()
    }

    fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        while due.len() < AT_ONCE
            && let Some(pid) = self.event_pids.pop_first()
        {
            due.push(Due { pid, looks: 0 });
        }
        for (index, queue) in self.repeats.iter_mut().enumerate() {
            while due.len() < AT_ONCE
                && let Some((_, pid)) = queue.pop_front_if(|(at, _)| *at <= now)
            {
                due.push(Due {
                    pid,
                    looks: index + 1,
                });
            }
        }
        due
    }

    fn waiting(&self) -> usize {
        self.event_pids.len() + self.repeats.iter().map(VecDeque::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SWEEP: Duration = Duration::from_secs(30);

    /// Returns a scheduler whose first scan of all processes is done.
    fn scan_scheduler(now: Instant) -> ScanScheduler {
        let mut scan_scheduler = ScanScheduler::new(now, SWEEP);
        assert_eq!(scan_scheduler.next_look(now), Some(Look::Everything));
        assert_eq!(scan_scheduler.next_look(now), None);
        scan_scheduler
    }

    fn pids(look: Option<Look>) -> Vec<i32> {
        match look {
            Some(Look::Some(due)) => due.into_iter().map(|due| due.pid).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_process_that_stays_is_looked_at_four_times_within_a_second() {
        let start = Instant::now();
        let mut scan_scheduler = scan_scheduler(start);
        scan_scheduler.schedule([7, 7]);
        assert_eq!(scan_scheduler.wake_at(start), None);
        let mut looks = Vec::new();
        let mut now = start;
        while now < start + 5 * MS * 1000 {
            if let Some(Look::Some(due)) = scan_scheduler.next_look(now) {
                looks.push(now - start);
                scan_scheduler.still_in_own_netns(now, due[0]);
            }
            now = scan_scheduler.wake_at(now).unwrap_or(now);
        }
        assert_eq!(looks, [Duration::ZERO, 10 * MS, 100 * MS, 1000 * MS]);
        assert_eq!(scan_scheduler.waiting(), 0);
        assert_eq!(scan_scheduler.wake_at(now), Some(start + SWEEP));
    }

    #[test]
    fn a_process_that_ended_is_looked_at_once() {
        let now = Instant::now();
        let mut scan_scheduler = scan_scheduler(now);
        scan_scheduler.schedule([7]);
        assert_eq!(pids(scan_scheduler.next_look(now)), [7]);
        assert_eq!(scan_scheduler.wake_at(now), Some(now + SWEEP));
    }

    #[test]
    fn many_events_are_split_into_steps_and_too_many_become_a_scan() {
        let now = Instant::now();
        let mut scan_scheduler = scan_scheduler(now);
        scan_scheduler.schedule(0..100);
        assert_eq!(pids(scan_scheduler.next_look(now)).len(), AT_ONCE);
        assert_eq!(scan_scheduler.wake_at(now), None, "more is due");
        assert_eq!(pids(scan_scheduler.next_look(now)).len(), 100 - AT_ONCE);
        scan_scheduler.schedule(0..5000);
        assert_eq!(scan_scheduler.next_look(now), Some(Look::Everything));
        assert_eq!(scan_scheduler.next_look(now), None);
    }

    #[test]
    fn single_processes_come_first_but_do_not_starve_a_scan() {
        let now = Instant::now();
        let mut scan_scheduler = scan_scheduler(now);
        for round in 0..3 {
            scan_scheduler.schedule_scan();
            scan_scheduler.schedule(0..150);
            assert_eq!(
                pids(scan_scheduler.next_look(now)).len(),
                AT_ONCE,
                "{round}"
            );
            assert_eq!(scan_scheduler.next_look(now), Some(Look::Everything));
            assert_eq!(pids(scan_scheduler.next_look(now)).len(), AT_ONCE);
            assert_eq!(pids(scan_scheduler.next_look(now)).len(), 150 - 2 * AT_ONCE);
            assert_eq!(scan_scheduler.next_look(now), None);
        }
    }

    #[test]
    fn no_process_is_looked_at_beyond_the_budget() {
        let now = Instant::now();
        let mut scan_scheduler = scan_scheduler(now);
        scan_scheduler.spend(now, 30 * MS);
        scan_scheduler.schedule([7]);
        assert_eq!(scan_scheduler.next_look(now), None);
        let later = scan_scheduler.wake_at(now).unwrap();
        assert_eq!(later, now + 440 * MS);
        assert_eq!(pids(scan_scheduler.next_look(later)), [7]);
    }

    #[test]
    fn the_share_of_a_processor_is_kept_in_the_long_run() {
        let start = Instant::now();
        let mut scan_scheduler = scan_scheduler(start);
        let (mut now, mut spent) = (start, Duration::ZERO);
        while now < start + 100_000 * MS {
            if scan_scheduler.allows(now) {
                scan_scheduler.spend(now, MS);
                spent += MS;
            } else {
                now = scan_scheduler.wake_at(now).expect("it is not allowed yet");
            }
        }
        assert!(spent > 1_250 * MS && spent < 1_280 * MS, "{spent:?}");
    }

    #[test]
    fn wake_ups_alone_do_not_use_up_the_budget() {
        let mut now = Instant::now();
        let mut scan_scheduler = scan_scheduler(now);
        scan_scheduler.spend(now, 40 * MS);
        for woken in 0..15 {
            let is_closed = !scan_scheduler.allows(now);
            assert_eq!(is_closed, woken % 5 == 0, "{woken}");
            if is_closed {
                now = scan_scheduler.wake_at(now).expect("it is not allowed yet");
            }
            scan_scheduler.spend(now, MS / 10);
        }
    }

    #[test]
    fn events_are_gathered_while_the_budget_is_low() {
        let now = Instant::now();
        let mut scan_scheduler = scan_scheduler(now);
        scan_scheduler.spend(now, 13 * MS);
        scan_scheduler.schedule([7]);
        assert_eq!(
            pids(scan_scheduler.next_look(now)),
            [7],
            "at once after a pause"
        );
        scan_scheduler.schedule([8]);
        assert!(!scan_scheduler.allows(now));
        assert_eq!(scan_scheduler.wake_at(now), Some(now + GATHER));
        scan_scheduler.schedule([9]);
        assert_eq!(scan_scheduler.next_look(now), None);
        assert_eq!(pids(scan_scheduler.next_look(now + GATHER)), [8, 9]);
    }

    #[test]
    fn sweeps_run_at_the_interval_or_sooner_on_request() {
        let start = Instant::now();
        let mut scan_scheduler = scan_scheduler(start);
        assert_eq!(scan_scheduler.wake_at(start), Some(start + SWEEP));
        scan_scheduler.schedule_scan_at(start + 5 * MS);
        scan_scheduler.schedule_scan_at(start + 9 * MS);
        assert_eq!(scan_scheduler.wake_at(start), Some(start + 5 * MS));
        let now = start + 5 * MS;
        assert_eq!(scan_scheduler.next_look(now), Some(Look::Everything));
        assert_eq!(scan_scheduler.wake_at(now), Some(now + SWEEP));
        scan_scheduler.set_sweep_interval(now, 1000 * MS);
        assert_eq!(scan_scheduler.wake_at(now), Some(now + 1000 * MS));
        let now = now + 1000 * MS;
        assert_eq!(scan_scheduler.next_look(now), Some(Look::Everything));
        assert_eq!(scan_scheduler.wake_at(now), Some(now + 1000 * MS));
    }
}
