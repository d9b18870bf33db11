//! Looking at the machine. Reads only, but for the tries of [`survey`], which leave nothing: netlink, /proc, /sys, what systemd says.

pub(crate) mod filters;
mod places;
mod survey;
mod tries;

pub(crate) use filters::firewalld_differences;

use crate::actions::system::{ModuleIndex, has_feature};
use crate::actions::unit::{self, UnitState};
use crate::agent::Agent;
use crate::child::Job;
use crate::dns::{self, ResolverFile};
use crate::error::{AgentError, Result};
use crate::files;
use crate::host::Host;
use crate::processes::all_pids;
use base64::Engine as _;
use landfall_core::action::FeatureEvidence;
use landfall_core::facts::{FactsQuery, InterfaceAddress, InterfaceFacts, NodeFacts, PacketFilters, Survey};
use landfall_core::name::Digest;
use landfall_core::packet_filter::{self, firewalld};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// A DNS server that takes longer counts as not working.
const DNS_LIMIT: Duration = Duration::from_secs(2);

/// Gathers facts. Blocks about 2 s when DNS is asked and does not answer; the tries of a survey take some 100 ms; else some milliseconds.
pub fn gather(agent: &Agent, query: &FactsQuery) -> Result<NodeFacts> {
    let host = &agent.host;
    let text = |path: &str| files::text(host.at(path));
    let uname = rustix::system::uname();
    let kernel = |what: &str| {
        let what = what.to_owned();
        move |source| AgentError::Kernel { what, source }
    };
    let dns_servers = dns_servers(host);
    let asked_servers = dns_servers.clone();
    let dns_thread = query
        .ask_dns
        .then(|| thread::spawn(move || dns_answers(&asked_servers)));
    let mut peer_routes = BTreeMap::new();
    for peer in &query.peers {
        if let Some(route) = host.network().route_to(*peer).map_err(kernel("asking for a route"))? {
            peer_routes.insert(*peer, route);
        }
    }
    let memory_kib = meminfo(&text("/proc/meminfo"), "MemTotal").unwrap_or(0);
    let storage = nearest_existing(host, Path::new(landfall_core::layout::STATE_DIR));
    let space = rustix::fs::statvfs(&storage).map_err(|errno| AgentError::Kernel {
        what: "asking for free disk space".to_owned(),
        source: errno.into(),
    })?;
    let states = unit_states(agent, &query.units);
    let addresses = host.network().addresses().map_err(kernel("listing addresses"))?;
    let mut facts = NodeFacts {
        hostname: text("/proc/sys/kernel/hostname").trim().to_owned(),
        machine_id: text("/etc/machine-id").trim().to_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        os: os_name(host),
        systemd: systemd_version(agent),
        cpus: thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_mib: memory_kib / 1024,
        disk_free_mib: space.f_bfree.saturating_mul(space.f_frsize) / (1024 * 1024),
        clock_ms: 0,
        interfaces: interfaces(host, &addresses),
        addresses,
        routes: host.network().routes().map_err(kernel("listing routes"))?,
        peer_routes,
        ports_taken: ports_taken(host, &query.tcp_ports, &query.udp_ports),
        programs: query
            .programs
            .iter()
            .filter(|p| host.find_program(p).is_some())
            .cloned()
            .collect(),
        paths: query
            .paths
            .iter()
            .filter(|p| std::fs::symlink_metadata(host.at(p)).is_ok())
            .cloned()
            .collect(),
        units: states
            .iter()
            .map(|(name, s)| (name.clone(), s.active.clone()))
            .collect(),
        features: available_features(host, query),
        swaps: text("/proc/swaps")
            .lines()
            .skip(1)
            .filter_map(|l| l.split_whitespace().next().map(str::to_owned))
            .collect(),
        cgroup_version: if host.at("/sys/fs/cgroup/cgroup.controllers").exists() {
            2
        } else {
            1
        },
        selinux_enforcing: text("/sys/fs/selinux/enforce").trim() == "1",
        dns_servers,
        dns_answers: BTreeMap::new(),
        cluster_ca: cluster_ca(host),
        survey: survey(agent, query, &states).map_err(kernel("looking at the machine"))?,
    };
    facts.dns_answers = dns_thread.and_then(|t| t.join().ok()).unwrap_or_default();
    // Last, so that our own waits do not count as a difference to the operator's clock.
    facts.clock_ms = host.now_ms();
    Ok(facts)
}

/// Hashes the certificate of the cluster's CA, where there is one. The hash is that of its DER form, which white space does not change.
fn cluster_ca(host: &Host) -> Option<Digest> {
    let text = std::fs::read_to_string(host.at("/etc/kubernetes/pki/ca.crt")).ok()?;
    let body: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .map(str::trim)
        .collect();
    let der = base64::engine::general_purpose::STANDARD.decode(&body);
    Some(Digest::of(&der.unwrap_or_else(|_| text.into_bytes())))
}

/// What preflight alone looks at, where it is asked for.
fn survey(agent: &Agent, query: &FactsQuery, states: &BTreeMap<String, UnitState>) -> std::io::Result<Survey> {
    let Some(asked) = &query.survey else {
        return Ok(Survey::default());
    };
    let host = &agent.host;
    let enabled = states.iter().filter(|(_, state)| state.is_enabled());
    let mut filters = asked
        .filters_without
        .as_ref()
        .map_or_else(PacketFilters::default, |own| filters::read(agent, own));
    if firewalld::has_policies(&packet_filter::chains(&filters)) {
        let differences = firewalld_differences(agent);
        filters.firewalld_differences = differences.unwrap_or_else(|error| vec![error.line()]);
    }
    Ok(Survey {
        enabled_units: enabled.map(|(name, _)| name.clone()).collect(),
        features_now: features_now(host, query),
        filters,
        nft_version: filters::nft_version(agent),
        ..survey::gather(host, asked)?
    })
}

/// Looks at the interfaces that carry addresses.
fn interfaces(host: &Host, addresses: &[InterfaceAddress]) -> BTreeMap<String, InterfaceFacts> {
    let carrying = addresses.iter().filter(|address| !address.address.is_loopback());
    let look = |address: &InterfaceAddress| {
        let name = address.interface.clone();
        let mtu = files::text(host.at(format!("/sys/class/net/{name}/mtu")))
            .trim()
            .parse()
            .ok()?;
        let mut drivers = BTreeSet::new();
        add_drivers(host, &name, LAYERS, &mut drivers);
        Some((name, InterfaceFacts { mtu, drivers }))
    };
    carrying.filter_map(look).collect()
}

/// Layers of links above a network card: a bridge on a VLAN on a bond, and one to spare.
const LAYERS: u32 = 4;

/// Adds the driver of a network card, or those of the cards below a bond, bridge or VLAN (`lower_*`).
fn add_drivers(host: &Host, interface: &str, layers: u32, drivers: &mut BTreeSet<String>) {
    let link = host.at(format!("/sys/class/net/{interface}"));
    let driver = std::fs::read_link(link.join("device/driver"));
    drivers.extend(
        driver
            .ok()
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
    );
    for entry in std::fs::read_dir(&link).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(lower) = name.to_string_lossy().strip_prefix("lower_").filter(|_| layers > 0) {
            add_drivers(host, lower, layers - 1, drivers);
        }
    }
}

fn os_name(host: &Host) -> String {
    let text = files::text(host.at("/etc/os-release"));
    let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.unwrap_or_default().trim_matches('"').to_owned()
}

fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns where the nearest directory really is, from a path of the machine upwards.
fn nearest_existing(host: &Host, path: &Path) -> std::path::PathBuf {
    path.ancestors()
        .map(|p| host.at(p))
        .find(|p| p.exists())
        .unwrap_or_else(|| host.at("/"))
}

fn systemd_version(agent: &Agent) -> Option<u32> {
    if !agent.host.at("/run/systemd/system").is_dir() {
        return None;
    }
    let text = agent
        .children
        .run(&agent.host, Job::quick(&["systemctl", "--version"], 10))
        .ok()?
        .text();
    // "systemd 252 (252.39-1~deb12u1)"; the number alone counts.
    text.split_whitespace()
        .nth(1)?
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn unit_states(agent: &Agent, names: &[String]) -> BTreeMap<String, UnitState> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut states = unit::states(&agent.children, &agent.host, &names).unwrap_or_default();
    states.retain(|_, state| !matches!(state.load.as_str(), "not-found" | ""));
    states
}

fn features_now(host: &Host, query: &FactsQuery) -> BTreeSet<String> {
    let there = query.features.iter().filter(|f| has_feature(host, &f.evidence));
    there.map(|f| f.module.clone()).collect()
}

fn available_features(host: &Host, query: &FactsQuery) -> BTreeSet<String> {
    let index = ModuleIndex::read(host);
    let there = |evidence: &FeatureEvidence, module: &str| has_feature(host, evidence) || index.has(module);
    query
        .features
        .iter()
        .filter(|f| there(&f.evidence, &f.module))
        .map(|f| f.module.clone())
        .collect()
}

/// The node's own servers: behind systemd-resolved's local stub are the real ones.
fn dns_servers(host: &Host) -> Vec<IpAddr> {
    let servers = |path: &str| ResolverFile::parse(&files::text(host.at(path))).servers;
    let own = servers("/etc/resolv.conf");
    let stub = own
        .iter()
        .any(|s| matches!(s, IpAddr::V4(v4) if v4.octets() == [127, 0, 0, 53]));
    let behind = if stub {
        servers("/run/systemd/resolve/resolv.conf")
    } else {
        vec![]
    };
    if behind.is_empty() { own } else { behind }
}

/// Asks all servers at once, over UDP alone: CoreDNS asks them so first.
fn dns_answers(servers: &[IpAddr]) -> BTreeMap<IpAddr, Option<String>> {
    let deadline = Instant::now() + DNS_LIMIT;
    let ask = |server: IpAddr| {
        let rcode = dns::rcode_of_root((server, 53).into(), deadline);
        rcode.ok().map(dns::rcode_name)
    };
    thread::scope(|scope| {
        let asked: Vec<_> = servers.iter().map(|s| (*s, scope.spawn(move || ask(*s)))).collect();
        let heard = asked
            .into_iter()
            .map(|(server, thread)| (server, thread.join().ok().flatten()));
        heard.collect()
    })
}

fn ports_taken(host: &Host, tcp: &[u16], udp: &[u16]) -> BTreeMap<String, String> {
    let mut taken: BTreeMap<String, u64> = BTreeMap::new();
    for (protocol, files, wanted, state) in [
        ("tcp", ["/proc/net/tcp", "/proc/net/tcp6"], tcp, Some("0A")),
        ("udp", ["/proc/net/udp", "/proc/net/udp6"], udp, None),
    ] {
        for file in files {
            for (port, inode) in sockets(&files::text(host.at(file)), state) {
                if wanted.contains(&port) {
                    taken.insert(format!("{protocol}/{port}"), inode);
                }
            }
        }
    }
    if taken.is_empty() {
        return BTreeMap::new();
    }
    let owners = socket_owners(&taken.values().copied().collect());
    taken
        .into_iter()
        .map(|(name, inode)| {
            (
                name,
                owners.get(&inode).cloned().unwrap_or_else(|| "unknown".to_owned()),
            )
        })
        .collect()
}

/// Reads local ports and inodes of a socket table of /proc/net.
fn sockets(text: &str, state: Option<&str>) -> Vec<(u16, u64)> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            if state.is_some_and(|s| words.get(3) != Some(&s)) {
                return None;
            }
            let port = u16::from_str_radix(words.get(1)?.rsplit_once(':')?.1, 16).ok()?;
            Some((port, words.get(9)?.parse().ok()?))
        })
        .collect()
}

fn socket_owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    for pid in all_pids() {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(target) = std::fs::read_link(entry.path()) else {
                continue;
            };
            let target = target.to_string_lossy();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|t| t.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|i| inodes.contains(i)) {
                let program = files::text(format!("/proc/{pid}/comm")).trim().to_owned();
                owners.insert(inode, format!("{program} (process {pid})"));
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::preflight;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn this_machine_is_seen() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let agent = Agent::new(Host::real());
        let query = FactsQuery {
            peers: vec![Ipv4Addr::LOCALHOST.into()],
            tcp_ports: vec![port],
            programs: vec!["sh".into(), "no-such-program".into()],
            paths: vec!["/proc".into(), "/no/such/path".into()],
            ..FactsQuery::default()
        };
        let facts = gather(&agent, &query).unwrap();
        assert!(
            facts.ports_taken[&format!("tcp/{port}")].contains(&std::process::id().to_string()),
            "{:?}",
            facts.ports_taken
        );
        assert_eq!(facts.programs.into_iter().collect::<Vec<_>>(), ["sh"]);
        assert_eq!(facts.paths.into_iter().collect::<Vec<_>>(), ["/proc"]);
        assert!(
            facts
                .addresses
                .iter()
                .any(|a| a.address == Ipv4Addr::LOCALHOST && a.interface == "lo")
        );
        assert_eq!(facts.peer_routes[&IpAddr::from(Ipv4Addr::LOCALHOST)].interface, "lo");
        assert!(facts.memory_mib > 0 && facts.cpus > 0 && facts.clock_ms > 0 && !facts.kernel.is_empty());
    }

    #[test]
    fn drivers_are_those_of_the_cards_below_an_interface() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("sys/class/net");
        for (name, mtu) in [("br0", "1500"), ("bond0", "9000"), ("eth0", "9000"), ("eth1", "9000")] {
            std::fs::create_dir_all(net.join(name).join("device")).unwrap();
            std::fs::write(net.join(name).join("mtu"), format!("{mtu}\n")).unwrap();
        }
        for (upper, lower) in [("br0", "bond0"), ("bond0", "eth0"), ("bond0", "eth1"), ("eth1", "br0")] {
            std::os::unix::fs::symlink(net.join(lower), net.join(upper).join(format!("lower_{lower}"))).unwrap();
        }
        for (card, driver) in [("eth0", "vmxnet3"), ("eth1", "virtio_net")] {
            let target = format!("../../../bus/drivers/{driver}");
            std::os::unix::fs::symlink(target, net.join(card).join("device/driver")).unwrap();
        }
        let address = |interface: &str, last: u8| InterfaceAddress {
            interface: interface.to_owned(),
            address: [last, 0, 0, 1].into(),
            prefix: 24,
            is_leased: false,
        };
        let seen = interfaces(
            &Host::under(root.path()),
            &[address("br0", 10), address("lo", 127), address("none", 9)],
        );
        assert_eq!(
            seen.keys().collect::<Vec<_>>(),
            ["br0"],
            "one that says nothing is left out"
        );
        assert_eq!(seen["br0"].mtu, 1500);
        assert_eq!(
            seen["br0"].drivers.iter().collect::<Vec<_>>(),
            ["virtio_net", "vmxnet3"]
        );
    }

    /// Needs root. What is judged depends on this machine; that everything is answered, and nothing left, does not.
    #[test]
    fn everything_that_preflight_asks_is_answered() {
        let text = "nodes: [{name: cp-1, role: control-plane, host: 127.0.0.1}]";
        let desired = landfall_core::spec::parse::cluster_yaml(text, "cluster.yaml").unwrap();
        let query = FactsQuery {
            ask_dns: false,
            ..preflight::query(&desired, &desired.inventory.nodes[0])
        };
        let asked = query.survey.clone().unwrap();
        let names = |dir: &str| {
            std::fs::read_dir(dir)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect::<BTreeSet<_>>()
        };
        let (before, mounts) = (names("/var/lib"), crate::mounts::all());
        let seen = gather(&Agent::new(Host::real()), &query).unwrap();
        assert_eq!((names("/var/lib"), crate::mounts::all()), (before, mounts));
        assert_eq!(seen.survey.places.len(), asked.places.len());
        assert!(seen.survey.places.values().all(|place| place.total_bytes > 0));
        assert!(seen.survey.files.contains_key("/proc/sys/net/ipv4/ip_local_port_range"));
        assert_eq!(seen.survey.nftables_families.len(), 3);
        // It travels as JSON.
        let text = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<NodeFacts>(&text).unwrap(), seen);
    }
    /// Needs root for port 53; the addresses are loopback's, and nothing else listens there.
    #[test]
    fn a_server_counts_whatever_it_says_and_needs_no_tcp() {
        let [refuses, silent] = [1, 2].map(|last| Ipv4Addr::new(127, 0, 53, last));
        let socket = std::net::UdpSocket::bind((refuses, 53)).unwrap();
        let _mute = std::net::UdpSocket::bind((silent, 53)).unwrap();
        let server = thread::spawn(move || {
            let mut bytes = [0u8; 512];
            let (length, from) = socket.recv_from(&mut bytes).unwrap();
            // An answer; REFUSED.
            (bytes[2], bytes[3]) = (0x80, 5);
            socket.send_to(&bytes[..length], from).unwrap();
        });
        let answers = dns_answers(&[refuses.into(), silent.into()]);
        server.join().unwrap();
        let wanted = [(refuses.into(), Some("REFUSED".to_owned())), (silent.into(), None)];
        assert_eq!(answers, wanted.into());
    }
}
