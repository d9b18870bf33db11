//! What landfall lets through packet filters of others (`firewall: open`): which accept rules, where among the rules that are there, and
//! whether they stand.
//!
//! A packet that must pass is walked through the rules ([`super::drops`]). Where it is dropped, the accept rules of that hook go: in front of
//! the rule that drops, or to the end of the chain whose policy drops. So whatever the machine's owner decides earlier stays decided. Each rule
//! carries the cluster's mark in its comment ([`Openings::comment`]): by it the rules are found, renewed and removed, and no other is touched.

use super::accept::{Accept, BRIDGE, LOOPBACK, Peers, Protocol, TUNNEL};
use super::{Chain, Dropped, Hook, Packet, Place, Variant, drops, firewalld, places, ufw};
use crate::layout::SAMPLE_PORT;
use crate::name::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Counts ways in which the same openings became other rules: rules with another number are replaced.
const RENDERING: u32 = 1;
/// A port that pods may well serve on: a packet to any port is tried as one to this port.
pub const POD_PORT: u16 = 8080;
/// Places of pods in the cluster's network that stand for all of this node and all of others: the sixth address of the first node, and of the second.
const POD_HERE: u32 = 5;
const POD_THERE: u32 = 0x105;
/// Most rounds of "try all packets, insert where one is dropped". Each round inserts at one place at least.
const MOST_PLACES: usize = 64;

/// What one node's packet filters must let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Openings {
    /// The mark of the cluster's rules, at the beginning of their comments.
    pub mark: String,
    /// The node's address.
    pub address: Ipv4Addr,
    /// The interface that carries it.
    pub interface: String,
    /// What is accepted; nothing when the rules are to go.
    pub accept: Vec<Accept>,
}

/// A place at which accept rules are to stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insertion {
    /// Whose rules are there.
    pub variant: Variant,
    /// Family and name of the table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// Which of the accept rules: those of this hook.
    pub hook: Hook,
    /// The rule in front of which they are to stand: its handle in nftables, its number among the rules without landfall's in iptables;
    /// `None`: at the end of the chain.
    pub before: Option<u64>,
}

impl Openings {
    /// Returns the mark of a cluster's rules.
    pub fn mark_of(uid: &str) -> String {
        format!("landfall {uid}")
    }

    /// Returns the comment of the rules of one hook: the mark, what the rules were made of, and the hook. At most 60 characters; nft takes 128.
    pub fn comment(&self, hook: Hook) -> String {
        let made_of = serde_json::to_string(&self.accept).unwrap_or_default();
        let digest = Digest::of(format!("{RENDERING} {made_of}").as_bytes());
        let digest: String = digest.hex().chars().take(8).collect();
        format!("{} {digest} {}", self.mark, hook.as_str())
    }

    /// Returns the comment of ufw's rules of one hook. Each of them is compared by what it is about, and ufw loads all rules anew when a comment
    /// changes, so it says no more.
    pub fn ufw_comment(&self, hook: Hook) -> String {
        format!("{} {}", self.mark, hook.as_str())
    }

    /// Returns what is accepted at a hook.
    pub fn accepted_at(&self, hook: Hook) -> impl Iterator<Item = &Accept> {
        self.accept.iter().filter(move |accept| accept.hook == hook)
    }

    /// Says whether a comment bears the mark.
    pub fn is_marked(&self, comment: Option<&str>) -> bool {
        has_mark(&self.mark, comment)
    }

    /// Returns packets that stand for all that must pass: the first of each connection, one for each port and peer.
    pub fn packets(&self) -> Vec<Packet<'_>> {
        self.accept
            .iter()
            .flat_map(|accept| self.first_packets(accept))
            .collect()
    }

    /// Returns packets that stand for what others send to a NodePort: its address is translated to a pod's, of this node or of another one. They are
    /// not among those that must pass.
    fn node_port_packets(&self) -> Vec<Packet<'_>> {
        let pods = self.accept.iter().find_map(|accept| match accept.from {
            Peers::Network(pods) => Some(pods),
            Peers::Any | Peers::Addresses(_) => None,
        });
        let packet = |(to, pod): (_, u32)| Packet {
            hook: Hook::Forward,
            protocol: "tcp",
            port: SAMPLE_PORT,
            source: None,
            destination: pods.map(|pods| pods.nth(pod)),
            from: Some(self.interface.as_str()),
            to: Some(to),
            is_translated: true,
        };
        [(BRIDGE, POD_HERE), (self.pods_link(), POD_THERE)].map(packet).to_vec()
    }

    /// The packets that stand for one sort of connections; none where it is not about their first packet.
    fn first_packets<'a>(&'a self, accept: &'a Accept) -> Vec<Packet<'a>> {
        if accept.established || !accept.source_ports.is_empty() {
            return vec![];
        }
        self.packets_of(accept)
    }

    /// Returns the link behind which the pods of other nodes are: the tunnel where packets out of it are accepted, the interface otherwise.
    fn pods_link(&self) -> &str {
        let has_tunnel = self
            .accept
            .iter()
            .any(|accept| accept.through.as_deref() == Some(TUNNEL));
        if has_tunnel { TUNNEL } else { &self.interface }
    }

    fn packets_of<'a>(&'a self, accept: &'a Accept) -> Vec<Packet<'a>> {
        let (through, out_of) = (accept.through.as_deref(), accept.out_of.as_deref());
        let own = self.interface.as_str();
        let (here, there) = (POD_HERE, POD_THERE);
        let others = self.pods_link();
        // Which links stand for all: pods of this node are behind the bridge, those of others behind the tunnel or the node's interface.
        let to_own = |from| (from, Some(BRIDGE), Some(here));
        let to_others = |from| (from, Some(others), Some(there));
        let links: Vec<(Option<&str>, Option<&str>, Option<u32>)> = match accept.hook {
            Hook::Input => vec![(through.or(Some(own)), None, None)],
            Hook::Output => match accept.to {
                Peers::Network(_) => vec![to_own(None), to_others(None)],
                _ => vec![(None, out_of.or(Some(own)), None)],
            },
            Hook::Forward if through == Some(others) => vec![to_own(through)],
            Hook::Forward => vec![to_others(through), (through, Some(own), None)],
        };
        let ports = if accept.ports.is_empty() {
            &[POD_PORT][..]
        } else {
            &accept.ports
        };
        let on_loopback = through == Some(LOOPBACK) || out_of == Some(LOOPBACK);
        let address = if on_loopback { Ipv4Addr::LOCALHOST } else { self.address };
        let mut packets = Vec::new();
        for (from, to, pods) in links {
            let of_pods = if from == Some(others) { there } else { here };
            for source in accept.from.samples(of_pods) {
                for destination in destinations(accept, pods, here) {
                    packets.extend(ports.iter().map(|port| Packet {
                        hook: accept.hook,
                        protocol: accept.protocol.map_or("tcp", Protocol::as_str),
                        port: *port,
                        source: source.or((accept.hook == Hook::Output || on_loopback).then_some(address)),
                        destination: destination.or((accept.hook == Hook::Input || on_loopback).then_some(address)),
                        from,
                        to,
                        is_translated: accept.hook == Hook::Input && from == Some(BRIDGE),
                    }));
                }
            }
        }
        packets
    }
}

/// Returns addresses that stand for all to whom packets go: `pods` is the pod on the link by which they leave, if there are pods. What pods send
/// goes to pods by the links of these.
fn destinations(accept: &Accept, pods: Option<u32>, here: u32) -> Vec<Option<Ipv4Addr>> {
    let to_pods = accept.hook == Hook::Forward && accept.to.is_any();
    match pods {
        Some(pods) if to_pods => accept.from.samples(pods),
        _ => accept.to.samples(pods.unwrap_or(here)),
    }
}

/// Says whether a comment begins with a mark.
pub fn has_mark(mark: &str, comment: Option<&str>) -> bool {
    let rest = comment.and_then(|comment| comment.strip_prefix(mark));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// Returns the rules without those that bear the mark, numbered as they are then.
pub fn without_marked(chains: &[Chain], mark: &str) -> Vec<Chain> {
    let mut chains = chains.to_vec();
    for chain in &mut chains {
        chain.rules.retain(|rule| !has_mark(mark, rule.comment.as_deref()));
        if chain.variant != Variant::Nftables {
            for (rule, number) in chain.rules.iter_mut().zip(1..) {
                rule.number = number;
            }
        }
    }
    firewalld::clear_marked(&mut chains, mark);
    chains
}

/// Finds the place for rules that are to decide about a packet that is dropped at this one; `None` where none may be written. Into ufw's tables ufw
/// alone writes, to the end of its users' rules; into firewalld's table firewalld, where its zones ask its policies. Ahead of routing nothing is
/// written: what somebody drops there is to reach no rule at all, and which of it is for pods is not known yet.
fn insertion(chains: &[Chain], hook: Hook, place: &Place) -> Option<Insertion> {
    let Place { base, chain, rule } = *place;
    if base.is_prerouting {
        return None;
    }
    let mut table = chains
        .iter()
        .filter(|other| other.variant == chain.variant && other.table == chain.table);
    let is_ufws = chain.variant != Variant::Nftables && table.clone().any(|other| other.name.starts_with(ufw::PREFIX));
    let (chain, before) = match is_ufws {
        true => (table.find(|other| other.name == ufw::chain_of(hook))?, None),
        false => (chain, rule.map(|rule| rule.number)),
    };
    let is_open = chain.table != firewalld::TABLE
        || rule.is_some_and(|rule| firewalld::is_asked_before(chains, hook, chain, rule));
    is_open.then(|| Insertion {
        variant: chain.variant,
        table: chain.table.clone(),
        chain: chain.name.clone(),
        hook,
        before,
    })
}

impl Insertion {
    /// Says whether ufw writes there, and nobody else.
    pub fn is_of_ufw(&self) -> bool {
        self.variant != Variant::Nftables && self.chain.starts_with(ufw::PREFIX)
    }

    /// Says whether a policy of firewalld has the rules, and nobody writes them there.
    pub fn is_of_firewalld(&self) -> bool {
        self.table == firewalld::TABLE
    }
}

/// Finds where accept rules have to stand among rules that hold none of them ([`without_marked`]). Returns the rules with them, and the places.
/// What is dropped there all the same cannot be opened.
pub fn open(chains: &[Chain], openings: &Openings) -> (Vec<Chain>, Vec<Insertion>) {
    let mut opened = chains.to_vec();
    let mut insertions: Vec<Insertion> = Vec::new();
    let packets = openings.packets();
    while insertions.len() < MOST_PLACES {
        let found = packets
            .iter()
            .flat_map(|packet| places(&opened, packet).into_iter().map(|place| (packet.hook, place)))
            .filter_map(|(hook, place)| self::insertion(&opened, hook, &place))
            // A place that has its rules already does not get them again: they do not help.
            .find(|insertion| !insertions.contains(insertion));
        let Some(insertion) = found else { break };
        let comment = openings.comment(insertion.hook);
        let is_chain =
            |c: &&mut Chain| (c.variant, &c.table, &c.name) == (insertion.variant, &insertion.table, &insertion.chain);
        if let Some(chain) = opened.iter_mut().find(is_chain) {
            let at = insertion
                .before
                .and_then(|number| chain.rules.iter().position(|rule| rule.number == number));
            let at = at.unwrap_or(chain.rules.len());
            let rules = if insertion.is_of_firewalld() {
                firewalld::accept_rules(&openings.accept, insertion.hook, &comment)
            } else {
                let accepted = openings.accepted_at(insertion.hook);
                let accepted = accepted.filter(|accept| !insertion.is_of_ufw() || accept.begins_outside_loopback());
                accepted.map(|accept| accept.rule(&comment)).collect()
            };
            chain.rules.splice(at..at, rules);
        }
        insertions.push(insertion);
    }
    (opened, insertions)
}

/// Says what is not as the openings want it, one line each: rules of another setting, rules of which some are gone, and what is dropped although
/// an accept rule can let it through. Nothing when all is well.
pub fn faults(chains: &[Chain], openings: &Openings) -> Vec<String> {
    let mut groups: BTreeMap<(Variant, &str, &str, &str), usize> = BTreeMap::new();
    // Of rules of ufw and firewalld only their files say which there are to be.
    let has_files = |chain: &&Chain| match chain.variant {
        Variant::Nftables => chain.table == firewalld::TABLE,
        Variant::IptablesNft | Variant::IptablesLegacy => chain.name.starts_with(ufw::PREFIX),
    };
    for chain in chains.iter().filter(|chain| !has_files(chain)) {
        let comments = chain.rules.iter().filter_map(|rule| rule.comment.as_deref());
        for comment in comments.filter(|comment| openings.is_marked(Some(comment))) {
            *groups
                .entry((chain.variant, &chain.table, &chain.name, comment))
                .or_default() += 1;
        }
    }
    let mut faults = Vec::new();
    for ((variant, table, chain, comment), count) in groups {
        let hook = Hook::ALL.into_iter().find(|hook| comment == openings.comment(*hook));
        let whole = hook.map(|hook| count_of(openings, hook, variant));
        match whole {
            None | Some(0) => faults.push(format!("table {table}, chain {chain}: rules of an earlier setting")),
            Some(whole) if !count.is_multiple_of(whole) => {
                faults.push(format!(
                    "table {table}, chain {chain}: {count} of {whole} rules are there"
                ));
            }
            Some(_) => {}
        }
    }
    let (opened, _) = open(&without_marked(chains, &openings.mark), openings);
    let mut lost: BTreeMap<Dropped, Vec<String>> = BTreeMap::new();
    for packet in openings.packets() {
        let hopeless = drops(&opened, &packet);
        for place in drops(chains, &packet).into_iter().filter(|d| !hopeless.contains(d)) {
            lost.entry(place).or_default().push(packet.to_string());
        }
    }
    faults.extend(lines(lost));
    faults.extend(unasked(chains, openings));
    faults
}

/// Says where packet filters drop what others send to the NodePort of the sample, one line each: its port may be the only one, so others are not
/// better off. Landfall opens no NodePorts.
pub fn closed_node_ports(chains: &[Chain], openings: &Openings) -> Vec<String> {
    let packets = openings.node_port_packets();
    let places: BTreeSet<Dropped> = packets.iter().flat_map(|packet| drops(chains, packet)).collect();
    places.iter().map(Dropped::to_string).collect()
}

/// One line for each place, with the first packet that is dropped there.
fn lines(lost: BTreeMap<Dropped, Vec<String>>) -> Vec<String> {
    let line = |(place, what): (Dropped, Vec<String>)| match what.as_slice() {
        [] => place.to_string(),
        [first] => format!("{place} ({first})"),
        [first, rest @ ..] => format!("{place} ({first}, and {} more)", rest.len()),
    };
    lost.into_iter().map(line).collect()
}

/// Says what firewalld 2.x, which came after the policies had been written, drops without asking them, and what to do. Landfall cannot mend it: only
/// a zone is asked there, and which zone addresses belong to is their owner's decision.
pub fn unasked(chains: &[Chain], openings: &Openings) -> Option<String> {
    let has_policy = |name: &String| firewalld::loaded(chains, name).is_some();
    if firewalld::has_policies(chains) || !firewalld::names(&openings.mark).iter().any(has_policy) {
        return None;
    }
    let mut lost: BTreeMap<Dropped, Vec<String>> = BTreeMap::new();
    let mut sources = BTreeSet::new();
    for accept in &openings.accept {
        for packet in openings.first_packets(accept) {
            for place in places(chains, &packet) {
                let is_rest = |rule| firewalld::is_rest_of_2(packet.hook, place.chain, rule);
                if place.rule.is_some_and(is_rest) {
                    lost.entry(place.dropped(packet.hook))
                        .or_default()
                        .push(packet.to_string());
                    sources.extend(match &accept.from {
                        Peers::Network(network) => Some(network.to_string()),
                        Peers::Any | Peers::Addresses(_) => packet.source.map(|address| address.to_string()),
                    });
                }
            }
        }
    }
    let lost = lines(lost);
    let sources: Vec<String> = sources.iter().map(|source| format!(" --add-source={source}")).collect();
    (!lost.is_empty()).then(|| {
        format!(
            "firewalld 2.x drops what landfall's policies accept, which it does not ask: {}; give the senders to a zone that accepts them, \
             `firewall-cmd --zone=trusted{}` and the same with `--permanent` (all ports of the node are open to them then), or go back to firewalld 1.x",
            lost.join("; "),
            sources.concat()
        )
    })
}

/// How many rules the openings of one hook are.
fn count_of(openings: &Openings, hook: Hook, variant: Variant) -> usize {
    let accepted = openings.accepted_at(hook);
    match variant {
        Variant::Nftables => accepted.count(),
        Variant::IptablesNft | Variant::IptablesLegacy => accepted.map(|accept| accept.iptables_words().len()).sum(),
    }
}

#[cfg(test)]
mod tests;
