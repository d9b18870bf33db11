//! firewalld: policies of landfall's own, files below [`POLICIES`] that firewalld loads with its others (firewalld.policy(5), since 0.9).
//!
//! A policy from ANY zone is asked in the zone of each packet. With the last priority there is it comes behind all that the zone and other
//! policies say, and just ahead of what the zone does with the rest: so it opens what nobody has decided about, and takes no address and no
//! interface out of a zone, as a zone of landfall's own would. Only sources that a zone is there to shut out must be named in it.
//! firewalld 2.0 to 2.4 asks no policy about what is forwarded between two links of which no zone has either (`fw_policy.py`,
//! `_ingress_egress_zone`), such as what pods send: it gets no policies. Those that were written before it came stay, and what it drops all the same
//! is a fault ([`super::openings::unasked`]). 2.5.0 asks them about all again, in chains that are not known here.
//! firewalld shows no comments in the kernel's rules: the mark stands in the description of the file, and chains are known by the policy's name.

use super::accept::{Accept, Peers, Protocol};
use super::{Chain, Field, Hook, Match, Rule, Value, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// Its table in nf_tables.
pub const TABLE: &str = "inet firewalld";
/// Where its administrator's policies are.
pub const POLICIES: &str = "/etc/firewalld/policies";
/// How names of landfall's policies begin.
const PREFIX: &str = "landfall-";
/// Characters of the cluster's uid in such a name. A name has 17 characters at most (firewalld's `max_policy_name_len`).
const UID_CHARACTERS: usize = 6;
/// The last one: policies are asked in the order of their priorities, zones between those below and above 0 (firewalld.policies(5)).
const PRIORITY: i16 = i16::MAX;

/// A policy of landfall's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name, and that of its file.
    pub name: String,
    /// Its rules, each as one rule of the kernel.
    pub rules: Vec<RichRule>,
    hook: Hook,
    mark: String,
}

/// A rule in firewalld's language (firewalld.richlanguage(5)), of IPv4.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RichRule {
    source: Option<String>,
    destination: Option<String>,
    protocol: Option<&'static str>,
    port: Option<u16>,
    accepts: bool,
}

/// Addresses that a zone shuts out: a zone that drops or rejects whatever is not let in by name, and to which only sources lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// The zone.
    pub zone: String,
    /// Its addresses and networks.
    pub addresses: BTreeSet<String>,
    /// Whether it has sources that no rule can name for good: sets, and addresses of hardware.
    pub has_others: bool,
}

/// Returns the name of the policy for a hook; `None` where there is none: firewalld lets the machine send.
pub fn name(mark: &str, hook: Hook) -> Option<String> {
    let uid = mark.rsplit(' ').next().unwrap_or_default();
    let uid: String = uid.chars().take(UID_CHARACTERS).collect();
    let end = match hook {
        Hook::Input => "i",
        Hook::Forward => "f",
        Hook::Output => return None,
    };
    Some(format!("{PREFIX}{uid}-{end}"))
}

/// Returns the names of all policies that a cluster may have.
pub fn names(mark: &str) -> Vec<String> {
    Hook::ALL.into_iter().filter_map(|hook| name(mark, hook)).collect()
}

/// Returns the paths of their files.
pub fn files(mark: &str) -> Vec<String> {
    names(mark).iter().map(|name| file_of(name)).collect()
}

/// Returns the path of a policy's file.
pub fn file_of(name: &str) -> String {
    format!("{POLICIES}/{name}.xml")
}

/// Says whether the text of a policy's file bears the mark.
pub fn is_marked(text: &str, mark: &str) -> bool {
    [" ", "<"]
        .iter()
        .any(|end| text.contains(&format!("<description>{mark}{end}")))
}

impl Policy {
    /// Returns the policy that accepts this at a hook, where one can be.
    pub fn of(mark: &str, accept: &[Accept], hook: Hook, bans: &[Ban]) -> Option<Self> {
        let banned = bans.iter().flat_map(|ban| &ban.addresses).map(|address| RichRule {
            source: Some(address.clone()),
            destination: None,
            protocol: None,
            port: None,
            accepts: false,
        });
        let mut rules: Vec<RichRule> = banned.filter(|_| hook == Hook::Input).collect();
        let accepted = accepted_at(accept, hook);
        rules.extend(accepted.flat_map(of_accept));
        rules.sort();
        rules.dedup();
        Some(Self {
            name: name(mark, hook)?,
            rules,
            hook,
            mark: mark.to_owned(),
        })
    }

    /// Returns the content of its file.
    pub fn file(&self) -> String {
        let to = if self.hook == Hook::Input { "HOST" } else { "ANY" };
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<policy priority=\"{PRIORITY}\" target=\"CONTINUE\">\n  <short>landfall</short>\n  \
             <description>{} {}</description>\n  <ingress-zone name=\"ANY\"/>\n  <egress-zone name=\"{to}\"/>\n",
            self.mark,
            self.hook.as_str()
        );
        for rule in &self.rules {
            let _ = writeln!(text, "  {}", rule.xml());
        }
        text.push_str("</policy>\n");
        text
    }

    /// Says how many of its rules the kernel has; `None` when firewalld has not loaded it.
    pub fn loaded(&self, chains: &[Chain]) -> Option<usize> {
        loaded(chains, &self.name)
    }
}

/// What a policy has to accept at a hook: firewalld passes the rest by rules of its own.
fn accepted_at(accept: &[Accept], hook: Hook) -> impl Iterator<Item = &Accept> {
    let at_hook = accept.iter().filter(move |accept| accept.hook == hook);
    at_hook.filter(|accept| accept.begins_outside_loopback())
}

/// The rules that let something through: firewalld takes one address and one port in each. They do not ask for the link, which rules of a policy
/// cannot.
fn of_accept(accept: &Accept) -> Vec<RichRule> {
    let ends = |peers: &Peers| match peers {
        Peers::Any => vec![None],
        Peers::Addresses(list) => list.iter().map(|address| Some(address.to_string())).collect(),
        Peers::Network(network) => vec![Some(network.to_string())],
    };
    let ports: Vec<Option<u16>> = match accept.ports.as_slice() {
        [] => vec![None],
        ports => ports.iter().copied().map(Some).collect(),
    };
    let mut rules = Vec::new();
    for source in ends(&accept.from) {
        for destination in ends(&accept.to) {
            rules.extend(ports.iter().map(|port| RichRule {
                source: source.clone(),
                destination: destination.clone(),
                protocol: accept.protocol.map(Protocol::as_str),
                port: *port,
                accepts: true,
            }));
        }
    }
    rules
}

impl RichRule {
    fn action(&self) -> &'static str {
        if self.accepts { "accept" } else { "drop" }
    }

    /// Returns the rule as firewall-cmd takes and prints it.
    pub fn text(&self) -> String {
        let mut text = "rule family=\"ipv4\"".to_owned();
        for (word, address) in [("source", &self.source), ("destination", &self.destination)] {
            if let Some(address) = address {
                let _ = write!(text, " {word} address=\"{address}\"");
            }
        }
        match (self.port, self.protocol) {
            (Some(port), Some(protocol)) => {
                let _ = write!(text, " port port=\"{port}\" protocol=\"{protocol}\"");
            }
            (None, Some(protocol)) => {
                let _ = write!(text, " protocol value=\"{protocol}\"");
            }
            (_, None) => {}
        }
        let _ = write!(text, " {}", self.action());
        text
    }

    fn xml(&self) -> String {
        let mut text = "<rule family=\"ipv4\">".to_owned();
        for (word, address) in [("source", &self.source), ("destination", &self.destination)] {
            if let Some(address) = address {
                let _ = write!(text, "<{word} address=\"{address}\"/>");
            }
        }
        match (self.port, self.protocol) {
            (Some(port), Some(protocol)) => {
                let _ = write!(text, "<port port=\"{port}\" protocol=\"{protocol}\"/>");
            }
            (None, Some(protocol)) => {
                let _ = write!(text, "<protocol value=\"{protocol}\"/>");
            }
            (_, None) => {}
        }
        let _ = write!(text, "<{}/></rule>", self.action());
        text
    }
}

/// Says whether the table asks policies as is needed here: that of firewalld older than 0.9 does not, and that of 2.x not about all.
pub fn has_policies(chains: &[Chain]) -> bool {
    let mut own = chains.iter().filter(|chain| chain.table == TABLE);
    own.any(|chain| chain.name == policies_of(Hook::Forward, "_post"))
}

/// Says how many different rules the kernel has of a policy; `None` when firewalld has not loaded it. (firewalld 1.x that was killed writes all its
/// rules a second time when it starts.)
pub fn loaded(chains: &[Chain], name: &str) -> Option<usize> {
    let own: Vec<&Chain> = chains.iter().filter(|chain| is_of(chain, name)).collect();
    let mut rules: Vec<(&[Match], &Verdict)> = Vec::new();
    let holds_rules = |chain: &&&Chain| ["_deny", "_allow"].iter().any(|end| chain.name.ends_with(end));
    for rule in own.iter().filter(holds_rules).flat_map(|chain| &chain.rules) {
        let what = (rule.matches.as_slice(), &rule.verdict);
        if !rules.contains(&what) {
            rules.push(what);
        }
    }
    (!own.is_empty()).then_some(rules.len())
}

fn is_of(chain: &Chain, policy: &str) -> bool {
    let names = ["IN", "FWD"].map(|word| format!("filter_{word}_policy_{policy}"));
    let own = |name: &String| chain.name.strip_prefix(name.as_str());
    chain.table == TABLE
        && names
            .iter()
            .filter_map(own)
            .any(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// Takes what landfall's policies say out of the rules.
pub(super) fn clear_marked(chains: &mut [Chain], mark: &str) {
    let names = names(mark);
    for chain in chains.iter_mut() {
        if names.iter().any(|name| is_of(chain, name)) {
            chain.rules.clear();
        }
    }
}

/// Says whether a policy with the last priority is asked ahead of a rule that drops: the rule is what a zone does with the rest, behind a jump to all
/// such policies (`nftables.py`, `build_policy_chain_rules`, seen in 1.3.3).
pub(super) fn is_asked_before(chains: &[Chain], hook: Hook, chain: &Chain, rule: &Rule) -> bool {
    let policies = Verdict::Jump(policies_of(hook, "_post"));
    let mut ahead = chain.rules.iter().take_while(|other| *other != rule);
    let is_of = |ban: &Ban| chain.name == format!("filter_IN_{}", ban.zone);
    hook != Hook::Output && ahead.any(|other| other.verdict == policies) && !bans(chains).iter().any(is_of)
}

/// Says whether a rule of firewalld 2.0 to 2.4 is what it does with the rest, between links: not what somebody has decided about an address.
pub(super) fn is_rest_of_2(hook: Hook, chain: &Chain, rule: &Rule) -> bool {
    let by_link = |m: &Match| matches!(m.field, Field::From | Field::To);
    chain.table == TABLE && chain.name == policies_of(hook, "") && rule.matches.iter().all(by_link)
}

/// The chain in which policies of a hook are asked: all of them in 2.x, and with `_post` those behind the zones before.
fn policies_of(hook: Hook, end: &str) -> String {
    format!("filter_{}_POLICIES{end}", hook.as_str().to_uppercase())
}

/// Returns the accept rules as a policy has them.
pub(super) fn accept_rules(accept: &[Accept], hook: Hook, comment: &str) -> Vec<Rule> {
    let accepted = accepted_at(accept, hook);
    let as_policy = |accept: &Accept| Accept {
        through: None,
        out_of: None,
        ..accept.clone()
    };
    accepted.map(|accept| as_policy(accept).rule(comment)).collect()
}

/// Returns what zones shut out by source.
pub fn bans(chains: &[Chain]) -> Vec<Ban> {
    let own = || chains.iter().filter(|chain| chain.table == TABLE);
    let mut zones: BTreeMap<&str, Vec<&[Match]>> = BTreeMap::new();
    for rule in own()
        .filter(|chain| chain.name.starts_with("filter_INPUT_ZONES"))
        .flat_map(|chain| &chain.rules)
    {
        if let Verdict::Jump(to) | Verdict::Goto(to) = &rule.verdict
            && let Some(zone) = to.strip_prefix("filter_IN_")
        {
            zones.entry(zone).or_default().push(&rule.matches);
        }
    }
    let ban = |(zone, ways): (&str, Vec<&[Match]>)| {
        let chain = own().find(|chain| chain.name == format!("filter_IN_{zone}"))?;
        let by_source = |way: &&[Match]| !way.is_empty() && way.iter().all(|m| m.field != Field::From);
        if !shuts_out(chain) || !ways.iter().all(by_source) {
            return None;
        }
        let is_ipv6 = |m: &Match| m.field == Field::Family && m.values == [Value::Text("ipv6".to_owned())];
        let of_ipv4 = ways.iter().filter(|way| !way.iter().any(is_ipv6));
        let networks: Vec<Option<String>> = of_ipv4.map(|way| network_of(way)).collect();
        Some(Ban {
            zone: zone.to_owned(),
            has_others: networks.contains(&None),
            addresses: networks.into_iter().flatten().collect(),
        })
    };
    zones.into_iter().filter_map(ban).collect()
}

/// Says whether a zone drops or rejects the rest as its target says. The default target, which rejects too, lets ICMP in.
fn shuts_out(zone: &Chain) -> bool {
    let is_icmp = |m: &Match| m.field == Field::Protocol && m.values.contains(&Value::Text("icmp".to_owned()));
    let lets_icmp_in = |rule: &Rule| rule.verdict == Verdict::Accept && rule.matches.iter().any(is_icmp);
    let last = zone.rules.last();
    last.is_some_and(|rule| rule.matches.is_empty() && rule.verdict == Verdict::Drop)
        && !zone.rules.iter().any(lets_icmp_in)
}

/// Returns the one address or network that conditions ask for.
fn network_of(way: &[Match]) -> Option<String> {
    let [one] = way else { return None };
    let (Field::Source, false, [Value::Addresses(first, last)]) = (one.field, one.negated, one.values.as_slice())
    else {
        return None;
    };
    let (first, last) = (u32::from(*first), u32::from(*last));
    let prefix = (first ^ last).leading_zeros();
    let rest = u32::MAX.checked_shr(prefix).unwrap_or(0);
    let address = Ipv4Addr::from(first);
    match prefix {
        32 => Some(address.to_string()),
        _ if first & rest == 0 && last & rest == rest => Some(format!("{address}/{prefix}")),
        _ => None,
    }
}

/// Compares what firewalld has loaded with what it has saved, both as `firewall-cmd --list-all-zones` or `--list-all-policies` prints them. Returns
/// a line for each difference, which a reload would undo. Landfall's own policies are left out, and so are interfaces in the default zone: they
/// are in it after a reload as well.
pub fn differences(loaded: &str, saved: &str, default_zone: &str) -> Vec<String> {
    let (loaded, saved) = (sections(loaded, default_zone), sections(saved, default_zone));
    let names: BTreeSet<&String> = loaded.keys().chain(saved.keys()).collect();
    let mut lines = Vec::new();
    for name in names {
        let empty = BTreeSet::new();
        let (loaded, saved) = (loaded.get(name).unwrap_or(&empty), saved.get(name).unwrap_or(&empty));
        lines.extend(
            loaded
                .difference(saved)
                .map(|line| format!("{name}: loaded, not saved: {line}")),
        );
        lines.extend(
            saved
                .difference(loaded)
                .map(|line| format!("{name}: saved, not loaded: {line}")),
        );
    }
    lines
}

fn sections(text: &str, default_zone: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut name = "";
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if !line.starts_with([' ', '\t']) {
            // `public (default, active)`
            name = line.split(' ').next().unwrap_or_default();
        }
        let is_header = !line.starts_with([' ', '\t']);
        let is_harmless = name == default_zone && line.trim_start().starts_with("interfaces:");
        if name.starts_with(PREFIX) || is_harmless {
            continue;
        }
        let lines = sections.entry(name.to_owned()).or_default();
        if !is_header {
            // Sources and others are listed in the order in which they came.
            let mut words: Vec<&str> = line.split_whitespace().collect();
            if !line.trim_start().starts_with("rule ") {
                words.get_mut(1..).unwrap_or_default().sort_unstable();
            }
            lines.insert(words.join(" "));
        }
    }
    sections
}

#[cfg(test)]
mod tests;
