//! Exit watches on processes, each with a key that its owner chooses.

use std::collections::HashMap;
use std::future::pending;
use std::hash::Hash;

use tokio::task::{AbortHandle, JoinSet};

use crate::kernel::pidfd::ProcessEnd;

/// One pidfd and one task for each key.
#[derive(Debug)]
pub(crate) struct ExitWatches<K> {
    waits: JoinSet<K>,
    watched: HashMap<K, AbortHandle>,
}

impl<K: Clone + Eq + Hash + Send + 'static> ExitWatches<K> {
    pub(crate) fn new() -> Self {
        Self {
            waits: JoinSet::new(),
            watched: HashMap::new(),
        }
    }

    /// Returns whether a process is watched under this key.
    #[cfg(any(feature = "daemon", test))]
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.watched.contains_key(key)
    }

    /// Returns the number of watched processes.
    pub(crate) fn len(&self) -> usize {
        self.watched.len()
    }

    /// Watches a process. Replaces an earlier watch with this key.
    pub(crate) fn watch(&mut self, key: K, end: ProcessEnd) {
        let name = key.clone();
        let wait = self.waits.spawn(async move {
            // This fails only when the runtime shuts down.
            end.wait().await.ok();
            name
        });
        if let Some(old) = self.watched.insert(key, wait) {
            old.abort();
        }
    }

    /// Removes a watch. An exit that was not returned yet is dropped.
    pub(crate) fn forget(&mut self, key: &K) {
        if let Some(wait) = self.watched.remove(key) {
            wait.abort();
        }
    }

    /// Waits for the exit of a watched process, and removes its watch. Cancel-safe: the set keeps a result that is
    /// not returned.
    pub(crate) async fn next(&mut self) -> K {
        loop {
            match self.waits.join_next_with_id().await {
                // A watch that was replaced may have completed before it was aborted.
                Some(Ok((id, key)))
                    if self
                        .watched
                        .get(&key)
                        .is_some_and(|watched| watched.id() == id) =>
                {
                    self.watched.remove(&key);
                    return key;
                }
                Some(_) => {}
                None => return pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::kernel::pidfd::ProcessHandle;

    fn process() -> (Child, ProcessEnd) {
        let mut command = Command::new("cat");
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        (child, ProcessHandle::open(pid).unwrap().end().unwrap())
    }

    #[tokio::test]
    async fn the_end_of_a_process_that_was_replaced_is_not_returned() {
        let mut watches = ExitWatches::new();
        let ((mut first, first_end), (mut second, second_end)) = (process(), process());
        watches.watch("name", first_end);
        first.kill().unwrap();
        first.wait().unwrap();
        // The task of the first watch completes, and its key waits in the set.
        tokio::time::sleep(Duration::from_millis(50)).await;
        watches.watch("name", second_end);
        assert_eq!(watches.len(), 1);
        let early = timeout(Duration::from_millis(50), watches.next()).await;
        assert!(early.is_err(), "the second process still runs");
        assert!(watches.contains(&"name"));
        second.kill().unwrap();
        let ended = timeout(Duration::from_secs(5), watches.next()).await;
        assert_eq!(ended.unwrap(), "name");
        assert!(!watches.contains(&"name"));
        second.wait().unwrap();
    }

    #[tokio::test]
    async fn the_end_of_a_forgotten_process_is_not_returned() {
        let mut watches = ExitWatches::new();
        let (mut child, end) = process();
        watches.watch("name", end);
        watches.forget(&"name");
        child.kill().unwrap();
        child.wait().unwrap();
        let told = timeout(Duration::from_millis(50), watches.next()).await;
        assert!(told.is_err() && watches.len() == 0);
    }
}
