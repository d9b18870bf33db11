//! The effects of controllers and kubelets on objects, computed at each read: states of Nodes, pods, roll-outs, endpoints.

use super::State;
use landfall_core::name::NodeName;
use serde_json::{Value, json};
use std::sync::Arc;

/// Says whether a Node, as read, is Ready.
pub(super) fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// Says whether an object has all these labels.
pub(super) fn matches(labels: &Value, wanted: &Value) -> bool {
    let Some(wanted) = wanted.as_object() else { return false };
    !wanted.is_empty() && wanted.iter().all(|(key, value)| &labels[key] == value)
}

impl State {
    /// Reads all objects of a kind, with what controllers say about them.
    pub(super) fn read_all(&self, at: usize, resource: &str) -> Vec<Value> {
        let store = &self.clusters[at].store;
        match resource {
            "nodes" => store.all(resource).map(|node| self.node(at, node)).collect(),
            "pods" => self.pods(at).to_vec(),
            "discovery.k8s.io/endpointslices" => self.slices(at),
            "apps/daemonsets" | "apps/deployments" => {
                let pods = self.pods(at);
                store
                    .all(resource)
                    .map(|object| workload(object, &pods, self, at))
                    .collect()
            }
            _ => store.all(resource).cloned().collect(),
        }
    }

    fn node(&self, at: usize, object: &Value) -> Value {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let found = self.named(name);
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let cluster = &self.clusters[at];
        let network = cluster.store.all("apps/daemonsets");
        let has_network = network
            .into_iter()
            .any(|d| d["metadata"]["namespace"] == "kube-flannel");
        let ready = has_network
            && found.is_some_and(|(node, machine)| {
                let conf = machine.text("/etc/kubernetes/kubelet.conf");
                self.runs(node, "kubelet.service") && conf.contains(&cluster.ca) && conf.contains(uid)
            });
        let address = found
            .map(|(_, machine)| machine.address.to_string())
            .unwrap_or_default();
        let mut node = object.clone();
        node["status"] = json!({
            "addresses": [{ "type": "InternalIP", "address": address }, { "type": "Hostname", "address": name }],
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
            "nodeInfo": { "kubeletVersion": self.kubelet_version(name), "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "",
                "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "" },
        });
        node
    }

    /// The version that a machine's kubelet was started with: its program says it in its second line.
    fn kubelet_version(&self, name: &str) -> String {
        let active = self
            .named(name)
            .map(|(_, m)| m.text("/run/systemd/active/kubelet.service"));
        active
            .filter(|v| !v.is_empty())
            .map_or_else(|| "unknown".to_owned(), |v| v.trim().to_owned())
    }

    /// Returns all pods. They are worked out once for each question: one about many probes looks at them often.
    pub(super) fn pods(&self, at: usize) -> Arc<[Value]> {
        let mut known = self.pods.borrow_mut();
        let pods = known.entry(at).or_insert_with(|| self.work_out_pods(at).into());
        Arc::clone(pods)
    }

    fn work_out_pods(&self, at: usize) -> Vec<Value> {
        let nodes: Vec<Value> = self.read_all(at, "nodes");
        let store = &self.clusters[at].store;
        let mut pods = Vec::new();
        for (number, object) in store.all("apps/daemonsets").enumerate() {
            for (place, node) in nodes.iter().enumerate().filter(|(_, n)| tolerates(object, n)) {
                pods.push(pod(object, node, place, number));
            }
        }
        for (number, object) in store.all("apps/deployments").enumerate() {
            let fit: Vec<_> = nodes
                .iter()
                .enumerate()
                .filter(|(_, n)| is_ready(n) && tolerates(object, n))
                .collect();
            let replicas = usize::try_from(object["spec"]["replicas"].as_u64().unwrap_or(1)).unwrap_or(0);
            for replica in 0..replicas {
                let Some((place, node)) = fit.get(replica % fit.len().max(1)) else {
                    break;
                };
                pods.push(pod(object, node, *place, 100 + number * 10 + replica));
            }
        }
        pods
    }

    fn slices(&self, at: usize) -> Vec<Value> {
        let services = self.clusters[at].store.all("services");
        services.map(|service| self.slice(at, service)).collect()
    }

    fn slice(&self, at: usize, service: &Value) -> Value {
        let meta = &service["metadata"];
        let pods = self.pods(at);
        let endpoints = pods.iter().filter(|pod| is_behind(pod, service)).map(
            |pod| json!({ "addresses": [pod["status"]["podIP"]], "conditions": { "ready": is_container_ready(pod) } }),
        );
        let endpoints: Vec<Value> = endpoints.collect();
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": format!("{}-1", meta["name"].as_str().unwrap_or_default()), "namespace": meta["namespace"],
                "labels": { "kubernetes.io/service-name": meta["name"] } },
            "endpoints": endpoints, "ports": service["spec"]["ports"] })
    }

    /// Says whether a ready pod is behind a Service.
    pub(super) fn has_endpoints(&self, at: usize, namespace: &str, name: &str) -> bool {
        let service = self.clusters[at].store.get("services", namespace, name);
        service.is_some_and(|service| {
            self.pods(at)
                .iter()
                .any(|pod| is_behind(pod, service) && is_container_ready(pod))
        })
    }

    /// Containers of a machine: id and labels, as containerd knows them.
    pub(super) fn containers(&self, node: &NodeName) -> Vec<(String, Value)> {
        let mut containers = Vec::new();
        if self.runs_etcd(node) {
            let labels = json!({ "io.kubernetes.container.name": "etcd", "io.kubernetes.pod.namespace": "kube-system",
                "io.kubernetes.pod.name": format!("etcd-{node}") });
            containers.push((format!("etcd-of-{node}"), labels));
        }
        let Some(at) = self.cluster_of(node) else {
            return containers;
        };
        for pod in self.pods(at).iter() {
            let status = &pod["status"]["containerStatuses"][0];
            let id = status["containerID"]
                .as_str()
                .unwrap_or_default()
                .trim_start_matches("containerd://");
            if pod["spec"]["nodeName"] == node.as_str() && status["ready"] == true {
                let labels = json!({ "io.kubernetes.container.name": status["name"],
                    "io.kubernetes.pod.namespace": pod["metadata"]["namespace"], "io.kubernetes.pod.name": pod["metadata"]["name"] });
                containers.push((id.to_owned(), labels));
            }
        }
        containers
    }
}

fn is_container_ready(pod: &Value) -> bool {
    pod["status"]["containerStatuses"][0]["ready"] == true
}

fn is_behind(pod: &Value, service: &Value) -> bool {
    pod["metadata"]["namespace"] == service["metadata"]["namespace"]
        && matches(&pod["metadata"]["labels"], &service["spec"]["selector"])
}

fn tolerates(object: &Value, node: &Value) -> bool {
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let tolerations = object["spec"]["template"]["spec"]["tolerations"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let tolerated = |taint: &Value| {
        let all = |t: &Value| t["operator"] == "Exists" && t["key"].is_null();
        tolerations.iter().any(|t| all(t) || t["key"] == taint["key"])
    };
    taints.iter().all(tolerated)
}

fn pod(object: &Value, node: &Value, place: usize, number: usize) -> Value {
    let (meta, template) = (&object["metadata"], &object["spec"]["template"]);
    let node_name = node["metadata"]["name"].as_str().unwrap_or_default();
    let name = format!("{}-{number}-{place}", meta["name"].as_str().unwrap_or_default());
    let ip = if template["spec"]["hostNetwork"] == true {
        node["status"]["addresses"][0]["address"].clone()
    } else {
        let range = node["spec"]["podCIDR"].as_str().unwrap_or_default();
        let base = range.rsplit_once('.').map_or("10.0.0", |(base, _)| base);
        json!(format!("{base}.{}", number % 250 + 2))
    };
    let container = &template["spec"]["containers"][0]["name"];
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": meta["namespace"], "labels": template["metadata"]["labels"] },
        "spec": { "nodeName": node_name, "containers": [{ "name": container }] },
        "status": { "phase": "Running", "podIP": ip, "containerStatuses": [{ "name": container, "ready": is_ready(node),
            "restartCount": 0, "image": "", "imageID": "", "containerID": format!("containerd://{node_name}-{name}") }] } })
}

fn workload(object: &Value, pods: &[Value], state: &State, at: usize) -> Value {
    let meta = &object["metadata"];
    let of = |pod: &&Value| {
        pod["metadata"]["namespace"] == meta["namespace"]
            && matches(&pod["metadata"]["labels"], &object["spec"]["selector"]["matchLabels"])
    };
    let (mut all, mut ready) = (0u64, 0u64);
    for pod in pods.iter().filter(of) {
        all += 1;
        ready += u64::from(pod["status"]["containerStatuses"][0]["ready"] == true);
    }
    let generation = meta["generation"].as_u64().unwrap_or(1);
    // Controllers work only while a machine runs them.
    let observed = if state.has_quorum(at) { generation } else { 0 };
    let mut object = object.clone();
    object["status"] = if object["kind"] == "DaemonSet" {
        json!({ "observedGeneration": observed, "desiredNumberScheduled": all, "currentNumberScheduled": all,
            "updatedNumberScheduled": all, "numberReady": ready, "numberMisscheduled": 0 })
    } else {
        json!({ "observedGeneration": observed, "replicas": all, "updatedReplicas": all, "readyReplicas": ready })
    };
    object
}
