//! The settings of ssh, `~/.ssh/config` and `/etc/ssh/ssh_config` (ssh_config(5)), as far as they concern the connection and the login.
//!
//! The first value counts, as in ssh; values of cluster.yaml or of an inventory come before all of them. Settings that would change the
//! connection and are not supported are reported. No command is run (`Match exec`).

pub(crate) mod apply;
mod line;

use crate::pattern;
use landfall_core::explain::{Code, Diagnosis};
use line::{Line, split};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How deep files may include each other (OpenSSH's READCONF_MAX_DEPTH).
const MAX_DEPTH: usize = 16;

/// Settings that may be ignored: they change neither the destination nor a check, or this crate has its own rule for them.
const HARMLESS: &[&str] = &[
    "addkeystoagent",
    "batchmode",
    "channeltimeout",
    "checkhostip",
    "clearallforwardings",
    "compression",
    "connectionattempts",
    "connecttimeout",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "dynamicforward",
    "enableescapecommandline",
    "enablesshkeysign",
    "escapechar",
    "exitonforwardfailure",
    "fingerprinthash",
    "forkafterauthentication",
    "forwardagent",
    "forwardx11",
    "forwardx11timeout",
    "forwardx11trusted",
    "gatewayports",
    "gssapiauthentication",
    "gssapidelegatecredentials",
    "hashknownhosts",
    "ignoreunknown",
    "ipqos",
    "kbdinteractiveauthentication",
    "challengeresponseauthentication",
    "localcommand",
    "localforward",
    "loglevel",
    "logverbose",
    "numberofpasswordprompts",
    "obscurekeystroketiming",
    "passwordauthentication",
    "permitlocalcommand",
    "permitremoteopen",
    "preferredauthentications",
    "proxyusefdpass",
    "pubkeyauthentication",
    "rekeylimit",
    "remoteforward",
    "requesttty",
    "requiredrsasize",
    "sendenv",
    "serveralivecountmax",
    "serveraliveinterval",
    "sessiontype",
    "setenv",
    "stdinnull",
    "streamlocalbindmask",
    "streamlocalbindunlink",
    "syslogfacility",
    "tcpkeepalive",
    "tunnel",
    "tunneldevice",
    "updatehostkeys",
    "usekeychain",
    "versionaddendum",
    "visualhostkey",
    "xauthlocation",
];

/// The settings of all files, in their order.
#[derive(Debug, Clone, Default)]
pub struct SshConfig {
    lines: Vec<Line>,
}

/// The settings for one machine, as written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Values {
    host_name: Option<String>,
    port: Option<String>,
    user: Option<String>,
    identity_files: Vec<String>,
    certificate_files: Vec<String>,
    identities_only: Option<bool>,
    proxy_jump: Option<String>,
    proxy_command: Option<String>,
    known_hosts: Option<Vec<String>>,
    global_known_hosts: Option<Vec<String>>,
    strict: Option<String>,
    /// Settings that apply to the machine and are not supported.
    ignored: BTreeSet<String>,
}

/// The login that the settings are read for.
struct Target<'a> {
    /// The name that was given.
    host: &'a str,
    /// The user that was given, or would log in.
    user: &'a str,
    /// Whether a setting may name another user.
    user_unset: bool,
    local_user: &'a str,
}

impl SshConfig {
    /// Reads files, with the directory where relative includes are looked for; absent ones are passed over unless `required`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(files: &[(PathBuf, PathBuf)], required: bool) -> Result<Self, Diagnosis> {
        let mut config = Self::default();
        for (file, directory) in files {
            match std::fs::read_to_string(file) {
                Ok(text) => {
                    // What a file begins with holds for all machines, whatever the file before ended with.
                    config.lines.push(Line::Host(vec!["*".to_owned()]));
                    line::parse(&text, directory, 0, &mut config.lines);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {}
                Err(error) => {
                    let what = format!("the settings of ssh in {} cannot be read", file.display());
                    return Err(Diagnosis::new(Code::FileUnreadable, what).because(&error));
                }
            }
        }
        Ok(config)
    }

    fn values(&self, target: &Target<'_>) -> Values {
        let mut values = Values::default();
        // Whether the innermost block holds, and those around the files that it includes.
        let (mut active, mut around) = (true, Vec::new());
        for line in &self.lines {
            match line {
                Line::Host(patterns) => {
                    active = within(&around) && pattern::any(patterns.iter().map(String::as_str), target.host)
                }
                Line::Match(words) => active = within(&around) && matches(words, target, &mut values),
                Line::IncludeBegins => around.push(active),
                Line::IncludeEnds => active = around.pop().unwrap_or(true),
                Line::Setting(keyword, value) if active => take(&mut values, keyword, value),
                Line::Setting(..) => {}
            }
        }
        values
    }
}

fn within(around: &[bool]) -> bool {
    around.iter().all(|active| *active)
}

/// Judges the criteria of `Match`. One that is not known, or would run a command, holds nowhere and is named.
fn matches(words: &[String], target: &Target<'_>, values: &mut Values) -> bool {
    let mut words = words.iter().map(String::as_str);
    let mut holds = true;
    while let Some(word) = words.next() {
        let (negated, criterion) = word.strip_prefix('!').map_or((false, word), |rest| (true, rest));
        let lower = criterion.to_ascii_lowercase();
        let result = match lower.as_str() {
            "all" => true,
            "host" | "originalhost" | "user" | "localuser" => {
                let list = words.next().unwrap_or_default();
                let expanded = values.host_name.as_ref().map(|name| name.replace("%h", target.host));
                let host = expanded.as_deref().unwrap_or(target.host);
                let user = values
                    .user
                    .as_deref()
                    .filter(|_| target.user_unset)
                    .unwrap_or(target.user);
                let text = match lower.as_str() {
                    "host" => host,
                    "originalhost" => target.host,
                    "user" => user,
                    _ => target.local_user,
                };
                pattern::any(list.split(','), text)
            }
            // exec would run a command, final and canonical are for a second reading of the files.
            _ => {
                values.ignored.insert(format!("Match {lower}"));
                return false;
            }
        };
        holds &= result != negated;
    }
    holds
}

fn take(values: &mut Values, keyword: &str, value: &str) {
    let words = split(value);
    let first = || words.first().cloned().unwrap_or_default();
    let yes = |text: &str| ["yes", "true"].contains(&text.to_ascii_lowercase().as_str());
    let once = |slot: &mut Option<String>, text: String| {
        slot.get_or_insert(text);
    };
    let add = |list: &mut Vec<String>, text: String| {
        if !list.contains(&text) && !text.eq_ignore_ascii_case("none") {
            list.push(text);
        }
    };
    match keyword {
        "hostname" => once(&mut values.host_name, first()),
        "port" => once(&mut values.port, first()),
        "user" => once(&mut values.user, first()),
        "identityfile" => add(&mut values.identity_files, first()),
        "certificatefile" => add(&mut values.certificate_files, first()),
        "identitiesonly" => {
            values.identities_only.get_or_insert(yes(&first()));
        }
        // Of the two the first counts; after `ProxyJump none` a command is still taken (ssh 9.2, `ssh -G`).
        "proxyjump" if values.proxy_command.is_none() => once(&mut values.proxy_jump, first()),
        "proxycommand"
            if values
                .proxy_jump
                .as_ref()
                .is_none_or(|jump| jump.eq_ignore_ascii_case("none")) =>
        {
            once(&mut values.proxy_command, value.to_owned());
        }
        "proxyjump" | "proxycommand" => {}
        "userknownhostsfile" => {
            values.known_hosts.get_or_insert(words);
        }
        "globalknownhostsfile" => {
            values.global_known_hosts.get_or_insert(words);
        }
        "stricthostkeychecking" => once(&mut values.strict, first().to_ascii_lowercase()),
        _ if HARMLESS.contains(&keyword) || keyword.starts_with("gssapi") => {}
        _ => {
            values.ignored.insert(keyword.to_owned());
        }
    }
}

/// Resolves a name of `Include` to files: `~`, relative to `directory`, with `*` and `?` in its last part.
fn included(name: &str, directory: &Path) -> Vec<PathBuf> {
    let path = landfall_core::spec::parse::expand_home(name);
    let path = if path.is_absolute() { path } else { directory.join(path) };
    let (Some(parent), Some(last)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return vec![];
    };
    if !last.contains(['*', '?']) {
        return vec![path];
    }
    let Ok(entries) = std::fs::read_dir(parent) else {
        return vec![];
    };
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort();
    let hidden = |name: &String| name.starts_with('.') && !last.starts_with('.');
    let found = names
        .into_iter()
        .filter(|name| !hidden(name) && pattern::glob(last.as_bytes(), name.as_bytes()));
    found.map(|name| parent.join(name)).collect()
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
