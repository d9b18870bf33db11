//! The variables of one host to its addresses and its login.
//!
//! Of several names for one thing the last in the list wins, as with Ansible. What Ansible would do and the installer
//! cannot is refused, so that nobody logs in elsewhere or as another than the inventory says.

use crate::faults::{Faults, Place};
use crate::groups::{Var, Vars};
use crate::yaml::{UNSAFE, VAULT};
use landfall_core::inventory::Connect;
use landfall_core::secret::Secret;
use landfall_core::spec::parse::expand_home;
use serde_json::Value;
use std::net::IpAddr;
use std::num::NonZeroU16;

/// Variables that change how Ansible logs in, in ways that are not taken over.
const REFUSED: [&str; 5] = [
    "ansible_private_key",
    "ansible_ssh_private_key",
    "ansible_private_key_passphrase",
    "ansible_ssh_private_key_passphrase",
    "ansible_become_exe",
];
/// Variables with arguments for the ssh program.
const SSH_ARGS: [&str; 3] = ["ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"];
/// Options of ssh that tune a connection or its host key check but do not lead it elsewhere. The installer has its own
/// rules for these: host keys are always checked.
const HARMLESS_OPTIONS: [&str; 11] = [
    "stricthostkeychecking",
    "userknownhostsfile",
    "globalknownhostsfile",
    "loglevel",
    "controlmaster",
    "controlpersist",
    "controlpath",
    "connecttimeout",
    "serveraliveinterval",
    "serveralivecountmax",
    "compression",
];
/// Why a value is refused that only Ansible can make out.
const ENCRYPTED: &str = "is encrypted by ansible-vault, which cannot be read yet; give the value in plain text";
const EXPRESSION: &str = "holds a Jinja expression, which is not evaluated yet; give the value itself";

/// Takes typed values out of variables, and reports wrong ones.
pub struct Reader<'a> {
    /// The variables of the host.
    pub vars: &'a Vars,
    /// Where problems go.
    pub faults: &'a mut Faults,
}

/// Says why only Ansible could make out a value; looks into lists and mappings.
pub fn opaque(value: &Value) -> Option<&'static str> {
    match value {
        Value::Object(map) if map.contains_key(VAULT) => Some(ENCRYPTED),
        Value::Object(map) if map.contains_key(UNSAFE) => None,
        Value::Object(map) => map.values().find_map(opaque),
        Value::Array(items) => items.iter().find_map(opaque),
        Value::String(text) => ["{{", "{%", "{#"]
            .iter()
            .any(|m| text.contains(m))
            .then_some(EXPRESSION),
        _ => None,
    }
}

impl<'a> Reader<'a> {
    /// Returns the variable that wins among several names; null is as good as unset.
    fn var(&mut self, names: &[&str]) -> Option<&'a Var> {
        let set = names.iter().rev().filter_map(|name| self.vars.get(*name));
        let var = set.into_iter().find(|var| !var.value.is_null())?;
        if let Some(why) = opaque(&var.value) {
            self.faults.value(&var.place, why);
            return None;
        }
        Some(var)
    }

    fn text(&mut self, names: &[&str]) -> Option<(String, &'a Place)> {
        let var = self.var(names)?;
        let text = match &var.value {
            Value::String(text) => text.clone(),
            Value::Number(number) if !number.is_f64() => number.to_string(),
            Value::Object(map) if map.get(UNSAFE).is_some_and(Value::is_string) => {
                map.get(UNSAFE).and_then(Value::as_str).unwrap_or_default().to_owned()
            }
            other => {
                let kind = match other {
                    Value::Bool(_) => "true or false",
                    Value::Number(_) => "a number with a fraction",
                    Value::Array(_) => "a list",
                    _ => "a mapping",
                };
                let why =
                    format!("is {kind} but must be text: put it in quotes (in an INI inventory in two pairs: '\"…\"')");
                self.faults.value(&var.place, why);
                return None;
            }
        };
        Some((text, &var.place))
    }

    fn parsed<T: std::str::FromStr>(&mut self, names: &[&str], wanted: &str) -> Option<T> {
        let (text, place) = self.text(names)?;
        let parsed = text.trim().parse().ok();
        if parsed.is_none() {
            self.faults.value(place, format!("{text:?} is no {wanted}"));
        }
        parsed
    }

    /// Reads a truth value, with all the words that Ansible takes for one.
    fn flag(&mut self, names: &[&str]) -> Option<bool> {
        let var = self.var(names)?;
        let text = match &var.value {
            Value::String(text) => text.trim().to_ascii_lowercase(),
            other => other.to_string(),
        };
        match text.as_str() {
            "true" | "yes" | "on" | "y" | "t" | "1" => Some(true),
            "false" | "no" | "off" | "n" | "f" | "0" => Some(false),
            _ => {
                self.faults.value(&var.place, "must be true or false");
                None
            }
        }
    }

    fn secret(&mut self, names: &[&str]) -> Option<Secret> {
        self.text(names).map(|(text, _)| Secret::new(text))
    }

    /// Returns an address of the node.
    pub fn address(&mut self, name: &str) -> Option<IpAddr> {
        self.parsed(&[name], "IP address")
    }

    /// Returns how to log in to the host `name`.
    pub fn connect(&mut self, name: &str, local_user: &str) -> Connect {
        self.only(
            "ansible_connection",
            &["ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh"],
        );
        for refused in REFUSED {
            if let Some(var) = self.var(&[refused]) {
                self.faults.value(&var.place, "is not supported yet");
            }
        }
        for args in SSH_ARGS {
            self.ssh_args(args);
        }
        let user = self.text(&["ansible_user", "ansible_ssh_user"]);
        let user = user.map_or_else(|| local_user.to_owned(), |(user, _)| user);
        // The installer needs root on every node: it asks for it where Ansible would leave that to the play.
        let become_root = self.flag(&["ansible_become"]).unwrap_or(user != "root");
        if become_root {
            self.only("ansible_become_method", &["sudo", "ansible.builtin.sudo"]);
            self.only("ansible_become_user", &["root"]);
            self.become_flags();
        }
        Connect {
            host: self
                .text(&["ansible_host", "ansible_ssh_host"])
                .map_or_else(|| name.to_owned(), |(h, _)| h),
            port: self
                .parsed(&["ansible_port", "ansible_ssh_port"], "port")
                .map_or(22, NonZeroU16::get),
            private_key: self
                .text(&["ansible_private_key_file", "ansible_ssh_private_key_file"])
                .map(|(path, _)| expand_home(&path)),
            password: self.secret(&["ansible_password", "ansible_ssh_pass", "ansible_ssh_password"]),
            become_root,
            become_password: self.secret(&["ansible_become_password", "ansible_become_pass", "ansible_sudo_pass"]),
            user,
        }
    }

    /// Refuses every value of a variable but the known ones.
    fn only(&mut self, name: &str, known: &[&str]) {
        if let Some((text, place)) = self.text(&[name])
            && !known.contains(&text.as_str())
        {
            let why = format!("{text:?} is not supported; supported: {}", known.join(", "));
            self.faults.value(place, why);
        }
    }

    fn become_flags(&mut self) {
        if let Some((text, place)) = self.text(&["ansible_become_flags"])
            && !text.split_whitespace().all(|flag| ["-H", "-S", "-n"].contains(&flag))
        {
            self.faults
                .value(place, "flags of sudo other than -H, -S and -n are not supported");
        }
    }

    /// Refuses arguments of ssh that could change where or how a login goes. Their values may hold a secret.
    fn ssh_args(&mut self, name: &str) {
        let Some((text, place)) = self.text(&[name]) else {
            return;
        };
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            let option = match word.strip_prefix("-o") {
                Some("") => words.next().unwrap_or_default(),
                Some(option) => option,
                None if ["-C", "-q", "-v", "-4"].contains(&word) => continue,
                None => {
                    return self
                        .faults
                        .value(place, "arguments of ssh other than -o options are not supported yet");
                }
            };
            let option = option.trim_matches(['"', '\'']).split('=').next().unwrap_or_default();
            if !HARMLESS_OPTIONS.contains(&option.to_ascii_lowercase().as_str()) {
                let shown: String = option.chars().take_while(char::is_ascii_alphanumeric).collect();
                self.faults
                    .value(place, format!("the ssh option {shown} is not supported yet"));
            }
        }
    }
}
