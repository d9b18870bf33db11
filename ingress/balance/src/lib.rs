//! Which endpoint a request goes to: three tiers, the less busy of two, hints, ejection, and what happens after a failure.
//!
//! Tiers: endpoints that are ready; of those, the ones that hints name for this node or zone come first. When none of them can be had,
//! endpoints that still serve while they end. Without any the answer is 503.
//!
//! It promises a choice without waiting, whatever it is told of endpoints. It knows neither sockets nor routes, and must not depend on a
//! runtime.
//!
//! INVARIANT: ejection only orders. When nothing else is left an ejected endpoint is tried, so no request is lost because of it.
//! INVARIANT: what is known of an endpoint (requests in flight, failures) stays when the set of endpoints changes around it.

#![forbid(unsafe_code)]

mod attempts;
mod backend;
mod budget;
#[cfg(any(test, feature = "testing"))]
pub mod chance;
pub mod clock;
mod endpoint;
pub mod limits;
mod random;
mod turn;

pub use attempts::{Attempts, Earlier, Lost, Onward};
pub use backend::{Backend, Endpoints, Found, Resolved};
pub use endpoint::{Endpoint, Outcome};
pub use turn::Turn;

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

    /// Whether a request that the endpoint may have seen may be sent once more; takes from the backend's budget.
    pub fn may_repeat(&self) -> bool {
        self.backend.may_retry()
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
    if choice.preference == Preference::Service {
        return service(&set, choice).map(|e| Pick::new(e, backend));
    }
    let chosen = preferred(&set, choice).or_else(|| {
        let chosen = |turn: Turn| less_busy(turn.part(&set), |e| turn.takes(e, choice.tried)).map(|e| (turn, e));
        let (turn, endpoint) = Turn::ALL.into_iter().find_map(chosen)?;
        if turn == Turn::Ejected {
            endpoint.try_ejected();
        }
        Some(endpoint)
    });
    chosen.map(|e| Pick::new(e, backend))
}

/// What [`choose`] would choose from for the first try.
#[derive(Debug)]
pub struct Foreseen {
    /// Whose turn it is; `None` when the preference alone decides.
    pub turn: Option<Turn>,
    /// Those that may be taken: which of several, their load decides then.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// Returns what a request could be sent to now, `None` when there is nothing. Chooses and counts nothing.
pub fn foresee(backend: &Backend, preference: Preference) -> Option<Foreseen> {
    let set = backend.endpoints();
    let choice = Choice { preference, tried: &[] };
    let wanted = match preference {
        Preference::Service => Some(service(&set, &choice)?),
        _ => preferred(&set, &choice),
    };
    if let Some(endpoint) = wanted {
        return Some(Foreseen {
            turn: None,
            endpoints: vec![Arc::clone(endpoint)],
        });
    }
    Turn::ALL.into_iter().find_map(|turn| {
        let takes = |e: &&Arc<Endpoint>| turn.takes(e, &[]);
        let endpoints: Vec<_> = turn.part(&set).iter().filter(takes).cloned().collect();
        (!endpoints.is_empty()).then_some(Foreseen {
            turn: Some(turn),
            endpoints,
        })
    })
}

/// The one endpoint that the preference asks for, while it is fit.
fn preferred<'a>(set: &'a Endpoints, choice: &Choice<'_>) -> Option<&'a Arc<Endpoint>> {
    let mut fit = set.ready().iter().filter(|e| usable(e, choice.tried));
    match choice.preference {
        Preference::Service | Preference::Any => None,
        Preference::Endpoint(own) => fit.find(|e| e.address == own),
        Preference::Key(key) => fit.max_by_key(|e| random::mix(key ^ e.token)),
    }
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

#[cfg(any(test, feature = "testing"))]
pub use random::seed;

#[cfg(test)]
mod tests;
