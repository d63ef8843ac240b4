//! When freed memory is given back to the kernel. Pure.
//!
//! What a thousand namespaces took is free when they are gone, but in pieces between what is still used. The
//! allocator keeps them, and each such burst leaves a little more, up to a tenth after twenty (measured).
//! Giving whole free pages back takes about a millisecond, so it is done only when much was freed.

use std::time::{Duration, Instant};

/// Fewer are not worth it: a namespace with its publications takes some 10 kB.
const MANY: usize = 100;
/// Threads of the burst keep small pieces for themselves until they end: the blocking threads after 3 s (see
/// `main.rs`), those of Zenoh after Tokio's 10 s.
const QUIET: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(12)];

/// How many namespaces there were, and when the memory of those that went is given back.
#[derive(Debug, Default)]
pub(super) struct Memory {
    most: usize,
    due: [Option<Instant>; QUIET.len()],
}

impl Memory {
    /// So many namespaces are listed now.
    pub(super) fn listed(&mut self, count: usize, now: Instant) {
        self.most = self.most.max(count);
        if self.most - count >= MANY && count <= self.most / 2 {
            self.due = QUIET.map(|quiet| Some(now + quiet));
        }
    }

    /// Returns when it is to be given back, if that is due at some time.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due.iter().flatten().min().copied()
    }

    /// Returns whether it is to be given back now; `count` are there.
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
