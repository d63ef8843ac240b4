//! Limits the number of open queries, and divides it between links.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::replies::Link;

/// Slots for open queries. Clones share them.
///
/// A link may use as many slots as are still free. The first link gets half of all slots, the next one half of the
/// rest, and so on. So a client that does not read its replies leaves slots for other clients. With 512 slots, ten such
/// links are needed to use up all of them.
#[derive(Debug, Clone)]
pub(super) struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    places: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Only links that have a slot.
    by_link: HashMap<Link, usize>,
}

impl Admission {
    /// Creates this number of slots for all links together.
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(Shared {
            places,
            taken: Mutex::default(),
        }))
    }

    /// Returns a slot for a query on this link. `None`: the link has no further slot.
    pub(super) fn admit(&self, link: Link) -> Option<Permit> {
        let mut taken = self.0.lock();
        let free = self.0.places - taken.all;
        let own = taken.by_link.get(&link).copied().unwrap_or(0);
        if own >= free {
            return None;
        }
        taken.all += 1;
        taken.by_link.insert(link, own + 1);
        drop(taken);
        Some(Permit {
            shared: Arc::clone(&self.0),
            link,
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot of a link. It is free again when this value is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    shared: Arc<Shared>,
    link: Link,
}

impl Permit {
    /// Returns the link to which the slot belongs.
    pub(super) fn link(&self) -> Link {
        self.link
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.shared.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_link.get_mut(&self.link) {
            *own -= 1;
            if *own == 0 {
                taken.by_link.remove(&self.link);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    const PLACES: usize = 512;

    async fn links(count: usize) -> Vec<Link> {
        // All tasks exist at the same time, so that no two have the same id.
        let tracker = TaskTracker::new();
        let (end, _) = tokio::sync::broadcast::channel::<()>(1);
        let (tx, mut rx) = tokio::sync::mpsc::channel(count);
        for _ in 0..count {
            let (tx, mut end) = (tx.clone(), end.subscribe());
            tracker.spawn(async move {
                tx.send(Link::of_current_query()).await.unwrap();
                end.recv().await.ok();
            });
        }
        let mut links = Vec::new();
        while links.len() < count {
            links.push(rx.recv().await.unwrap());
        }
        links
    }

    fn take_all(admission: &Admission, link: Link) -> Vec<Permit> {
        std::iter::from_fn(|| admission.admit(link)).collect()
    }

    #[tokio::test]
    async fn a_link_that_takes_all_it_gets_leaves_places_for_others() {
        let admission = Admission::new(PLACES);
        let links = links(9).await;
        let mut taken = Vec::new();
        for link in links {
            let permits = take_all(&admission, link);
            taken.push(permits);
        }
        let counts: Vec<_> = taken.iter().map(Vec::len).collect();
        assert_eq!(counts, [256, 128, 64, 32, 16, 8, 4, 2, 1]);
    }

    #[tokio::test]
    async fn a_place_is_free_again_after_the_query() {
        let admission = Admission::new(PLACES);
        let [one, other] = links(2).await[..] else {
            unreachable!()
        };
        let permits = take_all(&admission, one);
        let fewer = take_all(&admission, other).len();
        assert!(fewer < PLACES / 2);
        drop(permits);
        assert_eq!(take_all(&admission, other).len(), PLACES / 2);
        let taken = admission.0.lock();
        assert!(taken.all == 0 && taken.by_link.is_empty(), "{taken:?}");
    }
}
