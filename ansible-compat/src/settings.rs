//! Variables of other projects that configure the cluster. They are either used, or reported with what to do instead.
//!
//! Networks are used. Of the others, values that equal landfall's own are ignored, those that are known ([`known`]) are reported with what to do,
//! and all that is left is named: no variable of a member is passed over in silence.

mod known;
mod own;

use crate::connect::NODE_NAMES;
use crate::faults::{Faults, Place};
use crate::groups::Vars;
use crate::template::Scope;
pub use known::is_mapped;
use known::{HOSTNAMES, MAPPED, OTHER_PLUGIN, Told, told};
use landfall_core::name::is_dns_name;
use landfall_core::spec::Cidr;
pub use own::is_ansibles;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What to do about a network under a name that no known project has.
const UNKNOWN_NETWORK: &str =
    "is it a network of the cluster? Then set podNetworkCidr or serviceCidr; landfall does not know this name";

/// Says whether a variable of another name holds a network: it may be one of the cluster's.
fn is_unknown_network(name: &str, value: &Value) -> bool {
    let lower = name.to_ascii_lowercase();
    let named = ["cidr", "subnet", "network", "ip_range"]
        .iter()
        .any(|word| lower.contains(word));
    // These are of other things.
    let of_others = ["wireguard", "ceph", "vpn", "nfs", "metallb"]
        .iter()
        .any(|word| lower.contains(word));
    named && !of_others && network(value).is_some_and(|found| !OWN_NETWORKS.contains(&found.to_string().as_str()))
}

/// Says whether a variable would be reported, or has a name of a kind that settings of clusters have.
pub fn is_told(name: &str, value: &Value) -> bool {
    let has_plugin = OTHER_PLUGINS.iter().any(|prefix| name.starts_with(prefix));
    !is_own(name) && (known::is_of_a_kind(name) || has_plugin || is_unknown_network(name, value))
}

/// Says whether landfall reads a variable itself, or none but Ansible does.
fn is_own(name: &str) -> bool {
    is_ansibles(name)
        || name.starts_with("landfall")
        || ["ip", "access_ip"].contains(&name)
        || NODE_NAMES.contains(&name)
}

/// What to do about settings inside a mapping.
const INSIDE: &str = "settings inside a mapping are not read: set the fields of landfall";

/// Says whether a mapping has keys that are settings of a cluster.
fn holds_settings(value: &Value) -> bool {
    let Value::Object(map) = value else { return false };
    map.iter().any(|(key, value)| {
        is_mapped(&known::plain(key)) || known::has_name(key) || key.ends_with("-arg") || holds_settings(value)
    })
}

/// Beginnings of the names of settings of network plugins that landfall does not install: kubespray names them so, and others after it.
const OTHER_PLUGINS: [&str; 5] = ["calico_", "cilium_", "kube_ovn_", "kube_router_", "weave_"];

/// Returns the network plugins that the variables choose, in lower case.
fn chosen_plugins(vars: &Vars, scope: &Scope) -> Vec<String> {
    let values = vars
        .iter()
        .filter(|(name, _)| known::chooses_plugin(name))
        .filter_map(|(_, var)| scope.value(&var.value).ok());
    values
        .filter(|value| !is_empty(value))
        .map(|value| text(&value).replace('-', "_"))
        .collect()
}

/// What a variable of a member is for landfall.
enum Meaning {
    /// It changes nothing.
    Same,
    /// It is not followed, and this is to be done.
    Told(&'static str),
    /// Nothing reads it.
    Unread,
}

fn meaning(name: &str, value: Option<&Value>, told: Option<Told>, chosen: &[String], host: &str) -> Meaning {
    let value = value.unwrap_or(&Value::Null);
    let plugin = OTHER_PLUGINS.iter().find(|prefix| name.starts_with(**prefix));
    if let Some(prefix) = plugin {
        let is_used = chosen.is_empty() || chosen.iter().any(|chosen| prefix.starts_with(chosen.as_str()));
        if !is_used || *value == Value::Bool(false) {
            return Meaning::Unread;
        }
        if !known::has_name(name) {
            return Meaning::Told(OTHER_PLUGIN);
        }
    }
    if HOSTNAMES.contains(&name) {
        return if value == host {
            Meaning::Same
        } else {
            Meaning::Told(HOSTNAME)
        };
    }
    match told {
        Some((ours, _)) if ours.contains(&text(value).as_str()) => Meaning::Same,
        Some((_, todo)) => Meaning::Told(todo),
        None if is_unknown_network(name, value) => Meaning::Told(UNKNOWN_NETWORK),
        None if holds_settings(value) => Meaning::Told(INSIDE),
        None => Meaning::Unread,
    }
}

/// What is said about a domain whose variable may mean another one.
const DOMAIN: &str =
    "taken over as clusterDomain, the domain of Services; if it is another domain, set landfall.clusterDomain";
/// What to do about a part of a domain.
const NO_DOMAIN: &str = "one label is no domain of a cluster; set landfall.clusterDomain";

/// What to do about a name of the machine that is not the inventory's.
const HOSTNAME: &str = "nodes have the inventory's names; another one: landfall_node_name";

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

/// Names of the cluster's domain that mean nothing else in the projects that have them.
const PLAIN_DOMAINS: [&str; 4] = [
    "dns_domain",
    "CLUSTER_DNS_DOMAIN",
    "kubernetes_dns_domain",
    "kubernetes_cluster_domain",
];

/// What is to be done about variables, and the file that sets them.
type Key = (&'static str, Rc<str>);

/// Collects settings of the members of a cluster.
#[derive(Debug, Default)]
pub struct Settings {
    /// Values by field, each different one once.
    mapped: BTreeMap<&'static str, Vec<(Value, Place)>>,
    /// Names with their places, by what is to be done and by file, in the order in which they were met.
    told: Vec<(Key, Vec<(String, String)>)>,
    /// What the table says of each name that was met: machines of a group have the same ones.
    known: BTreeMap<String, Option<Told>>,
    /// Names of variables that nothing reads, by file.
    unread: BTreeMap<String, BTreeSet<String>>,
}

impl Settings {
    /// Looks at the variables of one member.
    pub fn look(&mut self, host: &str, vars: &Vars, scope: &Scope, faults: &mut Faults) {
        for (field, names) in MAPPED {
            for name in *names {
                let Some(var) = vars.get(*name) else { continue };
                match scope.value(&var.value) {
                    Ok(value) if is_empty(&value) => {}
                    Ok(value) => self.map_named(field, name, as_field(field, single(value)), &var.place),
                    Err(why) => faults.value(&var.place, why),
                }
            }
        }
        let chosen = chosen_plugins(vars, scope);
        for (name, var) in vars.iter().filter(|(name, _)| !is_own(name) && !is_mapped(name)) {
            let value = scope.value(&var.value).ok();
            if value.as_ref().is_some_and(is_empty) {
                continue;
            }
            let told = *self.known.entry(name.clone()).or_insert_with(|| told(name));
            match meaning(name, value.as_ref(), told, &chosen, host) {
                Meaning::Same => {}
                Meaning::Told(todo) => self.tell(name, &var.place, todo),
                Meaning::Unread => {
                    let names = self.unread.entry(var.place.file.to_string()).or_default();
                    names.insert(name.clone());
                }
            }
        }
    }

    fn tell(&mut self, name: &str, place: &Place, todo: &'static str) {
        if self
            .told
            .iter()
            .any(|(_, names)| names.iter().any(|(known, _)| known == name))
        {
            return;
        }
        let (key, named) = ((todo, Rc::clone(&place.file)), (name.to_owned(), place.at.clone()));
        match self.told.iter_mut().find(|(known, _)| *known == key) {
            Some((_, names)) => names.push(named),
            None => self.told.push((key, vec![named])),
        }
    }

    /// Takes a value over. Not everybody who writes `cluster_domain` means the domain of Services: it is said, and one label is none.
    fn map_named(&mut self, field: &'static str, name: &str, value: Value, place: &Place) {
        if field == "clusterDomain" && !PLAIN_DOMAINS.contains(&name) && value != "cluster.local" {
            let is_one_label = value.as_str().is_some_and(|text| !text.contains('.'));
            self.tell(name, place, if is_one_label { NO_DOMAIN } else { DOMAIN });
            if is_one_label {
                return;
            }
        }
        self.map(field, value, place);
    }

    fn map(&mut self, field: &'static str, value: Value, place: &Place) {
        let values = self.mapped.entry(field).or_default();
        if !values.iter().any(|(known, _)| *known == value) {
            values.push((value, place.clone()));
        }
    }

    /// Returns the names of variables that nothing reads, by file.
    pub fn take_unread(&mut self) -> BTreeMap<String, BTreeSet<String>> {
        std::mem::take(&mut self.unread)
    }

    /// Returns the values that are used, and reports the others. Fields in `set` are the user's own and win.
    pub fn finish(mut self, set: &dyn Fn(&str) -> bool, faults: &mut Faults) -> Vec<(&'static str, Value, Place)> {
        if set("clusterDomain") {
            self.told.retain(|((todo, _), _)| ![DOMAIN, NO_DOMAIN].contains(todo));
        }
        if !self.told.is_empty() {
            let lines = self.told.iter().map(|((todo, file), names)| match names.as_slice() {
                [(name, at)] => format!("\n  {name} ({file}: {at}): {todo}"),
                names => {
                    let names: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
                    format!("\n  {} ({file}): {todo}", names.join(", "))
                }
            });
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
        looked(text).0
    }

    /// The same, and the names of variables that nothing reads.
    fn looked(text: &str) -> ((String, String), String) {
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
        settings.look("h", &vars, &scope, &mut faults);
        let unread: Vec<_> = settings.take_unread().into_values().flatten().collect();
        let mapped = settings.finish(&|field| field == "clusterDomain", &mut faults);
        let mapped: Vec<_> = mapped
            .iter()
            .map(|(field, value, _)| format!("{field}={value}"))
            .collect();
        let problems: Vec<_> = faults.found().iter().map(|d| d.what.clone()).collect();
        let said = faults.take_notices().join("") + &problems.join("");
        ((mapped.join(" "), said), unread.join(" "))
    }

    #[test]
    fn names_of_one_kind_have_one_advice() {
        let networks = look("k8s_pods_subnet: 10.1.0.0/16\nK8S_SERVICE_IP_RANGE: 10.2.0.0/16");
        assert_eq!(networks.0, "podNetworkCidr=\"10.1.0.0/16\" serviceCidr=\"10.2.0.0/16\"");
        assert_eq!(look("K8S_POD_NETWORK: 10.1.0.0/16").0, "podNetworkCidr=\"10.1.0.0/16\"");
        for (names, todo) in [
            ("external_dns_servers dns_servers", "set upstreamDns"),
            (
                "kubernetes_apiserver KUBE_APISERVER apiserver_master_addr",
                "every node balances to all API servers itself",
            ),
            (
                "kubernetes_master_cluster_port api_server_bind_port",
                "the API server has port 6443",
            ),
            (
                "pod_infra_container_image infra_image pause_image coredns_image_tag",
                "images come from the bundle",
            ),
            ("release_marker CalicoVersion", "the bundle decides the versions"),
            ("kubelet scheduler apiserver controllerManager", "arguments of programs"),
            ("k3s_node_ip INTERFACE_NAME", "set ip or access_ip"),
            ("k3s_master_taint", "control planes take workloads when"),
            ("ServiceNodePortRange", "NodePorts are 30000 to 32767"),
            ("K8S_NODE_MAXPODS", "arguments of programs"),
            ("K8S_NODE_PODCIDRMASK node_cidr_mask_size", "every node takes a /24"),
            (
                "ClusterDns coredns_service_ip",
                "the cluster's DNS has the tenth address",
            ),
            (
                "rke2_server_data_path docker_storage_path",
                "images are in /var/lib/containerd",
            ),
            ("etcd_data_directory", "etcd's data is in"),
            ("dns_mode", "landfall installs CoreDNS"),
            ("ClusterDomain my_cluster_domain", "set clusterDomain"),
            ("CertSANs apiServerCertSans", "set apiServerCertSans"),
        ] {
            for name in names.split(' ') {
                let (_, told) = look(&format!("{name}: something"));
                assert!(told.contains(&format!("{name} (f: {name}): {todo}")), "{name}: {told}");
            }
        }
        for same in [
            "dns_mode: coredns",
            "ServiceNodePortRange: 30000-32767",
            "etcd_data_directory: /var/lib/etcd",
            "K8S_NODE_PODCIDRMASK: 24",
        ] {
            assert_eq!(look(same).1, "", "{same}");
        }
        assert_eq!(look("vm_image: debian\nproxy: x\nnfs_data_dir: /srv").1, "");
    }

    #[test]
    fn advice_is_for_names_that_it_fits() {
        for (names, todo) in [
            (
                "enable_dashboard install_helm metrics_server_enabled deploy_netchecker enable_metrics",
                "landfall installs its own ingress",
            ),
            (
                "nvidia_accelerator_enabled install_aws_csi_driver kubelet_csr_approver_enabled",
                "landfall installs its own ingress",
            ),
            (
                "kube_network_cilium_hubble_enabled enable_multus macvlan_interface",
                "a setting of a network plugin",
            ),
            ("keepalived_interface vip_iface keepalived_vip", "every node balances"),
            (
                "kubelet_max_pods kube_oidc_url oidc_issuer_url kubelet_eviction_hard",
                "arguments of programs",
            ),
            ("api_interface k3s_node_ip", "set ip or access_ip"),
        ] {
            for name in names.split(' ') {
                let (_, told) = look(&format!("{name}: something"));
                assert!(told.contains(&format!("{name} (f: {name}): {todo}")), "{name}: {told}");
            }
        }
        for name in "cgroup_enabled enable_legacy_iptables deploy_environment enable_runc install_runc enable_nat_default_gateway \
                     ntp_servers_enabled hosts_entries_enabled enable_firewalld etcd_kubeadm_enabled enable_kube_master kubelet_dir \
                     kubelet_download_url kubeadm_temp_folder kubelet_deployment_type ceph_public_interface flat_network_interface \
                     vlan_network_interface ping_interface keepalived_auth_pass lb_vip_password vip_ip_range"
            .split_whitespace()
        {
            let (said, unread) = looked(&format!("{name}: something"));
            assert_eq!(said.1, "", "{name}");
            assert!(unread.contains(name), "{name} is silent: {unread}");
            assert!(is_told(name, &Value::Null), "{name} in a file that is not read is silent");
        }
        assert_eq!(look("enable_dashboard: false\nenable_flannel: true").1, "");
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
        for (names, ours, todo) in known::TOLD {
            for name in names.iter().filter(|name| !name.contains('*')) {
                let (_, told) = look(&format!("{name}: something"));
                assert!(told.contains(&format!("{name} (f: {name}): {todo}")), "{name}: {told}");
                for same in ours.iter().chain(&["''"]) {
                    assert_eq!(look(&format!("{name}: {same}")).1, "", "{name}: {same}");
                }
            }
        }
        // Not every name of this kind is Ansible's.
        let (_, told) = look(
            "ansible_service_broker_install: true\nansible_service_broker_local_registry_whitelist: [x]\nansible_host: y",
        );
        assert!(
            told.contains(
                "ansible_service_broker_install, ansible_service_broker_local_registry_whitelist (f): landfall installs its own"
            ),
            "{told}"
        );
        let (_, told) = look("k8s_api_vip: 10.0.0.9\nharbor_vip: 10.0.0.8\nmetallb_enabled: false\nKUBE_VERSION: 1.30");
        assert!(
            told.contains("harbor_vip, k8s_api_vip (f): every node balances"),
            "{told}"
        );
        assert!(told.contains("KUBE_VERSION") && !told.contains("metallb"), "{told}");
        assert!(
            look("kube: {cluster: {pod_cidr: 10.1.0.0/16}}")
                .1
                .contains("inside a mapping")
        );
        // The test's user has set the field.
        assert_eq!(look("cluster_domain: local").1, "");
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
