//! Who else needs this machine to forward packets.

use super::rules;
use crate::agent::Agent;
use crate::netlink::namespaces::{self, Content};
use crate::{files, processes};
use landfall_core::action::Claims;
use std::io;

/// Kinds of links that carry packets for others (`rtnl_link_ops.kind` of the kernel's drivers).
const TUNNELS: [&str; 17] = [
    "vxlan",
    "geneve",
    "gre",
    "gretap",
    "erspan",
    "ip6gre",
    "ip6gretap",
    "ip6tnl",
    "ipip",
    "sit",
    "vti",
    "vti6",
    "xfrm",
    "wireguard",
    "tun",
    "ipvlan",
    "gtp",
];

/// Programs that connect containers or virtual machines through this machine, by the name of their process.
const RUNTIMES: [&str; 12] = [
    "dockerd",
    "containerd",
    "crio",
    "conmon",
    "libvirtd",
    "virtnetworkd",
    "virtqemud",
    "lxd",
    "incusd",
    "systemd-nspawn",
    "k3s-server",
    "k3s-agent",
];

/// Returns what of others needs forwarding here, each in words; empty when nothing does.
pub fn users(agent: &Agent, ours: &Claims) -> io::Result<Vec<String>> {
    let mut users = judge(&namespaces::here(true)?, ours);
    users.extend(rules::legacy_translation(agent, ours));
    users.extend(runtime(ours).map(|name| format!("the container runtime {name}")));
    Ok(users)
}

fn judge(here: &Content, ours: &Claims) -> Vec<String> {
    let foreign = here.links.iter().filter(|l| !ours.links.contains(&l.name));
    let mut users: Vec<String> = foreign
        .filter_map(|link| match link.kind.as_str() {
            "bridge" => Some(format!("the bridge {}", link.name)),
            // One that is down carries nothing: the kernel makes such ones by itself (tunl0, sit0, gre0).
            kind if link.is_up && TUNNELS.contains(&kind) => Some(format!("the tunnel {}", link.name)),
            _ => None,
        })
        .collect();
    let translation = here.rules.rules.iter().find(|rule| {
        rule.translates && !ours.nft_tables.contains(&rule.table.to_string()) && !rules::has_prefix(ours, &rule.chain)
    });
    users.extend(translation.map(|rule| format!("a rule that translates addresses in the table {}", rule.table)));
    users
}

/// Returns the name of a container runtime that runs and is not landfall's.
pub fn runtime(ours: &Claims) -> Option<String> {
    processes::own_pids().into_iter().find_map(|pid| {
        let name = files::text(format!("/proc/{pid}/comm")).trim().to_owned();
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let text = program.to_string_lossy();
        let path = text.strip_suffix(" (deleted)").unwrap_or(&text);
        let is_ours = ours.programs.iter().any(|p| p == std::path::Path::new(path));
        (RUNTIMES.contains(&name.as_str()) && !is_ours).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::nft::tests::{make, masquerade, own_namespace, table};

    /// All on the kernel, in a network namespace of this thread's own.
    #[test]
    fn bridges_tunnels_and_translations_of_others_need_forwarding_and_landfalls_own_do_not() {
        own_namespace();
        let ip = |args: &[&str]| assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
        let ours = Claims {
            links: vec!["cni0".into(), "flannel.1".into()],
            nft_tables: vec!["ip kube-proxy".into()],
            iptables_chains: vec!["KUBE-".into()],
            ..Claims::default()
        };
        let look = || judge(&namespaces::here(true).unwrap(), &ours);
        ip(&["link", "add", "cni0", "type", "bridge"]);
        ip(&["link", "add", "eth9", "type", "veth", "peer", "name", "eth8"]);
        make(&[table("ip", "kube-proxy"), table("ip", "nat")]).unwrap();
        make(&masquerade("kube-proxy", "post")).unwrap();
        make(&masquerade("nat", "KUBE-POSTROUTING")).unwrap();
        assert_eq!(look(), Vec::<String>::new());

        make(&masquerade("nat", "POSTROUTING")).unwrap();
        assert_eq!(look(), ["a rule that translates addresses in the table ip nat"]);
        ip(&["link", "add", "br0", "type", "bridge"]);
        ip(&["link", "add", "tun9", "type", "vxlan", "id", "9", "dstport", "4789"]);
        assert_eq!(look()[..1], ["the bridge br0"]);
        ip(&["link", "set", "tun9", "up"]);
        assert_eq!(look()[..2], ["the bridge br0", "the tunnel tun9"]);
    }
}
