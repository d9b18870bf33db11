//! The machines and how to connect to them. `cluster.yaml` or an Ansible inventory fills it.

use crate::name::NodeName;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// What a machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the API server and an etcd member.
    ControlPlane,
    /// Runs workloads only.
    Worker,
    /// Is no member of the cluster; verify probes from here.
    Outside,
}

/// Every machine, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// The machines.
    pub nodes: Vec<Node>,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Inventory name, which becomes the Kubernetes Node name.
    pub name: NodeName,
    /// What it is for.
    pub role: Role,
    /// Whether workloads may run on a control plane (it is in both groups, or there are no workers).
    pub schedulable: bool,
    /// Address that the node binds to, from `ip`; else found by the route to its peers.
    pub ip: Option<IpAddr>,
    /// Address that peers use, from `access_ip`; else `ip`.
    pub access_ip: Option<IpAddr>,
    /// How to log in.
    pub connect: Connect,
}

/// How to log in to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Host name or address to connect to.
    pub host: String,
    /// SSH port.
    pub port: u16,
    /// Login user.
    pub user: String,
    /// Private key file, `~` already expanded.
    pub private_key: Option<PathBuf>,
    /// Login password.
    pub password: Option<Secret>,
    /// Whether root is reached through sudo.
    pub become_root: bool,
    /// Password for sudo.
    pub become_password: Option<Secret>,
    /// What starts commands there.
    pub connection: Connection,
    /// Jump hosts or a proxy command, and the settings of `ssh_config`.
    pub ssh: SshSettings,
}

/// What starts commands on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connection {
    /// landfall's own SSH client.
    #[default]
    Ssh,
    /// The user's own program `ssh`, with its settings, keys and prompts.
    Openssh,
    /// No client: it is the machine on which landfall runs.
    Local,
}

impl Connection {
    /// Its name in cluster.yaml.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Openssh => "openssh",
            Self::Local => "local",
        }
    }
}

/// How a connection is made beyond address and login. The fields are named as in ssh_config(5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SshSettings {
    /// How the connection is made; `None` when neither cluster.yaml nor the inventory says it.
    pub proxy: Option<Proxy>,
    /// More key files, for a machine whose key is not named otherwise.
    pub identity_files: Vec<PathBuf>,
    /// Whether an agent's keys count only when a file names them.
    pub identities_only: bool,
    /// Certificates of the user's keys.
    pub certificate_files: Vec<PathBuf>,
    /// The user's files of known host keys (UserKnownHostsFile), which may be none; `None`: the usual ones.
    pub known_hosts: Option<Vec<PathBuf>>,
    /// The machine's files of known host keys (GlobalKnownHostsFile), which may be none; `None`: the usual ones.
    pub global_known_hosts: Option<Vec<PathBuf>>,
    /// Whether a new host's key is accepted and stored.
    pub accept_new: bool,
    /// What cluster.yaml or the inventory left to a default, so that `ssh_config` decides.
    pub unset: Unset,
}

/// How the connection to a machine is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// A TCP connection from here, whatever `ssh_config` says.
    Direct,
    /// Through these machines, one after the other; each is logged in to from the one before.
    Jump(Vec<Connect>),
    /// A command whose standard input and output lead to the machine; `%h`, `%p` and `%r` stand for host, port and user.
    Command(String),
}

/// Fields whose values are defaults, which `ssh_config` may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unset {
    /// The login user.
    pub user: bool,
    /// The port.
    pub port: bool,
    /// Whether root is reached through sudo, which follows from the user.
    pub become_root: bool,
}

impl Connect {
    /// Reads jump hosts as ssh's `-J` and ProxyJump have them: `[USER@]HOST[:PORT]` or `ssh://…`, separated by commas; `none`: no proxy.
    /// Users are `default_user` where none is named. The error says what is wrong.
    pub fn parse_jump(text: &str, default_user: &str) -> Result<Proxy, String> {
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(Proxy::Direct);
        }
        let hop = |part: &str| Self::parse_hop(part.trim(), default_user);
        text.split(',').map(hop).collect::<Result<_, _>>().map(Proxy::Jump)
    }

    fn parse_hop(text: &str, default_user: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no jump host such as admin@203.0.113.9:22");
        let rest = text
            .strip_prefix("ssh://")
            .map_or(text, |uri| uri.trim_end_matches('/'));
        let (user, place) = rest
            .rsplit_once('@')
            .map_or((None, rest), |(user, place)| (Some(user), place));
        let (host, port) = match place.strip_prefix('[').and_then(|p| p.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            // More than one colon: an IPv6 address without port.
            None if place.matches(':').count() == 1 => {
                place.split_once(':').map_or((place, None), |(h, p)| (h, Some(p)))
            }
            None => (place, None),
        };
        let number = port
            .map(|port| port.parse::<std::num::NonZeroU16>().map_err(|_| wrong()))
            .transpose()?;
        let bad = |part: &str| {
            part.is_empty() || part.starts_with('-') || part.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        if bad(host) || user.is_some_and(bad) {
            return Err(wrong());
        }
        Ok(Self::hop(
            host,
            number.map(std::num::NonZeroU16::get),
            user,
            default_user,
        ))
    }

    /// Writes jump hosts as [`Connect::parse_jump`] reads them; `None` for other ways.
    pub fn render_jump(&self) -> Option<String> {
        let hop = |hop: &Self| {
            let host = if hop.host.contains(':') {
                format!("[{}]", hop.host)
            } else {
                hop.host.clone()
            };
            format!("{}@{host}:{}", hop.user, hop.port)
        };
        match self.ssh.proxy.as_ref()? {
            Proxy::Jump(hops) => Some(hops.iter().map(hop).collect::<Vec<_>>().join(",")),
            Proxy::Direct => Some("none".to_owned()),
            Proxy::Command(_) => None,
        }
    }

    /// Removes the user's files of known host keys that `ssh_config` names, here and for jump hosts, so that those of the options count.
    pub fn forget_known_hosts(&mut self) {
        self.ssh.known_hosts = None;
        if let Some(Proxy::Jump(hops)) = &mut self.ssh.proxy {
            hops.iter_mut().for_each(Self::forget_known_hosts);
        }
    }

    /// Returns a jump host. `ssh_config` may give the values that are `None`.
    pub fn hop(host: &str, port: Option<u16>, user: Option<&str>, default_user: &str) -> Self {
        Self {
            host: host.to_owned(),
            port: port.unwrap_or(22),
            user: user.unwrap_or(default_user).to_owned(),
            private_key: None,
            password: None,
            become_root: false,
            become_password: None,
            connection: Connection::Ssh,
            ssh: SshSettings {
                unset: Unset {
                    user: user.is_none(),
                    port: port.is_none(),
                    become_root: false,
                },
                ..SshSettings::default()
            },
        }
    }
}

impl Inventory {
    /// Returns the control plane nodes, in the order of the file; the first is where the cluster starts.
    pub fn control_planes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.role == Role::ControlPlane)
    }
    /// Returns the workers.
    pub fn workers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.role == Role::Worker)
    }
    /// Returns the machines outside the cluster.
    pub fn outside(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.role == Role::Outside)
    }
    /// Returns every member of the cluster: control planes, then workers.
    pub fn members(&self) -> impl Iterator<Item = &Node> {
        self.control_planes().chain(self.workers())
    }
    /// Returns the machine of that name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.iter().find(|n| &n.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jump_hosts_are_read_as_ssh_reads_them() {
        let read = |text: &str| match Connect::parse_jump(text, "me").unwrap() {
            Proxy::Jump(hops) => hops
                .iter()
                .map(|h| format!("{}@{} {}", h.user, h.host, h.port))
                .collect::<Vec<_>>()
                .join(","),
            other => format!("{other:?}"),
        };
        for (text, hops) in [
            ("b", "me@b 22"),
            ("ops@203.0.113.9:2222", "ops@203.0.113.9 2222"),
            ("a@b, c@d:1", "a@b 22,c@d 1"),
            ("ssh://o@h:3/", "o@h 3"),
            ("o@[2001:db8::1]:4", "o@2001:db8::1 4"),
            ("2001:db8::1", "me@2001:db8::1 22"),
            ("user@domain@h", "user@domain@h 22"),
            ("none", "Direct"),
        ] {
            assert_eq!(read(text), hops);
        }
        for text in ["", "a,,b", "h:0", "h:x", "-oProxyCommand=x", "a b", "@h", "[::1]22"] {
            assert!(Connect::parse_jump(text, "me").is_err(), "{text}");
        }
    }
}
