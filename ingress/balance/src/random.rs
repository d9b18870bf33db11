//! Cheap numbers for choices that need no secrecy, and a hash that is the same on every node.

use std::cell::Cell;
use std::fmt::{self, Write};
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
    let mut fold = Fold::default();
    fold.take(bytes);
    mix(fold.0)
}

/// Hashes a text that is never put together: the same as [`hash`] of its bytes.
pub(super) fn hash_text(text: fmt::Arguments<'_>) -> u64 {
    let mut fold = Fold::default();
    // It takes everything.
    let _ = fold.write_fmt(text);
    mix(fold.0)
}

/// FNV-1a.
struct Fold(u64);

impl Default for Fold {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fold {
    fn take(&mut self, bytes: &[u8]) {
        let fold = |h: u64, byte: &u8| (h ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 = bytes.iter().fold(self.0, fold);
    }
}

impl fmt::Write for Fold {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.take(text.as_bytes());
        Ok(())
    }
}

/// Makes the numbers of this thread repeatable.
#[cfg(any(test, feature = "testing"))]
pub fn seed(seed: u64) {
    STATE.with(|state| state.set(seed));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_parts_has_the_hash_of_the_whole() {
        // Nodes of other versions know this number.
        assert_eq!(hash(b"d/a:80 10.0.0.1:80"), 0x8f7e_e2f8_3374_ceda);
        assert_eq!(
            hash_text(format_args!("d/a:{} {}", 80, "10.0.0.1:80")),
            hash(b"d/a:80 10.0.0.1:80")
        );
    }
}
