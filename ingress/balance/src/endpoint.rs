//! One address of a Service and what is known of it: how busy it is, how often it failed, until when it is left out.

use super::random;
use crate::clock::{milliseconds, now_ms};
use crate::limits::{EJECT_FIRST, EJECT_LONGEST};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How a request went, as far as the endpoint is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, with whatever status.
    Answered,
    /// It took no connection, or nothing of the request.
    Unreachable,
    /// It took the request and broke off.
    Broken,
    /// It took the request and did not answer in time.
    Late,
}

/// An address with its health. Numbers only go through atomics: requests on all threads meet here.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Stands for it in rendezvous hashing; the same on all nodes.
    pub(super) token: u64,
    in_flight: AtomicU32,
    /// Failed connections in a row.
    unreachable: AtomicU32,
    /// Requests in a row that it took and did not answer.
    broken: AtomicU32,
    /// Ejections in a row: each lasts twice as long as the one before.
    ejections: AtomicU32,
    /// End of the ejection in milliseconds of [`crate::clock`]; 0 is none.
    ejected_until_ms: AtomicU64,
    /// Failures of both sorts since it is known.
    failures: AtomicU32,
    /// Times that it was chosen while it was left out.
    tried_ejected: AtomicU32,
}

/// What is known of an endpoint at one moment, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Requests that it is working on for this proxy.
    pub in_flight: u32,
    /// Failed connections in a row.
    pub unreachable: u32,
    /// Requests in a row that it took and did not answer.
    pub unanswered: u32,
    /// Failures of both sorts since it is known.
    pub failures: u32,
    /// How long it is left out yet.
    pub ejected_for: Option<Duration>,
    /// Times that it was chosen while it was left out, for nothing else was left to try.
    pub tried_ejected: u32,
}

impl Endpoint {
    /// An endpoint of that backend of which nothing is known yet.
    pub(super) fn new(backend: &str, address: SocketAddr) -> Self {
        Self {
            address,
            token: random::hash_text(format_args!("{backend} {address}")),
            in_flight: AtomicU32::new(0),
            unreachable: AtomicU32::new(0),
            broken: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            tried_ejected: AtomicU32::new(0),
        }
    }

    /// What is known of it now.
    pub fn seen(&self) -> Seen {
        let of = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        let left = self.ejected_until_ms().checked_sub(now_ms());
        Seen {
            in_flight: self.in_flight(),
            unreachable: of(&self.unreachable),
            unanswered: of(&self.broken),
            failures: of(&self.failures),
            ejected_for: left.filter(|ms| *ms > 0).map(Duration::from_millis),
            tried_ejected: of(&self.tried_ejected),
        }
    }

    /// Requests that it is working on for this proxy.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it is left out now.
    pub fn ejected(&self) -> bool {
        self.ejected_until_ms() != 0
    }

    /// End of the ejection, 0 when there is none. The clock is read only when there was one.
    pub(super) fn ejected_until_ms(&self) -> u64 {
        match self.ejected_until_ms.load(Ordering::Relaxed) {
            0 => 0,
            until if until > now_ms() => until,
            _ => 0,
        }
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// All is forgiven.
    pub(super) fn succeed(&self) {
        // Reading first keeps the line shared between cores as long as all goes well.
        for counter in [&self.unreachable, &self.broken, &self.ejections] {
            if counter.load(Ordering::Relaxed) != 0 {
                counter.store(0, Ordering::Relaxed);
            }
        }
        self.readmit();
    }

    /// Counts a failure; returns how many of that sort there were in a row.
    pub(super) fn fail(&self, outcome: Outcome) -> u32 {
        let counter = match outcome {
            Outcome::Unreachable => &self.unreachable,
            _ => &self.broken,
        };
        self.failures.fetch_add(1, Ordering::Relaxed);
        counter.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Whether it was ejected and has not answered since: then one more failure is enough.
    pub(super) fn on_probation(&self) -> bool {
        self.ejections.load(Ordering::Relaxed) != 0
    }

    /// Leaves it out, each time twice as long.
    pub(super) fn eject(&self) {
        let before = self.ejections.fetch_add(1, Ordering::Relaxed);
        let pause = EJECT_FIRST.saturating_mul(1 << before.min(16)).min(EJECT_LONGEST);
        let until = now_ms().saturating_add(milliseconds(pause));
        self.ejected_until_ms.store(until, Ordering::Relaxed);
    }

    /// Notes that it is chosen although it is left out.
    pub(super) fn try_ejected(&self) {
        self.tried_ejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes it back.
    pub(super) fn readmit(&self) {
        if self.ejected_until_ms.load(Ordering::Relaxed) != 0 {
            self.ejected_until_ms.store(0, Ordering::Relaxed);
        }
    }
}
