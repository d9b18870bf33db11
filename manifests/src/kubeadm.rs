//! kubeadm's configuration (kubeadm.k8s.io/v1beta4) with the defaults of a careful administrator, and what the API server mounts.

use crate::{ClusterLayout, MemberLayout, RenderError, config_digest, documents, tag};
use landfall_core::bundle_index::BundleIndex;
use landfall_core::layout;
use landfall_core::spec::{ClusterSpec, Profile, ProxyMode};
use serde_json::{Value, json};

/// Where API server audit logs lie on a control plane.
const AUDIT_LOG_DIR: &str = "/var/log/kubernetes";
/// How long kubeadm asks the API server for one thing. By itself it takes a minute, and 4 minutes for the API server to come up (app/constants, 1.37):
/// an API server that answers late, or waits for etcd on other founders, had no more time for the first request (seen on a busy machine, 2026-12-01).
const API_CALL: &str = "4m0s";
/// Where containerd serves the CRI.
const CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";

/// Configuration for `kubeadm init` on the founder, and on those that found the cluster together with it.
pub fn kubeadm_init(
    spec: &ClusterSpec,
    index: &BundleIndex,
    cluster: &ClusterLayout,
    node: &MemberLayout,
) -> Result<String, RenderError> {
    let mut init = init_configuration(spec, node);
    if !cluster.founders().is_empty() {
        init["patches"] = json!({ "directory": layout::KUBEADM_PATCHES_DIR });
    }
    let cluster = cluster_configuration(spec, index, cluster)?;
    documents(&[init, cluster, kubelet(spec), kube_proxy(spec)])
}

/// The patch by which kubeadm starts etcd with the list of all founders; `None` when one founds the cluster alone. kubeadm itself lists
/// the own member only. Of two equal flags etcd takes the last one (embed/config.go, 3.7: Go's flag package). A patch and not
/// `extraArgs`, because kubeadm stores those for the control planes that join later (kubeadm#1303).
///
/// etcd makes the ids of members and cluster of their URLs and of the token alone: `run` makes sure that what an earlier founding left
/// never fits this one. Between two clusters, their authorities do.
pub fn etcd_patch(spec: &ClusterSpec, cluster: &ClusterLayout, run: u64) -> Option<String> {
    let founders = cluster.founders();
    if founders.is_empty() {
        return None;
    }
    let list: Vec<String> = founders
        .iter()
        .map(|m| format!("{}=https://{}:2380", m.name, m.address))
        .collect();
    let flags = [
        format!("--initial-cluster={}", list.join(",")),
        format!("--initial-cluster-token={}-{run}", spec.name),
    ];
    let add = |flag: &String| json!({ "op": "add", "path": "/spec/containers/0/command/-", "value": flag });
    let patch: Vec<Value> = flags.iter().map(add).collect();
    Some(format!("{}\n", json!(patch)))
}

fn init_configuration(spec: &ClusterSpec, node: &MemberLayout) -> Value {
    json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "timeouts": { "kubernetesAPICall": API_CALL },
        // kubeadm always makes a bootstrap token. It is not used, so it gets the shortest lifetime.
        "bootstrapTokens": [{ "ttl": "1m0s" }],
        "localAPIEndpoint": local_endpoint(node),
        "nodeRegistration": registration(spec, node),
    })
}

/// What `kubeadm kubeconfig user` reads on a control plane. It names the node's own address: kubeadm would look for the default route, which
/// an air gap lacks. Nothing in it depends on the other members, so that no node waits for another's new file when one joins.
pub fn credential_config(spec: &ClusterSpec, index: &BundleIndex, node: &MemberLayout) -> Result<String, RenderError> {
    documents(&[
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            "localAPIEndpoint": local_endpoint(node),
            "nodeRegistration": { "name": node.name, "criSocket": CRI_SOCKET },
        }),
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "clusterName": spec.name,
            "kubernetesVersion": index.kubernetes_version,
            "controlPlaneEndpoint": control_plane_endpoint(),
        }),
    ])
}

/// Configuration by which a kubelet joins, on workers and on further control planes alike: discovery by a kubeconfig file that carries
/// the joining identity. The kubelet of a control plane bootstraps through the node's balancer: its own API server, which kubeadm would
/// have it ask, is not there yet, and its retries cost 10 s (measured 2026-11-24).
pub fn kubelet_join(spec: &ClusterSpec, node: &MemberLayout) -> Result<String, RenderError> {
    let mut join = join_configuration(spec, node);
    if node.control_plane && !node.schedulable {
        // kubeadm adds the taint when it marks the control plane; until then nothing may be scheduled here either.
        join["nodeRegistration"]["taints"] =
            json!([{ "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" }]);
    }
    documents(&[join])
}

/// Configuration for the phases of `kubeadm join` that make a control plane of a node whose kubelet has joined.
pub fn control_plane_join(spec: &ClusterSpec, node: &MemberLayout) -> Result<String, RenderError> {
    let mut join = join_configuration(spec, node);
    join["controlPlane"] = json!({
        "localAPIEndpoint": local_endpoint(node),
    });
    documents(&[join])
}

fn local_endpoint(node: &MemberLayout) -> Value {
    json!({ "advertiseAddress": node.address.to_string(), "bindPort": layout::API_SERVER_PORT })
}

/// kubeadm writes it into kubeconfigs, and takes an address as well as a name (util/endpoint.go, ParseHostPort). The name is among the
/// certificate's, and in the hosts file for people; nothing that must start at boot depends on that file.
fn control_plane_endpoint() -> String {
    format!("127.0.0.1:{}", layout::API_BALANCER_PORT)
}

fn join_configuration(spec: &ClusterSpec, node: &MemberLayout) -> Value {
    json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "JoinConfiguration",
        "discovery": { "file": { "kubeConfigPath": layout::JOIN_KUBECONFIG } },
        // kubeadm waits 2 minutes for a new etcd member to start (app/constants, 1.37). That ended a join on a busy machine (2026-11-28),
        // and a member whose first four starts fail has no more time: the kubelet pauses for 10, 20, 40 and 80 s.
        "timeouts": { "etcdAPICall": "5m0s", "kubernetesAPICall": API_CALL },
        "nodeRegistration": registration(spec, node),
    })
}

fn registration(spec: &ClusterSpec, node: &MemberLayout) -> Value {
    let mut registration = json!({
        "name": node.name,
        "criSocket": CRI_SOCKET,
        "imagePullPolicy": "Never",
        // kubeadm itself gives the name only where the host has another at the join (phases/kubelet/flags.go), and a host that is renamed
        // later, by cloud-init or DHCP, would be no node any more.
        "kubeletExtraArgs": arguments(&[
            ("node-ip", &node.address.to_string()),
            ("hostname-override", node.name.as_str()),
        ]),
    });
    if node.control_plane && node.schedulable {
        registration["taints"] = json!([]);
    }
    if spec.profile == Profile::Lab {
        registration["ignorePreflightErrors"] = json!([
            "SystemVerification",
            "NumCPU",
            "Swap",
            "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables"
        ]);
    }
    registration
}

fn arguments(list: &[(&str, &str)]) -> Value {
    list.iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect()
}

fn cluster_configuration(
    spec: &ClusterSpec,
    index: &BundleIndex,
    cluster: &ClusterLayout,
) -> Result<Value, RenderError> {
    let mut names = vec![spec.control_plane_endpoint.clone(), "127.0.0.1".to_owned()];
    names.extend(
        cluster
            .members
            .iter()
            .filter(|m| m.control_plane)
            .map(|m| m.address.to_string()),
    );
    names.extend(spec.api_server_cert_sans.iter().cloned());
    let audit_log = format!("{AUDIT_LOG_DIR}/audit.log");
    let policy = format!("{}/audit-policy.yaml", layout::API_SERVER_DIR);
    let encryption = format!("{}/encryption.yaml", layout::API_SERVER_DIR);
    // Rotation bounds the audit log at 1 GB: CIS 1.2.17 to 1.2.19 ask for at least 30 days, 10 files, 100 MB.
    let api_server = [
        ("profiling", "false"),
        ("tls-min-version", "VersionTLS12"),
        ("audit-policy-file", policy.as_str()),
        ("audit-log-path", audit_log.as_str()),
        ("audit-log-maxage", "30"),
        ("audit-log-maxbackup", "10"),
        ("audit-log-maxsize", "100"),
        ("encryption-provider-config", encryption.as_str()),
    ];
    let etcd = json!({ "imageRepository": index.image_repository, "imageTag": tag(index, "etcd")? });
    Ok(json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "clusterName": spec.name,
        "kubernetesVersion": index.kubernetes_version,
        "controlPlaneEndpoint": control_plane_endpoint(),
        "imageRepository": index.image_repository,
        "networking": {
            "podSubnet": spec.pod_network_cidr,
            "serviceSubnet": spec.service_cidr,
            "dnsDomain": spec.cluster_domain,
        },
        "apiServer": {
            "certSANs": names,
            "extraArgs": arguments(&api_server),
            "extraVolumes": [
                { "name": "landfall", "hostPath": layout::API_SERVER_DIR, "mountPath": layout::API_SERVER_DIR,
                  "readOnly": true, "pathType": "Directory" },
                { "name": "audit-log", "hostPath": AUDIT_LOG_DIR, "mountPath": AUDIT_LOG_DIR,
                  "pathType": "DirectoryOrCreate" },
            ],
        },
        "controllerManager": { "extraArgs": arguments(&[
            ("profiling", "false"),
            ("flex-volume-plugin-dir", "/var/lib/kubelet/volumeplugins"),
        ]) },
        "scheduler": { "extraArgs": arguments(&[("profiling", "false")]) },
        "etcd": { "local": etcd },
        "dns": { "disabled": true },
    }))
}

fn kubelet(spec: &ClusterSpec) -> Value {
    let mut kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "clusterDomain": spec.cluster_domain,
        "clusterDNS": [spec.service_cidr.nth(10)],
        "resolvConf": layout::RESOLV_CONF,
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        "readOnlyPort": 0,
        "rotateCertificates": true,
        "seccompDefault": true,
        "protectKernelDefaults": true,
        "tlsMinVersion": "VersionTLS12",
        "cgroupDriver": "systemd",
    });
    if spec.profile == Profile::Lab {
        // Each exception and why a container needs it is in the README's table.
        let lab = json!({
            "failCgroupV1": false,
            "cgroupDriver": "cgroupfs",
            "failSwapOn": false,
            "oomScoreAdj": 0,
            "imageGCHighThresholdPercent": 100,
            "evictionHard": { "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%" },
            "localStorageCapacityIsolation": false,
            "enforceNodeAllocatable": ["pods"],
            "protectKernelDefaults": false,
        });
        if let (Some(kubelet), Some(lab)) = (kubelet.as_object_mut(), lab.as_object()) {
            kubelet.extend(lab.clone());
        }
    }
    kubelet
}

/// What of kube-proxy's objects changes with the spec: its configuration, and the pod template's digest of it, so that pods are
/// replaced when it changes. The rest of both objects is kubeadm's (addons/proxy, 1.37). A kube-proxy that starts takes the rules of
/// the mode that it does not have away itself (cmd/kube-proxy/app, `platformCleanup`).
pub fn kube_proxy_objects(spec: &ClusterSpec) -> Result<Vec<Value>, RenderError> {
    const FOLDER: &str = "/var/lib/kube-proxy";
    let kubeconfig = documents(&[json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "default", "cluster": {
            "certificate-authority": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
            "server": layout::API_BALANCER_URL,
        } }],
        "contexts": [{ "name": "default", "context": { "cluster": "default", "namespace": "default", "user": "default" } }],
        "current-context": "default",
        "users": [{ "name": "default", "user": { "tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token" } }],
    })])?;
    let mut proxy = kube_proxy(spec);
    // kubeadm adds these two (componentconfigs/kubeproxy.go).
    proxy["bindAddress"] = json!("0.0.0.0");
    proxy["clientConnection"] = json!({ "kubeconfig": format!("{FOLDER}/kubeconfig.conf") });
    let data = json!({ "config.conf": documents(&[proxy])?, "kubeconfig.conf": kubeconfig });
    let template = json!({ "metadata": { "annotations": config_digest(&data) } });
    let meta = json!({ "name": "kube-proxy", "namespace": "kube-system" });
    Ok(vec![
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data }),
        json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta, "spec": { "template": template } }),
    ])
}

fn kube_proxy(spec: &ClusterSpec) -> Value {
    let mode = match spec.proxy_mode {
        ProxyMode::Nftables => "nftables",
        ProxyMode::Iptables => "iptables",
    };
    let mut proxy = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        // Without it, traffic from outside with static routes is not masqueraded and answers go astray (kubeadm#102).
        "clusterCIDR": spec.pod_network_cidr,
    });
    if spec.profile == Profile::Lab {
        proxy["oomScoreAdj"] = json!(0);
        proxy["conntrack"] =
            json!({ "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" });
    }
    proxy
}

/// Audit policy: who did what to which object; bodies never, because they hold secrets.
pub fn audit_policy() -> Result<String, RenderError> {
    documents(&[json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "None", "users": ["system:kube-proxy"], "verbs": ["watch"] },
            { "level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version"] },
            { "level": "None", "resources": [{ "group": "coordination.k8s.io", "resources": ["leases"] }] },
            { "level": "Metadata" },
        ],
    })])
}

/// Encryption of Secrets at rest; the agent of the first control plane fills in the key.
pub fn encryption_config() -> Result<String, RenderError> {
    documents(&[json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{
            "resources": ["secrets"],
            "providers": [
                { "secretbox": { "keys": [{ "name": "landfall-1", "secret": "${random:32}" }] } },
                { "identity": {} },
            ],
        }],
    })])
}
