//! Which blobs come in now, for who passes them on while they come.

use landfall_core::name::Digest;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Blobs that come in now.
#[derive(Debug, Default)]
pub struct Arriving {
    blobs: Mutex<BTreeMap<Digest, Progress>>,
    changed: Condvar,
}

/// How far a blob has come.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// How many of its first bytes are checked and in the part file.
    checked: u64,
    /// When the last byte of it came, or its source said that it still waits for more.
    last: Instant,
}

/// How much of a blob may be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// So many of its first bytes; it still comes.
    Upto(u64),
    /// All of it.
    Whole,
    /// None: it neither comes nor is there.
    Gone,
}

impl Arriving {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Progress>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that so many of a blob's first bytes are checked and in the part file.
    pub fn set(&self, digest: &Digest, bytes: u64) {
        let progress = Progress {
            checked: bytes,
            last: Instant::now(),
        };
        self.lock().insert(*digest, progress);
        self.changed.notify_all();
    }

    /// Says that a blob still comes, although no chunk of it is whole. Nobody is woken.
    pub fn touch(&self, digest: &Digest) {
        if let Some(progress) = self.lock().get_mut(digest) {
            progress.last = Instant::now();
        }
    }

    /// Returns when something of a blob came last; `None` when it does not come.
    pub fn last(&self, digest: &Digest) -> Option<Instant> {
        self.lock().get(digest).map(|progress| progress.last)
    }

    /// Says that a blob comes no more: it is there, or what came of it is kept.
    pub fn end(&self, digest: &Digest) {
        self.lock().remove(digest);
        self.changed.notify_all();
    }

    /// Says whether a blob is in the store in `directory`, or comes in. Blocks until it does, `limit` at most.
    pub fn await_begin(&self, directory: &Path, digest: &Digest, limit: Duration) -> bool {
        let absent = |blobs: &mut BTreeMap<Digest, Progress>| {
            !blobs.contains_key(digest) && !directory.join(digest.hex()).is_file()
        };
        let waited = self.changed.wait_timeout_while(self.lock(), limit, absent);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Says how much of a blob of the store in `directory` is there, once that is more than `have` bytes or `limit` is over.
    pub fn wait_beyond(&self, directory: &Path, digest: &Digest, have: u64, limit: Duration) -> Ready {
        let still =
            |blobs: &mut BTreeMap<Digest, Progress>| blobs.get(digest).is_some_and(|there| there.checked <= have);
        let waited = self.changed.wait_timeout_while(self.lock(), limit, still);
        let (blobs, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match blobs.get(digest) {
            Some(there) => Ready::Upto(there.checked),
            None if directory.join(digest.hex()).is_file() => Ready::Whole,
            None => Ready::Gone,
        }
    }
}
