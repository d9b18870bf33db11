//! Logins of registries, from the file that `docker login` and `podman login --compat-auth-file` write.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_core::explain::{Code, Diagnosis};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use zeroize::Zeroizing;

/// Passwords by registry. It has no `Debug`: they are secret.
#[derive(Default)]
pub(super) struct Logins {
    /// `user:password` in Base64, as the header `Authorization: Basic` has it, by host.
    basic: BTreeMap<String, Zeroizing<String>>,
    /// Hosts whose login is in another program's keeping, which is not asked.
    elsewhere: Vec<String>,
    /// Whether another program keeps all that are not in the file.
    store: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, serde_json::Value>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<serde::de::IgnoredAny>,
}

impl Logins {
    /// Reads the file; one that is not there holds no logins.
    pub fn read(path: &Path) -> Result<Self, Diagnosis> {
        let what = || format!("the logins in {} cannot be read", path.display());
        let text = match std::fs::read(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Diagnosis::new(Code::FileUnreadable, what()).because(&error)),
        };
        // The error of the parser could quote a password.
        Self::parse(&text).ok_or_else(|| {
            Diagnosis::new(Code::FileUnreadable, what())
                .saw("it is not the JSON that `docker login` writes")
                .next("correct it, or write it anew by `docker login`")
        })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let file: File = serde_json::from_slice(text).ok()?;
        let mut logins = Self {
            elsewhere: file.cred_helpers.into_keys().map(|key| host_of(&key)).collect(),
            store: file.creds_store.is_some(),
            ..Self::default()
        };
        for (key, entry) in file.auths {
            let host = host_of(&key);
            let auth = match (entry.auth, entry.username, entry.password) {
                (Some(auth), ..) if !auth.is_empty() => Some(Zeroizing::new(auth)),
                (_, Some(user), Some(password)) => {
                    let password = Zeroizing::new(password);
                    let pair = Zeroizing::new(format!("{user}:{}", *password));
                    Some(Zeroizing::new(STANDARD.encode(pair.as_bytes())))
                }
                _ => None,
            };
            match auth {
                Some(auth) if entry.identitytoken.is_none() => drop(logins.basic.insert(host, auth)),
                _ => logins.elsewhere.push(host),
            }
        }
        Some(logins)
    }

    /// The value of the header `Authorization` for a registry.
    pub fn header(&self, host: &str) -> Option<Zeroizing<String>> {
        let auth = self.basic.get(host)?;
        Some(Zeroizing::new(format!("Basic {}", **auth)))
    }

    /// What to do when this registry refuses.
    pub fn advice(&self, host: &str) -> String {
        if self.basic.contains_key(host) {
            return format!("look whether the login for {host} in ~/.docker/config.json may read the image");
        }
        if self.store || self.elsewhere.iter().any(|other| other == host) {
            return format!(
                "the login for {host} is kept by a credential helper or is a token, which landfall does not read: put user and password into \
                 ~/.docker/config.json"
            );
        }
        format!("log in by `docker login {host}`, if the image is not for everybody")
    }
}

/// The host of a key of the file: keys are hosts, or addresses that begin with one. Docker Hub has a key of its own.
fn host_of(key: &str) -> String {
    let plain = key.trim_start_matches("https://").trim_start_matches("http://");
    match plain.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_found_by_host_in_every_form_of_the_file() {
        let text = br#"{ "auths": {
            "https://index.docker.io/v1/": { "auth": "dTpw" },
            "registry.example:5000": { "username": "u", "password": "p" },
            "https://harbor.example/v2/project": { "auth": "dTpw" },
            "token.example": { "auth": "dTpw", "identitytoken": "x" } },
            "credHelpers": { "ecr.example": "ecr-login" }, "HttpHeaders": {} }"#;
        let logins = Logins::parse(text).unwrap();
        for host in ["docker.io", "registry.example:5000", "harbor.example"] {
            assert_eq!(logins.header(host).unwrap().as_str(), "Basic dTpw", "{host}");
            assert!(logins.advice(host).starts_with("look whether"));
        }
        for host in ["token.example", "ecr.example"] {
            assert!(logins.header(host).is_none());
            assert!(logins.advice(host).contains("does not read"), "{host}");
        }
        assert!(logins.advice("other.example").starts_with("log in by"));
        assert!(Logins::parse(b"{}").unwrap().header("docker.io").is_none());
    }

    #[test]
    fn an_error_quotes_nothing_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, r#"{ "auths": { "a": { "auth": 12345 } } }"#).unwrap();
        let Err(error) = Logins::read(&path) else {
            panic!("a wrong file was taken");
        };
        assert!(!format!("{error:?}").contains("12345"));
    }
}
