//! Keyed hashes.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// A key; what it hashed can neither be made nor recognised without it.
#[derive(Clone)]
pub(super) struct Key(Hmac<Sha256>);

impl Key {
    /// A key that every proxy makes of the same secret.
    pub(super) fn of(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of every length"))
    }

    /// A key of this process alone. An error when the machine has no random numbers: then nothing may be served.
    pub(super) fn random() -> Result<Self, rustls::crypto::GetRandomFailed> {
        let mut secret = [0; 32];
        landfall_ingress_tls::provider::provider()
            .secure_random
            .fill(&mut secret)?;
        Ok(Self::of(&secret))
    }

    /// Hashes parts; where one ends and the next begins counts.
    pub(super) fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = self.0.clone();
        for part in parts {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_depend_on_key_and_on_where_parts_end() {
        let key = Key::of(b"k");
        assert_eq!(key.hash(&[b"ab", b"c"]), Key::of(b"k").hash(&[b"ab", b"c"]));
        assert_ne!(key.hash(&[b"ab", b"c"]), key.hash(&[b"a", b"bc"]));
        assert_ne!(key.hash(&[b"ab"]), Key::of(b"l").hash(&[b"ab"]));
        assert_ne!(Key::random().unwrap().hash(&[]), Key::random().unwrap().hash(&[]));
    }
}
