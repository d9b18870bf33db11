//! Checks that compare nodes with each other and with the cluster's networks.

use super::{Finding, choose_address, is_our_link};
use crate::facts::NodeFacts;
use crate::journal::Ownership;
use crate::name::NodeName;
use crate::spec::{Cidr, Desired};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(super) fn check(
    desired: &Desired,
    facts: &BTreeMap<NodeName, NodeFacts>,
    owned: &BTreeMap<NodeName, Ownership>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(twice("duplicate-hostname", "host name", facts, |f| f.hostname.clone()));
    findings.extend(twice("duplicate-machine-id", "machine-id", facts, |f| {
        f.machine_id.clone()
    }));
    findings.extend(addresses(desired, facts));
    findings.extend(clocks(desired, facts));
    findings.extend(networks(desired, facts, owned));
    findings
}

fn twice(
    id: &'static str,
    what: &str,
    facts: &BTreeMap<NodeName, NodeFacts>,
    value: impl Fn(&NodeFacts) -> String,
) -> Vec<Finding> {
    let mut by_value: BTreeMap<String, Vec<NodeName>> = BTreeMap::new();
    for (name, seen) in facts {
        by_value.entry(value(seen)).or_default().push(name.clone());
    }
    let several = by_value.into_iter().filter(|(_, nodes)| nodes.len() > 1);
    several
        .map(|(value, nodes)| Finding {
            id,
            nodes,
            what: format!("several nodes have the same {what}"),
            saw: value,
            next: format!("give every node a {what} of its own (a copied disk image keeps the old one)"),
        })
        .collect()
}

fn addresses(desired: &Desired, facts: &BTreeMap<NodeName, NodeFacts>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut by_address: BTreeMap<IpAddr, Vec<NodeName>> = BTreeMap::new();
    for node in desired.inventory.members() {
        let Some(seen) = facts.get(&node.name) else { continue };
        match choose_address(&desired.spec, node, seen) {
            Ok((address, _)) => by_address.entry(address).or_default().push(node.name.clone()),
            Err(finding) => findings.push(finding),
        }
    }
    findings.extend(
        by_address
            .into_iter()
            .filter(|(_, nodes)| nodes.len() > 1)
            .map(|(address, nodes)| Finding {
                id: "duplicate-address",
                nodes,
                what: "several nodes have the same address".to_owned(),
                saw: address.to_string(),
                next: "set `ip` for each of them in the inventory".to_owned(),
            }),
    );
    findings
}

fn clocks(desired: &Desired, facts: &BTreeMap<NodeName, NodeFacts>) -> Vec<Finding> {
    let mut clocks: Vec<u64> = facts.values().map(|f| f.clock_ms).collect();
    clocks.sort_unstable();
    let Some(median) = clocks.get(clocks.len() / 2).copied() else {
        return vec![];
    };
    let limit = desired.spec.limits.clock_skew_s;
    let off = facts.iter().filter(|(_, f)| f.clock_ms.abs_diff(median) > limit * 1000);
    off.map(|(name, seen)| Finding {
        id: "clock-skew",
        nodes: vec![name.clone()],
        what: format!("the clock differs by more than {limit} s from the fleet's median"),
        saw: format!("{} s", seen.clock_ms.abs_diff(median) / 1000),
        next: "set the clock (timedatectl set-time) or let a time server of your own do it".to_owned(),
    })
    .collect()
}

fn networks(
    desired: &Desired,
    facts: &BTreeMap<NodeName, NodeFacts>,
    owned: &BTreeMap<NodeName, Ownership>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (pods, services) = (desired.spec.pod_network_cidr, desired.spec.service_cidr);
    for (name, seen) in facts {
        let ours = owned.get(name).is_some_and(|own| !own.is_empty());
        for (what, network) in [("pod network", pods), ("Service network", services)] {
            let clash = seen.routes.iter().find(|route| {
                let made_by_us = ours && (is_our_link(&route.interface) || route.destination == services);
                route.destination.prefix > 0 && route.destination.overlaps(&network) && !made_by_us
            });
            if let Some(route) = clash {
                findings.push(overlap(
                    name,
                    what,
                    network,
                    &route.destination.to_string(),
                    &route.interface,
                ));
            }
            let held = seen
                .addresses
                .iter()
                .find(|a| network.contains(a.address) && !(ours && is_our_link(&a.interface)));
            if let Some(address) = held {
                findings.push(overlap(
                    name,
                    what,
                    network,
                    &address.address.to_string(),
                    &address.interface,
                ));
            }
        }
    }
    findings
}

fn overlap(name: &NodeName, what: &str, network: Cidr, seen: &str, interface: &str) -> Finding {
    Finding {
        id: "network-overlap",
        nodes: vec![name.clone()],
        what: format!("the {what} {network} overlaps what the node uses already"),
        saw: format!("{seen} on {interface}"),
        next: "choose another network: podNetworkCidr or serviceCidr in cluster.yaml".to_owned(),
    }
}
