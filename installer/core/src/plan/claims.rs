//! The claims: what opaque daemons are known to make on a node. They are recorded before the daemons start, so that an undo can remove all of it.

use crate::action::Claims;
use crate::cluster_record::FixedSettings;
use crate::inventory::Role;
use crate::plan::modules::DAEMON_MODULES;
use crate::spec::{Backend, Cidr};
use std::path::{Path, PathBuf};

/// The file that containerd renders from its template once the kubelet knows the node's podCIDR. containerd never renders it again by itself.
const CNI_CONFIG: &str = "/etc/landfall/cni/net.d/10-containerd-net.conflist";

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn paths(list: &[&str]) -> Vec<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}

/// Returns what kubelet, containerd, kube-proxy, flannel and the CNI plugins make on a node while they run (the README of this crate names the
/// sources). The whole-host fingerprint in the lab checks it. Each kind with a rule of its own in `agent/src/claims` has a function here.
pub(super) fn daemon_claims(fixed: &FixedSettings) -> Claims {
    Claims {
        units: strings(&["kubelet.service", "containerd.service"]),
        cgroups: strings(&["kubepods", "kubepods.slice"]),
        programs: ["containerd-shim-runc-v2", "containerd"]
            .map(|program| Path::new(fixed.bin_dir.path()).join(program))
            .to_vec(),
        mounts_under: daemon_mounts(),
        paths: daemon_paths(),
        links: strings(&["cni0", "flannel.1", "flannel-v6.1"]),
        nft_tables: strings(&DAEMON_TABLES),
        iptables_chains: strings(&["KUBE-", "CNI-", "FLANNEL-"]),
        sysctls: daemon_settings(),
        modules: daemon_modules(),
        // containerd's name for the profile of containers that ask for none (internal/cri/server/apparmor.go).
        apparmor_profiles: strings(&["cri-containerd.apparmor.d"]),
        routed_networks: routed_networks(fixed),
        prior_routes: vec![],
    }
}

/// flannel's host-gw makes a route over each other node to that node's pods, and leaves them when it ends.
fn routed_networks(fixed: &FixedSettings) -> Vec<Cidr> {
    match fixed.pod_network.backend {
        Backend::Vxlan => vec![],
        Backend::HostGw => vec![fixed.pod_network_cidr],
    }
}

fn daemon_mounts() -> Vec<PathBuf> {
    paths(&[
        "/var/lib/kubelet",
        "/run/containerd",
        "/var/lib/containerd",
        "/run/netns",
    ])
}

fn daemon_paths() -> Vec<PathBuf> {
    paths(&[
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
        // What go-runc writes for each `runc exec` (utils.go) and leaves when it is killed.
        "/tmp/runc-process*",
    ])
}

/// Tables of nftables that kube-proxy, flannel and CNI's portmap make.
pub(crate) const DAEMON_TABLES: [&str; 7] = [
    "ip kube-proxy",
    "ip6 kube-proxy",
    "ip flannel-ipv4",
    "ip6 flannel-ipv6",
    "inet cni_hostport",
    "ip cni_hostport",
    "ip6 cni_hostport",
];

/// Settings that a kubelet with `protectKernelDefaults` wants to find (`setupKernelTunables` in
/// pkg/kubelet/cm/container_manager_linux.go, 1.37).
pub const KUBELET_SETTINGS: [&str; 6] = [
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
];

fn daemon_settings() -> Vec<String> {
    let mut settings = strings(&[
        "net.ipv4.conf.all.route_localnet",
        "net.ipv4.ip_forward",
        // The kernel changes it with ip_forward: see `written_settings`.
        "net.ipv4.conf.all.accept_redirects",
        "net.ipv6.conf.all.forwarding",
        "net.netfilter.nf_conntrack_max",
        "net.netfilter.nf_conntrack_buckets",
        "net.netfilter.nf_conntrack_tcp_timeout_established",
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
        "net.netfilter.nf_conntrack_tcp_be_liberal",
        "net.bridge.bridge-nf-call-iptables",
        "net.bridge.bridge-nf-call-ip6tables",
    ]);
    settings.extend(strings(&KUBELET_SETTINGS));
    settings
}

/// Returns the settings that the daemons, and the kernel with them, are known to write, with the values that they write on a machine
/// with so many processors: a setting that has another value by the time it is undone was set by somebody else.
///
/// Sources: the kubelet's `pkg/kubelet/cm/container_manager_linux.go` and `component-helpers/node/util/sysctl`; kube-proxy's
/// `cmd/kube-proxy/app/conntrack.go` and the defaults of its configuration (32768 connections for each processor and 131072 at least,
/// a hash table of a quarter of that, 24 h and 1 h); `inet_forward_change` in the kernel's `net/ipv4/devinet.c`.
pub fn written_settings(processors: usize) -> Vec<(String, String)> {
    let connections = (32_768 * processors).max(131_072);
    [
        ("net.ipv4.conf.all.route_localnet", "1".to_owned()),
        ("net.ipv4.ip_forward", "1".to_owned()),
        ("net.ipv4.conf.all.accept_redirects", "0".to_owned()),
        ("net.ipv6.conf.all.forwarding", "1".to_owned()),
        ("net.netfilter.nf_conntrack_max", connections.to_string()),
        ("net.netfilter.nf_conntrack_buckets", (connections / 4).to_string()),
        ("net.netfilter.nf_conntrack_tcp_timeout_established", "86400".to_owned()),
        ("net.netfilter.nf_conntrack_tcp_timeout_close_wait", "3600".to_owned()),
        ("net.netfilter.nf_conntrack_tcp_be_liberal", "1".to_owned()),
        ("net.bridge.bridge-nf-call-iptables", "1".to_owned()),
        ("net.bridge.bridge-nf-call-ip6tables", "1".to_owned()),
        ("vm.overcommit_memory", "1".to_owned()),
        ("vm.panic_on_oom", "0".to_owned()),
        ("kernel.panic", "10".to_owned()),
        ("kernel.panic_on_oops", "1".to_owned()),
        ("kernel.keys.root_maxkeys", "1000000".to_owned()),
        ("kernel.keys.root_maxbytes", "25000000".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn daemon_modules() -> Vec<String> {
    DAEMON_MODULES.iter().map(|module| module.name.to_owned()).collect()
}

/// What kubeadm itself and the static pods it starts make, so that a half-done init or join can be undone alone.
pub(super) fn kubeadm_claims(role: Role, fixed: &FixedSettings) -> Claims {
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
            // A node that joins again gets another podCIDR, so the file that was rendered with the first one must not stay.
            CNI_CONFIG,
            "/run/landfall/cni",
            "/run/flannel",
            "/var/lib/cni",
        ]),
        links: strings(&["cni0", "flannel.1"]),
        // A node that joins again may get the podCIDR that another had.
        routed_networks: routed_networks(fixed),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{BinDir, ClusterSpec, PodNetwork};

    fn fixed(backend: Backend) -> FixedSettings {
        let pod_network = PodNetwork {
            backend,
            ..PodNetwork::default()
        };
        let spec = ClusterSpec {
            pod_network,
            ..ClusterSpec::default()
        };
        FixedSettings::of(&spec, 1450)
    }

    #[test]
    fn routes_are_claimed_with_host_gw_and_nothing_else_changes_the_claims() {
        let (vxlan, host_gw) = (fixed(Backend::Vxlan), fixed(Backend::HostGw));
        for (without, with) in [
            (daemon_claims(&vxlan), daemon_claims(&host_gw)),
            (
                kubeadm_claims(Role::Worker, &vxlan),
                kubeadm_claims(Role::Worker, &host_gw),
            ),
        ] {
            assert_eq!(with.routed_networks, [vxlan.pod_network_cidr]);
            let text = serde_json::to_string(&without).unwrap();
            assert!(
                !text.contains("routed_") && !text.contains("prior_"),
                "earlier journals have the same digest: {text}"
            );
        }
    }

    #[test]
    fn programs_are_claimed_where_the_spec_puts_them() {
        let mut fixed = fixed(Backend::Vxlan);
        fixed.bin_dir = BinDir::Opt;
        let shim = Path::new("/opt/landfall/bin/containerd-shim-runc-v2").to_owned();
        assert_eq!(daemon_claims(&fixed).programs[0], shim);
    }

    #[test]
    fn every_claimed_setting_has_a_known_value() {
        let written = written_settings(2);
        for name in daemon_claims(&fixed(Backend::Vxlan)).sysctls {
            assert!(written.iter().any(|(n, _)| *n == name), "{name}");
        }
        let of = |processors, name: &str| {
            let all = written_settings(processors);
            all.into_iter().find(|(n, _)| n == name).unwrap().1
        };
        assert_eq!(of(1, "net.netfilter.nf_conntrack_max"), "131072");
        assert_eq!(of(8, "net.netfilter.nf_conntrack_max"), "262144");
        assert_eq!(of(8, "net.netfilter.nf_conntrack_buckets"), "65536");
    }
}
