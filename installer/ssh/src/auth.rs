//! Logging in: the named key, the agent's keys, the default keys, then the password. sshd allows six tries by default.

use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Connect;
use landfall_core::secret::Secret;
use ssh2::{KeyboardInteractivePrompt, Prompt, Session};
use std::path::{Path, PathBuf};

/// sshd ends the connection after `MaxAuthTries`, 6 by default; one is left for the password.
const MAX_KEYS: usize = 5;

/// Logs in, or says which ways were tried.
pub fn log_in(
    session: &Session,
    connect: &Connect,
    default_keys: &[PathBuf],
    use_agent: bool,
) -> Result<(), Diagnosis> {
    let mut tried: Vec<String> = Vec::new();
    // A server that lets the user in at once answers this question with success.
    let offered = session
        .auth_methods(&connect.user)
        .map(str::to_owned)
        .unwrap_or_default();
    if session.authenticated() {
        return Ok(());
    }
    let mut keys = 0;
    let named = connect.private_key.as_slice().iter();
    if named
        .clone()
        .any(|key| try_key(session, connect, key, &mut tried, &mut keys))
    {
        return Ok(());
    }
    if connect.private_key.is_none() {
        if use_agent && try_agent(session, connect, &mut tried, &mut keys) {
            return Ok(());
        }
        if default_keys
            .iter()
            .filter(|k| k.exists())
            .any(|key| try_key(session, connect, key, &mut tried, &mut keys))
        {
            return Ok(());
        }
    }
    if let Some(password) = &connect.password
        && try_password(session, connect, password, &offered, &mut tried)
    {
        return Ok(());
    }
    let mut diagnosis =
        Diagnosis::new(Code::LoginRefused, format!("the login of {} was refused", connect.user)).saw(format!(
            "the server offers: {}",
            if offered.is_empty() { "nothing" } else { &offered }
        ));
    for attempt in tried {
        diagnosis = diagnosis.saw(attempt);
    }
    Err(diagnosis.next(format!(
        "try it by hand: ssh -p {} {}@{}",
        connect.port, connect.user, connect.host
    )))
}

fn try_key(session: &Session, connect: &Connect, key: &Path, tried: &mut Vec<String>, count: &mut usize) -> bool {
    if *count >= MAX_KEYS {
        return false;
    }
    *count += 1;
    match session.userauth_pubkey_file(&connect.user, None, key, None) {
        Ok(()) => session.authenticated(),
        Err(error) => {
            let hint = if is_encrypted(key) {
                " (the key has a passphrase: add it to an SSH agent)"
            } else {
                ""
            };
            tried.push(format!("key {}: {}{hint}", key.display(), error.message()));
            false
        }
    }
}

fn is_encrypted(key: &Path) -> bool {
    // Old PEM keys say so in a header; new ones name a cipher in the first bytes, where plain ones have "none" (base64 "bm9uZQ").
    std::fs::read_to_string(key).is_ok_and(|text| {
        text.contains("ENCRYPTED") || (text.contains("OPENSSH PRIVATE KEY") && !text.contains("bm9uZQ"))
    })
}

fn try_agent(session: &Session, connect: &Connect, tried: &mut Vec<String>, count: &mut usize) -> bool {
    let Ok(mut agent) = session.agent() else { return false };
    if agent.connect().and_then(|()| agent.list_identities()).is_err() {
        return false;
    }
    for identity in agent.identities().unwrap_or_default() {
        if *count >= MAX_KEYS {
            break;
        }
        *count += 1;
        match agent.userauth(&connect.user, &identity) {
            Ok(()) => return session.authenticated(),
            Err(error) => tried.push(format!("agent key {}: {}", identity.comment(), error.message())),
        }
    }
    false
}

fn try_password(
    session: &Session,
    connect: &Connect,
    password: &Secret,
    offered: &str,
    tried: &mut Vec<String>,
) -> bool {
    let text = String::from_utf8_lossy(password.expose()).into_owned();
    if offered.contains("password") {
        match session.userauth_password(&connect.user, &text) {
            Ok(()) => return session.authenticated(),
            Err(error) => tried.push(format!("password: {}", error.message())),
        }
    }
    if offered.contains("keyboard-interactive") {
        match session.userauth_keyboard_interactive(&connect.user, &mut Answers(text)) {
            Ok(()) => return session.authenticated(),
            Err(error) => tried.push(format!("keyboard-interactive: {}", error.message())),
        }
    }
    false
}

/// Answers every hidden question with the password, as PAM asks it.
struct Answers(String);

impl KeyboardInteractivePrompt for Answers {
    fn prompt<'a>(&mut self, _user: &str, _instructions: &str, prompts: &[Prompt<'a>]) -> Vec<String> {
        prompts
            .iter()
            .map(|p| if p.echo { String::new() } else { self.0.clone() })
            .collect()
    }
}
