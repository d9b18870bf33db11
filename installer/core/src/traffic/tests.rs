use super::*;

fn peer(role: Role, last: u8) -> Peer {
    Peer {
        role,
        address: [10, 0, 0, last].into(),
    }
}

/// The openings of a node, as iptables writes them, by hook.
fn rules(spec: &ClusterSpec, own: Peer, peers: &[Peer], hook: Hook) -> Vec<String> {
    let openings = openings(spec, "landfall x", own, "eth0", peers);
    let accepted = openings.accepted_at(hook).flat_map(Accept::iptables_words);
    accepted.map(|words| words.join(" ")).collect()
}

#[test]
fn members_and_pods_get_what_they_need_and_others_the_ingress_ports_alone() {
    let spec = ClusterSpec::default();
    let (own, peers) = (
        peer(Role::ControlPlane, 1),
        [peer(Role::Worker, 3), peer(Role::ControlPlane, 2)],
    );
    let conntrack = "-m conntrack --ctstate RELATED,ESTABLISHED";
    assert_eq!(
        rules(&spec, own, &peers, Hook::Input),
        [
            "-i lo".to_owned(),
            format!("-s 10.0.0.2/32 {conntrack}"),
            format!("-s 10.0.0.3/32 {conntrack}"),
            "-s 10.0.0.2/32 -p tcp -m multiport --dports 80,443,6443,8080".to_owned(),
            "-s 10.0.0.3/32 -p tcp -m multiport --dports 80,443,6443,8080".to_owned(),
            "-s 10.0.0.2/32 -p tcp -m multiport --dports 2379,2380,10250".to_owned(),
            "-s 10.0.0.2/32 -p udp -m udp --dport 8472".to_owned(),
            "-s 10.0.0.3/32 -p udp -m udp --dport 8472".to_owned(),
            format!("-s 10.244.0.0/16 -i cni0 {conntrack}"),
            format!("-s 10.244.0.0/16 -i flannel.1 {conntrack}"),
            "-s 10.244.0.0/16 -i cni0 -p tcp -m tcp --dport 6443".to_owned(),
            "-p tcp -m multiport --dports 80,443".to_owned(),
        ]
    );
    assert_eq!(
        rules(&spec, own, &peers, Hook::Forward),
        [
            "-s 10.244.0.0/16 -i cni0".to_owned(),
            "-s 10.244.0.0/16 -i flannel.1".to_owned(),
            format!("-d 10.244.0.0/16 {conntrack}"),
        ]
    );
    assert_eq!(
        rules(&spec, own, &peers, Hook::Output),
        [
            "-o lo".to_owned(),
            format!("-d 10.0.0.2/32 {conntrack}"),
            format!("-d 10.0.0.3/32 {conntrack}"),
            "-d 10.0.0.2/32 -p tcp -m multiport --dports 80,443,8080,10250".to_owned(),
            "-d 10.0.0.3/32 -p tcp -m multiport --dports 80,443,8080,10250".to_owned(),
            "-d 10.0.0.2/32 -p tcp -m multiport --dports 2379,2380,6443".to_owned(),
            "-d 10.0.0.2/32 -p udp -m udp --dport 8472".to_owned(),
            "-d 10.0.0.3/32 -p udp -m udp --dport 8472".to_owned(),
            "-d 10.244.0.0/16".to_owned(),
            format!("-p tcp -m multiport --sports 80,443 {conntrack}"),
        ]
    );
}

#[test]
fn a_worker_and_a_cluster_without_ingress_open_less() {
    let mut spec = ClusterSpec::default();
    spec.ingress.enabled = false;
    let (own, peers) = (peer(Role::Worker, 3), [peer(Role::Worker, 4)]);
    let input = rules(&spec, own, &peers, Hook::Input).join("\n");
    assert!(
        ["6443", "10250", "443", "8080"]
            .iter()
            .all(|port| !input.contains(port)),
        "{input}"
    );
    assert!(input.contains("8472"), "{input}");
    assert_eq!(rules(&spec, own, &[], Hook::Output), ["-o lo", "-d 10.244.0.0/16"]);
}

#[test]
fn the_port_of_the_dashboard_is_for_members_alone_and_only_with_a_dashboard() {
    let mut spec = ClusterSpec::default();
    spec.ingress.dashboard_port = 9090;
    let (own, peers) = (peer(Role::Worker, 3), [peer(Role::Worker, 4)]);
    let with_port = |spec: &ClusterSpec| -> Vec<String> {
        let input = rules(spec, own, &peers, Hook::Input);
        input.into_iter().filter(|rule| rule.contains("9090")).collect()
    };
    assert_eq!(
        with_port(&spec),
        ["-s 10.0.0.4/32 -p tcp -m multiport --dports 80,443,9090"]
    );
    spec.ingress.dashboard = false;
    assert_eq!(with_port(&spec), [""; 0]);
    spec.ingress.dashboard = true;
    spec.ingress.enabled = false;
    assert_eq!(with_port(&spec), [""; 0]);
}

#[test]
fn the_port_of_vxlan_is_opened_or_without_a_tunnel_the_way_of_the_pods() {
    let mut spec = ClusterSpec::default();
    let (own, peers) = (peer(Role::Worker, 3), [peer(Role::Worker, 4)]);
    spec.pod_network.vxlan_port = 4789;
    let input = rules(&spec, own, &peers, Hook::Input).join("\n");
    assert!(input.contains("udp --dport 4789") && !input.contains("8472"), "{input}");
    spec.pod_network.backend = Backend::HostGw;
    let input = rules(&spec, own, &peers, Hook::Input).join("\n");
    assert!(!input.contains("udp") && !input.contains("flannel.1"), "{input}");
    let forwarded = rules(&spec, own, &peers, Hook::Forward);
    assert_eq!(forwarded[..2], ["-s 10.244.0.0/16 -i cni0", "-s 10.244.0.0/16 -i eth0"]);
    let openings = openings(&spec, "landfall x", own, "eth0", &peers);
    let packets = openings.packets();
    let told = packets.iter().filter(|packet| packet.hook == Hook::Forward);
    let told = told.map(|p| (p.source, p.destination, p.from, p.to));
    let (here, there) = (Some([10, 244, 0, 5].into()), Some([10, 244, 1, 5].into()));
    let (bridge, link) = (Some("cni0"), Some("eth0"));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (here, there, bridge, link),
            (here, None, bridge, link),
            (there, here, link, bridge)
        ]
    );
}

#[test]
fn packets_stand_for_all_that_must_pass() {
    let own = peer(Role::ControlPlane, 1);
    let openings = openings(
        &ClusterSpec::default(),
        "landfall x",
        own,
        "eth0",
        &[peer(Role::Worker, 3)],
    );
    let packets = openings.packets();
    let told: Vec<String> = packets
        .iter()
        .filter(|packet| packet.hook == Hook::Forward)
        .map(|p| {
            format!(
                "{:?} {:?} {:?} {:?}",
                p.source.unwrap(),
                p.destination,
                p.from.unwrap(),
                p.to.unwrap()
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            r#"10.244.0.5 Some(10.244.1.5) "cni0" "flannel.1""#,
            r#"10.244.0.5 None "cni0" "eth0""#,
            r#"10.244.1.5 Some(10.244.0.5) "flannel.1" "cni0""#,
        ]
    );
    let to_api = packets.iter().find(|packet| packet.is_translated).unwrap();
    assert_eq!(
        (to_api.port, to_api.from, to_api.destination),
        (6443, Some("cni0"), Some(own.address))
    );
}
