use super::*;
use crate::inventory::Role;
use crate::packet_filter::{Rule, Verdict, iptables, nftables};
use crate::spec::ClusterSpec;
use crate::traffic::{self, Peer};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../../../tests/fixtures/packet-filters/", $name))
    };
}

fn peer(role: Role, last: u8) -> Peer {
    Peer {
        role,
        address: [10, 90, 0, last].into(),
    }
}

/// What a control plane beside two others and a worker needs.
fn wanted() -> Openings {
    let others = [
        peer(Role::ControlPlane, 12),
        peer(Role::ControlPlane, 13),
        peer(Role::Worker, 21),
    ];
    let mark = Openings::mark_of("0f1e");
    traffic::openings(
        &ClusterSpec::default(),
        &mark,
        peer(Role::ControlPlane, 11),
        "eth0",
        &others,
    )
}

fn nft(text: &str) -> Vec<Chain> {
    nftables::parse(text).unwrap()
}

fn iptables(text: &str) -> Vec<Chain> {
    iptables::parse(text, Variant::IptablesNft)
}

/// Where rules are inserted, as `chain hook before`.
fn places(chains: &[Chain]) -> Vec<String> {
    let (opened, insertions) = open(chains, &wanted());
    for packet in wanted().packets() {
        assert_eq!(drops(&opened, &packet), [], "{packet:?}");
    }
    let foreign = without_marked(&opened, &wanted().mark);
    assert_eq!(foreign, chains, "rules of others stay as they are, in their order");
    let place = |i: &Insertion| {
        let before = i.before.map_or("end".to_owned(), |number| number.to_string());
        format!("{} {} {before}", i.chain, i.hook.as_str())
    };
    insertions.iter().map(place).collect()
}

#[test]
fn rules_go_to_where_it_is_dropped_and_nowhere_else() {
    assert_eq!(places(&nft(fixture!("ssh-only.nft.json"))), ["i input end"]);
    assert_eq!(
        places(&iptables(fixture!("redhat.iptables-save"))),
        ["INPUT input 6", "FORWARD forward 1"]
    );
    assert_eq!(
        places(&iptables(fixture!("docker-policy.iptables-save"))),
        ["FORWARD forward end"]
    );
    assert_eq!(places(&iptables(fixture!("docker.iptables-save"))), [""; 0]);
    assert_eq!(places(&[]), [""; 0]);
}

#[test]
fn node_ports_stay_closed_where_what_is_forwarded_is_dropped() {
    let closed = |chains: &[Chain]| {
        let (opened, _) = open(chains, &wanted());
        let found = closed_node_ports(&opened, &wanted());
        assert_eq!(closed_node_ports(chains, &wanted()).is_empty(), found.is_empty());
        found
    };
    assert_eq!(
        closed(&iptables(fixture!("docker-policy.iptables-save"))),
        ["table ip filter, chain FORWARD: policy drop, and no rule accepts it"]
    );
    assert_eq!(
        closed(&iptables(fixture!("redhat.iptables-save"))),
        ["table ip filter, chain FORWARD: -A FORWARD -j REJECT --reject-with icmp-host-prohibited"]
    );
    assert_eq!(closed(&iptables(fixture!("ufw.iptables-save"))).len(), 1);
    // Nothing is dropped at forward, or not what was translated.
    for open in [nft(fixture!("ssh-only.nft.json")), nft(fixture!("firewalld.nft.json"))] {
        assert_eq!(closed(&open), [""; 0]);
    }
    let translated = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT\nCOMMIT\n";
    assert_eq!(closed(&iptables(translated)), [""; 0]);
}

#[test]
fn what_the_owner_drops_before_stays_dropped() {
    let text = "*filter\n:INPUT DROP [0:0]\n:BAN - [0:0]\n-A INPUT -s 203.0.113.9/32 -j DROP\n-A INPUT -j BAN\n-A INPUT -p tcp -m tcp \
                --dport 22 -j ACCEPT\n-A BAN -s 203.0.113.10/32 -j DROP\nCOMMIT\n";
    assert_eq!(places(&iptables(text)), ["INPUT input end"]);
    let (opened, _) = open(&iptables(text), &wanted());
    for (banned, is_dropped) in [(9, true), (10, true), (11, false)] {
        let packet = Packet {
            hook: Hook::Input,
            protocol: "tcp",
            port: 443,
            source: Some([203, 0, 113, banned].into()),
            destination: Some([10, 90, 0, 11].into()),
            from: Some("eth0"),
            to: None,
            is_translated: false,
        };
        assert_eq!(!drops(&opened, &packet).is_empty(), is_dropped, "{banned}");
        let to_etcd = Packet { port: 2379, ..packet };
        assert_eq!(drops(&opened, &to_etcd).len(), 1, "others get the ingress ports alone");
    }
}

#[test]
fn the_table_of_firewalld_is_not_written_into_and_those_of_ufw_by_ufw() {
    let chains = nft(fixture!("firewalld.nft.json"));
    assert_eq!(open(&chains, &wanted()).1, []);
    assert_eq!(
        faults(&chains, &wanted()),
        [""; 0],
        "nor is that a fault that can be mended"
    );
    let chains = iptables(fixture!("ufw.iptables-save"));
    let ends = ["ufw-user-input input end", "ufw-user-forward forward end"];
    assert_eq!(places(&chains), ends);
    assert!(open(&chains, &wanted()).1.iter().all(Insertion::is_of_ufw));
    assert_eq!(faults(&open(&chains, &wanted()).0, &wanted()), [""; 0]);
}

#[test]
fn faults_are_rules_that_are_gone_old_or_in_the_wrong_place() {
    let chains = nft(fixture!("ssh-only.nft.json"));
    let wanted = wanted();
    let all = faults(&chains, &wanted);
    assert!(
        all[0].starts_with("table inet f, chain i: policy drop, and no rule accepts it (tcp 80 from 10.90.0.12, and "),
        "{all:?}"
    );
    let opened = open(&chains, &wanted).0;
    assert_eq!(faults(&opened, &wanted), [""; 0]);
    let with = |change: &dyn Fn(&mut Vec<Rule>)| {
        let mut chains = opened.clone();
        change(&mut chains.iter_mut().find(|c| c.name == "i").unwrap().rules);
        faults(&chains, &wanted)
    };
    let is_established = |rule: &Rule| rule.comment.is_some() && format!("{rule:?}").contains("established");
    let one_gone = with(&|rules| {
        let at = rules.iter().position(is_established).unwrap();
        rules.remove(at);
    });
    assert_eq!(one_gone, ["table inet f, chain i: 8 of 9 rules are there"]);
    let behind = with(&|rules| {
        let mut drop = rules[0].clone();
        (drop.matches, drop.verdict) = (vec![], Verdict::Drop);
        rules.insert(0, drop);
    });
    assert_eq!(behind.len(), 1, "nothing gets as far as our rules: {behind:?}");

    let mut fewer = wanted.clone();
    fewer.accept.pop();
    assert_eq!(
        faults(&opened, &fewer),
        ["table inet f, chain i: rules of an earlier setting"]
    );
    let none = Openings {
        accept: vec![],
        ..wanted.clone()
    };
    assert_eq!(faults(&opened, &none).len(), 1);
    assert_eq!(faults(&chains, &none), [""; 0]);
    let other = Openings {
        mark: Openings::mark_of("0f1e2"),
        ..none
    };
    assert_eq!(
        faults(&opened, &other),
        [""; 0],
        "another cluster's mark is not this one's"
    );
}

#[test]
fn iptables_gets_one_rule_for_each_pair_of_ends() {
    let accept = Accept {
        protocol: Some(Protocol::Tcp),
        ports: vec![2379, 2380],
        from: Peers::Addresses(vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()]),
        through: Some("eth0".to_owned()),
        ..Accept::at(Hook::Input)
    };
    let rules: Vec<String> = accept.iptables_words().iter().map(|words| words.join(" ")).collect();
    assert_eq!(
        rules,
        [
            "-s 10.0.0.1/32 -i eth0 -p tcp -m multiport --dports 2379,2380",
            "-s 10.0.0.2/32 -i eth0 -p tcp -m multiport --dports 2379,2380"
        ]
    );
    let back = Accept {
        protocol: Some(Protocol::Tcp),
        source_ports: vec![80],
        to: Peers::Network("10.244.0.0/16".parse().unwrap()),
        established: true,
        ..Accept::at(Hook::Output)
    };
    assert_eq!(
        back.iptables_words()[0].join(" "),
        "-d 10.244.0.0/16 -p tcp -m tcp --sport 80 -m conntrack --ctstate RELATED,ESTABLISHED"
    );
    assert_eq!(Accept::at(Hook::Input).iptables_words(), [[""; 0]]);
}
