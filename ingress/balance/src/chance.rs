//! Repeatable chance for tests that play many schedules: a seed gives the same ones again.

use std::cell::Cell;
use std::ops::Range;

/// Splitmix64.
#[derive(Debug)]
pub struct Chance(Cell<u64>);

impl Chance {
    /// All that follows from this seed.
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Any number.
    pub fn number(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let z = self.0.get();
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to and without `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True so many times in a hundred.
    pub fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A number of this range, ends included.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// One of these.
    pub fn one<T: Clone>(&self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }
}

/// Seeds of a run: as many as are said, from a new place each time. `LANDFALL_SEED` is the first and `LANDFALL_SEEDS` their number where
/// they are set.
#[expect(clippy::print_stdout, reason = "a test that fails shows the seeds that repeat it")]
pub fn seeds(count: u64) -> Range<u64> {
    let given = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let first = given("LANDFALL_SEED").unwrap_or(u64::from(std::process::id()) << 16);
    let seeds = first..first + given("LANDFALL_SEEDS").unwrap_or(count);
    println!("seeds {seeds:?}");
    seeds
}
