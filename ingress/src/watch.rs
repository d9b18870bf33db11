//! Follows the API: four lists, kept current, rebuilt into a snapshot when any of them changed.

use crate::log;
use crate::route::{Objects, Snapshot};
use crate::state::State;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Changes that come together, as in a rollout, make one snapshot.
const GATHER: Duration = Duration::from_millis(50);

/// Runs for ever. The first snapshot is made when all four lists were read whole; a lost watch keeps the last one.
pub async fn follow(client: Client, class: String, state: Arc<State>) {
    let changed = Arc::new(Notify::new());
    let ingresses = list::<Ingress>(&client, &changed);
    let classes = list::<IngressClass>(&client, &changed);
    let services = list::<Service>(&client, &changed);
    let slices = list::<EndpointSlice>(&client, &changed);
    // These end only when the writing task is gone, which ends with the process.
    let _ = ingresses.wait_until_ready().await;
    let _ = classes.wait_until_ready().await;
    let _ = services.wait_until_ready().await;
    let _ = slices.wait_until_ready().await;
    loop {
        let objects = Objects {
            ingresses: all(&ingresses),
            classes: all(&classes),
            services: all(&services),
            slices: all(&slices),
        };
        state.replace(Snapshot::build(&objects, &class));
        changed.notified().await;
        tokio::time::sleep(GATHER).await;
    }
}

fn all<K>(store: &Store<K>) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state().iter().map(|object| K::clone(object)).collect()
}

fn list<K>(client: &Client, changed: &Arc<Notify>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let changed = Arc::clone(changed);
    let stream = watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(writer);
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(_) => changed.notify_one(),
                Err(error) => log(&format!("watching {}: {error}", K::plural(&()))),
            }
        }
    });
    store
}
