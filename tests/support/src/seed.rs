//! Seeded choices: the same seed makes the same choices, and a failing test says its seed.

/// Environment variable that replays a run.
pub const VARIABLE: &str = "LANDFALL_SEED";

/// A stream of choices (splitmix64: tiny, and good enough to choose places).
#[derive(Debug, Clone)]
pub struct Choices {
    state: u64,
}

impl Choices {
    /// Starts a stream. Streams with different names are independent of each other.
    pub fn new(seed: u64, name: &str) -> Self {
        let mixed = name.bytes().fold(seed, |state, byte| {
            (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { state: mixed }
    }

    /// Returns the next number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `limit`; 0 when `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number().checked_rem(limit).unwrap_or(0)
    }

    /// Returns one of several.
    pub fn one_of<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(usize::try_from(self.below(list.len() as u64)).ok()?)
    }
}

/// Returns the seed of this run: `LANDFALL_SEED`, or one made from the clock. Tests print it before they use it.
pub fn seed() -> u64 {
    let given = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| u64::from(d.subsec_nanos()) ^ (d.as_secs() << 20)) % 1_000_000
    })
}

#[cfg(test)]
mod tests {
    use super::Choices;

    #[test]
    fn the_same_seed_makes_the_same_choices() {
        let stream = |seed, name| {
            let mut choices = Choices::new(seed, name);
            [(); 8].map(|()| choices.below(1000))
        };
        assert_eq!(stream(7, "a"), stream(7, "a"));
        assert_ne!(stream(7, "a"), stream(8, "a"));
        assert_ne!(stream(7, "a"), stream(7, "b"));
    }
}
