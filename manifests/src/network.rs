//! The pod network: flannel, and containerd's template for the CNI configuration.

use crate::{ClusterLayout, RenderError, config_digest, image};
use landfall_core::bundle_index::BundleIndex;
use landfall_core::layout;
use landfall_core::spec::{Backend, ClusterSpec, ProxyMode};
use serde_json::{Value, json};

/// Environment by which a host-network pod reaches the API through its node's balancer, also before kube-proxy works.
pub(crate) fn api_environment() -> Vec<Value> {
    vec![
        json!({ "name": "KUBERNETES_SERVICE_HOST", "value": "127.0.0.1" }),
        json!({ "name": "KUBERNETES_SERVICE_PORT", "value": layout::API_BALANCER_PORT.to_string() }),
    ]
}

pub(crate) fn field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}

/// flannel's backend with its settings. `MTU` is that of the packets around those of pods: flannel takes VXLAN's headers off again
/// (pkg/backend/vxlan). host-gw has no settings; there the bridge's MTU alone counts.
fn backend(spec: &ClusterSpec, cluster: &ClusterLayout) -> Value {
    let network = &spec.pod_network;
    match network.backend {
        Backend::Vxlan => json!({
            "Type": "vxlan",
            "Port": network.vxlan_port,
            "MTU": u32::from(cluster.pod_mtu) + u32::from(network.backend.overhead()),
        }),
        Backend::HostGw => json!({ "Type": "host-gw" }),
    }
}

/// flannel's namespace, rights, configuration and DaemonSet.
pub fn flannel_objects(
    spec: &ClusterSpec,
    index: &BundleIndex,
    cluster: &ClusterLayout,
) -> Result<Vec<Value>, RenderError> {
    let namespace = "kube-flannel";
    let net_conf = json!({
        "Network": spec.pod_network_cidr,
        "EnableNFTables": spec.proxy_mode == ProxyMode::Nftables,
        "Backend": backend(spec, cluster),
    });
    let data = json!({ "net-conf.json": net_conf.to_string() });
    let mut environment = api_environment();
    environment.extend([
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("HOST_IP", "status.hostIP"),
    ]);
    let labels = json!({ "app.kubernetes.io/name": "flannel" });
    Ok(vec![
        json!({ "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": namespace, "labels": { "pod-security.kubernetes.io/enforce": "privileged" } } }),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "flannel", "namespace": namespace } }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "flannel" },
            "rules": [
                { "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] },
                { "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"] },
                { "apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"] },
            ] }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": "flannel" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flannel" },
            "subjects": [{ "kind": "ServiceAccount", "name": "flannel", "namespace": namespace }] }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "kube-flannel-cfg", "namespace": namespace },
            "data": data }),
        json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "flannel", "namespace": namespace },
            "spec": {
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels, "annotations": config_digest(&data) },
                    "spec": {
                        "hostNetwork": true,
                        "priorityClassName": "system-node-critical",
                        "tolerations": [{ "operator": "Exists" }],
                        "serviceAccountName": "flannel",
                        "containers": [{
                            "name": "flannel",
                            "image": image(index, "flannel")?,
                            "imagePullPolicy": "Never",
                            // An address works for --iface too: nodes may name their interfaces differently.
                            "args": ["--ip-masq", "--kube-subnet-mgr", "--iface=$(HOST_IP)"],
                            "env": environment,
                            "resources": { "requests": { "cpu": "50m", "memory": "50Mi" } },
                            "securityContext": { "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] } },
                            "volumeMounts": [
                                { "name": "run", "mountPath": "/run/flannel" },
                                { "name": "configuration", "mountPath": "/etc/kube-flannel" },
                            ],
                        }],
                        "volumes": [
                            { "name": "run", "hostPath": { "path": "/run/flannel", "type": "DirectoryOrCreate" } },
                            { "name": "configuration", "configMap": { "name": "kube-flannel-cfg" } },
                        ],
                    },
                },
            } }),
    ])
}

/// The CNI configuration as a Go template that containerd fills in when the node gets its podCIDR.
pub fn cni_template(cluster: &ClusterLayout) -> String {
    // Addresses are kept under /run, so that a power cut frees them.
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "landfall",
  "plugins": [
    {{
      "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "mtu": {mtu},
      "ipam": {{
        "type": "host-local",
        "dataDir": "{run}/cni",
        "ranges": [{{{{range $i, $range := .PodCIDRRanges}}}}{{{{if $i}}}}, {{{{end}}}}[{{"subnet": "{{{{$range}}}}"}}]{{{{end}}}}]
      }}
    }},
    {{ "type": "portmap", "capabilities": {{ "portMappings": true }} }}
  ]
}}
"#,
        mtu = cluster.pod_mtu,
        run = layout::RUN_DIR
    )
}
