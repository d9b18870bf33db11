//! What the nodes saw of each other, judged: which of two nodes is at fault, or the path between them.

use super::{Member, MeshInput, members};
use crate::finding::{Check, Finding, Severity};
use crate::inventory::Role;
use crate::mesh::{MeshSeen, PortSeen, UdpSeen};
use crate::name::NodeName;
use crate::packet_filter::{Chain, Hook};
use crate::preflight::filters::{Filters, OPENED, drops_between};
use crate::traffic::{Service, proxy_ports};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Round trip between control planes from which etcd's heartbeat of 100 ms is too fast: the heartbeat is to be 0.5 to 1.5 times the round
/// trip (etcd's tuning guide), so from 67 ms on it is below.
const SLOW_US: u64 = 67_000;
/// How many of 20 small datagrams may be lost: one is chance.
const LOST_BY_CHANCE: u32 = 1;

/// Who is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// Nobody reaches anybody.
    Network,
    /// Nobody reaches this node.
    Target(NodeName),
    /// This node reaches nobody.
    Source(NodeName),
    /// The first does not reach the second; others do.
    Between(NodeName, NodeName),
    /// There is nobody else to compare with.
    Either(NodeName, NodeName),
}

/// What was tried of one service, or of one property of the path: pairs, and how those that failed did.
#[derive(Default)]
struct Tried {
    pairs: BTreeSet<(NodeName, NodeName)>,
    failed: BTreeMap<(NodeName, NodeName), String>,
}

impl Tried {
    fn add(&mut self, from: &NodeName, to: &NodeName, failed: Option<String>) {
        let pair = (from.clone(), to.clone());
        self.failed.extend(failed.map(|why| (pair.clone(), why)));
        self.pairs.insert(pair);
    }

    /// Says whose fault it is that `from` does not reach `to`, from what the other pairs tell.
    fn fault(&self, from: &NodeName, to: &NodeName) -> Fault {
        let all = |of: &dyn Fn(&(NodeName, NodeName)) -> bool| {
            let tried: Vec<_> = self.pairs.iter().filter(|pair| of(pair)).collect();
            (tried.len(), tried.iter().all(|pair| self.failed.contains_key(*pair)))
        };
        let (sources, to_is_reached_by_none) = all(&|pair| pair.1 == *to);
        let (targets, from_reaches_none) = all(&|pair| pair.0 == *from);
        let nodes = self.pairs.iter().map(|pair| &pair.1).collect::<BTreeSet<_>>().len();
        if self.pairs.len() > 2 && nodes > 2 && self.failed.len() == self.pairs.len() {
            return Fault::Network;
        }
        match (to_is_reached_by_none, from_reaches_none) {
            (true, _) if sources > 1 => Fault::Target(to.clone()),
            (_, true) if targets > 1 => Fault::Source(from.clone()),
            // The only one that needs it here reaches others.
            (true, false) => Fault::Target(to.clone()),
            (false, true) => Fault::Source(from.clone()),
            (true, true) => Fault::Either(from.clone(), to.clone()),
            (false, false) => Fault::Between(from.clone(), to.clone()),
        }
    }
}

/// Judges what the nodes saw of each other.
pub fn judge(input: &MeshInput, seen: &BTreeMap<NodeName, Vec<MeshSeen>>) -> Vec<Finding> {
    let judge = Judge {
        input,
        seen,
        members: members(input),
        filters: input
            .desired
            .inventory
            .members()
            .filter_map(|node| {
                let uid = input.record.map(|record| &record.uid);
                let facts = input.facts.get(&node.name)?;
                let filters = Filters::of(input.desired, input.facts, uid, node, facts);
                Some((node.name.clone(), filters))
            })
            .collect(),
    };
    let mut findings = judge.services();
    findings.extend(judge.path_mtu());
    findings.extend(judge.loss());
    findings.extend(judge.latency());
    findings
}

struct Judge<'a> {
    input: &'a MeshInput<'a>,
    seen: &'a BTreeMap<NodeName, Vec<MeshSeen>>,
    members: Vec<Member<'a>>,
    filters: BTreeMap<NodeName, Filters>,
}

/// Why a pair failed.
struct Why {
    fault: Fault,
    evidence: Vec<String>,
    /// Whether the rules that this run writes let it through.
    is_mended: bool,
}

/// What one finding is made of: the pairs that failed, by service.
#[derive(Default)]
struct Lost {
    services: BTreeMap<Service, BTreeMap<(NodeName, NodeName), String>>,
    evidence: BTreeSet<String>,
}

impl Judge<'_> {
    fn pairs(&self) -> impl Iterator<Item = (&NodeName, &MeshSeen)> {
        self.seen
            .iter()
            .flat_map(|(from, seen)| seen.iter().map(move |seen| (from, seen)))
    }

    fn udp(&self) -> impl Iterator<Item = (&NodeName, &NodeName, &UdpSeen)> {
        self.pairs()
            .filter_map(|(from, seen)| Some((from, &seen.node, seen.udp.as_ref()?)))
    }

    fn services(&self) -> Vec<Finding> {
        let mut tried: BTreeMap<Service, Tried> = BTreeMap::new();
        for (from, seen) in self.pairs() {
            for (port, what) in &seen.tcp {
                let service = Service {
                    protocol: "tcp",
                    port: *port,
                };
                tried.entry(service).or_default().add(from, &seen.node, failure(what));
            }
            let port = self.input.desired.spec.pod_network.udp_port();
            if let (Some(udp), Some(port)) = (&seen.udp, port) {
                let service = Service { protocol: "udp", port };
                let lost = (udp.answered == 0).then(|| format!("none of {} datagrams was answered", udp.sent));
                tried.entry(service).or_default().add(from, &seen.node, lost);
            }
        }
        let mut lost: BTreeMap<(Check, Fault, bool), Lost> = BTreeMap::new();
        for (service, tried) in &tried {
            for ((from, to), failure) in &tried.failed {
                let why = self.by_rules(*service, from, to).unwrap_or_else(|| Why {
                    fault: tried.fault(from, to),
                    evidence: vec![],
                    is_mended: false,
                });
                let lost = lost
                    .entry((self.check(*service), why.fault, why.is_mended))
                    .or_default();
                lost.services
                    .entry(*service)
                    .or_default()
                    .insert((from.clone(), to.clone()), failure.clone());
                lost.evidence.extend(why.evidence);
            }
        }
        let finding = |((check, fault, is_mended), lost): (&(Check, Fault, bool), &Lost)| {
            let mut finding = self.unreachable(*check, fault, lost);
            if *is_mended {
                OPENED.clone_into(&mut finding.next);
                finding = finding.at_most(Severity::Note);
            }
            finding
        };
        lost.iter().map(finding).collect()
    }

    fn check(&self, service: Service) -> Check {
        match service.protocol {
            "udp" => Check::PeerVxlan,
            _ if proxy_ports(&self.input.desired.spec).any(|port| port == service.port) => Check::PeerIngress,
            _ => Check::PeerPort,
        }
    }

    /// What the rules of both nodes say: where one of them drops it, that is why.
    fn by_rules(&self, service: Service, from: &NodeName, to: &NodeName) -> Option<Why> {
        let addresses = (self.member(from)?.address, self.member(to)?.address);
        let drops = |node: &NodeName, hook: Hook, own: Ipv4Addr, chains: &dyn Fn(&Filters) -> &Vec<Chain>| {
            let facts = self.input.facts.get(node);
            let interface = facts.and_then(|facts| facts.interface_of(own.into()));
            let chains = self.filters.get(node).map_or(&[][..], |filters| chains(filters));
            let drops = drops_between(chains, hook, service, addresses, interface.unwrap_or_default());
            let told: Vec<String> = drops.iter().map(|dropped| format!("on {node}: {dropped}")).collect();
            told
        };
        let of_target = |chains| drops(to, Hook::Input, addresses.1, chains);
        let of_source = |chains| drops(from, Hook::Output, addresses.0, chains);
        let is_mended =
            of_target(&|filters| &filters.wanted).is_empty() && of_source(&|filters| &filters.wanted).is_empty();
        let (by_target, by_source) = (
            of_target(&|filters| &filters.present),
            of_source(&|filters| &filters.present),
        );
        let (fault, evidence) = match (by_target.is_empty(), by_source.is_empty()) {
            (false, _) => (Fault::Target(to.clone()), by_target),
            (true, false) => (Fault::Source(from.clone()), by_source),
            (true, true) => return None,
        };
        Some(Why {
            fault,
            evidence,
            is_mended,
        })
    }

    fn member(&self, name: &NodeName) -> Option<&Member<'_>> {
        self.members.iter().find(|member| member.name == name)
    }

    fn named(&self, name: &NodeName) -> String {
        self.member(name)
            .map_or_else(|| name.to_string(), |member| format!("{name} ({})", member.address))
    }

    fn unreachable(&self, check: Check, fault: &Fault, lost: &Lost) -> Finding {
        let services: Vec<String> = lost.services.keys().map(ToString::to_string).collect();
        let services = services.join(", ");
        let (what, next) = match fault {
            Fault::Network => (
                format!("no node reaches another by {services}"),
                format!(
                    "let {services} through between all nodes: in their packet filters, or in what the network has (a security group, a switch)"
                ),
            ),
            Fault::Target(to) => {
                let whole = if self.is_silent(to) {
                    ": of all that was tried only ssh reaches it"
                } else {
                    ""
                };
                (
                    format!("{} cannot be reached by {services}{whole}", self.named(to)),
                    format!("on {to} (or in what stands before it), let {services} in from the other nodes"),
                )
            }
            Fault::Source(from) => (
                format!("{} reaches no other node by {services}", self.named(from)),
                format!("on {from}, let {services} out to the other nodes, and look at its routes"),
            ),
            Fault::Between(from, to) => (
                format!(
                    "{} does not reach {} by {services}, and others do",
                    self.named(from),
                    self.named(to)
                ),
                format!("look at what is between the two, and at rules of {to} for {from} alone"),
            ),
            Fault::Either(from, to) => (
                format!("{} does not reach {} by {services}", self.named(from), self.named(to)),
                format!(
                    "let {services} in on {to}; if it is open there, look at what {from} lets out and at what is between the two"
                ),
            ),
        };
        let mut saw = told(&lost.services);
        saw.extend(lost.evidence.iter().cloned());
        Finding::new(check, what, saw.join("; "), next).on(&self.nodes(fault))
    }

    fn nodes(&self, fault: &Fault) -> Vec<NodeName> {
        match fault {
            Fault::Network => self.seen.keys().cloned().collect(),
            Fault::Target(node) | Fault::Source(node) => vec![node.clone()],
            Fault::Between(from, to) | Fault::Either(from, to) => vec![from.clone(), to.clone()],
        }
    }

    /// Says whether nothing of a node answered to anybody.
    fn is_silent(&self, node: &NodeName) -> bool {
        self.pairs().filter(|(_, seen)| seen.node == *node).all(|(_, seen)| {
            let udp = seen.udp.as_ref().is_some_and(|udp| udp.answered > 0);
            !udp && seen.tcp.values().all(|port| failure(port).is_some())
        })
    }

    fn path_mtu(&self) -> Vec<Finding> {
        let mut tried = Tried::default();
        let mut sizes: BTreeMap<(NodeName, NodeName), &UdpSeen> = BTreeMap::new();
        for (from, to, udp) in self.udp().filter(|(.., udp)| udp.answered > 0) {
            let lost = udp.largest < udp.mtu;
            tried.add(from, to, lost.then(String::new));
            sizes.insert((from.clone(), to.clone()), udp);
        }
        let mut faults: BTreeMap<Fault, Vec<&(NodeName, NodeName)>> = BTreeMap::new();
        for pair in tried.failed.keys() {
            faults.entry(tried.fault(&pair.0, &pair.1)).or_default().push(pair);
        }
        let finding = |(fault, pairs): (&Fault, &Vec<&(NodeName, NodeName)>)| {
            let smallest = pairs.iter().map(|pair| sizes[*pair].largest).min().unwrap_or(0);
            let saw = pairs.iter().map(|pair| {
                let udp = sizes[*pair];
                format!(
                    "{} to {}: interface {} bytes, {} passed",
                    pair.0, pair.1, udp.mtu, udp.largest
                )
            });
            let where_to = match fault {
                Fault::Network => "between all nodes".to_owned(),
                Fault::Target(to) => format!("on the way to {}", self.named(to)),
                Fault::Source(from) => format!("on the way from {}", self.named(from)),
                Fault::Between(from, to) | Fault::Either(from, to) => {
                    format!("from {} to {}", self.named(from), self.named(to))
                }
            };
            let what = format!("packets as large as the interface sends them are lost {where_to}");
            let next = format!(
                "set the interfaces of all nodes to an MTU of {smallest} (`ip link set dev INTERFACE mtu {smallest}`, and in the settings that \
                 are read at the boot), or let the network carry more; where TCP between the nodes finds the size by itself, `podNetwork.mtu` of {} \
                 with `accept: [path-mtu]` keeps pods below it",
                smallest.saturating_sub(self.input.desired.spec.pod_network.backend.overhead().into())
            );
            Finding::new(Check::PathMtu, what, saw.collect::<Vec<_>>().join("; "), next).on(&self.nodes(fault))
        };
        faults.iter().map(finding).collect()
    }

    fn loss(&self) -> Option<Finding> {
        let lossy = self
            .udp()
            .filter(|(.., udp)| udp.answered > 0 && udp.sent > udp.answered + LOST_BY_CHANCE);
        let lossy: Vec<_> = lossy.collect();
        let saw = lossy
            .iter()
            .map(|(from, to, udp)| format!("{from} to {to}: {} of {}", udp.sent - udp.answered, udp.sent));
        let finding = Finding::new(
            Check::PathLoss,
            "datagrams are lost between nodes",
            saw.collect::<Vec<_>>().join("; "),
            "look at cables, switches and the load of the machines, then try again: `landfall preflight`",
        );
        (!lossy.is_empty()).then(|| finding.on(ends(&lossy)))
    }

    fn latency(&self) -> Option<Finding> {
        let is_control_plane = |name: &NodeName| {
            self.member(name)
                .is_some_and(|member| member.role == Role::ControlPlane)
        };
        let slow = self.udp().filter(|(from, to, udp)| {
            is_control_plane(from) && is_control_plane(to) && udp.round_trip_us.is_some_and(|us| us >= SLOW_US)
        });
        let slow: Vec<_> = slow.collect();
        let saw = slow
            .iter()
            .map(|(from, to, udp)| format!("{from} to {to}: {} ms", udp.round_trip_us.unwrap_or(0) / 1000));
        let finding = Finding::new(
            Check::PathLatency,
            format!("round trips between control planes of {} ms and more", SLOW_US / 1000),
            saw.collect::<Vec<_>>().join("; "),
            "put the control planes near each other, workers may be far away",
        );
        (!slow.is_empty()).then(|| finding.on(ends(&slow)))
    }
}

fn ends<'a>(pairs: &[(&'a NodeName, &'a NodeName, &UdpSeen)]) -> BTreeSet<&'a NodeName> {
    pairs.iter().flat_map(|(from, to, _)| [*from, *to]).collect()
}

/// Says how a port failed, if it did.
fn failure(seen: &PortSeen) -> Option<String> {
    match seen {
        PortSeen::Open { .. } => None,
        PortSeen::Silent => Some("no answer".to_owned()),
        PortSeen::Refused => Some("refused, although it is listened on".to_owned()),
        PortSeen::Closed(why) => Some(why.clone()),
        PortSeen::Stranger => Some("something else answers".to_owned()),
    }
}

/// What was seen, one part for each way in which services failed.
fn told(services: &BTreeMap<Service, BTreeMap<(NodeName, NodeName), String>>) -> Vec<String> {
    let mut by_pairs: BTreeMap<(String, &str), Vec<String>> = BTreeMap::new();
    for (service, failed) in services {
        let mut by_why: BTreeMap<&str, BTreeMap<&NodeName, Vec<&str>>> = BTreeMap::new();
        for ((from, to), why) in failed {
            by_why
                .entry(why)
                .or_default()
                .entry(to)
                .or_default()
                .push(from.as_str());
        }
        for (why, targets) in by_why {
            let pairs: Vec<String> = targets
                .iter()
                .map(|(to, from)| format!("{} to {to}", from.join(", ")))
                .collect();
            by_pairs
                .entry((pairs.join(", "), why))
                .or_default()
                .push(service.to_string());
        }
    }
    let part = |((pairs, why), services): ((String, &str), Vec<String>)| {
        format!("{} from {pairs}: {why}", services.join(", "))
    };
    by_pairs.into_iter().map(part).collect()
}
