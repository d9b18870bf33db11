mod link_config;
mod next_boot;
mod pod_network;
mod present;
mod record;
mod wire;

use super::*;
use crate::facts::{FileText, InterfaceAddress, InterfaceFacts, PeerRoute, PlaceFacts, Route, Survey, Tried};
use crate::inventory::{Connect, Inventory};
use crate::journal::{Entry, EntryState};
use crate::name::Digest;
use crate::spec::{BinDir, ClusterSpec};

pub(crate) fn node(name: &str, last: u8) -> Node {
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
            connection: crate::inventory::Connection::Ssh,
            ssh: crate::inventory::SshSettings::default(),
        },
    }
}

fn ethernet(driver: &str) -> InterfaceFacts {
    InterfaceFacts {
        mtu: 1500,
        drivers: [driver.to_owned()].into(),
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
            is_leased: false,
        }],
        interfaces: [("eth0".to_owned(), ethernet("virtio_net"))].into(),
        routes: vec![Route {
            destination: "10.90.0.0/24".parse().unwrap(),
            interface: "eth0".into(),
            gateway: None,
        }],
        peer_routes: BTreeMap::new(),
        ports_taken: BTreeMap::new(),
        programs: ["mount", "cp", "nft"].map(str::to_owned).into(),
        paths: Default::default(),
        units: BTreeMap::new(),
        features: kernel_features().into_iter().map(|f| f.module).collect(),
        swaps: vec![],
        cgroup_version: 2,
        selinux_enforcing: false,
        dns_servers: vec![],
        dns_answers: BTreeMap::new(),
        cluster_ca: None,
        survey: good_survey(),
    }
}

/// A disk of 100 GiB of which half is free.
const DISK: PlaceFacts = PlaceFacts {
    directory: String::new(),
    device: 7,
    total_bytes: 100 << 30,
    available_bytes: 45 << 30,
    free_bytes: 50 << 30,
    inodes: 1_000_000,
    free_inodes: 500_000,
    noexec: false,
    write: Tried::Works,
    mounted: None,
};

/// What is seen on a Debian 12 machine on which nothing is installed.
fn good_survey() -> Survey {
    let mut survey = Survey {
        links: [("lo".to_owned(), String::new()), ("eth0".to_owned(), String::new())].into(),
        features_now: kernel_features().into_iter().map(|f| f.module).collect(),
        modules: [
            "overlay",
            "br_netfilter",
            "vxlan",
            "bridge",
            "veth",
            "nft_masq",
            "xt_nat",
            "ip_vs",
        ]
        .map(str::to_owned)
        .into(),
        loaded_modules: ["overlay", "br_netfilter", "vxlan", "bridge"].map(str::to_owned).into(),
        nftables_families: ["ip", "ip6", "inet"].map(|f| (f.to_owned(), Tried::Works)).into(),
        overlay: Tried::Works,
        ..Survey::default()
    };
    for place in places::places(Role::ControlPlane, BinDir::default()) {
        let directory = "/var/lib".to_owned();
        survey.places.insert(place, PlaceFacts { directory, ..DISK });
    }
    for (path, text) in [
        (
            "/etc/fstab",
            "# <file system> <mount point>\nUUID=a / ext4 errors=remount-ro 0 1\n",
        ),
        ("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=UUID=a ro quiet\n"),
        ("/etc/sysctl.d/99-sysctl.conf", "#net.ipv4.ip_forward=1\n"),
        ("/usr/lib/sysctl.d/50-pid-max.conf", "kernel.pid_max = 4194304\n"),
        ("/proc/sys/kernel/modules_disabled", "0\n"),
        ("/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("/proc/sys/net/ipv4/ip_local_reserved_ports", "\n"),
        ("/proc/sys/fs/inotify/max_user_instances", "128\n"),
        ("/proc/sys/fs/inotify/max_user_watches", "29000\n"),
        ("/proc/sys/fs/nr_open", "1048576\n"),
        ("/proc/sys/fs/file-max", "9223372036854775807\n"),
        ("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n"),
    ] {
        put(&mut survey, path, text);
    }
    survey
}

fn put(survey: &mut Survey, path: &str, text: &str) {
    let file = FileText {
        text: text.to_owned(),
        real: None,
    };
    survey.files.insert(path.to_owned(), file);
}

/// A link to another file, which is read through it.
fn put_link(survey: &mut Survey, path: &str, real: &str, text: &str) {
    put(survey, path, text);
    survey.files.get_mut(path).unwrap().real = Some(real.to_owned());
}

fn settings() -> Vec<(String, String)> {
    [
        ("net.ipv4.ip_forward", "1"),
        ("vm.overcommit_memory", "1"),
        ("kernel.panic", "10"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A run without a bundle, with the operator's clock as the nodes' median is.
fn judge(
    desired: &Desired,
    facts: &BTreeMap<NodeName, NodeFacts>,
    owned: &BTreeMap<NodeName, Ownership>,
) -> Vec<Finding> {
    let clocks = facts.keys().map(|name| (name.clone(), 1_000_000)).collect();
    check(&Input {
        desired,
        facts,
        owned,
        settings: &settings(),
        clocks: &clocks,
        bundle: None,
    })
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
    judge(&desired(), &facts, &BTreeMap::new())
}

type Change = fn(&mut NodeFacts);

/// Returns what is found on a machine that differs from a good one.
fn found(change: Change) -> Vec<Finding> {
    findings(change)
}

/// Says whether exactly one finding came, of this check, and returns it.
fn only(check: Check, found: Vec<Finding>) -> Finding {
    assert_eq!(found.len(), 1, "{check}: {found:#?}");
    assert_eq!(found[0].check, check, "{found:#?}");
    assert_eq!(found[0].nodes.len(), 1);
    found.into_iter().next().unwrap()
}

fn place(finding: &Finding) -> String {
    finding.place.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn healthy_machines_have_no_findings() {
    assert_eq!(findings(|_| {}), vec![]);
}

#[test]
fn either_program_of_portmap_is_enough() {
    let only_iptables = findings(|f| {
        f.programs.remove("nft");
        f.programs.insert("iptables".to_owned());
    });
    assert_eq!(only_iptables, vec![]);
    let neither = only(
        Check::HostPort,
        findings(|f| {
            f.programs.remove("nft");
        }),
    );
    assert_eq!((neither.severity, neither.refuses()), (Severity::Warn, false));
    let asked = query(&desired(), &node("cp-1", 11)).programs;
    assert!(
        ["mount", "nft", "iptables"]
            .iter()
            .all(|program| asked.iter().any(|p| p == program)),
        "{asked:?}"
    );
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
        ("host-programs", |f| {
            f.programs.remove("mount");
        }),
        ("host-port", |f| {
            f.programs.remove("nft");
        }),
        ("kernel-features", |f| {
            f.features.remove("overlay");
        }),
        ("swap", |f| f.swaps = vec!["/dev/sda2".into()]),
        ("firewall", |f| {
            f.units.insert("firewalld.service".into(), "active".into());
        }),
        ("port-taken", |f| {
            f.ports_taken.insert("tcp/6443".into(), "nginx".into());
        }),
        ("foreign-cluster", |f| {
            f.paths.insert("/usr/bin/kubelet".into());
        }),
        ("clock-skew", |f| f.clock_ms += 31_000),
        ("network-overlap", |f| {
            f.routes.push(Route {
                destination: "10.244.7.0/24".parse().unwrap(),
                interface: "eth1".into(),
                gateway: None,
            });
        }),
    ];
    for (id, fault) in faults {
        let found = findings(fault);
        assert!(found.iter().any(|f| f.check.id() == id), "{id}: {found:?}");
    }
}

#[test]
fn thirty_seconds_of_clock_difference_and_a_default_route_are_fine() {
    let found = findings(|f| {
        f.clock_ms += 30_000;
        f.routes.push(Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            interface: "eth0".into(),
            gateway: Some([10, 90, 0, 1].into()),
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
    seen.paths.insert("/usr/local/bin/kubelet".into());
    seen.units = ["kubelet.service", "containerd.service"]
        .map(|unit| (unit.to_owned(), "active".to_owned()))
        .into();
    let survey = &mut seen.survey;
    survey.enabled_units = ["kubelet.service", "containerd.service"].map(str::to_owned).into();
    for directory in leftovers::DIRECTORIES {
        survey.contents.insert(directory.to_owned(), vec!["pki".to_owned()]);
    }
    for (link, kind) in [
        ("cni0", "bridge"),
        ("flannel.1", "vxlan"),
        ("flannel-v6.1", "vxlan"),
        ("veth1a2b", "veth"),
    ] {
        survey.links.insert(link.to_owned(), kind.to_owned());
    }
    survey.chains = [
        "ip filter KUBE-FIREWALL",
        "ip nat FLANNEL-POSTRTG",
        "ip nat CNI-HOSTPORT-DNAT",
    ]
    .map(str::to_owned)
    .into();
    put(
        survey,
        layout::SYSCTL_FILE,
        "net.ipv4.ip_forward = 1\nvm.overcommit_memory = 1\n",
    );
    for (network, link) in [("10.244.1.0/24", "cni0"), ("10.96.0.0/12", "eth0")] {
        seen.routes.push(Route {
            destination: network.parse().unwrap(),
            interface: link.into(),
            gateway: None,
        });
    }
    assert!(!judge(&desired(), &facts, &BTreeMap::new()).is_empty());
    let own = owned_entry();
    assert_eq!(judge(&desired(), &facts, &[(name, own)].into()), vec![]);
}

#[test]
fn the_address_comes_from_ip_or_the_route_to_peers() {
    let mut seen = good(1);
    seen.addresses.push(InterfaceAddress {
        interface: "eth1".into(),
        address: [192, 168, 7, 1].into(),
        prefix: 24,
        is_leased: false,
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
        choose_address(&ClusterSpec::default(), &host, &seen).unwrap_err().check,
        Check::NodeAddress
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
            is_leased: false,
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
        is_leased: false,
    });
    assert_eq!(
        choose_address(&spec, &host, &two).unwrap_err().check,
        Check::NodeAddress
    );
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
    assert_eq!(finding.check, Check::AddressChanged);
    assert_eq!(finding.saw, "10.90.0.99 on eth0");
    assert!(finding.next.contains("10.90.0.11"), "{}", finding.next);
    // The machine has both, and the inventory now names the other.
    moved.addresses.push(seen.addresses[0].clone());
    assert!(member_address(&spec, &host, recorded, &moved).is_ok());
    host.ip = Some([10, 90, 0, 99].into());
    let finding = member_address(&spec, &host, recorded, &moved).unwrap_err();
    assert_eq!(
        (finding.check, finding.saw.as_str()),
        (Check::AddressChanged, "10.90.0.99")
    );
}

/// A journal with an entry of landfall.
fn owned_entry() -> Ownership {
    let entry = Entry {
        run: "r".parse().unwrap(),
        step: "claim/cp-2".parse().unwrap(),
        action: Digest::of(b""),
        undo: crate::action::Undo::Nothing,
        state: EntryState::Owned,
        stamp: None,
        wanted: None,
    };
    Ownership {
        entries: vec![entry],
        ..Ownership::default()
    }
}
