//! Follows the API: four lists, kept current, rebuilt into a snapshot when any of them changed.
//!
//! INVARIANT: no snapshot before all four lists were read whole; afterwards a lost watch, or a list that is read again, leaves the last
//! one in place until the new list is whole.

use crate::annotations;
use crate::limits::{SECRETS_SETTLE, SECRETS_SETTLE_FIRST};
use crate::log;
use crate::route::{Builder, CLASS_ANNOTATION, DEFAULT_CLASS, LastGood, Objects, Options};
use crate::secrets::{Name, Scope, Secrets};
use crate::state::State;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Changes that come together, as in a rollout, make one snapshot. Short, for an endpoint that went away fails requests until then.
const GATHER: Duration = Duration::from_millis(10);
/// First and longest pause before a failed watch is tried again. The API balancer on this node finds another server within seconds.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// A watch that lasted so long counts as well again; one that fails again sooner waits longer each time.
const RETRY_FORGET: Duration = Duration::from_secs(30);

/// Runs until one of its tasks ends, which none does unless it panics: a table that is no longer kept current must not go on serving.
///
/// `inherited` are the good versions that the process before had of Ingresses whose newest one is bad.
pub async fn follow(client: Client, options: Options, tls: Tls, inherited: LastGood, state: Arc<State>) {
    let changed = Arc::new(Notify::new());
    let secrets = Secrets::new(client.clone(), tls.secrets, Arc::clone(&changed));
    let mut tasks = JoinSet::new();
    let lists = Lists {
        ingresses: list(&client, &changed, &state, &mut tasks),
        classes: list(&client, &changed, &state, &mut tasks),
        services: list(&client, &changed, &state, &mut tasks),
        slices: list(&client, &changed, &state, &mut tasks),
    };
    tokio::select! {
        ended = tasks.join_next() => {
            if let Some(Err(error)) = ended {
                log(&format!("following the API: {error}"));
            }
        }
        () = Arc::clone(&secrets).follow() => {}
        result = rebuild(&lists, Builder::new(options).with_last_good(inherited), &tls, &secrets, &state, &changed) => {
            if let Err(error) = result {
                log(&format!("the route table: {error}"));
            }
        }
    }
}

/// What is read for TLS beside Ingresses.
pub struct Tls {
    /// How Secrets are followed.
    pub secrets: Scope,
    /// The operator's certificate for hosts without.
    pub default_certificate: Option<Name>,
}

/// The four kinds, kept current by their tasks.
struct Lists {
    ingresses: Store<Ingress>,
    classes: Store<IngressClass>,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
}

/// Builds a snapshot when all lists are whole, and another after each change.
async fn rebuild(
    lists: &Lists,
    mut builder: Builder,
    tls: &Tls,
    secrets: &Secrets,
    state: &State,
    changed: &Notify,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    lists.ingresses.wait_until_ready().await?;
    lists.classes.wait_until_ready().await?;
    lists.services.wait_until_ready().await?;
    lists.slices.wait_until_ready().await?;
    let mut waited = false;
    for turn in 0.. {
        let (view, default) = (secrets.view(), tls.default_certificate.clone());
        let objects = Objects {
            ingresses: lists.ingresses.state(),
            classes: lists.classes.state(),
            services: lists.services.state(),
            slices: lists.slices.state(),
        };
        // With 10,000 Ingresses this takes tens of milliseconds, in which no other task would run on this thread.
        let building = tokio::task::spawn_blocking(move || {
            let snapshot = builder.build(&objects, &view, turn);
            (builder, snapshot.with_certificates(&view, default.as_ref()))
        });
        let (back, snapshot) = building.await?;
        builder = back;
        // A host whose certificate, or protection, is still on its way would be served wrongly for a moment.
        let pending = secrets.want(&snapshot.wanted_secrets(tls.default_certificate.as_ref()));
        if pending && !waited {
            waited = true;
            let longest = if turn == 0 {
                SECRETS_SETTLE_FIRST
            } else {
                SECRETS_SETTLE
            };
            secrets.settled(longest).await;
            continue;
        }
        waited = false;
        state.replace(snapshot);
        state.keep_last_good(builder.last_good());
        changed.notified().await;
        tokio::time::sleep(GATHER).await;
    }
    Ok(())
}

fn list<K>(client: &Client, changed: &Arc<Notify>, state: &Arc<State>, tasks: &mut JoinSet<()>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let (changed, state) = (Arc::clone(changed), Arc::clone(state));
    let stream = watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        .backoff(ResetTimerBackoff::new(Retry(RETRY_FIRST), RETRY_FORGET))
        .modify(slim)
        .reflect(writer);
    tasks.spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                // Objects of a list that is read again show when it is whole.
                Ok(Event::Init | Event::InitApply(_)) => {}
                Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => changed.notify_one(),
                Err(error) => {
                    state.counters.watch_errors.fetch_add(1, Ordering::Relaxed);
                    log(&format!("watching {}: {}", K::plural(&()), chain(&error)));
                }
            }
        }
    });
    store
}

/// Pauses that double.
struct Retry(Duration);

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(RETRY_LONGEST);
        Some(pause)
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.0 = RETRY_FIRST;
    }
}

/// Drops what is never read: managedFields alone are two thirds of a small object.
fn slim<K: Resource>(object: &mut K) {
    object.managed_fields_mut().clear();
    let read = [DEFAULT_CLASS, CLASS_ANNOTATION];
    object
        .annotations_mut()
        .retain(|name, _| read.contains(&name.as_str()) || annotations::is_read(name));
}

/// An error with its causes: the outermost alone says "failed to perform initial object list".
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
