//! The files that the administrator of the manual install has prepared: kubeadm's configuration, units, flannel, the sample.
//!
//! Kubernetes objects are JSON, which kubeadm and kubectl read as YAML. The exceptions for nodes that are containers are those of
//! landfall's profile `lab`; the rest is what kubeadm does by default.

use super::Materials;
use crate::lab::{Machine, Purpose};
use serde_json::{Value, json};

/// Service network; nodes without a default route need a route to it.
pub const SERVICES: &str = "10.96.0.0/12";
/// Pod network.
const PODS: &str = "10.244.0.0/16";
/// NodePort of the sample.
pub const NODE_PORT: u16 = 30080;
/// Bootstrap token and certificate key. No secrets: the machines live for minutes and are reachable from this host alone.
const TOKEN: &str = "handin.0123456789abcdef";
const CERTIFICATE_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn documents(values: &[Value]) -> String {
    let texts: Vec<_> = values.iter().map(ToString::to_string).collect();
    texts.join("\n---\n")
}

fn list(items: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}

fn registration(machine: &Machine) -> Value {
    json!({
        "name": machine.name,
        "criSocket": "unix:///run/containerd/containerd.sock",
        "imagePullPolicy": "Never",
        "taints": [],
        "kubeletExtraArgs": [{ "name": "node-ip", "value": machine.address }],
        "ignorePreflightErrors": [
            "SystemVerification", "NumCPU", "Swap", "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables",
        ],
    })
}

/// kubeadm's configuration for the first control plane.
pub fn init(machine: &Machine, materials: &Materials) -> String {
    documents(&[
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "InitConfiguration",
            "bootstrapTokens": [{ "token": TOKEN }],
            "certificateKey": CERTIFICATE_KEY,
            "localAPIEndpoint": { "advertiseAddress": machine.address },
            "nodeRegistration": registration(machine),
        }),
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration",
            "kubernetesVersion": materials.kubernetes,
            "imageRepository": materials.repository,
            "controlPlaneEndpoint": format!("{}:6443", machine.address),
            "networking": { "podSubnet": PODS, "serviceSubnet": SERVICES },
            "etcd": { "local": { "imageTag": materials.tag("etcd") } },
            "dns": { "imageTag": materials.tag("coredns") },
        }),
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "failCgroupV1": false, "cgroupDriver": "cgroupfs", "failSwapOn": false, "oomScoreAdj": 0,
            "imageGCHighThresholdPercent": 100, "localStorageCapacityIsolation": false, "enforceNodeAllocatable": ["pods"],
            "evictionHard": { "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%" },
        }),
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "mode": "nftables", "clusterCIDR": PODS, "oomScoreAdj": 0,
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        }),
    ])
}

/// kubeadm's configuration for a machine that joins the cluster of `first`.
pub fn join(machine: &Machine, first: &Machine) -> String {
    let mut join = json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "JoinConfiguration",
        "discovery": { "bootstrapToken": {
            "apiServerEndpoint": format!("{}:6443", first.address), "token": TOKEN, "unsafeSkipCAVerification": true,
        } },
        "nodeRegistration": registration(machine),
    });
    if machine.purpose == Purpose::ControlPlane {
        join["controlPlane"] = json!({
            "certificateKey": CERTIFICATE_KEY,
            "localAPIEndpoint": { "advertiseAddress": machine.address },
        });
    }
    documents(&[join])
}

/// CNI configuration of a node.
pub fn cni(pod_cidr: &str) -> String {
    // VXLAN takes 50 bytes of a 1500-byte frame.
    json!({
        "cniVersion": "1.0.0", "name": "lab",
        "plugins": [
            { "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "mtu": 1450,
              "ipam": { "type": "host-local", "ranges": [[{ "subnet": pod_cidr }]] } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
    .to_string()
}

/// flannel over VXLAN.
pub fn flannel(materials: &Materials) -> String {
    let namespace = "kube-flannel";
    let labels = json!({ "app": "flannel" });
    let net_conf = json!({ "Network": PODS, "EnableNFTables": true, "Backend": { "Type": "vxlan" } });
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    list(&[
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
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kube-flannel-cfg", "namespace": namespace },
            "data": { "net-conf.json": net_conf.to_string() } }),
        json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "flannel", "namespace": namespace },
            "spec": { "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": {
                "hostNetwork": true,
                "priorityClassName": "system-node-critical",
                "tolerations": [{ "operator": "Exists", "effect": "NoSchedule" }],
                "serviceAccountName": "flannel",
                "containers": [{
                    "name": "flannel", "image": materials.image("flannel"), "imagePullPolicy": "Never",
                    "args": ["--ip-masq", "--kube-subnet-mgr", "--iface=eth0"],
                    "env": [field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace")],
                    "securityContext": { "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] } },
                    "volumeMounts": [
                        { "name": "run", "mountPath": "/run/flannel" },
                        { "name": "cfg", "mountPath": "/etc/kube-flannel/" },
                    ],
                }],
                "volumes": [
                    { "name": "run", "hostPath": { "path": "/run/flannel", "type": "DirectoryOrCreate" } },
                    { "name": "cfg", "configMap": { "name": "kube-flannel-cfg" } },
                ],
            } } } }),
    ])
}

/// nginx with two replicas behind a NodePort.
pub fn sample(materials: &Materials) -> String {
    let labels = json!({ "app": "nginx" });
    let container = json!({ "name": "nginx", "image": materials.image("nginx"), "imagePullPolicy": "Never",
        "ports": [{ "containerPort": 80 }] });
    list(&[
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "nginx" },
            "spec": { "replicas": 2, "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } } } }),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "nginx" },
            "spec": { "type": "NodePort", "selector": labels, "ports": [{ "port": 80, "nodePort": NODE_PORT }] } }),
    ])
}
