//! Rulesets as the programs print them (`tests/fixtures/packet-filters`): nft 1.0.6 and iptables-save 1.8.9, recorded in network namespaces.
//! `ufw` has the files of its package 0.36.2, with ssh allowed; `firewalld` is built as its nftables backend builds a default zone.

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/fixtures/packet-filters/", $name))
    };
}

fn nft(text: &str) -> Vec<Chain> {
    nftables::parse(text).unwrap()
}

const PEER: Option<Ipv4Addr> = Some(Ipv4Addr::new(10, 1, 0, 2));
const OWN: Option<Ipv4Addr> = Some(Ipv4Addr::new(10, 1, 0, 1));

fn to_node(protocol: &'static str, port: u16) -> Packet<'static> {
    Packet {
        hook: Hook::Input,
        protocol,
        port,
        source: PEER,
        destination: OWN,
        from: Some("eth0"),
        to: None,
        is_translated: false,
    }
}

fn of_pods() -> Packet<'static> {
    Packet {
        hook: Hook::Forward,
        from: Some("cni0"),
        to: Some("flannel.1"),
        ..to_node("tcp", 8080)
    }
}

fn places(chains: &[Chain], packet: &Packet) -> Vec<String> {
    drops(chains, packet).iter().map(ToString::to_string).collect()
}

#[test]
fn a_policy_that_drops_is_named_unless_a_rule_accepts_first() {
    let chains = nft(fixture!("ssh-only.nft.json"));
    let place = "table inet f, chain i: policy drop, and no rule accepts it";
    for (protocol, port) in [("tcp", 2379), ("udp", 8472), ("udp", 22), ("tcp", 10250)] {
        assert_eq!(places(&chains, &to_node(protocol, port)), [place], "{protocol} {port}");
    }
    assert!(places(&chains, &to_node("tcp", 22)).is_empty());
    let on_loopback = Packet {
        from: Some("lo"),
        ..to_node("tcp", 2379)
    };
    assert!(places(&chains, &on_loopback).is_empty());
    assert!(
        places(&chains, &of_pods()).is_empty(),
        "it has no chain for what is forwarded"
    );
}

#[test]
fn sets_ranges_maps_jumps_and_interfaces_are_understood() {
    let chains = nft(fixture!("mixed.nft.json"));
    let rejected = ["table inet f, chain x: the rule with handle 15 (reject)"];
    let policy = ["table inet f, chain i: policy drop, and no rule accepts it"];
    for accepted in [("tcp", 22), ("tcp", 8055), ("tcp", 2380), ("udp", 8472), ("tcp", 6443)] {
        assert!(
            places(&chains, &to_node(accepted.0, accepted.1)).is_empty(),
            "{accepted:?}"
        );
    }
    assert_eq!(places(&chains, &to_node("tcp", 10250)), rejected);
    assert_eq!(
        places(&chains, &to_node("tcp", 8101)),
        policy,
        "behind the end of the range"
    );
    let from = |source: [u8; 4]| Packet {
        source: Some(source.into()),
        ..to_node("tcp", 2379)
    };
    assert!(places(&chains, &from([10, 2, 0, 5])).is_empty(), "the set's range");
    assert_eq!(places(&chains, &from([10, 2, 0, 6])), policy);
    let from_anybody = Packet {
        source: None,
        ..to_node("tcp", 2379)
    };
    assert!(places(&chains, &from_anybody).is_empty(), "it may be in the set");
    let through_wlan = Packet {
        from: Some("wlan0"),
        ..to_node("udp", 8472)
    };
    assert_eq!(places(&chains, &through_wlan).len(), 1, "eth* alone is open");
}

#[test]
fn what_a_program_decides_is_not_known() {
    let queued = fixture!("prerouting.nft.json").replacen("{\"accept\": null}", "{\"queue\": {\"num\": 0}}", 1);
    // The first rule asks for packets of known connections: without that question it decides about all.
    let all = queued.replacen(r#"["established", "related"]"#, r#"["new", "related"]"#, 1);
    assert_ne!(all, queued);
    assert!(places(&nft(&all), &to_node("tcp", 2379)).is_empty());
    assert_eq!(places(&nft(&queued), &to_node("tcp", 2379)).len(), 1);
}

#[test]
fn chains_ahead_of_routing_drop_what_comes_in() {
    let early = "table inet early, chain pre: policy drop, and no rule accepts it";
    let chains = nft(fixture!("prerouting.nft.json"));
    assert_eq!(places(&chains, &to_node("tcp", 2379)), [early]);
    assert!(places(&chains, &to_node("tcp", 22)).is_empty());
    assert_eq!(places(&chains, &of_pods()), [early]);
    let leaves = Packet {
        hook: Hook::Output,
        from: None,
        to: Some("eth0"),
        ..to_node("tcp", 2379)
    };
    assert!(places(&chains, &leaves).is_empty(), "it does not come in");
    let for_service = Packet {
        is_translated: true,
        ..of_pods()
    };
    assert!(
        places(&chains, &for_service).is_empty(),
        "it had another destination there"
    );

    let chains = iptables::parse(fixture!("prerouting.iptables-save"), Variant::IptablesNft);
    let to_etcd = drops(&chains, &to_node("tcp", 2380));
    let [dropped] = &to_etcd[..] else {
        panic!("{to_etcd:#?}")
    };
    assert_eq!(
        dropped.to_string(),
        "table ip mangle, chain edge: -A edge -p tcp -m tcp --dport 2379:2380 -j DROP"
    );
    assert_eq!((dropped.base.as_str(), dropped.is_prerouting), ("PREROUTING", true));
    let raw = ["table ip raw, chain PREROUTING: -A PREROUTING -p udp -j DROP"];
    assert_eq!(places(&chains, &to_node("udp", 8472)), raw);
    assert!(places(&chains, &to_node("tcp", 6443)).is_empty());
}

#[test]
fn the_default_zone_of_firewalld_rejects() {
    let chains = nft(fixture!("firewalld.nft.json"));
    let input = places(&chains, &to_node("tcp", 6443));
    assert_eq!(input.len(), 1, "{input:?}");
    assert!(
        input[0].starts_with("table inet firewalld, chain filter_IN_public: the rule with handle "),
        "{input:?}"
    );
    assert!(input[0].ends_with("(reject)"));
    assert!(places(&chains, &to_node("tcp", 22)).is_empty());
    assert!(places(&chains, &of_pods())[0].contains("filter_FWD_public:"));
    let for_service = Packet {
        is_translated: true,
        ..to_node("tcp", 6443)
    };
    assert!(
        places(&chains, &for_service).is_empty(),
        "it lets in what was for a Service"
    );
    let out = Packet {
        to: Some("eth0"),
        ..of_pods()
    };
    assert!(places(&chains, &out).is_empty(), "its zone lets out through eth0");
}

#[test]
fn ufw_drops_by_its_policies() {
    let chains = iptables::parse(fixture!("ufw.iptables-save"), Variant::IptablesNft);
    assert_eq!(
        places(&chains, &to_node("tcp", 6443)),
        ["table ip filter, chain INPUT: policy drop, and no rule accepts it"]
    );
    assert_eq!(
        places(&chains, &to_node("tcp", 445)),
        ["table ip filter, chain ufw-skip-to-policy-input: -A ufw-skip-to-policy-input -j DROP"]
    );
    assert!(places(&chains, &to_node("tcp", 22)).is_empty());
    assert_eq!(
        places(&chains, &of_pods()),
        ["table ip filter, chain FORWARD: policy drop, and no rule accepts it"]
    );
}

#[test]
fn the_last_rule_of_a_red_hat_of_old_rejects() {
    let chains = iptables::parse(fixture!("redhat.iptables-save"), Variant::IptablesNft);
    let place = ["table ip filter, chain INPUT: -A INPUT -j REJECT --reject-with icmp-host-prohibited"];
    assert_eq!(places(&chains, &to_node("tcp", 2380)), place);
    assert_eq!(
        places(&chains, &to_node("udp", 8472)),
        place,
        "a source port of 123 is none of ours"
    );
    assert!(places(&chains, &to_node("tcp", 22)).is_empty());
    assert_eq!(places(&chains, &of_pods()).len(), 1);
}

#[test]
fn chains_of_docker_are_not_at_fault_but_its_policy_is() {
    let docker = iptables::parse(fixture!("docker.iptables-save"), Variant::IptablesNft);
    for packet in [to_node("tcp", 6443), of_pods()] {
        assert!(places(&docker, &packet).is_empty(), "{packet:?}");
    }
    let to_its_bridge = Packet {
        to: Some("docker0"),
        ..of_pods()
    };
    assert!(places(&docker, &to_its_bridge)[0].contains("-A DOCKER ! -i docker0 -o docker0 -j DROP"));
    let with_policy = iptables::parse(fixture!("docker-policy.iptables-save"), Variant::IptablesNft);
    assert_eq!(
        places(&with_policy, &of_pods()),
        ["table ip filter, chain FORWARD: policy drop, and no rule accepts it"]
    );
}

/// A chain for input with a policy of drop, and these rules, as iptables writes them.
fn with_rules(rules: &[&str]) -> Vec<Chain> {
    let rules: String = rules.iter().map(|rule| format!("{rule}\n")).collect();
    iptables::parse(
        &format!("*filter\n:INPUT DROP [0:0]\n:SUB - [0:0]\n{rules}COMMIT\n"),
        Variant::IptablesNft,
    )
}

#[test]
fn what_may_be_accepted_is_not_called_dropped() {
    let packet = to_node("tcp", 6443);
    for (rules, is_dropped) in [
        (&["-A INPUT -m set --match-set good src -j ACCEPT"][..], false),
        (&["-A INPUT -m mark --mark 0x1 -j ACCEPT"], false),
        (&["-A INPUT -j TARPIT"], false),
        (
            &["-A INPUT -m set --match-set good src -j SUB", "-A SUB -j ACCEPT"],
            false,
        ),
        (
            &["-A INPUT -m set --match-set good src -j SUB", "-A SUB -p udp -j ACCEPT"],
            true,
        ),
        (&["-A INPUT -m set --match-set bad src -j DROP"], true),
        (
            &[
                "-A INPUT -m set --match-set x src -j LOG",
                "-A INPUT -p tcp -m comment --comment \"a -j b\" -j LOG",
            ],
            true,
        ),
        (
            &[
                "-A INPUT -j SUB",
                "-A SUB -m mark --mark 0x1 -j RETURN",
                "-A SUB -j ACCEPT",
            ],
            false,
        ),
        (&["-A INPUT -g SUB", "-A INPUT -j ACCEPT"], true),
        (&["-A INPUT -j SUB", "-A SUB -j RETURN", "-A INPUT -j ACCEPT"], false),
        (&["-A INPUT ! -s 10.1.0.0/16 -j ACCEPT"], true),
        (&["-A INPUT ! -s 10.9.0.0/16 -j ACCEPT"], false),
        (&["-A INPUT -p tcp -m multiport --dports 80,6000:7000 -j ACCEPT"], false),
        (&["-A INPUT -i eth+ -j ACCEPT"], false),
        (&["-A INPUT -j SUB", "-A SUB -j SUB"], false),
    ] {
        assert_eq!(!drops(&with_rules(rules), &packet).is_empty(), is_dropped, "{rules:?}");
    }
}

#[test]
fn damaged_texts_are_no_rules() {
    assert_eq!(nftables::parse("no JSON"), None);
    assert_eq!(nftables::parse("{}"), None);
    assert_eq!(
        nftables::parse(r#"{"nftables": [{"rule": {"expr": [7, {}, {"match": 1}]}}, 3]}"#),
        Some(vec![])
    );
    assert_eq!(
        iptables::parse("-A INPUT -j DROP\n:\n*\n-A \n\"\\", Variant::IptablesNft),
        iptables::parse(":", Variant::IptablesNft)
    );
    // Every text that is cut off is read without a panic.
    for text in [fixture!("ufw.iptables-save"), fixture!("docker.iptables-save")] {
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let _ = drops(
                &iptables::parse(&text[..end], Variant::IptablesNft),
                &to_node("tcp", 22),
            );
        }
    }
}
