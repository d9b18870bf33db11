//! The ingress proxy's account and what it may. Of Secrets and ConfigMaps nothing, until somebody says which: for a namespace, for all, or
//! for those that are named.

use landfall_core::layout::INGRESS_NAMESPACE;
use serde_json::{Value, json};

/// Name of the proxy's objects.
pub(crate) const NAME: &str = "landfall-ingress";
/// API group of Roles.
const GROUP: &str = "rbac.authorization.k8s.io";
/// The ClusterRole that lets the proxy read all Secrets and ConfigMaps where it is bound, and its bindings. The proxy's Events name it.
const SECRETS: &str = "landfall-ingress-secrets";
/// Role and binding for those that are named.
const NAMED: &str = "landfall-ingress-named-secrets";

/// Secrets and ConfigMaps that the proxy may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// All of the cluster.
    Everywhere,
    /// All of a namespace, also those that come later.
    Namespace(String),
    /// These of a namespace.
    Named {
        /// The namespace.
        namespace: String,
        /// Names of Secrets.
        secrets: Vec<String>,
        /// Names of ConfigMaps.
        config_maps: Vec<String>,
    },
}

/// The objects that allow it, whatever was allowed before.
pub fn ingress_allow_objects(allowed: &Allowed) -> Vec<Value> {
    match allowed {
        Allowed::Everywhere => vec![reader(), everywhere()],
        Allowed::Namespace(namespace) => vec![reader(), binding(SECRETS, namespace, "ClusterRole", SECRETS)],
        Allowed::Named {
            namespace,
            secrets,
            config_maps,
        } => {
            let rule = |(resource, names): (&str, &Vec<String>)| json!({ "apiGroups": [""], "resources": [resource], "resourceNames": names, "verbs": ["get", "list", "watch"] });
            let rules = [("secrets", secrets), ("configmaps", config_maps)].into_iter();
            let rules: Vec<Value> = rules.filter(|(_, names)| !names.is_empty()).map(rule).collect();
            let role = json!({ "apiVersion": format!("{GROUP}/v1"), "kind": "Role",
                "metadata": { "name": NAMED, "namespace": namespace, "labels": labels() }, "rules": rules });
            vec![role, binding(NAMED, namespace, "Role", NAMED)]
        }
    }
}

/// The account and what it needs: nothing that the proxy does not do, which the proxy's own tests hold.
pub(crate) fn usual() -> Vec<Value> {
    let read = |groups: &[&str], resources: &[&str]| json!({ "apiGroups": groups, "resources": resources, "verbs": ["list", "watch"] });
    let version = format!("{GROUP}/v1");
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta() }),
        json!({ "apiVersion": version, "kind": "ClusterRole", "metadata": { "name": NAME },
            "rules": [
                read(&["networking.k8s.io"], &["ingresses", "ingressclasses"]),
                read(&[""], &["namespaces", "services"]),
                read(&["discovery.k8s.io"], &["endpointslices"]),
                { "apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["patch"] },
                { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"] },
            ] }),
        cluster_binding(NAME),
        json!({ "apiVersion": version, "kind": "Role", "metadata": meta(),
            "rules": [
                { "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] },
                { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "patch"] },
            ] }),
        binding(NAME, INGRESS_NAMESPACE, "Role", NAME),
        reader(),
    ]
}

/// Labels of the proxy's objects and pods.
pub(crate) fn labels() -> Value {
    json!({ "app.kubernetes.io/name": NAME })
}

/// Metadata of the proxy's own objects.
pub(crate) fn meta() -> Value {
    json!({ "name": NAME, "namespace": INGRESS_NAMESPACE, "labels": labels() })
}

/// Lets the proxy read every Secret and ConfigMap of the cluster.
pub(crate) fn everywhere() -> Value {
    cluster_binding(SECRETS)
}

/// Grants nothing by itself.
fn reader() -> Value {
    json!({ "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": { "name": SECRETS, "labels": labels() },
        "rules": [{ "apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["get", "list", "watch"] }] })
}

fn binding(name: &str, namespace: &str, kind: &str, role: &str) -> Value {
    json!({ "apiVersion": format!("{GROUP}/v1"), "kind": "RoleBinding",
        "metadata": { "name": name, "namespace": namespace, "labels": labels() },
        "roleRef": { "apiGroup": GROUP, "kind": kind, "name": role }, "subjects": subjects() })
}

/// Binds the ClusterRole of this name everywhere.
fn cluster_binding(name: &str) -> Value {
    json!({ "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": name }, "subjects": subjects() })
}

fn subjects() -> Value {
    json!([{ "kind": "ServiceAccount", "name": NAME, "namespace": INGRESS_NAMESPACE }])
}
