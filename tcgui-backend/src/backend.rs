//! The daemon: builds and supervises the actors, and runs the main select loop.
//!
//! ```text
//!  namespace_watcher ─┐                                               ┌─▶ bus (publications)
//!  interfaces ────────┼─▶ task.rs ─▶ state.rs (pure) ─▶ effects.rs ───┼─▶ interfaces (what to track)
//!  bus (requests) ────┤    ▲                                          ├─▶ execution (requests, losses)
//!  execution (calls) ─┘    └──────────────── results ◀────────────────┴─▶ workers (links, qdiscs, files)
//! ```
//!
//! Handles point one way: the backend knows the bus, `interfaces` and `execution`. None of these depends on the backend or waits
//! for it. Calls of executions are awaited in tasks of their own. The daemon ends in order on SIGINT or SIGTERM. It ends with an
//! error if an actor ends unexpectedly, so that the service manager restarts it.

mod effects;
mod explaining;
mod faults;
mod holders;
mod inventory;
mod link_worker;
mod orders;
mod reload;
mod reporting;
mod state;
mod task;
mod tc_port;
mod tc_worker;
mod wire;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tcgui_shared::names::BackendName;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use crate::bandwidth::{self, CounterTargets, KernelCounters};
use crate::blocking;
use crate::bus::{self, BusError};
use crate::clock;
use crate::config::Config;
use crate::containers::{self, ContainersConfig};
use crate::diagnostics::Diagnostics;
use crate::error::{BoxError, chain};
use crate::execution;
use crate::interfaces::{self, InterfacesEvent, InterfacesHandle, KernelLinks, UnknownNamespaces};
use crate::kernel::netns::NetnsFiles;
use crate::kernel::private_dir::Distrust;
use crate::kernel::process;
use crate::kernel::rtnetlink::{Observer, Rtnetlink, RtnetlinkError};
use crate::lease::journal::{Damaged, Journal, JournalError};
use crate::lease::ledger::LeaseKey;
use crate::lease::{BootTime, Home, Lease};
use crate::library;
use crate::namespace_watcher::{self, Namespace, NamespaceWatcherHandle, WatchConfig, WatchError};
use crate::policy::Policy;
use crate::processes::{self, ProcessesConfig, ProcessesError, ProcessesHandle};
use crate::service_manager::ServiceManager;
use crate::sockets::NetnsSockets;
use effects::Handles;
use holders::HolderReports;
use inventory::Setting;
use state::State;
use state::notifications::Notifications;
use task::Sources;
use tc_port::MainLoopPort;
use tc_worker::Leases;

pub use reload::ConfigReader;
pub(crate) use wire::network_namespace;

/// Maximum number of concurrent link dumps. The rtnl lock serialises the dumps themselves. Opening namespace files and reading
/// replies can overlap.
const LOOKS: usize = 4;
/// The interval of link sweeps is this many times that of the netns directory. The kernel reports lost link events, and a dump of
/// a namespace costs a hundred times a `stat` of a directory entry.
const LINK_SWEEP: u32 = 4;
/// Maximum number of concurrent operations on links and qdiscs. They are separate from the dumps, which must not wait for them.
const OPERATIONS: usize = 4;
/// Number of sockets kept for reading counters. Usually one reading runs at a time.
const READINGS: usize = 2;
/// The name of the watcher's actor.
const WATCHER: &str = "namespace_watcher";
/// Time after which the log reports that the first scan of the netns directory has not finished.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Time after which an actor fails on purpose ([`faults`]). By then the daemon is ready.
const FAIL_AFTER: Duration = Duration::from_secs(1);
/// Maximum time for actors to end. Then they are abandoned.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(1000);

/// Why the daemon cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The netns directory cannot be watched.
    #[error("cannot watch network namespaces")]
    Watch(#[from] WatchError),
    /// `/proc` is unavailable, or the thread of the watcher cannot be started.
    #[error("cannot read the network namespaces of the host")]
    OwnNamespace(#[source] io::Error),
    /// `--process-namespaces` needs a `/proc` that shows all processes.
    #[error("cannot read the processes in /proc")]
    Processes(#[from] ProcessesError),
    /// An rtnetlink socket or request failed.
    #[error("cannot talk to the kernel")]
    Kernel(#[from] RtnetlinkError),
    /// `--create-netns-dir` failed.
    #[error("cannot create the netns directory {directory:?}")]
    CreateDirectory {
        /// The path as configured.
        directory: PathBuf,
        /// The kernel's error.
        #[source]
        err: io::Error,
    },
    /// Another user could have written to the state directory or a file in it.
    #[error("cannot use the state directory")]
    State(#[source] Distrust),
    /// The bus could not be joined.
    #[error("cannot join the bus")]
    Bus(#[from] BusError),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// An actor ended with an error.
    #[error("{actor} failed")]
    Actor {
        /// Its name.
        actor: &'static str,
        /// Its error.
        #[source]
        err: BoxError,
    },
    /// An actor ended without a request to stop.
    #[error("{actor} ended unexpectedly")]
    ActorEnded {
        /// Its name.
        actor: &'static str,
    },
}

/// Runs the daemon until a signal ends it. SIGHUP reads the configuration again.
///
/// # Errors
/// [`BackendError`]: the daemon could not start, or an actor failed.
pub async fn run(config: Config, reader: ConfigReader) -> Result<(), BackendError> {
    let mut signals = Signals::open().map_err(BackendError::Signals)?;
    let mut supervisor = Supervisor::new(faults::failing_actor());
    let started = tokio::select! {
        biased;
        // Not cancel-safe. A cancelled start leaves at most a closed session.
        signal = signals.stop() => {
            info!(signal, "stopped before the start was complete");
            return Ok(());
        }
        started = start(config, &mut supervisor) => started,
    };
    let (state, sources, handles, namespaces) = started?;
    task::Task::new(state, sources, handles, signals, supervisor, reader)
        .run(namespaces)
        .await
}

/// Builds and starts the actors. Joining the bus may wait for a reply of the peer.
async fn start(
    config: Config,
    supervisor: &mut Supervisor,
) -> Result<(State, Sources, Handles, Vec<Namespace>), BackendError> {
    if config.create_netns_dir {
        create(&config.watch.directory)?;
    }
    let options = config.reloadable();
    let files = NetnsFiles::new().map_err(BackendError::OwnNamespace)?;
    // Check the state directory before reading anything that another user could have written.
    let (leases, left) = open_state(&config, files).await?;
    // Subscribe to notifications before the first dump, for links and for namespaces, so that no change is missed.
    let sockets = open_sockets(files, supervisor)?;
    let observer = open_observer(config.namespace_ids);
    let (tracker, link_events, interfaces) =
        open_interfaces(&config, observer.clone(), files, &sockets)?;
    let (namespaces, watcher) = open_watcher(config.watch, supervisor).await?;
    let (library, librarian) = library::open(config.library).await;
    let (publisher, clients, bus) = bus::open(&config.bus, &config.name).await?;

    let directory = watcher.directory().to_owned();
    info!(
        version = env!("CARGO_PKG_VERSION"), name = %config.name,
        directory = %directory.display(), count = namespaces.len(), "backend started"
    );
    tell_policy(&config.policy);
    let links = interfaces.run(supervisor.child_token());
    supervisor.supervise("interfaces", async { links.await.map_err(Into::into) });
    supervisor.watch_over("library", librarian.run(supervisor.child_token()));
    let counters = open_counters(observer, &sockets)?;
    let interval = config.bandwidth_interval;
    let counter_targets = start_bandwidth(&config.name, interval, counters, &bus, supervisor);
    let (held, processes) = find_holders(config.containers, config.processes, files, supervisor)?;
    let (port, calls) = MainLoopPort::channel();
    let known = library.clone();
    let source = Arc::new(move |id: &str| known.snapshot().scenario(id));
    let (scenarios, executions) = execution::open(&config.name, source, port, publisher.clone());
    supervisor.watch_over("execution", executions.run(supervisor.child_token()));
    let bus = bus.run(supervisor.child_token());
    supervisor.supervise("bus", async { bus.await.map_err(Into::into) });

    let identity = state::Identity {
        name: config.name,
        hostname: process::hostname(),
        started_at: clock::unix_seconds(),
        options,
        fails_with: faults::failing_namespace(),
    };
    let setting = Setting {
        directory: directory.clone(),
        own_inode: files.own_inode(),
        exclude_loopback: config.exclude_loopback,
    };
    let mut state = State::new(identity, setting, library.snapshot());
    state.adopt(left, BootTime::now());
    let service_manager = find_service_manager(&mut state);
    let handles = Handles {
        tracker,
        scenarios,
        processes,
        publisher,
        sockets,
        files,
        diagnostics: Diagnostics::new(files),
        library: library.clone(),
        leases,
        counter_targets,
        directory,
        watcher: watcher.status(),
        service_manager,
    };
    let sources = Sources {
        namespaces: watcher,
        held,
        interfaces: link_events,
        requests: clients.requests,
        joined: clients.joined,
        namesakes: clients.namesakes,
        is_on_bus: clients.is_visible,
        calls,
        library,
    };
    Ok((state, sources, handles, namespaces))
}

/// Reads from the environment whether a service manager is present. Then the state notifies it.
fn find_service_manager(state: &mut State) -> ServiceManager {
    let service_manager = ServiceManager::from_environment();
    if service_manager.is_present() {
        let watchdog = service_manager.watchdog_interval();
        state.notify(Notifications::enabled(watchdog));
    }
    service_manager
}

/// Starts the actors that read and publish counters. Returns the sender of the counter targets.
fn start_bandwidth(
    name: &BackendName,
    interval: Duration,
    counters: KernelCounters,
    bus: &bus::Task,
    supervisor: &mut Supervisor,
) -> watch::Sender<Arc<CounterTargets>> {
    let (targets, targets_rx) = watch::channel(Arc::default());
    let (samples, sampler) = bus.samples();
    let bandwidth = bandwidth::open(counters, name, interval, targets_rx, samples);
    supervisor.watch_over("bandwidth", bandwidth.run(supervisor.child_token()));
    supervisor.watch_over("samples", sampler.run(supervisor.child_token()));
    targets
}

/// Opens the sockets for changes, and starts the task that closes idle sockets inside namespaces.
fn open_sockets(
    files: NetnsFiles,
    supervisor: &mut Supervisor,
) -> Result<NetnsSockets, RtnetlinkError> {
    let sockets = NetnsSockets::new(Rtnetlink::open(OPERATIONS)?, files, OPERATIONS);
    let closing = sockets.clone().close_unused(supervisor.child_token());
    supervisor.watch_over("sockets", closing);
    Ok(sockets)
}

/// Creates the namespace from which links are read by id. `None` means that threads enter the namespaces instead.
fn open_observer(namespace_ids: bool) -> Option<Observer> {
    if !namespace_ids {
        return None;
    }
    match Observer::open() {
        Ok(observer) => Some(observer),
        Err(err) => {
            warn!(error = %chain(&err), "no namespace ids, entering namespaces instead");
            None
        }
    }
}

/// The interfaces actor, its handle, and its events.
type OpenedInterfaces = (
    InterfacesHandle,
    mpsc::Receiver<InterfacesEvent>,
    interfaces::Task<KernelLinks>,
);

/// Builds the interfaces actor. It receives notifications from this call on.
fn open_interfaces(
    config: &Config,
    observer: Option<Observer>,
    files: NetnsFiles,
    sockets: &NetnsSockets,
) -> Result<OpenedInterfaces, RtnetlinkError> {
    let looks = Rtnetlink::open_from(observer, LOOKS)?;
    let links = KernelLinks::open(looks, files, sockets.clone())?;
    let unknown_namespaces = match config.processes {
        Some(_) => UnknownNamespaces::Report,
        None => UnknownNamespaces::Ignore,
    };
    let sweep = config.watch.sweep_interval * LINK_SWEEP;
    Ok(interfaces::open(links, sweep, unknown_namespaces))
}

fn open_counters(
    observer: Option<Observer>,
    sockets: &NetnsSockets,
) -> Result<KernelCounters, RtnetlinkError> {
    let readings = Rtnetlink::open_from(observer, READINGS)?;
    Ok(KernelCounters::new(readings, sockets.clone()))
}

/// Starts the watcher on its own thread. Returns the current namespaces and the handle that reports changes.
///
/// The watcher reads files. A read blocks if the file system hangs. Then only this thread waits, and it is abandoned when the
/// daemon stops.
async fn open_watcher(
    config: WatchConfig,
    supervisor: &mut Supervisor,
) -> Result<(Vec<Namespace>, NamespaceWatcherHandle), BackendError> {
    let (opened, first_look) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    let (runtime, stop) = (Handle::current(), supervisor.child_token());
    let directory = config.directory.clone();
    let life = async move {
        match namespace_watcher::open(config).await {
            Ok((namespaces, handle, task)) => {
                opened.send(Ok((namespaces, handle))).ok();
                task.run(stop).await;
            }
            Err(err) => {
                opened.send(Err(err)).ok();
            }
        }
    };
    let watch = move || {
        runtime.block_on(life.instrument(info_span!("actor", name = WATCHER)));
        ended.send(()).ok();
    };
    thread::Builder::new()
        .name(WATCHER.to_owned())
        .spawn(watch)
        .map_err(BackendError::OwnNamespace)?;
    let late = async {
        tokio::time::sleep(FIRST_LOOK).await;
        warn!(
            directory = %directory.display(),
            "the first scan of the netns directory has not finished: a file system in it may hang"
        );
        std::future::pending().await
    };
    let opened = tokio::select! {
        // Cancel-safe: not polled again once one has resolved.
        opened = first_look => opened,
        never = late => never,
    };
    // The panic hook has logged the panic.
    let panicked = || BackendError::ActorEnded { actor: WATCHER };
    let opened = opened.map_err(|_| panicked())??;
    supervisor.supervise(WATCHER, async {
        end.await.map_err(|_| "it panicked".into())
    });
    Ok(opened)
}

/// Starts the actors that find namespaces without a name.
fn find_holders(
    containers: Option<ContainersConfig>,
    processes: Option<ProcessesConfig>,
    files: NetnsFiles,
    supervisor: &mut Supervisor,
) -> Result<(HolderReports, Option<ProcessesHandle>), BackendError> {
    let (of_containers, of_processes, held) = holders::channels();
    if let Some(config) = containers {
        let task = containers::open(config, files, of_containers);
        supervisor.watch_over("containers", task.run(supervisor.child_token()));
    }
    let Some(config) = processes else {
        return Ok((held, None));
    };
    let (handle, task) = processes::open(config, of_processes)?;
    supervisor.watch_over("processes", task.run(supervisor.child_token()));
    Ok((held, Some(handle)))
}

fn tell_policy(policy: &Policy) {
    let options = policy.to_string();
    if !options.is_empty() {
        info!(options, "options restrict which changes are made");
    }
}

/// Checks the state directory, and reads the leases that an earlier run left.
async fn open_state(config: &Config, files: NetnsFiles) -> Result<OpenedLeases, BackendError> {
    let opened = open_leases(config.state_dir.clone(), files).await?;
    let checked = library::check_store(&config.library).await;
    checked.map_err(BackendError::State)?;
    Ok(opened)
}

/// The leases of this run, and those that an earlier run left.
type OpenedLeases = (Leases, Vec<(LeaseKey, Lease)>);

/// Opens the state directory and reads the leases that an earlier run left. If that fails, the daemon continues and refuses
/// requests that need a lease.
///
/// # Errors
/// [`BackendError::State`]: another user could have written the files.
async fn open_leases(directory: PathBuf, files: NetnsFiles) -> Result<OpenedLeases, BackendError> {
    let open = move || {
        let home = Home::learn(&files).map_err(BoxError::from)?;
        let opened = Journal::open(&directory, home).and_then(|journal| {
            let loaded = journal.load()?;
            let writable = journal.probe();
            Ok((journal, loaded, writable))
        });
        match opened {
            Err(JournalError::Distrust(distrust)) => Ok(Err(distrust)),
            opened => Ok::<_, BoxError>(Ok(opened?)),
        }
    };
    let (journal, loaded, writable) = match blocking::run(open).await {
        Ok(opened) => opened.map_err(BackendError::State)?,
        Err(err) => {
            let reason = chain(err.as_ref()).to_string();
            warn!(
                error = reason,
                "no leases: changes that would end are refused, and nothing of an earlier run is restored"
            );
            return Ok((Err(reason.into()), Vec::new()));
        }
    };
    if let Err(err) = writable {
        warn!(error = %chain(&err), "leases cannot be written: changes that would end are refused");
    }
    for Damaged { file, err } in &loaded.damaged {
        warn!(file = %file.display(), error = %err, "not a lease, set aside");
    }
    if loaded.discarded > 0 {
        info!(count = loaded.discarded, "leases of another boot removed");
    }
    let mut left = Vec::new();
    for lease in loaded.leases {
        match journal.home().key(lease.netns) {
            Some(netns) => left.push(((netns, lease.ifindex), lease)),
            None => warn!(
                netns = %lease.netns, ifname = lease.ifname,
                "lease of a daemon in another namespace, not changed"
            ),
        }
    }
    if !left.is_empty() {
        info!(count = left.len(), "leases of an earlier run found");
    }
    Ok((Ok(Arc::new(journal)), left))
}

/// Creates the netns directory like `ip netns add`. The parent must exist.
fn create(directory: &Path) -> Result<(), BackendError> {
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
            Err(BackendError::CreateDirectory {
                directory: directory.to_owned(),
                err,
            })
        }
        _ => Ok(()),
    }
}

/// The action that a signal requests.
#[derive(Debug, Clone, Copy)]
enum Signal {
    Stop(&'static str),
    Reload,
}

/// The signals of an operator or service manager.
#[derive(Debug)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    /// A reload signal arrived during the start. The files that it is about may already have been read.
    reload_missed: bool,
}

impl Signals {
    fn open() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            reload_missed: false,
        })
    }

    /// Waits for a signal. Cancel-safe: a dropped future consumes no signal.
    async fn next(&mut self) -> Signal {
        if std::mem::take(&mut self.reload_missed) {
            return Signal::Reload;
        }
        self.receive().await
    }

    /// Waits for a stop signal. A reload signal that arrives meanwhile is returned by [`Self::next`]. Cancel-safe, like that.
    async fn stop(&mut self) -> &'static str {
        loop {
            match self.receive().await {
                Signal::Stop(signal) => return signal,
                Signal::Reload => self.reload_missed = true,
            }
        }
    }

    async fn receive(&mut self) -> Signal {
        tokio::select! {
            biased;
            // Cancel-safe, all three: `recv` takes nothing unless it returns it.
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

type ActorResult = Result<(), BoxError>;

/// Owns the actors. It detects the end of each actor and stops all of them together.
#[derive(Debug)]
struct Supervisor {
    actors: JoinSet<ActorResult>,
    names: HashMap<Id, &'static str>,
    stop: CancellationToken,
    /// The actor that is to fail on purpose.
    fail: Option<OsString>,
}

impl Supervisor {
    fn new(fail: Option<OsString>) -> Self {
        let stop = CancellationToken::new();
        Self {
            actors: JoinSet::new(),
            names: HashMap::new(),
            stop,
            fail,
        }
    }

    /// Returns a token that stops one actor.
    fn child_token(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Supervises an actor that cannot return an error.
    fn watch_over(&mut self, actor: &'static str, life: impl Future<Output = ()> + Send + 'static) {
        self.supervise(actor, async {
            life.await;
            Ok(())
        });
    }

    fn supervise(
        &mut self,
        actor: &'static str,
        life: impl Future<Output = ActorResult> + Send + 'static,
    ) {
        let fail = self.fail.as_deref() == Some(OsStr::new(actor));
        let life = async move {
            tokio::select! {
                // Not cancel-safe, like a real failure. The rest of the daemon must handle it.
                ended = life => ended,
                () = tokio::time::sleep(FAIL_AFTER), if fail => panic!("told to fail"),
            }
        };
        let task = self
            .actors
            .spawn(life.instrument(info_span!("actor", name = actor)));
        self.names.insert(task.id(), actor);
    }

    /// Waits for an actor to end. Returns its name and result. Cancel-safe.
    async fn next_end(&mut self) -> Option<(&'static str, ActorResult)> {
        let (id, ended) = match self.actors.join_next_with_id().await? {
            Ok((id, ended)) => (id, ended),
            Err(err) => (err.id(), Err(err.into())),
        };
        Some((self.names.remove(&id).unwrap_or("an actor"), ended))
    }

    /// Waits for an unexpected end of an actor. Cancel-safe.
    async fn failure(&mut self) -> BackendError {
        match self.next_end().await {
            Some((actor, Err(err))) => BackendError::Actor { actor, err },
            Some((actor, Ok(()))) => BackendError::ActorEnded { actor },
            None => BackendError::ActorEnded {
                actor: "every actor",
            },
        }
    }

    /// Stops all actors and waits for them, at most [`SHUTDOWN_GRACE`].
    async fn shut_down(mut self) {
        self.stop.cancel();
        let all = async {
            while let Some((actor, ended)) = self.next_end().await {
                if let Err(err) = ended {
                    warn!(actor, error = %chain(err.as_ref()), "actor failed while stopping");
                }
            }
        };
        if tokio::time::timeout(SHUTDOWN_GRACE, all).await.is_err() {
            warn!(left = ?self.names.values(), "actors did not end in time");
        }
    }
}
