//! Turns the variables of one host into its addresses and its login.
//!
//! Of several names for one setting the last in the list wins, as in Ansible: first `ansible.cfg` and the command line, then
//! variables. Settings of Ansible that the installer does not support are errors, so that it never logs in to another machine or as
//! another user than the inventory says.

use crate::config::HOST_KEYS;
use crate::faults::{Faults, Place};
use crate::groups::Vars;
use crate::ssh_args;
use crate::template::Scope;
use landfall_core::inventory::{Connect, Connection, Proxy, SshSettings, Unset};
use landfall_core::secret::Secret;
use landfall_core::spec::parse::expand_home;
use serde_json::Value;
use std::net::IpAddr;
use std::num::NonZeroU16;

/// Variables that change how Ansible logs in and that are not supported.
const REFUSED: [&[&str]; 5] = [
    &["ansible_private_key", "ansible_ssh_private_key"],
    &["ansible_private_key_passphrase", "ansible_ssh_private_key_passphrase"],
    &["ssh_connection.ssh_executable", "ansible_ssh_executable"],
    &["ansible_ssh_pkcs11_provider", "ansible_pkcs11_provider"],
    &["ansible_chroot_exe"],
];
/// Variables with arguments for the ssh program.
const SSH_ARGS: [&[&str]; 3] = [
    &["ssh_connection.ssh_args", "ANSIBLE_SSH_ARGS", "ansible_ssh_args"],
    &[
        "ssh_connection.ssh_common_args",
        "ANSIBLE_SSH_COMMON_ARGS",
        "ansible_ssh_common_args",
    ],
    &[
        "ssh_connection.ssh_extra_args",
        "ANSIBLE_SSH_EXTRA_ARGS",
        "ansible_ssh_extra_args",
    ],
];
/// Variables with a proxy command for paramiko, Ansible's other SSH client.
const PARAMIKO_PROXY: [&str; 3] = [
    "paramiko_connection.proxy_command",
    "ANSIBLE_PARAMIKO_PROXY_COMMAND",
    "ansible_paramiko_proxy_command",
];
/// Variables that give a node another name than the inventory's: those of kubespray, of kubeasz, and landfall's own. The last one that is set
/// wins.
pub const NODE_NAMES: [&str; 3] = ["kube_override_hostname", "k8s_nodename", "landfall_node_name"];

/// Reads typed values from variables, and reports wrong ones.
pub struct Reader<'a> {
    /// The variables of the host.
    pub vars: &'a Vars,
    /// Evaluates their values.
    pub scope: &'a Scope,
    /// Where problems go.
    pub faults: &'a mut Faults,
}

impl<'a> Reader<'a> {
    /// Returns the variable that wins among several names. A null counts as unset. An empty text wins, and then nothing is set.
    fn var(&mut self, names: &[&str]) -> Option<(Value, &'a Place)> {
        for var in names.iter().rev().filter_map(|name| self.vars.get(*name)) {
            match self.scope.value(&var.value) {
                Ok(Value::Null) => {}
                Ok(Value::String(text)) if text.is_empty() => return None,
                Ok(value) => return Some((value, &var.place)),
                Err(why) => {
                    self.faults.value(&var.place, why);
                    return None;
                }
            }
        }
        None
    }

    /// Returns a text, or a number that can only be meant as one.
    pub fn text(&mut self, names: &[&str]) -> Option<(String, &'a Place)> {
        let (value, place) = self.var(names)?;
        let kind = match value {
            Value::String(text) => return Some((text, place)),
            Value::Number(number) if !number.is_f64() => return Some((number.to_string(), place)),
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number with a fraction",
            Value::Array(_) => "a list",
            _ => "a mapping",
        };
        let why = format!("is {kind} but must be text: put it in quotes (in an INI inventory in two pairs: '\"…\"')");
        self.faults.value(place, why);
        None
    }

    fn parsed<T: std::str::FromStr>(&mut self, names: &[&str], wanted: &str) -> Option<T> {
        let (text, place) = self.text(names)?;
        let parsed = text.trim().parse().ok();
        if parsed.is_none() {
            self.faults.value(place, format!("{text:?} is no {wanted}"));
        }
        parsed
    }

    /// Reads a boolean, with all the words that Ansible accepts for one.
    fn flag(&mut self, names: &[&str]) -> Option<bool> {
        let (value, place) = self.var(names)?;
        let text = match &value {
            Value::String(text) => text.trim().to_ascii_lowercase(),
            other => other.to_string(),
        };
        match text.as_str() {
            "true" | "yes" | "on" | "y" | "t" | "1" => Some(true),
            "false" | "no" | "off" | "n" | "f" | "0" => Some(false),
            _ => {
                self.faults.value(place, "must be true or false");
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
        let connection = self.connection();
        for refused in REFUSED {
            if let Some((_, place)) = self.var(refused) {
                self.faults.value(place, "is not supported yet");
            }
        }
        let proxy = if connection == Connection::Local {
            None
        } else {
            self.proxy(local_user)
        };
        let (in_host, host) = self.host(name);
        let user = self.text(&[
            "defaults.remote_user",
            "ANSIBLE_REMOTE_USER",
            "--user",
            "ansible_user",
            "ansible_ssh_user",
        ]);
        let user = user.map(|(user, _)| user).or(in_host);
        let user_unset = user.is_none();
        let user = user.unwrap_or_else(|| local_user.to_owned());
        // The installer needs root on every node, so it uses sudo also when Ansible would leave that to the play.
        let said = self.flag(&["privilege_escalation.become", "ANSIBLE_BECOME", "ansible_become"]);
        let become_root = said.unwrap_or(user != "root");
        if become_root {
            self.privileges();
        }
        let port = [
            "defaults.remote_port",
            "ANSIBLE_REMOTE_PORT",
            "ansible_port",
            "ansible_ssh_port",
        ];
        let key = [
            "defaults.private_key_file",
            "ANSIBLE_PRIVATE_KEY_FILE",
            "--private-key",
            "ansible_private_key_file",
            "ansible_ssh_private_key_file",
        ];
        let port = self.parsed(&port, "port").map(NonZeroU16::get);
        let ssh = SshSettings {
            proxy,
            unset: Unset {
                user: user_unset,
                port: port.is_none(),
                become_root: said.is_none(),
            },
            ..SshSettings::default()
        };
        Connect {
            host,
            port: port.unwrap_or(22),
            private_key: self.text(&key).map(|(path, _)| expand_home(&path)),
            password: self.secret(&[
                "--ask-pass",
                "ansible_password",
                "ansible_ssh_pass",
                "ansible_ssh_password",
            ]),
            become_root,
            become_password: self.secret(&[
                "--ask-become-pass",
                "ansible_become_password",
                "ansible_become_pass",
                "ansible_sudo_pass",
            ]),
            connection,
            ssh,
            user,
        }
    }

    /// Returns the user before an `@` in the host, and the host. A user that is set by another variable wins, as in ssh.
    fn host(&mut self, name: &str) -> (Option<String>, String) {
        let host = self.text(&["ansible_host", "ansible_ssh_host"]);
        let host = host.map_or_else(|| name.to_owned(), |(host, _)| host);
        match host.rsplit_once('@') {
            Some((user, host)) if !user.is_empty() => (Some(user.to_owned()), host.to_owned()),
            _ => (None, host),
        }
    }

    /// Reads how commands get to the machine: over SSH, or not at all because it is this machine.
    fn connection(&mut self) -> Connection {
        const KNOWN: [&str; 6] = [
            "ssh",
            "smart",
            "paramiko",
            "paramiko_ssh",
            "ansible.builtin.ssh",
            "ansible.builtin.paramiko_ssh",
        ];
        const LOCAL: [&str; 2] = ["local", "ansible.builtin.local"];
        let Some((text, place)) = self.text(&["defaults.transport", "ANSIBLE_TRANSPORT", "ansible_connection"]) else {
            return Connection::Ssh;
        };
        if LOCAL.contains(&text.as_str()) {
            return Connection::Local;
        }
        if !KNOWN.contains(&text.as_str()) {
            let supported = [&KNOWN[..], &LOCAL[..]].concat().join(", ");
            let why = format_args!("{text:?} is not supported; supported: {supported}");
            self.faults.value(place, why);
        }
        Connection::Ssh
    }

    /// Refuses every become method other than sudo, and settings that would change sudo.
    fn privileges(&mut self) {
        let only = |reader: &mut Self, names: &[&str], known: &[&str]| {
            if let Some((text, place)) = reader.text(names)
                && !known.contains(&text.as_str())
            {
                let why = format!("{text:?} is not supported; supported: {}", known.join(", "));
                reader.faults.value(place, why);
            }
        };
        only(
            self,
            &[
                "privilege_escalation.become_method",
                "ANSIBLE_BECOME_METHOD",
                "ansible_become_method",
            ],
            &["sudo", "ansible.builtin.sudo"],
        );
        only(
            self,
            &[
                "privilege_escalation.become_user",
                "ANSIBLE_BECOME_USER",
                "ansible_become_user",
                "ansible_sudo_user",
            ],
            &["root"],
        );
        only(
            self,
            &[
                "privilege_escalation.become_exe",
                "ANSIBLE_BECOME_EXE",
                "ansible_become_exe",
                "ansible_sudo_exe",
            ],
            &["sudo", "/usr/bin/sudo"],
        );
        let flags = [
            "privilege_escalation.become_flags",
            "ANSIBLE_BECOME_FLAGS",
            "ansible_become_flags",
            "ansible_sudo_flags",
        ];
        if let Some((text, place)) = self.text(&flags)
            && !text.split_whitespace().all(|flag| ["-H", "-S", "-n"].contains(&flag))
        {
            self.faults
                .value(place, "flags of sudo other than -H, -S and -n are not supported");
        }
    }

    /// Returns the jump hosts or proxy command: the first one among the arguments of ssh, as on ssh's own command line.
    fn proxy(&mut self, local_user: &str) -> Option<Proxy> {
        let mut proxy = None;
        for names in SSH_ARGS {
            let Some((text, place)) = self.text(names) else {
                continue;
            };
            let lower = text.to_ascii_lowercase();
            if lower.contains("stricthostkeychecking=no") || lower.contains("stricthostkeychecking no") {
                let Place { file, at } = place;
                self.faults.notice(format_args!(
                    "{file}: {at}: StrictHostKeyChecking=no is not followed: {HOST_KEYS}"
                ));
            }
            match ssh_args::parse(&text, local_user) {
                Ok(found) => proxy = proxy.or(found),
                Err(faults) => faults.into_iter().for_each(|why| self.faults.value(place, why)),
            }
        }
        proxy.or_else(|| {
            self.text(&PARAMIKO_PROXY)
                .map(|(command, _)| ssh_args::command(&command, local_user))
        })
    }
}
