//! Which endpoint a request goes to: three tiers, the less busy of two, hints, ejection, and what happens after a failure.
//!
//! Tiers: endpoints that are ready; of those, the ones that hints name for this node or zone come first. When none of them can be had,
//! endpoints that still serve while they end. Without any the answer is 503.
//!
//! INVARIANT: ejection only orders. When nothing else is left an ejected endpoint is tried, so no request is lost because of it.
//! INVARIANT: what is known of an endpoint (requests in flight, failures) stays when the set of endpoints changes around it.

mod attempts;
mod backend;
mod budget;
mod endpoint;
mod random;

pub use attempts::{Attempts, Lost};
pub use backend::{Backend, Endpoints, Found, Resolved};
pub use endpoint::{Endpoint, Outcome};

use std::net::SocketAddr;
use std::sync::Arc;

/// What a request wants of the choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preference {
    /// The less busy of two.
    #[default]
    Any,
    /// This endpoint; any other when it is gone or ejected.
    Endpoint(SocketAddr),
    /// The same endpoint for the same key, as long as it is there (rendezvous hashing).
    Key(u64),
    /// The Service's own address instead of its endpoints'.
    Service,
}

impl Preference {
    /// A key made of the bytes that a request is hashed by.
    pub fn key(bytes: &[u8]) -> Self {
        Self::Key(random::hash(bytes))
    }
}

/// One choice: what is preferred, and what was tried before for the same request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice<'a> {
    /// What is preferred.
    pub preference: Preference,
    /// Addresses that failed this request already.
    pub tried: &'a [SocketAddr],
}

/// An endpoint that was chosen; it counts as busy until this is dropped.
#[derive(Debug)]
pub struct Pick {
    endpoint: Arc<Endpoint>,
    backend: Arc<Backend>,
}

impl Pick {
    fn new(endpoint: &Arc<Endpoint>, backend: &Arc<Backend>) -> Self {
        endpoint.begin();
        Self {
            endpoint: Arc::clone(endpoint),
            backend: Arc::clone(backend),
        }
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// Says how it went; an endpoint that fails again and again is left out for a while.
    pub fn report(&self, outcome: Outcome) {
        self.backend.report(&self.endpoint, outcome);
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.endpoint.end();
    }
}

/// Returns an endpoint for a request, `None` when all were tried or there are none.
pub fn choose(backend: &Arc<Backend>, choice: &Choice<'_>) -> Option<Pick> {
    let set = backend.endpoints();
    if choice.tried.is_empty() {
        backend.budget.request();
    }
    let chosen = match choice.preference {
        Preference::Service => return service(&set, choice).map(|e| Pick::new(e, backend)),
        Preference::Any => None,
        Preference::Endpoint(own) => set.ready().iter().find(|e| e.address == own && usable(e, choice.tried)),
        Preference::Key(key) => set
            .ready()
            .iter()
            .filter(|e| usable(e, choice.tried))
            .max_by_key(|e| random::mix(key ^ e.token)),
    };
    let chosen = chosen
        .or_else(|| less_busy(set.near(), |e| usable(e, choice.tried)))
        .or_else(|| less_busy(set.ready(), |e| usable(e, choice.tried)))
        .or_else(|| less_busy(set.ready(), |e| untried(e, choice.tried)))
        .or_else(|| less_busy(set.draining(), |e| untried(e, choice.tried)));
    chosen.map(|e| Pick::new(e, backend))
}

fn service<'a>(set: &'a Endpoints, choice: &Choice<'_>) -> Option<&'a Arc<Endpoint>> {
    // kube-proxy behind that address chooses anew for each connection, so it may be tried again.
    let usable = !set.ready().is_empty() || !set.draining().is_empty();
    set.service().filter(|_| usable && choice.tried.len() < set.len())
}

fn untried(endpoint: &Endpoint, tried: &[SocketAddr]) -> bool {
    !tried.contains(&endpoint.address)
}

fn usable(endpoint: &Endpoint, tried: &[SocketAddr]) -> bool {
    untried(endpoint, tried) && !endpoint.ejected()
}

/// Two endpoints at random, the one with fewer requests in flight: nearly as even as asking all, without the herd that the best of all
/// draws (Mitzenmacher, "The power of two choices"). Falls back to the first that is fit, from a random one on.
fn less_busy(from: &[Arc<Endpoint>], fit: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
    let count = from.len();
    if count < 2 {
        return from.first().filter(|e| fit(e));
    }
    let first = random::below(count);
    // One of the others, each with the same chance.
    let second = (first + 1 + random::below(count - 1)) % count;
    let (first_fit, second_fit) = (fit(&from[first]), fit(&from[second]));
    match (first_fit, second_fit) {
        (true, true) if from[second].in_flight() < from[first].in_flight() => Some(&from[second]),
        (true, _) => Some(&from[first]),
        (false, true) => Some(&from[second]),
        (false, false) => (0..count).map(|i| &from[(first + i) % count]).find(|e| fit(e)),
    }
}

#[cfg(test)]
pub(crate) use random::seed;

#[cfg(test)]
mod tests;
