//! Opens what `ansible-vault` encrypted: format 1.1 and 1.2, AES256.
//!
//! The layout is that of Ansible's `parsing/vault`: hexadecimal lines hold salt, HMAC and ciphertext; PBKDF2 with
//! SHA-256 and 10,000 rounds gives the key of AES-256 in counter mode, the key of the HMAC and the first counter block.

use aes::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, Mac};
use landfall_core::secret::Secret;
use sha2::Sha256;

/// What every encrypted text begins with.
pub const HEADER: &str = "$ANSIBLE_VAULT";
/// Rounds of PBKDF2, from Ansible's `VaultAES256`.
const ROUNDS: u32 = 10_000;

/// Why a text cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    /// No password was given.
    NoPassword,
    /// None of the passwords fits.
    WrongPassword,
    /// It is not of a form that Ansible writes.
    Form,
}

impl std::fmt::Display for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoPassword => "is encrypted by ansible-vault; give --vault-password-file or --ask-vault-pass",
            Self::WrongPassword => "is encrypted by ansible-vault with another password than those given",
            Self::Form => "begins like an encrypted text of ansible-vault but is none of format 1.1 or 1.2",
        })
    }
}

/// Passwords of vaults, each with the id it was given for.
#[derive(Clone, Default)]
pub struct Keys(Vec<(Option<String>, Secret)>);

impl Keys {
    /// Adds a password; `id` is the label of `--vault-id`.
    pub fn add(&mut self, id: Option<String>, password: Secret) {
        self.0.push((id, password));
    }

    /// Decrypts a text. Passwords of the same id are tried first, then all others, as with Ansible.
    pub fn open(&self, text: &str) -> Result<String, Sealed> {
        if self.0.is_empty() {
            return Err(Sealed::NoPassword);
        }
        let (id, body) = split(text).ok_or(Sealed::Form)?;
        let (first, rest): (Vec<_>, Vec<_>) = self.0.iter().partition(|(label, _)| label.is_some() && *label == id);
        let opened = first.iter().chain(&rest).find_map(|(_, key)| body.open(key.expose()));
        String::from_utf8(opened.ok_or(Sealed::WrongPassword)?).map_err(|_| Sealed::Form)
    }
}

struct Body {
    salt: Vec<u8>,
    mac: Vec<u8>,
    cipher: Vec<u8>,
}

fn split(text: &str) -> Option<(Option<String>, Body)> {
    let mut lines = text.trim().lines().map(str::trim);
    let header: Vec<&str> = lines.next()?.split(';').collect();
    let id = match header[..] {
        [HEADER, "1.1", "AES256"] => None,
        [HEADER, "1.2", "AES256", id] => Some(id.to_owned()),
        _ => return None,
    };
    let inner = unhex(&lines.collect::<String>())?;
    let mut parts = std::str::from_utf8(&inner).ok()?.splitn(3, '\n').map(unhex);
    let body = Body {
        salt: parts.next()??,
        mac: parts.next()??,
        cipher: parts.next()??,
    };
    Some((id, body))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.trim().as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

impl Body {
    /// Decrypts with one password; nothing when it does not fit.
    fn open(&self, password: &[u8]) -> Option<Vec<u8>> {
        let mut derived = [0; 80];
        pbkdf2::pbkdf2_hmac::<Sha256>(password, &self.salt, ROUNDS, &mut derived);
        let (key, mac_key, counter) = (&derived[..32], &derived[32..64], &derived[64..]);
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(mac_key).ok()?;
        mac.update(&self.cipher);
        mac.verify_slice(&self.mac).ok()?;
        let mut plain = self.cipher.clone();
        ctr::Ctr128BE::<aes::Aes256>::new_from_slices(key, counter)
            .ok()?
            .apply_keystream(&mut plain);
        // PKCS #7: the last byte says how many bytes of padding there are.
        let padding = usize::from(*plain.last()?);
        plain.truncate(plain.len().checked_sub(padding)?);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ansible_user: admin` and more, encrypted by ansible-core 2.19.14 with the password `test`.
    const TEXT: &str =
        include_str!("../../tests/fixtures/inventories/cases/21-vault-file-needed/group_vars/all/vault.yml");

    fn keys(passwords: &[(&str, &str)]) -> Keys {
        let mut keys = Keys::default();
        for (id, password) in passwords {
            keys.add((!id.is_empty()).then(|| (*id).to_owned()), Secret::new(*password));
        }
        keys
    }

    #[test]
    fn a_vault_opens_with_its_password_alone() {
        let opened = keys(&[("", "wrong"), ("prod", "test")]).open(TEXT).unwrap();
        assert_eq!(opened.trim(), "vault_become_password: made-up");
        assert_eq!(keys(&[("", "Test")]).open(TEXT), Err(Sealed::WrongPassword));
        assert_eq!(keys(&[]).open(TEXT), Err(Sealed::NoPassword));
    }

    #[test]
    fn what_is_damaged_or_unknown_is_refused() {
        let keys = keys(&[("", "test")]);
        for text in [
            "",
            "$ANSIBLE_VAULT",
            "$ANSIBLE_VAULT;1.0;AES\n00",
            "$ANSIBLE_VAULT;1.1;AES256\nxyz",
        ] {
            assert_eq!(keys.open(text), Err(Sealed::Form), "{text}");
        }
        let damaged = TEXT.replacen("3961", "3962", 1);
        assert!(keys.open(&damaged).is_err());
    }
}
