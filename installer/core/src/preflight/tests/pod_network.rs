//! What carries packets of pods between nodes.

use super::*;
use crate::cluster_record::FixedSettings;
use crate::mesh::MeshSeen;
use crate::preflight::mesh::{MeshInput, judge as judge_mesh, plan};
use crate::spec::{Backend, PodNetwork};

/// Three control planes with a pod network; what a change makes of cp-2.
fn found_with(network: PodNetwork, change: impl Fn(&mut NodeFacts)) -> Vec<Finding> {
    let (desired, facts) = machines(network, change);
    judge(&desired, &facts, &BTreeMap::new())
}

fn machines(network: PodNetwork, change: impl Fn(&mut NodeFacts)) -> (Desired, BTreeMap<NodeName, NodeFacts>) {
    let mut desired = desired();
    desired.spec.pod_network = network;
    let mut facts: BTreeMap<NodeName, NodeFacts> =
        (1..=3).map(|n| (format!("cp-{n}").parse().unwrap(), good(n))).collect();
    change(facts.get_mut(&"cp-2".parse::<NodeName>().unwrap()).unwrap());
    (desired, facts)
}

/// What the nodes of a cluster that is not there yet are asked to try.
fn mesh_input<'a>(desired: &'a Desired, facts: &'a BTreeMap<NodeName, NodeFacts>) -> MeshInput<'a> {
    static NOTHING: BTreeMap<NodeName, Ownership> = BTreeMap::new();
    MeshInput {
        desired,
        facts,
        owned: &NOTHING,
        record: None,
    }
}

fn host_gw() -> PodNetwork {
    PodNetwork {
        backend: Backend::HostGw,
        ..PodNetwork::default()
    }
}

fn port(vxlan_port: u16) -> PodNetwork {
    PodNetwork {
        vxlan_port,
        ..PodNetwork::default()
    }
}

fn mtu(mtu: u16) -> PodNetwork {
    PodNetwork {
        mtu: Some(mtu),
        ..PodNetwork::default()
    }
}

#[test]
fn the_port_that_is_set_is_tried_and_asked_of_packet_filters_and_none_with_host_gw() {
    for (network, wanted) in [
        (PodNetwork::default(), Some(8472)),
        (port(4789), Some(4789)),
        (host_gw(), None),
    ] {
        let (desired, facts) = machines(network, |f| {
            let text = include_str!("../../../../../tests/fixtures/packet-filters/ssh-only.nft.json");
            f.survey.filters.nftables = vec![text.to_owned()];
        });
        let asked = query(&desired, &desired.inventory.nodes[0]);
        assert_eq!(asked.udp_ports, wanted.into_iter().collect::<Vec<_>>());
        let input = mesh_input(&desired, &facts);
        let tried = plan(&input, "token");
        assert!(tried.listens.values().all(|listen| listen.udp == wanted));
        let peers = || tried.tries.values().flat_map(|tries| &tries.peers);
        assert!(peers().count() > 0 && peers().all(|peer| peer.udp == wanted));
        let found = judge(&desired, &facts, &BTreeMap::new());
        let dropped = &found.iter().find(|f| f.check == Check::PacketFilter).unwrap().what;
        let named = wanted.map_or("10250 from".to_owned(), |port| format!("10250, udp {port} from"));
        assert!(dropped.contains(&named), "{dropped}");
    }
}

#[test]
fn datagrams_that_do_not_arrive_are_told_with_the_port_that_is_set() {
    let (desired, facts) = machines(port(4789), |_| {});
    let input = mesh_input(&desired, &facts);
    let lost = |node: &NodeName| MeshSeen {
        node: node.clone(),
        tcp: BTreeMap::new(),
        udp: Some(crate::mesh::UdpSeen {
            sent: 20,
            answered: 0,
            round_trip_us: None,
            mtu: 1500,
            largest: 0,
        }),
    };
    let others = |from: &NodeName| facts.keys().filter(|to| *to != from).map(lost).collect::<Vec<_>>();
    let seen = facts.keys().map(|from| (from.clone(), others(from))).collect();
    let found = judge_mesh(&input, &seen);
    assert_eq!((found.len(), found[0].check), (1, Check::PeerVxlan));
    assert_eq!(found[0].what, "no node reaches another by udp 4789");
}

#[test]
fn host_gw_needs_all_nodes_in_one_subnet() {
    assert_eq!(found_with(host_gw(), |_| {}), vec![]);
    let elsewhere = |f: &mut NodeFacts| f.addresses[0].address = [10, 91, 0, 12].into();
    assert_eq!(
        found_with(PodNetwork::default(), elsewhere),
        vec![],
        "VXLAN crosses routers"
    );
    let found = found_with(host_gw(), elsewhere);
    let finding = &found[0];
    assert_eq!(
        (finding.check, finding.severity),
        (Check::HostGwSubnet, Severity::Refuse)
    );
    assert_eq!((found.len(), finding.nodes.len()), (1, 3));
    let told = "cp-2: 10.91.0.12/24 on eth0 does not hold 10.90.0.11 of cp-1";
    assert!(finding.saw.contains(told), "{}", finding.saw);
    let alone = only(
        Check::HostGwSubnet,
        found_with(host_gw(), |f| f.addresses[0].prefix = 32),
    );
    assert_eq!(
        alone.nodes.len(),
        1,
        "one that is given a /32 reaches the others by a router only"
    );
}

#[test]
fn routes_of_host_gw_are_no_overlap_where_landfall_is() {
    let name: NodeName = "cp-2".parse().unwrap();
    let by_flannel = |f: &mut NodeFacts| {
        f.routes.push(Route {
            destination: "10.244.2.0/24".parse().unwrap(),
            interface: "eth0".into(),
            gateway: Some([10, 90, 0, 13].into()),
        });
    };
    let own: BTreeMap<_, _> = [(name, owned_entry())].into();
    let overlap = |network, owned: &BTreeMap<_, _>| {
        let (desired, facts) = machines(network, by_flannel);
        let found = judge(&desired, &facts, owned);
        found.iter().any(|f| f.check == Check::NetworkOverlap)
    };
    assert!(!overlap(host_gw(), &own));
    assert!(
        overlap(host_gw(), &BTreeMap::new()),
        "before the first install it is somebody else's"
    );
    assert!(overlap(PodNetwork::default(), &own));
}

#[test]
fn pods_must_fit_through_every_interface() {
    assert_eq!(found_with(mtu(1450), |_| {}), vec![]);
    let finding = only(
        Check::PodMtu,
        found_with(mtu(1450), |f| f.interfaces.get_mut("eth0").unwrap().mtu = 1460),
    );
    assert_eq!(
        finding.saw,
        "pods have an MTU of 1450 and 50 bytes for VXLAN, eth0 one of 1460"
    );
    assert!(
        finding.next.contains("MTU of 1500") && finding.next.contains("to 1410"),
        "{}",
        finding.next
    );
    assert_eq!(
        found_with(mtu(1410), |f| f.interfaces.get_mut("eth0").unwrap().mtu = 1460),
        vec![]
    );
    let bare = PodNetwork {
        mtu: Some(1500),
        ..host_gw()
    };
    assert_eq!(found_with(bare, |_| {}), vec![]);
    assert_eq!(
        found_with(mtu(1450), |f| f.interfaces.clear()),
        vec![],
        "what is not known is no finding"
    );
}

#[test]
fn a_node_that_joins_must_take_what_the_clusters_pods_send() {
    let (mut desired, mut facts) = machines(PodNetwork::default(), |f| {
        f.interfaces.get_mut("eth0").unwrap().mtu = 1460
    });
    let mut record = crate::cluster_record::tests::record(1, 1, 0);
    record.members.clear();
    let found = |desired: &Desired, record: &_, facts: &_, owned: &_| check_record(desired, None, record, facts, owned);
    let finding = only(Check::PodMtu, found(&desired, &record, &facts, &BTreeMap::new()));
    assert_eq!(finding.nodes, ["cp-2".parse().unwrap()]);
    assert_eq!(finding.severity, Severity::Refuse);
    let mut member = owned_entry();
    member.entries[0].step = "join-kubelet/cp-2".parse().unwrap();
    let owned = [("cp-2".parse().unwrap(), member)].into();
    let joined = only(Check::PodMtu, found(&desired, &record, &facts, &owned));
    assert_eq!(
        joined.severity,
        Severity::Warn,
        "one that is a member may still be mended"
    );
    record.fixed = FixedSettings::of(&desired.spec, 1410);
    assert_eq!(found(&desired, &record, &facts, &BTreeMap::new()), vec![]);
    facts.clear();
    // What was measured stays, and what is named must be the same.
    desired.spec.pod_network.mtu = Some(1410);
    assert_eq!(found(&desired, &record, &facts, &BTreeMap::new()), vec![]);
    desired.spec.pod_network.mtu = Some(1450);
    let found = found(&desired, &record, &facts, &BTreeMap::new());
    let fixed = &found[0];
    assert_eq!((found.len(), fixed.check), (1, Check::FixedSetting));
    assert!(
        fixed.what.starts_with("podNetwork.mtu cannot be changed"),
        "{}",
        fixed.what
    );
}

#[test]
fn a_card_that_is_known_to_break_checksums_is_a_warning_until_the_setting_is_made() {
    let vmware = |f: &mut NodeFacts| drop(f.interfaces.insert("eth0".into(), ethernet("vmxnet3")));
    let finding = only(Check::VxlanChecksumDriver, found_with(PodNetwork::default(), vmware));
    assert_eq!(finding.severity, Severity::Warn);
    assert!(finding.next.contains("checksumOffload: false"), "{}", finding.next);
    let off = PodNetwork {
        checksum_offload: false,
        ..PodNetwork::default()
    };
    assert_eq!(found_with(off.clone(), vmware), vec![]);
    assert_eq!(found_with(host_gw(), vmware), vec![]);
    let other = |f: &mut NodeFacts| drop(f.interfaces.insert("eth1".into(), ethernet("vmxnet3")));
    assert_eq!(
        found_with(PodNetwork::default(), other),
        vec![],
        "pods do not use this card"
    );
    let (mut desired, mut facts) = machines(off, |f| f.kernel = "5.4.0-150-generic".into());
    desired.spec.proxy_mode = crate::spec::ProxyMode::Iptables;
    facts.retain(|name, _| name.as_str() == "cp-2");
    let found = judge(&desired, &facts, &BTreeMap::new());
    let finding = only(Check::KernelVersion, found);
    assert_eq!(finding.severity, Severity::Warn);
    assert!(finding.what.contains("5.8"), "{}", finding.what);
}
