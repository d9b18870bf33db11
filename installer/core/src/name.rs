//! Identifiers, parsed once at the edge and never raw strings again.
//!
//! Entry points are the `parse`/`FromStr` constructors; every type serialises as its plain string.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// Why a string is no valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {why}")]
pub struct NameError {
    /// Kind of identifier, for instance "node name".
    pub what: &'static str,
    /// The offending text.
    pub value: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

macro_rules! string_newtype {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }
    };
}

string_newtype!(
    /// Name of a node, which becomes its Kubernetes Node name: an RFC 1123 subdomain of at most 63 characters.
    NodeName,
    check_node_name
);
string_newtype!(
    /// Stable, kebab-case name of a step, for instance `join-control-plane/cp-2`; part of the interface.
    StepId,
    check_step_id
);
string_newtype!(
    /// Identifies one run of the installer. A run that goes on with another one has an id of its own.
    RunId,
    check_token
);
string_newtype!(
    /// Names a secret value that travels beside the plan, never inside it.
    SecretId,
    check_step_id
);
string_newtype!(
    /// A full image reference `repository:tag`.
    ImageRef,
    check_image
);

fn check_node_name(text: &str) -> Result<(), NameError> {
    let ok = !text.is_empty()
        && text.len() <= 63
        && text.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
    let why = "must be an RFC 1123 name: lower-case letters, digits, '-' and '.', at most 63 characters";
    if ok {
        Ok(())
    } else {
        Err(NameError {
            what: "node name",
            value: text.to_owned(),
            why,
        })
    }
}

fn check_step_id(text: &str) -> Result<(), NameError> {
    let ok = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-/.".contains(&b));
    let why = "must be lower-case letters, digits, '-', '.' and '/'";
    if ok {
        Ok(())
    } else {
        Err(NameError {
            what: "identifier",
            value: text.to_owned(),
            why,
        })
    }
}

fn check_token(text: &str) -> Result<(), NameError> {
    let ok = !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let why = "must be 1 to 64 letters, digits and '-'";
    if ok {
        Ok(())
    } else {
        Err(NameError {
            what: "run id",
            value: text.to_owned(),
            why,
        })
    }
}

fn check_image(text: &str) -> Result<(), NameError> {
    let tag = text.rsplit_once(':').map(|(repo, tag)| (repo, tag, tag.contains('/')));
    match tag {
        Some((repo, tag, false)) if !repo.is_empty() && !tag.is_empty() && !text.contains(char::is_whitespace) => {
            Ok(())
        }
        _ => Err(NameError {
            what: "image reference",
            value: text.to_owned(),
            why: "must be repository:tag",
        }),
    }
}

impl ImageRef {
    /// Returns the name without its tag.
    pub fn repository(&self) -> &str {
        self.0.rsplit_once(':').map_or(&self.0, |(repository, _)| repository)
    }

    /// Reads a name as pods have it, and returns the whole name by which containerd looks for it: with a registry, with `library` where
    /// Docker Hub's own images are meant, with a tag (distribution's `reference` package, "normalized names"). Names with a digest are errors.
    pub fn normalized(text: &str) -> Result<Self, NameError> {
        if text.contains('@') {
            return Err(NameError {
                what: "image reference",
                value: text.to_owned(),
                why: "must have a tag and no digest, because a bundle's images are found by name",
            });
        }
        let (first, rest) = text.split_once('/').unwrap_or(("", text));
        let is_host = first.contains(['.', ':']) || first == "localhost";
        let mut whole = match (is_host, rest.contains('/') || !first.is_empty()) {
            (true, _) if first == "index.docker.io" => format!("docker.io/{rest}"),
            (true, _) => text.to_owned(),
            (false, true) => format!("docker.io/{text}"),
            (false, false) => format!("docker.io/library/{text}"),
        };
        if let Some(name) = whole.strip_prefix("docker.io/").filter(|name| !name.contains('/')) {
            whole = format!("docker.io/library/{name}");
        }
        if whole.rsplit_once(':').is_none_or(|(_, tag)| tag.contains('/')) {
            whole.push_str(":latest");
        }
        whole.parse()
    }
}

/// A SHA-256 digest, written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Wraps a finished SHA-256 value.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the 64 lower-case hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for Digest {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || NameError {
            what: "digest",
            value: text.to_owned(),
            why: "must be sha256: and 64 lower-case hex digits",
        };
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(bad());
        }
        let mut out = [0u8; 32];
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(out))
    }
}
impl TryFrom<String> for Digest {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}
impl From<Digest> for String {
    fn from(value: Digest) -> String {
        value.to_string()
    }
}

/// Says whether a text is a DNS name in lower case. RFC 1123, section 2.1: labels of letters, digits and hyphens, 63 characters at most, 253 in all.
pub fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_round_trips_through_text() {
        let digest = Digest::of(b"landfall");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!("sha256:XYZ".parse::<Digest>().is_err());
        assert!(Digest::of(b"x").hex().parse::<Digest>().is_err());
    }

    #[test]
    fn node_names_follow_rfc_1123() {
        for good in ["cp-1", "a", "node1.ship"] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        for bad in ["", "Cp1", "-a", "a-", "a..b", "a_b", &"x".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn image_references_need_a_tag() {
        assert!("registry.internal:5000/a:v1".parse::<ImageRef>().is_ok());
        assert!("registry.internal:5000/a".parse::<ImageRef>().is_err());
    }

    #[test]
    fn short_names_of_images_become_whole() {
        for (short, whole) in [
            ("redis", "docker.io/library/redis:latest"),
            ("redis:7.4", "docker.io/library/redis:7.4"),
            ("docker.io/redis:7.4", "docker.io/library/redis:7.4"),
            ("grafana/loki:3", "docker.io/grafana/loki:3"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
            ("localhost/a:1", "localhost/a:1"),
            ("registry:5000/a/b", "registry:5000/a/b:latest"),
        ] {
            assert_eq!(ImageRef::normalized(short).unwrap().as_str(), whole);
        }
        assert!(ImageRef::normalized("a@sha256:0").is_err());
        assert!(ImageRef::normalized("a b").is_err());
    }
}
