//! The only place that carries out effects.
//!
//! Slow work runs in separate tasks, and its result returns as an [`Input`]. The only waits here are for room in the channels of
//! actors that never wait for the main loop.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::warn;

use super::explaining::Explainer;
use super::link_worker;
use super::reporting;
use super::state::{Effect, Input, LinkOutcome, TcOutcome};
use super::tc_worker::{self, Leases};
use crate::bandwidth::CounterTargets;
use crate::blocking;
use crate::bus::BusHandle;
use crate::diagnostics::Diagnostics;
use crate::execution::ScenarioHandle;
use crate::interfaces::InterfacesHandle;
use crate::kernel::netns::{NetnsFiles, NetnsKey, NetnsRef};
use crate::kernel::{boot, process};
use crate::lease::Lease;
use crate::lease::journal::{DeferredWrite, Whereabouts};
use crate::library::LibraryHandle;
use crate::namespace_watcher::StatusHandle;
use crate::processes::ProcessesHandle;
use crate::service_manager::ServiceManager;
use crate::sockets::{NetnsSockets, SocketError};

/// Carries out effects and owns the running work.
#[derive(Debug)]
pub(super) struct EffectRunner {
    pub(super) handles: Handles,
    /// Running work. Each task returns one input. Semaphores limit the number of concurrent operations.
    work: JoinSet<Input>,
}

/// The handles that effects use.
#[derive(Debug)]
pub(super) struct Handles {
    pub(super) tracker: InterfacesHandle,
    pub(super) scenarios: ScenarioHandle,
    /// `None` if processes are not scanned.
    pub(super) processes: Option<ProcessesHandle>,
    pub(super) publisher: BusHandle,
    pub(super) sockets: NetnsSockets,
    pub(super) files: NetnsFiles,
    pub(super) diagnostics: Diagnostics,
    pub(super) library: LibraryHandle,
    pub(super) leases: Leases,
    pub(super) counter_targets: watch::Sender<Arc<CounterTargets>>,
    /// The netns directory.
    pub(super) directory: PathBuf,
    pub(super) watcher: StatusHandle,
    pub(super) service_manager: ServiceManager,
}

impl EffectRunner {
    pub(super) fn new(handles: Handles) -> Self {
        Self {
            handles,
            work: JoinSet::new(),
        }
    }

    /// Returns whether no work is running.
    pub(super) fn is_idle(&self) -> bool {
        self.work.is_empty()
    }

    /// Returns the number of running tasks.
    pub(super) fn under_way(&self) -> usize {
        self.work.len()
    }

    /// Waits for the next result. Pending while no work is running. Cancel-safe: the set keeps a result until it is returned.
    pub(super) async fn next_result(&mut self) -> Result<Input, JoinError> {
        match self.work.join_next().await {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn carry_out(&mut self, effect: Effect) {
        match effect {
            // The interfaces actor never waits for the main loop, so these sends are short.
            Effect::Track(key, netns_ref) => {
                self.handles.sockets.admit(key);
                self.handles.tracker.track(key, netns_ref).await;
            }
            Effect::Untrack(key, netns_ref) => self.handles.tracker.untrack(key, netns_ref).await,
            Effect::Recheck(key) => self.handles.tracker.recheck(key).await,
            Effect::Forget(key) => self.handles.sockets.forget(key),
            Effect::ChangeLink(change) => {
                let sockets = self.handles.sockets.clone();
                self.operate(change.order.place.key, move || {
                    let result = link_worker::carry_out(&sockets, &change.order);
                    Input::LinkChanged(Box::new(LinkOutcome { change, result }))
                });
            }
            Effect::ChangeTc(change) => {
                let (sockets, leases) = (self.handles.sockets.clone(), self.handles.leases.clone());
                self.operate(change.order.place.key, move || {
                    let result = tc_worker::carry_out(&sockets, &leases, &change.order);
                    Input::TcChanged(Box::new(TcOutcome { change, result }))
                });
            }
            Effect::ForgetLease(lease) => self.update_lease_file(*lease, DeferredWrite::Erase),
            Effect::AmendLease(lease) => {
                let whereabouts = Whereabouts::of(&lease);
                self.update_lease_file(*lease, DeferredWrite::Amend(whereabouts));
            }
            Effect::Diagnose(order, reply) => {
                let diagnostics = self.handles.diagnostics.clone();
                let gone = self.handles.sockets.gone(order.place.key);
                self.run_beside(async move {
                    let gone = gone.cancelled_owned();
                    reply.send(diagnostics.run(*order, gone).await);
                });
            }
            Effect::Explain(question, reply) => {
                let explainer = self.explainer();
                self.run_beside(async move { reply.send(explainer.explain(*question).await) });
            }
            Effect::Scenario(request, reply) => {
                let library = self.handles.library.clone();
                self.run_beside(async move { reply.send(library.request(request).await) });
            }
            Effect::Identify(key, netns_refs) => self.identify(key, netns_refs),
            Effect::ReportState(state, reply) => {
                let scenarios = self.handles.scenarios.clone();
                self.run_beside(async move {
                    reply.send(reporting::complete(*state, &scenarios).await)
                });
            }
            // Short, as for the interfaces actor.
            Effect::Execution(command) => self.handles.scenarios.send(command).await,
            Effect::CounterTargets(counter_targets) => {
                self.handles
                    .counter_targets
                    .send_replace(Arc::new(counter_targets));
            }
            Effect::LookForHolders => {
                if let Some(processes) = &self.handles.processes {
                    processes.request_scan();
                }
            }
            Effect::GiveMemoryBack => {
                self.run_beside(blocking::run(process::give_memory_back));
            }
            Effect::Notify(message) => self.notify(message),
            Effect::Publish(publication) => {
                let publisher = self.handles.publisher.clone();
                self.work.spawn(async move {
                    // If the reply is missing, the bus has ended, which ends the daemon.
                    Input::Published(publisher.publish(publication).await.unwrap_or_default())
                });
            }
        }
    }

    /// Reads the cookie of a namespace.
    fn identify(&mut self, key: NetnsKey, netns_refs: Vec<NetnsRef>) {
        let sockets = self.handles.sockets.clone();
        self.operate(key, move || {
            let cookie = sockets.inside(key, &netns_refs, |socket| {
                Ok::<_, SocketError>(boot::netns_cookie_of(socket))
            });
            let cookie = cookie.unwrap_or_default();
            Input::Identified { key, cookie }
        });
    }

    /// Runs an operation inside a namespace on a worker thread as soon as the limit allows.
    fn operate(&mut self, netns: NetnsKey, operation: impl FnOnce() -> Input + Send + 'static) {
        let running = self.handles.sockets.running(netns);
        match Arc::clone(&running).try_acquire_owned() {
            Ok(permit) => {
                self.work.spawn_blocking(move || {
                    let _permit = permit;
                    operation()
                });
            }
            Err(_) => {
                self.work.spawn(async move {
                    let permit = running.acquire_owned().await;
                    blocking::run(move || {
                        let _permit = permit;
                        operation()
                    })
                    .await
                });
            }
        }
    }

    /// Runs work whose result is not needed. It still counts as running work.
    fn run_beside(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.work.spawn(async move {
            work.await;
            Input::Timer
        });
    }

    /// Updates the file of a lease outside the lane of its interface. Work that begins later may write the update first.
    fn update_lease_file(&mut self, lease: Lease, late: DeferredWrite) {
        let Ok(journal) = self.handles.leases.clone() else {
            return;
        };
        journal.intend(&lease, late);
        self.run_beside(blocking::run(move || tc_worker::catch_up(&journal, &lease)));
    }

    /// Sends a message to the service manager. A full queue there does not delay the main loop.
    fn notify(&mut self, message: String) {
        let manager = self.handles.service_manager.clone();
        self.work.spawn(async move {
            if let Err(error) = manager.send(&message).await {
                warn!(%error, message, "cannot notify the service manager");
            }
            Input::Notified
        });
    }

    fn explainer(&self) -> Explainer {
        Explainer {
            files: self.handles.files,
            directory: self.handles.directory.clone(),
            watcher: self.handles.watcher.clone(),
            tracker: self.handles.tracker.clone(),
        }
    }

    /// Aborts all running work.
    pub(super) fn abort_all(&mut self) {
        self.work.abort_all();
    }
}
