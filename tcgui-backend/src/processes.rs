//! Which network namespaces processes hold, whether they have a name or not.
//!
//! One actor owns the table of processes, the kernel's announcements of new processes, and a watch on the
//! end of each holder that it reported. `/proc` is the truth; what rings only says where to look.
//!
//! ```text
//!  process connector ─┐ doorbell.rs         ┌────────────────┐  look   ┌──────────┐
//!  ends of holders    ┼ ends.rs      ─────▶ │ task.rs: select│────────▶│ probe.rs │──▶ /proc
//!  the backend's bell ┤ handle              └───────┬────────┘◀────────└──────────┘
//!  timers             ┘                     ring,   │    ▲      who is where
//!                                           observe ▼    │ what next, when
//!                           agenda.rs, budget.rs, holders.rs ──▶ HeldEvent ──▶ consumer
//! ```
//!
//! Inputs: the doorbells. Outputs: [`HeldEvent`]s, at the consumer's pace: for each namespace its oldest
//! holder, and no moment without one while there is one. It ends when its token is cancelled or the
//! consumer is gone.
//!
//! A new process, or a new program in one, costs a look at that process. All processes are looked at when
//! events were lost, when the last known holder of a namespace is gone, on the backend's bell and in slow
//! sweeps. However much happens, looking takes under 2 % of a processor after the first moment; then it comes later.

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

/// How often to look at all processes when nothing rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessesConfig {
    /// While the kernel announces new processes; what it does not announce is found by this.
    pub sweep_interval: Duration,
    /// While it does not.
    pub degraded_sweep_interval: Duration,
}

/// Why processes cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProcessesError {
    /// `/proc` is not mounted, or does not show the daemon itself.
    #[error("cannot read /proc: is it that of this PID namespace?")]
    OpenTable(#[source] io::Error),
}

/// Makes the actor look. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProcessesHandle {
    wakeup: Arc<Notify>,
}

impl ProcessesHandle {
    /// Says that there may be a namespace that the actor does not know yet, because the kernel announced one
    /// without saying where (`RTM_NEWNSID`, for instance).
    ///
    /// The actor looks at all processes as soon as that may cost something; rings until then are one ring.
    pub fn ring(&self) {
        self.wakeup.notify_one();
    }
}

/// Returns the actor, which reports to `events`, and the handle to it.
///
/// Nothing happens before [`Task::run`] is polled.
///
/// # Errors
/// [`ProcessesError`] when there is no usable `/proc`. Doorbells that cannot be had are no errors.
pub fn open(
    config: ProcessesConfig,
    events: mpsc::Sender<HeldEvent>,
) -> Result<(ProcessesHandle, Task), ProcessesError> {
    let wakeup = Arc::new(Notify::new());
    let task = Task::open(config, Arc::clone(&wakeup), events)?;
    Ok((ProcessesHandle { wakeup }, task))
}
