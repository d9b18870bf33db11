//! Collects the reasons why a condition of the cluster does not become true: the kubelet's last error on a node, what a pod waits for, how its
//! container ended.

use crate::fleet::{self, Sessions};
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, LogParams};
use landfall_core::health::NodeHealth;
use landfall_core::name::NodeName;
use landfall_core::wire::Request;
use serde_json::Value;

/// At most so many pods are described: those of one workload fail for the same reason.
const MAX_PODS: usize = 2;
/// The last line of a log is cut to so many characters.
const MAX_LOG_CHARS: usize = 300;

/// Returns the faults of these nodes, a line each. Nodes that cannot be asked are left out. Blocks until the slowest has answered.
pub fn of_nodes<'a>(sessions: &Sessions, names: impl IntoIterator<Item = &'a NodeName>) -> Vec<String> {
    let here: Vec<_> = names.into_iter().filter_map(|name| sessions.get(name)).collect();
    let asked = fleet::each(&here, |session| session.ask::<NodeHealth>(&Request::NodeHealth));
    let lines = here.iter().zip(asked).filter_map(|(session, health)| {
        let health = health.ok()?;
        let faults = faults(&health);
        let all: Vec<String> = faults.iter().cloned().chain(drop_ins(&health)).collect();
        (!faults.is_empty()).then(|| format!("{}: {}", session.name(), all.join("; ")))
    });
    lines.collect()
}

/// Returns the faults of a node: kernel modules that are missing, kernel settings that do not have the wanted value, packet filters that do not let
/// through what they are to, and units that fail.
pub fn faults(health: &NodeHealth) -> Vec<String> {
    let modules = health.missing_modules.iter();
    let modules =
        modules.map(|module| format!("the kernel module {module} is not loaded, and landfall's daemons need it"));
    let settings = health.settings.iter().map(|setting| setting.text());
    let filters = health.filters.iter().map(|fault| format!("packet filter: {fault}"));
    let units = health
        .units
        .iter()
        .filter(|unit| unit.is_failing)
        .map(|unit| unit.text());
    modules.chain(settings).chain(filters).chain(units).collect()
}

/// Returns what others have added to units of a node: no faults, but what may have brought them about.
pub fn drop_ins(health: &NodeHealth) -> impl Iterator<Item = String> {
    health.drop_ins.iter().map(|drop_in| drop_in.text())
}

/// Returns the kubelet's reason why its Node is not Ready; `None` when the Node is Ready.
pub(super) fn of_node(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status != "True")?;
    let name = node.metadata.name.as_deref().unwrap_or_default();
    ready.message.as_ref().map(|message| format!("{name}: {message}"))
}

/// Returns why pods of a workload are not ready, a line each. What cannot be asked is left out.
pub(super) async fn of_workload(client: &Client, workload: &DynamicObject) -> Vec<String> {
    let namespace = workload.metadata.namespace.as_deref().unwrap_or("default");
    let labels = workload.data["spec"]["selector"]["matchLabels"].as_object();
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let Ok(pods) = api.list(&ListParams::default().labels(&selector.join(","))).await else {
        return vec![];
    };
    let mut lines = Vec::new();
    for pod in &pods.items {
        let Some((text, crashed)) = not_ready_reason(pod) else {
            continue;
        };
        let name = pod.metadata.name.clone().unwrap_or_default();
        let mut line = format!("pod {name}: {text}");
        if let Some(container) = crashed {
            let params = LogParams {
                container: Some(container),
                previous: true,
                tail_lines: Some(1),
                ..LogParams::default()
            };
            let log = api.logs(&name, &params).await.unwrap_or_default();
            if let Some(last) = log.lines().last() {
                line += &format!(
                    "; its log ends: {}",
                    last.chars().take(MAX_LOG_CHARS).collect::<String>()
                );
            }
        }
        lines.push(line);
        if lines.len() == MAX_PODS {
            break;
        }
    }
    lines
}

/// Says what keeps a pod from being ready, and names the container that ended, when one did.
fn not_ready_reason(pod: &Pod) -> Option<(String, Option<String>)> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let mut unscheduled = conditions.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled.next() {
        let message = condition.message.as_deref().or(condition.reason.as_deref());
        return Some((message.unwrap_or("it has no node yet").to_owned(), None));
    }
    let containers = || {
        status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .flatten()
    };
    let failing = containers().filter(|c| !c.ready).find_map(describe);
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let on = node.map_or_else(String::new, |node| format!("on {node}, "));
    failing.map(|(text, crashed)| (format!("{on}{text}"), crashed))
}

fn describe(container: &ContainerStatus) -> Option<(String, Option<String>)> {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| state.as_ref()?.terminated.clone();
    let ended = ended(&container.state)
        .filter(|t| t.exit_code != 0)
        .or_else(|| ended(&container.last_state));
    let mut parts = Vec::new();
    if let Some(waiting) = waiting {
        let reason = waiting.reason.as_deref().unwrap_or("waits");
        // The kubelet's message about a crash loop says how long it waits, which the last end below explains.
        let message = waiting.message.as_deref().filter(|_| ended.is_none());
        parts.push(message.map_or_else(|| reason.to_owned(), |message| format!("{reason}: {message}")));
    }
    if let Some(ended) = &ended {
        let why = ended.message.as_deref().or(ended.reason.as_deref()).unwrap_or_default();
        let last = why.trim().lines().last().unwrap_or_default();
        parts.push(format!("it ended with status {} ({last})", ended.exit_code));
    }
    if parts.is_empty() && container.state.as_ref().is_some_and(|state| state.running.is_some()) {
        parts.push("it runs and is not ready".to_owned());
    }
    let text = format!("container {}: {}", container.name, parts.join(", "));
    (!parts.is_empty()).then(|| (text, ended.map(|_| container.name.clone())))
}

/// Reads how many pods of a workload are wanted, up to date and ready.
pub(super) fn counts(kind: &str, object: &DynamicObject) -> (i64, i64, i64) {
    let status = &object.data["status"];
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    match kind {
        "DaemonSet" => (
            number(&status["desiredNumberScheduled"]),
            number(&status["updatedNumberScheduled"]),
            number(&status["numberReady"]),
        ),
        _ => (
            number(&object.data["spec"]["replicas"]),
            number(&status["updatedReplicas"]),
            number(&status["readyReplicas"]),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::health::UnitDropIn;
    use serde_json::json;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({ "spec": { "nodeName": "w-1", "containers": [] }, "status": status })).unwrap()
    }

    fn container(state: Value, last: Value) -> Value {
        let status = json!({
            "name": "coredns", "ready": false, "restartCount": 3, "image": "", "imageID": "",
            "state": state, "lastState": last,
        });
        json!({ "containerStatuses": [status] })
    }

    #[test]
    fn a_module_that_is_missing_is_a_fault_and_a_drop_in_is_none() {
        let mut health = NodeHealth {
            missing_modules: vec!["br_netfilter".to_owned()],
            ..NodeHealth::default()
        };
        assert!(faults(&health)[0].starts_with("the kernel module br_netfilter is not loaded"));
        health.missing_modules.clear();
        let file = "/etc/systemd/system/kubelet.service.d/x.conf";
        health.drop_ins.push(UnitDropIn {
            unit: "kubelet.service".to_owned(),
            file: file.to_owned(),
        });
        assert_eq!(faults(&health), [""; 0]);
        assert!(drop_ins(&health).next().is_some_and(|line| line.contains(file)));
    }

    #[test]
    fn a_crash_loop_names_how_the_container_ended() {
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 5m0s" } });
        let ended = json!({ "terminated": { "exitCode": 1, "reason": "Error", "message": "x\nCorefile:3: unknown directive\n" } });
        let (text, crashed) = not_ready_reason(&pod(container(waiting, ended))).unwrap();
        assert_eq!(
            text,
            "on w-1, container coredns: CrashLoopBackOff, it ended with status 1 (Corefile:3: unknown directive)"
        );
        assert_eq!(crashed.as_deref(), Some("coredns"));
    }

    #[test]
    fn a_pod_that_waits_says_for_what() {
        let waiting = json!({ "waiting": { "reason": "ContainerCreating", "message": "no network" } });
        let (text, crashed) = not_ready_reason(&pod(container(waiting, json!({})))).unwrap();
        assert_eq!(
            (text.as_str(), crashed),
            ("on w-1, container coredns: ContainerCreating: no network", None)
        );
        let unscheduled = json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "message": "0/3 nodes are available" }] });
        assert_eq!(
            not_ready_reason(&pod(unscheduled)).unwrap().0,
            "0/3 nodes are available"
        );
        let ready = json!({ "containerStatuses": [{ "name": "x", "ready": true, "restartCount": 0, "image": "", "imageID": "" }] });
        assert_eq!(not_ready_reason(&pod(ready)), None);
    }
}
