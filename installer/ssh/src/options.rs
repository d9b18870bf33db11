//! Options of connections, and the passphrases that the user is asked for.

use landfall_core::secret::Secret;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Number of prompts for a passphrase, the default of ssh's NumberOfPasswordPrompts.
const PASSPHRASE_TRIES: usize = 3;

/// Options of connections.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// The user's files of known host keys in OpenSSH's format; missing ones are ignored.
    pub known_hosts: Vec<PathBuf>,
    /// Files of known host keys for all users of this machine; missing ones are ignored.
    pub global_known_hosts: Vec<PathBuf>,
    /// The file that accepted keys of new hosts are written to.
    pub new_keys: PathBuf,
    /// Whether keys of all new hosts are accepted; a host whose settings say so is accepted anyway.
    pub accept_new: bool,
    /// The socket of the SSH agent whose keys are tried.
    pub agent_socket: Option<PathBuf>,
    /// Key files that are tried when the inventory names none.
    pub default_keys: Vec<PathBuf>,
    /// Passphrases of keys; `None` when nobody can be asked.
    pub passphrases: Option<Passphrases>,
    /// Time limit of the TCP connection, and of each answer of the handshake and login.
    pub timeout: Duration,
    /// Time limit for the login shell to start a command: a profile may wait for a home directory.
    pub shell_timeout: Duration,
}

/// Asks the user for a secret; `None` when there is no terminal.
type Ask = dyn Fn(&str) -> Option<Secret> + Send + Sync;

/// Passphrases of key files. The user is asked for each once, however many machines need it.
#[derive(Clone)]
pub struct Passphrases {
    ask: Arc<Ask>,
    known: Arc<Mutex<BTreeMap<PathBuf, Secret>>>,
}

impl std::fmt::Debug for Passphrases {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Passphrases")
    }
}

impl Passphrases {
    /// Returns an empty store. `ask` shows a prompt and reads an answer without echo; it returns `None` without a terminal. It may block.
    pub fn new(ask: impl Fn(&str) -> Option<Secret> + Send + Sync + 'static) -> Self {
        Self {
            ask: Arc::new(ask),
            known: Arc::default(),
        }
    }

    /// Passes the remembered passphrase to `attempt`, and then those that the user types, until it returns a value. `None` when no passphrase is right
    /// or there is no terminal. Blocks while the user types.
    pub(crate) fn unlock<T>(&self, path: &Path, mut attempt: impl FnMut(&Secret) -> Option<T>) -> Option<T> {
        // The lock is held while the user types, because other connections need the same answer.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret) = known.get(path) {
            return attempt(secret);
        }
        for _ in 0..PASSPHRASE_TRIES {
            let secret = (self.ask)(&format!("passphrase of {}", path.display()))?;
            if let Some(result) = attempt(&secret) {
                known.insert(path.to_owned(), secret);
                return Some(result);
            }
        }
        None
    }
}
