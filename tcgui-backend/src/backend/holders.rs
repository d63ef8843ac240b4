//! Reports of holders of namespaces to the main loop: one channel for each holder source. A source removes only its own
//! reports.

use tokio::sync::mpsc;

use crate::netns_holders::{HeldEvent, HolderSource};

/// Capacity of each channel. The main loop takes a report within microseconds. A source whose channel is full waits,
/// which is safe: the main loop never waits for a source.
const REPORTS: usize = 256;

/// The receiver of the main loop.
#[derive(Debug)]
pub(super) struct HolderReports {
    containers: mpsc::Receiver<HeldEvent>,
    processes: mpsc::Receiver<HeldEvent>,
}

/// Returns the senders for the container actor and the process actor, and the receiver for the main loop.
pub(super) fn channels() -> (
    mpsc::Sender<HeldEvent>,
    mpsc::Sender<HeldEvent>,
    HolderReports,
) {
    let (containers, containers_rx) = mpsc::channel(REPORTS);
    let (processes, processes_rx) = mpsc::channel(REPORTS);
    let reports = HolderReports {
        containers: containers_rx,
        processes: processes_rx,
    };
    (containers, processes, reports)
}

impl HolderReports {
    /// Waits for the next report. Never returns after all sources have ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> (HolderSource, HeldEvent) {
        tokio::select! {
            biased;
            // Both are cancel-safe: `recv` removes a message only when it returns it. Containers have priority, because a
            // container name is better than a process name.
            Some(event) = self.containers.recv() => (HolderSource::Containers, event),
            Some(event) = self.processes.recv() => (HolderSource::Processes, event),
            else => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netns::ProcessNetnsId;

    #[tokio::test(start_paused = true)]
    async fn each_report_names_its_source_and_next_waits_after_all_sources_ended() {
        let (containers, processes, mut reports) = channels();
        let gone = |pid| HeldEvent::Removed(ProcessNetnsId::from_parts(4, 1, pid, 1));
        processes.send(gone(1)).await.unwrap();
        containers.send(gone(2)).await.unwrap();
        assert_eq!(reports.next().await, (HolderSource::Containers, gone(2)));
        drop(containers);
        assert_eq!(reports.next().await, (HolderSource::Processes, gone(1)));
        drop(processes);
        let silence = std::time::Duration::from_secs(3600);
        tokio::time::timeout(silence, reports.next())
            .await
            .unwrap_err();
    }
}
