//! Answers that a client of HTTP/2 does not take: on a shared connection no write waits, the stream's window is just not opened.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// One stream and the answer on it. A client that pauses it (a video that nobody looks at) loses this stream and no other.
#[derive(Debug)]
pub struct StreamStall {
    start: Instant,
    /// Milliseconds from the start, and one, since when the client is to take what was handed over; 0 when it is not waited for.
    since: AtomicU64,
    /// The task that sends the answer. Without it the stream ends with RST_STREAM and CANCEL.
    task: OnceLock<AbortHandle>,
}

impl Default for StreamStall {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            since: AtomicU64::new(0),
            task: OnceLock::new(),
        }
    }
}

impl StreamStall {
    /// This task sends the answer. Only the first counts.
    pub fn sent_by(&self, task: AbortHandle) {
        // A stream has one task.
        let _ = self.task.set(task);
    }

    /// Ends the stream and nothing else.
    pub fn cancel(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// A frame was handed over; until the next is asked for the stream waits for its client.
    pub(super) fn wait(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.since.store(millis + 1, Ordering::Relaxed);
    }

    /// There is no room for more of this answer. What was handed over may wait since before.
    pub(super) fn wait_on(&self) {
        if self.since.load(Ordering::Relaxed) == 0 {
            self.wait();
        }
    }

    /// The wait is over.
    pub(super) fn taken(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// How long the client has been waited for.
    pub fn length(&self) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.start.elapsed().saturating_sub(Duration::from_millis(since)))
    }
}
