//! Waits for states of the cluster. Each wait has a deadline, reports what is missing, and ends when the run is cancelled.

use super::{Cluster, POLL_EVERY};
use crate::context::CancelToken;
use crate::session::NodeSession;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use landfall_core::action::ClusterCondition;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::NodeName;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Cluster {
    /// Blocks until the condition holds, for `deadline` at most. `say` takes each new state.
    pub(super) fn await_condition(
        &self,
        session: &Arc<NodeSession>,
        condition: &ClusterCondition,
        deadline: Duration,
        cancel: &CancelToken,
        emit: &mut dyn FnMut(String),
    ) -> Result<(), Diagnosis> {
        let began = Instant::now();
        self.with_client(session, |client| async move {
            let mut last = String::new();
            loop {
                let seen = match condition {
                    ClusterCondition::NodesReady(names) => nodes_not_ready(&client, names).await,
                    ClusterCondition::RolledOut { kind, namespace, name } => {
                        not_rolled_out(&client, kind, namespace, name).await
                    }
                };
                // An API server may restart during the wait: its error is shown as what is still missing.
                let seen = seen.unwrap_or_else(|error| Some(error.to_string()));
                let Some(seen) = seen else { return Ok(()) };
                if cancel.is_cancelled() {
                    return Err(Diagnosis::new(Code::Interrupted, "the wait was interrupted").saw(seen));
                }
                if began.elapsed() >= deadline {
                    return Err(Diagnosis::new(
                        Code::StepDeadline,
                        "the cluster did not reach the wanted state in time",
                    )
                    .saw(seen)
                    .saw(format!("waited {} s", deadline.as_secs()))
                    .next("landfall status")
                    .next("then run the same `landfall install` again: it continues at this step"));
                }
                if seen != last {
                    let left = deadline.saturating_sub(began.elapsed()).as_secs();
                    emit(format!("{seen} ({left} s left)"));
                    last = seen;
                }
                tokio::time::sleep(POLL_EVERY).await;
            }
        })
    }
}

async fn nodes_not_ready(client: &Client, names: &[NodeName]) -> Result<Option<String>, kube::Error> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let ready = |name: &NodeName| {
        nodes
            .items
            .iter()
            .any(|n| n.metadata.name.as_deref() == Some(name.as_str()) && is_node_ready(n))
    };
    let missing: Vec<_> = names.iter().filter(|n| !ready(n)).map(NodeName::as_str).collect();
    Ok(if missing.is_empty() {
        None
    } else {
        Some(format!("not Ready yet: {}", missing.join(", ")))
    })
}

/// Says whether a Node's Ready condition is true.
pub fn is_node_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|list| list.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

async fn not_rolled_out(
    client: &Client,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<String>, kube::Error> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind));
    let object = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource)
        .get(name)
        .await?;
    let status = &object.data["status"];
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let observed = number(&status["observedGeneration"]) >= object.metadata.generation.unwrap_or(0);
    let (wanted, updated, ready) = match kind {
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
    };
    if observed && wanted > 0 && updated >= wanted && ready >= wanted {
        return Ok(None);
    }
    Ok(Some(format!("{kind} {name}: {ready} of {wanted} pods ready")))
}
