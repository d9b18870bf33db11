//! Waits for states of the cluster. Each wait has a deadline, reports what is missing and why, and ends when the run is cancelled.

use super::error_text::error_text;
use super::{Cluster, POLL_EVERY, evidence};
use crate::context::CancelToken;
use crate::emitter::EventEmitter;
use crate::fleet::Sessions;
use crate::session::NodeSession;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use landfall_core::action::ClusterCondition;
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::NodeName;
use landfall_core::plan::Step;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a condition is missing before its reasons are collected, and the pause between two collections, which read logs of nodes.
const ASK_WHY_EVERY: Duration = Duration::from_secs(10);

/// What is missing, and the reasons.
struct Missing {
    what: String,
    why: Vec<String>,
}

/// One wait of a step.
struct Wait<'a> {
    step: &'a Step,
    cancel: &'a CancelToken,
    emitter: &'a EventEmitter,
    began: Instant,
    asked_why: Instant,
    why: Vec<String>,
    reported: String,
}

impl<'a> Wait<'a> {
    fn new(step: &'a Step, cancel: &'a CancelToken, emitter: &'a EventEmitter) -> Self {
        let began = Instant::now();
        Self {
            step,
            cancel,
            emitter,
            began,
            asked_why: began,
            why: vec![],
            reported: String::new(),
        }
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(self.step.deadline_s)
    }

    /// Says whether to collect the reasons now: every [`ASK_WHY_EVERY`], and before the wait ends.
    fn asks_why(&self) -> bool {
        self.asked_why.elapsed() >= ASK_WHY_EVERY || self.began.elapsed() >= self.deadline()
    }

    /// Emits what is missing, when that has changed, and pauses. An error ends the wait: the deadline has passed, or the run was cancelled.
    async fn report_and_pause(&mut self, missing: Missing) -> Result<(), Diagnosis> {
        if self.asks_why() {
            self.asked_why = Instant::now();
            self.why = missing.why;
        }
        let seen = |diagnosis: Diagnosis| {
            let diagnosis = diagnosis.saw(missing.what.clone());
            self.why.iter().cloned().fold(diagnosis, Diagnosis::saw)
        };
        if self.cancel.is_cancelled() {
            return Err(seen(Diagnosis::new(Code::Interrupted, "the wait was interrupted")));
        }
        let deadline = self.deadline();
        if self.began.elapsed() >= deadline {
            let what = "the cluster did not reach the wanted state in time";
            return Err(seen(Diagnosis::new(Code::StepDeadline, what))
                .saw(format!("waited {} s", deadline.as_secs()))
                .next("landfall status")
                .next("then run the same `landfall install` again: it continues at this step"));
        }
        let text = [std::slice::from_ref(&missing.what), &self.why].concat().join("; ");
        if text != self.reported {
            let left = deadline.saturating_sub(self.began.elapsed()).as_secs();
            let step = self.step.id.clone();
            let kind = EventKind::StepWaiting {
                step,
                text: format!("{text} ({left} s left)"),
            };
            self.emitter.emit(Some(&self.step.node), kind);
            self.reported = text;
        }
        tokio::time::sleep(POLL_EVERY).await;
        Ok(())
    }
}

impl Cluster {
    /// Blocks until the API answers through the step's node, until the step's deadline at most. That takes up to a minute after a boot, or after
    /// a setting that the kubelet needs was corrected.
    pub(super) fn await_api(
        &self,
        sessions: &Sessions,
        session: &Arc<NodeSession>,
        step: &Step,
        cancel: &CancelToken,
        emitter: &EventEmitter,
    ) -> Result<(), Diagnosis> {
        let mut wait = Wait::new(step, cancel, emitter);
        self.with_client(session, |client| async move {
            // Every cluster has this namespace, and reading it asks etcd.
            while let Err(error) = Api::<Namespace>::all(client.clone()).get_opt("kube-system").await {
                let why = if wait.asks_why() {
                    evidence::of_nodes(sessions, [&step.node])
                } else {
                    vec![]
                };
                let what = format!("the cluster does not answer yet: {}", error_text(&error));
                wait.report_and_pause(Missing { what, why }).await?;
            }
            Ok(())
        })
    }

    /// Blocks until the condition holds, until the step's deadline at most.
    pub(super) fn await_condition(
        &self,
        sessions: &Sessions,
        session: &Arc<NodeSession>,
        step: &Step,
        condition: &ClusterCondition,
        cancel: &CancelToken,
        emitter: &EventEmitter,
    ) -> Result<(), Diagnosis> {
        let mut wait = Wait::new(step, cancel, emitter);
        self.with_client(session, |client| async move {
            loop {
                let asks_why = wait.asks_why();
                let missing = match condition {
                    ClusterCondition::NodesReady(names) => nodes_not_ready(&client, names, sessions, asks_why).await,
                    ClusterCondition::RolledOut { kind, namespace, name } => {
                        not_rolled_out(&client, (kind, namespace, name), asks_why).await
                    }
                };
                // An API server may restart during the wait, so its error does not end the wait but is shown as what is missing.
                let missing = missing.unwrap_or_else(|error| {
                    let why = if asks_why {
                        evidence::of_nodes(sessions, [&step.node])
                    } else {
                        vec![]
                    };
                    Some(Missing {
                        what: error_text(&error),
                        why,
                    })
                });
                match missing {
                    Some(missing) => wait.report_and_pause(missing).await?,
                    None => return Ok(()),
                }
            }
        })
    }
}

async fn nodes_not_ready(
    client: &Client,
    names: &[NodeName],
    sessions: &Sessions,
    asks_why: bool,
) -> Result<Option<Missing>, kube::Error> {
    let nodes = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await?
        .items;
    let named = |name: &NodeName| nodes.iter().find(|n| n.metadata.name.as_deref() == Some(name.as_str()));
    let missing: Vec<&NodeName> = names
        .iter()
        .filter(|name| !named(name).is_some_and(is_node_ready))
        .collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let mut why = Vec::new();
    if asks_why {
        why.extend(missing.iter().filter_map(|name| evidence::of_node(named(name)?)));
        why.extend(evidence::of_nodes(sessions, missing.iter().copied()));
    }
    let missing: Vec<&str> = missing.into_iter().map(NodeName::as_str).collect();
    let what = format!("not Ready yet: {}", missing.join(", "));
    Ok(Some(Missing { what, why }))
}

/// Says whether a Node's Ready condition is true.
pub fn is_node_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|list| list.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

async fn not_rolled_out(
    client: &Client,
    (kind, namespace, name): (&str, &str, &str),
    asks_why: bool,
) -> Result<Option<Missing>, kube::Error> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind));
    let object = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource)
        .get(name)
        .await?;
    let observed = object.data["status"]["observedGeneration"].as_i64().unwrap_or(0);
    let observed = observed >= object.metadata.generation.unwrap_or(0);
    let (wanted, updated, ready) = evidence::counts(kind, &object);
    if observed && wanted > 0 && updated >= wanted && ready >= wanted {
        return Ok(None);
    }
    let why = if asks_why {
        evidence::of_workload(client, &object).await
    } else {
        vec![]
    };
    let what = format!("{kind} {name}: {ready} of {wanted} pods ready");
    Ok(Some(Missing { what, why }))
}
