//! Memory that clients make this process hold: bounded per connection, and per address over all its connections.
//!
//! Counted are heads of requests, bodies that endpoints have not taken yet (over HTTP/2 as the window that was opened for them, and as
//! what waits to be written), answers that were handed over and not yet sent, buffers of HTTP/1 above the small ones, and a lump for each
//! connection and each request. What is over the bound is refused, waits, or goes on in small parts; what waits is ended when it has
//! waited too long (the proxy's `StreamStall`). Trusted fronts stand for many clients and have no bound per address.

use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Bytes of uploads that one connection may have kept for another try, beside what it may hold otherwise.
const KEPT: usize = 256 * 1024;

/// Bytes that are held, their bound, and who waits for room.
#[derive(Debug)]
pub struct Account {
    used: AtomicUsize,
    most: usize,
    waiting: Mutex<Vec<Waker>>,
}

impl Account {
    /// Nothing is held of so many bytes.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            most,
            waiting: Mutex::default(),
        })
    }

    fn take(&self, bytes: usize) -> bool {
        let within = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.most);
        self.used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, within)
            .is_ok()
    }

    /// Whether so much more is within the bound.
    pub fn fits(&self, bytes: usize) -> bool {
        let used = self.used.load(Ordering::SeqCst);
        used.checked_add(bytes).is_some_and(|sum| sum <= self.most)
    }

    /// Bytes that are held.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::SeqCst);
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }

    fn has_room(&self) -> bool {
        self.used.load(Ordering::SeqCst) < self.most
    }

    fn wake_later(&self, context: &Context<'_>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
    }
}

/// What one connection may hold.
#[derive(Debug)]
pub struct Budget {
    /// Requests, with what they brought.
    received: Arc<Account>,
    /// Answers that were handed over and not yet sent.
    sent: Arc<Account>,
    /// Parts of uploads that are kept for another try.
    kept: Arc<Account>,
    /// Of all connections of the address; `None` for trusted fronts.
    address: Option<Arc<Account>>,
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
pub struct Charge {
    bytes: usize,
    accounts: [Option<Arc<Account>>; 2],
}

/// Bytes that count for somebody.
struct Counted {
    data: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Charge {
    /// The same bytes; they count until the last of them is dropped.
    pub fn with(self, data: Bytes) -> Bytes {
        Bytes::from_owner(Counted { data, _charge: self })
    }

    /// Gives back what is above so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            self.bytes -= less;
            for account in self.accounts.iter().flatten() {
                account.give_back(less);
            }
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        for account in self.accounts.iter().flatten() {
            account.give_back(self.bytes);
        }
    }
}

impl Budget {
    /// For a connection that may hold so many bytes of each kind, of what its address may hold.
    pub fn new(received: usize, sent: usize, address: Option<Arc<Account>>) -> Self {
        Self {
            received: Account::new(received),
            sent: Account::new(sent),
            kept: Account::new(KEPT),
            address,
        }
    }

    /// Counts what a request brought; `None` when there is no room for it.
    pub fn receive(&self, bytes: usize) -> Option<Charge> {
        self.take(&self.received, bytes)
    }

    /// Counts a part of an upload that is kept for another try; `None` when there is no room, or the address holds half of what it may.
    pub fn keep(&self, bytes: usize) -> Option<Charge> {
        self.is_light().then(|| self.take(&self.kept, bytes)).flatten()
    }

    fn take(&self, account: &Arc<Account>, bytes: usize) -> Option<Charge> {
        if !account.take(bytes) {
            return None;
        }
        if self.address.as_ref().is_some_and(|address| !address.take(bytes)) {
            account.give_back(bytes);
            return None;
        }
        let accounts = [Some(Arc::clone(account)), self.address.clone()];
        Some(Charge { bytes, accounts })
    }

    /// Counts large buffers of a connection of HTTP/1, whose small ones are part of what the connection costs. `None` when small ones have
    /// to do: also when the address holds half of what it may, for what only saves system calls leaves room for further connections.
    pub fn buffers(&self, bytes: usize) -> Option<Charge> {
        self.is_light().then(|| self.receive(bytes)).flatten()
    }

    /// The same as [`Budget::receive`], ready when there is room.
    pub fn poll_receive(&self, bytes: usize, context: &Context<'_>) -> Poll<Charge> {
        if let Some(charge) = self.receive(bytes) {
            return Poll::Ready(charge);
        }
        self.received.wake_later(context);
        if let Some(address) = &self.address {
            address.wake_later(context);
        }
        // Room may have come before the waker was there.
        self.receive(bytes).map_or(Poll::Pending, Poll::Ready)
    }

    /// Whether the address holds less than half of what it may.
    pub fn is_light(&self) -> bool {
        let light = |address: &Arc<Account>| address.used.load(Ordering::SeqCst) < address.most / 2;
        self.address.as_ref().is_none_or(light)
    }

    /// Ready when more of an answer may be handed over: within both bounds, or when nothing of the connection's is on its way.
    pub fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        let free = || {
            let address = self.address.as_ref().is_none_or(|address| address.has_room());
            self.sent.used.load(Ordering::SeqCst) == 0 || (address && self.sent.has_room())
        };
        if free() {
            return Poll::Ready(());
        }
        self.sent.wake_later(context);
        if let Some(address) = &self.address {
            address.wake_later(context);
        }
        // Room may have come before the waker was there.
        if free() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Counts a part of an answer until it is sent.
    pub fn send(&self, bytes: usize) -> Charge {
        self.sent.add(bytes);
        if let Some(address) = &self.address {
            address.add(bytes);
        }
        let accounts = [Some(Arc::clone(&self.sent)), self.address.clone()];
        Charge { bytes, accounts }
    }
}

/// What a connection costs by being there, whatever its bounds are.
pub fn base(address: Option<&Arc<Account>>, bytes: usize) -> Charge {
    if let Some(address) = address {
        address.add(bytes);
    }
    Charge {
        bytes,
        accounts: [address.cloned(), None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_room(budget: &Budget) -> bool {
        budget.poll_room(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn what_one_connection_holds_is_bounded_and_comes_back() {
        let budget = Budget::new(100, 50, None);
        let held = budget.receive(60).unwrap();
        assert!(budget.receive(41).is_none());
        drop(held);
        assert!(budget.receive(100).is_some());
        let first = budget.send(40);
        assert!(has_room(&budget), "40 of 50");
        let second = budget.send(40);
        assert!(!has_room(&budget));
        drop((first, second));
        assert!(has_room(&budget));
    }

    #[test]
    fn connections_of_one_address_share_a_bound_and_each_can_always_send_something() {
        let address = Account::new(100);
        let budgets = [(); 3].map(|()| Budget::new(100, 50, Some(Arc::clone(&address))));
        let held = budgets[0].receive(90).unwrap();
        assert!(budgets[1].receive(11).is_none());
        let sent = budgets[1].send(30);
        assert!(!has_room(&budgets[1]) && has_room(&budgets[2]));
        drop(held);
        assert!(has_room(&budgets[1]));
        drop(sent);
        let cost = base(Some(&address), 100);
        assert!(budgets[0].receive(1).is_none());
        drop(cost);
        assert_eq!(address.used.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn large_buffers_and_kept_parts_leave_half_of_an_address_to_its_further_connections() {
        let address = Account::new(100);
        let budget = Budget::new(100, 50, Some(Arc::clone(&address)));
        let first = budget.buffers(40).unwrap();
        let second = budget.keep(40).unwrap();
        assert!(budget.buffers(1).is_none() && budget.keep(1).is_none(), "80 of 100");
        assert!(address.fits(20) && !address.fits(21));
        drop((first, second));
        assert_eq!(address.used(), 0);
        // A front has the bounds of its connection alone.
        let front = Budget::new(100, 50, None);
        let held = front.buffers(80).unwrap();
        assert!(front.buffers(21).is_none());
        drop(held);
    }

    #[test]
    fn a_part_that_waits_for_room_gets_it_and_counts_for_what_it_is_until_it_is_written() {
        let budget = Budget::new(100, 50, None);
        let context = Context::from_waker(Waker::noop());
        let Poll::Ready(mut charge) = budget.poll_receive(80, &context) else {
            panic!("80 of 100");
        };
        assert!(budget.poll_receive(80, &context).is_pending());
        charge.shrink(10);
        assert_eq!(budget.received.used(), 10);
        let data = charge.with(Bytes::from_static(b"0123456789"));
        let part = data.slice(5..);
        drop(data);
        assert_eq!(budget.received.used(), 10, "some of it is still there");
        assert!(budget.poll_receive(80, &context).is_ready());
        drop(part);
        assert_eq!(budget.received.used(), 0);
    }

    #[test]
    fn who_waits_for_room_is_woken() {
        struct Flag(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let flag = Arc::new(Flag(false.into()));
        let waker = Waker::from(Arc::clone(&flag));
        let budget = Budget::new(10, 10, None);
        let charge = budget.send(10);
        assert!(budget.poll_room(&Context::from_waker(&waker)).is_pending());
        drop(charge);
        assert!(flag.0.load(Ordering::SeqCst));
    }
}
