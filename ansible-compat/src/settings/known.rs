//! Names of variables of other projects, and what landfall makes of them.

use crate::roles;
use landfall_core::glob::matches_part;

/// Variables that are used, with the field of `cluster.yaml`.
#[rustfmt::skip]
pub const MAPPED: &[(&str, &[&str])] = &[
    (
        "podNetworkCidr",
        &[
            "kube_pods_subnet", "CLUSTER_CIDR", "pod_network_cidr", "pod_cidr", "pod_subnet", "pods_cidr",
            "cluster_cidr", "kube_pod_cidr", "kubernetes_pod_network_cidr", "k8s_pod_network_cidr",
            "k8s_pod_cidr", "kubeadm_pod_network_cidr", "rke2_cluster_cidr", "k3s_cluster_cidr",
            "osm_cluster_network_cidr", "kube_pods_cidr", "cluster_pod_subnet", "cluster_pod_network",
            "k8s_cni_pod_cidr", "kubernetes_network", "pod_network", "pod_cluster_cidr", "openshift_cluster_subnet",
            "calico_ipv4pool_cidr", "flannel_subnet", "k8s_pods_subnet", "k8s_pod_subnet", "k8s_pod_network",
            "K8S_POD_NETWORK",
        ],
    ),
    (
        "serviceCidr",
        &[
            "kube_service_addresses", "SERVICE_CIDR", "service_cidr", "service_subnet", "services_cidr",
            "kube_service_cidr", "kubernetes_service_cidr", "k8s_service_cidr", "kubeadm_service_cidr",
            "rke2_service_cidr", "k3s_service_cidr", "openshift_portal_net", "openshift_master_portal_net",
            "cluster_service_subnet", "cluster_service_network", "service_network_cidr", "service_network",
            "kubernetes_service_network", "service_cluster_ip_range", "openshift_service_subnet",
            "k8s_service_subnet", "k8s_service_ip_range", "K8S_SERVICE_IP_RANGE",
        ],
    ),
    (
        "clusterDomain",
        &[
            "dns_domain", "CLUSTER_DNS_DOMAIN", "cluster_domain", "kubernetes_dns_domain", "kubernetes_cluster_domain",
            "dns_name",
        ],
    ),
];

/// Variables that are not used: names as [`plain`] makes them or patterns with `*`, values that equal landfall's own, and what to do. A name goes
/// before all patterns, and an earlier pattern before a later one. What fits a pattern behind `!` is none of the row's patterns.
#[rustfmt::skip]
pub const TOLD: &[(&[&str], &[&str], &str)] = &[
    (
        &[
            "kube_version", "k8s_ver", "k8s_version", "kubernetes_version", "kube_ver", "kubeadm_version",
            "kubelet_version", "k3s_version", "rke2_version", "install_rke2_version", "openshift_release",
            "etcd_version", "containerd_version", "etcd_ver", "cni_ver", "kube_target_version", "k3s_release_version",
            "kubernetes_major_version", "kubernetes_minor_version", "calico_version", "cilium_version", "cni_version",
            "docker_version", "k8s_release", "k8s*version*", "kube*version*", "k3s*version*", "rke2*version*",
            "*cni*version*", "containerd*version*", "crictl*version*", "etcd*version*", "calico*version*",
            "flannel*version*", "build_version", "release_marker",
        ],
        &[],
        "the bundle decides the versions (landfall bundle inspect)",
    ),
    (
        &[
            "kube_network_plugin", "cluster_network", "network_plugin", "cni", "cni_plugin",
            "pod_network_plugin", "rke2_cni", "kubernetes_cni", "k8s_cni", "kubernetes_pod_network",
            "cluster_cni", "use_cni_plugin",
            "network_type", "cni_provider", "os_sdn_network_plugin_name", "network", "net_choose", "*cni_plugin*",
            "*network_plugin*",
        ],
        &["flannel"],
        "landfall installs flannel",
    ),
    (
        &["flannel_backend", "flannel_backend_type", "*flannel_backend*"],
        &["vxlan"],
        "set podNetwork.backend: vxlan or host-gw",
    ),
    (&["bin_dir"], &["/usr/local/bin"], "set binDir: /opt/landfall/bin where /usr is read-only"),
    (&["use_calico"], &["false"], "landfall installs flannel"),
    (
        &["use_flannel", "enable_flannel", "install_flannel", "deploy_flannel", "flannel_enabled"],
        &["true"],
        "landfall installs flannel",
    ),
    (&["*macvlan*", "*multus*", "!*network_plugin*"], &["false"], OTHER_PLUGIN),
    (
        &[
            "flannel_iface", "flannel_interface", "calico_iface", "private_ip", "node_ip", "internal_ip", "*advertise_address", "wireguard_ip",
            "*_iface", "*_interface", "interface_name", "*_interface_name", "*_node_ip", "network_adapter_name", "cni_opts",
            "!*ceph*", "!*vlan*", "!flat_*", "!*ping*", "!*keepalived*", "!*vip*",
        ],
        &[],
        "set ip or access_ip of each machine instead",
    ),
    (
        &["kube_proxy_mode", "proxy_mode", "k8s_proxy_mode", "kubeproxy_mode"],
        &["nftables"],
        "set proxyMode: nftables or iptables",
    ),
    (
        &["kube_proxy_remove", "kubeadm_skip_kubeproxy"],
        &["false"],
        "landfall installs kube-proxy",
    ),
    (&["enable_kube_proxy"], &["true"], "landfall installs kube-proxy"),
    (
        &["cilium_encryption_enabled", "calico_wireguard_enabled"],
        &["false"],
        "landfall installs flannel with VXLAN, which does not encrypt",
    ),
    (
        &[
            "kube_image_repo", "gcr_image_repo", "docker_image_repo", "quay_image_repo", "github_image_repo",
            "registry_host", "files_repo", "image_repository", "k8s_image_repository",
            "kubernetes_image_repository", "image_registry", "insecure_registry", "insecure_reg",
            "containerd_registries_mirrors", "containerd_insecure_registries", "registry_mirrors",
            "private_registry", "system_default_registry", "rke2_system_default_registry", "privateregistry",
            "container_registry", "kubernetes_image_repo", "docker_registry_mirrors", "docker_insecure_registries",
            "insecure_registries", "*registry*", "*registries*", "*_mirror*", "mirror_*", "*repo_prefix*", "oreg_*",
            "*infra*image*", "*pause*image*", "coredns_image*", "!*_service_broker_*",
        ],
        &[],
        "images come from the bundle; landfall uses no registry",
    ),
    (
        &["container_manager", "container_runtime", "kubernetes_container_runtime"],
        &["containerd"],
        "landfall installs containerd",
    ),
    (
        &["*crio*", "cri_o_*", "install_docker", "use_docker", "*cri_socket*"],
        &["false"],
        "landfall installs containerd",
    ),
    (
        &["install_containerd", "enable_containerd"],
        &["true"],
        "landfall installs containerd",
    ),
    (
        &["upstream_dns_servers", "kubernetes_dns_servers", "*dns_servers"],
        &[],
        "set upstreamDns",
    ),
    (
        &["coredns_external_zones", "nodelocaldns_external_zones"],
        &[],
        "set stubZones",
    ),
    (
        &[
            "supplementary_addresses_in_ssl_keys", "master_cert_hosts", "apiserver_cert_extra_sans",
            "api_server_cert_sans", "rke2_additional_sans", "tls_san", "apiservercertsans", "rke2_server_tls_san",
            "rke2_tls_sans", "api_server_cert_extra_sans", "certsans", "extra_cert", "*cert_sans", "*_tls_san*",
        ],
        &[],
        "set apiServerCertSans",
    ),
    (
        &[
            "loadbalancer_apiserver", "apiserver_loadbalancer_domain_name", "apiserver_endpoint",
            "api_endpoint", "rke2_api_ip", "control_plane_endpoint", "kubeadm_control_plane_endpoint",
            "kube_vip_address", "k8s_vip", "control_plane_vip", "controlplane_endpoint", "k8s_control_plane_endpoint",
            "cluster_control_plane_vip", "cluster_vip", "kube_vip_ip", "rke2_lb_vip", "lb_vip",
            "kubernetes_loadbalanced_api_dns", "k3s_registration_address", "vip", "*_vip", "*_vip_*", "vip_*", "*api_ip",
            "*lb_ip", "*lb_address", "*lb_external_host", "loadbalancer_ip", "*api_hostname", "*master_cluster_ip",
            "openshift_master_cluster_hostname", "openshift_master_cluster_public_hostname", "*keepalived*",
            "kube*_apiserver", "*_master_addr", "!*pass", "!*password*", "!*secret*", "!*range*", "!*cidr*", "!*subnet*", "!*_pool*",
        ],
        &[],
        "every node balances to all API servers itself; for clients outside set apiServerCertSans, and controlPlaneEndpoint for its name",
    ),
    (
        &["kube_vip_enabled", "rke2_ha_mode", "rke2_ha_mode_kubevip", "kube_vip_*", "kubevip_*"],
        &["false"],
        "landfall has no virtual IP",
    ),
    (
        &[
            "kube_apiserver_port", "secure_port", "api_port", "cluster_control_plane_port",
            "openshift_master_api_port", "*api_server_port", "*apiserver_port", "k8s_api_port",
            "*master_cluster_port", "*api_server_bind_port", "*apiserver_bind_port",
        ],
        &["6443"],
        "the API server has port 6443",
    ),
    (
        &["kube_network_node_prefix", "node_cidr_len", "*cidr_mask*", "*cidrmask*"],
        &["24"],
        "every node takes a /24 of the pod network",
    ),
    (
        &["enable_dual_stack_networks", "ipv6_stack", "*dual_stack*"],
        &["false"],
        "clusters of landfall are IPv4",
    ),
    (
        &[
            "extra_server_args", "extra_agent_args", "server_config_yaml", "k3s_server", "k3s_agent",
            "rke2_config", "rke2_server_options", "rke2_agent_options", "kubelet_custom_flags",
            "kube_kubeadm_apiserver_extra_args", "kube_feature_gates", "kubelet_max_pods", "kubeadm_config_options",
            "kube_apiserver_enable_admission_plugins", "kube_apiserver_feature_gates", "openshift_node_kubelet_args",
            "kubelet_memory_reserved", "kubelet_cpu_reserved", "kube_memory_reserved", "kube_cpu_reserved",
            "system_memory_reserved", "system_cpu_reserved", "*_extra_args", "*extra_arg", "*reserved*", "*eviction*",
            "*_bind_address", "oidc_*", "*_oidc_*", "kubelet_*", "kube_apiserver_*", "kube_controller_manager_*", "kube_scheduler_*",
            "*feature_gates*", "rke2_config*", "k3s_config*", "*protect_kernel_defaults", "*egress_selector*", "*etcd_snapshot*",
            "*admission_plugins*", "kubeadm_*", "*_flags", "kubelet", "apiserver", "controller_manager", "scheduler", "*max_pods*", "*maxpods*",
            "kube_proxy", "!kubelet_*_url", "!kubeadm_*_url", "!*download*", "!*_dir", "!*_path", "!*_folder", "!*_deployment_type",
            "!*csr_approver*",
        ],
        &[],
        "arguments of programs are not taken over",
    ),
    (
        &[
            "node_labels", "node_taints", "k8s_node_labels", "openshift_node_labels", "rke2_server_node_taints",
            "rke2_agent_node_taints", "rke2_server_node_labels", "rke2_agent_node_labels",
            "openshift_node_group_name", "*node_labels*", "*node_taints*", "*_taints",
        ],
        &[],
        "labels and taints are not set; use kubectl afterwards",
    ),
    (
        &[
            "ingress_nginx_enabled", "metallb_enabled", "cert_manager_enabled", "metrics_server_enabled",
            "dashboard_enabled", "helm_enabled", "local_path_provisioner_enabled", "argocd_enabled",
            "gateway_api_enabled", "registry_enabled", "krew_enabled", "*csr_approver*", "metallb_*",
            "metal_lb_*", "rancher_*", "longhorn*", "rook_*", "kong_*", "argocd_*", "*dashboard*", "extra_files",
            "cluster_install_list", "*_service_broker_*",
        ],
        &["false"],
        ADD_ON,
    ),
    (
        &["kube_encrypt_secret_data"],
        &["true", "false"],
        "landfall encrypts Secrets in etcd in any case",
    ),
    (
        &["kubernetes_audit", "rke2_audit_policy_enabled"],
        &["true", "false"],
        "the API server writes an audit log of its own policy in any case",
    ),
    (
        &["rke2_pod_security_admission", "kube_pod_security_use_default"],
        &["false", "privileged"],
        "no level of Pod Security is set for the cluster: label the namespaces (pod-security.kubernetes.io/enforce)",
    ),
    (
        &["auto_renew_certificates"],
        &["false"],
        "certificates are not renewed: landfall status says how long they last",
    ),
    (
        &["etcd_data_dir", "etcd_data_directory"],
        &["/var/lib/etcd"],
        "etcd's data is in /var/lib/etcd; a disk can be mounted there",
    ),
    (
        &[
            "containerd_storage_dir", "docker_storage_path", "docker_data_path", "docker_data_root", "rke2*data_path", "rke2*data_dir",
            "k3s*data_dir",
        ],
        &["/var/lib/containerd"],
        "images are in /var/lib/containerd, volumes of pods in /var/lib/kubelet; disks can be mounted there",
    ),
    (&["dns_mode"], &["coredns"], "landfall installs CoreDNS"),
    (&["*cluster_domain"], &["cluster.local"], "set clusterDomain"),
    (
        &["cluster_name"],
        &["cluster.local"],
        "the name of the cluster is name; where this is its DNS domain, as in kubespray, set clusterDomain",
    ),
    (
        &["*node_port_range", "*service_port_range", "*nodeport_range"],
        &["30000-32767"],
        "NodePorts are 30000 to 32767",
    ),
    (
        &["*schedule*master*", "master_schedulable", "*schedulable*", "*scheduled_on_master*", "*taint_master*", "*master_taint*"],
        &[],
        "control planes take workloads when they are in a group of workers too, or when there are no workers",
    ),
    (
        &["cluster_dns", "*dns_ip", "skydns_server", "kube_dns_server", "coredns_service_ip"],
        &[],
        "the cluster's DNS has the tenth address of serviceCidr",
    ),
    (
        &["openshift_*", "osm_*"],
        &[],
        "landfall installs Kubernetes, without what OpenShift has besides",
    ),
];

/// What to do about settings of add-ons.
const ADD_ON: &str = "landfall installs its own ingress proxy and no other add-on";
/// What to do about settings of other network plugins.
pub const OTHER_PLUGIN: &str = "a setting of a network plugin that landfall does not install";

/// Names of variables that switch something on or off.
const SWITCHES: [&str; 4] = ["*_enabled", "enable_*", "install_*", "deploy_*"];

/// Words in the names of switches, as they stand between `_`, and what to do: of other switches nothing is known.
#[rustfmt::skip]
const SWITCHED: [(&[&str], &str); 2] = [
    (&["calico", "cilium", "flannel", "weave", "kube_ovn", "kube_router", "canal", "antrea"], OTHER_PLUGIN),
    (
        &[
            "dashboard", "helm", "_metrics_", "ingress", "nginx", "traefik", "cert_manager", "certmanager", "argocd", "argo_cd", "metallb",
            "longhorn", "registry", "prometheus", "grafana", "monitoring", "istio", "kubevirt", "nvidia", "_gpu", "local_path", "local_volume", "_csi_",
            "provisioner", "nfs_subdir", "autoscaler", "nodelocaldns", "nodelocal_dns", "node_local_dns", "netchecker",
            "rancher", "rook", "openebs", "kubeapps", "service_catalog", "node_feature_discovery", "external_dns", "gateway_api", "velero",
        ],
        ADD_ON,
    ),
];

/// Looks a switch up by the words in its name.
fn switched(name: &str) -> Option<Told> {
    if !is_switch(name) {
        return None;
    }
    let name = format!("_{name}_");
    let (_, todo) = SWITCHED
        .iter()
        .find(|(words, _)| words.iter().any(|word| name.contains(word)))?;
    Some((&["false"], todo))
}

fn is_switch(name: &str) -> bool {
    SWITCHES.iter().any(|pattern| matches_part(pattern, name))
}

/// Says whether a variable has a name of a kind that settings of clusters have, whether or not anything is known about it.
pub fn is_of_a_kind(name: &str) -> bool {
    let name = plain(name);
    let fits = |known: &&str| matches_part(known, &name);
    is_switch(&name) || TOLD.iter().any(|(names, ..)| names.iter().any(fits))
}

/// Variables of other projects that give a node another name; they are read elsewhere or differ from the inventory's name.
pub const HOSTNAMES: [&str; 3] = ["hostname", "nodename", "new_hostname"];

/// Makes one name of the ways in which projects write it: `nodePortRange`, `NODE_PORT_RANGE`, `node-port-range`.
pub fn plain(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 4);
    let mut was_lower = false;
    for letter in name.chars() {
        if was_lower && letter.is_ascii_uppercase() {
            words.push('_');
        }
        was_lower = letter.is_ascii_lowercase();
        words.push(letter);
    }
    roles::plain(&words)
}

/// Says whether a variable is used.
pub fn is_mapped(name: &str) -> bool {
    MAPPED.iter().any(|(_, names)| names.contains(&name))
}

/// What stands in the table about a variable that is not used: values that equal landfall's own, and what to do.
pub type Told = (&'static [&'static str], &'static str);

/// Says whether a name fits a pattern of a row and none of those behind `!`.
fn fits(patterns: &[&str], name: &str) -> bool {
    let is_not = |pattern: &&str| pattern.strip_prefix('!').is_some_and(|not| matches_part(not, name));
    patterns.iter().any(|pattern| matches_part(pattern, name)) && !patterns.iter().any(is_not)
}

/// Looks a variable up that is not used. Goes through the whole table: the answer for a name is worth keeping.
pub fn told(name: &str) -> Option<Told> {
    let name = plain(name);
    let by_name = TOLD.iter().find(|(names, ..)| names.contains(&name.as_str()));
    let by_pattern = || TOLD.iter().find(|(names, ..)| fits(names, &name));
    match by_name.or_else(by_pattern) {
        Some((_, ours, todo)) => Some((ours, todo)),
        None => switched(&name),
    }
}

/// Says whether a variable chooses the network plugin.
pub fn chooses_plugin(name: &str) -> bool {
    let name = plain(name);
    let choice = TOLD.iter().find(|(names, ..)| names.contains(&"kube_network_plugin"));
    choice.is_some_and(|(names, ..)| names.contains(&name.as_str()))
}

/// Says whether the table has this very name.
pub fn has_name(name: &str) -> bool {
    let name = plain(name);
    TOLD.iter().any(|(names, ..)| names.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, name, wanted) in [
            ("k8s*version*", "k8s_kubelet_version", true),
            ("k8s*version*", "my_k8s_version", false),
            ("*_vip", "api_vip", true),
            ("*_vip", "api_vip_address", false),
            ("*_vip_*", "api_vip_address", true),
            ("kubelet_*", "kubelet_", true),
            ("a*a", "a", false),
            ("vip", "vip", true),
        ] {
            assert_eq!(matches_part(pattern, name), wanted, "{pattern} {name}");
        }
        assert!(told("API-Endpoint").is_some() && told("motd").is_none());
        assert!(
            told("kubelet_version").unwrap().1.contains("versions"),
            "a name goes before patterns"
        );
        for (names, ..) in TOLD {
            let mut seen = std::collections::BTreeSet::new();
            assert!(
                names.iter().all(|name| seen.insert(name) && *name == plain(name)),
                "{names:?}"
            );
        }
    }
}
