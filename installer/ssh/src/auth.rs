//! Login: keys of the agent and of files, the password, keyboard-interactive, in the order in which the server asks for them.

use crate::identity::{self, Identity, KeyFile, OF_TOKEN};
use crate::key;
use crate::options::{Passphrases, SshOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Connect;
use landfall_core::secret::Secret;
use ssh2::{Agent, ErrorCode, KeyboardInteractivePrompt, Prompt, Session};
use std::collections::VecDeque;

/// At most so many keys are tried: sshd ends the connection after `MaxAuthTries`, 6 by default, and one try is left for the password.
const MAX_KEYS: usize = 5;
/// libssh2's code for a signed request that was not the end: the signature could not be made, or the server wants more or refuses.
const UNVERIFIED: ErrorCode = ErrorCode::Session(-19);
/// libssh2's message for a signature that it could not make; the server had accepted the public key before.
const NOT_SIGNED: &str = "Callback returned error";

/// Result of one attempt to log in.
enum Attempt {
    /// Logged in.
    LoggedIn,
    /// The server has accepted it and wants more, or has refused it: only its list of methods tells.
    Undecided,
    /// The server has refused it.
    Refused,
}

struct Login<'a> {
    session: &'a Session,
    connect: &'a Connect,
    passphrases: Option<&'a Passphrases>,
    identities: VecDeque<Identity>,
    agent: Option<Agent>,
    keys: usize,
    used: Vec<&'static str>,
    tried: Vec<String>,
}

/// Logs in. The error lists the methods that were tried. Blocks for the session's time-out for each of them, and while the user types.
pub fn log_in(session: &Session, connect: &Connect, options: &SshOptions) -> Result<(), Diagnosis> {
    let mut agent = options.agent_socket.as_ref().and_then(|socket| {
        let mut agent = session.agent().ok()?;
        agent.set_identity_path(socket).ok()?;
        Some(agent)
    });
    let (identities, faults) = identity::choose(connect, &options.default_keys, agent.as_mut());
    let mut login = Login {
        session,
        connect,
        passphrases: options.passphrases.as_ref(),
        identities: identities.into(),
        agent,
        keys: 0,
        used: vec![],
        tried: faults,
    };
    let mut offered = login.methods();
    let mut steps: Vec<String> = vec![offered.clone()];
    loop {
        if session.authenticated() {
            return Ok(());
        }
        match login.step(&offered) {
            Attempt::LoggedIn => return Ok(()),
            Attempt::Refused => return Err(login.refused(&steps)),
            Attempt::Undecided => {
                let now = login.methods();
                if !session.authenticated() && now != offered {
                    login
                        .tried
                        .push(format!("the server accepted this and then wanted: {now}"));
                    // A server may accept one method as a part of the login and ask for the password again by another.
                    steps.push(now.clone());
                }
                offered = now;
            }
        }
    }
}

impl Login<'_> {
    /// Returns the methods that can continue the login. A server that needs none accepts the login with this request.
    fn methods(&self) -> String {
        self.session
            .auth_methods(&self.connect.user)
            .map(str::to_owned)
            .unwrap_or_default()
    }

    /// Tries the remaining keys and methods in turn, until the server may have accepted one.
    fn step(&mut self, offered: &str) -> Attempt {
        let offers = |method: &str| offered.split(',').any(|m| m == method);
        while offers("publickey") && self.keys < MAX_KEYS {
            let Some(identity) = self.identities.pop_front() else {
                break;
            };
            self.keys += 1;
            match self.try_key(&identity) {
                Attempt::Refused => {}
                step => return step,
            }
        }
        for method in ["password", "keyboard-interactive"] {
            if offers(method) && !self.used.contains(&method) && self.connect.password.is_some() {
                self.used.push(method);
                return self.try_password(method);
            }
        }
        Attempt::Refused
    }

    fn try_key(&mut self, identity: &Identity) -> Attempt {
        let name = identity.name();
        let result = match identity {
            Identity::Agent(key) => match &self.agent {
                Some(agent) => agent.userauth(&self.connect.user, key),
                None => return Attempt::Refused,
            },
            Identity::File(file) => self.try_file(file, None),
        };
        let encrypted = matches!(identity, Identity::File(file) if file.encrypted);
        match result {
            Err(error) if encrypted && (error.message() == NOT_SIGNED || error.code() != ErrorCode::Session(-18)) => {
                let Identity::File(file) = identity else {
                    return Attempt::Refused;
                };
                self.unlock(file, &name)
            }
            result => self.judge(&name, result),
        }
    }

    fn try_file(&self, file: &KeyFile, passphrase: Option<&Secret>) -> Result<(), ssh2::Error> {
        let public = file
            .public
            .as_deref()
            .and_then(|p| Some(format!("{} {}", key::key_type(p)?, STANDARD.encode(p))));
        let passphrase = passphrase.map(|p| String::from_utf8_lossy(p.expose()).into_owned());
        self.session.userauth_pubkey_memory(
            &self.connect.user,
            public.as_deref(),
            &file.private,
            passphrase.as_deref(),
        )
    }

    /// Signs with a key that the server accepts and whose file has a passphrase.
    fn unlock(&mut self, file: &KeyFile, name: &str) -> Attempt {
        let result = self.passphrases.and_then(|passphrases| {
            passphrases.unlock(&file.path, |secret| match self.try_file(file, Some(secret)) {
                Err(error) if error.message() == NOT_SIGNED || file.public.is_none() => None,
                result => Some(result),
            })
        });
        if let Some(result) = result {
            return self.judge(name, result);
        }
        self.tried.push(format!(
            "{name}: it has a passphrase, and none that opens it was given (ssh-add it, or run landfall on a terminal)"
        ));
        Attempt::Refused
    }

    fn judge(&mut self, name: &str, result: Result<(), ssh2::Error>) -> Attempt {
        match result {
            Ok(()) if self.session.authenticated() => Attempt::LoggedIn,
            Ok(()) => Attempt::Undecided,
            Err(error) => {
                self.tried.push(format!("{name}: {}", error.message()));
                if error.code() == UNVERIFIED && error.message() != NOT_SIGNED {
                    Attempt::Undecided
                } else {
                    Attempt::Refused
                }
            }
        }
    }

    fn try_password(&mut self, method: &'static str) -> Attempt {
        let Some(password) = &self.connect.password else {
            return Attempt::Refused;
        };
        let text = String::from_utf8_lossy(password.expose()).into_owned();
        let user = &self.connect.user;
        let result = if method == "password" {
            self.session.userauth_password(user, &text)
        } else {
            self.session.userauth_keyboard_interactive(user, &mut Answers(text))
        };
        match self.judge(method, result) {
            Attempt::LoggedIn => Attempt::LoggedIn,
            // Only the server knows whether the password completed a part of the login.
            _ => Attempt::Undecided,
        }
    }

    fn refused(&self, steps: &[String]) -> Diagnosis {
        let connect = self.connect;
        let offered = steps.last().map_or("", String::as_str);
        let mut diagnosis = Diagnosis::new(
            Code::LoginRefused,
            format!("the login of {} on {} was refused", connect.user, connect.host),
        )
        .saw(format!(
            "the server offers: {}",
            if offered.is_empty() { "nothing more" } else { offered }
        ));
        for attempt in &self.tried {
            diagnosis = diagnosis.saw(attempt);
        }
        if !self.identities.is_empty() {
            diagnosis = diagnosis
                .saw(format!(
                    "{} more keys were not tried: servers end a login after a few (MaxAuthTries)",
                    self.identities.len()
                ))
                .next("name the right key: privateKey: ~/.ssh/NAME (NAME.pub where an agent holds it)");
        }
        if self.tried.iter().any(|attempt| attempt.ends_with(OF_TOKEN)) {
            diagnosis = diagnosis
                .next("`connection: openssh` logs in by your own ssh, which can use the token; only cluster.yaml has it (`landfall inventory` writes one)");
        }
        let wants_password = offered.contains("password") || offered.contains("keyboard-interactive");
        if wants_password && connect.password.is_none() {
            diagnosis = diagnosis
                .next("the server takes a password, and none was given: passwordFile in cluster.yaml, or --ask-pass");
        }
        diagnosis.next(format!(
            "try it by hand: ssh -p {} {}@{}",
            connect.port, connect.user, connect.host
        ))
    }
}

/// Answers every prompt without echo with the password; PAM asks for it in this way.
struct Answers(String);

impl KeyboardInteractivePrompt for Answers {
    fn prompt<'a>(&mut self, _user: &str, _instructions: &str, prompts: &[Prompt<'a>]) -> Vec<String> {
        let answer = |p: &Prompt<'a>| if p.echo { String::new() } else { self.0.clone() };
        prompts.iter().map(answer).collect()
    }
}
