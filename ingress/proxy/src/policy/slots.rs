//! Slots for work that is slow or waits for others: so many at once in all, and of each who asks for them a part at most. So one Service that
//! hangs, or one client that guesses passwords, leaves the rest to the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Slots<K: Eq + Hash> {
    all: Arc<Semaphore>,
    of_each: usize,
    /// Of those who have a slot or wait for one.
    shares: Mutex<HashMap<K, Arc<Semaphore>>>,
}

/// A slot, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot<K: Eq + Hash> {
    slots: Arc<Slots<K>>,
    key: K,
    share: Option<Arc<Semaphore>>,
    permits: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl<K: Eq + Hash + Clone> Slots<K> {
    /// So many in all, and for each key, at least one.
    pub(super) fn new(all: usize, of_each: usize) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(all)),
            of_each: of_each.max(1),
            shares: Mutex::default(),
        })
    }

    fn shares(&self) -> MutexGuard<'_, HashMap<K, Arc<Semaphore>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a slot: first for one of the key's share, so that it waits apart from others.
    pub(super) async fn acquire(self: &Arc<Self>, key: K) -> Slot<K> {
        let share = {
            let mut shares = self.shares();
            let share = shares
                .entry(key.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(self.of_each)));
            Arc::clone(share)
        };
        // Who stops waiting drops it.
        let mut slot = Slot {
            slots: Arc::clone(self),
            key,
            share: Some(Arc::clone(&share)),
            permits: None,
        };
        // The semaphores are never closed.
        if let Ok(own) = share.acquire_owned().await
            && let Ok(common) = Arc::clone(&self.all).acquire_owned().await
        {
            slot.permits = Some((own, common));
        }
        slot
    }
}

impl<K: Eq + Hash> Drop for Slot<K> {
    fn drop(&mut self) {
        drop((self.permits.take(), self.share.take()));
        let mut shares = self.slots.shares.lock().unwrap_or_else(PoisonError::into_inner);
        // The last one of a key takes its share away: the map's is the only one then.
        if shares.get(&self.key).is_some_and(|share| Arc::strong_count(share) == 1) {
            shares.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn one_key_has_its_share_and_leaves_the_rest_to_others() {
        let slots = Slots::new(3, 2);
        let first = slots.acquire("a").await;
        let _second = slots.acquire("a").await;
        assert!(timeout(SOON, slots.acquire("a")).await.is_err(), "that is its share");
        let other = timeout(SOON, slots.acquire("b")).await;
        assert!(other.is_ok());
        assert!(timeout(SOON, slots.acquire("c")).await.is_err(), "that is all");
        drop(first);
        assert!(timeout(SOON, slots.acquire("c")).await.is_ok());
    }

    #[tokio::test]
    async fn nothing_is_kept_of_keys_that_have_no_slot() {
        let slots = Slots::new(1, 1);
        let slot = slots.acquire(1).await;
        for key in 2..100 {
            assert!(timeout(Duration::ZERO, slots.acquire(key)).await.is_err());
        }
        assert_eq!(slots.shares().len(), 1);
        drop(slot);
        assert!(slots.shares().is_empty());
        let waiting = {
            let slots = Arc::clone(&slots);
            tokio::spawn(async move { slots.acquire(7).await })
        };
        assert!(waiting.await.is_ok());
        assert!(slots.shares().is_empty());
    }
}
