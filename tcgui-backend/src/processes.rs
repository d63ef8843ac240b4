//! Finds the network namespaces that processes hold, with or without a name.
//!
//! One actor owns the process table, the kernel's announcements of new processes, and an exit watch on each holder
//! that it reported. `/proc` is the only source of state; a doorbell (a notification without content) only selects
//! the processes to look at.
//!
//! ```text
//!  process connector ─┐ doorbell.rs         ┌────────────────┐  look   ┌──────────┐
//!  exits of holders   ┼ holder_exits.rs ───▶│ task.rs: select│────────▶│ probe.rs │──▶ /proc
//!  backend's requests ┤ handle              └───────┬────────┘◀────────└──────────┘
//!  timers             ┘               schedule,    │    ▲      namespaces of processes
//!                                          observe  ▼    │ next look, wake-up time
//!                       scan_scheduler.rs, holders.rs ──▶ HeldEvent ──▶ consumer
//! ```
//!
//! Inputs: the doorbells. Outputs: [`HeldEvent`]s, as fast as the consumer takes them. The actor reports the
//! oldest holder of each namespace. It reports a new holder before it removes the old one. It ends when its token
//! is cancelled or the consumer is dropped.
//!
//! A new process, or an `exec` in a process, causes a look at that process. All processes are scanned when events
//! were lost, when the last known holder of a namespace has ended, when the backend requests it, and in slow
//! sweeps. After the first scan the actor uses less than 2 % of one processor: scans that cost more are delayed.

mod cpu_meter;
mod doorbell;
mod holder_exits;
mod holders;
mod probe;
mod scan_scheduler;
mod task;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::netns_holders::HeldEvent;
pub use task::Task;

/// The interval of the scans of all processes without an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessesConfig {
    /// While the kernel announces new processes. Changes that it does not announce are found by this scan.
    pub sweep_interval: Duration,
    /// While the kernel does not announce new processes.
    pub degraded_sweep_interval: Duration,
}

/// Why processes cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ProcessesError {
    /// `/proc` is not mounted, or does not show the daemon itself.
    #[error("cannot read /proc: is it that of this PID namespace?")]
    OpenTable(#[source] io::Error),
}

/// Requests scans from the actor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProcessesHandle {
    wakeup: Arc<Notify>,
}

impl ProcessesHandle {
    /// Requests a scan of all processes, because a namespace may exist that the actor does not know yet. Some
    /// kernel messages announce a namespace but not its holder (`RTM_NEWNSID`, for instance).
    ///
    /// The scan runs as soon as the budget allows it. Requests until then are merged.
    pub fn request_scan(&self) {
        self.wakeup.notify_one();
    }
}

/// Returns the actor, which reports to `events`, and the handle to it.
///
/// The actor does nothing before [`Task::run`] is polled.
///
/// # Errors
/// [`ProcessesError`] if `/proc` cannot be used. Doorbells that are not available are no error.
pub fn open(
    config: ProcessesConfig,
    events: mpsc::Sender<HeldEvent>,
) -> Result<(ProcessesHandle, Task), ProcessesError> {
    let wakeup = Arc::new(Notify::new());
    let task = Task::open(config, Arc::clone(&wakeup), events)?;
    Ok((ProcessesHandle { wakeup }, task))
}
