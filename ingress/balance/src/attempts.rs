//! One request's tries: another endpoint after a failure, as long as that is safe and bounded.

use crate::limits::REPEATS;
use crate::{Backend, Choice, Outcome, Pick, Preference, choose};
use std::net::SocketAddr;
use std::sync::Arc;

/// The tries of one request. No I/O: the caller sends, and says what came of it.
///
/// A request of which no byte was taken may always go on, bounded by `tries` alone: nothing was acted on, and no load is added. A
/// request that an endpoint saw, or may have seen, is sent again [`REPEATS`] times at most, whatever the reasons are, and each repeat is
/// paid for by the backend's one budget.
#[derive(Debug)]
pub struct Attempts<'a> {
    backend: &'a Arc<Backend>,
    preference: Preference,
    tries: usize,
    repeats: usize,
    /// Endpoints that are not tried again.
    tried: Vec<SocketAddr>,
    /// Endpoints that refused this request; tried again when there is no other.
    refusing: Vec<SocketAddr>,
    /// The endpoint that is to have the request once more.
    once_more: Option<SocketAddr>,
}

/// What became of a request before, where somebody else had the first try.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Earlier {
    /// How often it was sent again after an endpoint may have seen it.
    pub repeats: usize,
    /// The endpoint that took nothing of it, and was said to be so.
    pub untouched: Option<SocketAddr>,
}

/// Where a request goes that an endpoint saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// To the same endpoint on a new connection: the old one ended while the request was on its way.
    Same,
    /// To another endpoint; to the same one, on a new connection, when there is no other.
    Rather,
    /// To another endpoint or nowhere.
    Other,
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
        backend.budget.request();
        Self::resumed(backend, preference, tries, Earlier::default())
    }

    /// Goes on with a request that was counted before.
    pub fn resumed(backend: &'a Arc<Backend>, preference: Preference, tries: usize, earlier: Earlier) -> Self {
        Self {
            backend,
            preference,
            tries: tries.max(1),
            repeats: earlier.repeats,
            tried: earlier.untouched.into_iter().collect(),
            refusing: Vec::new(),
            once_more: None,
        }
    }

    /// Returns the endpoint to try now, from the set of now: it may have changed since the last try.
    #[expect(
        clippy::should_implement_trait,
        reason = "it is asked again with what was learnt in between"
    )]
    pub fn next(&mut self) -> Result<Pick, Lost> {
        let lost = if self.tried.is_empty() && self.refusing.is_empty() && self.repeats == 0 {
            Lost::NoEndpoint
        } else {
            Lost::Unreachable
        };
        if self.tried.len() >= self.tries {
            return Err(lost);
        }
        let preference = match (self.preference, self.once_more.take()) {
            (Preference::Service, _) | (_, None) => self.preference,
            (_, Some(same)) => Preference::Endpoint(same),
        };
        let seen = [&self.tried[..], &self.refusing[..]].concat();
        let from = |tried| choose(self.backend, &Choice { preference, tried });
        from(&seen)
            .or_else(|| from(&self.tried).filter(|_| !self.refusing.is_empty()))
            .ok_or(lost)
    }

    /// Whether the request was sent before, so that only a new connection may have it: what ended one kept connection may have ended all.
    pub fn needs_new_connection(&self) -> bool {
        self.repeats > 0
    }

    /// The endpoint took nothing of the request: on to the next.
    pub fn untouched(&mut self, pick: Pick) {
        pick.report(Outcome::Unreachable);
        self.tried.push(pick.address());
    }

    /// The endpoint saw the request, or may have seen it; how it did is said by [`Pick::report`]. Returns whether it may be sent again; only ask for requests that may be
    /// repeated.
    pub fn again(&mut self, pick: &Pick, onward: Onward) -> bool {
        match onward {
            Onward::Same => self.once_more = Some(pick.address()),
            Onward::Rather => self.refusing.push(pick.address()),
            Onward::Other => self.tried.push(pick.address()),
        }
        self.repeats += 1;
        self.tried.len() < self.tries && self.repeats <= REPEATS && self.backend.may_retry()
    }
}
