//! Checks that compare nodes with each other and with the cluster's networks.

use super::{Input, choose_address, dns, is_our_link, pod_network};
use crate::facts::{NodeFacts, Route};
use crate::finding::{Check, Finding};
use crate::journal::Ownership;
use crate::name::NodeName;
use crate::plan::key::is_bare;
use crate::spec::{Backend, Cidr, Desired};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(super) fn check(input: &Input) -> Vec<Finding> {
    let Input {
        desired, facts, owned, ..
    } = *input;
    let mut findings = Vec::new();
    findings.extend(twice(Check::DuplicateHostname, "host name", facts, |f| {
        f.hostname.clone()
    }));
    findings.extend(twice(Check::DuplicateMachineId, "machine-id", facts, |f| {
        f.machine_id.clone()
    }));
    findings.extend(addresses(desired, facts));
    findings.extend(clocks(input));
    findings.extend(wrong_clocks(input));
    findings.extend(networks(desired, facts, owned));
    findings.extend(pod_network::check_fleet(input));
    findings.extend(dns::check(input));
    findings
}

fn twice(
    check: Check,
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
        .map(|(value, nodes)| {
            let next = format!("give every node a {what} of its own (a copied disk image keeps the old one)");
            Finding::new(check, format!("several nodes have the same {what}"), value, next).on(&nodes)
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
            .map(|(address, nodes)| {
                let next = "set `ip` for each of them in the inventory";
                let what = "several nodes have the same address";
                Finding::new(Check::DuplicateAddress, what, address.to_string(), next).on(&nodes)
            }),
    );
    findings
}

/// Compares how far each node's clock is ahead of this machine's. Nodes are not looked at in the same moment, and a slow one may take minutes.
fn clocks(input: &Input) -> Vec<Finding> {
    let ahead = input.facts.iter().filter_map(|(name, seen)| {
        let here = input.clocks.get(name)?;
        Some((name, i128::from(seen.clock_ms) - i128::from(*here)))
    });
    let mut all: Vec<i128> = ahead.clone().map(|(_, ahead)| ahead).collect();
    all.sort_unstable();
    let Some(median) = all.get(all.len() / 2).copied() else {
        return vec![];
    };
    let limit = input.desired.spec.limits.clock_skew_s;
    let off = ahead.filter_map(|(name, ahead)| {
        let differs = ahead.abs_diff(median);
        (differs > u128::from(limit) * 1000).then_some((name, differs / 1000))
    });
    off.map(|(name, seconds)| {
        let what = format!("the clock differs by more than {limit} s from the fleet's median");
        Finding::new(Check::ClockSkew, what, format!("{seconds} s"), SET_CLOCK).on([name])
    })
    .collect()
}

const SET_CLOCK: &str = "set the clock (timedatectl set-time) or let a time server of your own do it";

/// Clocks that agree with each other may all be wrong: the operator's clock and the date of the bundle's file know better.
fn wrong_clocks(input: &Input) -> Vec<Finding> {
    let limit = input.desired.spec.limits.clock_skew_s;
    let mut findings = Vec::new();
    for (name, seen) in input.facts {
        let node = utc(seen.clock_ms);
        if let Some(operator) = input
            .clocks
            .get(name)
            .filter(|at| seen.clock_ms.abs_diff(**at) > limit * 1000)
        {
            let what = format!("the clock differs by more than {limit} s from this machine's");
            let saw = format!("{node} on {name}, {} here", utc(*operator));
            let next = format!("set the clock that is wrong: on {name} `timedatectl set-time`, or here");
            findings.push(Finding::new(Check::ClockOperator, what, saw, next).on([name]));
        }
        let written = input.bundle.and_then(|bundle| bundle.written_ms);
        if let Some(written) = written.filter(|written| seen.clock_ms.saturating_add(limit * 1000) < *written) {
            let what = "the clock shows a time before the bundle was made";
            let saw = format!("{node} on {name}, the bundle's file is of {}", utc(written));
            findings.push(Finding::new(Check::ClockBundle, what, saw, SET_CLOCK).on([name]));
        }
    }
    findings
}

/// A time for people, in UTC.
fn utc(ms: u64) -> String {
    let time = i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{ms} ms since 1970"), |time| format!("{time:.0}"))
}

fn networks(
    desired: &Desired,
    facts: &BTreeMap<NodeName, NodeFacts>,
    owned: &BTreeMap<NodeName, Ownership>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (pods, services) = (desired.spec.pod_network_cidr, desired.spec.service_cidr);
    let host_gw = desired.spec.pod_network.backend == Backend::HostGw;
    // flannel's routes to the pods of other nodes.
    let is_flannels = |route: &Route| {
        let inside = route.destination.prefix >= pods.prefix && pods.contains(route.destination.address);
        host_gw && inside && route.gateway.is_some()
    };
    for (name, seen) in facts {
        let ours = owned.get(name).is_some_and(|own| !is_bare(own));
        for (what, network) in [("pod network", pods), ("Service network", services)] {
            let clash = seen.routes.iter().find(|route| {
                let is_our_route = route.destination == services || is_flannels(route);
                let made_by_us = ours && (is_our_link(&route.interface) || is_our_route);
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
    Finding::new(
        Check::NetworkOverlap,
        format!("the {what} {network} overlaps what the node uses already"),
        format!("{seen} on {interface}"),
        "choose another network: podNetworkCidr or serviceCidr in cluster.yaml",
    )
    .on([name])
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn times_are_shown_as_dates() {
        assert_eq!(utc(1_795_874_400_123), "2026-11-28T14:00:00Z");
        assert_eq!(utc(u64::MAX), format!("{} ms since 1970", u64::MAX));
    }
}
