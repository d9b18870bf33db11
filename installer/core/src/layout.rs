//! Paths on a node that more than one crate names.

/// landfall's state: agent, journal, blobs.
pub const STATE_DIR: &str = "/var/lib/landfall";
/// Blobs that bundles brought, by digest.
pub const BLOBS_DIR: &str = "/var/lib/landfall/blobs";
/// Volatile state: lease, CNI addresses.
pub const RUN_DIR: &str = "/run/landfall";
/// Where processes of the ingress proxy meet, one old and one new; the kubelet makes it.
pub const INGRESS_DIR: &str = "/run/landfall-ingress";
/// Configuration files of landfall's own.
pub const CONFIG_DIR: &str = "/etc/landfall";
/// Programs on the administrators' path, unless the spec says [`OPT_BIN_DIR`].
pub const BIN_DIR: &str = "/usr/local/bin";
/// Programs of machines whose /usr is read-only.
pub const OPT_BIN_DIR: &str = "/opt/landfall/bin";
/// CNI plugins.
pub const CNI_BIN_DIR: &str = "/opt/landfall/cni/bin";
/// Generated CNI configuration.
pub const CNI_CONF_DIR: &str = "/etc/landfall/cni/net.d";
/// Template that containerd turns into the CNI configuration once the node has its podCIDR.
pub const CNI_TEMPLATE: &str = "/etc/landfall/cni/conf.template";
/// containerd's configuration.
pub const CONTAINERD_CONFIG: &str = "/etc/landfall/containerd.toml";
/// Resolver file that the kubelet gives to pods with `dnsPolicy: Default` and CoreDNS.
pub const RESOLV_CONF: &str = "/etc/landfall/resolv.conf";
/// kubeadm's configuration of this node.
pub const KUBEADM_CONFIG: &str = "/etc/landfall/kubeadm.yaml";
/// What `kubeadm kubeconfig user` reads when it makes a credential, on every control plane.
pub const CLUSTER_CONFIG: &str = "/etc/landfall/kubeadm-cluster.yaml";
/// kubeadm's configuration by which the kubelet of a further control plane joins.
pub const KUBELET_JOIN_CONFIG: &str = "/etc/landfall/kubelet-join.yaml";
/// Patches that kubeadm applies to what it renders, on control planes that found a cluster together.
pub const KUBEADM_PATCHES_DIR: &str = "/etc/landfall/kubeadm-patches";
/// The patch of etcd's static pod, a JSON patch by its name (kubeadm 1.37, util/patches).
pub const ETCD_PATCH: &str = "/etc/landfall/kubeadm-patches/etcd+json.json";
/// Kernel settings that must hold after a reboot.
pub const SYSCTL_FILE: &str = "/etc/sysctl.d/90-landfall.conf";
/// Modules that must be loaded after a reboot.
pub const MODULES_FILE: &str = "/etc/modules-load.d/landfall.conf";
/// Unit files.
pub const UNIT_DIR: &str = "/etc/systemd/system";
/// kubeadm's directory.
pub const KUBERNETES_DIR: &str = "/etc/kubernetes";
/// Where containerd keeps images and containers.
pub const CONTAINERD_DIR: &str = "/var/lib/containerd";
/// The kubelet's directory.
pub const KUBELET_DIR: &str = "/var/lib/kubelet";
/// etcd's data.
pub const ETCD_DIR: &str = "/var/lib/etcd";
/// Audit policy and encryption configuration, mounted into the API server.
pub const API_SERVER_DIR: &str = "/etc/kubernetes/landfall";
/// Kubeconfig with a short-lived client certificate by which a node joins.
pub const JOIN_KUBECONFIG: &str = "/etc/kubernetes/landfall-join.conf";
/// Port of the API server on control planes.
pub const API_SERVER_PORT: u16 = 6443;
/// Port of the node-local balancer, on 127.0.0.1.
pub const API_BALANCER_PORT: u16 = 7443;
/// Port of a node's own address on which its agent gives blobs to other nodes, while a bundle is sent and no longer.
pub const RELAY_PORT: u16 = 7444;
/// A TCP port of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterPort {
    /// The port.
    pub port: u16,
    /// Who listens there.
    pub listener: &'static str,
    /// Who connects to it.
    pub callers: Callers,
}

/// From where a port is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// From the node itself alone.
    Itself,
    /// From control planes.
    ControlPlanes,
    /// From every member.
    Members,
}

const fn port(port: u16, callers: Callers, listener: &'static str) -> ClusterPort {
    ClusterPort {
        port,
        listener,
        callers,
    }
}

/// TCP ports that every node listens on.
pub const NODE_PORTS: [ClusterPort; 5] = [
    port(10250, Callers::ControlPlanes, "the kubelet"),
    port(10248, Callers::Itself, "the kubelet's health"),
    port(10249, Callers::Itself, "kube-proxy's metrics"),
    port(10256, Callers::Itself, "kube-proxy's health"),
    port(API_BALANCER_PORT, Callers::Itself, "landfall's API balancer"),
];
/// TCP ports of a control plane beside those.
pub const CONTROL_PLANE_PORTS: [ClusterPort; 6] = [
    port(API_SERVER_PORT, Callers::Members, "the API server"),
    port(2379, Callers::ControlPlanes, "etcd"),
    port(2380, Callers::ControlPlanes, "etcd's peers"),
    port(2381, Callers::Itself, "etcd's metrics"),
    port(10257, Callers::Itself, "the controller manager"),
    port(10259, Callers::Itself, "the scheduler"),
];
/// Ports that the API server gives to Services of the kind NodePort (its default; kube-apiserver --service-node-port-range).
pub const NODE_PORT_RANGE: std::ops::RangeInclusive<u16> = 30000..=32767;
/// The API server as everything on a node names it: the node's own balancer, by an address, so that it needs no line in /etc/hosts.
/// (The scheme, 127.0.0.1 and [`API_BALANCER_PORT`].)
pub const API_BALANCER_URL: &str = "https://127.0.0.1:7443";
/// Namespace of the sample.
pub const SAMPLE_NAMESPACE: &str = "landfall-sample";
/// The port on which the sample's pods serve.
pub const SAMPLE_PORT: u16 = 80;
/// The `landfall` program inside the probe image.
pub const PROBE_PROGRAM: &str = "/landfall";
/// Namespace of the ingress proxy.
pub const INGRESS_NAMESPACE: &str = "kube-system";
/// The dashboard's Service, Ingress, and Secret with its login (type kubernetes.io/basic-auth), in [`INGRESS_NAMESPACE`].
pub const DASHBOARD: &str = "landfall-dashboard";
/// User of the dashboard.
pub const DASHBOARD_USER: &str = "landfall";
