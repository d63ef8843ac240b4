//! Measures the processor time that the actor uses while it is polled.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::kernel::processes::thread_cpu_time;

/// Added for each poll: the cost of a wake-up, which cannot be measured from inside the poll. The thread wakes up,
/// calls `epoll_wait` and sleeps again.
const WAKING: Duration = Duration::from_micros(30);

/// The processor time that was not taken yet.
#[derive(Debug, Clone, Default)]
pub(super) struct CpuMeter(Arc<AtomicU64>);

impl CpuMeter {
    /// Runs `work` and adds the processor time of the threads that poll it.
    pub(super) async fn measure<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|context| {
            let began = thread_cpu_time();
            let polled = work.as_mut().poll(context);
            self.add(thread_cpu_time().saturating_sub(began) + WAKING);
            polled
        })
        .await
    }

    /// Adds processor time that was used on another thread.
    pub(super) fn add(&self, used: Duration) {
        let nanos = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Returns the time used since the last call.
    pub(super) fn take(&self) -> Duration {
        Duration::from_nanos(self.0.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn used_time_is_added_up_and_waiting_is_free() {
        let meter = CpuMeter::default();
        let busy = Duration::from_millis(5);
        let work = async {
            let began = thread_cpu_time();
            while thread_cpu_time() < began + busy {
                std::hint::spin_loop();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        meter.measure(work).await;
        meter.add(busy);
        let used = meter.take();
        assert!(used >= busy * 2 + WAKING * 2 && used < busy * 5, "{used:?}");
        assert_eq!(meter.take(), Duration::ZERO);
    }
}
