use super::*;
use crate::facts::{InterfaceAddress, PeerRoute, Route};
use crate::inventory::{Connect, Inventory};
use crate::journal::{Entry, EntryState};
use crate::name::Digest;
use crate::spec::ClusterSpec;

fn node(name: &str, last: u8) -> Node {
    Node {
        name: name.parse().unwrap(),
        role: Role::ControlPlane,
        schedulable: false,
        ip: None,
        access_ip: None,
        connect: Connect {
            host: format!("10.90.0.{last}"),
            port: 22,
            user: "root".into(),
            private_key: None,
            password: None,
            become_root: false,
            become_password: None,
        },
    }
}

pub(crate) fn good(n: u8) -> NodeFacts {
    NodeFacts {
        hostname: format!("cp-{n}"),
        machine_id: format!("id-{n}"),
        architecture: "x86_64".into(),
        kernel: "6.1".into(),
        os: "Debian".into(),
        systemd: Some(252),
        cpus: 2,
        memory_mib: 4096,
        disk_free_mib: 50_000,
        clock_ms: 1_000_000,
        addresses: vec![InterfaceAddress {
            interface: "eth0".into(),
            address: [10, 90, 0, 10 + n].into(),
            prefix: 24,
        }],
        routes: vec![Route {
            destination: "10.90.0.0/24".parse().unwrap(),
            interface: "eth0".into(),
        }],
        peer_routes: BTreeMap::new(),
        ports_taken: BTreeMap::new(),
        programs: HOST_PROGRAMS.iter().map(|p| (*p).to_owned()).collect(),
        paths: Default::default(),
        units: BTreeMap::new(),
        features: kernel_features().into_iter().map(|f| f.module).collect(),
        swaps: vec![],
        cgroup_version: 2,
        selinux_enforcing: false,
        dns_servers: vec![],
        dns_works: None,
        exec_allowed: true,
        cluster_ca: None,
    }
}

fn desired() -> Desired {
    let nodes = (1..=3).map(|n| node(&format!("cp-{n}"), 10 + n)).collect();
    Desired {
        spec: ClusterSpec::default(),
        inventory: Inventory { nodes },
    }
}

fn findings(change: impl Fn(&mut NodeFacts)) -> Vec<Finding> {
    let mut facts: BTreeMap<NodeName, NodeFacts> =
        (1..=3).map(|n| (format!("cp-{n}").parse().unwrap(), good(n))).collect();
    change(facts.get_mut(&"cp-2".parse::<NodeName>().unwrap()).unwrap());
    check(&desired(), &facts, &BTreeMap::new())
}

#[test]
fn healthy_machines_have_no_findings() {
    assert_eq!(findings(|_| {}), vec![]);
}

#[test]
fn each_fault_is_found_by_its_own_check() {
    type Fault = (&'static str, fn(&mut NodeFacts));
    let faults: [Fault; 18] = [
        ("duplicate-hostname", |f| f.hostname = "cp-1".into()),
        ("duplicate-machine-id", |f| f.machine_id = "id-1".into()),
        ("duplicate-address", |f| f.addresses[0].address = [10, 90, 0, 11].into()),
        ("no-systemd", |f| f.systemd = None),
        ("old-systemd", |f| f.systemd = Some(219)),
        ("architecture", |f| f.architecture = "aarch64".into()),
        ("cgroup-v1", |f| f.cgroup_version = 1),
        ("memory", |f| f.memory_mib = 512),
        ("disk", |f| f.disk_free_mib = 100),
        ("host-programs", |f| f.programs.clear()),
        ("kernel-features", |f| {
            f.features.remove("overlay");
        }),
        ("noexec", |f| f.exec_allowed = false),
        ("swap", |f| f.swaps = vec!["/dev/sda2".into()]),
        ("firewall", |f| {
            f.units.insert("firewalld.service".into(), "active".into());
        }),
        ("port-taken", |f| {
            f.ports_taken.insert("tcp/6443".into(), "nginx".into());
        }),
        ("foreign-cluster", |f| {
            f.paths.insert("/etc/kubernetes".into());
        }),
        ("clock-skew", |f| f.clock_ms += 31_000),
        ("network-overlap", |f| {
            f.routes.push(Route {
                destination: "10.244.7.0/24".parse().unwrap(),
                interface: "eth1".into(),
            });
        }),
    ];
    for (id, fault) in faults {
        let found = findings(fault);
        assert!(found.iter().any(|f| f.id == id), "{id}: {found:?}");
    }
}

#[test]
fn thirty_seconds_of_clock_difference_and_a_default_route_are_fine() {
    let found = findings(|f| {
        f.clock_ms += 30_000;
        f.routes.push(Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            interface: "eth0".into(),
        });
    });
    assert_eq!(found, vec![]);
}

#[test]
fn what_an_earlier_run_left_is_no_finding() {
    let name: NodeName = "cp-2".parse().unwrap();
    let mut facts: BTreeMap<NodeName, NodeFacts> =
        (1..=3).map(|n| (format!("cp-{n}").parse().unwrap(), good(n))).collect();
    let seen = facts.get_mut(&name).unwrap();
    seen.ports_taken.insert("tcp/6443".into(), "kube-apiserver".into());
    seen.paths.insert("/etc/kubernetes".into());
    for (network, link) in [("10.244.1.0/24", "cni0"), ("10.96.0.0/12", "eth0")] {
        seen.routes.push(Route {
            destination: network.parse().unwrap(),
            interface: link.into(),
        });
    }
    assert!(!check(&desired(), &facts, &BTreeMap::new()).is_empty());
    let entry = Entry {
        run: "r".parse().unwrap(),
        step: "claim/cp-2".parse().unwrap(),
        action: Digest::of(b""),
        undo: crate::action::Undo::Nothing,
        state: EntryState::Owned,
        stamp: None,
        wanted: None,
    };
    let own = Ownership {
        entries: vec![entry],
        ..Ownership::default()
    };
    assert_eq!(check(&desired(), &facts, &[(name, own)].into()), vec![]);
}

#[test]
fn the_address_comes_from_ip_or_the_route_to_peers() {
    let mut seen = good(1);
    seen.addresses.push(InterfaceAddress {
        interface: "eth1".into(),
        address: [192, 168, 7, 1].into(),
        prefix: 24,
    });
    let mut host = node("cp-1", 11);
    assert_eq!(choose_address(&ClusterSpec::default(), &host, &seen).unwrap().1, "eth0");
    let peer = |source: [u8; 4], interface: &str| PeerRoute {
        source: IpAddr::from(source),
        interface: interface.into(),
    };
    seen.peer_routes
        .insert([192, 168, 7, 2].into(), peer([192, 168, 7, 1], "eth1"));
    assert_eq!(choose_address(&ClusterSpec::default(), &host, &seen).unwrap().1, "eth1");
    seen.peer_routes
        .insert([10, 90, 0, 12].into(), peer([10, 90, 0, 11], "eth0"));
    assert_eq!(
        choose_address(&ClusterSpec::default(), &host, &seen).unwrap_err().id,
        "node-address"
    );
    host.ip = Some([192, 168, 7, 1].into());
    assert_eq!(choose_address(&ClusterSpec::default(), &host, &seen).unwrap().1, "eth1");
    host.ip = Some([192, 168, 7, 9].into());
    assert!(choose_address(&ClusterSpec::default(), &host, &seen).is_err());
}

/// A node that is a member: what flannel and the CNI bridge made is among its addresses.
fn as_member() -> NodeFacts {
    let mut seen = good(1);
    for (interface, address, prefix) in [
        ("lo", [127, 0, 0, 1], 8),
        ("flannel.1", [10, 244, 0, 0], 32),
        ("cni0", [10, 244, 0, 1], 24),
        ("veth1a2b", [10, 244, 0, 7], 32),
        // A Service's address, as kube-proxy's ipvs mode holds them.
        ("kube-ipvs0", [10, 96, 0, 1], 32),
    ] {
        seen.addresses.push(InterfaceAddress {
            interface: interface.into(),
            address: address.into(),
            prefix,
        });
    }
    seen
}

#[test]
fn what_our_network_gave_a_node_is_not_its_own_address() {
    let mut host = node("cp-1", 11);
    host.connect.host = "cp-1.lan".into();
    let spec = ClusterSpec::default();
    let own = (IpAddr::from([10, 90, 0, 11]), "eth0".to_owned());
    assert_eq!(choose_address(&spec, &host, &good(1)).unwrap(), own, "first install");
    assert_eq!(
        choose_address(&spec, &host, &as_member()).unwrap(),
        own,
        "second install"
    );
    let mut two = as_member();
    two.addresses.push(InterfaceAddress {
        interface: "eth1".into(),
        address: [192, 168, 7, 1].into(),
        prefix: 24,
    });
    assert_eq!(choose_address(&spec, &host, &two).unwrap_err().id, "node-address");
    let route = PeerRoute {
        source: [192, 168, 7, 1].into(),
        interface: "eth1".into(),
    };
    two.peer_routes.insert([192, 168, 7, 2].into(), route);
    assert_eq!(
        choose_address(&spec, &host, &two).unwrap().1,
        "eth1",
        "the route to peers decides"
    );
}

#[test]
fn an_address_that_changed_since_the_join_is_refused() {
    let spec = ClusterSpec::default();
    let mut host = node("cp-1", 11);
    host.connect.host = "cp-1.lan".into();
    let recorded = Some(IpAddr::from([10, 90, 0, 11]));
    let seen = as_member();
    assert_eq!(member_address(&spec, &host, None, &seen).unwrap().1, "eth0");
    assert_eq!(member_address(&spec, &host, recorded, &seen).unwrap().1, "eth0");
    let mut moved = seen.clone();
    moved.addresses[0].address = [10, 90, 0, 99].into();
    let finding = member_address(&spec, &host, recorded, &moved).unwrap_err();
    assert_eq!(finding.id, "address-changed");
    assert_eq!(finding.saw, "10.90.0.99 on eth0");
    assert!(finding.next.contains("10.90.0.11"), "{}", finding.next);
    // The machine has both, and the inventory now names the other.
    moved.addresses.push(seen.addresses[0].clone());
    assert!(member_address(&spec, &host, recorded, &moved).is_ok());
    host.ip = Some([10, 90, 0, 99].into());
    let finding = member_address(&spec, &host, recorded, &moved).unwrap_err();
    assert_eq!((finding.id, finding.saw.as_str()), ("address-changed", "10.90.0.99"));
}
