//! Chooses the keys to offer to a server and their order: keys of the agent and of files, each once.

use crate::key::{self, Certificate};
use crate::wire::Reader;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_core::inventory::Connect;
use ssh2::{Agent, PublicKey};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// One key that can be offered.
pub enum Identity {
    /// A key of the agent, which signs with it.
    Agent(PublicKey),
    /// A private key file.
    File(KeyFile),
}

/// A private key file that was read.
pub struct KeyFile {
    /// Its path.
    pub path: PathBuf,
    /// Its text, which is erased when this value is dropped.
    pub private: Zeroizing<String>,
    /// The public key to offer, or a certificate of it. `None` lets libssh2 compute it, for old PEM keys without `.pub` file.
    pub public: Option<Vec<u8>>,
    /// Whether a passphrase is needed.
    pub encrypted: bool,
}

impl Identity {
    /// Returns the key's name for messages.
    pub fn name(&self) -> String {
        match self {
            Self::Agent(key) => format!("agent key {}", key.comment()),
            Self::File(file) if file.public.as_deref().is_some_and(|p| Certificate::parse(p).is_some()) => {
                format!("certificate of {}", file.path.display())
            }
            Self::File(file) => format!("key {}", file.path.display()),
        }
    }
}

/// What the second list of [`choose`] says of the keys of security tokens, which are not offered.
pub const OF_TOKEN: &str = "it is of a security token, which landfall's own client cannot use";

/// A file that names a key: a private key, or the public half of one that the agent holds.
struct NamedKey {
    path: PathBuf,
    /// The public key and certificates of it, as far as files tell.
    publics: Vec<Vec<u8>>,
    private: Option<Zeroizing<String>>,
}

/// Returns the keys to offer: those of the agent that named files point to; then, unless only named keys count, the agent's others; then those
/// of files. The second list says which other keys are not offered, and why.
pub fn choose(connect: &Connect, default_keys: &[PathBuf], agent: Option<&mut Agent>) -> (Vec<Identity>, Vec<String>) {
    let mut faults = Vec::new();
    let settings = &connect.ssh;
    let named: Vec<&PathBuf> = connect.private_key.iter().chain(&settings.identity_files).collect();
    let files = if named.is_empty() {
        default_keys.iter().collect()
    } else {
        named.clone()
    };
    let mut read = Vec::new();
    for path in files {
        match NamedKey::read(path, &settings.certificate_files) {
            Ok(file) if file.publics.iter().any(|public| is_of_token(public)) => {
                faults.push(format!("key {}: {OF_TOKEN}", path.display()));
            }
            Ok(file) => read.push(file),
            // The default names, and those of ssh_config, need not exist.
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound && connect.private_key.as_ref() != Some(path) => {}
            Err(error) => faults.push(format!("key {}: {error}", path.display())),
        }
    }
    let (tokens, mut from_agent): (Vec<_>, Vec<_>) = agent
        .map(list)
        .unwrap_or_default()
        .into_iter()
        .partition(|key| is_of_token(key.blob()));
    faults.extend(
        tokens
            .iter()
            .map(|key| format!("agent key {}: {OF_TOKEN}", key.comment())),
    );
    let mut chosen = Vec::new();
    for file in &read {
        let twin = |key: &PublicKey| file.publics.iter().any(|public| same_key(public, key.blob()));
        let (twins, others) = from_agent.into_iter().partition(twin);
        from_agent = others;
        chosen.extend(twins.into_iter().map(Identity::Agent));
    }
    // When cluster.yaml or the inventory names a key, no other is offered.
    if connect.private_key.is_none() && !settings.identities_only {
        chosen.extend(from_agent.into_iter().map(Identity::Agent));
    }
    for file in read {
        chosen.extend(file.offers(&chosen).into_iter().map(Identity::File));
    }
    (chosen, faults)
}

fn list(agent: &mut Agent) -> Vec<PublicKey> {
    let listed = agent.connect().and_then(|()| agent.list_identities());
    let keys = listed.and_then(|()| agent.identities()).unwrap_or_default();
    // libssh2 asks the agent for SHA-1 where the key has an RSA certificate (libssh2 1.11.2_DEV, agent.c, agent_sign).
    let usable = |key: &PublicKey| {
        !key::key_type(key.blob())
            .unwrap_or_default()
            .starts_with("ssh-rsa-cert")
    };
    keys.into_iter().filter(usable).collect()
}

/// Says whether a key is of a security token. libssh2 signs with these only by a callback that this crate cannot give.
fn is_of_token(public: &[u8]) -> bool {
    key::key_type(public).is_some_and(|name| name.starts_with("sk-"))
}

/// Says whether two public keys or certificates belong to the same key.
fn same_key(one: &[u8], other: &[u8]) -> bool {
    let plain = |key: &[u8]| Certificate::parse(key).map_or_else(|| key.to_vec(), |c| c.plain);
    plain(one) == plain(other)
}

impl NamedKey {
    fn read(path: &Path, certificates: &[PathBuf]) -> std::io::Result<Self> {
        let bytes = Zeroizing::new(std::fs::read(path)?);
        let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            public_of_line(&std::fs::read_to_string(name).ok()?)
        };
        if let Some(public) = public_of_line(&text) {
            return Ok(Self {
                path: path.to_owned(),
                publics: vec![public],
                private: None,
            });
        }
        let public = public_of_private(&text).or_else(|| beside(".pub"));
        let extra = certificates
            .iter()
            .filter_map(|file| public_of_line(&std::fs::read_to_string(file).ok()?));
        let certificates = beside("-cert.pub").into_iter().chain(extra);
        let mine = certificates.filter(|c| public.as_ref().is_none_or(|p| same_key(c, p)));
        Ok(Self {
            path: path.to_owned(),
            publics: mine.chain(public.clone()).collect(),
            private: Some(text),
        })
    }

    /// Returns the certificates and then the plain key, without those that the agent offers already.
    fn offers(self, before: &[Identity]) -> Vec<KeyFile> {
        let Some(private) = self.private else { return vec![] };
        let file = |public: Option<Vec<u8>>| KeyFile {
            path: self.path.clone(),
            encrypted: is_encrypted(&private),
            private: private.clone(),
            public,
        };
        if self.publics.is_empty() {
            return vec![file(None)];
        }
        let offered = |public: &Vec<u8>| {
            before
                .iter()
                .any(|i| matches!(i, Identity::Agent(key) if key.blob() == public))
        };
        self.publics
            .iter()
            .filter(|p| !offered(p))
            .map(|p| file(Some(p.clone())))
            .collect()
    }
}

/// Reads `TYPE BASE64 COMMENT`.
fn public_of_line(text: &str) -> Option<Vec<u8>> {
    let mut words = text.lines().find(|line| !line.trim().is_empty())?.split_whitespace();
    key::parse(words.next()?, words.next()?)
}

/// Reads the public key in the unencrypted part of an OpenSSH private key (PROTOCOL.key).
fn public_of_private(text: &str) -> Option<Vec<u8>> {
    let body = text
        .split_once("-----BEGIN OPENSSH PRIVATE KEY-----")?
        .1
        .split_once("-----END")?
        .0;
    let body: String = body.split_whitespace().collect();
    let bytes = Zeroizing::new(STANDARD.decode(body).ok()?);
    let mut rest = Reader(bytes.strip_prefix(b"openssh-key-v1\0")?);
    for _cipher_kdf_options in 0..3 {
        rest.string()?;
    }
    let _count = rest.u32()?;
    rest.string().map(<[u8]>::to_vec)
}

/// Says whether a private key has a passphrase: old PEM keys say so in a header, OpenSSH's name their cipher first.
fn is_encrypted(text: &str) -> bool {
    if text.contains("OPENSSH PRIVATE KEY") {
        // "none" as a string with its length, at the place of the cipher's name.
        return !text
            .split_whitespace()
            .collect::<String>()
            .contains("b3BlbnNzaC1rZXktdjEAAAAABG5vbmU");
    }
    text.contains("ENCRYPTED")
}
