//! A bounded memory of what was verified, by hash, for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Hashes of what was verified, and when each is forgotten.
pub(super) struct Remembered {
    entries: Mutex<HashMap<[u8; 32], Instant>>,
    most: usize,
    kept: Duration,
}

impl Remembered {
    pub(super) fn new(most: usize, kept: Duration) -> Self {
        Self {
            entries: Mutex::default(),
            most,
            kept,
        }
    }

    pub(super) fn has(&self, entry: &[u8; 32]) -> bool {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(entry).is_some_and(|end| *end > Instant::now())
    }

    pub(super) fn add(&self, entry: [u8; 32]) {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.most {
            entries.retain(|_, end| *end > now);
        }
        if entries.len() >= self.most {
            // Whoever it hits is verified once more.
            let any = entries.keys().next().copied();
            any.and_then(|any| entries.remove(&any));
        }
        entries.insert(entry, now + self.kept);
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
