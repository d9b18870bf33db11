//! The ingress proxy: DaemonSet on the host network with one capability, its rights, class, Service and dashboard Ingress; for landfall's
//! own clusters, and as a file for others.

use crate::ingress_rights::{self, NAME, labels, meta};
use crate::network::{api_environment, field};
use crate::{ClusterLayout, RenderError, documents, image};
use landfall_core::bundle_index::BundleIndex;
use landfall_core::layout::{self, DASHBOARD, INGRESS_NAMESPACE};
use landfall_core::plan::objects::GENERATED;
use landfall_core::spec::ingress::{DashboardAuth, SecretScope};
use landfall_core::spec::{ClusterSpec, IngressSpec};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// The proxy's program in its image.
const PROGRAM: &str = "/landfall-ingress";
/// Where the kubelet's questions are answered: in the pod's own emptyDir, because a port of the node would be answered by whichever of
/// two pods has it.
const PROBE_DIR: &str = "/run/landfall-probe";
/// Where the dashboard's login is, when there is one: a mounted Secret.
const LOGIN_DIR: &str = "/etc/landfall-dashboard";
/// Start of the file for other clusters.
const STANDALONE_HEAD: &str = "\
# landfall-ingress for a cluster that landfall did not install. Rendered by landfall-manifests; a test holds that it is current.
# Put the image where your nodes find it and its name at `image:`, then: kubectl apply -f deploy.yaml
# It listens on :80, :443 and :8080 of every node. It is not the default class: Ingresses name it by `ingressClassName: landfall`.
# Open files: a Pod has containerd's limit (`LimitNOFILE`); 33,024 serve 16,384 connections, 1,024 serve 448 (README: Open files).
# Secrets: none can be read until you say so, for a namespace, in force at once:
#   kubectl -n NAMESPACE create rolebinding landfall-ingress-secrets --clusterrole=landfall-ingress-secrets \\
#     --serviceaccount=kube-system:landfall-ingress
# Settings are the `args` of the DaemonSet; the pods are replaced one by one, without a lost request. Beside those that stand there:
#   --trusted-cidrs=10.0.0.0/8,...   proxies in front whose X-Forwarded-* are believed
#   --proxy-protocol                 their connections may begin with a PROXY header
#   --tls-min-version=1.3, --tls-ciphers=TLS_AES_128_GCM_SHA256,...
#   --workers=2                      threads that serve; else one for each processor
#   --access-log=json                a line for every request; off: none
#   --no-dashboard                   :8080 answers for health and metrics alone
#   --cluster-cidrs=10.244.0.0/16,...  networks of Pods, Services and nodes: may read :8080/metrics, and no annotation may name them
#   --cluster-dns=10.96.0.10         the cluster's DNS: auth-url and mirror-target may name hosts outside the cluster
# The dashboard is closed until it has a password; this gives it one, at once:
#   kubectl -n kube-system create secret generic landfall-dashboard --type=kubernetes.io/basic-auth \\
#     --from-literal=username=landfall --from-literal=password=\"$(head -c 16 /dev/urandom | base64)\"
# `landfall-ingress --help` names all.
";

/// How the proxy is placed in a cluster.
struct Placement<'a> {
    ingress: &'a IngressSpec,
    image: String,
    pull_policy: &'static str,
    /// How the API is reached; empty for what the kubelet says.
    api: Vec<Value>,
    /// Ingresses without a class are this one's.
    default_class: bool,
    /// Networks of Pods, Services and nodes, as far as they are known.
    cluster: Vec<String>,
    /// The cluster's DNS, where it is known: it answers for names outside the cluster in annotations.
    dns: Option<Ipv4Addr>,
}

/// Everything the ingress proxy needs.
pub fn ingress_objects(
    spec: &ClusterSpec,
    index: &BundleIndex,
    layout: &ClusterLayout,
) -> Result<Vec<Value>, RenderError> {
    let mut networks = vec![spec.pod_network_cidr.to_string(), spec.service_cidr.to_string()];
    networks.extend(layout.members.iter().map(|member| member.address.to_string()));
    Ok(objects(&Placement {
        ingress: &spec.ingress,
        image: image(index, NAME)?,
        pull_policy: "Never",
        api: api_environment(),
        default_class: true,
        cluster: networks,
        dns: Some(spec.service_cidr.nth(10)),
    }))
}

/// The same for a cluster that landfall did not install, as one YAML file: `ingress/deploy.yaml`.
pub fn standalone_ingress() -> Result<String, RenderError> {
    let objects = objects(&Placement {
        ingress: &IngressSpec::default(),
        image: format!("{NAME}:{}", env!("CARGO_PKG_VERSION")),
        pull_policy: "IfNotPresent",
        api: Vec::new(),
        default_class: false,
        cluster: Vec::new(),
        dns: None,
    });
    Ok(format!("{STANDALONE_HEAD}{}", documents(&objects)?))
}

fn objects(placement: &Placement<'_>) -> Vec<Value> {
    let ingress = placement.ingress;
    let meta = meta();
    let mut objects = ingress_rights::usual();
    if ingress.secrets == SecretScope::Cluster {
        objects.push(ingress_rights::everywhere());
    }
    // Before the pods that mount it.
    objects.extend(login(placement));
    let mut class = json!({ "name": "landfall" });
    if placement.default_class {
        class["annotations"] = json!({ "ingressclass.kubernetes.io/is-default-class": "true" });
    }
    objects.extend([
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": class,
            "spec": { "controller": "landfall.dev/ingress" } }),
        json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta,
            "spec": {
                "selector": { "matchLabels": labels() },
                // The new pod takes the old one's listeners before that one goes.
                // A new pod that becomes ready and then dies does not cost the node its ingress: the old pod still runs until then.
                "minReadySeconds": 5,
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
                "template": { "metadata": { "labels": labels() }, "spec": pod(placement) },
            } }),
    ]);
    objects.push(json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta,
        "spec": { "type": "NodePort", "selector": labels(), "ports": [
            { "name": "http", "port": 80, "targetPort": ingress.http_port },
            { "name": "https", "port": 443, "targetPort": ingress.https_port },
        ] } }));
    if ingress.dashboard {
        objects.extend(dashboard(ingress));
    }
    objects
}

/// The dashboard's login, which is made when it is applied; in other clusters nobody would make it.
fn login(placement: &Placement<'_>) -> Option<Value> {
    let ingress = placement.ingress;
    let wanted = placement.default_class && ingress.dashboard && ingress.dashboard_auth == DashboardAuth::Password;
    wanted.then(|| {
        json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth", "metadata": dashboard_meta(),
            "data": { "username": GENERATED, "password": GENERATED } })
    })
}

/// The dashboard's Service and Ingress. The Service has no address and no port on nodes: who came by one would have a node's address, and
/// nodes may read the metrics.
fn dashboard(ingress: &IngressSpec) -> [Value; 2] {
    let port = json!({ "name": "dashboard", "port": 8080, "targetPort": ingress.dashboard_port });
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": dashboard_meta(),
        "spec": { "clusterIP": "None", "selector": labels(), "ports": [port] } });
    let port = json!({ "name": "dashboard" });
    let rule = rule(DASHBOARD, INGRESS_NAMESPACE, &ingress.dashboard_host, DASHBOARD, port);
    [service, rule]
}

fn dashboard_meta() -> Value {
    json!({ "name": DASHBOARD, "namespace": INGRESS_NAMESPACE, "labels": labels() })
}

fn pod(placement: &Placement<'_>) -> Value {
    let mut environment = placement.api.clone();
    environment.extend([
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("NODE_NAME", "spec.nodeName"),
        field("NODE_ADDRESS", "status.hostIP"),
        // Kubernetes puts the node's zone on pods (KEP-4742, on by default since 1.35); without it the variable is empty.
        field("NODE_ZONE", "metadata.labels['topology.kubernetes.io/zone']"),
    ]);
    let probe = |question: &str, period: u32, failures: u32| {
        json!({
        "exec": { "command": [PROGRAM, "probe", question, format!("--socket={PROBE_DIR}/probe.sock")] },
        "periodSeconds": period, "timeoutSeconds": 3, "failureThreshold": failures })
    };
    json!({
        "hostNetwork": true,
        "dnsPolicy": "Default",
        "priorityClassName": "system-node-critical",
        "serviceAccountName": NAME,
        "tolerations": [{ "operator": "Exists" }],
        "terminationGracePeriodSeconds": 30,
        // No ports: on the host's network they would become host ports, and keep the new pod from the node of the old one.
        "containers": [{
            "name": "proxy",
            "image": placement.image,
            "imagePullPolicy": placement.pull_policy,
            "args": arguments(placement),
            "env": environment,
            // Each question starts a process: often only until the answer is yes. The API may be away for long at a start.
            "startupProbe": probe("ready", 1, 3600),
            "readinessProbe": probe("ready", 5, 1),
            "livenessProbe": probe("live", 20, 3),
            "resources": { "requests": { "cpu": "50m", "memory": "20Mi" } },
            "securityContext": {
                "runAsUser": 0,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "volumeMounts": [
                { "name": "handover", "mountPath": layout::INGRESS_DIR },
                { "name": "probe", "mountPath": PROBE_DIR },
                { "name": "dashboard-login", "mountPath": LOGIN_DIR, "readOnly": true },
            ],
        }],
        "volumes": [
            { "name": "handover", "hostPath": { "path": layout::INGRESS_DIR, "type": "DirectoryOrCreate" } },
            { "name": "probe", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
            // Optional: a login that is not there closes the dashboard, and never keeps a node from its ingress.
            { "name": "dashboard-login", "secret": { "secretName": DASHBOARD, "optional": true, "defaultMode": 0o400 } },
        ],
    })
}

/// What the proxy's program is told. A setting without a value of its own is left to the program's default.
fn arguments(placement: &Placement<'_>) -> Vec<String> {
    let ingress = placement.ingress;
    let mut arguments = vec![
        format!("--http-address=0.0.0.0:{}", ingress.http_port),
        format!("--https-address=0.0.0.0:{}", ingress.https_port),
        format!("--admin-address=0.0.0.0:{}", ingress.dashboard_port),
        "--ingress-class=landfall".to_owned(),
        format!("--dashboard-host={}", ingress.dashboard_host),
        format!("--handover-directory={}", layout::INGRESS_DIR),
        format!("--probe-socket={PROBE_DIR}/probe.sock"),
        format!("--tls-min-version={}", ingress.tls_min_version.number()),
        format!("--access-log={}", ingress.access_log.name()),
    ];
    let list = |name: &str, values: Vec<String>| (!values.is_empty()).then(|| format!("--{name}={}", values.join(",")));
    let networks = ingress.trusted_cidrs.iter().map(ToString::to_string).collect();
    let suites = ingress
        .tls_ciphers
        .iter()
        .map(|suite| suite.name().to_owned())
        .collect();
    arguments.extend(list("trusted-cidrs", networks));
    arguments.extend((!ingress.dashboard).then(|| "--no-dashboard".to_owned()));
    arguments.push(match ingress.dashboard_auth {
        DashboardAuth::Password => format!("--dashboard-auth-file={LOGIN_DIR}"),
        DashboardAuth::None => "--dashboard-auth=none".to_owned(),
    });
    arguments.extend((ingress.secrets == SecretScope::Cluster).then(|| "--secrets=cluster".to_owned()));
    arguments.extend(list("cluster-cidrs", placement.cluster.clone()));
    arguments.extend(placement.dns.map(|server| format!("--cluster-dns={server}")));
    arguments.extend(ingress.proxy_protocol.then(|| "--proxy-protocol".to_owned()));
    arguments.extend(list("tls-ciphers", suites));
    arguments.extend(ingress.workers.map(|workers| format!("--workers={workers}")));
    arguments
}

/// An Ingress with one host that leads to one Service.
pub(crate) fn rule(name: &str, namespace: &str, host: &str, service: &str, port: Value) -> Value {
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": name, "namespace": namespace },
        "spec": { "ingressClassName": "landfall", "rules": [{ "host": host, "http": { "paths": [{
            "path": "/", "pathType": "Prefix",
            "backend": { "service": { "name": service, "port": port } },
        }] } }] } })
}
