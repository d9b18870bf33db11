//! A Service port with its endpoints. All routes to it share one [`Backend`], so that a change of its endpoints is one exchange of a
//! pointer and touches no table.

use super::budget::Budget;
use super::random;
use crate::endpoint::{Endpoint, Outcome};
use crate::limits::{EJECT_AFTER_BROKEN, EJECT_AFTER_UNREACHABLE};
use arc_swap::ArcSwap;
use landfall_ingress_http::protocol::Protocol;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// A Service port with the endpoints that may be used now.
#[derive(Debug)]
pub struct Backend {
    /// `namespace/service:port`, for people.
    pub name: String,
    current: ArcSwap<Endpoints>,
    pub(super) budget: Budget,
    /// Ejections are counted and decided one at a time.
    ejecting: Mutex<()>,
}

/// What a Service port resolves to; see [`Backend::set`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Endpoints that are ready or draining, in whatever order.
    pub found: Vec<Found>,
    /// The Service's own address.
    pub service: Option<SocketAddr>,
    /// What the Service port's `appProtocol` asks for.
    pub protocol: Option<Protocol>,
    /// Why there cannot be endpoints.
    pub problem: Option<&'static str>,
}

/// One endpoint of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ready, or only serving while it ends.
    pub ready: bool,
    /// Hints name it for this node or zone.
    pub near: bool,
}

/// The endpoints of one moment.
#[derive(Debug, Default)]
pub struct Endpoints {
    /// Ready ones; the first `near` are those that hints name, all when hints say nothing.
    ready: Box<[Arc<Endpoint>]>,
    near: usize,
    draining: Box<[Arc<Endpoint>]>,
    service: Option<Arc<Endpoint>>,
    /// What the Service port's `appProtocol` asks for (S26).
    pub protocol: Option<Protocol>,
    /// Why there are no endpoints, when the Service itself is the reason.
    pub problem: Option<&'static str>,
}

impl Endpoints {
    /// Tier one.
    pub fn ready(&self) -> &[Arc<Endpoint>] {
        &self.ready
    }

    /// The part of tier one that is asked first.
    pub fn near(&self) -> &[Arc<Endpoint>] {
        &self.ready[..self.near]
    }

    /// Tier two: used when tier one has none.
    pub fn draining(&self) -> &[Arc<Endpoint>] {
        &self.draining
    }

    /// The Service's own address.
    pub fn service(&self) -> Option<&Arc<Endpoint>> {
        self.service.as_ref()
    }

    /// Endpoints of both tiers.
    pub fn len(&self) -> usize {
        self.ready.len() + self.draining.len()
    }

    /// Nothing can be sent anywhere.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Addresses of the tier that is in use, in order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let tier = if self.ready.is_empty() {
            &self.draining
        } else {
            &self.ready
        };
        let mut addresses: Vec<_> = tier.iter().map(|e| e.address).collect();
        addresses.sort_unstable();
        addresses
    }

    /// Everything that connections may be open to.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.ready.iter().chain(&self.draining).chain(&self.service)
    }
}

impl Default for Backend {
    fn default() -> Self {
        Self::new(String::new())
    }
}

impl Backend {
    /// A backend without endpoints.
    pub fn new(name: String) -> Self {
        Self {
            name,
            current: ArcSwap::default(),
            budget: Budget::default(),
            ejecting: Mutex::default(),
        }
    }

    /// A backend that can have no endpoints, and why.
    pub fn refused(name: &str, problem: &'static str) -> Self {
        let backend = Self::new(name.to_owned());
        backend.set(&Resolved {
            problem: Some(problem),
            ..Resolved::default()
        });
        backend
    }

    /// The endpoints of now. A request that waits long asks again instead of holding this.
    pub fn endpoints(&self) -> arc_swap::Guard<Arc<Endpoints>> {
        self.current.load()
    }

    /// Addresses of the tier that is in use, from a random one on; for questions of our own (authentication, mirrors, error pages), which
    /// are not balanced.
    pub fn candidates(&self) -> impl Iterator<Item = SocketAddr> {
        let mut all = self.endpoints().addresses();
        if !all.is_empty() {
            let first = random::below(all.len());
            all.rotate_left(first);
        }
        all.into_iter()
    }

    /// Counts a request that is sent without [`crate::Attempts`], for the budget.
    pub fn count_request(&self) {
        self.budget.request();
    }

    /// Whether a request that an endpoint may have acted on may be sent once more; takes from the budget.
    pub fn may_retry(&self) -> bool {
        self.budget.take()
    }

    /// Exchanges the endpoints. Those that stay keep what is known of them. Only one task calls this.
    pub fn set(&self, wanted: &Resolved) {
        let old = self.current.load();
        let known: BTreeMap<SocketAddr, &Arc<Endpoint>> = old.all().map(|e| (e.address, e)).collect();
        let keep = |address: SocketAddr| match known.get(&address) {
            Some(endpoint) => Arc::clone(endpoint),
            None => Arc::new(Endpoint::new(&self.name, address)),
        };
        let mut found = wanted.found.clone();
        // Ready before draining and near before far, so that of two entries with one address the better stays; slices may overlap
        // while an endpoint moves between them.
        found.sort_unstable_by_key(|f| (f.address, !f.ready, !f.near));
        found.dedup_by_key(|f| f.address);
        let (ready, draining): (Vec<_>, Vec<_>) = found.into_iter().partition(|f| f.ready);
        let (near, far): (Vec<_>, Vec<_>) = ready.into_iter().partition(|f| f.near);
        let split = if near.is_empty() { far.len() } else { near.len() };
        let ready: Box<[_]> = near.iter().chain(&far).map(|f| keep(f.address)).collect();
        readmit_above_half(&ready);
        self.current.store(Arc::new(Endpoints {
            near: split,
            draining: draining.iter().map(|f| keep(f.address)).collect(),
            service: wanted.service.map(keep),
            protocol: wanted.protocol,
            problem: wanted.problem,
            ready,
        }));
    }

    /// Notes how a request went, and ejects an endpoint that keeps failing unless half of them are out already: when most fail, the
    /// fault is rarely theirs (a network policy, this node), and the rest would be overrun.
    pub(super) fn report(&self, endpoint: &Endpoint, outcome: Outcome) {
        let enough = match outcome {
            Outcome::Answered => return endpoint.succeed(),
            Outcome::Unreachable => EJECT_AFTER_UNREACHABLE,
            Outcome::Broken | Outcome::Late => EJECT_AFTER_BROKEN,
        };
        if (endpoint.fail(outcome) < enough && !endpoint.on_probation()) || endpoint.ejected() {
            return;
        }
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let set = self.current.load();
        let out = set.ready.iter().filter(|e| e.ejected()).count();
        if out < set.ready.len() / 2 {
            endpoint.eject();
        }
    }
}

/// Fewer endpoints may bear fewer ejections: those that would end first end now.
fn readmit_above_half(ready: &[Arc<Endpoint>]) {
    let mut out: Vec<_> = ready
        .iter()
        .map(|e| (e.ejected_until_ms(), e))
        .filter(|(until, _)| *until != 0)
        .collect();
    let too_many = out.len().saturating_sub(ready.len() / 2);
    out.sort_by_key(|(until, _)| *until);
    out.iter().take(too_many).for_each(|(_, e)| e.readmit());
}
