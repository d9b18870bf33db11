//! Events per second over the last seconds, without locks.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of a slot that count; the rest names its second.
const COUNT_BITS: u32 = 32;

/// A ring of `N` seconds. Each slot holds its second and how many events fell into it; a slot of another second is taken over.
#[derive(Debug)]
pub struct Window<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Window<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Window<N> {
    /// Counts one event in this second.
    pub fn add(&self, second: u32) {
        let slot = &self.0[second as usize % N];
        let mine = u64::from(second) << COUNT_BITS;
        let mut seen = slot.load(Ordering::Relaxed);
        loop {
            let next = if seen >> COUNT_BITS == u64::from(second) {
                seen + 1
            } else {
                mine + 1
            };
            match slot.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    /// Events in this second; none when the ring has forgotten it.
    pub fn at(&self, second: u32) -> u32 {
        let slot = self.0[second as usize % N].load(Ordering::Relaxed);
        // The lower half is the count.
        if slot >> COUNT_BITS == u64::from(second) {
            slot as u32
        } else {
            0
        }
    }

    /// Events per second over the whole seconds before `now`, at most `seconds` of them; fewer after a recent start.
    pub fn rate(&self, now: u32, seconds: u32) -> f64 {
        let seconds = seconds.min(now).min(N as u32 - 1);
        if seconds == 0 {
            return f64::from(self.at(now));
        }
        let total: u64 = (now - seconds..now).map(|s| u64::from(self.at(s))).sum();
        total as f64 / f64::from(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_count_in_their_second_and_are_forgotten_after_a_round() {
        let window = Window::<8>::default();
        for second in [5, 5, 6, 8] {
            window.add(second);
        }
        assert_eq!((window.at(5), window.at(6), window.at(7), window.at(8)), (2, 1, 0, 1));
        assert_eq!(window.rate(9, 4), 1.0);
        window.add(13);
        assert_eq!((window.at(5), window.at(13)), (0, 1));
        assert_eq!(window.rate(100, 5), 0.0);
    }

    #[test]
    fn the_first_second_shows_what_came_so_far() {
        let window = Window::<8>::default();
        window.add(0);
        assert_eq!(window.rate(0, 5), 1.0);
    }

    #[test]
    fn threads_lose_no_event() {
        let window = Window::<4>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| window.add(3)));
            }
        });
        assert_eq!(window.at(3), 4000);
    }
}
