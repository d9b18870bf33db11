//! How far a process is in its life.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// From the first connection that is taken to the end; every method but [`Lifecycle::moved`] is short and never waits.
#[derive(Debug, Default)]
pub struct Lifecycle {
    open: AtomicBool,
    handed_over: AtomicBool,
    /// Wakes those who wait for [`Lifecycle::moved`].
    moved: Notify,
    stopping: AtomicBool,
}

impl Lifecycle {
    /// Says that the proxy ends soon.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// The end is near: connections are not kept.
    #[inline]
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Says that connections are taken.
    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Ready: connections are taken, for which there is a table, and the end is not near. One that handed over stays ready until it is told to
    /// end: it still serves its connections, and goes on if the other one dies.
    pub fn ready(&self) -> bool {
        self.open.load(Ordering::SeqCst) && !self.stopping()
    }

    /// Says whether another process of this node takes connections instead.
    pub fn set_handed_over(&self, handed_over: bool) {
        self.handed_over.store(handed_over, Ordering::SeqCst);
        if handed_over {
            self.moved.notify_waiters();
        }
    }

    /// Waits until another process of this node takes connections.
    pub async fn moved(&self) {
        let mut told = std::pin::pin!(self.moved.notified());
        // In this order a hand-over in between is not missed.
        told.as_mut().enable();
        if !self.handed_over() {
            told.await;
        }
    }

    /// Another process of this node takes connections.
    #[inline]
    pub fn handed_over(&self) -> bool {
        self.handed_over.load(Ordering::SeqCst)
    }

    /// Clients should come anew: the end is near, or another process of this node takes connections.
    #[inline]
    pub fn leaving(&self) -> bool {
        self.stopping() || self.handed_over.load(Ordering::SeqCst)
    }
}
