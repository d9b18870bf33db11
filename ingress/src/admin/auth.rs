//! Users of the dashboard: HTTP Basic against a htpasswd file that is read once. bcrypt and SHA-1 hashes are known.
//!
//! Passwords are checked as those of routes are; only the bounds are tighter, for the page asks every two seconds and few people look.

use crate::limits::Limits;
use crate::policy::BasicAuth;
use crate::proxy::policy::basic::{Passwords, Verdict};
use crate::proxy::policy::htpasswd;
use hyper::header::HeaderMap;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a right password is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Passwords that are remembered: far more than people who look at once.
const MOST: usize = 64;
/// Checks at once, and the longest wait for one: strangers cannot take the processor from requests.
const CHECKS: usize = 1;
const PATIENCE: Duration = Duration::from_secs(5);

/// Users and the hashes of their passwords.
pub(super) struct Users {
    auth: BasicAuth,
    passwords: Passwords,
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
        let limits = Limits {
            verified_passwords: MOST,
            verified_password_kept: REMEMBERED,
            password_checks: CHECKS,
            password_patience: PATIENCE,
            ..Limits::default()
        };
        Ok(Self {
            auth: BasicAuth {
                realm: String::new(),
                users: Arc::new(hashes),
            },
            passwords: Passwords::alone(&limits).map_err(|_| "this machine has no random numbers".to_owned())?,
        })
    }

    /// Whether a request names a user with the right password. Waits for a free check, and for the check itself.
    pub(super) async fn admits(&self, headers: &HeaderMap) -> bool {
        self.passwords.check(&self.auth, headers).await == Verdict::Known
    }
}

/// Apache's MD5 is not taken here.
fn is_known(hash: &str) -> bool {
    let kinds = ["$2y$", "$2b$", "$2a$", "{SHA}"];
    kinds.iter().any(|kind| hash.starts_with(kind)) && htpasswd::is_known(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use hyper::header;

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
        assert_eq!(users.passwords.remembered(), 2);
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
