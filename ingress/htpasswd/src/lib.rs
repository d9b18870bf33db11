//! htpasswd files: their users and hashes, which are bcrypt (`$2y$`), Apache's MD5 (`$apr1$`) and SHA-1 (`{SHA}`). Pure, and slow on purpose.
//!
//! It promises that comparisons take the same time whatever they find. It must not depend on another crate of ours.

#![forbid(unsafe_code)]

#[cfg(test)]
mod fuzz;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;

/// bcrypt doubles its work with each step; 2^14 takes about a second. A file with more would let few requests block all others.
const MOST_BCRYPT_COST: u32 = 14;

/// What Apache writes before and after the salt.
const APR1: &str = "$apr1$";

/// Reads a file: lines of `user:hash`, and comments. Returns the hash of each user, of whatever kind. An error goes on where the name of
/// the file ends.
pub fn users(text: &str) -> Result<BTreeMap<String, String>, &'static str> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = lines.map(|line| {
        let (user, hash) = line.split_once(':').ok_or("has a line that is not user:hash")?;
        // Behind another colon htpasswd allows a comment.
        let hash = hash.split(':').next().unwrap_or_default();
        if user.is_empty() || hash.is_empty() {
            return Err("has a line that is not user:hash");
        }
        Ok((user.to_owned(), hash.to_owned()))
    });
    pairs.collect()
}

/// Whether passwords can be checked against this hash: its kind is known and its form is right.
pub fn is_known(hash: &str) -> bool {
    if hash.starts_with("$2") {
        return bcrypt_cost(hash).is_some_and(|cost| (4..=MOST_BCRYPT_COST).contains(&cost)) && hash.len() == 60;
    }
    if let Some(rest) = hash.strip_prefix(APR1) {
        return rest
            .split_once('$')
            .is_some_and(|(salt, digest)| salt.len() <= 8 && digest.len() == 22);
    }
    hash.strip_prefix("{SHA}")
        .is_some_and(|digest| STANDARD.decode(digest).is_ok_and(|digest| digest.len() == 20))
}

/// Whether a password belongs to a hash. Unknown hashes belong to none. Blocks: up to a second for bcrypt.
pub fn verify(hash: &str, password: &[u8]) -> bool {
    // A NUL would end the password early in what made the hash.
    if !is_known(hash) || password.contains(&0) {
        return false;
    }
    if hash.starts_with("$2") {
        return bcrypt::verify(password, hash).unwrap_or(false);
    }
    if let Some((salt, digest)) = hash.strip_prefix(APR1).and_then(|rest| rest.split_once('$')) {
        return same(apr1(password, salt.as_bytes()).as_bytes(), digest.as_bytes());
    }
    let digest = STANDARD.encode(Sha1::digest(password));
    hash.strip_prefix("{SHA}")
        .is_some_and(|wanted| same(digest.as_bytes(), wanted.as_bytes()))
}

/// `$2y$10$...`: the number between the second and the third dollar.
fn bcrypt_cost(hash: &str) -> Option<u32> {
    let mut parts = hash.split('$').skip(1);
    let kind = parts.next()?;
    let cost = parts.next()?;
    (["2a", "2b", "2x", "2y"].contains(&kind) && cost.len() == 2 && cost.bytes().all(|b| b.is_ascii_digit()))
        .then(|| cost.parse().ok())?
}

/// Poul-Henning Kamp's MD5 scheme with Apache's mark.
fn apr1(password: &[u8], salt: &[u8]) -> String {
    let mut inner = Md5::new();
    inner.update(password);
    inner.update(salt);
    inner.update(password);
    let inner = inner.finalize();

    let mut outer = Md5::new();
    outer.update(password);
    outer.update(APR1);
    outer.update(salt);
    for chunk in password.chunks(inner.len()) {
        outer.update(&inner[..chunk.len()]);
    }
    // One byte for each bit of the length, by what the first reference did.
    let mut bits = password.len();
    while bits != 0 {
        outer.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut digest = outer.finalize();

    for round in 0..1000 {
        let mut next = Md5::new();
        let odd = round % 2 == 1;
        next.update(if odd { password } else { &digest[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if odd { &digest[..] } else { password });
        digest = next.finalize();
    }

    let mut text = String::with_capacity(22);
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        let bits = u32::from(digest[a]) << 16 | u32::from(digest[b]) << 8 | u32::from(digest[c]);
        push_base64(&mut text, bits, 4);
    }
    push_base64(&mut text, u32::from(digest[11]), 2);
    text
}

/// The alphabet of crypt(3), lowest bits first.
fn push_base64(text: &mut String, mut bits: u32, count: usize) {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for _ in 0..count {
        text.push(char::from(ALPHABET[(bits & 63) as usize]));
        bits >>= 6;
    }
}

/// Whether two texts are equal. The time taken says only whether their lengths are.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

    #[test]
    fn hashes_of_other_programs_are_understood() {
        // Made with `openssl passwd -apr1`, crypt(3) and sha1sum.
        for (hash, password) in [
            ("$apr1$r31....$L46HBjwRXZnONYa2C4Dy8.", "a"),
            ("$apr1$r31....$wavFJkmsAg3OxDgOjqIAo/", "hunter2"),
            (
                "$apr1$r31....$MvrXZm/wsuOt39mDu/f290",
                "a rather long password of more than sixteen bytes",
            ),
            ("$apr1$ab$n.gRySpeF4Zg.rR21jU30.", "pass"),
            (BCRYPT, "hunter2"),
            ("{SHA}87u9ZqY9S/F0eUBXjsPQEDUw4h0=", "hunter2"),
        ] {
            assert!(is_known(hash) && verify(hash, password.as_bytes()), "{hash}");
            for wrong in ["", "Hunter2", "hunter2 ", "hunter2\0", "b"] {
                assert!(!verify(hash, wrong.as_bytes()), "{hash} {wrong:?}");
            }
        }
    }

    #[test]
    fn what_is_no_known_hash_admits_nobody() {
        for bad in [
            "",
            "hunter2",
            "{PLAIN}hunter2",
            "{SHA}",
            "{SHA}hunter2",
            "{SSHA}87u9ZqY9S/F0eUBXjsPQEDUw4h0=",
            "$1$r31....$wavFJkmsAg3OxDgOjqIAo/",
            "$apr1$",
            "$apr1$salt$",
            "$apr1$longersalt$wavFJkmsAg3OxDgOjqIAo/",
            "$2y$",
            "$2y$31$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm",
            "$2y$+4$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm",
            "$2z$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm",
            "$2y$04$abcdefghijklmnopqrstuu\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}m",
            "xyz",
        ] {
            assert!(!verify(bad, b"hunter2"), "{bad}");
            assert!(!verify(bad, bad.as_bytes()), "{bad}");
        }
        assert!(!is_known(
            "$2y$31$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm"
        ));
    }

    #[test]
    fn comparisons_look_at_every_byte_and_at_the_length() {
        assert!(same(b"", b"") && same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
