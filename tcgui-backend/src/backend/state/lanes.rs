//! Work on one thing is done in order, work on different things at the same time. Pure.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// How much may wait for one thing before more is refused.
const LONGEST: usize = 32;

/// Queues by key: the first of each is under way, the rest wait for it.
#[derive(Debug)]
pub(super) struct Lanes<K, W> {
    lanes: HashMap<K, VecDeque<W>>,
}

impl<K, W> Default for Lanes<K, W> {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash, W> Lanes<K, W> {
    /// Takes work in. `Ok(Some)`: begin it now; `Ok(None)`: it waits; `Err`: too much waits already.
    pub(super) fn enter(&mut self, key: K, work: W) -> Result<Option<W>, W> {
        match self.lanes.get_mut(&key) {
            None => {
                self.lanes.insert(key, VecDeque::new());
                Ok(Some(work))
            }
            Some(waiting) if waiting.len() < LONGEST => {
                waiting.push_back(work);
                Ok(None)
            }
            Some(_) => Err(work),
        }
    }

    /// Returns whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Gives up all that waits; what is under way goes on.
    pub(super) fn clear_waiting(&mut self) {
        self.lanes.values_mut().for_each(VecDeque::clear);
    }

    /// Notes that the work under way is done, and returns what to begin next.
    pub(super) fn leave(&mut self, key: &K) -> Option<W> {
        let next = self.lanes.get_mut(key)?.pop_front();
        if next.is_none() {
            self.lanes.remove(key);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_in_order_others_beside_it() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.enter('a', 1), Ok(Some(1)));
        assert_eq!(lanes.enter('a', 2), Ok(None));
        assert_eq!(lanes.enter('b', 3), Ok(Some(3)));
        assert_eq!(lanes.leave(&'a'), Some(2));
        assert_eq!(lanes.leave(&'a'), None);
        assert_eq!(
            lanes.enter('a', 4),
            Ok(Some(4)),
            "an empty lane is forgotten"
        );
    }

    #[test]
    fn a_lane_is_bounded() {
        let mut lanes = Lanes::default();
        lanes.enter((), 0).unwrap();
        for work in 0..LONGEST {
            assert_eq!(lanes.enter((), work), Ok(None));
        }
        assert_eq!(lanes.enter((), 99), Err(99));
    }
}
