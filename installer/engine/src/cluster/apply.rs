//! Applies, deletes and restores objects of the cluster. The prior objects are journalled first, and an object that landfall did not make is
//! never changed.

use super::client::{Place, api_error, is_not_found};
use super::generated;
use super::managed_fields::{FIELD_MANAGER, is_managed, is_of_others, managers, to_put_back};
use super::{Cluster, POLL_EVERY};
use crate::emitter::EventEmitter;
use crate::fleet;
use crate::session::NodeSession;
use kube::Client;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::core::{ApiResource, GroupVersionKind};
use landfall_core::action::{Action, Undo};
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::journal::{EntryState, Ownership};
use landfall_core::name::NodeName;
use landfall_core::plan::Step;
use landfall_core::plan::objects::{self, ObjectKey};
use landfall_core::wire::Request;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a write is retried while the API server is not ready for it, and how long a deletion may take: pods end within 30 s.
const RETRY_LIMIT: Duration = Duration::from_secs(60);
/// Kinds (group, version, kind) whose objects keep a namespace from being deleted: people make them. Objects that controllers make are deleted with
/// their owners.
const KEEPS_NAMESPACE: [(&str, &str, &str); 11] = [
    ("", "v1", "Pod"),
    ("", "v1", "Service"),
    ("", "v1", "ConfigMap"),
    ("", "v1", "Secret"),
    ("", "v1", "PersistentVolumeClaim"),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "DaemonSet"),
    ("apps", "v1", "StatefulSet"),
    ("batch", "v1", "Job"),
    ("batch", "v1", "CronJob"),
    ("networking.k8s.io", "v1", "Ingress"),
];
/// The ConfigMap that the controller manager puts into every namespace.
const ROOT_CA: &str = "kube-root-ca.crt";

impl Cluster {
    /// Says whether a step on objects would change nothing, by the answers of the API server. When the server does not answer, the step counts as
    /// pending, so that running it reports the error. Blocks for the requests.
    pub fn is_satisfied(&self, session: &Arc<NodeSession>, step: &Step, owned: &BTreeMap<NodeName, Ownership>) -> bool {
        let interrupted = |own: &Ownership| own.newest(&step.id).is_some_and(|e| e.state != EntryState::Owned);
        if owned.values().any(interrupted) {
            return false;
        }
        let asked = match &step.action {
            Action::Apply { objects } => {
                self.with_client(session, |client| async move { unchanged(&client, objects).await })
            }
            Action::Delete { objects } => {
                self.with_client(session, |client| async move { absent(&client, objects).await })
            }
            _ => return false,
        };
        asked.unwrap_or(false)
    }

    /// Applies the objects of a step and journals it in all of `journals`. Returns whether something changed.
    pub(super) fn apply(
        &self,
        session: &Arc<NodeSession>,
        journals: &[Arc<NodeSession>],
        step: &Step,
        objects: &[Value],
    ) -> Result<bool, Diagnosis> {
        let owned = fleet::each(journals, |journal| journal.ask::<Ownership>(&Request::Ownership));
        let owned: Vec<Ownership> = owned.into_iter().collect::<Result<_, _>>()?;
        let ours: BTreeSet<ObjectKey> = owned.iter().flat_map(objects::made_by).collect();
        let undo = self.with_client(session, |client| async move { prior_of(&client, objects, &ours).await })?;
        journalled(journals, step, undo, || {
            self.with_client(session, |client| async move {
                for object in objects {
                    apply_one(&client, object).await?;
                }
                Ok(())
            })
        })
    }

    /// Deletes objects of ours that are no longer wanted and journals their bodies. Returns whether something changed.
    pub(super) fn delete(
        &self,
        session: &Arc<NodeSession>,
        journals: &[Arc<NodeSession>],
        step: &Step,
        objects: &[Value],
        emitter: &EventEmitter,
    ) -> Result<bool, Diagnosis> {
        let undo = self.with_client(session, |client| async move { bodies_of(&client, objects).await })?;
        journalled(journals, step, undo, || {
            self.with_client(session, |client| async move {
                for object in objects.iter().rev() {
                    note(emitter, &step.node, delete_one(&client, object).await?);
                }
                Ok(())
            })
        })
    }

    /// Puts back the `prior` objects of an undo recipe and deletes the `absent` ones, as far as landfall manages them still; what stays becomes a
    /// note. It is used when the cluster stays. Blocks for the requests.
    pub fn restore(
        &self,
        session: &Arc<NodeSession>,
        prior: &[Value],
        absent: &[Value],
        emitter: &EventEmitter,
    ) -> Result<(), Diagnosis> {
        self.with_client(session, |client| async move {
            for object in absent.iter().rev() {
                note(emitter, session.name(), delete_one(&client, object).await?);
            }
            for object in prior {
                note(emitter, session.name(), put_back(&client, object).await?);
            }
            Ok(())
        })
    }
}

/// Writes the step's intent into every journal, does `work`, and writes that the step is done.
fn journalled(
    journals: &[Arc<NodeSession>],
    step: &Step,
    undo: Undo,
    act: impl FnOnce() -> Result<(), Diagnosis>,
) -> Result<bool, Diagnosis> {
    let tell = |request: &Request| -> Result<(), Diagnosis> {
        let told = fleet::each(journals, |journal| journal.ask::<()>(request));
        told.into_iter().collect()
    };
    tell(&Request::Intent {
        step: step.id.clone(),
        action: step.action.identity(),
        undo,
    })?;
    act()?;
    tell(&Request::Done { step: step.id.clone() })?;
    Ok(true)
}

async fn apply_one(client: &Client, object: &Value) -> Result<(), Diagnosis> {
    let place = Place::of(object)?;
    if objects::is_generated(object) {
        // An existing object is left unchanged, whoever made it.
        return match get(client, &place).await? {
            Some(_) => Ok(()),
            None => apply_body(client, &place, &generated::with_values(object)?).await,
        };
    }
    apply_body(client, &place, object).await
}

async fn apply_body(client: &Client, place: &Place, object: &Value) -> Result<(), Diagnosis> {
    let began = Instant::now();
    loop {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match place
            .api(client)
            .patch(&place.name, &params, &Patch::Apply(object))
            .await
        {
            Ok(_) => return Ok(()),
            // Right after init the server may not have its namespaces, priority classes or leader yet.
            Err(error) if began.elapsed() < RETRY_LIMIT && is_passing(&error) => tokio::time::sleep(POLL_EVERY).await,
            Err(error) => {
                let what = format!("{place} could not be applied");
                return Err(api_error(&what, &error).next("landfall status"));
            }
        }
    }
}

fn is_passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 403 | 404 | 409 | 429 | 500 | 503 | 504),
        kube::Error::HyperError(_) | kube::Error::Service(_) => true,
        _ => false,
    }
}

fn note(emitter: &EventEmitter, node: &NodeName, text: Option<String>) {
    if let Some(text) = text {
        emitter.emit(Some(node), EventKind::Note { text });
    }
}

/// Puts back what an object was before; returns a note when others have it now.
async fn put_back(client: &Client, prior: &Value) -> Result<Option<String>, Diagnosis> {
    let place = Place::of(prior)?;
    let found = get(client, &place).await?;
    let Some(found) = found.filter(|_| !objects::is_generated(prior)) else {
        return apply_one(client, prior).await.map(|()| None);
    };
    match to_put_back(prior, &found) {
        Some(body) => apply_body(client, &place, &body).await.map(|()| None),
        None => Ok(Some(format!("{place} stays as it is: {}", whose(&found)))),
    }
}

/// Deletes an object and waits until it is gone, with the pods that it owns. A namespace that holds what others put there stays, and so does an object
/// that others have put in the place of landfall's; then a note is returned.
async fn delete_one(client: &Client, object: &Value) -> Result<Option<String>, Diagnosis> {
    let place = Place::of(object)?;
    match get(client, &place).await? {
        None => return Ok(None),
        Some(found) if is_of_others(&found) => return Ok(Some(format!("{place} stays: {}", whose(&found)))),
        Some(_) => {}
    }
    if place.resource.kind == "Namespace" && holds_more(client, &place.name).await? {
        return Ok(Some(format!("{place} stays: it holds what others put there")));
    }
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        ..DeleteParams::default()
    };
    let failed = |error: &kube::Error| api_error(&format!("{place} could not be deleted"), error);
    match place.api(client).delete(&place.name, &params).await {
        Err(error) if is_not_found(&error) => return Ok(None),
        Err(error) => return Err(failed(&error)),
        Ok(_) => {}
    }
    let began = Instant::now();
    while get(client, &place).await?.is_some() {
        if began.elapsed() >= RETRY_LIMIT {
            return Err(
                Diagnosis::new(Code::StepDeadline, format!("{place} was deleted and does not go away"))
                    .saw(format!("waited {} s", RETRY_LIMIT.as_secs()))
                    .next("look at its finalizers with kubectl, then run the same command again"),
            );
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(None)
}

/// Says whether a namespace holds something that a person put there.
async fn holds_more(client: &Client, namespace: &str) -> Result<bool, Diagnosis> {
    for (group, version, kind) in KEEPS_NAMESPACE {
        let place = Place {
            resource: ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)),
            namespace: Some(namespace.to_owned()),
            name: String::new(),
        };
        let list = place.api(client).list(&ListParams::default()).await;
        let list = list.map_err(|e| api_error(&format!("namespace {namespace} could not be looked into"), &e))?;
        if list.items.iter().any(|o| o.metadata.name.as_deref() != Some(ROOT_CA)) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn get(client: &Client, place: &Place) -> Result<Option<DynamicObject>, Diagnosis> {
    let found = place.api(client).get_opt(&place.name).await;
    found.map_err(|e| api_error(&format!("{place} could not be read"), &e))
}

/// Reads the objects as they are before an apply; an object that landfall did not make is an error.
async fn prior_of(client: &Client, objects: &[Value], ours: &BTreeSet<ObjectKey>) -> Result<Undo, Diagnosis> {
    let (mut prior, mut absent) = (Vec::new(), Vec::new());
    for object in objects {
        let place = Place::of(object)?;
        let Some(found) = get(client, &place).await? else {
            absent.push(objects::identity(object));
            continue;
        };
        if objects::is_generated(object) {
            // It is not changed, so there is nothing to put back.
            continue;
        }
        let key = ObjectKey::of(object);
        if !(is_managed(&found) || ours.contains(&key) || key.is_made_by_kubeadm()) {
            return Err(not_ours(&place, &found));
        }
        prior.push(objects::without_secrets(comparable(&found)));
    }
    Ok(Undo::RestoreObjects { prior, absent })
}

/// Names the managers of an object, for people.
fn whose(found: &DynamicObject) -> String {
    let made_by: BTreeSet<&str> = managers(found).collect();
    let made_by = made_by.into_iter().collect::<Vec<_>>().join(", ");
    format!("field managers: {}", if made_by.is_empty() { "none" } else { &made_by })
}

fn not_ours(place: &Place, found: &DynamicObject) -> Diagnosis {
    Diagnosis::new(
        Code::ForeignObject,
        format!("{place} is in the cluster and is not landfall's, so it is not changed"),
    )
    .saw(whose(found))
    .next("rename or remove that object, or switch off in cluster.yaml what landfall would put there")
    .next("then run the same command again")
}

/// Reads the bodies of those objects that exist.
async fn bodies_of(client: &Client, objects: &[Value]) -> Result<Undo, Diagnosis> {
    let mut prior = Vec::new();
    for object in objects {
        let found = get(client, &Place::of(object)?).await?;
        prior.extend(found.as_ref().map(comparable).map(objects::without_secrets));
    }
    Ok(Undo::RestoreObjects { prior, absent: vec![] })
}

/// Says whether none of these objects exists, apart from objects of others and namespaces that others use.
async fn absent(client: &Client, objects: &[Value]) -> Result<bool, Diagnosis> {
    for object in objects {
        let place = Place::of(object)?;
        let there = get(client, &place).await?;
        if there.is_some_and(|found| !is_of_others(&found))
            && !(place.resource.kind == "Namespace" && holds_more(client, &place.name).await?)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Says whether applying would change nothing, by a dry run of the apply on the server.
async fn unchanged(client: &Client, objects: &[Value]) -> Result<bool, Diagnosis> {
    for object in objects {
        let place = Place::of(object)?;
        let Some(there) = get(client, &place).await? else {
            return Ok(false);
        };
        if objects::is_generated(object) {
            continue;
        }
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::apply(FIELD_MANAGER).force()
        };
        let would_be = place
            .api(client)
            .patch(&place.name, &params, &Patch::Apply(object))
            .await
            .map_err(|e| api_error(&format!("{place} could not be compared"), &e))?;
        if comparable(&there) != comparable(&would_be) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the object without the fields that every write changes.
fn comparable(object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or(Value::Null);
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in [
            "managedFields",
            "resourceVersion",
            "generation",
            "uid",
            "creationTimestamp",
        ] {
            metadata.remove(key);
        }
    }
    if let Some(map) = value.as_object_mut() {
        map.remove("status");
    }
    value
}
