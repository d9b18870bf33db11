//! Meshes in network namespaces of their own. They need root, `ip` and `nft`.

use super::{attempt, listen};
use crate::agent::Agent;
use crate::facts;
use crate::host::Host;
use crate::netlink::nft::tests::own_namespace;
use landfall_core::facts::{FactsQuery, NodeFacts, SurveyQuery};
use landfall_core::finding::{Check, Finding};
use landfall_core::mesh::{MeshListen, MeshPeer, MeshSeen, MeshTry, PortSeen, answer};
use landfall_core::name::NodeName;
use landfall_core::preflight::mesh::{MeshInput, judge, plan};
use landfall_core::spec::Desired;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

const TOKEN: &str = "000102030405060708090a0b0c0d0e0f";

type Work = Box<dyn FnOnce() + Send>;

/// A network namespace: a thread that is in it, and does what it is told. It ends with this value.
struct Place {
    work: Sender<Work>,
    thread_id: i32,
}

impl Place {
    fn new() -> Self {
        let (work, asked) = mpsc::channel::<Work>();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            own_namespace();
            tell.send(rustix::thread::gettid().as_raw_pid()).unwrap();
            asked.into_iter().for_each(|work| work());
        });
        let thread_id = told.recv().unwrap();
        let place = Self { work, thread_id };
        place.command("ip link set lo up");
        place
    }

    fn begin<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
        let (tell, told) = mpsc::channel();
        let work = move || drop(tell.send(work()));
        self.work.send(Box::new(work)).unwrap();
        told
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.begin(work).recv().unwrap()
    }

    /// Runs programs there, one for each line.
    fn command(&self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let line = line.to_owned();
            self.run(move || {
                let mut words = line.split(' ');
                let status = Command::new(words.next().unwrap()).args(words).status();
                assert!(status.unwrap().success(), "{line}");
            });
        }
    }

    /// Adds rules, as a file of nft's language.
    fn rules(&self, text: &'static str) {
        let done = self.run(move || {
            let mut nft = Command::new("nft")
                .args(["-f", "-"])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            nft.wait().unwrap()
        });
        assert!(done.success(), "{text}");
    }
}

/// Machines on one bridge: three control planes, and workers.
struct Network {
    hub: Place,
    nodes: BTreeMap<NodeName, Place>,
    desired: Desired,
}

impl Network {
    fn new(control_planes: u8, workers: u8) -> Self {
        let hub = Place::new();
        hub.command("ip link add br0 type bridge\nip link set br0 up");
        let (mut nodes, mut text) = (BTreeMap::new(), "name: ship\nnodes:\n".to_owned());
        for n in 1..=control_planes + workers {
            let (name, role) = if n <= control_planes {
                (format!("cp-{n}"), "control-plane")
            } else {
                (format!("w-{n}"), "worker")
            };
            let node = Place::new();
            hub.command(&format!(
                "ip link add v{n} type veth peer name eth0 netns {}\nip link set v{n} master br0 up",
                node.thread_id
            ));
            node.command(&format!("ip addr add 10.9.0.{n}/24 dev eth0\nip link set eth0 up"));
            text.push_str(&format!("- {{name: {name}, role: {role}, ip: 10.9.0.{n}}}\n"));
            nodes.insert(name.parse().unwrap(), node);
        }
        let desired = landfall_core::spec::parse::cluster_yaml(&text, "cluster.yaml").unwrap();
        Self { hub, nodes, desired }
    }

    fn node(&self, name: &str) -> &Place {
        &self.nodes[&name.parse::<NodeName>().unwrap()]
    }

    fn facts(&self) -> BTreeMap<NodeName, NodeFacts> {
        let query = FactsQuery {
            survey: Some(SurveyQuery {
                filters_without: Some(vec![]),
                ..SurveyQuery::default()
            }),
            ..FactsQuery::default()
        };
        let gather = |place: &Place| {
            let query = query.clone();
            place.begin(move || facts::gather(&Agent::new(Host::real()), &query).unwrap())
        };
        let all: Vec<_> = self
            .nodes
            .iter()
            .map(|(name, place)| (name.clone(), gather(place)))
            .collect();
        all.into_iter()
            .map(|(name, facts)| (name, facts.recv().unwrap()))
            .collect()
    }

    /// Has all nodes try each other. Returns what they saw, what that means, and how long listening and trying took.
    fn try_all(&self) -> (BTreeMap<NodeName, Vec<MeshSeen>>, Vec<Finding>, Duration) {
        let facts = self.facts();
        let input = MeshInput {
            desired: &self.desired,
            facts: &facts,
            owned: &BTreeMap::new(),
            record: None,
        };
        let plan = plan(&input, TOKEN);
        let began = Instant::now();
        let opened: Vec<_> = plan
            .listens
            .iter()
            .map(|(name, asked)| {
                let asked = asked.clone();
                self.nodes[name].begin(move || listen::open(&asked).unwrap())
            })
            .collect();
        let listeners: Vec<_> = opened.into_iter().map(|opened| opened.recv().unwrap()).collect();
        assert!(
            listeners
                .iter()
                .all(|(said, _)| said.tcp_failed.is_empty() && said.udp_failed.is_none())
        );
        let tries: Vec<_> = plan
            .tries
            .iter()
            .map(|(name, asked)| {
                let asked = asked.clone();
                (name.clone(), self.nodes[name].begin(move || attempt::run(&asked)))
            })
            .collect();
        let seen: BTreeMap<_, _> = tries
            .into_iter()
            .map(|(name, seen)| (name, seen.recv().unwrap()))
            .collect();
        let took = began.elapsed();
        let findings = judge(&input, &seen);
        (seen, findings, took)
    }
}

fn only(check: Check, found: &[Finding]) -> &Finding {
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].check, check, "{found:#?}");
    &found[0]
}

fn names(finding: &Finding) -> Vec<&str> {
    finding.nodes.iter().map(NodeName::as_str).collect()
}

/// The time is printed: `cargo test -p landfall-agent mesh -- --nocapture`.
#[test]
fn five_nodes_reach_each_other() {
    let network = Network::new(3, 2);
    let (seen, found, took) = network.try_all();
    println!("five nodes have tried each other in {} ms", took.as_millis());
    // A busy machine may lose a datagram's race with a second; it loses no path.
    let holes: Vec<_> = found.iter().filter(|f| f.refuses()).collect();
    assert!(holes.is_empty(), "{holes:#?}");
    assert_eq!(
        seen.values().map(Vec::len).sum::<usize>(),
        20,
        "every pair, in both directions"
    );
    for one in seen.values().flatten() {
        assert!(
            one.tcp.len() >= 2 && one.tcp.values().all(|port| matches!(port, PortSeen::Open { .. })),
            "{one:?}"
        );
        let udp = one.udp.as_ref().unwrap();
        assert_eq!((udp.mtu, udp.largest), (1500, 1500));
    }
}

#[test]
fn a_rule_that_drops_ports_is_named_on_its_node() {
    let network = Network::new(3, 0);
    network.node("cp-2").rules(
        "table inet f { chain i { type filter hook input priority 0; policy accept; tcp dport { 2379, 2380 } drop; }; }",
    );
    let (_, found, _) = network.try_all();
    let finding = only(Check::PeerPort, &found);
    assert_eq!(names(finding), ["cp-2"]);
    assert_eq!(finding.what, "cp-2 (10.9.0.2) cannot be reached by tcp 2379, tcp 2380");
    assert!(
        finding
            .saw
            .contains("tcp 2379, tcp 2380 from cp-1, cp-3 to cp-2: no answer"),
        "{}",
        finding.saw
    );
    assert!(
        finding
            .saw
            .contains("on cp-2: table inet f, chain i: the rule with handle "),
        "{}",
        finding.saw
    );
}

#[test]
fn a_filter_that_lets_only_ssh_in_is_named_by_its_policy() {
    let network = Network::new(3, 0);
    network.node("cp-3").rules(
        "table inet f { chain i { type filter hook input priority 0; policy drop; ct state established,related accept; iif lo accept; \
         tcp dport 22 accept; }; }",
    );
    let (_, found, _) = network.try_all();
    let checks: Vec<Check> = found.iter().map(|f| f.check).collect();
    assert_eq!(
        checks,
        [Check::PeerPort, Check::PeerIngress, Check::PeerVxlan],
        "{found:#?}"
    );
    for finding in &found {
        assert_eq!(names(finding), ["cp-3"]);
        assert!(finding.what.ends_with("only ssh reaches it"), "{}", finding.what);
        assert!(
            finding.saw.contains("on cp-3: table inet f, chain i: policy drop"),
            "{}",
            finding.saw
        );
    }
}

#[test]
fn rules_of_iptables_are_read_too_and_a_reject_is_seen_at_once() {
    let network = Network::new(3, 0);
    network
        .node("cp-2")
        .command("iptables -A INPUT -p tcp --dport 10250 -j REJECT --reject-with tcp-reset");
    let (_, found, _) = network.try_all();
    let finding = only(Check::PeerPort, &found);
    assert_eq!(names(finding), ["cp-2"]);
    assert!(
        finding.saw.contains("refused, although it is listened on"),
        "{}",
        finding.saw
    );
    let rule = "-A INPUT -p tcp -m tcp --dport 10250 -j REJECT --reject-with tcp-reset";
    assert!(finding.saw.contains(rule), "{}", finding.saw);
}

#[test]
fn datagrams_alone_that_are_lost_are_found_and_nobody_is_named_without_need() {
    let network = Network::new(3, 0);
    // What stands between the nodes: their own rules say nothing.
    network
        .hub
        .rules("table bridge f { chain f { type filter hook forward priority 0; udp dport 8472 drop; }; }");
    let (_, found, _) = network.try_all();
    let finding = only(Check::PeerVxlan, &found);
    assert_eq!(finding.what, "no node reaches another by udp 8472");
    assert_eq!(finding.nodes.len(), 3);
}

#[test]
fn a_path_between_two_nodes_is_told_from_a_node_at_fault() {
    let network = Network::new(3, 0);
    network.hub.rules(
        "table bridge f { chain f { type filter hook forward priority 0; ip saddr 10.9.0.1 ip daddr 10.9.0.3 tcp dport 6443 drop; }; }",
    );
    let (_, found, _) = network.try_all();
    let finding = only(Check::PeerPort, &found);
    assert_eq!(names(finding), ["cp-1", "cp-3"]);
    assert!(
        finding
            .what
            .contains("does not reach cp-3 (10.9.0.3) by tcp 6443, and others do"),
        "{}",
        finding.what
    );
}

#[test]
fn large_packets_that_are_lost_are_found_with_the_size_that_passes() {
    let network = Network::new(3, 0);
    network.hub.rules(
        "table bridge f { chain f { type filter hook forward priority 0; meta protocol ip ip length > 1450 drop; }; }",
    );
    let (seen, found, _) = network.try_all();
    let finding = only(Check::PathMtu, &found);
    assert_eq!(finding.nodes.len(), 3);
    assert!(finding.next.contains("mtu 1450"), "{}", finding.next);
    assert!(seen.values().flatten().all(|one| {
        one.udp
            .as_ref()
            .is_some_and(|udp| (udp.mtu, udp.largest) == (1500, 1450))
    }));
}

#[test]
fn ten_nodes_that_are_closed_are_tried_at_the_same_time() {
    let network = Network::new(3, 7);
    for place in network.nodes.values() {
        place.rules("table inet f { chain i { type filter hook input priority 0; policy drop; iif lo accept; }; }");
    }
    let (seen, found, took) = network.try_all();
    println!(
        "ten nodes that are closed have tried each other in {} ms",
        took.as_millis()
    );
    // One after the other, 90 tries that nobody answers take 225 s.
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert_eq!(seen.values().map(Vec::len).sum::<usize>(), 90);
    let named: std::collections::BTreeSet<&str> = found.iter().flat_map(names).collect();
    assert_eq!(named.len(), 10, "{found:#?}");
}

fn listener(address: Ipv4Addr, limit_ms: u64) -> MeshListen {
    MeshListen {
        token: TOKEN.to_owned(),
        node: "cp-1".parse().unwrap(),
        address,
        tcp: vec![6443],
        udp: Some(8472),
        limit_ms,
    }
}

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn connect() -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from((LOCAL, 6443)), Duration::from_secs(5))
}

#[test]
fn listeners_answer_nobody_who_does_not_know_the_token() {
    Place::new().run(|| {
        let (_, listeners) = listen::open(&listener(LOCAL, 60_000)).unwrap();
        let said = |text: &str| {
            let mut stream = connect().unwrap();
            let sent = stream
                .write_all(text.as_bytes())
                .and_then(|()| stream.shutdown(Shutdown::Write));
            let mut heard = String::new();
            // A connection that is cut off may end in a reset: nothing was heard either way.
            let _ = sent.and_then(|()| stream.read_to_string(&mut heard).map(drop));
            heard
        };
        assert_eq!(said(TOKEN), answer(TOKEN, &"cp-1".parse().unwrap(), 6443));
        let other = TOKEN.replace('f', "e");
        for text in [
            other.as_str(),
            "",
            &TOKEN[1..],
            "GET / HTTP/1.1\r\nHost: a.example.test\r\n\r\n",
        ] {
            assert_eq!(said(text), "", "{text}");
        }
        let udp = UdpSocket::bind((LOCAL, 0)).unwrap();
        udp.connect((LOCAL, 8472)).unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // A datagram without the token, one that is too short, then a good one: one answer comes, and it is no longer than the question.
        for text in [format!("{other}0001"), TOKEN.to_owned(), format!("{TOKEN}0002")] {
            udp.send(text.as_bytes()).unwrap();
        }
        let mut heard = [0u8; 100];
        let length = udp.recv(&mut heard).unwrap();
        assert_eq!((length, &heard[32..36]), (36, &b"0002"[..]));
        drop(listeners);
    });
}

#[test]
fn listeners_close_when_they_are_dropped_and_at_their_time_limit() {
    Place::new().run(|| {
        let (_, listeners) = listen::open(&listener(LOCAL, 60_000)).unwrap();
        assert!(connect().is_ok());
        let (said, _second) = listen::open(&listener(LOCAL, 60_000)).unwrap();
        assert_eq!(
            (said.tcp_failed.len(), said.udp_failed.is_some()),
            (1, true),
            "the ports are taken"
        );
        drop(listeners);
        assert!(connect().is_err());
        let (said, _listeners) = listen::open(&listener(LOCAL, 300)).unwrap();
        assert!(
            said.tcp_failed.is_empty(),
            "a daemon could listen there at once: {said:?}"
        );
        assert!(connect().is_ok());
        let deadline = Instant::now() + Duration::from_secs(60);
        while connect().is_ok() {
            assert!(Instant::now() < deadline, "the listener is open still");
            thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn what_answers_otherwise_is_a_stranger_and_a_daemon_is_only_connected_to() {
    Place::new().run(|| {
        let echo = TcpListener::bind((LOCAL, 2380)).unwrap();
        thread::spawn(move || {
            for stream in echo.incoming().flatten() {
                let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
                let _ = std::io::copy(&mut from, &mut to);
            }
        });
        let peer = MeshPeer {
            node: "cp-1".parse().unwrap(),
            address: LOCAL,
            tcp: vec![2379, 2380],
            daemons: vec![2380],
            udp: None,
        };
        let mut asked = MeshTry {
            token: TOKEN.to_owned(),
            address: LOCAL,
            peers: vec![MeshPeer {
                daemons: vec![],
                ..peer.clone()
            }],
        };
        let seen = attempt::run(&asked).remove(0).tcp;
        // An echo sends back less than the answer, and then nothing.
        assert!(matches!(seen[&2380], PortSeen::Stranger | PortSeen::Silent), "{seen:?}");
        assert_eq!(seen[&2379], PortSeen::Refused);
        asked.peers = vec![MeshPeer { tcp: vec![], ..peer }];
        assert!(matches!(attempt::run(&asked)[0].tcp[&2380], PortSeen::Open { .. }));
    });
}
