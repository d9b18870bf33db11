//! Users of the dashboard: HTTP Basic against a htpasswd file that is read once. bcrypt and SHA-1 hashes are known.
//!
//! bcrypt is slow on purpose and the page asks every two seconds, so what was right is remembered for a while by a hash that only this
//! process can make. Wrong passwords are never remembered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderMap};
use sha1::{Digest, Sha1};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long a right password is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Passwords that are remembered: far more than people who look at once.
const MOST: usize = 64;
/// Checks at once, and the longest wait for one: strangers cannot take the processor from requests.
const CHECKS: usize = 1;
const PATIENCE: Duration = Duration::from_secs(5);
/// bcrypt doubles its work with each step; 2^14 takes about a second.
const MOST_COST: u32 = 14;

/// Users and the hashes of their passwords.
pub(super) struct Users {
    hashes: Arc<BTreeMap<String, String>>,
    right: Mutex<HashMap<[u64; 2], Instant>>,
    keys: [RandomState; 2],
    checks: Arc<Semaphore>,
}

impl Users {
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Self::parse(&text).map_err(|why| format!("{}: {why}", file.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut hashes = BTreeMap::new();
        let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let known = line
                .split_once(':')
                .filter(|(user, hash)| !user.is_empty() && is_known(hash));
            let (user, hash) = known.ok_or_else(|| format!("line {number} is not USER:HASH with bcrypt or {{SHA}}"))?;
            hashes.insert(user.to_owned(), hash.to_owned());
        }
        if hashes.is_empty() {
            return Err("there is no user in it".to_owned());
        }
        Ok(Self {
            hashes: Arc::new(hashes),
            right: Mutex::default(),
            keys: [RandomState::new(), RandomState::new()],
            checks: Arc::new(Semaphore::new(CHECKS)),
        })
    }

    /// Whether a request names a user with the right password. Waits for a free check, and for the check itself.
    pub(super) async fn admits(&self, headers: &HeaderMap) -> bool {
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return false;
        };
        let name = [0, 1].map(|i: usize| self.keys[i].hash_one(field.as_bytes()));
        let known = |right: &HashMap<_, Instant>| right.get(&name).is_some_and(|at| at.elapsed() < REMEMBERED);
        if known(&self.right.lock().unwrap_or_else(PoisonError::into_inner)) {
            return true;
        }
        let Some((user, password)) = credentials(field.as_bytes()) else {
            return false;
        };
        let Ok(Ok(slot)) = timeout(PATIENCE, Arc::clone(&self.checks).acquire_owned()).await else {
            return false;
        };
        let hashes = Arc::clone(&self.hashes);
        let check = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            // A user whom the file does not know takes as long as one whom it does.
            let other = hashes.values().next().map(String::as_str).unwrap_or_default();
            let hash = hashes.get(&user);
            verify(hash.map_or(other, |hash| hash), &password) && hash.is_some()
        });
        let right = check.await.unwrap_or(false);
        if right {
            let mut remembered = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.retain(|_, at| at.elapsed() < REMEMBERED);
            if remembered.len() >= MOST {
                remembered.clear();
            }
            remembered.insert(name, Instant::now());
        }
        right
    }
}

fn is_known(hash: &str) -> bool {
    let cost = |hash: &str| hash.split('$').nth(2).and_then(|cost| cost.parse::<u32>().ok());
    let bcrypt = ["$2y$", "$2b$", "$2a$"].iter().any(|kind| hash.starts_with(kind));
    let sha = hash
        .strip_prefix("{SHA}")
        .and_then(|digest| STANDARD.decode(digest).ok());
    (bcrypt && hash.len() == 60 && cost(hash).is_some_and(|cost| (4..=MOST_COST).contains(&cost)))
        || sha.is_some_and(|digest| digest.len() == 20)
}

fn verify(hash: &str, password: &[u8]) -> bool {
    match hash.strip_prefix("{SHA}") {
        Some(wanted) => {
            let found = STANDARD.encode(Sha1::digest(password));
            let differing = found.bytes().zip(wanted.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
            found.len() == wanted.len() && differing == 0
        }
        None => !password.contains(&0) && bcrypt::verify(password, hash).unwrap_or(false),
    }
}

fn credentials(field: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, token) = field.split_at_checked(6)?;
    let decoded = STANDARD.decode(token.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    scheme
        .eq_ignore_ascii_case(b"basic ")
        .then(|| (user, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    #[tokio::test]
    async fn only_right_passwords_pass_and_are_remembered() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let text = format!("# people\nada:{hash}\nbob:{{SHA}}87u9ZqY9S/F0eUBXjsPQEDUw4h0=\n");
        let users = Users::parse(&text).unwrap();
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (credentials, right) in [
            ("ada:secret", true),
            ("ada:secret", true),
            ("ada:Secret", false),
            ("bob:hunter2", true),
            ("bob:secret", false),
            ("eve:secret", false),
            ("ada", false),
        ] {
            assert_eq!(
                users.admits(&headers(&[&basic(credentials)])).await,
                right,
                "{credentials}"
            );
        }
        let right = basic("ada:secret");
        assert!(!users.admits(&headers(&[&right, &right])).await);
        assert!(!users.admits(&headers(&["Bearer x"])).await);
        assert!(!users.admits(&headers(&[])).await);
        assert_eq!(users.right.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_file_that_would_admit_nobody_or_holds_plain_passwords_is_refused() {
        for bad in [
            "",
            "# nobody\n",
            "ada",
            "ada:plain",
            ":{SHA}87u9ZqY9S/F0eUBXjsPQEDUw4h0=",
            "ada:{SHA}x",
        ] {
            assert!(Users::parse(bad).is_err(), "{bad}");
        }
    }
}
