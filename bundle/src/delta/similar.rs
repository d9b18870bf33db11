//! Finds out of many contents the one that another has most in common with.

use std::collections::BTreeSet;

/// One window in so many becomes part of a sample, on average.
const RATE: u64 = 4096;

/// A sample of the 64-byte windows of a content, chosen by what is in them: the same window is chosen wherever it lies.
pub(super) struct Sample(BTreeSet<u64>);

/// A gear hash: each byte shifts out of 64 bits after 64 more (Xia et al., "FastCDC", USENIX ATC 2016, 3.2).
const GEAR: [u64; 256] = gear();

/// SplitMix64 (public domain): any fixed table of random numbers serves.
const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let (mut state, mut at) = (0u64, 0);
    while at < table.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = z ^ (z >> 31);
        at += 1;
    }
    table
}

impl Sample {
    pub(super) fn of(content: &[u8]) -> Self {
        let mut hash = 0u64;
        let mut chosen = BTreeSet::new();
        for byte in content {
            hash = (hash << 1).wrapping_add(GEAR[*byte as usize]);
            // The upper bits depend on the whole window, the lower ones on its end.
            if hash >> (64 - RATE.trailing_zeros()) == 0 {
                chosen.insert(hash);
            }
        }
        Self(chosen)
    }

    /// Returns how many windows both have.
    pub(super) fn shared(&self, other: &Self) -> usize {
        self.0.intersection(&other.0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_found_again_wherever_it_lies() {
        let noise = |seed: u32| -> Vec<u8> {
            let words = (0..100_000u32).map(move |n| (n ^ seed).wrapping_mul(2_654_435_761).rotate_left(n % 31));
            words.flat_map(u32::to_le_bytes).collect()
        };
        let (one, other) = (noise(1), noise(77_777));
        let mut moved = vec![7; 1001];
        moved.extend(&one);
        let (sample, moved, other) = (Sample::of(&one), Sample::of(&moved), Sample::of(&other));
        assert!(sample.0.len() > 50, "{}", sample.0.len());
        assert!(sample.shared(&moved) + 2 >= sample.0.len());
        assert!(sample.shared(&other) * 10 < sample.0.len());
    }
}
