//! Writes into each of our Ingresses where it can be reached: the addresses of nodes with a ready proxy. One proxy does, by a Lease.
//!
//! INVARIANT: an Ingress is written only when the watch shows other addresses than wanted, so our own writes end the matter.

use crate::lease::Election;
use crate::log;
use crate::proxy::stopped;
use crate::route::Ours;
use crate::state::State;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;
use tokio::time::timeout;

/// Name of the Lease, and the label of our pods.
const NAME: &str = "landfall-ingress";
/// How often the Lease is renewed and status compared: a third of the Lease's length.
const PERIOD: Duration = Duration::from_secs(5);
/// Longest time for one round, so that a Lease is not believed to be ours after its end.
const ROUND: Duration = Duration::from_secs(10);

/// Who writes, and where our pods are.
pub struct Place {
    /// Name of this pod.
    pub pod: String,
    /// Namespace of our pods and the Lease.
    pub namespace: String,
}

/// Runs until `stopping` turns true, then gives the Lease up.
pub async fn lead(client: Client, place: Place, state: Arc<State>, mut stopping: Receiver<bool>) {
    let mut election = Election::new(client.clone(), NAME, place.namespace.clone(), place.pod);
    let mut pause = Duration::from_millis(200);
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopped(&mut stopping) => break,
        }
        if !state.ready() {
            continue;
        }
        pause = PERIOD;
        match timeout(ROUND, round(&client, &place.namespace, &mut election, &state)).await {
            Ok(Ok(leading)) => state.set_leading(leading),
            Ok(Err(error)) => log(&format!("status: {error}")),
            Err(_) => log("status: the API did not answer in time"),
        }
    }
    if state.leading()
        && let Ok(Err(error)) = timeout(ROUND, election.release()).await
    {
        log(&format!("status: the Lease could not be given up: {error}"));
    }
}

async fn round(client: &Client, namespace: &str, election: &mut Election, state: &State) -> Result<bool, Error> {
    if !election.hold().await? {
        return Ok(false);
    }
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"));
    let addresses: BTreeSet<String> = pods.list(&ours).await?.items.iter().filter_map(ready_address).collect();
    if !addresses.is_empty() {
        for ingress in state.snapshot().ours.iter().filter(|i| i.addresses != addresses) {
            // One that cannot be written must not keep the others from it.
            if let Err(error) = write(client, ingress, &addresses).await {
                log(&format!("status of {}/{}: {error}", ingress.namespace, ingress.name));
            }
        }
    }
    Ok(true)
}

async fn write(client: &Client, ingress: &Ours, addresses: &BTreeSet<String>) -> Result<(), Error> {
    let points: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    let patch = json!({ "status": { "loadBalancer": { "ingress": points } } });
    let ingresses = Api::<Ingress>::namespaced(client.clone(), &ingress.namespace);
    match ingresses
        .patch_status(&ingress.name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        // Deleted meanwhile.
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

/// The node address of a proxy that takes requests.
fn ready_address(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    let going = pod.metadata.deletion_timestamp.is_some();
    (ready && !going).then(|| status.host_ip.clone()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ready_pods_that_stay_give_their_address() {
        let pod = |ready: &str, deleted: Option<&str>| -> Pod {
            serde_json::from_value(
                json!({ "metadata": { "deletionTimestamp": deleted }, "status": { "hostIP": "10.0.0.1",
                "conditions": [{ "type": "Initialized", "status": "True" }, { "type": "Ready", "status": ready }] } }),
            )
            .unwrap()
        };
        assert_eq!(ready_address(&pod("True", None)).as_deref(), Some("10.0.0.1"));
        assert_eq!(ready_address(&pod("False", None)), None);
        assert_eq!(ready_address(&pod("True", Some("2026-11-24T00:00:00Z"))), None);
        assert_eq!(ready_address(&Pod::default()), None);
    }
}
