//! Which blobs come in now, for who passes them on while they come.

use landfall_core::name::Digest;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Blobs that come in now, with how many of their first bytes are checked and in the part file.
#[derive(Debug, Default)]
pub struct Arriving {
    bytes: Mutex<BTreeMap<Digest, u64>>,
    changed: Condvar,
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
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, u64>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that so many of a blob's first bytes are checked and in the part file.
    pub fn set(&self, digest: &Digest, bytes: u64) {
        self.lock().insert(*digest, bytes);
        self.changed.notify_all();
    }

    /// Says that a blob comes no more: it is there, or what came of it is kept.
    pub fn end(&self, digest: &Digest) {
        self.lock().remove(digest);
        self.changed.notify_all();
    }

    /// Says whether a blob is in the store in `directory`, or comes in. Blocks until it does, `limit` at most.
    pub fn await_begin(&self, directory: &Path, digest: &Digest, limit: Duration) -> bool {
        let absent =
            |bytes: &mut BTreeMap<Digest, u64>| !bytes.contains_key(digest) && !directory.join(digest.hex()).is_file();
        let waited = self.changed.wait_timeout_while(self.lock(), limit, absent);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Says how much of a blob of the store in `directory` is there, once that is more than `have` bytes or `limit` is over.
    pub fn wait_beyond(&self, directory: &Path, digest: &Digest, have: u64, limit: Duration) -> Ready {
        let still = |bytes: &mut BTreeMap<Digest, u64>| bytes.get(digest).is_some_and(|there| *there <= have);
        let waited = self.changed.wait_timeout_while(self.lock(), limit, still);
        let (bytes, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match bytes.get(digest) {
            Some(there) => Ready::Upto(*there),
            None if directory.join(digest.hex()).is_file() => Ready::Whole,
            None => Ready::Gone,
        }
    }
}
