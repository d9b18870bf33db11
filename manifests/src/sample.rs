//! The sample (nginx behind a Service and an Ingress) and the probe pods that verify looks from.

use crate::dns::spread;
use crate::ingress::rule;
use crate::ingress_rights::{Allowed, ingress_allow_objects};
use crate::{ClusterLayout, RenderError, image};
use landfall_core::bundle_index::BundleIndex;
use landfall_core::layout::{SAMPLE_NAMESPACE, SAMPLE_PORT};
use landfall_core::plan::objects::{CERTIFICATE_FOR, GENERATED};
use landfall_core::spec::ClusterSpec;
use landfall_core::spec::ingress::SecretScope;
use serde_json::{Value, json};

/// NodePort of the sample, the one of the scenario.
pub const SAMPLE_NODE_PORT: u16 = 30080;

/// A namespace of its own, nginx with two replicas on two nodes, its Service of type NodePort, its Ingress with TLS.
pub fn sample_objects(
    spec: &ClusterSpec,
    index: &BundleIndex,
    cluster: &ClusterLayout,
) -> Result<Vec<Value>, RenderError> {
    let labels = json!({ "app.kubernetes.io/name": "nginx" });
    let meta = json!({ "name": "nginx", "namespace": SAMPLE_NAMESPACE, "labels": labels });
    let schedulable = cluster
        .members
        .iter()
        .filter(|m| !m.control_plane || m.schedulable)
        .count();
    let mut objects = vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SAMPLE_NAMESPACE } }),
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
            "spec": {
                "replicas": schedulable.clamp(1, 2),
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "topologySpreadConstraints": [spread(&labels)],
                        "containers": [{
                            "name": "nginx", "image": image(index, "nginx")?, "imagePullPolicy": "Never",
                            "ports": [{ "containerPort": 80, "name": "http" }],
                            "readinessProbe": { "httpGet": { "path": "/", "port": SAMPLE_PORT }, "periodSeconds": 1 },
                            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
                        }],
                    },
                },
            } }),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": { "type": "NodePort", "selector": labels,
                "ports": [{ "name": "http", "port": SAMPLE_PORT, "targetPort": SAMPLE_PORT, "nodePort": SAMPLE_NODE_PORT }] } }),
    ];
    if spec.ingress.enabled {
        objects.extend(entrance(spec));
    }
    Ok(objects)
}

/// The sample's Ingress, with TLS by a certificate of its own, which is made when it is applied, and the right to read that one. Plain
/// requests are served too.
fn entrance(spec: &ClusterSpec) -> Vec<Value> {
    let host = &spec.sample_host;
    let secret = format!("{host}-tls");
    let mut ingress = rule("nginx", SAMPLE_NAMESPACE, host, "nginx", json!({ "name": "http" }));
    ingress["metadata"]["annotations"] = json!({ "ingress.landfall.dev/ssl-redirect": "false" });
    ingress["spec"]["tls"] = json!([{ "hosts": [host], "secretName": secret }]);
    let certificate = json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": secret, "namespace": SAMPLE_NAMESPACE, "annotations": { CERTIFICATE_FOR: host } },
        "data": { "tls.crt": GENERATED, "tls.key": GENERATED } });
    let mut objects = vec![certificate];
    if spec.ingress.secrets == SecretScope::Named {
        objects.extend(ingress_allow_objects(&Allowed::Named {
            namespace: SAMPLE_NAMESPACE.to_owned(),
            secrets: vec![secret],
            config_maps: vec![],
        }));
    }
    objects.push(ingress);
    objects
}

/// One idle pod on every node, from inside which verify looks.
pub fn probe_objects(index: &BundleIndex) -> Result<Vec<Value>, RenderError> {
    let labels = json!({ "app.kubernetes.io/name": "landfall-probe" });
    Ok(vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "landfall-system" } }),
        json!({ "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": { "name": "landfall-probe", "namespace": "landfall-system", "labels": labels },
            "spec": {
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "automountServiceAccountToken": false,
                        "tolerations": [{ "operator": "Exists" }],
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{
                            "name": "probe", "image": image(index, "landfall-probe")?, "imagePullPolicy": "Never",
                            "resources": { "requests": { "cpu": "1m", "memory": "8Mi" } },
                            "securityContext": {
                                "runAsUser": 65534, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                                "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
                            },
                        }],
                    },
                },
            } }),
    ])
}
