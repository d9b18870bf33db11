//! A value that must never be printed: it has no `Debug` of its content, no `Display` and no `Serialize`, and its bytes are overwritten
//! when it is dropped.

use std::fmt;
use zeroize::Zeroizing;

/// Holds a secret; the only way to its text is [`Secret::expose`]. Dropping it overwrites the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Wraps a secret.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }
    /// Returns the secret bytes, for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_overwritten_on_drop() {
        fn is_wiped_when_dropped(_: &impl zeroize::ZeroizeOnDrop) {}
        is_wiped_when_dropped(&Secret::new("x").0);
        assert_eq!(format!("{:?}", Secret::new("x")), "<secret>");
    }
}
