//! What opaque daemons are known to make on a node: claimed before they start, so that all of it can be taken away.

use crate::action::Claims;
use crate::inventory::Role;
use std::path::PathBuf;

/// What containerd makes of its template once the kubelet knows the node's podCIDR; it never makes it anew by itself.
const CNI_CONFIG: &str = "/etc/landfall/cni/net.d/10-containerd-net.conflist";

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn paths(list: &[&str]) -> Vec<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}

/// What kubelet, containerd, kube-proxy, flannel and the CNI plugins make on a node while they run (README of this crate says where
/// each is made). Checked by the whole-host fingerprint in the lab.
pub(super) fn daemon_claims() -> Claims {
    Claims {
        units: strings(&["kubelet.service", "containerd.service"]),
        cgroups: strings(&["kubepods", "kubepods.slice"]),
        programs: paths(&["/usr/local/bin/containerd-shim-runc-v2", "/usr/local/bin/containerd"]),
        mounts_under: paths(&[
            "/var/lib/kubelet",
            "/run/containerd",
            "/var/lib/containerd",
            "/run/netns",
        ]),
        paths: paths(&[
            "/var/lib/containerd",
            "/run/containerd",
            "/opt/containerd",
            "/run/nri",
            "/var/lib/nri",
            "/run/runc",
            "/var/lib/kubelet",
            "/var/lib/etcd",
            "/var/lib/cni",
            "/run/landfall/cni",
            "/run/flannel",
            crate::layout::INGRESS_DIR,
            "/run/netns",
            "/run/xtables.lock",
            "/var/log/pods",
            "/var/log/containers",
            "/var/log/kubernetes",
            "/usr/libexec/kubernetes",
            CNI_CONFIG,
            "/etc/kubernetes",
        ]),
        links: strings(&["cni0", "flannel.1", "flannel-v6.1"]),
        nft_tables: strings(&[
            "ip kube-proxy",
            "ip6 kube-proxy",
            "ip flannel-ipv4",
            "ip6 flannel-ipv6",
            "inet cni_hostport",
            "ip cni_hostport",
            "ip6 cni_hostport",
        ]),
        iptables_chains: strings(&["KUBE-", "CNI-", "FLANNEL-"]),
        sysctls: strings(&[
            "net.ipv4.conf.all.route_localnet",
            "net.ipv4.ip_forward",
            "net.ipv6.conf.all.forwarding",
            "net.netfilter.nf_conntrack_max",
            "net.netfilter.nf_conntrack_tcp_timeout_established",
            "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
            "net.netfilter.nf_conntrack_tcp_be_liberal",
            "net.bridge.bridge-nf-call-iptables",
            "net.bridge.bridge-nf-call-ip6tables",
            "vm.overcommit_memory",
            "vm.panic_on_oom",
            "kernel.panic",
            "kernel.panic_on_oops",
            "kernel.keys.root_maxkeys",
            "kernel.keys.root_maxbytes",
        ]),
        modules: strings(&[
            "vxlan",
            "udp_tunnel",
            "ip6_udp_tunnel",
            "veth",
            "bridge",
            "stp",
            "llc",
            "nf_tables",
            "nf_conntrack",
            "nf_nat",
            "nft_ct",
            "nft_masq",
            "nft_nat",
            "nft_chain_nat",
            "nft_numgen",
            "nft_compat",
            "nft_fib",
            "nft_fib_ipv4",
            "nft_fib_ipv6",
            "nft_reject",
            "nft_reject_ipv4",
            "nft_reject_ipv6",
            "nft_reject_inet",
            "nft_limit",
            "xt_conntrack",
            "xt_mark",
            "xt_comment",
            "nf_conntrack_netlink",
        ]),
    }
}

/// What kubeadm itself and the static pods it starts make, so that a half-done init or join can be taken back alone.
pub(super) fn kubeadm_claims(role: Role) -> Claims {
    let mut claims = Claims {
        units: strings(&["kubelet.service"]),
        cgroups: strings(&["kubepods", "kubepods.slice"]),
        mounts_under: paths(&["/var/lib/kubelet"]),
        paths: paths(&[
            "/etc/kubernetes/kubelet.conf",
            "/etc/kubernetes/bootstrap-kubelet.conf",
            "/etc/kubernetes/manifests",
            "/etc/kubernetes/tmp",
            "/var/lib/kubelet",
            "/etc/kubernetes/pki/ca.crt",
            // A node that joins again gets another podCIDR: what was made from the first must not stay.
            CNI_CONFIG,
            "/run/landfall/cni",
            "/run/flannel",
            "/var/lib/cni",
        ]),
        links: strings(&["cni0", "flannel.1"]),
        ..Claims::default()
    };
    if role == Role::ControlPlane {
        claims.paths.extend(paths(&[
            "/etc/kubernetes/admin.conf",
            "/etc/kubernetes/super-admin.conf",
            "/etc/kubernetes/controller-manager.conf",
            "/etc/kubernetes/scheduler.conf",
            "/var/lib/etcd",
            "/etc/kubernetes/pki/apiserver.crt",
            "/etc/kubernetes/pki/apiserver.key",
            "/etc/kubernetes/pki/apiserver-kubelet-client.crt",
            "/etc/kubernetes/pki/apiserver-kubelet-client.key",
            "/etc/kubernetes/pki/front-proxy-client.crt",
            "/etc/kubernetes/pki/front-proxy-client.key",
            "/etc/kubernetes/pki/apiserver-etcd-client.crt",
            "/etc/kubernetes/pki/apiserver-etcd-client.key",
            "/etc/kubernetes/pki/etcd/server.crt",
            "/etc/kubernetes/pki/etcd/server.key",
            "/etc/kubernetes/pki/etcd/peer.crt",
            "/etc/kubernetes/pki/etcd/peer.key",
            "/etc/kubernetes/pki/etcd/healthcheck-client.crt",
            "/etc/kubernetes/pki/etcd/healthcheck-client.key",
        ]));
    }
    claims
}
