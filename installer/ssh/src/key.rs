//! Parses public keys and OpenSSH certificates, and checks host certificates.
//!
//! libssh2 checks that a server owns the key of its certificate, but nothing of the certificate itself. This module does that, by the rules of
//! OpenSSH's PROTOCOL.certkeys and `sshkey_cert_check_host`.

use crate::pattern::glob;
use crate::wire::{Reader, put_string};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use sha2::{Digest, Sha256};

/// Suffix of the type of every certificate.
pub const CERTIFICATE: &str = "-cert-v01@openssh.com";
/// Value of the field `type` of a host's certificate.
const HOST: u32 = 2;

/// Returns a key's fingerprint as OpenSSH shows it.
pub fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(key)))
}

/// Returns the type of a key, which is its first field (RFC 4253, 6.6).
pub fn key_type(key: &[u8]) -> Option<&str> {
    Reader(key).text()
}

/// Parses `TYPE BASE64`, as in known_hosts and in `.pub` files; `None` when it is not a complete key of a known type.
pub fn parse(key_type_name: &str, encoded: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(encoded).ok()?;
    let mut rest = Reader(&key);
    let name = rest.text()?;
    if name != key_type_name {
        return None;
    }
    if name.ends_with(CERTIFICATE) {
        return Certificate::parse(&key).map(|_| key.clone());
    }
    skip_fields(name, &mut rest)?;
    rest.0.is_empty().then(|| key.clone())
}

/// Skips the fields of a public key after its type.
fn skip_fields(name: &str, rest: &mut Reader<'_>) -> Option<()> {
    let fields = match name {
        "ssh-ed25519" => 1,
        "ssh-rsa" | "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" | "ecdsa-sha2-nistp521" => 2,
        "sk-ssh-ed25519@openssh.com" => 2,
        "sk-ecdsa-sha2-nistp256@openssh.com" => 3,
        "ssh-dss" => 4,
        _ => return None,
    };
    let first = rest.string()?;
    for _ in 1..fields {
        rest.string()?;
    }
    let whole = match name {
        "ssh-ed25519" | "sk-ssh-ed25519@openssh.com" => first.len() == 32,
        _ => !first.is_empty(),
    };
    whole.then_some(())
}

/// An OpenSSH certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// The certified key, as it would be without the certificate.
    pub plain: Vec<u8>,
    /// The key of the authority.
    pub authority: &'a [u8],
    kind: u32,
    principals: Vec<&'a str>,
    valid_after: u64,
    valid_before: u64,
    critical_options: &'a [u8],
    signed: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Parses a certificate; `None` when the bytes are not one.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Reader(bytes);
        let plain_type = plain_type(rest.text()?.strip_suffix(CERTIFICATE)?);
        let _nonce = rest.string()?;
        let fields = rest.0;
        skip_fields(&plain_type, &mut rest)?;
        let mut plain = Vec::new();
        put_string(&mut plain, plain_type.as_bytes());
        plain.extend_from_slice(&fields[..fields.len() - rest.0.len()]);
        let _serial = rest.u64()?;
        let kind = rest.u32()?;
        let _key_id = rest.string()?;
        let mut list = Reader(rest.string()?);
        let mut principals = Vec::new();
        while !list.0.is_empty() {
            principals.push(list.text()?);
        }
        let (valid_after, valid_before) = (rest.u64()?, rest.u64()?);
        let critical_options = rest.string()?;
        let (_extensions, _reserved) = (rest.string()?, rest.string()?);
        let authority = rest.string()?;
        let signed = &bytes[..bytes.len() - rest.0.len()];
        let signature = rest.string()?;
        rest.0.is_empty().then_some(Self {
            plain,
            authority,
            kind,
            principals,
            valid_after,
            valid_before,
            critical_options,
            signed,
            signature,
        })
    }

    /// Checks a host certificate, except whether its authority is trusted: the signature, the type, that it is for `host`, that it is valid at
    /// `now_s` (seconds since 1970), and that it has no critical options. The error says which check failed.
    pub fn check_host(&self, host: &str, now_s: u64) -> Result<(), String> {
        if self.kind != HOST {
            return Err("it is a certificate of a user, not of a host".to_owned());
        }
        if now_s < self.valid_after {
            return Err("it is not valid yet; compare the clocks".to_owned());
        }
        if now_s >= self.valid_before {
            return Err("it has expired".to_owned());
        }
        if !self.principals.is_empty() && !self.principals.iter().any(|p| glob(p.as_bytes(), host.as_bytes())) {
            return Err(format!("it is for {}, not for {host}", self.principals.join(", ")));
        }
        if !self.critical_options.is_empty() {
            return Err("it has critical options, and hosts have no known ones".to_owned());
        }
        verify(self.authority, self.signed, self.signature)
    }
}

/// Returns the key type of a certificate type without its suffix: the RSA signature types stand for ssh-rsa, and security keys have a domain
/// in the name.
fn plain_type(stem: &str) -> String {
    if stem.starts_with("sk-") {
        format!("{stem}@openssh.com")
    } else {
        stem.to_owned()
    }
}

/// Checks a signature in SSH's format. SHA-1 is refused, as OpenSSH's CASignatureAlgorithms does.
fn verify(key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), String> {
    let unreadable = || "its signature cannot be read".to_owned();
    let mut parts = Reader(signature);
    let (algorithm, bytes) = (
        parts.text().ok_or_else(unreadable)?,
        parts.string().ok_or_else(unreadable)?,
    );
    let mut key = Reader(key);
    let key_type = key.text().ok_or_else(unreadable)?;
    let verified = match (key_type, algorithm) {
        ("ssh-ed25519", "ssh-ed25519") => {
            let point = key.string().ok_or_else(unreadable)?;
            UnparsedPublicKey::new(&ED25519, point).verify(message, bytes)
        }
        ("ssh-rsa", "rsa-sha2-256" | "rsa-sha2-512") => {
            let (e, n) = (
                key.string().ok_or_else(unreadable)?,
                key.string().ok_or_else(unreadable)?,
            );
            let components = RsaPublicKeyComponents {
                n: unsigned(n),
                e: unsigned(e),
            };
            let parameters = if algorithm == "rsa-sha2-256" {
                &RSA_PKCS1_2048_8192_SHA256
            } else {
                &RSA_PKCS1_2048_8192_SHA512
            };
            components.verify(parameters, message, bytes)
        }
        ("ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384", _) if algorithm == key_type => {
            let (parameters, width) = if key_type.ends_with("256") {
                (&ECDSA_P256_SHA256_FIXED, 32)
            } else {
                (&ECDSA_P384_SHA384_FIXED, 48)
            };
            let point = key.string().and_then(|_curve| key.string()).ok_or_else(unreadable)?;
            let fixed = fixed_width(bytes, width).ok_or_else(unreadable)?;
            UnparsedPublicKey::new(parameters, point).verify(message, &fixed)
        }
        _ => {
            return Err(format!(
                "its authority signs with {algorithm} by a key {key_type}, which is not supported"
            ));
        }
    };
    verified.map_err(|_| "its signature is wrong".to_owned())
}

/// Returns a number of RFC 4251 without the zero byte that keeps it positive.
fn unsigned(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    &number[zeros..]
}

/// Returns the two numbers of an ECDSA signature, each `width` bytes long.
fn fixed_width(signature: &[u8], width: usize) -> Option<Vec<u8>> {
    let mut parts = Reader(signature);
    let mut fixed = Vec::with_capacity(2 * width);
    for number in [parts.string()?, parts.string()?] {
        let number = unsigned(number);
        fixed.resize(fixed.len() + width.checked_sub(number.len())?, 0);
        fixed.extend_from_slice(number);
    }
    Some(fixed)
}
