//! HTTP Basic (RFC 7617) against a htpasswd file.
//!
//! Checking a password is slow on purpose, so it runs on the blocking pool, a few at once, and what was verified is remembered for a
//! while under a keyed hash of hash, user and password: a changed file forgets, and memory holds no password. Wrong passwords are
//! never remembered, so each costs its sender a full check.

use super::keyed::Key;
use super::remembered::Remembered;
use super::slots::Slots;
use crate::client_network;
use crate::limits::Limits;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderMap, HeaderValue};
use landfall_ingress_htpasswd as htpasswd;
use landfall_ingress_routing::policy::BasicAuth;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// What came of the question who this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A user with the right password.
    Known,
    /// Nobody whom the file names.
    Unknown,
    /// Too many passwords are being checked.
    Busy,
}

/// Checks passwords.
pub struct Passwords {
    key: Key,
    verified: Remembered,
    /// By client; of IPv6, by /64.
    checks: Arc<Slots<IpAddr>>,
    patience: Duration,
}

impl Passwords {
    pub(super) fn new(key: Key, limits: &Limits) -> Self {
        Self {
            key,
            verified: Remembered::new(limits.verified_passwords, limits.verified_password_kept),
            checks: Slots::new(limits.password_checks, limits.password_checks / 2),
            patience: limits.password_patience,
        }
    }

    /// Checks under a key of its own. An error when the machine has no random numbers.
    pub fn alone(limits: &Limits) -> Result<Self, rustls::crypto::GetRandomFailed> {
        Ok(Self::new(Key::random()?, limits))
    }

    /// How many are remembered.
    #[cfg(any(test, feature = "testing"))]
    pub fn remembered(&self) -> usize {
        self.verified.len()
    }

    /// Says who asks, from `client`, which has half of all checks at most. Waits for a free check at most `limits.password_patience`, then for the
    /// check itself.
    pub async fn check(&self, auth: &BasicAuth, headers: &HeaderMap, client: IpAddr) -> Verdict {
        let Some((user, password)) = credentials(headers) else {
            return Verdict::Unknown;
        };
        // Somebody whom the file does not know takes as long as somebody whom it does.
        let (hash, exists) = match (auth.users.get(&user), auth.users.values().next()) {
            (Some(hash), _) => (hash.clone(), true),
            (None, Some(other)) => (other.clone(), false),
            (None, None) => return Verdict::Unknown,
        };
        let remembered = self.key.hash(&[hash.as_bytes(), user.as_bytes(), &password]);
        if exists && self.verified.has(&remembered) {
            return Verdict::Known;
        }
        let Ok(slot) = timeout(self.patience, self.checks.acquire(client_network(client))).await else {
            return Verdict::Busy;
        };
        let check = tokio::task::spawn_blocking(move || {
            // The slot goes with the work: a client that leaves does not make room for more of it.
            let _slot = slot;
            htpasswd::verify(&hash, &password)
        });
        match check.await {
            Ok(true) if exists => {
                self.verified.add(remembered);
                Verdict::Known
            }
            _ => Verdict::Unknown,
        }
    }
}

/// Whether there is one `Authorization` field at most: of several two parsers could believe two different ones.
pub(super) fn speaks_once(headers: &HeaderMap) -> bool {
    headers.get_all(header::AUTHORIZATION).iter().nth(1).is_none()
}

/// User and password of exactly one well-formed `Authorization` field.
pub fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    if !speaks_once(headers) {
        return None;
    }
    let field = headers.get(header::AUTHORIZATION)?.as_bytes();
    let space = field.iter().position(|byte| *byte == b' ')?;
    let (scheme, token) = field.split_at(space);
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = STANDARD.decode(token.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

/// `WWW-Authenticate`.
pub fn challenge(realm: &str) -> HeaderValue {
    let mut text = String::from("Basic realm=\"");
    for c in realm.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push_str("\", charset=\"UTF-8\"");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Basic realm=\"restricted\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn basic(user: &str, password: &str) -> HeaderMap {
        field(&[&format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))])
    }

    fn users(list: &[(&str, &str)]) -> BasicAuth {
        BasicAuth {
            realm: String::new(),
            users: Arc::new(list.iter().map(|(u, h)| ((*u).to_owned(), (*h).to_owned())).collect()),
        }
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const SHA: &str = "{SHA}87u9ZqY9S/F0eUBXjsPQEDUw4h0=";
    const APR1: &str = "$apr1$r31....$wavFJkmsAg3OxDgOjqIAo/";

    #[tokio::test]
    async fn only_a_known_user_with_the_own_password_is_known() {
        let passwords = Passwords::new(Key::of(b"k"), &Limits::default());
        let auth = users(&[("anna", SHA), ("bob", APR1), ("", SHA)]);
        for _ in 0..2 {
            assert_eq!(
                passwords.check(&auth, &basic("anna", "hunter2"), CLIENT).await,
                Verdict::Known
            );
            assert_eq!(
                passwords.check(&auth, &basic("bob", "hunter2"), CLIENT).await,
                Verdict::Known
            );
            for wrong in [
                basic("anna", "hunter3"),
                basic("anna", ""),
                basic("anna", SHA),
                basic("Anna", "hunter2"),
                basic("carl", "hunter2"),
                basic("anna\0", "hunter2"),
                field(&[]),
                field(&["Basic"]),
                field(&["Basic !!!"]),
                field(&["Basic YW5uYQ=="]),
                field(&["Bearer YW5uYTpodW50ZXIy"]),
            ] {
                assert_eq!(
                    passwords.check(&auth, &wrong, CLIENT).await,
                    Verdict::Unknown,
                    "{wrong:?}"
                );
            }
            let mut twice = basic("anna", "hunter2");
            twice.append(header::AUTHORIZATION, HeaderValue::from_static("Basic eDp5"));
            assert_eq!(passwords.check(&auth, &twice, CLIENT).await, Verdict::Unknown);
        }
        assert_eq!(
            passwords.check(&users(&[]), &basic("a", "b"), CLIENT).await,
            Verdict::Unknown
        );
        assert_eq!(
            passwords
                .check(&auth, &field(&["bAsIc YW5uYTpodW50ZXIy"]), CLIENT)
                .await,
            Verdict::Known
        );
    }

    #[tokio::test]
    async fn a_changed_hash_forgets_what_was_verified_and_memory_is_bounded() {
        let limits = Limits {
            verified_passwords: 2,
            ..Limits::default()
        };
        let passwords = Passwords::new(Key::of(b"k"), &limits);
        let names = ["a", "b", "c", "d"];
        let auth = users(&names.map(|n| (n, SHA)));
        for name in names {
            assert_eq!(
                passwords.check(&auth, &basic(name, "hunter2"), CLIENT).await,
                Verdict::Known
            );
        }
        assert_eq!(passwords.verified.len(), 2);
        let changed = users(&[("d", "{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=")]);
        assert_eq!(
            passwords.check(&changed, &basic("d", "hunter2"), CLIENT).await,
            Verdict::Unknown
        );
        assert_eq!(
            passwords.check(&changed, &basic("d", "test"), CLIENT).await,
            Verdict::Known
        );
        assert_eq!(
            passwords.check(&changed, &basic("c", "hunter2"), CLIENT).await,
            Verdict::Unknown
        );
    }

    #[tokio::test]
    async fn a_full_house_is_busy_and_what_is_remembered_needs_no_check() {
        let limits = Limits {
            password_checks: 1,
            password_patience: Duration::from_millis(20),
            ..Limits::default()
        };
        let passwords = Passwords::new(Key::of(b"k"), &limits);
        let auth = users(&[("anna", SHA)]);
        assert_eq!(
            passwords.check(&auth, &basic("anna", "hunter2"), CLIENT).await,
            Verdict::Known
        );
        let slot = passwords.checks.acquire(CLIENT).await;
        assert_eq!(
            passwords.check(&auth, &basic("anna", "hunter2"), CLIENT).await,
            Verdict::Known
        );
        assert_eq!(
            passwords.check(&auth, &basic("anna", "wrong"), CLIENT).await,
            Verdict::Busy
        );
        drop(slot);
        assert_eq!(
            passwords.check(&auth, &basic("anna", "wrong"), CLIENT).await,
            Verdict::Unknown
        );
    }

    #[test]
    fn realms_cannot_break_out_of_their_quotes() {
        assert_eq!(challenge("a \"b\\"), "Basic realm=\"a \\\"b\\\\\", charset=\"UTF-8\"");
        assert_eq!(challenge("a\r\nb"), "Basic realm=\"ab\", charset=\"UTF-8\"");
    }
}
