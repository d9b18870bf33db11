//! The ingress proxy: DaemonSet on the host network with one capability, its rights, class, Service and dashboard Ingress.

use crate::network::{api_environment, field};
use crate::{RenderError, image};
use landfall_core::bundle_index::BundleIndex;
use landfall_core::spec::ClusterSpec;
use serde_json::{Value, json};

/// Name of the proxy's objects.
pub(crate) const NAME: &str = "landfall-ingress";

/// Everything the ingress proxy needs.
pub fn ingress_objects(spec: &ClusterSpec, index: &BundleIndex) -> Result<Vec<Value>, RenderError> {
    let labels = json!({ "app.kubernetes.io/name": NAME });
    let meta = json!({ "name": NAME, "namespace": "kube-system", "labels": labels });
    let mut environment = api_environment();
    environment.extend([
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("NODE_NAME", "spec.nodeName"),
        field("NODE_ADDRESS", "status.hostIP"),
    ]);
    let read = |groups: &[&str], resources: &[&str]| json!({ "apiGroups": groups, "resources": resources, "verbs": ["get", "list", "watch"] });
    Ok(vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": NAME },
            "rules": [
                read(&["networking.k8s.io"], &["ingresses", "ingressclasses"]),
                read(&[""], &["services"]),
                read(&["discovery.k8s.io"], &["endpointslices"]),
                { "apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["patch", "update"] },
            ] }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": NAME },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME },
            "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": "kube-system" }] }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta,
            "rules": [
                read(&[""], &["pods"]),
                { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update", "patch"] },
            ] }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME },
            "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": "kube-system" }] }),
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": { "name": "landfall", "annotations": { "ingressclass.kubernetes.io/is-default-class": "true" } },
            "spec": { "controller": "landfall.dev/ingress" } }),
        json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta,
            "spec": {
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "hostNetwork": true,
                        "dnsPolicy": "Default",
                        "priorityClassName": "system-node-critical",
                        "serviceAccountName": NAME,
                        "tolerations": [{ "operator": "Exists" }],
                        "terminationGracePeriodSeconds": 30,
                        "containers": [{
                            "name": "proxy",
                            "image": image(index, NAME)?,
                            "imagePullPolicy": "Never",
                            "args": [
                                format!("--http-address=0.0.0.0:{}", spec.ingress.http_port),
                                format!("--admin-address=0.0.0.0:{}", spec.ingress.dashboard_port),
                                "--ingress-class=landfall",
                                format!("--dashboard-host={}", spec.ingress.dashboard_host),
                            ],
                            "env": environment,
                            "readinessProbe": { "httpGet": { "path": "/readyz", "port": spec.ingress.dashboard_port },
                                "periodSeconds": 1 },
                            "livenessProbe": { "httpGet": { "path": "/healthz", "port": spec.ingress.dashboard_port },
                                "periodSeconds": 10, "failureThreshold": 3 },
                            "resources": { "requests": { "cpu": "50m", "memory": "20Mi" } },
                            "securityContext": {
                                "runAsUser": 0,
                                "allowPrivilegeEscalation": false,
                                "readOnlyRootFilesystem": true,
                                "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
                                "seccompProfile": { "type": "RuntimeDefault" },
                            },
                        }],
                    },
                },
            } }),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": { "type": "NodePort", "selector": labels, "ports": [
                { "name": "http", "port": 80, "targetPort": spec.ingress.http_port },
                { "name": "dashboard", "port": 8080, "targetPort": spec.ingress.dashboard_port },
            ] } }),
        rule(
            "landfall-dashboard",
            "kube-system",
            &spec.ingress.dashboard_host,
            NAME,
            json!({ "name": "dashboard" }),
        ),
    ])
}

/// An Ingress with one host that leads to one Service.
pub(crate) fn rule(name: &str, namespace: &str, host: &str, service: &str, port: Value) -> Value {
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": name, "namespace": namespace },
        "spec": { "ingressClassName": "landfall", "rules": [{ "host": host, "http": { "paths": [{
            "path": "/", "pathType": "Prefix",
            "backend": { "service": { "name": service, "port": port } },
        }] } }] } })
}
