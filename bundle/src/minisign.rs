//! Keys and signatures in minisign's formats (jedisct1.github.io/minisign, "Format"): Ed25519, BLAKE2b, scrypt. Debian's `minisign` reads what
//! is written here, and the other way round.
//!
//! ```text
//! public key   untrusted comment: …            secret key   untrusted comment: …
//!              base64("Ed" id key)                          base64("Ed" kdf "B2" salt opslimit memlimit, then masked: id seed key checksum)
//! signature    untrusted comment: …
//!              base64("ED" id signature of BLAKE2b-512 of the file)
//!              trusted comment: …
//!              base64(signature of the signature and the trusted comment)
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::digest::consts::U32;
use blake2::{Blake2b, Blake2b512, Digest as _};
use landfall_core::secret::Secret;
use landfall_core::trust::KeyId;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

/// Algorithm of keys, and of signatures of a file itself.
const PLAIN: [u8; 2] = *b"Ed";
/// Algorithm of signatures of a file's digest; the only one that is written.
const PREHASHED: [u8; 2] = *b"ED";
/// Secret keys behind a password.
const SCRYPT: [u8; 2] = *b"Sc";
/// Secret keys without a password (`minisign -W`).
const NO_PASSWORD: [u8; 2] = [0, 0];
/// Algorithm of the checksum of secret keys.
const CHECKSUM: [u8; 2] = *b"B2";
/// Cost of passwords in keys that are made here, minisign's own: libsodium's `crypto_pwhash_scryptsalsa208sha256` "sensitive" limits.
const OPSLIMIT: u64 = 33_554_432;
const MEMLIMIT: u64 = 1_073_741_824;
/// Most memory that a key file may ask for: four times what minisign's own ask.
const MEMLIMIT_MOST: u64 = 4 * MEMLIMIT;
const UNTRUSTED: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";
/// First line of every signature in a bundle. minisign's own has another text there, which nothing protects: in a bundle it is replaced.
const SIGNATURE_COMMENT: &str = "signature by landfall";

/// Why a key or signature cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MinisignError {
    /// It has not minisign's form.
    #[error("it has not the form of a {0} of minisign")]
    Form(&'static str),
    /// The signature is not one of this file by this key.
    #[error("the signature does not fit")]
    Wrong,
    /// The secret key is behind a password.
    #[error("the secret key is behind a password, and none was given")]
    PasswordNeeded,
    /// The password is wrong, or the file is damaged.
    #[error("the password is wrong, or the key file is damaged")]
    WrongPassword,
    /// The key file asks for more memory than is sensible.
    #[error("the key file asks for an absurd amount of memory")]
    Absurd,
}

type Result<T> = std::result::Result<T, MinisignError>;

/// A public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    id: [u8; 8],
    key: [u8; 32],
}

/// A signature with its trusted comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    algorithm: [u8; 2],
    id: [u8; 8],
    signature: [u8; 64],
    trusted_comment: String,
    global: [u8; 64],
}

/// A secret key. Its bytes are wiped when it goes.
pub struct SecretKey {
    public: PublicKey,
    seed: Zeroizing<[u8; 32]>,
}

fn id_of(id: [u8; 8]) -> KeyId {
    KeyId::from_number(u64::from_le_bytes(id))
}

/// Splits bytes into fields of fixed sizes.
struct Fields<'a>(&'a [u8], &'static str);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(MinisignError::Form(self.1))?;
        self.0 = rest;
        Ok(*field)
    }

    fn end(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(MinisignError::Form(self.1))
        }
    }
}

fn decode(line: &str, what: &'static str) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = STANDARD
        .decode(line.trim_end())
        .map_err(|_| MinisignError::Form(what))?;
    Ok(Zeroizing::new(bytes))
}

impl PublicKey {
    /// Reads a key file, or its second line alone.
    pub fn parse(text: &str) -> Result<Self> {
        let what = "public key";
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let first = lines.next().ok_or(MinisignError::Form(what))?;
        let line = if first.starts_with(UNTRUSTED) {
            lines.next()
        } else {
            Some(first)
        };
        let (Some(line), None) = (line, lines.next()) else {
            return Err(MinisignError::Form(what));
        };
        let bytes = decode(line, what)?;
        let mut fields = Fields(&bytes, what);
        if fields.take()? != PLAIN {
            return Err(MinisignError::Form(what));
        }
        let key = Self {
            id: fields.take()?,
            key: fields.take()?,
        };
        fields.end().map(|()| key)
    }

    /// Returns its id.
    pub fn id(&self) -> KeyId {
        id_of(self.id)
    }

    /// Returns its file.
    pub fn to_text(&self) -> String {
        let bytes = [&PLAIN[..], &self.id, &self.key].concat();
        let id = self.id();
        format!("{UNTRUSTED}minisign public key {id}\n{}\n", STANDARD.encode(bytes))
    }

    /// Checks that this key made the signature of these bytes.
    pub fn verify(&self, bytes: &[u8], signature: &Signature) -> Result<()> {
        if signature.id != self.id {
            return Err(MinisignError::Wrong);
        }
        let key = UnparsedPublicKey::new(&ED25519, &self.key);
        let fits =
            |message: &[u8], signature: &[u8; 64]| key.verify(message, signature).map_err(|_| MinisignError::Wrong);
        if signature.algorithm == PREHASHED {
            fits(&Blake2b512::digest(bytes), &signature.signature)?;
        } else {
            fits(bytes, &signature.signature)?;
        }
        fits(&signature.globally_signed(), &signature.global)
    }
}

impl Signature {
    /// Reads a signature file.
    pub fn parse(text: &str) -> Result<Self> {
        let what = "signature";
        let form = MinisignError::Form(what);
        let lines: Vec<&str> = text.lines().collect();
        let [first, signature, trusted, global] = lines[..] else {
            return Err(form);
        };
        if !first.starts_with(UNTRUSTED) {
            return Err(form);
        }
        let bytes = decode(signature, what)?;
        let mut fields = Fields(&bytes, what);
        let algorithm = fields.take()?;
        if ![PLAIN, PREHASHED].contains(&algorithm) {
            return Err(form);
        }
        let (id, signature) = (fields.take()?, fields.take()?);
        fields.end()?;
        let bytes = decode(global, what)?;
        let mut fields = Fields(&bytes, what);
        let global = fields.take()?;
        fields.end()?;
        Ok(Self {
            algorithm,
            id,
            signature,
            trusted_comment: trusted.strip_prefix(TRUSTED).ok_or(form)?.to_owned(),
            global,
        })
    }

    /// Returns the id of the key that made it, as it says.
    pub fn key_id(&self) -> KeyId {
        id_of(self.id)
    }

    /// Returns its file, always the same for the same signature.
    pub fn to_text(&self) -> String {
        let signature = [&self.algorithm[..], &self.id, &self.signature].concat();
        format!(
            "{UNTRUSTED}{SIGNATURE_COMMENT}\n{}\n{TRUSTED}{}\n{}\n",
            STANDARD.encode(signature),
            self.trusted_comment,
            STANDARD.encode(self.global)
        )
    }

    fn globally_signed(&self) -> Vec<u8> {
        [&self.signature[..], self.trusted_comment.as_bytes()].concat()
    }
}

impl SecretKey {
    /// Makes a key of random bytes: 32 of the key, 8 of its id.
    pub fn from_random(random: &Zeroizing<[u8; 40]>) -> Self {
        let (mut seed, mut id) = (Zeroizing::new([0; 32]), [0; 8]);
        seed.copy_from_slice(&random[..32]);
        id.copy_from_slice(&random[32..]);
        Self::of(id, seed)
    }

    fn of(id: [u8; 8], seed: Zeroizing<[u8; 32]>) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed[..]).expect("32 bytes are a seed");
        let mut key = [0; 32];
        key.copy_from_slice(pair.public_key().as_ref());
        Self {
            public: PublicKey { id, key },
            seed,
        }
    }

    /// Returns the public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs bytes. The same bytes and comment give the same signature.
    pub fn sign(&self, bytes: &[u8], trusted_comment: &str) -> Signature {
        let pair = Ed25519KeyPair::from_seed_unchecked(&self.seed[..]).expect("32 bytes are a seed");
        let sign = |message: &[u8]| {
            let mut signature = [0; 64];
            signature.copy_from_slice(pair.sign(message).as_ref());
            signature
        };
        let mut signature = Signature {
            algorithm: PREHASHED,
            id: self.public.id,
            signature: sign(&Blake2b512::digest(bytes)),
            trusted_comment: trusted_comment.to_owned(),
            global: [0; 64],
        };
        signature.global = sign(&signature.globally_signed());
        signature
    }

    /// Reads a key file. A password that is needed is asked for; `password` may block. minisign's own files take a gigabyte of memory and
    /// some seconds.
    pub fn parse<E: From<MinisignError>>(
        text: &str,
        password: impl FnOnce() -> std::result::Result<Secret, E>,
    ) -> std::result::Result<Self, E> {
        let what = "secret key";
        let form = || E::from(MinisignError::Form(what));
        let mut lines = text.lines();
        let (Some(first), Some(line), None) = (lines.next(), lines.next(), lines.next()) else {
            return Err(form());
        };
        let bytes = decode(line, what)?;
        let mut fields = Fields(&bytes, what);
        let (algorithm, kdf, checksum): ([u8; 2], [u8; 2], [u8; 2]) = (fields.take()?, fields.take()?, fields.take()?);
        let salt: [u8; 32] = fields.take()?;
        let limits = (u64::from_le_bytes(fields.take()?), u64::from_le_bytes(fields.take()?));
        let mut masked = Zeroizing::new(fields.take::<104>()?);
        fields.end()?;
        if !first.starts_with(UNTRUSTED) || algorithm != PLAIN || checksum != CHECKSUM {
            return Err(form());
        }
        match kdf {
            SCRYPT => mask(&mut masked, &password()?, &salt, limits)?,
            NO_PASSWORD => {}
            _ => return Err(form()),
        }
        let mut fields = Fields(&masked[..], what);
        let (id, seed) = (fields.take()?, Zeroizing::new(fields.take()?));
        let key = Self::of(id, seed);
        // minisign 0.11 leaves the checksum of keys without a password at zero. The public half is compared in any case.
        let (public, checksum): ([u8; 32], [u8; 32]) = (fields.take()?, fields.take()?);
        let unchecked = kdf == NO_PASSWORD && checksum == [0; 32];
        if public != key.public.key || !(unchecked || checksum == key.checksum()) {
            return Err(MinisignError::WrongPassword.into());
        }
        Ok(key)
    }

    /// Returns the key's file. With a password it takes a gigabyte of memory and some seconds; `salt` is random.
    pub fn to_text(&self, password: Option<(&Secret, [u8; 32])>) -> Result<Zeroizing<String>> {
        self.to_text_at(password, (OPSLIMIT, MEMLIMIT))
    }

    fn to_text_at(&self, password: Option<(&Secret, [u8; 32])>, limits: (u64, u64)) -> Result<Zeroizing<String>> {
        let mut masked = Zeroizing::new([0; 104]);
        masked[..8].copy_from_slice(&self.public.id);
        masked[8..40].copy_from_slice(&self.seed[..]);
        masked[40..72].copy_from_slice(&self.public.key);
        masked[72..].copy_from_slice(&self.checksum());
        let (mut kdf, mut salt, mut limits_written) = (NO_PASSWORD, [0; 32], (0, 0));
        if let Some((password, random)) = password {
            (kdf, salt, limits_written) = (SCRYPT, random, limits);
            mask(&mut masked, password, &salt, limits)?;
        }
        let (ops, mem) = (limits_written.0.to_le_bytes(), limits_written.1.to_le_bytes());
        let bytes = Zeroizing::new([&PLAIN[..], &kdf, &CHECKSUM, &salt, &ops, &mem, &masked[..]].concat());
        let encoded = Zeroizing::new(STANDARD.encode(&bytes[..]));
        let word = if password.is_some() { "encrypted" } else { "unencrypted" };
        Ok(Zeroizing::new(format!(
            "{UNTRUSTED}minisign {word} secret key\n{}\n",
            *encoded
        )))
    }

    /// minisign's checksum: BLAKE2b-256 of algorithm, id and both halves of the key.
    fn checksum(&self) -> [u8; 32] {
        let hash = Blake2b::<U32>::new()
            .chain_update(PLAIN)
            .chain_update(self.public.id)
            .chain_update(&self.seed[..])
            .chain_update(self.public.key);
        hash.finalize().into()
    }
}

/// Masks, or unmasks, a secret key by what scrypt makes of a password.
fn mask(bytes: &mut [u8; 104], password: &Secret, salt: &[u8; 32], limits: (u64, u64)) -> Result<()> {
    let params = scrypt_params(limits)?;
    let mut stream = Zeroizing::new([0; 104]);
    scrypt::scrypt(password.expose(), salt, &params, &mut stream[..]).map_err(|_| MinisignError::Absurd)?;
    for (byte, mask) in bytes.iter_mut().zip(stream.iter()) {
        *byte ^= mask;
    }
    Ok(())
}

/// libsodium's choice of scrypt's N, r and p (`pickparams` in crypto_pwhash_scryptsalsa208sha256.c).
fn scrypt_params((opslimit, memlimit): (u64, u64)) -> Result<scrypt::Params> {
    const R: u64 = 8;
    if memlimit > MEMLIMIT_MOST {
        return Err(MinisignError::Absurd);
    }
    let opslimit = opslimit.max(32_768);
    let log_n = |most: u64| (1..63).find(|n| 1u64 << n > most / 2).unwrap_or(63u8);
    let (log_n, p) = if opslimit < memlimit / 32 {
        (log_n(opslimit / (R * 4)), 1)
    } else {
        let log_n = log_n(memlimit / (R * 128));
        let rp = ((opslimit / 4) >> log_n).min(0x3fff_ffff);
        (log_n, rp / R)
    };
    let p = u32::try_from(p).map_err(|_| MinisignError::Absurd)?;
    // Sixteen passes are far above what minisign asks for (one).
    if p > 16 {
        return Err(MinisignError::Absurd);
    }
    scrypt::Params::new(log_n, 8, p, 64).map_err(|_| MinisignError::Absurd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(number: u8) -> SecretKey {
        SecretKey::from_random(&Zeroizing::new([number; 40]))
    }

    fn none() -> std::result::Result<Secret, MinisignError> {
        Err(MinisignError::PasswordNeeded)
    }

    #[test]
    fn a_key_file_comes_back_as_it_went_in() {
        let secret = key(7);
        let text = secret.to_text(None).unwrap();
        assert_eq!(SecretKey::parse(&text, none).unwrap().public(), secret.public());
        assert_eq!(PublicKey::parse(&secret.public().to_text()).unwrap(), *secret.public());
        let line = secret.public().to_text().lines().nth(1).unwrap().to_owned();
        assert_eq!(PublicKey::parse(&line).unwrap(), *secret.public());
    }

    #[test]
    fn a_password_is_needed_and_must_be_right() {
        let password = Secret::new("so geheim");
        // The least that libsodium takes; minisign's own limits take seconds.
        let text = key(7)
            .to_text_at(Some((&password, [3; 32])), (32_768, 1 << 24))
            .unwrap();
        let parsed = |word: &str| SecretKey::parse::<MinisignError>(&text, || Ok(Secret::new(word)));
        assert_eq!(parsed("so geheim").unwrap().public(), key(7).public());
        assert_eq!(parsed("falsch").err(), Some(MinisignError::WrongPassword));
        assert_eq!(SecretKey::parse(&text, none).err(), Some(MinisignError::PasswordNeeded));
    }

    #[test]
    fn libsodiums_limits_are_understood() {
        let params = scrypt_params((OPSLIMIT, MEMLIMIT)).unwrap();
        assert_eq!((params.log_n(), params.r(), params.p()), (20, 8, 1));
        let params = scrypt_params((524_288, 16_777_216)).unwrap();
        assert_eq!((params.log_n(), params.r(), params.p()), (14, 8, 1));
        assert_eq!(scrypt_params((OPSLIMIT, u64::MAX)).err(), Some(MinisignError::Absurd));
        assert_eq!(scrypt_params((u64::MAX, 32_768)).err(), Some(MinisignError::Absurd));
    }

    #[test]
    fn another_key_file_or_comment_does_not_fit() {
        let signature = key(1).sign(b"index", "file:bundle.json");
        key(1).public().verify(b"index", &signature).unwrap();
        assert_eq!(key(1).public().verify(b"indeX", &signature), Err(MinisignError::Wrong));
        assert_eq!(key(2).public().verify(b"index", &signature), Err(MinisignError::Wrong));
        let text = signature.to_text().replace("file:", "File:");
        let other = Signature::parse(&text).unwrap();
        assert_eq!(key(1).public().verify(b"index", &other), Err(MinisignError::Wrong));
        assert_eq!(
            signature,
            key(1).sign(b"index", "file:bundle.json"),
            "no time, no chance"
        );
    }

    proptest! {
        #[test]
        fn no_byte_of_a_signature_can_be_changed(at in 0usize..400, flip in 1u8..=255) {
            let text = key(1).sign(b"index", "file:bundle.json").to_text();
            let mut bytes = text.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            let changed = String::from_utf8_lossy(&bytes).into_owned();
            // In a bundle the text must be the one that its signature is written as.
            let taken = Signature::parse(&changed)
                .is_ok_and(|s| s.to_text() == changed && key(1).public().verify(b"index", &s).is_ok());
            prop_assert!(!taken, "byte {} became {}", at, bytes[at]);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = Signature::parse(&text);
            let _ = PublicKey::parse(&text);
            let _ = SecretKey::parse(&text, none);
        }
    }
}
