//! Files of a node that are not Kubernetes objects: containerd's configuration, units, resolver file, hosts lines, kernel settings.

use crate::{ClusterLayout, DnsPolicy, MemberLayout, RenderError, image};
use landfall_core::bundle_index::BundleIndex;
use landfall_core::layout;
use landfall_core::spec::{ClusterSpec, Firewall, Profile};

/// containerd's configuration, version 3, with CNI directories of landfall's own.
pub fn containerd_config(spec: &ClusterSpec, index: &BundleIndex) -> Result<String, RenderError> {
    let pause = image(index, "pause")?;
    let lab = spec.profile == Profile::Lab;
    Ok(format!(
        "version = 3\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = '{pause}'\n\
         [plugins.'io.containerd.cri.v1.runtime']\n  restrict_oom_score_adj = {lab}\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = ['{bin}']\n  conf_dir = '{conf}'\n  \
         conf_template = '{template}'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n  runtime_type = 'io.containerd.runc.v2'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n  SystemdCgroup = {systemd}\n  \
         BinaryName = '{runc}/runc'\n",
        bin = layout::CNI_BIN_DIR,
        conf = layout::CNI_CONF_DIR,
        template = layout::CNI_TEMPLATE,
        runc = spec.bin_dir.path(),
        systemd = !lab,
    ))
}

/// Units of a node by name; the kubelet is last.
pub fn units(spec: &ClusterSpec, cluster: &ClusterLayout, node: &MemberLayout) -> Vec<(String, String)> {
    let bin = spec.bin_dir.path();
    let mut units = vec![("containerd.service".to_owned(), containerd_unit(spec))];
    let mut control_planes: Vec<_> = cluster.members.iter().filter(|m| m.control_plane).collect();
    // A control plane's own API server is asked first; it is the one that lives and dies with the node.
    control_planes.sort_by_key(|m| m.name != node.name);
    if !node.control_plane && !control_planes.is_empty() {
        // Workers begin with different ones, so that no API server carries all of them.
        let place = cluster.members.iter().filter(|m| !m.control_plane);
        let place = place.take_while(|m| m.name != node.name).count();
        let count = control_planes.len();
        control_planes.rotate_left(place % count);
    }
    let backends: String = control_planes
        .iter()
        .map(|m| format!(" --backend {}:{}", m.address, layout::API_SERVER_PORT))
        .collect();
    units.push((
        "landfall-api-balancer.service".to_owned(),
        service(
            "Balances this node's API requests over all control planes",
            "Before=kubelet.service",
            &format!(
                "{bin}/landfall agent api-balancer --listen 127.0.0.1:{}{backends}",
                layout::API_BALANCER_PORT
            ),
            BALANCER_RIGHTS,
        ),
    ));
    let mut command = format!(
        "{bin}/landfall agent node-settings --address {} --service-cidr {} --interface {}",
        node.address, spec.service_cidr, node.interface
    );
    if !spec.pod_network.checksum_offload {
        command += &format!(" --no-checksum-offload {VXLAN_LINK}");
    }
    units.push((
        NODE_SETTINGS.to_owned(),
        service(
            "Keeps kernel settings, modules and the route to Services as landfall set them",
            &format!("After={SET_BEFORE}\nBefore=kubelet.service"),
            &command,
            // The service takes these back when it ends by itself; this is for one that was killed.
            &format!("ExecStopPost={command} --remove\n{}", node_settings_rights(spec)),
        ),
    ));
    units.push(("kubelet.service".to_owned(), kubelet_unit(spec, node)));
    units
}

/// flannel's VXLAN link: its name with the VNI, which is 1 by default.
const VXLAN_LINK: &str = "flannel.1";
/// The unit of the node's settings service.
const NODE_SETTINGS: &str = "landfall-node-settings.service";
/// What sets kernel settings, links and packet filters at a boot, on any distribution; units that a machine does not have are passed over.
const SET_BEFORE: &str = "systemd-sysctl.service systemd-modules-load.service procps.service tuned.service network.target nftables.service \
                          iptables.service netfilter-persistent.service firewalld.service ufw.service";
/// Variables by which Go programs take a proxy for requests (net/http, `ProxyFromEnvironment`), and their lower-case forms. An administrator may
/// set them for every unit (`DefaultEnvironment=`); the cluster's own addresses are none of a proxy's business. It goes over every other line that
/// sets one, also in drop-ins (systemd.exec(5)).
const NO_PROXY: &str =
    "UnsetEnvironment=HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY http_proxy https_proxy no_proxy all_proxy\n";

/// The balancer needs a port above 1024 and nothing else. A connection takes six descriptors (two sockets, each open three times), so the
/// usual soft limit of 1024 would be 170 connections; this is 10,000.
const BALANCER_RIGHTS: &str = "DynamicUser=yes\nCapabilityBoundingSet=\nNoNewPrivileges=yes\nProtectSystem=strict\nProtectHome=yes\n\
                               LimitNOFILE=65536\n";
/// The settings service changes routes and kernel settings, and loads modules. What it reads (the journal) and asks (containerd) is root's. The
/// iptables of the old tables, by which it keeps accept rules there, opens a raw socket and its lock, `/run/xtables.lock`; ufw keeps its rules in
/// /etc/ufw, and makes them in /tmp.
fn node_settings_rights(spec: &ClusterSpec) -> String {
    let (capability, paths) = match spec.firewall {
        Firewall::Keep => ("", ""),
        Firewall::Open => (" CAP_NET_RAW", "ReadWritePaths=/run -/etc/ufw\nPrivateTmp=yes\n"),
    };
    format!(
        "CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_MODULE{capability}\nNoNewPrivileges=yes\nProtectSystem=strict\n{paths}ProtectHome=yes\n"
    )
}

/// A service of landfall's own, which tells systemd when it is up. `more` holds further whole lines of its `[Service]` section.
fn service(description: &str, order: &str, command: &str, more: &str) -> String {
    format!(
        "[Unit]\nDescription={description}\n{order}\nStartLimitIntervalSec=0\n\n[Service]\nType=notify\nExecStart={command}\n{NO_PROXY}{more}\
         Restart=always\nRestartSec=1\n\n[Install]\nWantedBy=multi-user.target\n"
    )
}

/// As upstream's unit, but for `LimitCORE`: pods inherit the limit, and a core file would hold their secrets.
fn containerd_unit(spec: &ClusterSpec) -> String {
    format!(
        "[Unit]\nDescription=containerd, put here by landfall\nAfter=network.target local-fs.target\n\
         RequiresMountsFor=/var/lib/containerd\n\n[Service]\n\
         ExecStart={}/containerd --config {}\nType=notify\nDelegate=yes\nKillMode=process\nRestart=always\nRestartSec=2\n\
         LimitNPROC=infinity\nLimitCORE=0\nTasksMax=infinity\nOOMScoreAdjust=-999\n{NO_PROXY}\n[Install]\nWantedBy=multi-user.target\n",
        spec.bin_dir.path(),
        layout::CONTAINERD_CONFIG
    )
}

/// The node keeps the name that it has in the cluster, whatever its hostname becomes: kubeadm names it to the kubelet only when both differ on the
/// day of the join (cmd/kubeadm/app/phases/kubelet/flags.go). A disk of /etc/fstab that holds the node's data must be mounted first; on a control
/// plane the data of etcd must be there, which asks no fstab.
fn kubelet_unit(spec: &ClusterSpec, node: &MemberLayout) -> String {
    let bin = spec.bin_dir.path();
    let (etcd_dir, check) = match node.control_plane {
        true => (
            " /var/lib/etcd",
            format!("ExecStartPre={bin}/landfall agent check-etcd-data\n"),
        ),
        false => ("", String::new()),
    };
    format!(
        "[Unit]\nDescription=kubelet, put here by landfall\nAfter=containerd.service {NODE_SETTINGS}\n\
         RequiresMountsFor=/var/lib/kubelet /var/lib/containerd{etcd_dir}\nStartLimitIntervalSec=0\n\n[Service]\n\
         Environment=\"KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
         --kubeconfig=/etc/kubernetes/kubelet.conf\"\n\
         Environment=KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\n\
         EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\n\
         {check}ExecStart={bin}/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS --hostname-override={}\n\
         {NO_PROXY}Restart=always\nRestartSec=2\n\n[Install]\nWantedBy=multi-user.target\n",
        node.name
    )
}

/// Resolver file for pods: no search domain of the node's; without resolvers a loopback address that refuses at once.
pub fn resolv_conf(cluster: &ClusterLayout) -> String {
    match &cluster.dns {
        DnsPolicy::Forward(servers) => servers.iter().map(|s| format!("nameserver {s}\n")).collect(),
        DnsPolicy::Closed => "nameserver 127.0.0.1\n".to_owned(),
    }
}

/// Lines for the hosts file: the API endpoint's name leads to the node's own balancer.
pub fn hosts_lines(spec: &ClusterSpec) -> Vec<String> {
    vec![format!("127.0.0.1 {}", spec.control_plane_endpoint)]
}

/// Kernel settings: forwarding, and what a kubelet with `protectKernelDefaults` wants to find (pkg/kubelet/cm, 1.37).
pub fn kernel_settings() -> Vec<(String, String)> {
    [
        ("net.ipv4.ip_forward", "1"),
        ("net.bridge.bridge-nf-call-iptables", "1"),
        ("vm.overcommit_memory", "1"),
        ("vm.panic_on_oom", "0"),
        ("kernel.panic", "10"),
        ("kernel.panic_on_oops", "1"),
        ("kernel.keys.root_maxkeys", "1000000"),
        ("kernel.keys.root_maxbytes", "25000000"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}
