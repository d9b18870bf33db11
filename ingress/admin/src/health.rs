//! How routes, Services and endpoints are, and how many are how. Nobody keeps count where requests pass: whoever looks makes a round
//! through the table, which makes no text, and what it found is good for a second.

use landfall_ingress_balance::Backend;
use landfall_ingress_balance::Endpoint;
use landfall_ingress_proxy::tls;
use landfall_ingress_routing::Route;
use landfall_ingress_translate::remark::Severity;
use landfall_ingress_translate::route::Snapshot;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long a round is good. Pages ask every two seconds, and several may be open.
const LASTS: Duration = Duration::from_secs(1);

/// How a route or a Service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Healthy,
    /// Requests are served, but not as they should be.
    Degraded,
    /// Requests are answered with 503.
    Down,
    /// The route answers 503 because a protecting annotation cannot be read.
    Closed,
}

impl Health {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Degraded, Self::Down, Self::Closed];

    /// Its word in the API and in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Closed => "closed",
        }
    }
}

/// How the endpoints of a Service's port are.
#[derive(Debug, Default)]
pub struct Tally {
    /// Ready, and not left out.
    pub ready: usize,
    /// Ready, but left out after failures.
    pub ejected: usize,
    /// Only serving while they end.
    pub draining: usize,
    problem: Option<&'static str>,
}

impl Tally {
    /// Looks at them.
    pub fn of(backend: &Backend) -> Self {
        let set = backend.endpoints();
        let ejected = set.ready().iter().filter(|e| e.ejected()).count();
        Self {
            ready: set.ready().len() - ejected,
            ejected,
            draining: set.draining().len(),
            problem: set.problem,
        }
    }

    /// In a word.
    pub fn health(&self) -> Health {
        match (self.ready, self.ejected, self.draining) {
            (0, 0, 0) => Health::Down,
            (0, ..) | (_, 1.., _) => Health::Degraded,
            _ => Health::Healthy,
        }
    }

    /// Why it is not healthy.
    pub fn reason(&self) -> Option<String> {
        let Self {
            ready,
            ejected,
            draining,
            ..
        } = *self;
        match self.health() {
            Health::Healthy | Health::Closed => None,
            Health::Down => Some(self.problem.unwrap_or("no endpoint is ready").to_owned()),
            Health::Degraded if ejected > 0 => Some(format!(
                "{ejected} of {} ready endpoints left out after failures",
                ready + ejected
            )),
            Health::Degraded => Some(format!("no endpoint is ready; {draining} still serving while ending")),
        }
    }
}

/// How an endpoint is, in the API's word.
pub fn word(endpoint: &Endpoint, is_ready: bool) -> &'static str {
    match (is_ready, endpoint.ejected()) {
        (true, false) => "ready",
        (true, true) => "ejected",
        (false, _) => "draining",
    }
}

/// One endpoint as the API tells of it; `near` is what hints say, if they say something.
pub fn endpoint(endpoint: &Endpoint, word: &str, near: Option<bool>) -> Value {
    let seen = endpoint.seen();
    json!({ "address": endpoint.address, "state": word, "near": near, "in_flight": seen.in_flight, "failures": seen.failures,
        "unreachable_in_a_row": seen.unreachable, "unanswered_in_a_row": seen.unanswered,
        "ejected_for_ms": seen.ejected_for.map(landfall_ingress_balance::clock::milliseconds), "tried_although_ejected": seen.tried_ejected })
}

/// How a route is. One that only redirects needs no endpoint.
pub fn of_route(route: &Route) -> Health {
    if route.policy.closed.is_some() {
        Health::Closed
    } else if only_redirects(route) {
        Health::Healthy
    } else {
        Tally::of(&route.backend).health()
    }
}

/// Why a route is not healthy.
pub fn reason_of_route(route: &Route) -> Option<String> {
    match of_route(route) {
        Health::Healthy => None,
        Health::Closed => route.policy.closed.clone(),
        Health::Degraded | Health::Down => Tally::of(&route.backend).reason(),
    }
}

fn only_redirects(route: &Route) -> bool {
    route.policy.redirects.to.is_some()
}

/// Every backend that a route may send something to.
pub fn backends(route: &Route) -> impl Iterator<Item = &Backend> {
    let own = (!only_redirects(route)).then_some(&route.backend);
    let others = route.alternatives.iter().map(|other| &other.backend);
    let extra = [&route.fallback, &route.auth, &route.mirror].into_iter().flatten();
    own.into_iter().chain(others).chain(extra).map(|backend| &**backend)
}

/// How many are how.
#[derive(Debug, Default)]
pub struct Summary {
    /// Routes, by health.
    pub routes: [usize; Health::ALL.len()],
    /// Services' ports, by health.
    pub services: [usize; Health::ALL.len()],
    /// Endpoints.
    pub endpoints: Tally,
    /// Certificates.
    pub certificates: tls::Outline,
    /// Remarks: notes, approximated, refused.
    pub remarks: [usize; 3],
    /// The same in every proxy that has the same routes, whatever their order; endpoints and annotations are not in it.
    pub fingerprint: u64,
}

impl Summary {
    /// A round through a table.
    fn of(snapshot: &Snapshot) -> Self {
        let mut summary = Self {
            certificates: tls::outline(&snapshot.table),
            ..Self::default()
        };
        let mut services: HashMap<&str, &Backend> = HashMap::new();
        for route in snapshot.table.routes().chain(snapshot.table.default_routes()) {
            summary.routes[of_route(route) as usize] += 1;
            summary.fingerprint = summary.fingerprint.wrapping_add(fingerprint(route));
            services.extend(backends(route).map(|backend| (&*backend.name, backend)));
        }
        for backend in services.into_values() {
            let tally = Tally::of(backend);
            summary.services[tally.health() as usize] += 1;
            let sum = &mut summary.endpoints;
            sum.ready += tally.ready;
            sum.ejected += tally.ejected;
            sum.draining += tally.draining;
        }
        for remark in snapshot.remarks() {
            summary.remarks[match remark.severity {
                Severity::Note => 0,
                Severity::Approximated => 1,
                Severity::Refused => 2,
            }] += 1;
        }
        summary
    }
}

/// FNV-1a of 64 bits (draft-eastlake-fnv) over what a route is and where it leads. No secret is in it, and nobody gains by two that are the same.
fn fingerprint(route: &Route) -> u64 {
    let parts = [
        &*route.host.name,
        &route.path,
        route.kind(),
        &route.ingress,
        &route.backend.name,
    ];
    // A byte that is in no text ends each.
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The last round.
#[derive(Debug, Default)]
pub struct Rounds {
    last: Mutex<Option<Round>>,
    made: AtomicU64,
}

#[derive(Debug)]
struct Round {
    /// The table; not held, so that an old one is freed as soon as nobody else has it.
    table: Weak<Snapshot>,
    at: Instant,
    summary: Arc<Summary>,
}

impl Rounds {
    /// How many were made.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Returns how many are how in this table, as of the last second.
    pub fn summary(&self, snapshot: &Arc<Snapshot>) -> Arc<Summary> {
        // Held while the round is made: whoever comes meanwhile waits for it instead of making another.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(round) = &*last
            && std::ptr::eq(round.table.as_ptr(), Arc::as_ptr(snapshot))
            && round.at.elapsed() < LASTS
        {
            return Arc::clone(&round.summary);
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        let summary = Arc::new(Summary::of(snapshot));
        *last = Some(Round {
            table: Arc::downgrade(snapshot),
            at: Instant::now(),
            summary: Arc::clone(&summary),
        });
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_ingress_balance::{Choice, Found, Outcome, Resolved, choose};

    fn backend(ready: &[bool]) -> Arc<Backend> {
        let backend = Arc::new(Backend::new("d/a:80".to_owned()));
        let found = ready.iter().zip(1..).map(|(ready, last)| Found {
            address: ([10, 0, 0, last], 80).into(),
            ready: *ready,
            near: false,
        });
        backend.set(&Resolved {
            found: found.collect(),
            ..Resolved::default()
        });
        backend
    }

    #[test]
    fn a_service_is_as_well_as_its_endpoints_and_says_why_not() {
        let look = |backend: &Backend| {
            let tally = Tally::of(backend);
            (tally.health(), tally.reason().unwrap_or_default())
        };
        let why = |text: &str| text.to_owned();
        assert_eq!(look(&backend(&[true, false])), (Health::Healthy, why("")));
        assert_eq!(look(&backend(&[])), (Health::Down, why("no endpoint is ready")));
        assert_eq!(
            look(&Backend::refused("d/a:80", "there is no such Service")),
            (Health::Down, why("there is no such Service"))
        );
        assert_eq!(
            look(&backend(&[false, false])),
            (
                Health::Degraded,
                why("no endpoint is ready; 2 still serving while ending")
            )
        );
        let failing = backend(&[true, true, true]);
        let pick = choose(&failing, &Choice::default()).unwrap();
        (0..2).for_each(|_| pick.report(Outcome::Unreachable));
        assert_eq!(
            look(&failing),
            (Health::Degraded, why("1 of 3 ready endpoints left out after failures"))
        );
    }

    #[test]
    fn a_round_is_made_anew_for_another_table() {
        let rounds = Rounds::default();
        let (one, two) = (Arc::new(Snapshot::default()), Arc::new(Snapshot::default()));
        let first = rounds.summary(&one);
        assert!(Arc::ptr_eq(&first, &rounds.summary(&one)));
        let second = rounds.summary(&two);
        assert!(!Arc::ptr_eq(&first, &second));
        drop(one);
        assert!(Arc::ptr_eq(&second, &rounds.summary(&two)));
    }
}
