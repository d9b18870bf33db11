//! Would a packet filter drop this? Rules of nftables and iptables are read ([`nftables`], [`iptables`]) and walked with one packet that
//! begins a connection. What a rule asks that is not understood here may be so or not; only what is dropped in any case is said to be.

pub mod accept;
pub mod firewalld;
pub mod iptables;
pub mod nftables;
pub mod openings;
pub mod ufw;

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Rules of packet filters, as the host's own programs print them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PacketFilters {
    /// `nft --json list table`, of each table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nftables: Vec<String>,
    /// `iptables-save` of what iptables keeps in nf_tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iptables: Vec<String>,
    /// `iptables-save` of the kernel's old tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iptables_legacy: Vec<String>,
    /// ufw's rules of its users, where the kernel has its chains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ufw: Option<String>,
    /// How what firewalld has loaded differs from what it has saved: a reload would undo it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firewalld_differences: Vec<String>,
    /// Chains that drop what no rule decides, and whose rules could not be read, as `family table chain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// Legacy tables in use that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread_legacy: Vec<String>,
}

/// Which program's rules a chain holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// nftables' own.
    Nftables,
    /// iptables', kept in nf_tables: a rule that nft makes among them keeps iptables from listing them.
    IptablesNft,
    /// iptables', in the kernel's old tables.
    IptablesLegacy,
}

/// Where the kernel calls a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// What is for the machine itself.
    Input,
    /// What goes through it.
    Forward,
    /// What comes from it.
    Output,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Input, Self::Forward, Self::Output];

    /// Reads nftables' name, or that of iptables' base chain.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "input" | "INPUT" => Some(Self::Input),
            "forward" | "FORWARD" => Some(Self::Forward),
            "output" | "OUTPUT" => Some(Self::Output),
            _ => None,
        }
    }

    /// Returns nftables' name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }
}

/// The first packet of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Where it is met.
    pub hook: Hook,
    /// `tcp` or `udp`.
    pub protocol: &'a str,
    /// Destination port.
    pub port: u16,
    /// Who sends it, when that is known.
    pub source: Option<Ipv4Addr>,
    /// For whom it is, when that is known.
    pub destination: Option<Ipv4Addr>,
    /// Interface through which it came, if it came from outside.
    pub from: Option<&'a str>,
    /// Interface through which it leaves, if it does.
    pub to: Option<&'a str>,
    /// Whether its destination was translated: it was for a Service.
    pub is_translated: bool,
}

impl std::fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.protocol, self.port)?;
        self.source.map_or(Ok(()), |source| write!(f, " from {source}"))
    }
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Whose rules it holds.
    pub variant: Variant,
    /// Family and name of its table, for instance `inet filter`.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where the kernel calls it; `None` when only rules lead to it, or at hooks that [`Hook`] does not name.
    pub hook: Option<Hook>,
    /// Whether the kernel calls it for all that comes in, before it decides for whom that is and before it translates addresses.
    pub is_prerouting: bool,
    /// Whether it drops what no rule decides.
    pub drops_by_policy: bool,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The rule for people.
    pub text: String,
    /// Its handle in nftables; in iptables its number in the chain, from 1.
    pub number: u64,
    /// Its comment.
    pub comment: Option<String>,
    /// What must be so, all of it.
    pub matches: Vec<Match>,
    /// What happens then.
    pub verdict: Verdict,
}

/// What a rule does with a packet that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The next rule decides: it counts, logs or marks.
    Next,
    /// It passes this hook's chain.
    Accept,
    /// It is dropped or rejected.
    Drop,
    /// Another chain decides, and the next rule when it does not.
    Jump(String),
    /// Another chain decides, and the caller of this one when it does not.
    Goto(String),
    /// The caller of this chain decides.
    Return,
    /// Not understood here.
    Unknown,
}

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// What is looked at.
    pub field: Field,
    /// Whether it must be none of the values.
    pub negated: bool,
    /// The values.
    pub values: Vec<Value>,
}

impl Match {
    /// A condition that is not understood here.
    pub const UNKNOWN: Self = Self {
        field: Field::Unknown,
        negated: false,
        values: vec![],
    };
}

/// What a condition looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The transport protocol.
    Protocol,
    /// The destination port.
    Port,
    /// The source port.
    SourcePort,
    /// The source address.
    Source,
    /// The destination address.
    Destination,
    /// The interface in.
    From,
    /// The interface out.
    To,
    /// Connection tracking's state.
    State,
    /// What connection tracking did to the packet: `dnat` …
    Status,
    /// What sort of address the destination is to the machine: `local`, `broadcast` …
    DestinationType,
    /// The version of IP.
    Family,
    /// Something else.
    Unknown,
}

/// A value of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A word, in lower case where case does not matter; a `*` at its end stands for any rest.
    Text(String),
    /// Ports from one to another.
    Ports(u16, u16),
    /// Addresses from one to another.
    Addresses(Ipv4Addr, Ipv4Addr),
    /// Not understood here.
    Unknown,
}

/// A place where a packet is dropped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dropped {
    /// Whose rules these are.
    pub variant: Variant,
    /// Family and name of the table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The hook of the packet; for a chain at prerouting always input, so that one place is told once.
    pub hook: Hook,
    /// The chain that the kernel called, which led to this one.
    pub base: String,
    /// Whether that is called for all that comes in ([`Chain::is_prerouting`]): landfall writes no rules there.
    pub is_prerouting: bool,
    /// The rule; `None` for the policy of the chain.
    pub rule: Option<String>,
}

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table {}, chain {}", self.table, self.chain)?;
        match &self.rule {
            Some(rule) => write!(f, ": {rule}"),
            None => write!(f, ": policy drop, and no rule accepts it"),
        }
    }
}

/// Reads the rules. nftables shows the tables of iptables too, with conditions that it does not understand: there iptables has the word.
pub fn chains(filters: &PacketFilters) -> Vec<Chain> {
    let of_iptables = |texts: &[String], variant| -> Vec<Chain> {
        let texts = texts.iter();
        texts.flat_map(|text| iptables::parse(text, variant)).collect()
    };
    let mut chains = of_iptables(&filters.iptables, Variant::IptablesNft);
    let known: BTreeSet<String> = chains.iter().map(|chain| chain.table.clone()).collect();
    let parsed = filters.nftables.iter().filter_map(|text| nftables::parse(text));
    chains.extend(parsed.flatten().filter(|chain| !known.contains(&chain.table)));
    chains.extend(of_iptables(&filters.iptables_legacy, Variant::IptablesLegacy));
    if let Some(text) = &filters.ufw {
        ufw::add_comments(&mut chains, text);
    }
    chains
}

/// Returns every place at which the packet is dropped in any case. (Each chain that the kernel calls decides by itself.)
pub fn drops(chains: &[Chain], packet: &Packet) -> Vec<Dropped> {
    places(chains, packet)
        .iter()
        .map(|place| place.dropped(packet.hook))
        .collect()
}

/// A place among the rules at which a packet is dropped.
struct Place<'a> {
    /// The chain that the kernel called.
    base: &'a Chain,
    /// The chain that drops.
    chain: &'a Chain,
    /// The rule that drops; `None` for the policy of the chain.
    rule: Option<&'a Rule>,
}

impl Place<'_> {
    fn dropped(&self, hook: Hook) -> Dropped {
        Dropped {
            variant: self.chain.variant,
            table: self.chain.table.clone(),
            chain: self.chain.name.clone(),
            hook: if self.base.is_prerouting { Hook::Input } else { hook },
            base: self.base.name.clone(),
            is_prerouting: self.base.is_prerouting,
            rule: self.rule.map(|rule| rule.text.clone()),
        }
    }
}

/// Returns every place at which the packet is dropped in any case.
fn places<'a>(chains: &'a [Chain], packet: &Packet) -> Vec<Place<'a>> {
    // What was translated had another destination before, and what a process sends does not come in.
    let comes_in = packet.from.is_some() && !packet.is_translated;
    let incoming = Packet { to: None, ..*packet };
    let place = |base: &'a Chain| {
        let packet = match base.hook {
            Some(hook) if hook == packet.hook => packet,
            None if base.is_prerouting && comes_in => &incoming,
            _ => return None,
        };
        let (chain, rule) = match walk(chains, base, packet, 0) {
            Walk::Drop(at, rule) => (at, Some(rule)),
            Walk::Fall { surely: true } if base.drops_by_policy => (base, None),
            Walk::Fall { .. } | Walk::Accept | Walk::Unclear => return None,
        };
        Some(Place { base, chain, rule })
    };
    chains.iter().filter_map(place).collect()
}

/// The kernel's own limit of jumps (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

enum Walk<'a> {
    Accept,
    Drop(&'a Chain, &'a Rule),
    /// No rule decided; not `surely` when one may have.
    Fall {
        surely: bool,
    },
    /// It may be accepted or not.
    Unclear,
}

/// Whether a condition holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    Maybe,
}

impl Holds {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Maybe,
        }
    }

    fn of(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

fn walk<'a>(chains: &'a [Chain], chain: &'a Chain, packet: &Packet, depth: usize) -> Walk<'a> {
    // Whether no rule so far may have taken the packet out of this chain.
    let mut surely = true;
    for rule in &chain.rules {
        let holds = rule
            .matches
            .iter()
            .map(|m| m.holds(packet))
            .fold(Holds::Yes, Holds::and);
        let is_sure = holds == Holds::Yes;
        if holds == Holds::No {
            continue;
        }
        let (to, stays) = match &rule.verdict {
            Verdict::Next => continue,
            Verdict::Accept if is_sure => return Walk::Accept,
            Verdict::Return if is_sure => return Walk::Fall { surely },
            Verdict::Accept | Verdict::Return | Verdict::Unknown => {
                surely = false;
                continue;
            }
            Verdict::Drop if is_sure && surely => return Walk::Drop(chain, rule),
            Verdict::Drop if is_sure => return Walk::Unclear,
            Verdict::Drop => continue,
            Verdict::Jump(to) => (to, true),
            Verdict::Goto(to) => (to, false),
        };
        let is_next = |c: &&Chain| c.variant == chain.variant && c.table == chain.table && c.name == *to;
        let next = chains.iter().find(is_next);
        let walked = match next {
            Some(next) if depth < DEEPEST => walk(chains, next, packet, depth + 1),
            _ => Walk::Unclear,
        };
        match walked {
            Walk::Drop(at, rule) if is_sure && surely => return Walk::Drop(at, rule),
            Walk::Accept if is_sure => return Walk::Accept,
            Walk::Drop(..) | Walk::Unclear if is_sure => return Walk::Unclear,
            Walk::Drop(..) => {}
            Walk::Fall { surely: inner } if is_sure && !stays => {
                return Walk::Fall {
                    surely: surely && inner,
                };
            }
            Walk::Fall { surely: inner } => surely &= inner && (stays || is_sure),
            Walk::Accept | Walk::Unclear => surely = false,
        }
    }
    Walk::Fall { surely }
}

impl Match {
    fn holds(&self, packet: &Packet) -> Holds {
        let one = |value: &Value| self.fits(value, packet);
        let mut any = Holds::No;
        for holds in self.values.iter().map(one) {
            match holds {
                Holds::Yes => any = Holds::Yes,
                Holds::Maybe if any == Holds::No => any = Holds::Maybe,
                Holds::Maybe | Holds::No => {}
            }
        }
        match (self.field, any, self.negated) {
            (Field::Unknown, ..) => Holds::Maybe,
            (_, Holds::Yes, true) => Holds::No,
            (_, Holds::No, true) => Holds::Yes,
            (_, any, _) => any,
        }
    }

    fn fits(&self, value: &Value, packet: &Packet) -> Holds {
        let within = |address: Option<Ipv4Addr>| match (address, value) {
            (Some(address), Value::Addresses(first, last)) => Holds::of((*first..=*last).contains(&address)),
            // Every address fits.
            (None, Value::Addresses(first, last)) if first.is_unspecified() && last.is_broadcast() => Holds::Yes,
            _ => Holds::Maybe,
        };
        let is = |text: &str| match value {
            Value::Text(wanted) => Holds::of(match wanted.strip_suffix('*') {
                Some(begin) => text.starts_with(begin),
                None => wanted == text,
            }),
            _ => Holds::Maybe,
        };
        match self.field {
            Field::Protocol => is(packet.protocol),
            Field::Port => match value {
                Value::Ports(first, last) => Holds::of((*first..=*last).contains(&packet.port)),
                _ => Holds::Maybe,
            },
            Field::SourcePort => match value {
                // Connections begin at a port of the ephemeral range (the kernel's default of ip_local_port_range).
                Value::Ports(_, last) if *last < 32768 => Holds::No,
                _ => Holds::Maybe,
            },
            Field::Source => within(packet.source),
            Field::Destination => within(packet.destination),
            Field::From => packet.from.map_or(Holds::No, is),
            Field::To => packet.to.map_or(Holds::No, is),
            // iptables lists `dnat` among the states.
            Field::State | Field::Status if *value == Value::Text("dnat".to_owned()) => Holds::of(packet.is_translated),
            Field::State => is("new"),
            Field::Status => Holds::Maybe,
            Field::DestinationType if packet.hook == Hook::Input => is("local"),
            Field::DestinationType => is("unicast"),
            Field::Family => is("ipv4"),
            Field::Unknown => Holds::Maybe,
        }
    }
}

/// Reads an IPv4 address, or a network such as `10.0.0.0/8`, as a range.
fn addresses(text: &str) -> Value {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
    match (address.parse::<Ipv4Addr>(), prefix.parse::<u32>()) {
        (Ok(address), Ok(prefix)) if prefix <= 32 => {
            let rest = u32::MAX.checked_shr(prefix).unwrap_or(0);
            let first = u32::from(address) & !rest;
            Value::Addresses(first.into(), (first | rest).into())
        }
        _ => Value::Unknown,
    }
}

#[cfg(test)]
mod tests;
