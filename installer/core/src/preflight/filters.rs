//! Packet filters that would drop what the cluster needs, named by table, chain and rule.

use super::{Look, choose_address};
use crate::cluster_record::ClusterUid;
use crate::facts::NodeFacts;
use crate::finding::{Check, Finding, Severity};
use crate::inventory::{Node, Role};
use crate::journal::Ownership;
use crate::layout;
use crate::name::NodeName;
use crate::packet_filter::accept::BRIDGE;
use crate::packet_filter::openings::{self, Insertion, Openings, POD_PORT};
use crate::packet_filter::{self, Chain, Dropped, Hook, Packet, Variant, firewalld, ufw};
use crate::spec::{ClusterSpec, Desired, Firewall, ProxyMode};
use crate::traffic::{self, Peer, Service, ingress_ports, services};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Returns where a node's packet filter drops what another node sends to it, or it to another.
pub(super) fn drops_between(
    chains: &[Chain],
    hook: Hook,
    service: Service,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    interface: &str,
) -> Vec<Dropped> {
    let packet = Packet {
        hook,
        protocol: service.protocol,
        port: service.port,
        source: Some(source),
        destination: Some(destination),
        from: (hook != Hook::Output).then_some(interface),
        to: (hook != Hook::Input).then_some(interface),
        is_translated: false,
    };
    packet_filter::drops(chains, &packet)
}

/// Returns the IPv4 address and the interface of a node.
pub(super) fn own_address(desired: &Desired, node: &Node, facts: &NodeFacts) -> Option<(Ipv4Addr, String)> {
    match choose_address(&desired.spec, node, facts).ok()? {
        (IpAddr::V4(address), interface) => Some((address, interface)),
        (IpAddr::V6(_), _) => None,
    }
}

/// What is to be done about a filter that this run opens.
pub(super) const OPENED: &str = "nothing: landfall writes rules that let it through (`firewall: open`)";

/// What is dropped at one place: services with who is kept from them, and what pods are kept from.
#[derive(Default)]
struct Lost {
    services: BTreeMap<Service, BTreeSet<String>>,
    pods: BTreeSet<&'static str>,
}

/// The rules of a node.
pub(super) struct Filters {
    /// As they are.
    pub present: Vec<Chain>,
    /// As they are without landfall's: what the machine's owner wants.
    foreign: Vec<Chain>,
    /// As this run leaves them.
    pub wanted: Vec<Chain>,
    /// Where this run lets something through.
    insertions: Vec<Insertion>,
    /// The mark of the cluster's rules.
    mark: String,
}

impl Filters {
    /// Reads the rules of a node, and finds what this run makes of them. `uid` is that of the cluster, where there is one.
    pub(super) fn of(
        desired: &Desired,
        facts: &BTreeMap<NodeName, NodeFacts>,
        uid: Option<&ClusterUid>,
        node: &Node,
        seen: &NodeFacts,
    ) -> Self {
        let present = packet_filter::chains(&seen.survey.filters);
        let mark = Openings::mark_of(uid.map_or("", ClusterUid::as_str));
        let foreign = openings::without_marked(&present, &mark);
        let (wanted, insertions) = match (desired.spec.firewall, own_address(desired, node, seen)) {
            (Firewall::Open, Some((address, interface))) => {
                let peers = desired.inventory.members().filter(|peer| peer.name != node.name);
                let peers = peers.filter_map(|peer| {
                    let address = own_address(desired, peer, facts.get(&peer.name)?)?.0;
                    let role = peer.role;
                    Some(Peer { role, address })
                });
                let (peers, role): (Vec<Peer>, Role) = (peers.collect(), node.role);
                let own = Peer { role, address };
                let wanted = traffic::openings(&desired.spec, &mark, own, &interface, &peers);
                openings::open(&foreign, &wanted)
            }
            _ => (foreign.clone(), vec![]),
        };
        Self {
            present,
            foreign,
            wanted,
            insertions,
            mark,
        }
    }
}

pub(super) fn check(look: &mut Look) {
    let input = look.input;
    let uid = input
        .owned
        .values()
        .find_map(Ownership::record)
        .map(|record| &record.uid);
    let filters = Filters::of(input.desired, input.facts, uid, look.node, look.facts);
    let left = lost(look, &filters.wanted);
    for (dropped, lost) in &left {
        let finding = finding(look, &filters.wanted, dropped, lost);
        look.add_before_install(finding);
    }
    if input.desired.spec.firewall == Firewall::Open {
        opened(look, &filters.foreign, &left);
        policies(look, &filters);
    }
    unread(look);
}

/// Notes what rules of others drop and this run lets through. `left` stays dropped.
fn opened(look: &mut Look, foreign: &[Chain], left: &BTreeMap<Dropped, Lost>) {
    for (dropped, lost) in lost(look, foreign) {
        if !left.contains_key(&dropped) {
            let finding = finding(look, foreign, &dropped, &lost);
            let next = OPENED.to_owned();
            look.add(Finding { next, ..finding }.at_most(Severity::Note));
        }
    }
}

/// What stands against a policy in firewalld: it loads a new one by a reload alone, and one for everybody is for those too whom a zone shuts out,
/// unless it names them.
fn policies(look: &mut Look, filters: &Filters) {
    if !filters.insertions.iter().any(Insertion::is_of_firewalld) {
        return;
    }
    let names = firewalld::names(&filters.mark);
    let is_loaded = names
        .iter()
        .any(|name| firewalld::loaded(&filters.present, name).is_some());
    let differences = &look.facts.survey.filters.firewalld_differences;
    if !is_loaded && !differences.is_empty() {
        let what =
            "firewalld must be reloaded for landfall's policies, and what it has loaded is not what it has saved";
        let next =
            "`firewall-cmd --runtime-to-permanent` saves what is loaded; `firewall-cmd --reload` takes what is saved";
        look.add(Finding::new(Check::Firewall, what, differences.join("; "), next));
    }
    let ports: Vec<String> = ingress_ports(&look.input.desired.spec)
        .map(|port| port.to_string())
        .collect();
    let zones = firewalld::bans(&filters.present)
        .into_iter()
        .filter(|ban| ban.has_others);
    let zones: Vec<String> = zones.map(|ban| ban.zone).collect();
    if !ports.is_empty() && !zones.is_empty() {
        let what = format!(
            "sets or hardware addresses that a zone of firewalld shuts out will reach the ingress ports {}",
            ports.join(", ")
        );
        let next = "shut them out by a rule of the zone into which they come otherwise: `firewall-cmd --permanent --zone=public \
                    --add-rich-rule='rule source ipset=NAME drop'`";
        let finding = Finding::new(Check::Firewall, what, zones.join(", "), next);
        look.add(finding.at_most(Severity::Warn));
    }
}

/// Returns what is dropped, by the place where it is.
fn lost(look: &Look, chains: &[Chain]) -> BTreeMap<Dropped, Lost> {
    let mut lost: BTreeMap<Dropped, Lost> = BTreeMap::new();
    if let Some((address, interface)) = own_address(look.input.desired, look.node, look.facts) {
        peers(look, chains, (address, &interface), &mut lost);
        clients(look, chains, (address, &interface), &mut lost);
        pods(look, chains, (address, &interface), &mut lost);
    }
    lost
}

fn add_lost(lost: &mut BTreeMap<Dropped, Lost>, dropped: Dropped, service: Service, who: String) {
    let lost = lost.entry(dropped).or_default();
    lost.services.entry(service).or_default().insert(who);
}

/// What other nodes send to this one, and this one to them.
fn peers(look: &Look, chains: &[Chain], own: (Ipv4Addr, &str), lost: &mut BTreeMap<Dropped, Lost>) {
    let (desired, facts) = (look.input.desired, look.input.facts);
    let (address, interface) = own;
    for peer in desired.inventory.members().filter(|peer| peer.name != look.node.name) {
        let seen = facts.get(&peer.name);
        let Some((other, _)) = seen.and_then(|seen| own_address(desired, peer, seen)) else {
            continue;
        };
        for service in services(&desired.spec, peer.role, look.node.role) {
            for dropped in drops_between(chains, Hook::Input, service, (other, address), interface) {
                add_lost(lost, dropped, service, format!("from {}", peer.name));
            }
        }
        for service in services(&desired.spec, look.node.role, peer.role) {
            for dropped in drops_between(chains, Hook::Output, service, (address, other), interface) {
                add_lost(lost, dropped, service, format!("to {}", peer.name));
            }
        }
    }
}

/// What clients of the ingress send, whoever they are.
fn clients(look: &Look, chains: &[Chain], own: (Ipv4Addr, &str), lost: &mut BTreeMap<Dropped, Lost>) {
    for port in ingress_ports(&look.input.desired.spec) {
        let packet = Packet {
            hook: Hook::Input,
            protocol: "tcp",
            port,
            source: None,
            destination: Some(own.0),
            from: Some(own.1),
            to: None,
            is_translated: false,
        };
        for dropped in packet_filter::drops(chains, &packet) {
            let service = Service { protocol: "tcp", port };
            add_lost(lost, dropped, service, "from clients".to_owned());
        }
    }
}

/// What pods send: to the API server of their node, to pods of other nodes, and to the outside.
fn pods(look: &Look, chains: &[Chain], own: (Ipv4Addr, &str), lost: &mut BTreeMap<Dropped, Lost>) {
    let spec = &look.input.desired.spec;
    let first = u32::from(spec.pod_network_cidr.address);
    let (here, there) = (Ipv4Addr::from(first | 5), Ipv4Addr::from(first | 0x105));
    let to_api = Packet {
        hook: Hook::Input,
        protocol: "tcp",
        port: layout::API_SERVER_PORT,
        source: Some(here),
        destination: Some(own.0),
        from: Some(BRIDGE),
        to: None,
        is_translated: true,
    };
    let through = |source, destination, from, to| Packet {
        hook: Hook::Forward,
        protocol: "tcp",
        port: POD_PORT,
        source: Some(source),
        destination,
        from: Some(from),
        to: Some(to),
        is_translated: false,
    };
    let tunnel = traffic::pods_link(spec, own.1);
    let packets = [
        ("pods to the API server", to_api),
        (
            "pods to pods of other nodes",
            through(here, Some(there), BRIDGE, tunnel),
        ),
        (
            "pods of other nodes to pods",
            through(there, Some(here), tunnel, BRIDGE),
        ),
        ("pods to the outside", through(here, None, BRIDGE, own.1)),
    ];
    for (what, packet) in packets {
        if packet.hook == Hook::Input && look.node.role != Role::ControlPlane {
            continue;
        }
        for dropped in packet_filter::drops(chains, &packet) {
            if !is_accepted_by_flannel(spec, &dropped) {
                lost.entry(dropped).or_default().pods.insert(what);
            }
        }
    }
}

/// With iptables flannel appends rules to the chain that accept what pods send, ahead of its policy (flannel,
/// pkg/trafficmngr/iptables). With nftables its rules stand in a table of their own, which does not help.
fn is_accepted_by_flannel(spec: &ClusterSpec, dropped: &Dropped) -> bool {
    let is_its_chain = dropped.table == "ip filter" && dropped.hook == Hook::Forward;
    spec.proxy_mode == ProxyMode::Iptables && is_its_chain && dropped.rule.is_none()
}

fn finding(look: &Look, chains: &[Chain], dropped: &Dropped, lost: &Lost) -> Finding {
    let members: Vec<&NodeName> = look
        .input
        .facts
        .keys()
        .filter(|name| **name != look.node.name)
        .collect();
    // Services that the same ones are kept from are told together.
    let mut by_who: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (service, who) in &lost.services {
        by_who
            .entry(words(who, &members))
            .or_default()
            .push(service.to_string());
    }
    let mut parts: Vec<String> = by_who
        .into_iter()
        .map(|(who, services)| format!("{} {who}", services.join(", ")))
        .collect();
    parts.extend(lost.pods.iter().map(|what| (*what).to_owned()));
    let what = format!(
        "a packet filter{} drops: {}",
        owner(chains, dropped).0,
        parts.join("; ")
    );
    Finding::new(
        Check::PacketFilter,
        what,
        dropped.to_string(),
        advice(look, chains, dropped, lost),
    )
}

/// Names who is kept from a port; all other nodes by that.
fn words(who: &BTreeSet<String>, members: &[&NodeName]) -> String {
    let mut words = Vec::new();
    for direction in ["from", "to"] {
        let of: Vec<&str> = who
            .iter()
            .filter_map(|w| w.strip_prefix(direction)?.strip_prefix(' '))
            .collect();
        let named: Vec<&str> = of.iter().copied().filter(|name| *name != "clients").collect();
        if named.len() > 1 && named.len() == members.len() {
            words.push(format!("{direction} all other nodes"));
        } else if !named.is_empty() {
            words.push(format!("{direction} {}", named.join(", ")));
        }
        if of.contains(&"clients") && named.len() < members.len().max(1) {
            words.push("from clients".to_owned());
        }
    }
    words.join(" and ")
}

/// Names whose rules these are, where their names tell, and how theirs are changed.
fn owner(chains: &[Chain], dropped: &Dropped) -> (&'static str, Option<&'static str>) {
    let in_table = |prefix: &str| {
        let mut own = chains.iter().filter(|chain| chain.table == dropped.table);
        own.any(|chain| chain.name.starts_with(prefix))
    };
    if dropped.table == firewalld::TABLE {
        let next = "set `firewall: open`, or give the addresses of the other nodes and the pod network to the zone trusted: `firewall-cmd --permanent --zone=trusted \
                    --add-source=ADDRESS`, or `systemctl disable --now firewalld`";
        return (" (firewalld)", Some(next));
    }
    if dropped.table == "ip filter" && in_table(ufw::PREFIX) {
        let next = "set `firewall: open`, or `ufw allow from ADDRESS` for each other node and the pod network, `ufw default allow routed` for pods, or `ufw disable`";
        return (" (ufw)", Some(next));
    }
    if dropped.table == "ip filter" && dropped.hook == Hook::Forward && dropped.rule.is_none() && in_table("DOCKER") {
        return (
            " (the policy that Docker sets)",
            Some("`iptables -P FORWARD ACCEPT`, or remove Docker and boot"),
        );
    }
    ("", None)
}

/// How advice begins where a setting of landfall's would do.
const SET: &str = "set `firewall: open`, or ";

fn advice(look: &Look, chains: &[Chain], dropped: &Dropped, lost: &Lost) -> String {
    let setting = match look.input.desired.spec.firewall {
        Firewall::Keep if !dropped.is_prerouting => SET,
        Firewall::Keep | Firewall::Open => "",
    };
    if let (_, Some(next)) = owner(chains, dropped) {
        return match next.strip_prefix(SET) {
            Some(next) => format!("{setting}{next}"),
            None => next.to_owned(),
        };
    }
    let is_iptables = dropped.variant != Variant::Nftables;
    let chain = match (is_iptables, dropped.table.strip_prefix("ip ")) {
        (true, Some(table)) if table != "filter" => format!("{} -t {table}", dropped.base),
        _ => dropped.base.clone(),
    };
    let mut rules = Vec::new();
    for protocol in ["tcp", "udp"] {
        let ports: Vec<String> = lost
            .services
            .keys()
            .filter(|s| s.protocol == protocol)
            .map(|s| s.port.to_string())
            .collect();
        if !ports.is_empty() && is_iptables {
            rules.push(format!(
                "`iptables -I {chain} -p {protocol} -m multiport --dports {} -j ACCEPT`",
                ports.join(",")
            ));
        } else if !ports.is_empty() {
            let ports = ports.join(", ");
            rules.push(format!(
                "`nft insert rule {} {chain} {protocol} dport '{{ {ports} }}' accept`",
                dropped.table
            ));
        }
    }
    if !lost.pods.is_empty() {
        let network = look.input.desired.spec.pod_network_cidr;
        for (iptables, nftables) in [("-s", "saddr"), ("-d", "daddr")] {
            rules.push(if is_iptables {
                format!("`iptables -I {chain} {iptables} {network} -j ACCEPT`")
            } else {
                format!(
                    "`nft insert rule {} {chain} ip {nftables} {network} accept`",
                    dropped.table
                )
            });
        }
    }
    format!(
        "{setting}let it through, also in the file that the rules come from: {}",
        rules.join(", ")
    )
}

/// Chains that the host's programs could not print.
fn unread(look: &mut Look) {
    let filters = &look.facts.survey.filters;
    if !filters.unread.is_empty() {
        let what = "chains drop what no rule accepts, and their rules could not be read";
        let next = "look at the rules yourself, or install nft (or iptables, where it made them) on the node";
        let finding = Finding::new(Check::PacketFilter, what, filters.unread.join(", "), next);
        look.add(finding.at_most(Severity::Warn));
    }
    if !filters.unread_legacy.is_empty() {
        let why = format!(
            "iptables-save is not there for the legacy tables {}",
            filters.unread_legacy.join(", ")
        );
        look.not_determined(Check::PacketFilter, why);
    }
}
