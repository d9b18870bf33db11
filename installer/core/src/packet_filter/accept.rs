//! One sort of packets that is accepted, and the rule that accepts it: as iptables takes it, and as it is read.

use super::{Field, Hook, Match, Rule, Value, Verdict};
use crate::spec::Cidr;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// The link of the pods of a node, and that to the pods of others.
pub const BRIDGE: &str = "cni0";
/// See [`BRIDGE`].
pub const TUNNEL: &str = "flannel.1";
/// The machine's link to itself.
pub const LOOPBACK: &str = "lo";

/// One sort of packets that is accepted: all that is said must be so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// Where they are met.
    pub hook: Hook,
    /// The protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Destination ports; any when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Source ports; any when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ports: Vec<u16>,
    /// Who sends them.
    #[serde(default, skip_serializing_if = "Peers::is_any")]
    pub from: Peers,
    /// For whom they are.
    #[serde(default, skip_serializing_if = "Peers::is_any")]
    pub to: Peers,
    /// The interface through which they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// The interface through which they leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of: Option<String>,
    /// Whether they must belong to a connection that was let through before, or be about one (ICMP).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub established: bool,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peers {
    /// Anybody.
    #[default]
    Any,
    /// These machines.
    Addresses(Vec<Ipv4Addr>),
    /// A network.
    Network(Cidr),
}

impl Peers {
    pub(super) fn is_any(&self) -> bool {
        *self == Self::Any
    }

    /// Returns each as iptables names it; one `None` for anybody.
    fn words(&self) -> Vec<Option<String>> {
        match self {
            Self::Any => vec![None],
            Self::Addresses(list) => list.iter().map(|address| Some(format!("{address}/32"))).collect(),
            Self::Network(network) => vec![Some(network.to_string())],
        }
    }

    /// Returns addresses that stand for all: in a network of pods, `pod` is one.
    pub(super) fn samples(&self, pod: u32) -> Vec<Option<Ipv4Addr>> {
        match self {
            Self::Any => vec![None],
            Self::Addresses(list) => list.iter().copied().map(Some).collect(),
            Self::Network(network) => vec![Some(network.nth(pod))],
        }
    }

    fn condition(&self, field: Field) -> Option<Match> {
        let values = match self {
            Self::Any => return None,
            Self::Addresses(list) => list.iter().map(|a| Value::Addresses(*a, *a)).collect(),
            Self::Network(network) => vec![super::addresses(&network.to_string())],
        };
        Some(Match {
            field,
            negated: false,
            values,
        })
    }
}

impl Accept {
    /// Everything that is met at a hook.
    pub fn at(hook: Hook) -> Self {
        Self {
            hook,
            protocol: None,
            ports: vec![],
            source_ports: vec![],
            from: Peers::Any,
            to: Peers::Any,
            through: None,
            out_of: None,
            established: false,
        }
    }

    /// Says whether connections begin with it, on another link than loopback. The rest ufw and firewalld pass by rules of their own.
    pub(super) fn begins_outside_loopback(&self) -> bool {
        let is_loopback = |link: &Option<String>| link.as_deref() == Some(LOOPBACK);
        !self.established && self.source_ports.is_empty() && !is_loopback(&self.through) && !is_loopback(&self.out_of)
    }

    /// Returns the rules as iptables takes them behind `-A CHAIN`, without comment and target: one for each pair of source and destination.
    pub fn iptables_words(&self) -> Vec<Vec<String>> {
        let mut rules = Vec::new();
        for from in self.from.words() {
            for to in self.to.words() {
                let mut words: Vec<String> = Vec::new();
                let mut add = |option: &str, value: Option<String>| {
                    words.extend(value.map(|value| [option.to_owned(), value]).into_iter().flatten());
                };
                add("-s", from.clone());
                add("-d", to);
                add("-i", self.through.clone());
                add("-o", self.out_of.clone());
                add("-p", self.protocol.map(|protocol| protocol.as_str().to_owned()));
                let protocol = self.protocol.map_or("", Protocol::as_str);
                for (ports, one, many) in [
                    (&self.source_ports, "--sport", "--sports"),
                    (&self.ports, "--dport", "--dports"),
                ] {
                    let list: Vec<String> = ports.iter().map(u16::to_string).collect();
                    match list.as_slice() {
                        [] => {}
                        [port] => words.extend(["-m", protocol, one, port].map(str::to_owned)),
                        _ => words.extend(["-m", "multiport", many, &list.join(",")].map(str::to_owned)),
                    }
                }
                if self.established {
                    words.extend(["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"].map(str::to_owned));
                }
                rules.push(words);
            }
        }
        rules
    }

    /// Returns the rule as it is read.
    pub(super) fn rule(&self, comment: &str) -> Rule {
        let text = |field, word: Option<&str>| {
            word.map(|word| Match {
                field,
                negated: false,
                values: vec![Value::Text(word.to_owned())],
            })
        };
        let ports = |field, ports: &[u16]| {
            (!ports.is_empty()).then(|| Match {
                field,
                negated: false,
                values: ports.iter().map(|port| Value::Ports(*port, *port)).collect(),
            })
        };
        let conditions = [
            text(Field::Protocol, self.protocol.map(Protocol::as_str)),
            ports(Field::Port, &self.ports),
            ports(Field::SourcePort, &self.source_ports),
            self.from.condition(Field::Source),
            self.to.condition(Field::Destination),
            text(Field::From, self.through.as_deref()),
            text(Field::To, self.out_of.as_deref()),
            text(Field::State, Some("established").filter(|_| self.established)),
        ];
        Rule {
            text: "an accept rule of landfall".to_owned(),
            number: 0,
            comment: Some(comment.to_owned()),
            matches: conditions.into_iter().flatten().collect(),
            verdict: Verdict::Accept,
        }
    }
}
