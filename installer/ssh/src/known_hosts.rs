//! The known_hosts format (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"), with the rules of OpenSSH's `hostfile.c` and `sshconnect.c`: hashed
//! names, patterns, ports, revoked keys, certificate authorities.
//!
//! libssh2's own check compares names with `strcmp` and gives a false mismatch when a host is known by another key type first.

use crate::key::{self, CERTIFICATE, Certificate};
use crate::pattern;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use landfall_core::explain::{Code, Diagnosis};
use sha1::Sha1;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    Authority,
    /// An unknown word with `@`, which may be a misspelt `@revoked`.
    Unknown,
}

/// One line that is no comment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    place: String,
    marker: Marker,
    names: String,
    /// The key; `None` when it cannot be read.
    key: Option<Vec<u8>>,
}

/// All lines of all files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownHosts {
    entries: Vec<Entry>,
}

/// The status of a host key by known_hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The host is known by this key, or an authority of it has signed its certificate.
    Known,
    /// The host is not known at all.
    Unknown,
    /// The host is known by other keys only; `places` are their files and lines.
    Mismatch {
        /// `FILE:LINE` of each of them.
        places: Vec<String>,
    },
    /// The key, or the authority that signed its certificate, is marked as revoked.
    Revoked {
        /// `FILE:LINE`.
        place: String,
    },
    /// A trusted authority signed the certificate, but it does not hold for this host now.
    Certificate {
        /// Why.
        why: String,
    },
    /// A line for this host cannot be read, and no other line decides.
    Unreadable {
        /// `FILE:LINE`.
        place: String,
        /// Whether the line may revoke the key, so that other lines do not count.
        revokes: bool,
    },
}

impl KnownHosts {
    /// Reads files. Missing files are ignored, as OpenSSH does. A file that exists and cannot be read is an error, because it may revoke keys.
    pub fn read<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Result<Self, Diagnosis> {
        let mut known = Self::default();
        for file in files {
            match std::fs::read(file) {
                Ok(bytes) => known.extend(Self::parse(file, &String::from_utf8_lossy(&bytes))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let what = format!("the known host keys in {} cannot be read", file.display());
                    return Err(Diagnosis::new(Code::FileUnreadable, what).because(&error));
                }
            }
        }
        Ok(known)
    }

    /// Parses the lines of one file. A line that is not valid affects only the hosts that it names.
    pub fn parse(file: &Path, text: &str) -> Self {
        let lines = text.split('\n').enumerate();
        let entry = |(at, line): (usize, &str)| {
            parse_line(line.trim_end_matches('\r'), format!("{}:{}", file.display(), at + 1))
        };
        Self {
            entries: lines.filter_map(entry).collect(),
        }
    }

    /// Adds the lines of another file.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// Checks the key or certificate that a host presents at the time `now_s` (seconds since 1970).
    pub fn check(&self, host: &str, port: u16, key: &[u8], now_s: u64) -> Verdict {
        let host = host.to_ascii_lowercase();
        let name = lookup_name(&host, port);
        let verdict = self.check_name(&name, &host, key, now_s);
        if !matches!(verdict, Verdict::Unknown | Verdict::Unreadable { revokes: false, .. }) || name == host {
            return verdict;
        }
        // As in OpenSSH, a key that is known without a port is valid for every port of the machine.
        match self.check_name(&host, &host, key, now_s) {
            known @ (Verdict::Known | Verdict::Revoked { .. }) => known,
            _ => verdict,
        }
    }

    fn check_name(&self, name: &str, host: &str, key: &[u8], now_s: u64) -> Verdict {
        let of_host: Vec<&Entry> = self.entries.iter().filter(|e| names_match(&e.names, name)).collect();
        let certificate = Certificate::parse(key);
        let plain = certificate.as_ref().map_or(key, |c| c.plain.as_slice());
        let authority = certificate.as_ref().map(|c| c.authority);
        for entry in &of_host {
            let place = entry.place.clone();
            match (entry.marker, entry.key.as_deref()) {
                (Marker::Revoked | Marker::Unknown, None) => return Verdict::Unreadable { place, revokes: true },
                (Marker::Revoked, Some(key)) if key == plain || Some(key) == authority => {
                    return Verdict::Revoked { place };
                }
                _ => {}
            }
        }
        let trusted = |e: &&Entry| e.marker == Marker::Authority && e.key.is_some() && e.key.as_deref() == authority;
        if let Some(certificate) = certificate.as_ref().filter(|_| of_host.iter().any(trusted)) {
            return match certificate.check_host(host, now_s) {
                Ok(()) => Verdict::Known,
                Err(why) => Verdict::Certificate { why },
            };
        }
        let mut places = Vec::new();
        for entry in of_host.iter().filter(|e| e.marker == Marker::None) {
            match &entry.key {
                Some(known) if known == plain => return Verdict::Known,
                Some(_) => places.push(entry.place.clone()),
                None => {}
            }
        }
        if !places.is_empty() {
            return Verdict::Mismatch { places };
        }
        match of_host.iter().find(|e| e.key.is_none()) {
            Some(entry) => Verdict::Unreadable {
                place: entry.place.clone(),
                revokes: false,
            },
            None => Verdict::Unknown,
        }
    }

    /// Sorts the host key algorithms: those by which this host is known come first, then OpenSSH's order. Certificates are included only when an
    /// authority is known for the host.
    pub fn prefer<'a>(&self, host: &str, port: u16, supported: &[&'a str]) -> Vec<&'a str> {
        let host = host.to_ascii_lowercase();
        let name = lookup_name(&host, port);
        let of_host = || {
            self.entries
                .iter()
                .filter(|e| names_match(&e.names, &name) || names_match(&e.names, &host))
        };
        let authority = of_host().any(|e| e.marker == Marker::Authority);
        let of_type = |algorithm: &str| {
            let keys = of_host()
                .filter(|e| e.marker == Marker::None)
                .filter_map(|e| e.key.as_deref());
            keys.filter_map(key::key_type)
                .any(|known| known == algorithm || (known == "ssh-rsa" && algorithm.starts_with("rsa-sha2-")))
        };
        let mut order: Vec<&str> = supported.to_vec();
        order.retain(|algorithm| authority || !algorithm.ends_with(CERTIFICATE));
        // Certificates, then known types, then ed25519, which OpenSSH has first (ssh_config(5), HostKeyAlgorithms).
        order.sort_by_key(|algorithm| {
            (
                !algorithm.ends_with(CERTIFICATE),
                !of_type(algorithm),
                *algorithm != "ssh-ed25519",
            )
        });
        order
    }

    /// Returns the lines that name a host, with their marker, like `ssh-keygen -F`.
    #[cfg(test)]
    pub(crate) fn lines_of(&self, name: &str) -> Vec<(String, &'static str)> {
        let mark = |marker| match marker {
            Marker::None => "",
            Marker::Revoked => " REVOKED",
            Marker::Authority => " CA",
            Marker::Unknown => "?",
        };
        let of_host = self
            .entries
            .iter()
            .filter(|e| e.marker != Marker::Unknown && names_match(&e.names, name));
        of_host.map(|e| (e.place.clone(), mark(e.marker))).collect()
    }
}

/// Renders a line for a new host; a certificate is written as the key that it certifies.
pub fn render_line(host: &str, port: u16, presented: &[u8]) -> String {
    let plain = Certificate::parse(presented).map_or_else(|| presented.to_vec(), |c| c.plain);
    let name = lookup_name(&host.to_ascii_lowercase(), port);
    format!(
        "{name} {} {}\n",
        key::key_type(&plain).unwrap_or("unknown"),
        STANDARD.encode(&plain)
    )
}

fn lookup_name(host: &str, port: u16) -> String {
    if port == 22 {
        host.to_owned()
    } else {
        format!("[{host}]:{port}")
    }
}

const BLANK: [char; 2] = [' ', '\t'];

fn parse_line(line: &str, place: String) -> Option<Entry> {
    let mut rest = line.trim_start_matches(BLANK);
    if rest.is_empty() || rest.starts_with('#') {
        return None;
    }
    let mut marker = Marker::None;
    while rest.starts_with('@') {
        let (word, behind) = rest.split_once(BLANK).unwrap_or((rest, ""));
        marker = match word {
            "@revoked" if marker == Marker::None => Marker::Revoked,
            "@cert-authority" if marker == Marker::None => Marker::Authority,
            _ => Marker::Unknown,
        };
        rest = behind.trim_start_matches(BLANK);
    }
    let (names, behind) = rest.split_once(BLANK).unwrap_or((rest, ""));
    let mut words = behind.split(BLANK).filter(|w| !w.is_empty());
    let key = words
        .next()
        .zip(words.next())
        .and_then(|(name, encoded)| key::parse(name, encoded));
    Some(Entry {
        place,
        marker,
        names: names.to_owned(),
        key: key.filter(|_| marker != Marker::Unknown),
    })
}

fn names_match(names: &str, wanted: &str) -> bool {
    if let Some(hashed) = names.strip_prefix("|1|") {
        return hash_matches(hashed, wanted).unwrap_or(false);
    }
    let names = names.to_ascii_lowercase();
    pattern::any(names.split(','), wanted)
}

fn hash_matches(hashed: &str, wanted: &str) -> Option<bool> {
    let (salt, sum) = hashed.split_once('|')?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&STANDARD.decode(salt).ok()?).ok()?;
    mac.update(wanted.as_bytes());
    Some(mac.verify_slice(&STANDARD.decode(sum).ok()?).is_ok())
}

#[cfg(test)]
mod tests;
