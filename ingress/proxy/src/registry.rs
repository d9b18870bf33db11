//! All open connections of clients: how many there may be, in all and from one address, and how each is told to end.
//!
//! INVARIANT: a busy connection is never shed. When there is no room the connection that has been idle longest is closed for a new one;
//! when all are busy new ones wait.

use crate::limits::Limits;
use futures_util::task::AtomicWaker;
use landfall_ingress_upstream::budget::{self, Account, Budget, Charge};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Value of `idle_since` while a request is served.
const BUSY: u64 = u64::MAX;

/// Longest wait for a word about an end, before looking for oneself.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// See the module's text.
pub(super) struct Registry {
    open: Mutex<Open>,
    /// Told when a connection has ended.
    ended: Notify,
    start: Instant,
    most: usize,
    most_per_address: usize,
    bytes: [usize; 3],
    connection_cost: usize,
}

#[derive(Default)]
struct Open {
    places: HashMap<u64, Arc<Place>>,
    addresses: HashMap<IpAddr, Address>,
    next: u64,
    closing: bool,
}

/// What all connections of one address share; of IPv6, all of one /64, which is what one client has.
struct Address {
    connections: usize,
    held: Arc<Account>,
}

/// One connection's place.
pub(super) struct Place {
    /// Milliseconds since the registry's start, or [`BUSY`].
    idle_since: AtomicU64,
    closing: AtomicBool,
    /// It is to end even if a request has begun, for others need its place.
    evicted: AtomicBool,
    /// The connection's task; it waits in one place at a time.
    waits: AtomicWaker,
    start: Instant,
    /// What it may hold.
    pub(super) budget: Arc<Budget>,
    _cost: Charge,
}

/// Gives the place back when it is dropped.
pub(super) struct Guard {
    registry: Arc<Registry>,
    number: u64,
    address: IpAddr,
    place: Arc<Place>,
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Too many from this address, or it holds all the memory that it may.
    Address,
    /// Too many in all, and all busy.
    Everywhere,
}

impl Registry {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            ended: Notify::new(),
            start: Instant::now(),
            most: limits.connections,
            most_per_address: limits.connections_per_address,
            bytes: [limits.received_bytes, limits.sent_bytes, limits.bytes_per_address],
            connection_cost: limits.connection_cost,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from this address; may close an idle one for it, unless the address has its share already. Trusted peers
    /// stand for many clients and have no bound of their own. The connection counts for `more` bytes beside what each counts for.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, trusted: bool, more: usize) -> Result<Guard, Full> {
        let cost = self.connection_cost + more;
        let mut open = self.lock();
        let address = client_network(address);
        // An address that has its share gets no more, and nobody's connection is closed for it.
        let has_share = |here: &Address| here.connections >= self.most_per_address || !here.held.fits(cost);
        if !trusted && open.addresses.get(&address).is_some_and(has_share) {
            return Err(Full::Address);
        }
        if open.places.len() >= self.most {
            let oldest = open
                .places
                .values()
                .min_by_key(|p| p.idle_since.load(Ordering::Relaxed));
            match oldest {
                // Idle ones that were told are on their way out: no second one is closed for the same place. One that was told and has
                // become busy ends when it can, and is not waited for.
                _ if open.places.values().any(|p| p.closing() && p.idle()) => return Err(Full::Everywhere),
                Some(oldest) if oldest.idle() => oldest.evict(),
                _ => {}
            }
            return Err(Full::Everywhere);
        }
        let [received, sent, all] = self.bytes;
        let here = open.addresses.entry(address).or_insert_with(|| Address {
            connections: 0,
            held: Account::new(all),
        });
        here.connections += 1;
        let held = (!trusted).then(|| Arc::clone(&here.held));
        let place = Arc::new(Place {
            _cost: budget::base(held.as_ref(), cost),
            budget: Arc::new(Budget::new(received, sent, held)),
            idle_since: AtomicU64::new(BUSY),
            closing: AtomicBool::new(open.closing),
            evicted: AtomicBool::new(false),
            waits: AtomicWaker::new(),
            start: self.start,
        });
        let number = open.next;
        open.next += 1;
        open.places.insert(number, Arc::clone(&place));
        Ok(Guard {
            registry: Arc::clone(self),
            number,
            address,
            place,
        })
    }

    /// What the connections of this address count for.
    #[cfg(test)]
    pub(super) fn held(&self, address: IpAddr) -> usize {
        let open = self.lock();
        open.addresses
            .get(&client_network(address))
            .map_or(0, |here| here.held.used())
    }

    /// Waits for a word that a connection has ended, not for long: one that is busy may be idle by then, and go for a new one.
    pub(super) async fn one_ended(&self) {
        let _ = timeout(LOOK_AGAIN, self.ended.notified()).await;
    }

    /// Closes the connections that have been idle longest, so many at most.
    pub(super) fn close_idle(&self, most: usize) {
        let open = self.lock();
        let since = |place: &Arc<Place>| place.idle_since.load(Ordering::Relaxed);
        let idle = open
            .places
            .values()
            .filter(|place| !place.closing() && since(place) != BUSY);
        let mut idle: Vec<_> = idle.map(|place| (since(place), place)).collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.iter().take(most).for_each(|(_, place)| place.evict());
    }

    /// Tells all connections to end, also those that come later.
    pub(super) fn close_all(&self) {
        let mut open = self.lock();
        open.closing = true;
        for place in open.places.values() {
            place.close();
        }
    }

    /// Waits until there is no connection.
    pub(super) async fn empty(&self) {
        while !self.lock().places.is_empty() {
            // Several listeners may wait, and one end wakes one of them.
            let _ = timeout(LOOK_AGAIN, self.ended.notified()).await;
        }
    }
}

/// Whose connections are counted together: an IPv4 address, an IPv6 /64.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

impl Place {
    pub(super) fn set_busy(&self) {
        self.idle_since.store(BUSY, Ordering::Relaxed);
    }

    /// It serves nothing from now on; one that did not before is none the younger for it.
    pub(super) fn set_idle(&self) {
        if !self.idle() {
            self.set_idle_since(Instant::now());
        }
    }

    /// It has served nothing since then.
    pub(super) fn set_idle_since(&self, since: Instant) {
        let millis = since.saturating_duration_since(self.start).as_millis();
        self.idle_since
            .store(u64::try_from(millis).unwrap_or(0), Ordering::Relaxed);
    }

    fn idle(&self) -> bool {
        self.idle_since.load(Ordering::Relaxed) != BUSY
    }

    /// Its place is needed by others.
    pub(super) fn evicted(&self) -> bool {
        self.evicted.load(Ordering::SeqCst)
    }

    fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.waits.wake();
    }

    fn evict(&self) {
        self.evicted.store(true, Ordering::SeqCst);
        self.close();
    }

    /// This connection is to end when it can.
    pub(super) fn closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Waits for that; once a request has `begun`, only for its place to be needed: at the end of the program it is still answered.
    pub(super) async fn told_to_close(&self, begun: bool) {
        poll_fn(|context| {
            self.waits.register(context.waker());
            let told = if begun { &self.evicted } else { &self.closing };
            match told.load(Ordering::SeqCst) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

impl Guard {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut open = self.registry.lock();
        open.places.remove(&self.number);
        if let Some(here) = open.addresses.get_mut(&self.address) {
            here.connections -= 1;
            if here.connections == 0 {
                open.addresses.remove(&self.address);
            }
        }
        drop(open);
        self.registry.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_that_was_idle_longest_goes_for_a_new_one_and_busy_ones_never() {
        let limits = Limits {
            connections: 2,
            connections_per_address: 2,
            ..Limits::default()
        };
        let registry = Registry::new(&limits);
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let one = registry.admit(address(1), false, 0).unwrap();
        let two = registry.admit(address(1), false, 0).unwrap();
        assert_eq!(registry.admit(address(2), false, 0).err(), Some(Full::Everywhere));
        assert!(!one.place().closing() && !two.place().closing());
        two.place().idle_since.store(5, Ordering::Relaxed);
        one.place().idle_since.store(9, Ordering::Relaxed);
        assert_eq!(registry.admit(address(2), false, 0).err(), Some(Full::Everywhere));
        assert!(two.place().closing() && !one.place().closing());
        // Nobody else is closed for the same place.
        assert_eq!(registry.admit(address(2), false, 0).err(), Some(Full::Everywhere));
        assert!(!one.place().closing());
        // Unless that one has become busy, which may last.
        two.place().set_busy();
        assert_eq!(registry.admit(address(2), false, 0).err(), Some(Full::Everywhere));
        assert!(one.place().closing() && one.place().evicted());
        drop(two);
        let three = registry.admit(address(1), false, 0).unwrap();
        drop(one);
        drop(three);
        assert!(registry.lock().addresses.is_empty());
    }

    #[test]
    fn an_address_that_has_its_share_closes_no_connection_of_others() {
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let shares = [
            Limits {
                connections: 2,
                connections_per_address: 1,
                ..Limits::default()
            },
            Limits {
                connections: 2,
                bytes_per_address: 2 * Limits::default().connection_cost - 1,
                ..Limits::default()
            },
        ];
        for limits in shares {
            let registry = Registry::new(&limits);
            let idle = registry.admit(address(1), false, 0).unwrap();
            idle.place().set_idle();
            let busy = registry.admit(address(2), false, 0).unwrap();
            assert_eq!(registry.admit(address(2), false, 0).err(), Some(Full::Address));
            assert!(!idle.place().closing());
            // One that has nothing yet is worth a connection that is idle.
            assert_eq!(registry.admit(address(3), false, 0).err(), Some(Full::Everywhere));
            assert!(idle.place().closing());
            drop((idle, busy));
            assert!(registry.lock().addresses.is_empty());
        }
    }

    #[test]
    fn an_idle_connection_grows_no_younger_by_being_looked_at() {
        let registry = Registry::new(&Limits::default());
        let held = registry.admit(IpAddr::from([10, 0, 0, 1]), false, 0).unwrap();
        let place = held.place();
        place.set_idle();
        let since = place.idle_since.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
        place.set_idle();
        assert_eq!(place.idle_since.load(Ordering::Relaxed), since);
        place.set_busy();
        place.set_idle();
        assert!(place.idle_since.load(Ordering::Relaxed) >= since + 20);
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        let limits = Limits {
            connections_per_address: 1,
            ..Limits::default()
        };
        let registry = Registry::new(&limits);
        let held = registry.admit("2001:db8::1".parse().unwrap(), false, 0).unwrap();
        let same = registry.admit("2001:db8::ffff:1".parse().unwrap(), false, 0);
        assert_eq!(same.err(), Some(Full::Address));
        assert!(registry.admit("2001:db8:0:1::1".parse().unwrap(), false, 0).is_ok());
        drop(held);
        assert!(registry.lock().addresses.is_empty());
    }

    #[test]
    fn one_address_has_only_its_share_unless_it_is_trusted() {
        let limits = Limits {
            connections_per_address: 1,
            ..Limits::default()
        };
        let registry = Registry::new(&limits);
        let address = IpAddr::from([10, 0, 0, 1]);
        let held = registry.admit(address, false, 0).unwrap();
        assert_eq!(registry.admit(address, false, 0).err(), Some(Full::Address));
        assert!(registry.admit(address, true, 0).is_ok());
        drop(held);
        assert!(registry.admit(address, false, 0).is_ok());
    }
}
