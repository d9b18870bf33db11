//! Variables of other projects that configure the cluster. They are either used, or reported with what to do instead.
//!
//! Networks are used. Of the others, values that equal landfall's own are ignored, and the rest are reported in one notice.

use crate::faults::{Faults, Place};
use crate::groups::Vars;
use crate::template::Scope;
use landfall_core::name::is_dns_name;
use landfall_core::spec::Cidr;
use serde_json::Value;
use std::collections::BTreeMap;

/// Variables that are used, with the field of `cluster.yaml`.
#[rustfmt::skip]
const MAPPED: &[(&str, &[&str])] = &[
    (
        "podNetworkCidr",
        &[
            "kube_pods_subnet", "CLUSTER_CIDR", "pod_network_cidr", "pod_cidr", "pod_subnet", "pods_cidr",
            "cluster_cidr", "kube_pod_cidr", "kubernetes_pod_network_cidr", "k8s_pod_network_cidr",
            "k8s_pod_cidr", "kubeadm_pod_network_cidr", "rke2_cluster_cidr", "k3s_cluster_cidr",
            "osm_cluster_network_cidr", "kube_pods_cidr", "cluster_pod_subnet", "cluster_pod_network",
            "k8s_cni_pod_cidr", "kubernetes_network", "pod_network", "pod_cluster_cidr", "openshift_cluster_subnet",
            "calico_ipv4pool_cidr", "flannel_subnet",
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

/// Variables that are not used: names, values that equal landfall's own, and what to do.
#[rustfmt::skip]
const TOLD: &[(&[&str], &[&str], &str)] = &[
    (
        &[
            "kube_version", "K8S_VER", "k8s_version", "kubernetes_version", "kube_ver", "kubeadm_version",
            "kubelet_version", "k3s_version", "rke2_version", "INSTALL_RKE2_VERSION", "openshift_release",
            "etcd_version", "containerd_version", "k8s_ver", "etcd_ver", "cni_ver", "kube_target_version",
            "K8S_VERSION", "k3s_release_version", "kubernetes_major_version", "kubernetes_minor_version",
            "calico_version", "cilium_version", "cni_version", "docker_version",
        ],
        &[],
        "the bundle decides the versions (landfall bundle inspect)",
    ),
    (
        &[
            "kube_network_plugin", "CLUSTER_NETWORK", "network_plugin", "cni", "cni_plugin",
            "pod_network_plugin", "rke2_cni", "kubernetes_cni", "k8s_cni", "kubernetes_pod_network",
            "calico_iface", "flannel_backend", "flannel_backend_type", "cluster_cni", "use_cni_plugin",
            "network_type", "cni_provider", "os_sdn_network_plugin_name",
        ],
        &["flannel", "vxlan"],
        "landfall installs flannel with VXLAN",
    ),
    (
        &["flannel_iface", "flannel_interface"],
        &[],
        "set ip or access_ip of each machine instead",
    ),
    (
        &["kube_proxy_mode", "PROXY_MODE", "k8s_proxy_mode", "kubeproxy_mode"],
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
        &["cilium_encryption_enabled", "calico_bpf_enabled", "calico_wireguard_enabled"],
        &["false"],
        "landfall installs flannel with VXLAN, which does not encrypt",
    ),
    (
        &[
            "kube_image_repo", "gcr_image_repo", "docker_image_repo", "quay_image_repo", "github_image_repo",
            "registry_host", "files_repo", "image_repository", "k8s_image_repository",
            "kubernetes_image_repository", "image_registry", "insecure_registry", "INSECURE_REG",
            "containerd_registries_mirrors", "containerd_insecure_registries", "registry_mirrors",
            "private_registry", "system_default_registry", "rke2_system_default_registry", "privateRegistry",
            "container_registry", "kubernetes_image_repo", "docker_registry_mirrors", "docker_insecure_registries",
            "insecure_registries",
        ],
        &[],
        "images come from the bundle; landfall uses no registry",
    ),
    (
        &["container_manager", "CONTAINER_RUNTIME", "container_runtime"],
        &["containerd"],
        "landfall installs containerd",
    ),
    (
        &["upstream_dns_servers", "kubernetes_dns_servers"],
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
            "supplementary_addresses_in_ssl_keys", "MASTER_CERT_HOSTS", "apiserver_cert_extra_sans",
            "api_server_cert_sans", "rke2_additional_sans", "tls_san", "apiServerCertSANs", "rke2_server_tls_san",
            "rke2_tls_sans", "api_server_cert_extra_sans",
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
            "kubernetes_loadbalanced_api_dns", "k3s_registration_address",
        ],
        &[],
        "every node balances to all API servers itself; for clients outside set apiServerCertSans, and controlPlaneEndpoint for its name",
    ),
    (
        &["kube_vip_enabled", "rke2_ha_mode", "rke2_ha_mode_kubevip"],
        &["false"],
        "landfall has no virtual IP",
    ),
    (
        &[
            "kube_apiserver_port", "SECURE_PORT", "api_port", "cluster_control_plane_port",
            "openshift_master_api_port",
        ],
        &["6443"],
        "the API server has port 6443",
    ),
    (
        &["kube_network_node_prefix", "NODE_CIDR_LEN"],
        &["24"],
        "every node takes a /24 of the pod network",
    ),
    (
        &[
            "enable_dual_stack_networks", "ipv6_stack", "kube_pods_subnet_ipv6",
            "kube_service_addresses_ipv6",
        ],
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
            "system_memory_reserved", "system_cpu_reserved",
        ],
        &[],
        "arguments of programs are not taken over",
    ),
    (
        &[
            "node_labels", "node_taints", "k8s_node_labels", "openshift_node_labels", "rke2_server_node_taints",
            "rke2_agent_node_taints", "rke2_server_node_labels", "rke2_agent_node_labels",
            "openshift_node_group_name",
        ],
        &[],
        "labels and taints are not set; use kubectl afterwards",
    ),
    (
        &[
            "ingress_nginx_enabled", "metallb_enabled", "cert_manager_enabled", "metrics_server_enabled",
            "dashboard_enabled", "helm_enabled", "local_path_provisioner_enabled", "argocd_enabled",
            "gateway_api_enabled", "registry_enabled", "krew_enabled",
        ],
        &["false"],
        "landfall installs its own ingress proxy and no other add-on",
    ),
    (
        &["kube_encrypt_secret_data"],
        &["true"],
        "landfall encrypts Secrets in etcd in any case",
    ),
    (
        &["kubernetes_audit", "rke2_audit_policy_enabled"],
        &["true"],
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
        &["etcd_data_dir"],
        &["/var/lib/etcd"],
        "etcd's data is in /var/lib/etcd; a disk can be mounted there",
    ),
    (
        &["cluster_name"],
        &["cluster.local"],
        "in kubespray this is the DNS domain: set clusterDomain; a name of the cluster is name",
    ),
];

/// Says whether a variable is used.
pub fn is_mapped(name: &str) -> bool {
    MAPPED.iter().any(|(_, names)| names.contains(&name))
}

/// Says whether a variable would be reported as one that is not used.
pub fn is_told(name: &str) -> bool {
    TOLD.iter().any(|(names, _, _)| names.contains(&name))
}

/// What to do about a network under a name that no known project has.
const UNKNOWN_NETWORK: &str =
    "is it a network of the cluster? Then set podNetworkCidr or serviceCidr; landfall does not know this name";

/// Says whether a variable of another name holds a network: it may be one of the cluster's.
fn is_unknown_network(name: &str, value: &Value) -> bool {
    let lower = name.to_ascii_lowercase();
    let named = ["cidr", "subnet", "network"].iter().any(|word| lower.contains(word));
    named
        && !is_mapped(name)
        && !is_told(name)
        && network(value).is_some_and(|found| !OWN_NETWORKS.contains(&found.to_string().as_str()))
}

/// Beginnings of the names of settings of network plugins that landfall does not install: kubespray names them so, and others after it.
const OTHER_PLUGINS: [&str; 5] = ["calico_", "cilium_", "kube_ovn_", "kube_router_", "weave_"];
/// What to do about them.
const OTHER_PLUGIN: &str = "a setting of a network plugin that landfall does not install";

/// Returns the network plugins that the variables choose, in lower case.
fn chosen_plugins(vars: &Vars, scope: &Scope) -> Vec<String> {
    let (names, ..) = TOLD
        .iter()
        .find(|(names, ..)| names.contains(&"kube_network_plugin"))
        .copied()
        .unwrap_or_default();
    let values = names
        .iter()
        .filter_map(|name| scope.value(&vars.get(*name)?.value).ok());
    values
        .filter(|value| !is_empty(value))
        .map(|value| text(&value).to_lowercase())
        .collect()
}

/// Says whether a variable sets a network plugin of others that is used: the one that is chosen, or any where nothing says which.
fn sets_other_plugin(name: &str, value: &Value, chosen: &[String]) -> bool {
    let Some(plugin) = OTHER_PLUGINS.iter().find(|prefix| name.starts_with(**prefix)) else {
        return false;
    };
    let is_used = chosen.is_empty()
        || chosen
            .iter()
            .any(|chosen| plugin.starts_with(&chosen.replace('-', "_")));
    is_used && !is_mapped(name) && !is_told(name) && !is_empty(value) && *value != Value::Bool(false)
}

/// The defaults of `podNetworkCidr` and `serviceCidr`.
const OWN_NETWORKS: [&str; 2] = ["10.244.0.0/16", "10.96.0.0/12"];

fn network(value: &Value) -> Option<Cidr> {
    value.as_str()?.parse().ok()
}

/// Returns a value as the field takes it: DNS knows no case, and some projects write the root's dot behind a domain.
fn as_field(field: &str, value: Value) -> Value {
    match value {
        Value::String(text) if field == "clusterDomain" => {
            let text = text.strip_suffix('.').unwrap_or(&text);
            Value::String(text.to_ascii_lowercase())
        }
        value => value,
    }
}

/// Says whether the field can take the value at all.
fn fits(field: &str, value: &Value) -> bool {
    match field {
        "clusterDomain" => value.as_str().is_some_and(is_dns_name),
        _ => network(value).is_some(),
    }
}

/// Collects settings of the members of a cluster.
#[derive(Debug, Default)]
pub struct Settings {
    /// Values by field, each different one once.
    mapped: BTreeMap<&'static str, Vec<(Value, Place)>>,
    told: Vec<(String, String, &'static str)>,
}

impl Settings {
    /// Looks at the variables of one member.
    pub fn look(&mut self, vars: &Vars, scope: &Scope, faults: &mut Faults) {
        for (field, names) in MAPPED {
            for name in *names {
                let Some(var) = vars.get(*name) else { continue };
                match scope.value(&var.value) {
                    Ok(value) if is_empty(&value) => {}
                    Ok(value) => self.map(field, as_field(field, single(value)), &var.place),
                    Err(why) => faults.value(&var.place, why),
                }
            }
        }
        let chosen = chosen_plugins(vars, scope);
        for (name, var) in vars {
            let value = scope.value(&var.value).unwrap_or_default();
            if sets_other_plugin(name, &value, &chosen) {
                self.tell(name, &var.place, OTHER_PLUGIN);
            } else if is_unknown_network(name, &value) {
                self.tell(name, &var.place, UNKNOWN_NETWORK);
            }
        }
        for (names, ours, todo) in TOLD {
            for name in *names {
                let Some(var) = vars.get(*name) else { continue };
                let value = scope.value(&var.value).ok();
                let same = value
                    .as_ref()
                    .is_some_and(|v| is_empty(v) || ours.contains(&text(v).as_str()));
                if !same {
                    self.tell(name, &var.place, todo);
                }
            }
        }
    }

    fn tell(&mut self, name: &str, place: &Place, todo: &'static str) {
        if !self.told.iter().any(|(known, _, _)| known == name) {
            let Place { file, at } = place;
            self.told.push((name.to_owned(), format!("{file}: {at}"), todo));
        }
    }

    fn map(&mut self, field: &'static str, value: Value, place: &Place) {
        let values = self.mapped.entry(field).or_default();
        if !values.iter().any(|(known, _)| *known == value) {
            values.push((value, place.clone()));
        }
    }

    /// Returns the values that are used, and reports the others. Fields in `set` are the user's own and win.
    pub fn finish(self, set: &dyn Fn(&str) -> bool, faults: &mut Faults) -> Vec<(&'static str, Value, Place)> {
        if !self.told.is_empty() {
            let lines = self
                .told
                .iter()
                .map(|(name, place, todo)| format!("\n  {name} ({place}): {todo}"));
            faults.notice(format_args!(
                "variables that landfall does not follow; fields are those of cluster.yaml or of the variable landfall:{}",
                lines.collect::<String>()
            ));
        }
        let mut found = vec![];
        for (field, values) in self.mapped.into_iter().filter(|(field, _)| !set(field)) {
            // A part of a value has a variable of its own sometimes, such as the first bytes of a network.
            let (mut whole, parts): (Vec<_>, Vec<_>) = values.into_iter().partition(|(value, _)| fits(field, value));
            if whole.is_empty() {
                for (_, place) in parts {
                    faults.value(
                        &place,
                        format_args!("cannot be taken over as {field}; set landfall.{field}"),
                    );
                }
                continue;
            }
            let (value, place) = whole.remove(0);
            for (_, other) in &whole {
                faults.value(
                    other,
                    format_args!(
                        "differs from {}: {}; a cluster has one {field}: set landfall.{field}",
                        place.file, place.at
                    ),
                );
            }
            found.push((field, value, place));
        }
        found
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Returns the only element of a list of one, as rke2 does.
fn single(value: Value) -> Value {
    match value {
        Value::Array(mut items) if items.len() == 1 => items.remove(0),
        other => other,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_ascii_lowercase(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;
    use std::sync::Arc;

    /// Looks at these variables; returns what is taken over and what is told.
    fn look(text: &str) -> (String, String) {
        let mut faults = Faults::default();
        let Value::Object(map) = document::parse(text).unwrap().value else {
            panic!("a mapping");
        };
        let vars = crate::yaml::vars(&map, &"f".into(), "");
        let scope = Scope::new(
            map.into_iter().collect(),
            crate::Keys::default(),
            Arc::default(),
            vec![],
        );
        let mut settings = Settings::default();
        settings.look(&vars, &scope, &mut faults);
        let mapped = settings.finish(&|field| field == "clusterDomain", &mut faults);
        let mapped: Vec<_> = mapped
            .iter()
            .map(|(field, value, _)| format!("{field}={value}"))
            .collect();
        let problems: Vec<_> = faults.found().iter().map(|d| d.what.clone()).collect();
        (mapped.join(" "), faults.take_notices().join("") + &problems.join(""))
    }

    #[test]
    fn settings_are_used_reported_or_ignored() {
        for (_, names) in MAPPED.iter().take(2) {
            for name in *names {
                let (mapped, told) = look(&format!("{name}: 10.1.0.0/16"));
                assert!(
                    mapped.ends_with("=\"10.1.0.0/16\"") && told.is_empty(),
                    "{name}: {mapped} {told}"
                );
            }
        }
        for (names, ours, todo) in TOLD {
            for name in *names {
                let (_, told) = look(&format!("{name}: something"));
                assert!(told.contains(&format!("{name} (f: {name}): {todo}")), "{name}: {told}");
                for same in ours.iter().chain(&["''"]) {
                    assert_eq!(look(&format!("{name}: {same}")).1, "", "{name}: {same}");
                }
            }
        }
        assert_eq!(
            look("rke2_cluster_cidr: [10.1.0.0/16]").0,
            "podNetworkCidr=\"10.1.0.0/16\""
        );
        assert_eq!(look("dns_domain: x.org").0, "", "the user's own field wins");
        assert_eq!(
            look("dns_domain: x.org\ncluster_domain: y.org").1,
            "",
            "differences of it too"
        );
        // kubeasz writes the root's dot, and some write part of a network into a variable of its own.
        let field = |name, value: &str| as_field(name, Value::from(value));
        assert_eq!(field("clusterDomain", "ITE.local."), "ite.local");
        let (mapped, told) = look("service_subnet: 10.96.0\nservice_cidr: 10.97.0.0/16");
        assert_eq!((mapped.as_str(), told.as_str()), ("serviceCidr=\"10.97.0.0/16\"", ""));
        assert!(
            look("pod_cidr: 10.97")
                .1
                .contains("cannot be taken over as podNetworkCidr")
        );
        let (mapped, told) = look("my_pods_subnet: 10.97.0.0/16");
        assert!(
            mapped.is_empty() && told.contains("my_pods_subnet (f: my_pods_subnet): is it a network"),
            "{told}"
        );
        let (_, told) = look("cilium_hubble: true\ncalico_x: 1\nweave_y:\nkube_network_plugin: cilium");
        assert!(
            told.contains("cilium_hubble (f: cilium_hubble): a setting of a network plugin"),
            "{told}"
        );
        assert!(!told.contains("calico_x") && !told.contains("weave_y"), "{told}");
        assert!(look("calico_x: 1").1.contains("calico_x"));
        assert_eq!(look("cilium_x: 1\nkube_network_plugin: flannel").1, "");
        assert_eq!(look("lan_network: eth0\nlab_subnet: 10.244.0.0/16").1, "");
        assert!(
            look("kube_pods_subnet: 10.1.0.0/16\nCLUSTER_CIDR: 10.2.0.0/16")
                .1
                .contains("differs from f: kube_pods_subnet")
        );
    }
}
