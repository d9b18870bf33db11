//! Answers that a client of HTTP/2 does not take: on a shared connection no write waits, the stream's window is just not opened.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The answers of one connection that wait for their client.
#[derive(Debug, Default)]
pub struct Stalls(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    since: HashMap<u64, Instant>,
    next: u64,
}

impl Stalls {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame was handed over; until the next is asked for its stream waits. Returns the number for [`Stalls::taken`].
    pub(super) fn wait(&self) -> u64 {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.since.insert(number, Instant::now());
        number
    }

    /// The wait is over.
    pub(super) fn taken(&self, number: u64) {
        self.lock().since.remove(&number);
    }

    /// How long the longest wait is now.
    pub fn longest(&self) -> Option<Duration> {
        self.lock().since.values().min().map(Instant::elapsed)
    }
}
