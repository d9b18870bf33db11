//! The nodes' own DNS servers, by which names outside a new cluster are to be resolved.

use super::Input;
use crate::dns_policy::{self, DnsPolicy, dns_policy, usable};
use crate::facts::NodeFacts;
use crate::finding::{Check, Finding};
use crate::journal::member_records;
use crate::name::NodeName;
use crate::plan::key::is_bare;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Says that the policy chosen from these facts resolves no name outside the cluster, and why. Nothing is said where the spec names servers,
/// where an earlier run has decided, or where no node names a server: an air gap has none.
pub(super) fn check(input: &Input) -> Option<Finding> {
    let records = member_records(input.owned).map(|(_, record)| record);
    let record = records.max_by_key(|record| record.sequence);
    let is_decided = dns_policy::kept(record).is_some();
    // A cluster of an older landfall has no record: what it does is read from the cluster itself.
    let is_unknown = record.is_none() && input.owned.values().any(|own| !is_bare(own));
    let has_servers = input.facts.values().any(|facts| !facts.dns_servers.is_empty());
    if is_decided || is_unknown || !has_servers {
        return None;
    }
    // A server that nobody asked is not judged.
    let is_asked = |facts: &NodeFacts, server: &IpAddr| server.is_loopback() || facts.dns_answers.contains_key(server);
    let mut facts = input.facts.values();
    if facts.any(|facts| facts.dns_servers.iter().any(|server| !is_asked(facts, server))) {
        return None;
    }
    match dns_policy(&input.desired.spec.upstream_dns, None, input.facts.values()) {
        DnsPolicy::Closed => Some(finding(input.facts)),
        DnsPolicy::Forward(_) => None,
    }
}

fn finding(facts: &BTreeMap<NodeName, NodeFacts>) -> Finding {
    let next = "name servers that every node reaches in `upstreamDns`, or zones of the site in `stubZones`; both can be set later, and until then \
                it stays as it is now";
    let without: Vec<(&NodeName, &NodeFacts)> = facts.iter().filter(|(_, f)| usable(f).next().is_none()).collect();
    if without.is_empty() {
        let what = "names outside the cluster will not be resolved: no DNS server answers every node that names it";
        let finding = Finding::new(Check::DnsServers, what, silent_to(facts).join("; "), next);
        return finding.on(facts.keys());
    }
    let what =
        "names outside the cluster will not be resolved: not every node has a DNS server that its pods could ask";
    let saw: Vec<String> = without
        .iter()
        .map(|(name, facts)| format!("{name}: {}", states(facts)))
        .collect();
    Finding::new(Check::DnsServers, what, saw.join("; "), next).on(without.iter().map(|(name, _)| *name))
}

/// Says of each server of a node why it cannot be used.
fn states(facts: &NodeFacts) -> String {
    let state = |server: &IpAddr| {
        if server.is_loopback() {
            format!("{server} is the node's own, which pods cannot ask")
        } else if server.is_ipv6() {
            format!("{server} has an IPv6 address, and pods have IPv4 addresses alone")
        } else {
            format!("{server} did not answer within 2 s")
        }
    };
    let states: Vec<String> = facts.dns_servers.iter().map(state).collect();
    if states.is_empty() {
        "it names no server".to_owned()
    } else {
        states.join(", ")
    }
}

/// Says of each server that answers somewhere which nodes it is silent to.
fn silent_to(facts: &BTreeMap<NodeName, NodeFacts>) -> Vec<String> {
    let servers: BTreeSet<IpAddr> = facts.values().flat_map(usable).collect();
    let nodes = |server: &IpAddr, wanted: fn(&Option<String>) -> bool| -> Vec<&str> {
        let told = facts
            .iter()
            .filter(|(_, f)| f.dns_answers.get(server).is_some_and(wanted));
        told.map(|(name, _)| name.as_str()).collect()
    };
    let told = servers.iter().map(|server| {
        let (to, silent) = (nodes(server, Option::is_some), nodes(server, Option::is_none));
        format!("{server} answers {} and not {}", to.join(", "), silent.join(", "))
    });
    told.collect()
}
