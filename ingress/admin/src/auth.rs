//! Who may read the dashboard: whoever has the password, by HTTP Basic. Without a password it is closed; only `--dashboard-auth=none`
//! opens it.
//!
//! The password is read from a htpasswd file, or from a mounted Secret of type `kubernetes.io/basic-auth`, and read again while the
//! program runs: it may come, change and go without a restart. What is missing or cannot be read admits nobody, and never keeps the
//! program from serving requests. Passwords of a htpasswd file are checked as those of routes are; only the bounds are tighter, for the
//! page asks every two seconds and few people look.

use hyper::header::{HeaderMap, HeaderValue};
use landfall_ingress_htpasswd::{self as htpasswd, same};
use landfall_ingress_proxy::Limits;
use landfall_ingress_proxy::basic::{Passwords, Verdict, challenge, credentials};
use landfall_ingress_routing::policy::BasicAuth;
use landfall_ingress_telemetry::log;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// What the browser shows when it asks; `landfall verify` knows the dashboard by it.
const REALM: &str = "landfall ingress";
/// How long a right password of a htpasswd file is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Passwords that are remembered: far more than people who look at once.
const MOST: usize = 64;
/// Checks at once, and the longest wait for one: strangers cannot take the processor from requests.
const CHECKS: usize = 1;
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what was read is good. The kubelet renews a mounted Secret within a minute or two; a file of a few bytes is read in microseconds.
const GOOD_FOR: Duration = Duration::from_secs(2);
/// Files of a mounted Secret of type `kubernetes.io/basic-auth`.
const USERNAME: &str = "username";
const PASSWORD: &str = "password";

/// How the dashboard is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Protection {
    /// By the password of `--dashboard-auth-file`; without that file there is no dashboard.
    #[default]
    Password,
    /// By nothing: everyone who reaches the port reads the dashboard and the metrics.
    None,
}

/// What came of the question whether somebody may read the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is open to everyone, or the password is right.
    Granted,
    /// A password is needed.
    Refused,
    /// There is no password that could be right.
    Closed,
}

/// The rule, and the password in force.
pub(super) struct Access {
    protection: Protection,
    file: Option<PathBuf>,
    /// When it was read last, and what it said.
    read: Mutex<Option<(Instant, Arc<Known>)>>,
    passwords: Passwords,
}

/// Who is known.
enum Known {
    /// A mounted Secret.
    One { user: String, password: Zeroizing<Vec<u8>> },
    /// A htpasswd file.
    Hashes(BasicAuth),
    /// Nobody, and why.
    Nobody(String),
}

impl Access {
    /// Reads the password. A machine without random numbers is an error; a file that cannot be read is told in the log, and admits nobody.
    pub(super) fn new(protection: Protection, file: Option<&Path>) -> Result<Self, String> {
        let limits = Limits {
            verified_passwords: MOST,
            verified_password_kept: REMEMBERED,
            password_checks: CHECKS,
            password_patience: PATIENCE,
            ..Limits::default()
        };
        let access = Self {
            protection,
            file: file.map(Path::to_owned),
            read: Mutex::default(),
            passwords: Passwords::alone(&limits).map_err(|_| "this machine has no random numbers".to_owned())?,
        };
        access.known();
        Ok(access)
    }

    /// Whether everyone may read.
    pub(super) fn is_open(&self) -> bool {
        self.protection == Protection::None
    }

    /// Judges a request of `peer`. Waits for a free check, and for the check itself.
    pub(super) async fn admits(&self, headers: &HeaderMap, peer: IpAddr) -> Admission {
        if self.is_open() {
            return Admission::Granted;
        }
        let granted = match &*self.known() {
            Known::Nobody(_) => return Admission::Closed,
            Known::One { user, password } => credentials(headers).is_some_and(|(name, given)| {
                // Both are compared whole, so that the time tells nothing of either.
                same(name.as_bytes(), user.as_bytes()) & same(&given, password)
            }),
            Known::Hashes(auth) => self.passwords.check(auth, headers, peer).await == Verdict::Known,
        };
        if granted {
            Admission::Granted
        } else {
            Admission::Refused
        }
    }

    /// The field that asks for the password.
    pub(super) fn challenge() -> HeaderValue {
        challenge(REALM)
    }

    /// Who is known now. Reads the file when what was read is no longer good, which blocks for microseconds.
    fn known(&self) -> Arc<Known> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, known)) = &*read
            && at.elapsed() < GOOD_FOR
        {
            return Arc::clone(known);
        }
        let known = match &self.file {
            Some(file) => read_from(file).unwrap_or_else(Known::Nobody),
            None => Known::Nobody("--dashboard-auth-file is not given".to_owned()),
        };
        if let (Known::Nobody(why), false) = (&known, self.is_open()) {
            let told = matches!(&*read, Some((_, before)) if matches!(&**before, Known::Nobody(old) if old == why));
            if !told {
                log(&format!("the dashboard is closed: {why}"));
            }
        }
        let known = Arc::new(known);
        *read = Some((Instant::now(), Arc::clone(&known)));
        known
    }
}

/// Reads a htpasswd file, or the directory of a mounted Secret.
fn read_from(path: &Path) -> Result<Known, String> {
    let read = |path: &Path| {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        bytes.map(Zeroizing::new)
    };
    let wrong = |why: String| format!("{}: {why}", path.display());
    if !path.is_dir() {
        let text = read(path)?;
        let text = std::str::from_utf8(&text).map_err(|_| wrong("it is no text".to_owned()))?;
        return hashes(text).map(Known::Hashes).map_err(wrong);
    }
    let user = String::from_utf8_lossy(read(&path.join(USERNAME))?.trim_ascii()).into_owned();
    let password = Zeroizing::new(read(&path.join(PASSWORD))?.trim_ascii().to_vec());
    if user.is_empty() || password.is_empty() {
        return Err(wrong(format!("{USERNAME} or {PASSWORD} is empty")));
    }
    Ok(Known::One { user, password })
}

fn hashes(text: &str) -> Result<BasicAuth, String> {
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
    Ok(BasicAuth {
        realm: REALM.to_owned(),
        users: Arc::new(hashes),
    })
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

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Forgets what was read, as time does.
    fn age(access: &Access) {
        access.read.lock().unwrap().take();
    }

    #[tokio::test]
    async fn only_right_passwords_of_a_htpasswd_file_pass_and_are_remembered() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("# people\nada:{hash}\nbob:{{SHA}}87u9ZqY9S/F0eUBXjsPQEDUw4h0=\n");
        std::fs::write(file.path(), text).unwrap();
        let access = Access::new(Protection::Password, Some(file.path())).unwrap();
        for (credentials, wanted) in [
            ("ada:secret", Admission::Granted),
            ("ada:secret", Admission::Granted),
            ("ada:Secret", Admission::Refused),
            ("bob:hunter2", Admission::Granted),
            ("bob:secret", Admission::Refused),
            ("eve:secret", Admission::Refused),
            ("ada", Admission::Refused),
        ] {
            let given = access.admits(&headers(&[&basic(credentials)]), PEER).await;
            assert_eq!(given, wanted, "{credentials}");
        }
        let right = basic("ada:secret");
        for refused in [vec![right.as_str(), right.as_str()], vec!["Bearer x"], vec![]] {
            assert_eq!(
                access.admits(&headers(&refused), PEER).await,
                Admission::Refused,
                "{refused:?}"
            );
        }
        assert_eq!(access.passwords.remembered(), 2);
    }

    #[tokio::test]
    async fn a_mounted_secret_may_come_change_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let mounted = folder.path().join("login");
        let access = Access::new(Protection::Password, Some(&mounted)).unwrap();
        let right = headers(&[&basic("landfall:first")]);
        assert_eq!(access.admits(&right, PEER).await, Admission::Closed);
        std::fs::create_dir(&mounted).unwrap();
        std::fs::write(mounted.join(USERNAME), "landfall").unwrap();
        std::fs::write(mounted.join(PASSWORD), "first\n").unwrap();
        age(&access);
        assert_eq!(access.admits(&right, PEER).await, Admission::Granted);
        for wrong in [
            "landfall:firs",
            "landfall:first1",
            "Landfall:first",
            ":first",
            "landfall:",
        ] {
            let given = access.admits(&headers(&[&basic(wrong)]), PEER).await;
            assert_eq!(given, Admission::Refused, "{wrong}");
        }
        std::fs::write(mounted.join(PASSWORD), "second").unwrap();
        age(&access);
        assert_eq!(access.admits(&right, PEER).await, Admission::Refused);
        std::fs::write(mounted.join(PASSWORD), "\n").unwrap();
        age(&access);
        for nobodys in [right, headers(&[&basic("landfall:")])] {
            assert_eq!(access.admits(&nobodys, PEER).await, Admission::Closed);
        }
    }

    #[tokio::test]
    async fn only_the_owners_word_opens_it() {
        let closed = Access::new(Protection::default(), None).unwrap();
        assert_eq!(closed.admits(&headers(&[]), PEER).await, Admission::Closed);
        let open = Access::new(Protection::None, None).unwrap();
        assert_eq!(open.admits(&headers(&[]), PEER).await, Admission::Granted);
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
            assert!(hashes(bad).is_err(), "{bad}");
        }
    }
}
