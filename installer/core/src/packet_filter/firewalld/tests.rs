//! Tables as firewalld 1.3.3 and 2.3.1 make them, recorded in network namespaces: the zone `drop` has the source 203.0.113.0/24, `trusted`
//! 198.51.101.0/24, `work` 198.51.100.0/24, `internal` the interface eth9; a rule of the default zone `public` drops what 10.90.0.66 sends.

use super::*;
use crate::inventory::Role;
use crate::packet_filter::openings::{self, Openings};
use crate::packet_filter::{Packet, drops, nftables};
use crate::spec::ClusterSpec;
use crate::traffic::{self, Peer};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../../../tests/fixtures/packet-filters/", $name))
    };
}

const TABLE_1: &str = fixture!("firewalld-1.3.nft.json");
const TABLE_2: &str = fixture!("firewalld-2.3.nft.json");
const MARK: &str = "landfall 0f1e2d3c4b5a";

fn wanted(peers: &[[u8; 4]]) -> Openings {
    let peer = |address: [u8; 4]| Peer {
        role: Role::ControlPlane,
        address: address.into(),
    };
    let peers: Vec<Peer> = peers.iter().copied().map(peer).collect();
    traffic::openings(&ClusterSpec::default(), MARK, peer([10, 90, 0, 11]), "eth0", &peers)
}

fn input(source: [u8; 4], port: u16) -> Packet<'static> {
    Packet {
        hook: Hook::Input,
        protocol: "tcp",
        port,
        source: Some(source.into()),
        destination: Some([10, 90, 0, 11].into()),
        from: Some("eth0"),
        to: None,
        is_translated: false,
    }
}

#[test]
fn a_policy_opens_what_zones_leave_and_nothing_that_somebody_has_decided() {
    let chains = nftables::parse(TABLE_1).unwrap();
    assert!(has_policies(&chains));
    let wanted = wanted(&[[10, 90, 0, 12], [10, 90, 0, 66]]);
    let (opened, insertions) = openings::open(&chains, &wanted);
    assert!(!insertions.is_empty() && insertions.iter().all(openings::Insertion::is_of_firewalld));
    let passes = |source, port| drops(&opened, &input(source, port)).is_empty();
    assert!(passes([10, 90, 0, 12], 2379), "a member");
    assert!(!passes([10, 90, 0, 12], 22 + 1));
    assert!(!passes([10, 90, 0, 66], 2379), "its owner has said so");
    assert!(passes([10, 90, 0, 9], 443) && !passes([10, 90, 0, 9], 2379), "a client");
    assert!(!passes([203, 0, 113, 9], 443), "banned by its zone");
    let dropped: Vec<_> = wanted
        .packets()
        .into_iter()
        .filter(|p| !drops(&opened, p).is_empty())
        .collect();
    assert!(
        dropped
            .iter()
            .all(|packet| packet.source == Some([10, 90, 0, 66].into())),
        "{dropped:?}"
    );
    assert!(
        openings::faults(&opened, &wanted).is_empty(),
        "what cannot be opened is no fault"
    );
    assert!(!openings::faults(&chains, &wanted).is_empty());
}

#[test]
fn a_table_that_does_not_ask_policies_about_what_pods_send_is_not_opened() {
    let chains = nftables::parse(TABLE_2).unwrap();
    assert!(!has_policies(&chains));
    assert_eq!(openings::open(&chains, &wanted(&[[10, 90, 0, 12]])).1, []);
}

#[test]
fn what_a_firewalld_that_became_2_x_drops_without_asking_our_policies_is_a_fault() {
    let wanted = wanted(&[[10, 90, 0, 12], [10, 90, 0, 66], [203, 0, 113, 9]]);
    let own = |table: &str| nftables::parse(&table.replace("allow-host-ipv6", "landfall-0f1e2d-i")).unwrap();
    let [fault] = openings::faults(&own(TABLE_2), &wanted).try_into().unwrap();
    assert!(
        fault.starts_with("firewalld 2.x drops what landfall's policies accept")
            && fault.contains("chain filter_FORWARD_POLICIES")
            && fault.contains("`firewall-cmd --zone=trusted --add-source=10.244.0.0/16 --add-source=10.90.0.12`"),
        "{fault}"
    );
    assert!(
        !fault.contains("10.90.0.66") && !fault.contains("203.0.113.9"),
        "its owner has shut them out: {fault}"
    );
    assert_eq!(openings::unasked(&own(TABLE_2), &wanted), Some(fault));
    assert_eq!(openings::unasked(&own(TABLE_1), &wanted), None);
    let never_had_ours = nftables::parse(TABLE_2).unwrap();
    assert_eq!(openings::faults(&never_had_ours, &wanted), [""; 0]);
    // 198.51.101.0/24 is in the zone trusted.
    let none = Openings {
        accept: vec![],
        ..wanted.clone()
    };
    assert_eq!(openings::unasked(&own(TABLE_2), &none), None);
    let trusted = TABLE_2.replace("198.51.101.0\", \"len\": 24", "10.244.0.0\", \"len\": 16");
    assert_ne!(trusted, TABLE_2);
    let fault = openings::unasked(&own(&trusted), &wanted).unwrap();
    assert!(
        !fault.contains("filter_FORWARD") && fault.contains("`firewall-cmd --zone=trusted --add-source=10.90.0.12`"),
        "{fault}"
    );
}

#[test]
fn what_a_zone_shuts_out_by_source_is_said_in_the_policy() {
    let bans = bans(&nftables::parse(TABLE_1).unwrap());
    let [ban] = bans.as_slice() else { panic!("{bans:?}") };
    assert_eq!((ban.zone.as_str(), ban.has_others), ("drop", false));
    assert_eq!(ban.addresses, BTreeSet::from(["203.0.113.0/24".to_owned()]));
    let policy = Policy::of(MARK, &wanted(&[[10, 90, 0, 12]]).accept, Hook::Input, &bans).unwrap();
    let texts: Vec<String> = policy.rules.iter().map(RichRule::text).collect();
    let told = [
        "rule family=\"ipv4\" source address=\"203.0.113.0/24\" drop",
        "rule family=\"ipv4\" source address=\"10.90.0.12\" port port=\"2379\" protocol=\"tcp\" accept",
        "rule family=\"ipv4\" port port=\"443\" protocol=\"tcp\" accept",
        "rule family=\"ipv4\" source address=\"10.244.0.0/16\" port port=\"6443\" protocol=\"tcp\" accept",
    ];
    assert!(
        told.iter().all(|rule| texts.iter().any(|text| text == rule)),
        "{texts:#?}"
    );
    assert_eq!(texts.len(), 8 + 2 + 1 + 1, "{texts:#?}");
}

#[test]
fn sources_that_no_rule_can_name_are_told() {
    let with = |way: &str| {
        let text = format!(
            "{{\"nftables\": [{}, {}, {}, {way}, {}]}}",
            "{\"chain\": {\"family\": \"inet\", \"table\": \"firewalld\", \"name\": \"filter_INPUT_ZONES\"}}",
            "{\"chain\": {\"family\": \"inet\", \"table\": \"firewalld\", \"name\": \"filter_IN_drop\"}}",
            "{\"set\": {\"family\": \"inet\", \"table\": \"firewalld\", \"name\": \"bl\", \"elem\": [\"10.0.0.7\", \"10.0.0.9\"]}}",
            "{\"rule\": {\"family\": \"inet\", \"table\": \"firewalld\", \"chain\": \"filter_IN_drop\", \"handle\": 9, \"expr\": [{\"drop\": null}]}}"
        );
        bans(&nftables::parse(&text).unwrap())
    };
    let way = |left: &str, right: &str| {
        format!(
            "{{\"rule\": {{\"family\": \"inet\", \"table\": \"firewalld\", \"chain\": \"filter_INPUT_ZONES\", \"handle\": 5, \"expr\": \
             [{{\"match\": {{\"op\": \"==\", \"left\": {left}, \"right\": {right}}}}}, {{\"goto\": {{\"target\": \"filter_IN_drop\"}}}}]}}}}"
        )
    };
    let address = |family: &str| format!("{{\"payload\": {{\"protocol\": \"{family}\", \"field\": \"saddr\"}}}}");
    let others = |bans: Vec<Ban>| bans.iter().map(|ban| ban.has_others).collect::<Vec<_>>();
    assert_eq!(others(with(&way(&address("ip"), "\"@bl\""))), [true]);
    assert_eq!(others(with(&way(&address("ether"), "\"00:11:22:33:44:55\""))), [true]);
    assert_eq!(
        others(with(&way(&address("ip6"), "\"2001:db8::1\""))),
        [false],
        "no rule is about IPv6"
    );
    let by_link = way("{\"meta\": {\"key\": \"iifname\"}}", "\"eth0\"");
    assert_eq!(with(&by_link), [], "a zone that drops by default is opened");
    let both = format!("{by_link}, {}", way(&address("ip"), "\"10.0.0.7\""));
    assert_eq!(with(&both), []);
}

#[test]
fn files_bear_the_mark_and_names_are_as_short_as_firewalld_wants_them() {
    let wanted = wanted(&[[10, 90, 0, 12]]);
    let policy = Policy::of(MARK, &wanted.accept, Hook::Forward, &[]).unwrap();
    assert_eq!(names(MARK), ["landfall-0f1e2d-i", "landfall-0f1e2d-f"]);
    assert!(names(MARK).iter().all(|name| name.len() <= 17));
    assert_eq!(
        policy.file(),
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<policy priority=\"32767\" target=\"CONTINUE\">\n  <short>landfall</short>\n  \
         <description>landfall 0f1e2d3c4b5a forward</description>\n  <ingress-zone name=\"ANY\"/>\n  <egress-zone name=\"ANY\"/>\n  \
         <rule family=\"ipv4\"><source address=\"10.244.0.0/16\"/><accept/></rule>\n</policy>\n"
    );
    assert!(is_marked(&policy.file(), MARK) && !is_marked(&policy.file(), "landfall 0f1e2d3c4b5"));
    assert_eq!(Policy::of(MARK, &wanted.accept, Hook::Output, &[]), None);
}

#[test]
fn loaded_policies_are_known_by_their_name_and_left_out_of_what_others_want() {
    let text = TABLE_1;
    let chains = nftables::parse(text).unwrap();
    assert_eq!(loaded(&chains, "landfall-0f1e2d-i"), None);
    assert_eq!(
        loaded(&chains, "allow-host-ipv6"),
        Some(1),
        "four kinds of ICMPv6, which are not told apart here"
    );
    // As it shows a policy of ours.
    let own = nftables::parse(&text.replace("allow-host-ipv6", "landfall-0f1e2d-i")).unwrap();
    assert_eq!(loaded(&own, "landfall-0f1e2d-i"), Some(1));
    let without = openings::without_marked(&own, MARK);
    assert_eq!(loaded(&without, "landfall-0f1e2d-i"), Some(0));
    assert_eq!(openings::without_marked(&own, "landfall ffff"), own);
}

#[test]
fn what_a_reload_would_undo_is_told_line_by_line() {
    let saved = "drop\n  target: DROP\n  sources: 10.0.0.1 10.0.0.2\n  rich rules: \n\npublic (default)\n  interfaces: \n  ports: \n  \
                 rich rules: \n\trule family=\"ipv4\" source address=\"10.0.0.9\" drop\n";
    let loaded = "drop (active)\n  target: DROP\n  sources: 10.0.0.2 10.0.0.1\n  rich rules: \n\nlandfall-0f1e2d-i (active)\n  priority: 1\n\n\
                  public (default, active)\n  interfaces: eth0\n  ports: \n  rich rules: \n\trule family=\"ipv4\" source address=\"10.0.0.9\" drop\n";
    assert_eq!(differences(loaded, saved, "public"), [""; 0]);
    let more = loaded.replace("ports: ", "ports: 9999/tcp");
    assert_eq!(
        differences(&more, saved, "public"),
        [
            "public: loaded, not saved: ports: 9999/tcp",
            "public: saved, not loaded: ports:"
        ]
    );
    assert_eq!(
        differences(loaded, saved, "home").len(),
        2,
        "interfaces of other zones are lost"
    );
}
