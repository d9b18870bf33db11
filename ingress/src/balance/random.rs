//! Cheap numbers for choices that need no secrecy, and a hash that is the same on every node.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
}

/// Returns a number below `bound`, which is not 0.
pub(super) fn below(bound: usize) -> usize {
    let number = STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        mix(next)
    });
    // The high half of a product is as even as the number is; a remainder would cost a division.
    let scaled = (u128::from(number) * bound as u128) >> 64;
    usize::try_from(scaled).unwrap_or_default()
}

/// Makes every bit of the result depend on every bit of the number (splitmix64's last step).
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Hashes bytes (FNV-1a, then mixed): all proxies of a cluster must agree on it, which the standard library does not promise.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let folded = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(folded)
}

/// Makes the numbers of this thread repeatable.
#[cfg(test)]
pub(crate) fn seed(seed: u64) {
    STATE.with(|state| state.set(seed));
}
