//! The Kubernetes API, reached through a node: apply, wait, read. One small asynchronous island; callers block.

use crate::fleet::{Sessions, Voice};
use crate::forward::Forward;
use crate::run::CancelToken;
use crate::session::NodeSession;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use landfall_core::action::{Action, ClusterCondition, ClusterEffect, Undo};
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::journal::{EntryState, Ownership};
use landfall_core::layout;
use landfall_core::name::NodeName;
use landfall_core::plan::Step;
use landfall_core::secret::Secret;
use landfall_core::wire::{CommandOutput, Request};
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Field manager of server-side apply.
const FIELD_MANAGER: &str = "landfall";
/// Pause between two looks at something awaited: a GET costs the API server about a millisecond.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// Whole time for one API request; a healthy server answers in milliseconds, a restarting one after seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a write is tried again while the API server is not ready for it.
const APPLY_PATIENCE: Duration = Duration::from_secs(60);

/// The way to the API: holds the admin credentials once they were read, in memory only.
#[derive(Default)]
pub struct Cluster {
    kubeconfig: Mutex<Option<Secret>>,
}

/// An object's place in the API.
struct Place {
    resource: ApiResource,
    namespace: Option<String>,
    name: String,
}

impl Cluster {
    /// Remembers admin credentials that were read from a control plane.
    pub fn with_admin(kubeconfig: Secret) -> Self {
        Self {
            kubeconfig: Mutex::new(Some(kubeconfig)),
        }
    }

    /// Runs one cluster step over `session`, journalled in all of `journals`. Returns whether it changed anything.
    pub fn run(
        &self,
        session: &Arc<NodeSession>,
        journals: &[Arc<NodeSession>],
        step: &Step,
        cancel: &CancelToken,
        voice: &Voice,
    ) -> Result<bool, Diagnosis> {
        match &step.action {
            Action::Apply { objects } => self.apply(session, journals, step, objects),
            Action::Await { condition } => {
                let mut say = |text: String| {
                    voice.say(
                        Some(&step.node),
                        EventKind::StepWaiting {
                            step: step.id.clone(),
                            text,
                        },
                    );
                };
                self.await_condition(
                    session,
                    condition,
                    Duration::from_secs(step.deadline_s),
                    cancel,
                    &mut say,
                )?;
                Ok(false)
            }
            _ => Err(Diagnosis::new(
                Code::Internal,
                "a node's action was given to the cluster",
            )),
        }
    }

    /// Says whether an apply step would change nothing, by the server's own dry run. No answer is none: the step is to be done.
    pub fn is_satisfied(&self, session: &Arc<NodeSession>, step: &Step, owned: &BTreeMap<NodeName, Ownership>) -> bool {
        let Action::Apply { objects } = &step.action else {
            return false;
        };
        let interrupted = |own: &Ownership| own.newest(&step.id).is_some_and(|e| e.state != EntryState::Owned);
        !owned.values().any(interrupted)
            && self
                .with_client(session, |client| async move { unchanged(&client, objects).await })
                .unwrap_or(false)
    }

    fn apply(
        &self,
        session: &Arc<NodeSession>,
        journals: &[Arc<NodeSession>],
        step: &Step,
        objects: &[Value],
    ) -> Result<bool, Diagnosis> {
        let undo = self.with_client(session, |client| async move { prior_of(&client, objects).await })?;
        let intent = Request::Intent {
            step: step.id.clone(),
            action: step.action.identity(),
            undo,
        };
        tell_all(journals, &intent)?;
        self.with_client(session, |client| async move {
            for object in objects {
                apply_one(&client, object).await?;
            }
            Ok(())
        })?;
        tell_all(journals, &Request::Done { step: step.id.clone() })?;
        Ok(true)
    }

    /// Restores objects as an undo recipe says. For a cluster that stays.
    pub fn restore(&self, session: &Arc<NodeSession>, prior: &[Value], absent: &[Value]) -> Result<(), Diagnosis> {
        self.with_client(session, |client| async move {
            for object in absent.iter().rev() {
                let place = place_of(object)?;
                let deleted = api(&client, &place).delete(&place.name, &Default::default()).await;
                if let Err(error) = deleted
                    && !is_not_found(&error)
                {
                    return Err(api_error("an object could not be deleted", &error).saw(place.name));
                }
            }
            for object in prior {
                apply_one(&client, object).await?;
            }
            Ok(())
        })
    }

    fn await_condition(
        &self,
        session: &Arc<NodeSession>,
        condition: &ClusterCondition,
        deadline: Duration,
        cancel: &CancelToken,
        say: &mut dyn FnMut(String),
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
                let seen = seen.unwrap_or_else(|error| Some(error.to_string()));
                let Some(seen) = seen else { return Ok(()) };
                if cancel.is_cancelled() {
                    return Err(Diagnosis::new(Code::Interrupted, "the wait was interrupted").saw(seen));
                }
                if began.elapsed() >= deadline {
                    return Err(Diagnosis::new(
                        Code::StepDeadline,
                        "the cluster did not become what is wanted in time",
                    )
                    .saw(seen)
                    .saw(format!("waited {} s", deadline.as_secs()))
                    .next("landfall status")
                    .next("then run the same `landfall install` again: it continues at this step"));
                }
                if seen != last {
                    let left = deadline.saturating_sub(began.elapsed()).as_secs();
                    say(format!("{seen} ({left} s left)"));
                    last = seen;
                }
                tokio::time::sleep(POLL_EVERY).await;
            }
        })
    }

    /// Takes away what an interrupted step made off its node: an etcd member, a Node object. Asks the cluster what became of
    /// them first, and never removes a member when that would cost etcd its quorum.
    pub fn remove_effects(
        &self,
        sessions: &Sessions,
        node: &NodeName,
        effects: &[ClusterEffect],
        voice: &Voice,
    ) -> Result<(), Diagnosis> {
        for effect in effects {
            for session in sessions.values().filter(|s| s.name() != node && !s.is_lost()) {
                let removed = match effect {
                    ClusterEffect::EtcdMember { name, peer_url } => remove_member(session, name, peer_url),
                    ClusterEffect::Node { name } => self.remove_node(session, name),
                };
                match removed {
                    Ok(Some(text)) => voice.say(Some(node), EventKind::Note { text }),
                    Ok(None) => {}
                    // This node knows no cluster (a worker, or one that never joined): another may.
                    Err(Absent::NoClusterHere) => continue,
                    Err(Absent::Failed(diagnosis)) => return Err(*diagnosis),
                }
                break;
            }
        }
        Ok(())
    }

    fn remove_node(&self, session: &Arc<NodeSession>, name: &NodeName) -> Result<Option<String>, Absent> {
        let result = self.with_client(session, |client| async move {
            match Api::<Node>::all(client)
                .delete(name.as_str(), &Default::default())
                .await
            {
                Ok(_) => Ok(Some(format!("removed the Node object {name} of the interrupted join"))),
                Err(error) if is_not_found(&error) => Ok(None),
                Err(error) => Err(api_error("the Node object could not be removed", &error)),
            }
        });
        result.map_err(|diagnosis| match diagnosis.code {
            Code::ClusterApi => Absent::Failed(Box::new(diagnosis)),
            _ => Absent::NoClusterHere,
        })
    }

    /// Runs `work` with a client whose connection goes through `session`'s node and its local balancer. Ends with an error when that
    /// session is lost.
    pub fn with_client<T, F>(&self, session: &Arc<NodeSession>, work: impl FnOnce(Client) -> F) -> Result<T, Diagnosis>
    where
        F: Future<Output = Result<T, Diagnosis>>,
    {
        let admin = self.admin(session)?;
        let forward = Forward::open(session, &format!("127.0.0.1:{}", layout::API_BALANCER_PORT))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Diagnosis::new(Code::Internal, "no event loop can be made").because(&error))?;
        runtime.block_on(async {
            let client = client(&admin, &forward).await?;
            let mut work = std::pin::pin!(work(client));
            // Whatever waits in there waits for the cluster; without the node there is no way to it.
            loop {
                match tokio::time::timeout(POLL_EVERY, &mut work).await {
                    Ok(result) => return result,
                    Err(_) if session.is_lost() => return Err(session.connection_lost()),
                    Err(_) => {}
                }
            }
        })
    }

    /// Returns the admin kubeconfig, read from the node once.
    pub fn admin(&self, session: &NodeSession) -> Result<Secret, Diagnosis> {
        let mut cached = self
            .kubeconfig
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(secret) = cached.as_ref() {
            return Ok(secret.clone());
        }
        let path = format!("{}/admin.conf", layout::KUBERNETES_DIR);
        let secret = Secret::new(session.ask_bytes(&Request::ReadSecret { path })?);
        *cached = Some(secret.clone());
        Ok(secret)
    }
}

/// Asks every session the same, for its effect alone.
fn tell_all(sessions: &[Arc<NodeSession>], request: &Request) -> Result<(), Diagnosis> {
    let told = crate::fleet::each(sessions, |session| session.ask::<()>(request));
    told.into_iter().collect()
}

enum Absent {
    NoClusterHere,
    Failed(Box<Diagnosis>),
}

async fn client(admin: &Secret, forward: &Forward) -> Result<Client, Diagnosis> {
    let bad = |error: &(dyn std::error::Error + 'static)| {
        Diagnosis::new(Code::ClusterApi, "the admin kubeconfig of the node is not usable").because(error)
    };
    let text = String::from_utf8_lossy(admin.expose());
    let kubeconfig = Kubeconfig::from_yaml(&text).map_err(|e| bad(&e))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|e| bad(&e))?;
    config.cluster_url = format!("https://{}", forward.address()).parse().map_err(|e| bad(&e))?;
    config.tls_server_name = Some("127.0.0.1".to_owned());
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(REQUEST_TIMEOUT);
    config.proxy_url = None;
    Client::try_from(config).map_err(|e| bad(&e))
}

fn api_error(what: &str, error: &kube::Error) -> Diagnosis {
    Diagnosis::new(Code::ClusterApi, what).because(error)
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn place_of(object: &Value) -> Result<Place, Diagnosis> {
    let malformed = || Diagnosis::new(Code::Internal, "an object to apply has no apiVersion, kind or name");
    let (group, version) = match object["apiVersion"].as_str().ok_or_else(malformed)?.split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", object["apiVersion"].as_str().unwrap_or_default()),
    };
    let kind = object["kind"].as_str().ok_or_else(malformed)?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let name = object["metadata"]["name"].as_str().ok_or_else(malformed)?.to_owned();
    Ok(Place {
        resource,
        namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
        name,
    })
}

fn api(client: &Client, place: &Place) -> Api<DynamicObject> {
    match &place.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &place.resource),
        None => Api::all_with(client.clone(), &place.resource),
    }
}

async fn apply_one(client: &Client, object: &Value) -> Result<(), Diagnosis> {
    let place = place_of(object)?;
    let began = Instant::now();
    loop {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match api(client, &place)
            .patch(&place.name, &params, &Patch::Apply(object))
            .await
        {
            Ok(_) => return Ok(()),
            // Right after init the server may not have its namespaces, priority classes or leader yet.
            Err(error) if began.elapsed() < APPLY_PATIENCE && is_passing(&error) => {
                tokio::time::sleep(POLL_EVERY).await
            }
            Err(error) => {
                let what = format!("{} {} could not be applied", place.resource.kind, place.name);
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

/// Reads what is there before an apply.
async fn prior_of(client: &Client, objects: &[Value]) -> Result<Undo, Diagnosis> {
    let (mut prior, mut absent) = (Vec::new(), Vec::new());
    for object in objects {
        let place = place_of(object)?;
        let found = api(client, &place)
            .get_opt(&place.name)
            .await
            .map_err(|e| api_error("an object could not be read", &e))?;
        match found {
            Some(found) => prior.push(comparable(&found)),
            None => absent.push(serde_json::json!({
                "apiVersion": object["apiVersion"], "kind": object["kind"],
                "metadata": { "name": place.name, "namespace": place.namespace },
            })),
        }
    }
    Ok(Undo::RestoreObjects { prior, absent })
}

/// Says whether applying would change nothing: the server's own dry run gives what is there already.
async fn unchanged(client: &Client, objects: &[Value]) -> Result<bool, Diagnosis> {
    for object in objects {
        let place = place_of(object)?;
        let api = api(client, &place);
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::apply(FIELD_MANAGER).force()
        };
        let (there, would_be) = (
            api.get_opt(&place.name).await,
            api.patch(&place.name, &params, &Patch::Apply(object)).await,
        );
        match (there, would_be) {
            (Ok(Some(there)), Ok(would_be)) if comparable(&there) == comparable(&would_be) => {}
            (Ok(_), Ok(_)) => return Ok(false),
            (Err(error), _) | (_, Err(error)) => return Err(api_error("an object could not be compared", &error)),
        }
    }
    Ok(true)
}

/// An object without what every write changes.
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

/// Removes a member by name or peer URL, if it is there and the others keep a quorum without it.
fn remove_member(session: &Arc<NodeSession>, name: &str, peer_url: &str) -> Result<Option<String>, Absent> {
    let etcdctl = |args: &[&str]| -> Result<CommandOutput, Absent> {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        session
            .ask(&Request::Etcdctl {
                node: session.name().clone(),
                args,
            })
            .map_err(|_| Absent::NoClusterHere)
    };
    let failed = |what: String, saw: String| {
        Absent::Failed(Box::new(
            Diagnosis::new(Code::ClusterApi, what)
                .on(session.name())
                .saw(saw)
                .next("landfall status"),
        ))
    };
    let list = etcdctl(&["member", "list", "-w", "json"])?;
    let members: Value = serde_json::from_str(&list.stdout).map_err(|_| {
        failed(
            "etcd's members could not be listed".to_owned(),
            list.stderr.trim().to_owned(),
        )
    })?;
    let members = members["members"].as_array().cloned().unwrap_or_default();
    let is_it = |m: &Value| {
        m["name"].as_str() == Some(name)
            || m["peerURLs"]
                .as_array()
                .is_some_and(|urls| urls.iter().any(|u| u.as_str() == Some(peer_url)))
    };
    let Some(member) = members.iter().find(|m| is_it(m)) else {
        return Ok(None);
    };
    let id = member["ID"].as_u64().map(|id| format!("{id:x}")).unwrap_or_default();
    let removed = etcdctl(&["member", "remove", &id])?;
    if removed.status == Some(0) {
        return Ok(Some(format!(
            "removed the etcd member {name} ({id}) of the interrupted join"
        )));
    }
    Err(failed(
        format!("etcd refused to give up the half-joined member {name}"),
        removed.stderr.trim().to_owned(),
    ))
}
