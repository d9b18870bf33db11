//! The known_hosts format (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): hashed names, patterns, ports, revoked keys.
//!
//! libssh2's own check compares names with `strcmp` and gives a false mismatch when a host is known by another key type first.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// One usable line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    revoked: bool,
    names: String,
    key_type: String,
    key: Vec<u8>,
}

/// All lines of all files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownHosts {
    entries: Vec<Entry>,
}

/// What known_hosts says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The host is known by this key.
    Known,
    /// The host is not known at all.
    Unknown,
    /// The host is known by other keys only.
    Mismatch,
    /// The key is marked as revoked.
    Revoked,
}

impl KnownHosts {
    /// Reads lines; ones that are not understood, and certificate authorities, are passed over.
    pub fn parse(text: &str) -> Self {
        Self {
            entries: text.lines().filter_map(parse_line).collect(),
        }
    }

    /// Adds the lines of another file.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// Judges the key that a host presents.
    pub fn check(&self, host: &str, port: u16, key: &[u8]) -> Verdict {
        let name = lookup_name(host, port);
        let of_host: Vec<_> = self.entries.iter().filter(|e| names_match(&e.names, &name)).collect();
        if of_host.iter().any(|e| e.revoked && e.key == key) {
            return Verdict::Revoked;
        }
        let mut keys = of_host.iter().filter(|e| !e.revoked).peekable();
        match (keys.peek().is_some(), keys.any(|e| e.key == key)) {
            (_, true) => Verdict::Known,
            (true, false) => Verdict::Mismatch,
            (false, false) => Verdict::Unknown,
        }
    }

    /// Returns the key types by which a host is known, to ask for those first.
    pub fn key_types(&self, host: &str, port: u16) -> Vec<&str> {
        let name = lookup_name(host, port);
        let known = self
            .entries
            .iter()
            .filter(|e| !e.revoked && names_match(&e.names, &name));
        known.map(|e| e.key_type.as_str()).collect()
    }
}

/// Renders a line for a new host.
pub fn render_line(host: &str, port: u16, key_type: &str, key: &[u8]) -> String {
    format!("{} {key_type} {}\n", lookup_name(host, port), STANDARD.encode(key))
}

/// Returns a key's fingerprint as OpenSSH shows it.
pub fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(key)))
}

/// Reads the type out of a key blob, whose first field it is (RFC 4253, 6.6).
pub fn key_type(key: &[u8]) -> Option<&str> {
    let length = u32::from_be_bytes(key.get(..4)?.try_into().ok()?) as usize;
    std::str::from_utf8(key.get(4..4usize.checked_add(length)?)?).ok()
}

fn lookup_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

fn parse_line(line: &str) -> Option<Entry> {
    let mut words = line.split_whitespace();
    let mut first = words.next().filter(|w| !w.starts_with('#'))?;
    let revoked = first == "@revoked";
    if first.starts_with('@') {
        if !revoked {
            return None;
        }
        first = words.next()?;
    }
    let key_type = words.next()?;
    let key = STANDARD.decode(words.next()?).ok()?;
    Some(Entry {
        revoked,
        names: first.to_owned(),
        key_type: key_type.to_owned(),
        key,
    })
}

fn names_match(names: &str, wanted: &str) -> bool {
    if let Some(hashed) = names.strip_prefix("|1|") {
        return hash_matches(hashed, wanted).unwrap_or(false);
    }
    let mut matched = false;
    for pattern in names.split(',') {
        match pattern.strip_prefix('!') {
            Some(negated) if glob(&negated.to_ascii_lowercase(), wanted) => return false,
            Some(_) => {}
            None => matched |= glob(&pattern.to_ascii_lowercase(), wanted),
        }
    }
    matched
}

fn hash_matches(hashed: &str, wanted: &str) -> Option<bool> {
    let (salt, sum) = hashed.split_once('|')?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&STANDARD.decode(salt).ok()?).ok()?;
    mac.update(wanted.as_bytes());
    Some(mac.verify_slice(&STANDARD.decode(sum).ok()?).is_ok())
}

/// Matches `*` and `?` without backtracking blow-up.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(names: &str, key: &[u8]) -> String {
        format!("{names} ssh-ed25519 {}\n", STANDARD.encode(key))
    }

    #[test]
    fn a_known_key_of_another_type_is_no_mismatch() {
        let known = KnownHosts::parse(&(line("a.example", b"one") + &line("a.example", b"two")));
        assert_eq!(known.check("A.example", 22, b"two"), Verdict::Known);
        assert_eq!(known.check("a.example", 22, b"three"), Verdict::Mismatch);
        assert_eq!(known.check("b.example", 22, b"one"), Verdict::Unknown);
        assert_eq!(known.check("a.example", 2222, b"one"), Verdict::Unknown);
    }

    #[test]
    fn patterns_negations_and_ports_count() {
        let known = KnownHosts::parse(&line("*.ship,!bad.ship,[10.0.0.?]:2222", b"k"));
        assert_eq!(known.check("deck.ship", 22, b"k"), Verdict::Known);
        assert_eq!(known.check("bad.ship", 22, b"k"), Verdict::Unknown);
        assert_eq!(known.check("10.0.0.7", 2222, b"k"), Verdict::Known);
        assert_eq!(known.check("10.0.0.77", 2222, b"k"), Verdict::Unknown);
    }

    #[test]
    fn revoked_keys_are_refused_and_bad_lines_passed_over() {
        let text = format!(
            "# note\nnonsense\n@cert-authority * x y\n@revoked {}{}",
            line("*", b"r"),
            line("h", b"r")
        );
        let known = KnownHosts::parse(&text);
        assert_eq!(known.check("h", 22, b"r"), Verdict::Revoked);
        assert_eq!(known.check("h", 22, b"s"), Verdict::Mismatch);
    }

    #[test]
    fn hashed_names_of_ssh_keygen_match() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("known_hosts");
        std::fs::write(&file, line("[10.9.8.7]:2222", b"key")).unwrap();
        let status = std::process::Command::new("ssh-keygen")
            .args(["-q", "-H", "-f"])
            .arg(&file)
            .status()
            .unwrap();
        assert!(status.success());
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("|1|"), "{text}");
        assert_eq!(KnownHosts::parse(&text).check("10.9.8.7", 2222, b"key"), Verdict::Known);
        assert_eq!(
            KnownHosts::parse(&text).check("10.9.8.8", 2222, b"key"),
            Verdict::Unknown
        );
    }

    #[test]
    fn a_rendered_line_is_read_back() {
        let known = KnownHosts::parse(&render_line("h", 2222, "ssh-ed25519", b"k"));
        assert_eq!(known.check("h", 2222, b"k"), Verdict::Known);
        assert_eq!(known.key_types("h", 2222), ["ssh-ed25519"]);
        assert_eq!(key_type(b"\0\0\0\x03abcrest"), Some("abc"));
        assert_eq!(key_type(b"\xff\xff\xff\xff"), None);
    }
}
