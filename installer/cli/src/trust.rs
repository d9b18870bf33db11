//! Reads the keys that this user trusts to sign bundles, and the key that signs the user's own bundles.

use crate::args::TrustArgs;
use crate::output::{PRIVATE, write_whole};
use crate::passwords;
use landfall_bundle::minisign::{MinisignError, PublicKey, SecretKey, Signature};
use landfall_bundle::{Bundle, Verified};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::secret::Secret;
use landfall_core::spec::Desired;
use landfall_core::spec::parse::expand_home;
use landfall_core::trust::{KeyId, NewKeys, OfferedKey, TrustOffer, Unsigned};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Keys that every user of this machine trusts.
const SYSTEM_FOLDER: &str = "/etc/landfall/trusted.d";
/// Name of the file in such a folder that lists revoked keys.
const REVOKED: &str = "revoked";
/// Largest file of a key.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// Returns landfall's folder in the user's configuration (XDG Base Directory Specification).
fn config_folder() -> PathBuf {
    let named = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = named.filter(|path| path.is_absolute());
    folder.unwrap_or_else(|| expand_home("~/.config")).join("landfall")
}

/// Returns the secret key that signs when no other is named.
pub fn default_key() -> PathBuf {
    config_folder().join("bundle.key")
}

/// Opens the bundle and checks its signature, before anything is connected to.
pub fn open_bundle(path: &Path, trust: &TrustArgs, desired: &Desired) -> Result<Bundle<Verified>, Vec<Diagnosis>> {
    let open = || Bundle::open(path)?.verify(&offer(trust, &desired.spec.trusted_keys)?);
    open().map_err(|diagnosis| vec![diagnosis])
}

fn unusable(path: &Path, error: MinisignError) -> Diagnosis {
    Diagnosis::new(Code::BundleSignature, format!("{} is no usable key", path.display()))
        .because(&error)
        .next("look at the file; `landfall bundle keygen` makes keys")
}

/// Reads a text file that is small. Blocks on disk.
pub fn read_small(path: &Path) -> Result<Zeroizing<String>, Diagnosis> {
    let read = || {
        let mut text = Zeroizing::new(String::new());
        File::open(path)?.take(MAX_KEY_FILE).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|error: std::io::Error| {
        Diagnosis::new(Code::FileUnreadable, format!("{} cannot be read", path.display())).because(&error)
    })
}

/// Reads a trusted key, and the signature beside it, if there is one: `FILE.minisig`.
fn offered(path: &Path) -> Result<OfferedKey, Diagnosis> {
    let key = read_small(path)?.to_string();
    PublicKey::parse(&key).map_err(|error| unusable(path, error))?;
    let beside = beside(path);
    let endorsement = beside.exists().then(|| read_small(&beside)).transpose()?;
    if let Some(text) = &endorsement {
        Signature::parse(text).map_err(|error| unusable(&beside, error))?;
    }
    Ok(OfferedKey {
        key,
        endorsement: endorsement.map(|text| text.to_string()),
    })
}

/// Returns the name of a file's signature.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

/// Collects what is trusted: keys of flags, of `trustedKeys` in the cluster.yaml, of the folders of this machine and this user.
pub fn offer(args: &TrustArgs, of_spec: &[String]) -> Result<TrustOffer, Diagnosis> {
    let mut offer = TrustOffer {
        revoked: args.revoke_key.iter().cloned().collect(),
        unsigned: if args.allow_unsigned {
            Unsigned::Allow
        } else {
            Unsigned::Refuse
        },
        new_keys: if args.force_new_key {
            NewKeys::Force
        } else {
            NewKeys::SignedByOld
        },
        ..TrustOffer::default()
    };
    for path in &args.trusted_key {
        offer.keys.push(offered(path)?);
    }
    for line in of_spec {
        let read = PublicKey::parse(line).map_err(|error| {
            Diagnosis::new(Code::SpecValue, format!("trustedKeys: {line:?} is no public key"))
                .because(&error)
                .next("put the second line of the .pub file there")
        })?;
        offer.keys.push(OfferedKey {
            key: read.to_text(),
            endorsement: None,
        });
    }
    for folder in [PathBuf::from(SYSTEM_FOLDER), config_folder().join("trusted.d")] {
        read_folder(&folder, &mut offer)?;
    }
    // The same key may be in several places; the copy with a signature is kept.
    offer.keys.sort();
    offer.keys.dedup();
    Ok(offer)
}

fn read_folder(folder: &Path, offer: &mut TrustOffer) -> Result<(), Diagnosis> {
    let unreadable = |error: std::io::Error| {
        Diagnosis::new(Code::FileUnreadable, format!("{} cannot be read", folder.display())).because(&error)
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(unreadable)?.path());
    }
    files.sort();
    for path in files {
        if path.extension().is_some_and(|end| end == "pub") {
            offer.keys.push(offered(&path)?);
        } else if path.file_name().is_some_and(|name| name == REVOKED) {
            offer.revoked.extend(revoked(&path)?);
        }
    }
    Ok(())
}

/// Reads a list of ids, one a line; what is behind a `#` is a comment.
fn revoked(path: &Path) -> Result<Vec<KeyId>, Diagnosis> {
    let text = read_small(path)?;
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    let ids = lines.filter(|line| !line.is_empty()).map(|line| {
        line.parse().map_err(|error| {
            Diagnosis::new(Code::BundleSignature, format!("{} cannot be used", path.display()))
                .because(&error)
                .next("write one id of a key a line, as `landfall bundle keygen` prints it")
        })
    });
    ids.collect()
}

/// Reads the secret key that signs. Asks for its password, where it has one, on the terminal.
pub fn secret_key(path: &Path, password_file: Option<&Path>) -> Result<SecretKey, Diagnosis> {
    let text = read_small(path)?;
    let what = "password of the secret key";
    let mut asked = None;
    let parsed = SecretKey::parse(&text, || {
        let password = match password_file {
            Some(file) => passwords::from_file(file, what, None),
            None => passwords::ask(what),
        };
        password.map_err(|diagnosis| {
            asked = Some(diagnosis);
            MinisignError::PasswordNeeded
        })
    });
    parsed.map_err(|error| asked.unwrap_or_else(|| unusable(path, error)))
}

/// Makes a key: the secret file, readable by its owner alone, and the public one. A file that exists is not overwritten.
pub fn keygen(secret: &Path, public: &Path, password: Option<&Secret>) -> Result<SecretKey, Diagnosis> {
    if let Some(there) = [secret, public].into_iter().find(|path| path.exists()) {
        let what = format!("{} exists, and is not overwritten", there.display());
        return Err(Diagnosis::new(Code::Usage, what).next("name another file, or move this one away"));
    }
    let internal = |error: std::io::Error| Diagnosis::new(Code::Internal, "no random bytes can be had").because(&error);
    let mut random = Zeroizing::new([0; 40]);
    let mut salt = [0; 32];
    let mut source = File::open("/dev/urandom").map_err(internal)?;
    source.read_exact(&mut random[..]).map_err(internal)?;
    source.read_exact(&mut salt).map_err(internal)?;
    let key = SecretKey::from_random(&random);
    let text = key.to_text(password.map(|password| (password, salt)));
    let text = text.map_err(|error| unusable(secret, error))?;
    write_whole(secret, text.as_bytes(), PRIVATE)?;
    write_whole(public, key.public().to_text().as_bytes(), 0o644)?;
    Ok(key)
}

/// Returns the file of the public key that belongs to a secret one. Beside the default key it is in the folder of trusted keys, so that what
/// is built here can be installed from here.
pub fn public_of(secret: &Path) -> PathBuf {
    if *secret == default_key() {
        return config_folder().join("trusted.d/bundle.pub");
    }
    secret.with_extension("pub")
}

/// Returns the key that signs what is built here; made when it is used for the first time. The second value says that it was made.
pub fn builders_key(named: Option<&Path>, password_file: Option<&Path>) -> Result<(SecretKey, bool), Diagnosis> {
    let path = named.map_or_else(default_key, Path::to_owned);
    if path.exists() {
        return secret_key(&path, password_file).map(|key| (key, false));
    }
    let password = password_file.map(|file| passwords::from_file(file, "password of the secret key", None));
    keygen(&path, &public_of(&path), password.transpose()?.as_ref()).map(|key| (key, true))
}
