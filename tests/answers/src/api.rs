//! Questions to the API server.

use crate::Rights;
use crate::script::Manner::{Careful, DryRun, Forced, Other, OtherForced};
use crate::script::{Script, nothing};
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const NAMESPACE: &str = "/api/v1/namespaces/answers";

fn configmap(data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a", "namespace": "answers" }, "data": data })
}

fn data(body: &Value) -> Value {
    json!({ "data": body["data"] })
}

/// The keys of `data` that each manager has.
fn managers(body: &Value) -> Value {
    let entries = body["metadata"]["managedFields"].as_array().into_iter().flatten();
    let keys = |entry: &Value| -> Vec<String> {
        let keys = entry["fieldsV1"]["f:data"].as_object().into_iter().flatten();
        let mut keys: Vec<String> = keys.map(|(key, _)| key.clone()).filter(|key| key != ".").collect();
        keys.sort();
        keys
    };
    let named = entries.map(|entry| (entry["manager"].as_str().unwrap_or_default().to_owned(), keys(entry)));
    json!({ "managers": named.collect::<BTreeMap<_, _>>() })
}

fn namespace() -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "answers" } })
}

/// How objects are applied, compared and shared.
pub(crate) fn objects(script: &mut Script<'_>) -> Result<()> {
    let path = format!("{NAMESPACE}/configmaps/a");
    let map = |data: Value| configmap(&data);
    let first = map(json!({ "x": "1", "y": "1" }));
    let at = |body| (path.as_str(), body);
    script.apply(
        "object 01: into a namespace that is not there",
        Forced,
        at(&first),
        nothing,
    )?;
    script.apply("object 02: a namespace", Forced, (NAMESPACE, &namespace()), nothing)?;
    script.apply("object 04: a new object", Forced, at(&first), data)?;
    script.apply("object 05: the same object again", Forced, at(&first), data)?;
    let changed = map(json!({ "x": "1", "y": "2" }));
    script.apply("object 06: a dry run of a change", DryRun, at(&changed), data)?;
    script.read("object 07: after the dry run", &path, data)?;
    let shared = map(json!({ "y": "1" }));
    script.apply("object 08: another manager sets the same", Other, at(&shared), managers)?;
    let otherwise = map(json!({ "y": "3" }));
    script.apply("object 09: another manager sets otherwise", Other, at(&otherwise), data)?;
    let less = map(json!({ "x": "1" }));
    script.apply("object 10: what another has too is left out", Forced, at(&less), data)?;
    let more = map(json!({ "x": "5", "y": "1" }));
    script.apply(
        "object 11: another manager takes a field",
        OtherForced,
        at(&more),
        managers,
    )?;
    script.apply("object 12: the field is set without force", Careful, at(&less), data)?;
    script.apply("object 13: the field is taken back", Forced, at(&first), managers)?;
    let none = map(json!({}));
    script.apply(
        "object 14: the other manager sets nothing any more",
        Other,
        at(&none),
        data,
    )?;
    script.apply("object 15: nobody sets anything any more", Forced, at(&none), data)
}

/// How objects are found and deleted.
pub(crate) fn deletion(script: &mut Script<'_>) -> Result<()> {
    let maps = format!("{NAMESPACE}/configmaps");
    let path = format!("{maps}/a");
    script.create("object 16: made although it is there", &maps, &configmap(&json!({})))?;
    script.delete("object 17: deleted", &path)?;
    script.delete("object 18: deleted twice", &path)?;
    script.read("object 19: read after that", &path, nothing)?;
    for (name, label) in [("b", "one"), ("c", "two")] {
        let mut labelled = configmap(&json!({}));
        labelled["metadata"] = json!({ "name": name, "namespace": "answers", "labels": { "answers": label } });
        let question = format!("object 20: {name} with a label");
        script.apply(&question, Forced, (&format!("{maps}/{name}"), &labelled), nothing)?;
    }
    let two = format!("{maps}?labelSelector=answers%3Dtwo");
    script.read(
        "object 21: found by the label",
        &two,
        |list| json!({ "names": names(list) }),
    )?;
    script.delete("object 22: a namespace is deleted", NAMESPACE)?;
    script.wait_until_gone(NAMESPACE)?;
    script.read("object 23: what was in it", &format!("{maps}/b"), nothing)
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    let mut names: Vec<&str> = items.filter_map(|item| item["metadata"]["name"].as_str()).collect();
    names.sort_unstable();
    names
}

fn deployment(selector: &str, image: &str, containers: &[&str]) -> Value {
    let containers: Vec<Value> = containers
        .iter()
        .map(|name| json!({ "name": name, "image": image }))
        .collect();
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d", "namespace": "answers" },
        "spec": { "replicas": 0, "selector": { "matchLabels": { "app": selector } },
            "template": { "metadata": { "labels": { "app": selector } }, "spec": { "containers": containers } } } })
}

fn service(address: Option<&str>) -> Value {
    let mut service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s", "namespace": "answers" },
        "spec": { "selector": { "app": "d" }, "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 80 }] } });
    if let Some(address) = address {
        service["spec"]["clusterIP"] = json!(address);
    }
    service
}

fn binding(role: &str) -> Value {
    json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": "r", "namespace": "answers" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": "answers" }] })
}

/// What the API server lets nobody change, and what it fills in.
pub(crate) fn fixed_fields(script: &mut Script<'_>) -> Result<()> {
    script.apply("field 01: a namespace anew", Forced, (NAMESPACE, &namespace()), nothing)?;
    let shape = |body: &Value| {
        let containers = body["spec"]["template"]["spec"]["containers"].as_array();
        let containers: Vec<Value> = containers
            .into_iter()
            .flatten()
            .map(|c| json!([c["name"], c["image"]]))
            .collect();
        json!({ "generation": body["metadata"]["generation"], "containers": containers })
    };
    let path = "/apis/apps/v1/namespaces/answers/deployments/d";
    let (first, second) = (
        deployment("d", "image:1", &["main", "side"]),
        deployment("d", "image:2", &["main", "side"]),
    );
    script.apply("field 02: a Deployment", Forced, (path, &first), shape)?;
    script.apply("field 03: another image", Forced, (path, &second), shape)?;
    let less = deployment("d", "image:2", &["main"]);
    script.apply("field 04: a container less, dry", DryRun, (path, &less), shape)?;
    let selecting = deployment("e", "image:2", &["main"]);
    script.apply("field 05: another selector", Forced, (path, &selecting), shape)?;

    let path = "/api/v1/namespaces/answers/services/s";
    let has_one =
        |body: &Value| json!({ "has an address": body["spec"]["clusterIP"].as_str().is_some_and(|a| !a.is_empty()) });
    script.apply("field 06: a Service", Forced, (path, &service(None)), has_one)?;
    let (_, there) = script.get(path)?;
    let keeps = |body: &Value| json!({ "keeps its address": body["spec"]["clusterIP"] == there["spec"]["clusterIP"] });
    script.apply(
        "field 07: the same Service again, dry",
        DryRun,
        (path, &service(None)),
        keeps,
    )?;
    let other = service(Some("10.111.222.33"));
    script.apply("field 08: another address", Forced, (path, &other), nothing)?;

    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/answers/rolebindings/r";
    script.apply("field 09: a RoleBinding", Forced, (path, &binding("view")), nothing)?;
    script.apply("field 10: another role", Forced, (path, &binding("edit")), nothing)?;
    script.delete("field 11: the namespace goes", NAMESPACE)?;
    script.wait_until_gone(NAMESPACE)
}

/// Nodes: who they are, whether they are Ready, what they refuse to run.
pub(crate) fn nodes(script: &mut Script<'_>) -> Result<()> {
    script.read("node 01: all", "/api/v1/nodes", |list| {
        let nodes = list["items"].as_array().into_iter().flatten();
        let shown = nodes.map(|node| {
            (
                node["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                shown(node),
            )
        });
        json!({ "nodes": shown.collect::<BTreeMap<_, _>>() })
    })
}

fn shown(node: &Value) -> Value {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions
        .filter(|c| c["type"] == "Ready")
        .any(|c| c["status"] == "True");
    let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
    let kinds: Vec<&str> = addresses.filter_map(|a| a["type"].as_str()).collect();
    let label = "node-role.kubernetes.io/control-plane";
    json!({
        "ready": ready,
        "has a uid": node["metadata"]["uid"].is_string(),
        "has a range for pods": node["spec"]["podCIDR"].is_string(),
        "is marked as control plane": node["metadata"]["labels"].get(label).is_some(),
        "addresses": kinds,
    })
}

/// Waits until a Node that is off counts so.
pub(crate) fn node_is_off(script: &Script<'_>, name: &str) -> Result<()> {
    script.wait_until(&format!("/api/v1/nodes/{name}"), |node| shown(node)["ready"] == false)
}

/// Removes the namespace of the questions.
pub(crate) fn clean(script: &Script<'_>) -> Result<()> {
    script.remove(NAMESPACE)
}

/// Nodes, and what controllers say of landfall's own objects.
pub(crate) fn nodes_and_pods(script: &mut Script<'_>) -> Result<()> {
    nodes(script)?;
    let one = |body: &Value| shown(body);
    script.read("node 02: one", "/api/v1/nodes/w-1", one)?;
    script.read("node 03: one that is not there", "/api/v1/nodes/w-9", nothing)?;
    script.delete("node 04: its removal", "/api/v1/nodes/w-9")?;
    let proxies = "/apis/apps/v1/namespaces/kube-system/daemonsets/landfall-ingress";
    script.read("pod 01: the ingress proxy's DaemonSet", proxies, |set| {
        let status = &set["status"];
        let observed = status["observedGeneration"] == set["metadata"]["generation"];
        json!({ "observed": observed, "desired": status["desiredNumberScheduled"], "updated": status["updatedNumberScheduled"],
            "ready": status["numberReady"] })
    })?;
    let pods = "/api/v1/namespaces/kube-system/pods?labelSelector=app.kubernetes.io%2Fname%3Dlandfall-ingress";
    script.read("pod 02: its pods", pods, |list| {
        let pods = list["items"].as_array().into_iter().flatten();
        let shown = pods.map(|pod| {
            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
            let container = &pod["status"]["containerStatuses"][0];
            let by_containerd = container["containerID"]
                .as_str()
                .is_some_and(|id| id.starts_with("containerd://"));
            (
                node,
                json!({ "phase": pod["status"]["phase"], "ready": container["ready"], "by containerd": by_containerd }),
            )
        });
        json!({ "pods": shown.collect::<BTreeMap<_, _>>() })
    })?;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/landfall-sample/endpointslices";
    script.read("pod 03: endpoints of the sample", slices, |list| {
        let slices = list["items"].as_array().into_iter().flatten();
        let shown = slices.map(|slice| {
            let service = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str();
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            let ready = endpoints.filter(|e| e["conditions"]["ready"] == true).count();
            (service.unwrap_or_default().to_owned(), ready)
        });
        json!({ "ready": shown.collect::<BTreeMap<_, _>>() })
    })
}

/// Whom the server answers.
pub(crate) fn rights(script: &mut Script<'_>) -> Result<()> {
    script.status_with("rights 01: the administrator", Rights::Administrator, "/api/v1/nodes")?;
    script.status_with("rights 02: an unknown token", Rights::UnknownToken, "/api/v1/nodes")
}

/// Without its quorum the server answers nothing good.
pub(crate) fn silent(script: &mut Script<'_>) -> Result<()> {
    let (status, _) = script.get("/api/v1/nodes")?;
    script.keep("node 01: all", json!({ "answered": (200..300).contains(&status) }))
}
