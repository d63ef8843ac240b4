//! The actor: waits for events, runs the looks that the scheduler orders, and reports differences.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::cpu_meter::CpuMeter;
use super::doorbell::Doorbell;
use super::holder_exits::HolderExits;
use super::holders::Holders;
use super::probe::{Probe, ProcessNetns, Scan};
use super::scan_scheduler::{Due, Look, ScanScheduler};
use super::{ProcessesConfig, ProcessesError};
use crate::blocking;
use crate::clock::now;
use crate::error::chain;
use crate::kernel::netns::{NetnsFiles, OpenError, ProcessNetnsId};
use crate::kernel::process::may_trace;
use crate::kernel::process_events::ProcessEventBatch;
use crate::kernel::processes::netns_lives;
use crate::netns_holders::HeldEvent;

/// A process that started while no events were received may enter a namespace later. So all processes are scanned
/// again after this time, like a single process after its event.
const AFTER_SILENCE: Duration = Duration::from_secs(1);

enum Input<'a> {
    Stop,
    Room(mpsc::Permit<'a, HeldEvent>),
    ConsumerGone,
    Ended(ProcessNetnsId),
    ScanRequested,
    Scanned(Box<Probe>, Scan),
    Events(io::Result<ProcessEventBatch>),
    Timer,
}

/// The processes actor. [`Task::run`] runs it.
#[derive(Debug)]
pub struct Task {
    config: ProcessesConfig,
    /// `None` while a scan uses it. A look at a single process during the scan would be newer than the scan's
    /// result.
    probe: Option<Box<Probe>>,
    scans: JoinSet<(Box<Probe>, Scan)>,
    scan_scheduler: ScanScheduler,
    meter: CpuMeter,
    holders: Holders,
    ends: HolderExits,
    doorbell: Doorbell,
    wakeup: Arc<Notify>,
    events: mpsc::Sender<HeldEvent>,
    logged: LoggedOnce,
}

/// Messages that were logged already, and are logged once.
#[derive(Debug, Default)]
struct LoggedOnce {
    denied: bool,
    beyond_limit: bool,
    unreadable: bool,
    unwatched: bool,
}

impl Task {
    pub(super) fn open(
        config: ProcessesConfig,
        wakeup: Arc<Notify>,
        events: mpsc::Sender<HeldEvent>,
    ) -> Result<Self, ProcessesError> {
        let files = NetnsFiles::new().map_err(ProcessesError::OpenTable)?;
        let probe = Probe::open(files).map_err(ProcessesError::OpenTable)?;
        Ok(Self {
            config,
            probe: Some(Box::new(probe)),
            scans: JoinSet::new(),
            scan_scheduler: ScanScheduler::new(now(), config.sweep_interval),
            meter: CpuMeter::default(),
            holders: Holders::default(),
            ends: HolderExits::new(files),
            doorbell: Doorbell::new(now()),
            wakeup,
            events,
            logged: LoggedOnce::default(),
        })
    }

    /// Runs until `stop` is cancelled or the consumer is dropped.
    pub async fn run(self, stop: CancellationToken) {
        self.meter.clone().measure(self.live(stop)).await;
    }

    async fn live(mut self, stop: CancellationToken) {
        let events = self.events.clone();
        // Open the doorbell before the first scan, so that no process is missed between them.
        self.open_doorbell();
        self.look();
        loop {
            let input = self.next_input(&events, &stop).await;
            self.scan_scheduler.spend(now(), self.meter.take());
            match input {
                Input::Stop | Input::ConsumerGone => return,
                Input::Room(permit) => self.report(permit),
                Input::Ended(id) => self.holders.ended(id),
                Input::ScanRequested => self.scan_scheduler.schedule_scan(),
                Input::Scanned(probe, scan) => self.finish(probe, scan),
                Input::Events(events) => self.handle_events(events),
                Input::Timer => {
                    if self.doorbell.open_at().is_some_and(|at| at <= now()) {
                        self.open_doorbell();
                    }
                }
            }
            self.look();
            self.settle_doubts();
            self.deliver();
        }
    }

    async fn next_input<'a>(
        &mut self,
        events: &'a mpsc::Sender<HeldEvent>,
        stop: &CancellationToken,
    ) -> Input<'a> {
        let now = now();
        let looks = self
            .probe
            .is_some()
            .then(|| self.scan_scheduler.wake_at(now).unwrap_or(now));
        let wake = looks.into_iter().chain(self.doorbell.open_at()).min();
        tokio::select! {
            biased;
            // Cancel-safe: cancellation is a state.
            () = stop.cancelled() => Input::Stop,
            // Cancel-safe: a permit that was not returned was not taken.
            permit = events.reserve(), if self.holders.has_events() => {
                permit.map_or(Input::ConsumerGone, Input::Room)
            }
            // Cancel-safe: being closed is a state.
            () = events.closed() => Input::ConsumerGone,
            // Cancel-safe: an exit that was not returned stays in the set.
            id = self.ends.next() => Input::Ended(id),
            // Cancel-safe: the set keeps a result until it is returned.
            Some(scanned) = self.scans.join_next() => scanned.map_or_else(
                |err| std::panic::resume_unwind(err.into_panic()),
                |(probe, scan)| Input::Scanned(probe, scan)),
            // Cancel-safe: a wake-up that was not returned is kept.
            () = self.wakeup.notified() => Input::ScanRequested,
            // Cancel-safe: what was not returned was not taken from the socket.
            events = self.doorbell.next(), if self.scan_scheduler.allows(now) => Input::Events(events),
            // Cancel-safe: the deadline is computed again each time.
            () = sleep_until(wake) => Input::Timer,
        }
    }

    fn open_doorbell(&mut self) {
        let now = now();
        let interval = if self.doorbell.open(now) {
            self.scan_scheduler.schedule_scan();
            self.scan_scheduler.schedule_scan_at(now + AFTER_SILENCE);
            self.config.sweep_interval
        } else {
            self.config.degraded_sweep_interval
        };
        self.scan_scheduler.set_sweep_interval(now, interval);
    }

    fn handle_events(&mut self, events: io::Result<ProcessEventBatch>) {
        match events {
            Ok(batch) => {
                self.scan_scheduler.schedule(batch.pids);
                if batch.lost {
                    self.scan_scheduler.schedule_scan();
                    self.doorbell.pause(now());
                }
            }
            Err(err) => {
                self.doorbell.refuse(now(), &err);
                let interval = self.config.degraded_sweep_interval;
                self.scan_scheduler.set_sweep_interval(now(), interval);
            }
        }
    }

    /// Runs the look that is due: at a few processes on this thread, or at all of them on a blocking thread.
    fn look(&mut self) {
        let Some(probe) = &self.probe else { return };
        match self.scan_scheduler.next_look(now()) {
            None => {}
            Some(Look::Everything) => self.scan(),
            Some(Look::Some(due)) => {
                for due @ Due { pid, .. } in due {
                    let process = match probe.look(pid) {
                        ProcessNetns::Own => {
                            self.scan_scheduler.still_in_own_netns(now(), due);
                            None
                        }
                        ProcessNetns::Other(process) => Some(process),
                        ProcessNetns::Unknown => None,
                    };
                    self.holders.observe(pid, process);
                }
            }
        }
    }

    fn scan(&mut self) {
        let Some(mut probe) = self.probe.take() else {
            return;
        };
        let afresh = self.holders.reported_pids();
        self.scans.spawn(blocking::run(move || {
            let scan = probe.look_at_all(&afresh);
            (probe, scan)
        }));
    }

    fn finish(&mut self, probe: Box<Probe>, scan: Scan) {
        self.probe = Some(probe);
        self.meter.add(scan.cost);
        if scan.denied > 0 && !std::mem::replace(&mut self.logged.denied, true) {
            log_denied(scan.denied);
        }
        match scan.in_other_netns {
            Ok(processes) => {
                self.logged.unreadable = false;
                self.holders.observe_all(processes);
            }
            Err(err) => {
                let retry = now() + self.config.degraded_sweep_interval;
                self.scan_scheduler.schedule_scan_at(retry);
                if !std::mem::replace(&mut self.logged.unreadable, true) {
                    warn!(error = %err, "list of processes not readable");
                }
            }
        }
        let beyond = self.holders.beyond_limit();
        if beyond && !std::mem::replace(&mut self.logged.beyond_limit, true) {
            warn!("too many namespaces held by processes, some are not shown");
        }
    }

    /// Removes the namespaces that were deleted, and schedules a scan for the others in doubt.
    fn settle_doubts(&mut self) {
        for (inode, number) in self.holders.take_doubts() {
            if !netns_lives(number, inode) {
                self.holders.gone(inode);
            }
        }
        // A scan under way may itself leave namespaces in doubt, so wait for its result.
        if self.probe.is_some() && self.holders.in_doubt() {
            self.scan_scheduler.schedule_scan();
        }
    }

    /// Reports while the queue has room. The remaining differences wait and are merged.
    fn deliver(&mut self) {
        let events = self.events.clone();
        while self.holders.has_events() {
            let Ok(permit) = events.try_reserve() else {
                break;
            };
            self.report(permit);
        }
    }

    /// Reports the next difference, and watches the exit of the new holder.
    fn report(&mut self, permit: mpsc::Permit<'_, HeldEvent>) {
        let Some(event) = self.holders.next_event() else {
            return;
        };
        debug!(?event, "holder of a namespace");
        match &event {
            HeldEvent::Added(holder) => match self.ends.watch(holder.id) {
                Ok(()) => {}
                Err(OpenError::Gone) => {
                    self.holders.ended(holder.id);
                    // It may have moved to another namespace.
                    self.scan_scheduler.schedule([holder.id.pid()]);
                }
                Err(err) => {
                    if !std::mem::replace(&mut self.logged.unwatched, true) {
                        warn!(error = %chain(&err), "ends of processes are found by sweeps alone");
                    }
                }
            },
            HeldEvent::Removed(id) => self.ends.forget(*id),
        }
        permit.send(event);
    }
}

fn log_denied(count: usize) {
    if may_trace().unwrap_or(false) {
        // A security module may hide some processes even with the capability.
        info!(count, "some processes hide their namespaces");
    } else {
        warn!(
            count,
            "namespaces of processes not readable: grant CAP_SYS_PTRACE"
        );
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
