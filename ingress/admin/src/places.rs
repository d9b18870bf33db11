//! How many connections the admin port has at once, so that one client keeps neither Prometheus nor people who read the dashboard from it.

use landfall_ingress_proxy::client_network;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections at once; more are closed.
const CONNECTIONS: usize = 256;
/// Connections at once from one address: as many as another proxy keeps to it ([`landfall_ingress_upstream::POOL_IDLE_PER_ENDPOINT`]).
const CONNECTIONS_PER_ADDRESS: usize = 64;

/// Connections by address; of IPv6, by /64.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<HashMap<IpAddr, usize>>);

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, unless there is none for this one, whose connection is to be closed then.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let address = client_network(peer.to_canonical());
        let mut places = self.lock();
        let all: usize = places.values().sum();
        let here = places.get(&address).copied().unwrap_or_default();
        if here >= CONNECTIONS_PER_ADDRESS || all >= CONNECTIONS {
            return None;
        }
        places.insert(address, here + 1);
        let places = Arc::clone(self);
        Some(Place { places, address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.lock();
        if let Entry::Occupied(mut here) = places.entry(self.address) {
            *here.get_mut() -= 1;
            if *here.get() == 0 {
                here.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn no_address_takes_all_places() {
        let places = Arc::new(Places::default());
        let mut taken = Vec::new();
        for stranger in ["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.3", "2001:db8::1"] {
            let fill = std::iter::from_fn(|| places.enter(ip(stranger)));
            let of_one: Vec<Place> = fill.take(1000).collect();
            assert_eq!(of_one.len(), CONNECTIONS_PER_ADDRESS, "{stranger}");
            taken.extend(of_one);
        }
        assert!(places.enter(ip("2001:db8::2")).is_none(), "the same /64");
        assert!(places.enter(ip("192.0.2.9")).is_none(), "all are taken");
        assert_eq!(places.lock().len(), 4, "who is refused leaves nothing");
        taken.truncate(1);
        let other = places.enter(ip("192.0.2.9"));
        assert!(other.is_some());
        drop((taken, other));
        assert!(places.lock().is_empty());
    }
}
