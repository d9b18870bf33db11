//! Arguments of the ssh program in `ansible_ssh_*_args` and `ssh_args`: jump hosts are used, options that only tune a connection are ignored,
//! all others are errors that name them. Values may hold a secret and are never shown.

use crate::shlex;
use landfall_core::inventory::{Connect, Proxy};
use landfall_core::spec::parse::expand_home;

/// Options of ssh that tune a connection or its host key check but do not change its destination. The installer has its own
/// rules for these: host keys are always checked.
const HARMLESS_OPTIONS: [&str; 32] = [
    "stricthostkeychecking",
    "userknownhostsfile",
    "globalknownhostsfile",
    "updatehostkeys",
    "loglevel",
    "controlmaster",
    "controlpersist",
    "controlpath",
    "connecttimeout",
    "connectionattempts",
    "serveraliveinterval",
    "serveralivecountmax",
    "tcpkeepalive",
    "compression",
    "preferredauthentications",
    "pubkeyauthentication",
    "passwordauthentication",
    "identitiesonly",
    "batchmode",
    "numberofpasswordprompts",
    "kbdinteractiveauthentication",
    "challengeresponseauthentication",
    "gssapiauthentication",
    "gssapidelegatecredentials",
    "forwardagent",
    "forwardx11",
    "addkeystoagent",
    "addressfamily",
    "ipqos",
    "checkhostip",
    "verifyhostkeydns",
    "requesttty",
];
/// Flags of ssh that have no argument and do not change the destination.
const HARMLESS_FLAGS: &str = "CqvT4Aax";

/// One argument of ssh, apart from flags without meaning here.
enum Argument {
    /// `-o NAME=VALUE`.
    Option(String, String),
    /// Another flag with its value.
    Flag(char, String),
    /// A word that is no flag.
    Word(String),
}

/// Splits arguments into flags with their values. Flags may stand in one word, `-CJ host`; a value may be in the same word or the next.
fn arguments(words: Vec<String>) -> Vec<Argument> {
    let mut found = vec![];
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some(flags) = word.strip_prefix('-').filter(|f| !f.is_empty()) else {
            found.push(Argument::Word(word));
            continue;
        };
        let other = flags.trim_start_matches(|c| HARMLESS_FLAGS.contains(c));
        let mut rest = other.chars();
        let Some(flag) = rest.next() else { continue };
        let value = rest.as_str();
        let takes_value = "oJWpliF".contains(flag);
        let value = if value.is_empty() && takes_value {
            words.next().unwrap_or_default()
        } else {
            value.to_owned()
        };
        if flag == 'o' {
            let value = value.trim_start();
            let (name, value) = value.split_once(['=', ' ']).unwrap_or((value, ""));
            found.push(Argument::Option(
                name.to_owned(),
                value.trim_start_matches(['=', ' ']).to_owned(),
            ));
        } else {
            found.push(Argument::Flag(flag, value));
        }
    }
    found
}

/// Returns the jump hosts or proxy command in arguments of ssh; the first one counts, as in ssh. `local_user` is the user of jump hosts without
/// one. The errors say which arguments are not supported.
pub fn parse(text: &str, local_user: &str) -> Result<Option<Proxy>, Vec<String>> {
    let words = shlex::split_all(text).map_err(|why| vec![why.to_string()])?;
    let (mut proxy, mut faults) = (None, vec![]);
    for argument in arguments(words) {
        let found = match argument {
            Argument::Flag('J', value) => jump(&value, local_user),
            Argument::Option(name, value) if name.eq_ignore_ascii_case("proxyjump") => jump(&value, local_user),
            Argument::Option(name, value) if name.eq_ignore_ascii_case("proxycommand") => {
                Ok(command(&value, local_user))
            }
            Argument::Option(name, _) if HARMLESS_OPTIONS.contains(&name.to_ascii_lowercase().as_str()) => continue,
            Argument::Option(name, _) => {
                let shown: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
                Err(format!("the ssh option {shown} is not supported yet"))
            }
            // What follows may be its value.
            Argument::Flag(flag, _) => return Err(vec![unsupported(flag.is_ascii_alphanumeric().then_some(flag))]),
            Argument::Word(_) => return Err(vec![unsupported(None)]),
        };
        match found {
            Ok(found) => proxy = proxy.or(Some(found)),
            Err(why) => faults.push(why),
        }
    }
    if faults.is_empty() { Ok(proxy) } else { Err(faults) }
}

fn unsupported(flag: Option<char>) -> String {
    let shown = flag.map(|flag| format!("-{flag}")).unwrap_or_default();
    format!("the argument {shown} of ssh is not supported; variables such as ansible_user are")
}

fn jump(value: &str, local_user: &str) -> Result<Proxy, String> {
    // The error of the core shows the value.
    Connect::parse_jump(value, local_user).map_err(|_| "the value of ProxyJump is not understood".to_owned())
}

/// Reads a proxy command. `ssh … -W %h:%p … [USER@]HOST` means a jump host, so landfall itself logs in to it and checks its host key. Other
/// commands are run.
pub fn command(value: &str, local_user: &str) -> Proxy {
    if value.trim().eq_ignore_ascii_case("none") {
        return Proxy::Direct;
    }
    as_jump(value, local_user).unwrap_or_else(|| Proxy::Command(value.to_owned()))
}

fn as_jump(value: &str, local_user: &str) -> Option<Proxy> {
    let words = shlex::split_all(value).ok()?;
    let (program, rest) = words.split_first()?;
    if !["ssh", "/usr/bin/ssh"].contains(&program.as_str()) {
        return None;
    }
    let (mut host, mut user, mut port, mut key, mut forwards) = (None, None, None, None, false);
    for argument in arguments(rest.to_vec()) {
        match argument {
            Argument::Flag('W', to) => forwards = to == "%h:%p" || to == "[%h]:%p",
            Argument::Flag('l', name) => user = Some(name),
            Argument::Flag('p', number) => port = Some(number.parse::<std::num::NonZeroU16>().ok()?.get()),
            Argument::Flag('i', file) => key = Some(expand_home(&file)),
            Argument::Option(name, _) if HARMLESS_OPTIONS.contains(&name.to_ascii_lowercase().as_str()) => {}
            Argument::Word(word) if host.is_none() && !word.contains('%') => host = Some(word),
            _ => return None,
        }
    }
    let Proxy::Jump(mut hops) = Connect::parse_jump(&host.filter(|_| forwards)?, local_user).ok()? else {
        return None;
    };
    let [hop] = hops.as_mut_slice() else { return None };
    if let Some(user) = user {
        (hop.user, hop.ssh.unset.user) = (user, false);
    }
    if let Some(port) = port {
        (hop.port, hop.ssh.unset.port) = (port, false);
    }
    hop.private_key = key;
    Some(Proxy::Jump(hops))
}
