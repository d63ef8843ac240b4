//! The actor: waits for doorbells and timers, looks, and reports the differences.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::directory::{Directory, Hints, Look};
use super::doorbell::{Doorbell, Doorbells};
use super::link_processes::LinkProcesses;
use super::probe::Probe;
use super::status::{EntryStatus, Question, WatcherStatus};
use super::{Namespace, NamespaceEvent, WatchConfig, WatchError};
use crate::clock::now;
use crate::error::chain;
use crate::kernel::netns::{Entry, NetnsFiles};

/// Number of attempts of a sweep while the directory is replaced during each attempt.
const RACES: u32 = 4;
/// Delay of the retry after [`RACES`] such attempts.
const RACE_PAUSE: Duration = Duration::from_millis(20);
/// Number of entries of a sweep between two checks for events with names: about 0.1 ms.
const CHUNK: usize = 32;
/// First and longest delay between attempts to open a missing doorbell.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The reason for a wake-up.
enum Input<'a> {
    Stop,
    Room(mpsc::Permit<'a, NamespaceEvent>),
    ConsumerGone,
    Question(Question),
    WatchEvents,
    MountTable,
    ProcessEnded(OsString),
    Timer,
}

/// The result of one sweep.
#[derive(Debug, Default)]
struct Swept {
    /// `None`: the directory does not exist.
    entries: Option<Vec<(OsString, Entry)>>,
    /// Names that were looked at separately during the sweep.
    live: HashSet<OsString>,
}

/// The watcher's actor. [`Task::run`] runs it.
#[derive(Debug)]
pub struct Task {
    config: WatchConfig,
    directory: Directory,
    doorbells: Doorbells,
    probe: Probe,
    links: LinkProcesses,
    events: mpsc::Sender<NamespaceEvent>,
    /// Status requests. Each handle has a sender.
    questions: mpsc::Receiver<Question>,
    last_sweep: Option<Instant>,
    missing: Vec<Doorbell>,
    retry_at: Option<Instant>,
    retry_pause: Duration,
    unreadable: bool,
    unmounted_reported: bool,
}

impl Task {
    /// Opens the doorbells, sweeps once, and returns the namespaces and the directory's path.
    pub(super) async fn open(
        config: WatchConfig,
        events: mpsc::Sender<NamespaceEvent>,
        questions: mpsc::Receiver<Question>,
    ) -> Result<(Vec<Namespace>, PathBuf, Self), WatchError> {
        let path = config.directory.clone();
        if !(path.is_absolute() && path.file_name().is_some()) {
            return Err(WatchError::Unwatchable { directory: path });
        }
        let files = NetnsFiles::new().map_err(WatchError::OwnNamespace)?;
        let probe = Probe::new(path.clone(), files);
        // An existing path must be a readable directory at the start. Later errors are retried.
        probe.check().map_err(|err| WatchError::ReadDirectory {
            directory: config.directory.clone(),
            err,
        })?;
        let mut task = Self {
            directory: Directory::new(now(), config.sweep_interval),
            doorbells: Doorbells::new(),
            probe,
            links: LinkProcesses::new(),
            events,
            questions,
            last_sweep: None,
            missing: Vec::new(),
            retry_at: None,
            retry_pause: RETRY.0,
            unreadable: false,
            unmounted_reported: false,
            config,
        };
        task.retry_doorbells();
        task.sweep().await;
        let namespaces = task.directory.initial_namespaces();
        Ok((namespaces, path, task))
    }

    /// Watches until `stop` is cancelled or the consumer is dropped.
    ///
    /// Dropping the future at any point ends the watcher too, and closes its doorbells. The future never waits for
    /// the consumer. It looks at files on the thread that polls it, which takes a few microseconds for each entry.
    pub async fn run(mut self, stop: CancellationToken) {
        let events = self.events.clone();
        loop {
            match self.next_input(&events, &stop).await {
                Input::Stop | Input::ConsumerGone => return,
                Input::Room(permit) => {
                    if let Some(event) = self.directory.next_event() {
                        permit.send(event);
                    }
                }
                Input::Question(question) => self.answer(question),
                Input::WatchEvents => {
                    let hints = self.doorbells.take_hints();
                    self.directory.apply_hints(hints);
                }
                Input::MountTable => {
                    self.doorbells.clear_mount_table();
                    let by_name = self.doorbells.reports_names();
                    self.directory.mount_table_changed(now(), by_name);
                }
                // Sweeps follow the link again if it still leads to a namespace.
                Input::ProcessEnded(name) => self.look_at(name),
                Input::Timer => {}
            }
            if self.retry_at.is_some_and(|at| at <= now()) {
                self.retry_doorbells();
            }
            let sweep = self.look_at_names();
            let delivered = self.deliver();
            let put_off = delivered && self.directory.yield_sweep(now());
            if sweep && !put_off {
                self.sweep().await;
            }
            self.report_unmounted();
            self.deliver();
        }
    }

    async fn next_input<'a>(
        &mut self,
        events: &'a mpsc::Sender<NamespaceEvent>,
        stop: &CancellationToken,
    ) -> Input<'a> {
        let wake = self.directory.wake_at();
        let wake = self.retry_at.map_or(wake, |retry| wake.min(retry));
        tokio::select! {
            biased;
            // Cancel-safe: cancellation is a state.
            () = stop.cancelled() => Input::Stop,
            // Cancel-safe: a permit that was not returned was not taken.
            permit = events.reserve(), if self.directory.has_events() => {
                permit.map_or(Input::ConsumerGone, Input::Room)
            }
            // Cancel-safe: being closed is a state.
            () = events.closed() => Input::ConsumerGone,
            // Cancel-safe: `recv` takes nothing unless it returns it. Without handles it returns `None`, and this
            // branch is disabled.
            Some(question) = self.questions.recv() => Input::Question(question),
            // Cancel-safe: readiness stays until it is cleared.
            () = self.doorbells.mount_table_changed() => Input::MountTable,
            // Cancel-safe: events stay in their box until they are taken.
            () = self.doorbells.notified() => Input::WatchEvents,
            // Cancel-safe: an exit stays in its set until it is taken.
            name = self.links.next() => Input::ProcessEnded(name),
            // Cancel-safe: the deadline is computed again each time.
            () = tokio::time::sleep_until(wake.into()) => Input::Timer,
        }
    }

    fn answer(&self, Question { name, reply }: Question) {
        let status = WatcherStatus {
            directory_exists: self.directory.exists(),
            unreadable: self.unreadable,
            doorbells: self.doorbells.status(self.directory.exists()),
            sweep_interval: self.directory.sweep_interval(),
            last_sweep: self.last_sweep,
            entry: name.map_or(EntryStatus::Unknown, |name| {
                self.directory.entry_status(&name)
            }),
        };
        // A receiver that was dropped needs no reply.
        reply.send(status).ok();
    }

    /// Looks at the entries that are due, and returns whether a sweep is due.
    fn look_at_names(&mut self) -> bool {
        let Look { names, sweep } = self.directory.next_look(now());
        for name in names {
            self.look_at(name.clone());
            self.follow_link(&name);
        }
        sweep
    }

    fn look_at(&mut self, name: OsString) {
        let entry = self.probe.entry(&name, self.directory.known(&name));
        self.directory.observe_entry(now(), name, entry);
    }

    /// Watches the process that an entry leads through, if the entry is a symbolic link.
    fn follow_link(&mut self, name: &OsStr) {
        for _ in 0..RACES {
            let Some(id) = self.directory.link(name) else {
                return self.links.forget(name);
            };
            if !self.links.wants(name, id) {
                return;
            }
            let process = self.probe.process_behind(name);
            // The process may have ended before it was watched. From now on its exit is reported.
            self.look_at(name.to_owned());
            if self.directory.link(name) == Some(id) {
                return self.links.follow(name, id, process);
            }
        }
    }

    /// Watches the processes behind all symbolic links, and no other processes.
    fn follow_links(&mut self) {
        self.links
            .retain(|name| self.directory.link(name).is_some());
        for name in self.directory.links() {
            self.follow_link(&name);
        }
    }

    /// Looks at all entries, and repeats that if the directory was replaced in the meantime.
    async fn sweep(&mut self) {
        let started = now();
        for _ in 0..RACES {
            match self.sweep_once().await {
                Ok(Some(Swept { entries, live })) => {
                    self.directory
                        .observe_directory(started, now(), entries, &live);
                    self.follow_links();
                    self.last_sweep = Some(now());
                    self.report_readable(None);
                    return self.report_doorbells();
                }
                Ok(None) => {}
                Err(err) => {
                    let retry_in = self.config.degraded_sweep_interval;
                    self.directory.observe_failure(now(), retry_in);
                    return self.report_readable(Some(&err));
                }
            }
        }
        self.directory.observe_failure(now(), RACE_PAUSE);
    }

    /// Places the watches on the directory and on its route, lists the directory, and checks that the route is
    /// still the same (`None`: it is not). In another order, the first name in a new directory would be missed.
    async fn sweep_once(&mut self) -> io::Result<Option<Swept>> {
        let route = self.probe.route()?;
        self.doorbells.watch(&route);
        let mut swept = Swept::default();
        if let Some(mut listing) = self.probe.list()? {
            let mut entries = Vec::with_capacity(listing.names.len());
            for (index, name) in std::mem::take(&mut listing.names).into_iter().enumerate() {
                if index % CHUNK == CHUNK - 1 {
                    self.serve_names(&mut swept.live).await;
                }
                let entry = listing.entry(&name, self.directory.known(&name));
                entries.push((name, entry));
            }
            swept.entries = Some(entries);
        }
        Ok((route == self.probe.route()?).then_some(swept))
    }

    /// Looks, in the middle of a sweep, at the entries that had events by name. So one deleted namespace among a
    /// thousand is reported before the sweep ends.
    async fn serve_names(&mut self, live: &mut HashSet<OsString>) {
        for name in self.doorbells.take_names() {
            self.look_at(name.clone());
            live.insert(name);
        }
        if self.deliver() {
            tokio::task::yield_now().await;
        }
    }

    /// Sends the events that fit into the queue, and returns whether it sent any. The rest stays merged until
    /// there is room.
    fn deliver(&mut self) -> bool {
        let mut delivered = false;
        while self.directory.has_events() {
            let Ok(permit) = self.events.try_reserve() else {
                break;
            };
            let Some(event) = self.directory.next_event() else {
                break;
            };
            permit.send(event);
            delivered = true;
        }
        delivered
    }

    fn retry_doorbells(&mut self) {
        self.retry_at = None;
        self.doorbells.install();
        // While a doorbell was missing, changes may have been missed.
        self.directory.apply_hints(Hints {
            sweep: true,
            ..Hints::default()
        });
    }

    /// Logs each doorbell that became missing or works again, and sets the sweep interval accordingly.
    fn report_doorbells(&mut self) {
        let missing = self.doorbells.missing(self.directory.exists());
        for doorbell in missing.iter().filter(|lost| !self.missing.contains(lost)) {
            let error = self
                .doorbells
                .failure(*doorbell)
                .map(|err| chain(err).to_string());
            warn!(%doorbell, error, "doorbell missing, sweeping more often instead");
        }
        for doorbell in self.missing.iter().filter(|lost| !missing.contains(lost)) {
            info!(%doorbell, "doorbell works again");
        }
        let interval = if missing.is_empty() {
            self.retry_at = None;
            self.retry_pause = RETRY.0;
            self.config.sweep_interval
        } else {
            if self.retry_at.is_none() {
                self.retry_at = Some(now() + self.retry_pause);
                self.retry_pause = (self.retry_pause * 2).min(RETRY.1);
            }
            self.config.degraded_sweep_interval
        };
        self.directory.set_sweep_interval(now(), interval);
        self.missing = missing;
    }

    /// Logs once that a namespace was created whose mount is not visible here.
    fn report_unmounted(&mut self) {
        for name in self.directory.take_given_up() {
            if !self.unmounted_reported && self.probe.is_placeholder(&name) {
                self.unmounted_reported = true;
                warn!(
                    netns = ?name,
                    "namespace created but not mounted where this daemon sees it: if it works for \
                     others, check the mount propagation of this mount namespace (MountFlags= or \
                     PrivateMounts= of a service, rslave of a container)"
                );
            }
        }
    }

    fn report_readable(&mut self, failure: Option<&io::Error>) {
        match (failure, self.unreadable) {
            (Some(err), false) => warn!(error = %err, "netns directory not readable"),
            (None, true) => info!("netns directory readable again"),
            _ => {}
        }
        self.unreadable = failure.is_some();
    }
}
