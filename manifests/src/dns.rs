//! Cluster DNS: CoreDNS with kubeadm's names, so that an administrator's tools find it.

use crate::{ClusterLayout, DnsPolicy, RenderError, config_digest, image};
use landfall_core::bundle_index::BundleIndex;
use landfall_core::spec::ClusterSpec;
use serde_json::{Value, json};

fn corefile(spec: &ClusterSpec, policy: &DnsPolicy) -> String {
    let domain = &spec.cluster_domain;
    let kubernetes = format!(
        "{domain}:53 in-addr.arpa:53 ip6.arpa:53 {{\n    errors\n    health {{\n        lameduck 5s\n    }}\n    ready\n    \
         kubernetes {domain} in-addr.arpa ip6.arpa {{\n        pods insecure\n        ttl 30\n    }}\n    prometheus :9153\n    \
         cache 30\n    loadbalance\n}}\n"
    );
    let rest = match policy {
        // A block of its own: in one block `template` runs before `kubernetes` and swallows every name.
        DnsPolicy::Closed => {
            ".:53 {\n    errors\n    template ANY ANY . {\n        rcode NXDOMAIN\n    }\n}\n".to_owned()
        }
        DnsPolicy::Forward(servers) => {
            let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
            format!(
                ".:53 {{\n    errors\n{}    cache 30\n    loop\n}}\n",
                forward(".", &servers)
            )
        }
    };
    let zones = spec.stub_zones.iter().map(|(zone, servers)| {
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        format!(
            "{zone}:53 {{\n    errors\n{}    cache 30\n}}\n",
            forward(zone, &servers)
        )
    });
    kubernetes + &zones.collect::<String>() + &rest
}

/// Returns the lines that pass questions about a zone on. By default CoreDNS asks over TCP when it was asked over TCP, and some servers answer
/// over UDP alone (`prefer_udp` of its plugin forward; cut-off answers are asked for again over TCP all the same).
fn forward(zone: &str, servers: &[String]) -> String {
    format!(
        "    forward {zone} {} {{\n        prefer_udp\n    }}\n",
        servers.join(" ")
    )
}

/// CoreDNS: rights, Corefile, two replicas on two nodes, Service at the tenth address.
pub fn dns_objects(
    spec: &ClusterSpec,
    index: &BundleIndex,
    cluster: &ClusterLayout,
) -> Result<Vec<Value>, RenderError> {
    let labels = json!({ "k8s-app": "kube-dns" });
    let meta = |name: &str| json!({ "name": name, "namespace": "kube-system", "labels": labels });
    let replicas = cluster.members.len().min(2);
    let data = json!({ "Corefile": corefile(spec, &cluster.dns) });
    Ok(vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("coredns") }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "system:coredns" },
            "rules": [
                { "apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ] }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": "system:coredns" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns" },
            "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }] }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("coredns"),
            "data": data }),
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("coredns"),
            "spec": {
                "replicas": replicas,
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels, "annotations": config_digest(&data) },
                    "spec": {
                        "priorityClassName": "system-cluster-critical",
                        "serviceAccountName": "coredns",
                        "tolerations": [
                            { "key": "CriticalAddonsOnly", "operator": "Exists" },
                            { "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" },
                            leaves_after(NODE_GONE_SECONDS, "not-ready"),
                            leaves_after(NODE_GONE_SECONDS, "unreachable"),
                        ],
                        "topologySpreadConstraints": [spread(&labels)],
                        "containers": [{
                            "name": "coredns",
                            "image": image(index, "coredns")?,
                            "imagePullPolicy": "Never",
                            "args": ["-conf", "/etc/coredns/Corefile"],
                            "resources": { "limits": { "memory": "170Mi" }, "requests": { "cpu": "50m", "memory": "70Mi" } },
                            "ports": [
                                { "containerPort": 53, "name": "dns", "protocol": "UDP" },
                                { "containerPort": 53, "name": "dns-tcp", "protocol": "TCP" },
                                { "containerPort": 9153, "name": "metrics", "protocol": "TCP" },
                            ],
                            "livenessProbe": { "httpGet": { "path": "/health", "port": 8080 }, "initialDelaySeconds": 60,
                                "timeoutSeconds": 5 },
                            "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1,
                                "timeoutSeconds": 1 },
                            "securityContext": {
                                "allowPrivilegeEscalation": false,
                                "capabilities": { "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] },
                                "readOnlyRootFilesystem": true,
                            },
                            "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }],
                        }],
                        "dnsPolicy": "Default",
                        "volumes": [{ "name": "config", "configMap": { "name": "coredns" } }],
                    },
                },
            } }),
        json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": {
                "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS" } },
            "spec": {
                "clusterIP": spec.service_cidr.nth(10),
                "selector": labels,
                "ports": [
                    { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
                    { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53 },
                    { "name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153 },
                ],
            } }),
    ])
}

/// How long a pod of CoreDNS stays bound to a Node that is not Ready or does not answer. Without this Kubernetes gives each pod 300 s
/// (plugin DefaultTolerationSeconds), in which a pod that was placed on a machine just switched off keeps a rollout waiting.
const NODE_GONE_SECONDS: u32 = 30;

/// Tolerates a taint that Kubernetes puts on a Node that has a problem, for that many seconds.
fn leaves_after(seconds: u32, problem: &str) -> Value {
    json!({ "key": format!("node.kubernetes.io/{problem}"), "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": seconds })
}

/// At most one more pod on a node than on any other.
pub(crate) fn spread(labels: &Value) -> Value {
    json!({ "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "nodeTaintsPolicy": "Honor", "labelSelector": { "matchLabels": labels } })
}
