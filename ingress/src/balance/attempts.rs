//! One request's tries: another endpoint after a failure, as long as that is safe and bounded.

use super::{Backend, Choice, Outcome, Pick, Preference, choose};
use crate::limits::REPEATS;
use std::net::SocketAddr;
use std::sync::Arc;

/// The tries of one request. No I/O: the caller sends, and says what came of it.
///
/// A request of which no byte was taken may always go on, bounded by `tries` alone: nothing was acted on, and no load is added. A
/// request that an endpoint may have acted on goes on only if the caller holds it to be repeatable and the backend's budget allows it.
#[derive(Debug)]
pub struct Attempts<'a> {
    backend: &'a Arc<Backend>,
    preference: Preference,
    tries: usize,
    repeats: usize,
    tried: Vec<SocketAddr>,
}

/// Why no endpoint answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// There is none.
    NoEndpoint,
    /// None took the request.
    Unreachable,
}

impl<'a> Attempts<'a> {
    /// Starts; `tries` counts endpoints, at least one.
    pub fn new(backend: &'a Arc<Backend>, preference: Preference, tries: usize) -> Self {
        Self {
            backend,
            preference,
            tries: tries.max(1),
            repeats: 0,
            tried: Vec::new(),
        }
    }

    /// Returns the endpoint to try now, from the set of now: it may have changed since the last try.
    pub fn next(&mut self) -> Result<Pick, Lost> {
        let choice = Choice {
            preference: self.preference,
            tried: &self.tried,
        };
        let pick = (self.tried.len() < self.tries)
            .then(|| choose(self.backend, &choice))
            .flatten();
        let lost = if self.tried.is_empty() {
            Lost::NoEndpoint
        } else {
            Lost::Unreachable
        };
        pick.ok_or(lost)
    }

    /// The endpoint took nothing of the request: on to the next.
    pub fn untouched(&mut self, pick: Pick) {
        pick.report(Outcome::Unreachable);
        self.tried.push(pick.address());
    }

    /// The endpoint may have acted and gave no answer, or one that the route's policy wants repeated. Returns whether another try is
    /// allowed; only ask for requests that may be repeated.
    pub fn again(&mut self, pick: &Pick, outcome: Outcome) -> bool {
        pick.report(outcome);
        self.tried.push(pick.address());
        self.repeats += 1;
        self.tried.len() < self.tries && self.repeats <= REPEATS && self.backend.may_retry()
    }
}
