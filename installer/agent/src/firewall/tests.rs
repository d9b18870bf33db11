//! On the kernel's own packet filters, with the real nft and iptables, in network namespaces of these threads.

mod firewalld;

use super::*;
use crate::host::Host;
use crate::netlink::nft::tests::own_namespace;
use landfall_core::inventory::Role;
use landfall_core::packet_filter::Hook;
use landfall_core::spec::ClusterSpec;
use landfall_core::traffic::{self, Peer};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const UID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// Programs of the host that the agent may use.
const PROGRAMS: [&str; 6] = [
    "nft",
    "iptables-nft-save",
    "iptables-nft-restore",
    "iptables-legacy-save",
    "iptables-legacy-restore",
    "ip",
];

/// A kind of packet filter that lets in ssh alone, and passes nothing on.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// Makes the rules. $BAN is dropped before anything else.
    make: &'static str,
    /// Prints all rules.
    list: &'static str,
    /// Saves them as the system does, to the file that is given.
    saved: &'static str,
}

const NFT: Kind = Kind {
    make: "nft -f - <<X
table inet mine {
  set allowed { type inet_service; elements = { 22, 23 }; }
  chain in {
    type filter hook input priority 0; policy drop;
    ip saddr 10.0.0.8 drop
    ct state established,related accept
    jump sub
    tcp dport @allowed accept comment \"ssh\"
    reject with icmpx admin-prohibited
  }
  chain sub { udp dport 8472 drop; }
  chain through { type filter hook forward priority 0; policy drop; }
  chain out { type filter hook output priority 0; policy drop; ct state established,related accept; oif lo accept; }
}
X",
    list: "nft list ruleset",
    saved: "/etc/nftables.conf",
};

const IPTABLES: &str = "$T -A INPUT -s 10.0.0.8 -j DROP
$T -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
$T -N SUB; $T -A INPUT -j SUB; $T -A SUB -p udp --dport 8472 -j DROP
$T -A INPUT -p tcp --dport 22 -m comment --comment 'ssh \"from\" all' -j ACCEPT
$T -A INPUT -j REJECT --reject-with icmp-host-prohibited
$T -P FORWARD DROP
$T -P OUTPUT DROP; $T -A OUTPUT -o lo -j ACCEPT; $T -A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";

const IPTABLES_NFT: Kind = Kind {
    make: "T=iptables-nft",
    list: "iptables-nft-save | grep -v '^#' | sed 's/\\[.*//'",
    saved: "/etc/iptables/rules.v4",
};

const IPTABLES_LEGACY: Kind = Kind {
    make: "T='iptables-legacy --wait 10'",
    list: "iptables-legacy-save | grep -v '^#' | sed 's/\\[.*//'",
    saved: "/etc/iptables/rules.v4",
};

const KINDS: [Kind; 3] = [NFT, IPTABLES_NFT, IPTABLES_LEGACY];

/// Runs a script in this thread's network namespace; returns what it prints.
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("bash").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

struct Machine {
    agent: Agent,
    kind: Kind,
    /// The rules before landfall's.
    before: String,
    root: tempfile::TempDir,
}

impl Machine {
    fn new(kind: Kind) -> Self {
        own_namespace();
        let root = tempfile::tempdir().unwrap();
        let programs = root.path().join("usr/sbin");
        fs::create_dir_all(&programs).unwrap();
        for program in PROGRAMS {
            let real = ["/usr/sbin", "/sbin"].map(|dir| Path::new(dir).join(program));
            let real = real
                .iter()
                .find(|path| path.exists())
                .unwrap_or_else(|| panic!("{program} is not there"));
            std::os::unix::fs::symlink(real, programs.join(program)).unwrap();
        }
        let machine = Self {
            agent: Agent::new(Host::under(root.path()).with_packet_filters()),
            kind,
            before: String::new(),
            root,
        };
        machine.make();
        let before = machine.list();
        Self { before, ..machine }
    }

    fn make(&self) {
        let rest = if self.kind.make.starts_with("T=") { IPTABLES } else { "" };
        sh(&format!("ip link set lo up\n{}\n{rest}", self.kind.make));
    }

    fn list(&self) -> String {
        sh(self.kind.list)
    }

    /// The rules of others, as they are listed.
    fn foreign(&self) -> String {
        let list = self.list();
        let lines = list.split_inclusive('\n');
        lines.filter(|line| !line.contains(UID)).collect()
    }

    fn marked(&self) -> Vec<String> {
        let list = self.list();
        let lines = list.lines().filter(|line| line.contains(UID));
        lines.map(|line| line.trim().to_owned()).collect()
    }

    fn faults(&self, wanted: &Openings) -> Vec<String> {
        faults(&self.agent, wanted).unwrap()
    }

    /// Writes the rules, and sees that all is as wanted, and every rule of others as it was.
    fn set(&self, wanted: &Openings) {
        set(&self.agent, wanted).unwrap();
        assert_eq!(self.faults(wanted), [""; 0], "{}", self.list());
        assert_eq!(self.foreign(), self.before);
    }

    fn remove(&self) {
        let none = openings(&[]);
        let none = Openings { accept: vec![], ..none };
        assert_eq!(remove(&self.agent, &none).unwrap(), Left::default());
        assert_eq!(self.faults(&none), [""; 0]);
        assert_eq!(self.list(), self.before);
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.agent.host.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// What a control plane needs whose peers are control planes at these addresses.
fn openings(peers: &[u8]) -> Openings {
    let peer = |last: u8| Peer {
        role: Role::ControlPlane,
        address: [10, 0, 0, last].into(),
    };
    let peers: Vec<Peer> = peers.iter().copied().map(peer).collect();
    traffic::openings(
        &ClusterSpec::default(),
        &Openings::mark_of(UID),
        peer(1),
        "eth0",
        &peers,
    )
}

/// Another machine, at the other end of a wire: a process that holds a network namespace.
struct Neighbour(Child);

impl Neighbour {
    fn new() -> Self {
        let child = Command::new("unshare")
            .args(["-n", "sleep", "300"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let neighbour = Self(child);
        let pid = neighbour.0.id();
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|theirs| theirs == own) {
            assert!(std::time::Instant::now() < deadline, "the namespace did not come");
            std::thread::sleep(Duration::from_millis(5));
        }
        sh(&format!(
            "ip link add eth0 type veth peer name far netns {pid}
             ip addr add 10.0.0.1/24 dev eth0
             ip link set eth0 up
             nsenter -t {pid} -n sh -ec 'ip link set lo up; ip link set far up; for n in 2 3 9; do ip addr add 10.0.0.$n/24 dev far; done'"
        ));
        neighbour
    }

    /// Says whether a connection from one of its addresses is taken.
    fn reaches(&self, source: &str, port: u16) -> bool {
        let script = format!(
            "import socket; s = socket.socket(); s.settimeout(1); s.bind(('{source}', 0)); s.connect(('10.0.0.1', {port}))"
        );
        let pid = self.0.id().to_string();
        let args = ["-t", &pid, "-n", "python3", "-c", &script];
        Command::new("nsenter")
            .args(args)
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn members_get_through_others_reach_the_ingress_alone_and_a_ban_stays() {
    for kind in KINDS {
        let machine = Machine::new(kind);
        let neighbour = Neighbour::new();
        let ports = [2379, 443, 5000];
        let _listeners = ports.map(|port| std::net::TcpListener::bind(("10.0.0.1", port)).unwrap());
        let reached = |source: &str| ports.map(|port| neighbour.reaches(source, port));
        assert_eq!(reached("10.0.0.2"), [false; 3], "{kind:?}");
        machine.set(&openings(&[2, 3]));
        assert_eq!(reached("10.0.0.2"), [true, true, false], "{}", machine.list());
        assert_eq!(reached("10.0.0.3"), [true, true, false]);
        assert_eq!(reached("10.0.0.9"), [false, true, false]);
        sh(&format!(
            "nsenter -t {} -n ip addr add 10.0.0.8/24 dev far",
            neighbour.0.id()
        ));
        assert_eq!(reached("10.0.0.8"), [false; 3], "banned");
        machine.remove();
        assert_eq!(reached("10.0.0.2"), [false; 3]);
    }
}

#[test]
fn people_read_each_rule_on_a_line_with_its_mark() {
    let machine = Machine::new(NFT);
    let wanted = openings(&[2, 3]);
    machine.set(&wanted);
    let comment = |hook| format!("accept comment \"{}\"", wanted.comment(hook));
    let (input, forward, output) = (comment(Hook::Input), comment(Hook::Forward), comment(Hook::Output));
    let of_input = [
        "iifname \"lo\"",
        "ip saddr { 10.0.0.2, 10.0.0.3 } ct state established,related",
        "ip saddr { 10.0.0.2, 10.0.0.3 } tcp dport { 80, 443, 2379, 2380, 6443, 8080, 10250 }",
        "ip saddr { 10.0.0.2, 10.0.0.3 } udp dport 8472",
        "iifname \"cni0\" ip saddr 10.244.0.0/16 ct state established,related",
        "iifname \"flannel.1\" ip saddr 10.244.0.0/16 ct state established,related",
        "iifname \"cni0\" ip saddr 10.244.0.0/16 tcp dport 6443",
        "tcp dport { 80, 443 }",
    ];
    let of_forward = [
        "iifname \"cni0\" ip saddr 10.244.0.0/16",
        "iifname \"flannel.1\" ip saddr 10.244.0.0/16",
        "ip daddr 10.244.0.0/16 ct state established,related",
    ];
    let of_output = [
        "oifname \"lo\"",
        "ip daddr { 10.0.0.2, 10.0.0.3 } ct state established,related",
        "ip daddr { 10.0.0.2, 10.0.0.3 } tcp dport { 80, 443, 2379, 2380, 6443, 8080, 10250 }",
        "ip daddr { 10.0.0.2, 10.0.0.3 } udp dport 8472",
        "ip daddr 10.244.0.0/16",
        "tcp sport { 80, 443 } ct state established,related",
    ];
    let lines = |rules: &[&str], end: &str| rules.iter().map(|rule| format!("{rule} {end}")).collect::<Vec<_>>();
    let expected = [
        lines(&of_input, &input),
        lines(&of_input, &input),
        lines(&of_forward, &forward),
        lines(&of_output, &output),
    ];
    let mut expected: Vec<String> = expected.concat();
    let mut marked = machine.marked();
    expected.sort();
    marked.sort();
    assert_eq!(marked, expected, "in front of the drop of 8472, and of the reject");
}

#[test]
fn rules_that_were_loaded_anew_without_ours_get_them_again() {
    for kind in KINDS {
        let machine = Machine::new(kind);
        let wanted = openings(&[2, 3]);
        machine.set(&wanted);
        let made = machine.list();
        sh(
            "nft flush ruleset; iptables-legacy --wait 10 -F; iptables-legacy --wait 10 -X; iptables-legacy --wait 10 -P INPUT ACCEPT",
        );
        machine.make();
        assert!(!machine.faults(&wanted).is_empty(), "{kind:?}");
        machine.set(&wanted);
        assert_eq!(machine.list(), made);
        machine.remove();
    }
}

#[test]
fn a_half_written_or_doubled_or_older_set_of_rules_is_made_whole() {
    for kind in KINDS {
        let machine = Machine::new(kind);
        let wanted = openings(&[2, 3]);
        machine.set(&wanted);
        let made = machine.list();
        let program = kind.list.split(['-', ' ']).take(2).collect::<Vec<_>>().join("-");
        let delete_one = match kind.make.starts_with("T=") {
            true => format!("{program} --wait 10 -D FORWARD 1"),
            false => "nft -a list chain inet mine through | sed -n 's/.*handle \\([0-9]*\\)$/\\1/p' | sed -n 2p | \
                      xargs nft delete rule inet mine through handle"
                .to_owned(),
        };
        let double_one = match kind.make.starts_with("T=") {
            true => format!(
                "{program} --wait 10 -A FORWARD -m comment --comment '{}' -j ACCEPT",
                wanted.comment(Hook::Forward)
            ),
            false => format!(
                "nft add rule inet mine through accept comment '\"{}\"'",
                wanted.comment(Hook::Forward)
            ),
        };
        for change in [delete_one, double_one] {
            sh(&change);
            assert!(!machine.faults(&wanted).is_empty(), "{change}");
            machine.set(&wanted);
            assert_eq!(machine.list(), made);
        }
        let more = openings(&[2, 3, 4]);
        assert!(!machine.faults(&more).is_empty(), "a member has come");
        machine.set(&more);
        assert!(machine.list().contains("10.0.0.4") && machine.list() != made);
        machine.set(&wanted);
        assert_eq!(machine.list(), made, "a member has gone");
        machine.remove();
    }
}

#[test]
fn rules_go_without_the_program_that_lists_them() {
    for kind in [NFT, IPTABLES_NFT] {
        let machine = Machine::new(kind);
        machine.set(&openings(&[2, 3]));
        for program in PROGRAMS {
            let _ = fs::remove_file(machine.root.path().join("usr/sbin").join(program));
        }
        machine.remove();
    }
}

#[test]
fn another_clusters_rules_are_rules_like_others() {
    for kind in KINDS {
        let mut machine = Machine::new(kind);
        let other = Openings {
            mark: Openings::mark_of("ffff"),
            ..openings(&[5])
        };
        set(&machine.agent, &other).unwrap();
        machine.before = machine.list();
        machine.set(&openings(&[2]));
        machine.remove();
    }
}

#[test]
fn saved_rules_lose_ours_and_no_other_byte() {
    for kind in KINDS {
        let machine = Machine::new(kind);
        let first = match kind.saved {
            "/etc/nftables.conf" => {
                "#!/usr/sbin/nft -f\n# landfall 0f1e: see our wiki, comment \"landfall\"\nflush ruleset\n\n"
            }
            _ => "# Generated by somebody\n",
        };
        // The last line has no end.
        let save = |machine: &Machine| format!("{first}{}\n# the end", machine.list());
        let before = save(&machine);
        machine.set(&openings(&[2, 3]));
        machine.write(kind.saved, &save(&machine));
        machine.write(
            "/etc/nftables.d/own.nft",
            "add rule inet mine in ip saddr 10.0.0.7 accept comment \"landfall ffff 0 input\"\n",
        );
        let none = Openings {
            accept: vec![],
            ..openings(&[])
        };
        let path = machine.agent.host.at(kind.saved);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        assert!(
            machine
                .faults(&none)
                .iter()
                .any(|fault| fault.contains("holds saved rules"))
        );
        machine.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        assert_eq!(crate::files::mode_of(&path), Some(0o640));
        assert!(
            fs::read_to_string(machine.agent.host.at("/etc/nftables.d/own.nft"))
                .unwrap()
                .contains("10.0.0.7")
        );
    }
}

#[test]
fn a_saved_set_of_rules_that_was_loaded_at_the_boot_is_ours() {
    for kind in KINDS {
        let machine = Machine::new(kind);
        let wanted = openings(&[2, 3]);
        machine.set(&wanted);
        let made = machine.list();
        let (save, load) = match kind.saved {
            "/etc/nftables.conf" => ("nft list ruleset", "nft flush ruleset; nft -f"),
            _ if kind.list.contains("legacy") => ("iptables-legacy-save", "iptables-legacy-restore --wait 10"),
            _ => ("iptables-nft-save", "iptables-nft-restore"),
        };
        let file = machine.root.path().join("saved");
        sh(&format!("{save} > {0}; {load} {0}", file.display()));
        assert_eq!(machine.list(), made);
        assert_eq!(machine.faults(&wanted), [""; 0]);
        machine.remove();
    }
}

/// Makes ufw with its own files under `root`, in this thread's network namespace, and switches it on.
fn with_ufw(policy: &str) -> Machine {
    let machine = Machine::new(Kind {
        make: "true",
        list: "iptables-save 2>/dev/null | grep -v '^#' | sed 's/\\[.*//'",
        saved: "",
    });
    let root = machine.root.path().display().to_string();
    for (from, to) in [
        ("/etc/ufw", "etc"),
        ("/etc/default", "etc"),
        ("/usr/share/ufw", "usr/share"),
        ("/lib/ufw", "lib"),
    ] {
        sh(&format!("mkdir -p {root}/{to}; cp -a {from} {root}/{to}/"));
    }
    let program = format!("#!/bin/sh\nexec /usr/sbin/ufw --rootdir={root} --datadir={root} \"$@\"\n");
    machine.write("/usr/sbin/ufw", &program);
    let path = machine.agent.host.at("/usr/sbin/ufw");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    sh(&format!(
        "ip link set lo up; PATH={root}/usr/sbin:$PATH\n{policy}\nufw --force enable"
    ));
    let before = machine.list();
    Machine { before, ..machine }
}

impl Machine {
    fn ufw(&self, arguments: &str) -> String {
        sh(&format!(
            "{} {arguments} 2>/dev/null",
            self.agent.host.at("/usr/sbin/ufw").display()
        ))
    }

    fn user_rules(&self) -> String {
        fs::read_to_string(self.agent.host.at("/etc/ufw/user.rules")).unwrap()
    }
}

#[test]
fn ufw_gets_rules_of_its_own_and_loses_them_by_their_comment() {
    let machine = with_ufw(
        "ufw allow 22/tcp comment 'landfall is here, says the admin'; ufw deny 5001/tcp; ufw deny from 10.0.0.8
         ufw allow from 10.0.0.3 to any port 8472 proto udp",
    );
    let neighbour = Neighbour::new();
    let ports = [2379, 80, 5000];
    let _listeners = ports.map(|port| std::net::TcpListener::bind(("10.0.0.1", port)).unwrap());
    let reached = |source: &str| ports.map(|port| neighbour.reaches(source, port));
    let (before, files) = (machine.ufw("show added"), machine.user_rules());
    assert_eq!(reached("10.0.0.2"), [false; 3]);
    let wanted = openings(&[2, 3]);
    set(&machine.agent, &wanted).unwrap();
    assert_eq!(machine.faults(&wanted), [""; 0], "{}", machine.list());
    assert_eq!(reached("10.0.0.2"), [true, true, false], "{}", machine.list());
    assert_eq!(reached("10.0.0.9"), [false, true, false]);

    let added = machine.ufw("show added");
    assert!(before.lines().all(|line| added.contains(line)), "{added}");
    let comment = wanted.ufw_comment(Hook::Input);
    assert!(
        added.contains(&format!("ufw allow 80,443/tcp comment '{comment}'")),
        "{added}"
    );
    assert!(
        added.contains("ufw allow from 10.0.0.3 to any port 8472 proto udp\n"),
        "what its user has stays its user's: {added}"
    );
    assert!(
        added.contains("ufw route allow in on cni0 from 10.244.0.0/16 comment"),
        "{added}"
    );

    // ufw loads its rules anew; its user takes one of ours away; a member has come, and gone.
    machine.ufw("reload");
    assert_eq!(machine.faults(&wanted), [""; 0]);
    machine.ufw("route delete allow in on cni0 from 10.244.0.0/16");
    assert!(!machine.faults(&wanted).is_empty());
    for wanted in [wanted.clone(), openings(&[2, 3, 4]), wanted.clone()] {
        set(&machine.agent, &wanted).unwrap();
        assert_eq!(machine.faults(&wanted), [""; 0]);
    }
    assert!(!machine.ufw("show added").contains("10.0.0.4"));
    let none = Openings {
        accept: vec![],
        ..wanted
    };
    assert!(!machine.faults(&none).is_empty());
    machine.remove();
    assert_eq!((machine.ufw("show added"), machine.user_rules()), (before, files));
}

/// Where its user limits connections, ufw with iptables-nft fails now and then to load its rules behind a change (see `ufw::run`).
#[test]
fn ufw_that_limits_connections_ends_with_all_rules_loaded() {
    let machine = with_ufw("ufw limit 22/tcp");
    let (before, files) = (machine.ufw("show added"), machine.user_rules());
    for wanted in [openings(&[2]), openings(&[3])] {
        set(&machine.agent, &wanted).unwrap();
        assert_eq!(machine.faults(&wanted), [""; 0], "{}", machine.list());
        assert!(machine.list().contains("--update --seconds 30"), "{}", machine.list());
    }
    machine.remove();
    assert_eq!((machine.ufw("show added"), machine.user_rules()), (before, files));
}

#[test]
fn ufw_that_was_switched_off_loses_our_rules_too() {
    let machine = with_ufw("ufw allow 22/tcp; ufw default deny outgoing");
    let files = machine.user_rules();
    set(&machine.agent, &openings(&[2])).unwrap();
    machine.ufw("disable");
    let none = Openings {
        accept: vec![],
        ..openings(&[])
    };
    assert_eq!(
        faults(&machine.agent, &none).unwrap(),
        ["ufw has rules of an earlier setting"]
    );
    assert_eq!(remove(&machine.agent, &none).unwrap(), Left::default());
    assert_eq!(
        (machine.user_rules(), faults(&machine.agent, &none).unwrap()),
        (files, vec![])
    );
}

#[test]
fn rules_in_ufws_file_without_ufw_are_named() {
    let machine = with_ufw("ufw allow 22/tcp");
    set(&machine.agent, &openings(&[2])).unwrap();
    fs::remove_file(machine.agent.host.at("/usr/sbin/ufw")).unwrap();
    let left = remove(
        &machine.agent,
        &Openings {
            accept: vec![],
            ..openings(&[])
        },
    )
    .unwrap();
    assert!(
        left.residue.len() == 1 && left.residue[0].contains("ufw is not on this machine"),
        "{left:?}"
    );
}
