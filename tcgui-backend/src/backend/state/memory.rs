//! When freed memory is returned to the kernel. Pure.
//!
//! The memory of a thousand deleted namespaces is free, but it lies in pieces between blocks in use. The allocator
//! keeps these pieces. Each such burst leaves more of them: the memory use grows by up to a tenth in twenty bursts (measured).
//! Returning whole free pages takes about a millisecond, so it is done only after many namespaces were deleted.

use std::time::{Duration, Instant};

/// Number of deleted namespaces from which memory is returned. A namespace with its publications takes some 10 kB.
const MANY: usize = 100;
/// Delays after the deletion. Each thread of the burst caches small pieces until it ends: the blocking threads end after
/// 3 s (see `main.rs`), those of Zenoh after Tokio's 10 s.
const QUIET: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(12)];

/// The largest number of namespaces since the last return, and when memory is returned next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    most: usize,
    due: [Option<Instant>; QUIET.len()],
}

impl Memory {
    /// Records the number of listed namespaces, and schedules a return of memory if many were deleted.
    pub(super) fn listed(&mut self, count: usize, now: Instant) {
        self.most = self.most.max(count);
        if self.most - count >= MANY && count <= self.most / 2 {
            self.due = QUIET.map(|quiet| Some(now + quiet));
        }
    }

    /// Returns when memory is returned next. `None`: no return is scheduled.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due.iter().flatten().min().copied()
    }

    /// Returns whether memory is to be returned now, and removes that time from the schedule. `count` is the number of listed
    /// namespaces.
    pub(super) fn take_due(&mut self, count: usize, now: Instant) -> bool {
        let mut is_due = false;
        for due in &mut self.due {
            is_due |= due.take_if(|due| *due <= now).is_some();
        }
        if is_due {
            self.most = count;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_after_many_went_and_their_threads_ended() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        for (count, due) in [(1000, false), (600, false), (400, true), (0, true)] {
            memory.listed(count, start);
            assert_eq!(memory.due_at().is_some(), due, "{count}");
        }
        assert!(!memory.take_due(0, start), "not before it is quiet");
        for quiet in QUIET {
            assert_eq!(memory.due_at(), Some(start + quiet));
            assert!(memory.take_due(0, start + quiet), "{quiet:?}");
            assert!(!memory.take_due(0, start + quiet), "only once");
        }
        memory.listed(0, start + QUIET[1]);
        assert_eq!(memory.due_at(), None);
    }

    #[test]
    fn a_few_are_not_worth_it() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        memory.listed(MANY - 1, now);
        memory.listed(0, now);
        assert_eq!(memory.due_at(), None);
    }
}
