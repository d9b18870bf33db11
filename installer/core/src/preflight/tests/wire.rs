//! Packet filters, and what nodes see of each other.

use super::*;
use crate::facts::PacketFilters;
use crate::mesh::{MeshListening, MeshPeer, MeshSeen, PortSeen, UdpSeen};
use crate::preflight::mesh::{MeshInput, MeshPlan, judge as judge_mesh, plan};
use crate::spec::Firewall;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../../../tests/fixtures/packet-filters/", $name)).to_owned()
    };
}

fn iptables(text: String) -> PacketFilters {
    PacketFilters {
        iptables: vec![text],
        ..PacketFilters::default()
    }
}

fn nftables(text: String) -> PacketFilters {
    PacketFilters {
        nftables: vec![text],
        ..PacketFilters::default()
    }
}

/// Returns what is found when cp-2 has these rules.
fn filtered(filters: &PacketFilters) -> Vec<Finding> {
    findings(|facts| facts.survey.filters = filters.clone())
}

#[test]
fn a_filter_that_lets_only_ssh_in_is_named_with_what_it_drops() {
    let finding = only(Check::PacketFilter, filtered(&nftables(fixture!("ssh-only.nft.json"))));
    assert_eq!(finding.severity, Severity::Refuse);
    assert_eq!(
        finding.what,
        "a packet filter drops: tcp 80, tcp 443, tcp 2379, tcp 2380, tcp 6443, tcp 8080, tcp 10250, udp 8472 from all other nodes; pods to the API server"
    );
    assert_eq!(
        finding.saw,
        "table inet f, chain i: policy drop, and no rule accepts it"
    );
    assert_eq!(
        finding.next,
        "set `firewall: open`, or let it through, also in the file that the rules come from: `nft insert rule inet f i tcp dport '{ 80, 443, 2379, 2380, 6443, 8080, 10250 }' \
         accept`, `nft insert rule inet f i udp dport '{ 8472 }' accept`, `nft insert rule inet f i ip saddr 10.244.0.0/16 accept`, `nft insert \
         rule inet f i ip daddr 10.244.0.0/16 accept`"
    );
}

#[test]
fn what_is_dropped_ahead_of_routing_is_named_and_refused_whatever_the_setting() {
    for firewall in [Firewall::Keep, Firewall::Open] {
        let found = opened(
            &iptables(fixture!("prerouting.iptables-save")),
            firewall,
            &BTreeMap::new(),
        );
        let [etcd, vxlan] = &found[..] else {
            panic!("{found:#?}")
        };
        assert!(found.iter().all(|finding| finding.severity == Severity::Refuse));
        assert_eq!(
            etcd.what,
            "a packet filter drops: tcp 2379, tcp 2380 from all other nodes"
        );
        assert_eq!(
            etcd.next,
            "let it through, also in the file that the rules come from: `iptables -I PREROUTING -t mangle -p tcp -m multiport --dports 2379,2380 -j ACCEPT`"
        );
        assert_eq!(
            vxlan.saw,
            "table ip raw, chain PREROUTING: -A PREROUTING -p udp -j DROP"
        );
    }
    let one = opened(
        &nftables(fixture!("prerouting.nft.json")),
        Firewall::Open,
        &BTreeMap::new(),
    );
    let finding = only(Check::PacketFilter, one);
    assert!(finding.what.contains("pods of other nodes to pods"), "{finding:#?}");
}

#[test]
fn the_owners_of_rules_are_named_with_their_own_commands() {
    for (filters, owner, command, count) in [
        (
            nftables(fixture!("firewalld.nft.json")),
            "(firewalld)",
            "firewall-cmd",
            2,
        ),
        (iptables(fixture!("ufw.iptables-save")), "(ufw)", "ufw allow", 2),
        (
            iptables(fixture!("redhat.iptables-save")),
            "a packet filter drops",
            "iptables -I INPUT -p tcp",
            2,
        ),
        (
            iptables(fixture!("docker-policy.iptables-save")),
            "Docker",
            "iptables -P FORWARD ACCEPT",
            1,
        ),
    ] {
        let found = filtered(&filters);
        assert_eq!(found.len(), count, "{found:#?}");
        assert!(
            found
                .iter()
                .all(|f| f.check == Check::PacketFilter && f.what.contains(owner)),
            "{found:#?}"
        );
        assert!(found.iter().any(|f| f.next.contains(command)), "{found:#?}");
    }
    assert_eq!(filtered(&iptables(fixture!("docker.iptables-save"))), vec![]);
}

/// Returns what is found when cp-2 has these rules and landfall may open packet filters.
fn opened(filters: &PacketFilters, firewall: Firewall, owned: &BTreeMap<NodeName, Ownership>) -> Vec<Finding> {
    let mut desired = desired();
    desired.spec.firewall = firewall;
    let mut facts = fleet();
    facts.get_mut(&name("cp-2")).unwrap().survey.filters = filters.clone();
    judge(&desired, &facts, owned)
}

#[test]
fn what_landfall_opens_is_a_note_and_what_it_cannot_open_is_refused() {
    let none = BTreeMap::new();
    for (filters, count) in [
        (nftables(fixture!("ssh-only.nft.json")), 1),
        (iptables(fixture!("redhat.iptables-save")), 2),
        (iptables(fixture!("docker-policy.iptables-save")), 1),
        (iptables(fixture!("ufw.iptables-save")), 2),
    ] {
        let found = opened(&filters, Firewall::Open, &none);
        assert_eq!(found.len(), count, "{found:#?}");
        for finding in &found {
            assert_eq!((finding.check, finding.severity), (Check::PacketFilter, Severity::Note));
            assert!(finding.next.contains("landfall writes rules"), "{finding:#?}");
        }
    }
    let found = opened(&nftables(fixture!("firewalld.nft.json")), Firewall::Open, &none);
    let refuses = |finding: &Finding| finding.severity == Severity::Refuse;
    assert!(!found.is_empty() && found.iter().all(refuses), "{found:#?}");
}

#[test]
fn firewalld_gets_policies_unless_a_reload_would_lose_something() {
    let open = |filters: &PacketFilters, setting| {
        let mut desired = desired();
        desired.spec.firewall = setting;
        let mut facts = fleet();
        let own = facts.get_mut(&name("cp-2")).unwrap();
        own.survey.filters = filters.clone();
        own.units.insert("firewalld.service".into(), "active".into());
        judge(&desired, &facts, &BTreeMap::new())
    };
    let mut filters = nftables(fixture!("firewalld-1.3.nft.json"));
    let found = open(&filters, Firewall::Open);
    assert!(found.len() > 2, "{found:#?}");
    assert!(
        found.iter().all(|finding| finding.severity == Severity::Note),
        "{found:#?}"
    );
    let kept = open(&filters, Firewall::Keep);
    let (unit, rules): (Vec<_>, Vec<_>) = kept.iter().partition(|finding| finding.check == Check::Firewall);
    assert!(
        unit.len() == 1 && unit[0].severity == Severity::Warn,
        "its rules were read: {unit:#?}"
    );
    assert!(rules.len() > 1 && rules.iter().all(|finding| finding.refuses()));
    assert!(
        rules
            .iter()
            .all(|finding| finding.next.starts_with("set `firewall: open`, or "))
    );
    let unseen = open(&PacketFilters::default(), Firewall::Keep);
    assert!(only(Check::Firewall, unseen).refuses(), "nobody knows what it drops");

    filters.firewalld_differences = vec!["public: loaded, not saved: ports: 9999/tcp".to_owned()];
    let found = open(&filters, Firewall::Open);
    let refused: Vec<_> = found.iter().filter(|finding| finding.refuses()).collect();
    assert_eq!(refused.len(), 1, "{found:#?}");
    assert!(refused[0].next.contains("--runtime-to-permanent") && refused[0].saw.contains("9999/tcp"));
    // One that is older than policies, one that does not ask them about all, and one whose rules nobody can show.
    for filters in [
        nftables(fixture!("firewalld.nft.json")),
        nftables(fixture!("firewalld-2.3.nft.json")),
        PacketFilters::default(),
    ] {
        let found = open(&filters, Firewall::Open);
        let of_unit = found.iter().find(|finding| finding.check == Check::Firewall).unwrap();
        assert!(of_unit.refuses() && of_unit.next.contains("0.9 to 1.x"), "{of_unit:#?}");
    }
}

#[test]
fn ufw_counts_where_its_chains_are() {
    let with_unit = |filters: &PacketFilters| {
        findings(|facts| {
            facts.units.insert("ufw.service".into(), "active".into());
            facts.survey.filters = filters.clone();
        })
    };
    // The unit of Ubuntu's ufw has run and is active, also while ufw is off.
    assert_eq!(with_unit(&PacketFilters::default()), vec![]);
    let mut legacy = PacketFilters::default();
    legacy.unread_legacy.push("filter".to_owned());
    let mut unread = PacketFilters::default();
    unread.unread.push("ip filter INPUT".to_owned());
    for unreadable in [legacy, unread] {
        let found = with_unit(&unreadable);
        let unit = found.iter().find(|finding| finding.check == Check::Firewall);
        assert!(unit.is_some_and(Finding::refuses), "{found:#?}");
    }
    let on = with_unit(&iptables(fixture!("ufw.iptables-save")));
    let unit = on.iter().find(|finding| finding.check == Check::Firewall).unwrap();
    assert_eq!(unit.severity, Severity::Warn);
    assert!(on.iter().any(Finding::refuses), "its rules drop: {on:#?}");
}

#[test]
fn sources_that_a_zone_shuts_out_and_no_rule_can_name_are_a_warning() {
    let text = fixture!("firewalld-1.3.nft.json");
    let by_address = "{\"payload\": {\"protocol\": \"ip\", \"field\": \"saddr\"}}, \"right\": {\"prefix\": {\"addr\": \"203.0.113.0\", \"len\": 24}}";
    let by_card = "{\"payload\": {\"protocol\": \"ether\", \"field\": \"saddr\"}}, \"right\": \"00:11:22:33:44:55\"";
    assert!(text.contains(by_address));
    let found = opened(
        &nftables(text.replace(by_address, by_card)),
        Firewall::Open,
        &BTreeMap::new(),
    );
    let finding = only(
        Check::Firewall,
        found
            .into_iter()
            .filter(|finding| finding.check == Check::Firewall)
            .collect(),
    );
    assert_eq!((finding.severity, finding.saw.as_str()), (Severity::Warn, "drop"));
}

#[test]
fn rules_of_landfall_count_as_long_as_the_spec_asks_for_them() {
    let record = crate::cluster_record::tests::record(3, 3, 0);
    let rule = format!(
        "-A INPUT -m comment --comment \"landfall {} 0a input\" -j ACCEPT\n",
        record.uid
    );
    let text = format!("*filter\n:INPUT DROP [0:0]\n{rule}COMMIT\n");
    let own = Ownership {
        records: vec![record],
        ..owned_entry()
    };
    let owned: BTreeMap<NodeName, Ownership> = [(name("cp-1"), own)].into();
    let filters = iptables(text);
    let left_out = only(Check::PacketFilter, opened(&filters, Firewall::Keep, &owned));
    assert_eq!(left_out.severity, Severity::Refuse, "the rules go with the setting");
    let kept = only(Check::PacketFilter, opened(&filters, Firewall::Open, &owned));
    assert_eq!(kept.severity, Severity::Note);
    let found = opened(&filters, Firewall::Keep, &BTreeMap::new());
    assert_eq!(found, vec![], "a mark of nobody's is a rule like others");
}

#[test]
fn flannel_with_iptables_gets_by_a_policy_but_not_by_a_rule() {
    let found = |text: String| {
        let mut desired = desired();
        desired.spec.proxy_mode = crate::spec::ProxyMode::Iptables;
        let mut facts = fleet();
        facts
            .get_mut(&"cp-2".parse::<NodeName>().unwrap())
            .unwrap()
            .survey
            .filters = iptables(text);
        judge(&desired, &facts, &BTreeMap::new())
    };
    assert_eq!(found(fixture!("docker-policy.iptables-save")), vec![]);
    assert!(
        found(fixture!("redhat.iptables-save"))
            .iter()
            .any(|f| f.saw.contains("chain FORWARD"))
    );
}

#[test]
fn rules_that_cannot_be_read_are_a_warning() {
    let filters = PacketFilters {
        unread: vec!["ip filter FORWARD".to_owned()],
        ..PacketFilters::default()
    };
    let finding = only(Check::PacketFilter, filtered(&filters));
    assert_eq!(
        (finding.severity, finding.saw.as_str()),
        (Severity::Warn, "ip filter FORWARD")
    );
    let legacy = PacketFilters {
        unread_legacy: vec!["filter".to_owned()],
        ..PacketFilters::default()
    };
    only(Check::NotDetermined, filtered(&legacy));
}

fn fleet() -> BTreeMap<NodeName, NodeFacts> {
    (1..=3).map(|n| (format!("cp-{n}").parse().unwrap(), good(n))).collect()
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// Three control planes, and what is tried among them.
struct Mesh {
    desired: Desired,
    facts: BTreeMap<NodeName, NodeFacts>,
    owned: BTreeMap<NodeName, Ownership>,
}

impl Mesh {
    fn new() -> Self {
        Self {
            desired: desired(),
            facts: fleet(),
            owned: BTreeMap::new(),
        }
    }

    fn input(&self) -> MeshInput<'_> {
        MeshInput {
            desired: &self.desired,
            facts: &self.facts,
            owned: &self.owned,
            record: None,
        }
    }

    fn plan(&self) -> MeshPlan {
        plan(&self.input(), "token")
    }

    /// Judges a mesh in which all is well but for what `change` does to one node's sight of another.
    fn judge(&self, change: impl Fn(&str, &str, &mut MeshSeen)) -> Vec<Finding> {
        let plan = self.plan();
        let good = |peer: &MeshPeer| MeshSeen {
            node: peer.node.clone(),
            tcp: peer
                .tcp
                .iter()
                .map(|port| (*port, PortSeen::Open { took_us: 300 }))
                .collect(),
            udp: peer.udp.map(|_| UdpSeen {
                sent: 20,
                answered: 19,
                round_trip_us: Some(300),
                mtu: 1500,
                largest: 1500,
            }),
        };
        let mut seen = BTreeMap::new();
        for (from, tries) in &plan.tries {
            let mut of_node: Vec<MeshSeen> = tries.peers.iter().map(good).collect();
            for one in &mut of_node {
                let to = one.node.clone();
                change(from.as_str(), to.as_str(), one);
            }
            seen.insert(from.clone(), of_node);
        }
        judge_mesh(&self.input(), &seen)
    }
}

fn silent(seen: &mut MeshSeen, ports: &[u16]) {
    for port in ports {
        assert!(seen.tcp.insert(*port, PortSeen::Silent).is_some(), "{port} is tried");
    }
}

fn udp(seen: &mut MeshSeen) -> &mut UdpSeen {
    seen.udp.as_mut().unwrap()
}

#[test]
fn every_pair_is_tried_on_what_it_needs() {
    let mut mesh = Mesh::new();
    mesh.desired.inventory.nodes[2].role = Role::Worker;
    let plan = mesh.plan();
    assert_eq!(
        plan.listens[&name("cp-1")].tcp,
        [80, 443, 2379, 2380, 6443, 8080, 10250]
    );
    assert_eq!(plan.listens[&name("cp-3")].tcp, [80, 443, 8080, 10250]);
    assert!(
        plan.listens
            .values()
            .all(|listen| listen.udp == Some(8472) && listen.token == "token")
    );
    let ports = |from: &str, to: &str| {
        let peers = &plan.tries[&name(from)].peers;
        peers.iter().find(|peer| peer.node == name(to)).unwrap().tcp.clone()
    };
    assert_eq!(ports("cp-1", "cp-3"), [10250, 80, 443, 8080]);
    assert_eq!(
        ports("cp-3", "cp-1"),
        [6443, 80, 443, 8080],
        "a worker needs neither etcd nor a kubelet"
    );
    mesh.desired.spec.ingress.enabled = false;
    assert_eq!(mesh.plan().listens[&name("cp-3")].tcp, [10250]);
    mesh.desired.inventory.nodes.truncate(1);
    assert_eq!(mesh.plan(), MeshPlan::default(), "nobody is alone on a wire");
}

#[test]
fn daemons_are_asked_and_nothing_listens_in_their_place() {
    let mut mesh = Mesh::new();
    let seen = mesh.facts.get_mut(&name("cp-2")).unwrap();
    seen.ports_taken = ["tcp/6443", "tcp/10250", "udp/8472"]
        .map(|port| (port.to_owned(), "x".to_owned()))
        .into();
    let peer = |mesh: &Mesh| mesh.plan().tries[&name("cp-1")].peers[0].clone();
    assert!(
        peer(&mesh).daemons.is_empty(),
        "what others run there is another check's"
    );
    let own = owned_entry();
    mesh.owned.insert(name("cp-2"), own);
    assert!(
        peer(&mesh).daemons.is_empty(),
        "an install that broke off before its daemons ran is tried anew"
    );
    let seen = mesh.facts.get_mut(&name("cp-2")).unwrap();
    seen.units.insert("kubelet.service".to_owned(), "active".to_owned());
    let asked = peer(&mesh);
    assert_eq!((asked.tcp, asked.daemons, asked.udp), (vec![], vec![10250, 6443], None));
    assert!(!mesh.plan().listens.contains_key(&name("cp-2")));
}

#[test]
fn a_port_that_cannot_be_listened_on_is_asked() {
    let mesh = Mesh::new();
    let mut plan = mesh.plan();
    let listening = MeshListening {
        tcp_failed: [(80, "in use".to_owned())].into(),
        udp_failed: Some("no".to_owned()),
    };
    assert_eq!(
        plan.without_failed(&name("cp-2"), &listening),
        ["tcp 80: in use", "udp: no"]
    );
    let peers = &plan.tries[&name("cp-1")].peers;
    assert_eq!((peers[0].daemons.as_slice(), peers[0].udp), (&[80][..], None));
    assert_eq!((peers[1].daemons.as_slice(), peers[1].udp), (&[][..], Some(8472)));
    plan.leave_out(&name("cp-2"));
    assert_eq!(plan.tries[&name("cp-1")].peers.len(), 1);
    assert!(plan.tries[&name("cp-2")].peers.len() == 2 && !plan.listens.contains_key(&name("cp-2")));
}

#[test]
fn a_mesh_without_a_hole_has_no_findings() {
    assert_eq!(Mesh::new().judge(|_, _, _| {}), vec![]);
}

#[test]
fn a_node_that_nobody_reaches_is_at_fault() {
    let mesh = Mesh::new();
    let found = mesh.judge(|_, to, seen| {
        if to == "cp-2" {
            silent(seen, &[2379, 2380]);
        }
    });
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(
        (found[0].check, found[0].nodes.as_slice()),
        (Check::PeerPort, &[name("cp-2")][..])
    );
    assert_eq!(
        found[0].what,
        "cp-2 (10.90.0.12) cannot be reached by tcp 2379, tcp 2380"
    );
    assert_eq!(found[0].saw, "tcp 2379, tcp 2380 from cp-1, cp-3 to cp-2: no answer");
    let found = mesh.judge(|_, to, seen| {
        if to == "cp-2" {
            silent(seen, &[80, 443, 2379, 2380, 6443, 8080, 10250]);
            udp(seen).answered = 0;
        }
    });
    let checks: Vec<Check> = found.iter().map(|f| f.check).collect();
    assert_eq!(checks, [Check::PeerPort, Check::PeerIngress, Check::PeerVxlan]);
    assert!(
        found
            .iter()
            .all(|f| f.nodes == [name("cp-2")] && f.what.ends_with("of all that was tried only ssh reaches it"))
    );
}

#[test]
fn a_node_that_reaches_nobody_and_a_path_between_two_are_told_apart() {
    let mesh = Mesh::new();
    let found = mesh.judge(|from, _, seen| {
        if from == "cp-3" {
            silent(seen, &[6443]);
        }
    });
    assert_eq!(
        (found.len(), found[0].what.as_str()),
        (1, "cp-3 (10.90.0.13) reaches no other node by tcp 6443")
    );
    let found = mesh.judge(|from, to, seen| {
        if (from, to) == ("cp-1", "cp-3") {
            silent(seen, &[2380]);
        }
    });
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].what,
        "cp-1 (10.90.0.11) does not reach cp-3 (10.90.0.13) by tcp 2380, and others do"
    );
    assert_eq!(found[0].nodes, [name("cp-1"), name("cp-3")]);
    let found = mesh.judge(|_, _, seen| udp(seen).answered = 0);
    assert_eq!((found.len(), found[0].check), (1, Check::PeerVxlan));
    assert_eq!(
        (found[0].nodes.len(), found[0].what.as_str()),
        (3, "no node reaches another by udp 8472")
    );
}

#[test]
fn of_two_nodes_it_is_said_that_it_may_be_either() {
    let mut mesh = Mesh::new();
    mesh.desired.inventory.nodes.truncate(2);
    let found = mesh.judge(|from, _, seen| {
        if from == "cp-1" {
            silent(seen, &[2380]);
        }
    });
    assert_eq!(
        found[0].what,
        "cp-1 (10.90.0.11) does not reach cp-2 (10.90.0.12) by tcp 2380"
    );
    assert_eq!(found[0].nodes.len(), 2);
}

#[test]
fn rules_that_are_seen_say_more_than_the_pairs() {
    let mut mesh = Mesh::new();
    let seen = mesh.facts.get_mut(&name("cp-2")).unwrap();
    seen.survey.filters = nftables(fixture!("ssh-only.nft.json"));
    // One pair alone would be the path between the two.
    let found = mesh.judge(|from, to, seen| {
        if (from, to) == ("cp-1", "cp-2") {
            silent(seen, &[2380]);
        }
    });
    assert_eq!(found[0].nodes, [name("cp-2")]);
    assert!(
        found[0].saw.contains("on cp-2: table inet f, chain i: policy drop"),
        "{found:#?}"
    );
}

#[test]
fn a_pair_that_fails_by_a_filter_that_is_opened_is_a_note_and_another_one_is_not() {
    let mut mesh = Mesh::new();
    mesh.desired.spec.firewall = Firewall::Open;
    let seen = mesh.facts.get_mut(&name("cp-2")).unwrap();
    seen.survey.filters = nftables(fixture!("ssh-only.nft.json"));
    let found = mesh.judge(|_, to, seen| {
        if to == "cp-2" {
            silent(seen, &[80, 2380]);
            udp(seen).answered = 0;
        }
        if to == "cp-3" {
            silent(seen, &[6443]);
        }
    });
    let told: Vec<(Check, Severity, &NodeName)> = found.iter().map(|f| (f.check, f.severity, &f.nodes[0])).collect();
    let (of_filter, of_network) = (name("cp-2"), name("cp-3"));
    assert_eq!(
        told,
        [
            (Check::PeerPort, Severity::Note, &of_filter),
            (Check::PeerPort, Severity::Refuse, &of_network),
            (Check::PeerIngress, Severity::Note, &of_filter),
            (Check::PeerVxlan, Severity::Note, &of_filter),
        ]
    );
    assert!(found[0].saw.contains("chain i: policy drop") && found[0].next.contains("landfall writes rules"));
}

/// Whichever pairs fail, there are findings, and each pair that failed is about a node that one of them names.
#[test]
fn no_hole_is_passed_over_and_none_is_made_up() {
    let mesh = Mesh::new();
    let pairs: Vec<(String, String)> = (1..=3)
        .flat_map(|from| {
            (1..=3)
                .filter(move |to| *to != from)
                .map(move |to| (format!("cp-{from}"), format!("cp-{to}")))
        })
        .collect();
    for set in 0u32..1 << pairs.len() {
        let fails = |from: &str, to: &str| {
            let at = pairs
                .iter()
                .position(|pair| (pair.0.as_str(), pair.1.as_str()) == (from, to));
            at.is_some_and(|at| set & (1 << at) != 0)
        };
        let found = mesh.judge(|from, to, seen| {
            if fails(from, to) {
                silent(seen, &[10250]);
            }
        });
        assert_eq!(found.is_empty(), set == 0, "{set:b}: {found:#?}");
        for (from, to) in pairs.iter().filter(|(from, to)| fails(from, to)) {
            let named = |node: &str| found.iter().any(|f| f.nodes.contains(&name(node)));
            assert!(named(from) || named(to), "{set:b}: {from} to {to}: {found:#?}");
        }
        let innocent = |node: &str| {
            !pairs
                .iter()
                .any(|(from, to)| fails(from, to) && (from == node || to == node))
        };
        for finding in &found {
            assert!(
                !finding.nodes.iter().any(|node| innocent(node.as_str())),
                "{set:b}: {finding:#?}"
            );
        }
    }
}

#[test]
fn a_path_that_carries_less_than_the_interface_is_found() {
    let found = Mesh::new().judge(|from, to, seen| {
        if from == "cp-2" || to == "cp-2" {
            udp(seen).largest = 1400;
        }
    });
    assert!(found.iter().all(|f| f.check == Check::PathMtu), "{found:#?}");
    assert!(found.iter().any(|f| f.nodes == [name("cp-2")]), "{found:#?}");
    assert!(
        found[0].saw.contains("interface 1500 bytes, 1400 passed") && found[0].next.contains("mtu 1400"),
        "{found:#?}"
    );
}

#[test]
fn loss_and_long_ways_are_warnings() {
    let found = Mesh::new().judge(|from, to, seen| {
        if (from, to) == ("cp-1", "cp-2") {
            udp(seen).answered = 18;
            udp(seen).round_trip_us = Some(70_000);
        }
    });
    let checks: Vec<(Check, Severity)> = found.iter().map(|f| (f.check, f.severity)).collect();
    assert_eq!(
        checks,
        [(Check::PathLoss, Severity::Warn), (Check::PathLatency, Severity::Warn)],
        "{found:#?}"
    );
    assert_eq!(
        (found[0].saw.as_str(), found[1].saw.as_str()),
        ("cp-1 to cp-2: 2 of 20", "cp-1 to cp-2: 70 ms")
    );
    let mut mesh = Mesh::new();
    mesh.desired.inventory.nodes[1].role = Role::Worker;
    let found = mesh.judge(|_, to, seen| {
        if to == "cp-2" {
            udp(seen).round_trip_us = Some(70_000);
        }
    });
    assert_eq!(found, vec![], "workers may be far away");
}
