//! Memory that clients make this process hold: bounded per connection, and per address over all its connections.
//!
//! Counted are heads of requests, bodies that endpoints have not taken yet (as the window that was opened for them), answers that were
//! handed over and not yet sent, and a lump for each connection and each request. What is over the bound is refused or waits; what waits
//! is ended when it has waited too long ([`crate::body::StreamStall`]). Trusted fronts stand for many clients and have no bound per address.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Bytes that are held, their bound, and who waits for room.
#[derive(Debug)]
pub(crate) struct Account {
    used: AtomicUsize,
    most: usize,
    waiting: Mutex<Vec<Waker>>,
}

impl Account {
    pub(crate) fn new(most: usize) -> Arc<Self> {
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
pub(crate) struct Budget {
    /// Requests, with what they brought.
    received: Arc<Account>,
    /// Answers that were handed over and not yet sent.
    sent: Arc<Account>,
    /// Of all connections of the address; `None` for trusted fronts.
    address: Option<Arc<Account>>,
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    bytes: usize,
    accounts: [Option<Arc<Account>>; 2],
}

impl Drop for Charge {
    fn drop(&mut self) {
        for account in self.accounts.iter().flatten() {
            account.give_back(self.bytes);
        }
    }
}

impl Budget {
    pub(crate) fn new(received: usize, sent: usize, address: Option<Arc<Account>>) -> Self {
        Self {
            received: Account::new(received),
            sent: Account::new(sent),
            address,
        }
    }

    /// Counts what a request brought; `None` when there is no room for it.
    pub(crate) fn receive(&self, bytes: usize) -> Option<Charge> {
        if !self.received.take(bytes) {
            return None;
        }
        if self.address.as_ref().is_some_and(|address| !address.take(bytes)) {
            self.received.give_back(bytes);
            return None;
        }
        let accounts = [Some(Arc::clone(&self.received)), self.address.clone()];
        Some(Charge { bytes, accounts })
    }

    /// Whether the address holds less than half of what it may.
    pub(crate) fn is_light(&self) -> bool {
        let light = |address: &Arc<Account>| address.used.load(Ordering::SeqCst) < address.most / 2;
        self.address.as_ref().is_none_or(light)
    }

    /// Ready when more of an answer may be handed over: within both bounds, or when nothing of the connection's is on its way.
    pub(crate) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
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
    pub(crate) fn send(&self, bytes: usize) -> Charge {
        self.sent.add(bytes);
        if let Some(address) = &self.address {
            address.add(bytes);
        }
        let accounts = [Some(Arc::clone(&self.sent)), self.address.clone()];
        Charge { bytes, accounts }
    }
}

/// What a connection costs by being there, whatever its bounds are.
pub(crate) fn base(address: Option<&Arc<Account>>, bytes: usize) -> Charge {
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
