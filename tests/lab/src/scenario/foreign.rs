//! State that other software made on the nodes, before and during the life of the cluster. No run may change it. Kernel modules are tested
//! with the agent, because machines of the lab share those of the host.

use crate::host::{root, run};
use crate::lab::{Lab, Machine};
use anyhow::{Context, Result, ensure};

/// Nodes that carry foreign state; the others stay as they are, so that tables which landfall's daemons make must go whole.
const CARRIERS: [&str; 3] = ["cp-2", "cp-3", "w-1"];

/// Those of them that are members of the first cluster, which has no workers: what comes after the install is planted there.
const MEMBERS: [&str; 2] = ["cp-2", "cp-3"];

/// One piece of foreign state: how it is planted, seen and taken away. Lines run in the node's network namespace with the host's
/// tools, or on the node.
struct Piece {
    plant: &'static str,
    seen: &'static str,
    take: &'static str,
    on_node: bool,
}

const BEFORE: [Piece; 7] = [
    // A known value, so that it can be set again by hand when what needed another has gone.
    Piece {
        plant: "sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.accept_redirects=1 net.ipv4.conf.all.route_localnet=0",
        seen: "",
        take: "",
        on_node: true,
    },
    Piece {
        plant: "mkdir -p /etc/cni/net.d && echo '{\"cniVersion\":\"1.0.0\",\"name\":\"foreign\",\"plugins\":[{\"type\":\"loopback\"}]}' > /etc/cni/net.d/00-foreign.conflist",
        seen: "grep -q foreign /etc/cni/net.d/00-foreign.conflist",
        take: "",
        on_node: true,
    },
    Piece {
        plant: "nft add table inet foreign && nft add chain inet foreign kept",
        seen: "nft list chain inet foreign kept",
        take: "",
        on_node: false,
    },
    Piece {
        plant: "iptables -N FOREIGN && iptables -A FOREIGN -s 192.0.2.7 -j RETURN",
        seen: "iptables -S FOREIGN | grep -q 192.0.2.7",
        take: "",
        on_node: false,
    },
    Piece {
        plant: "iptables -A INPUT -s 192.0.2.8 -j FOREIGN",
        seen: "iptables -C INPUT -s 192.0.2.8 -j FOREIGN",
        take: "",
        on_node: false,
    },
    Piece {
        plant: "sysctl -qw net.ipv4.tcp_fin_timeout=37",
        seen: "test $(sysctl -n net.ipv4.tcp_fin_timeout) = 37",
        take: "",
        on_node: true,
    },
    Piece {
        plant: "echo '192.0.2.9 foreign.example' >> /etc/hosts",
        seen: "grep -q foreign.example /etc/hosts",
        take: "",
        on_node: true,
    },
];

const AFTER: [Piece; 10] = [
    Piece {
        plant: "echo '{\"cniVersion\":\"1.0.0\",\"name\":\"later\",\"plugins\":[{\"type\":\"loopback\"}]}' > /etc/cni/net.d/00-later.conflist",
        seen: "grep -q later /etc/cni/net.d/00-later.conflist",
        take: "rm /etc/cni/net.d/00-later.conflist",
        on_node: true,
    },
    Piece {
        plant: "nft add table inet later && nft add chain inet later kept",
        seen: "nft list chain inet later kept",
        take: "nft delete table inet later",
        on_node: false,
    },
    Piece {
        plant: "iptables -N LATER && iptables -A LATER -s 192.0.2.17 -j RETURN",
        seen: "iptables -S LATER | grep -q 192.0.2.17",
        take: "iptables -D INPUT -s 192.0.2.18 -j LATER; iptables -F LATER && iptables -X LATER",
        on_node: false,
    },
    Piece {
        plant: "iptables -A INPUT -s 192.0.2.18 -j LATER",
        seen: "iptables -C INPUT -s 192.0.2.18 -j LATER",
        take: "",
        on_node: false,
    },
    Piece {
        plant: "sysctl -qw net.ipv4.tcp_keepalive_time=1234",
        seen: "test $(sysctl -n net.ipv4.tcp_keepalive_time) = 1234",
        take: "sysctl -qw net.ipv4.tcp_keepalive_time=7200",
        on_node: true,
    },
    Piece {
        plant: "ip link add br0 type bridge && ip addr add 198.51.100.1/24 dev br0 && ip link set br0 up",
        seen: "ip -o addr show dev br0 | grep -q 198.51.100.1/24",
        take: "ip link delete br0",
        on_node: false,
    },
    // What a program of containers makes: its own network namespaces lie beside pods'. A mount of any file stands for one.
    Piece {
        plant: "mkdir -p /run/netns && touch /run/netns/vpn && mount --bind /proc/1/ns/net /run/netns/vpn",
        seen: "grep -q ' /run/netns/vpn ' /proc/self/mountinfo",
        take: "umount /run/netns/vpn && rm /run/netns/vpn && { rmdir /run/netns || true; }",
        on_node: true,
    },
    // Behind br0, with translated addresses: forwarding is needed, though no file asks for it.
    Piece {
        plant: "nft add table ip laternat && nft add chain ip laternat post '{ type nat hook postrouting priority 100; }' && nft add rule ip laternat post ip saddr 198.51.100.0/24 masquerade",
        seen: "nft list chain ip laternat post | grep -q masquerade && test $(cat /proc/sys/net/ipv4/ip_forward) = 1",
        take: "nft delete table ip laternat && echo 0 > /proc/sys/net/ipv4/ip_forward",
        on_node: false,
    },
    Piece {
        plant: "echo 'net.ipv4.conf.all.route_localnet = 1' > /etc/sysctl.d/50-later.conf && sysctl -qw net.ipv4.conf.all.route_localnet=1",
        seen: "test $(sysctl -n net.ipv4.conf.all.route_localnet) = 1",
        take: "rm /etc/sysctl.d/50-later.conf && sysctl -qw net.ipv4.conf.all.route_localnet=0",
        on_node: true,
    },
    // The hosts file is a mount in a container: it is written in place.
    Piece {
        plant: "echo '192.0.2.19 later.example' >> /etc/hosts",
        seen: "grep -q later.example /etc/hosts",
        take: "grep -v later.example /etc/hosts > /tmp/hosts && cat /tmp/hosts > /etc/hosts && rm /tmp/hosts",
        on_node: true,
    },
];

fn on_nodes(lab: &Lab, nodes: &[&str], pieces: &[Piece], line: fn(&Piece) -> &'static str) -> Result<()> {
    for name in nodes {
        let machine = lab.machine(name)?;
        for piece in pieces {
            let line = line(piece);
            if !line.is_empty() {
                apply(lab, machine, piece, line).with_context(|| format!("{name}: {line}"))?;
            }
        }
    }
    Ok(())
}

fn apply(lab: &Lab, machine: &Machine, piece: &Piece, line: &str) -> Result<()> {
    if piece.on_node {
        return lab.shell(machine, line).map(drop);
    }
    in_network(lab, machine, line).map(drop)
}

/// Runs a line of shell with the host's programs in the network namespace of a machine; returns what it printed.
pub fn in_network(lab: &Lab, machine: &Machine, line: &str) -> Result<String> {
    let pid = lab.pid(machine)?.to_string();
    run(root("nsenter").args(["-t", &pid, "-n", "sh", "-c", line]))
}

/// Makes the foreign state that exists before the install.
pub fn plant_before(lab: &Lab) -> Result<()> {
    on_nodes(lab, &CARRIERS, &BEFORE, |piece| piece.plant)
}

/// Makes the foreign state that is added while the cluster runs.
pub fn plant_after(lab: &Lab) -> Result<()> {
    on_nodes(lab, &MEMBERS, &AFTER, |piece| piece.plant)
}

/// Fails unless all that was planted before is there.
pub fn expect_before(lab: &Lab) -> Result<()> {
    on_nodes(lab, &CARRIERS, &BEFORE, |piece| piece.seen)
}

/// Fails unless all that was planted later is still there; then takes it away, so that the fingerprints can be compared.
pub fn expect_and_take_after(lab: &Lab) -> Result<()> {
    on_nodes(lab, &MEMBERS, &AFTER, |piece| piece.seen)?;
    on_nodes(lab, &MEMBERS, &AFTER, |piece| piece.take)?;
    let left = on_nodes(lab, &MEMBERS, &AFTER[1..2], |piece| piece.seen);
    ensure!(
        left.is_err(),
        "the later table is still there after it was taken away by hand"
    );
    Ok(())
}
