//! Writes into each of our Ingresses where it can be reached: the addresses of nodes with a ready proxy, or what the operator names.
//! One proxy does, by a Lease; it also writes Events.
//!
//! A proxy's pod is on its node's network and turns unready with the node, so the addresses of ready pods are those of ready nodes; no
//! right to read nodes is needed.
//!
//! INVARIANT: an Ingress is written only when the watch shows other addresses than wanted, so our own writes end the matter. No
//! addresses are ever written because none are known: status is emptied only when the operator asks for it.

mod settle;

use crate::events::Events;
use crate::lease::Election;
use crate::limits::{STATUS_PAUSE, STATUS_PERIOD, STATUS_ROUND, STATUS_WRITES};
use crate::state::State;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, Error};
use landfall_ingress_telemetry::log;
use landfall_ingress_translate::object::Addresses;
use serde_json::{Value, json};
use settle::Settle;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Name of the Lease, and the label of our pods.
const NAME: &str = "landfall-ingress";
/// First look after the start: whoever is ready first need not wait a period.
const FIRST_LOOK: Duration = Duration::from_millis(200);

/// Who writes, and where our pods are.
#[derive(Clone)]
pub struct Place {
    /// Name of this pod.
    pub pod: String,
    /// Namespace of our pods and the Lease.
    pub namespace: String,
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publish {
    /// The addresses of nodes with a ready proxy.
    Nodes,
    /// These addresses or names.
    Addresses(Addresses),
    /// Nothing: what is there is taken away.
    Nothing,
}

impl Publish {
    /// Reads what `--publish-address` was given: addresses and names, or `none` alone.
    pub fn parse(values: &[String]) -> Result<Self, String> {
        match values {
            [] => Ok(Self::Nodes),
            [one] if one == "none" => Ok(Self::Nothing),
            all => {
                let bad = |value: &&String| value.parse::<IpAddr>().is_err() && !is_name(value);
                match all.iter().find(bad) {
                    Some(value) => Err(format!(
                        "--publish-address {value:?} is neither an address nor a host name"
                    )),
                    None => Ok(Self::Addresses(all.iter().cloned().collect())),
                }
            }
        }
    }
}

/// Whether the API server takes it for a host name (RFC 1123).
fn is_name(text: &str) -> bool {
    let fine = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    // A name of digits only is an address with a fault.
    text.len() <= 253 && text.split('.').all(fine) && text.bytes().any(|b| b.is_ascii_lowercase())
}

/// Runs until `stop`, then gives the Lease up. It is asked for only while this proxy is `ready`.
pub async fn lead(
    client: Client,
    place: Place,
    publish: Publish,
    state: Arc<State>,
    ready: impl Fn() -> bool,
    stop: impl Future<Output = ()>,
) {
    let writing = tokio::spawn(write(client.clone(), place.clone(), publish, Arc::clone(&state)));
    let mut election = Election::new(client, NAME, place.namespace, place.pod);
    let mut pause = FIRST_LOOK;
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = &mut stop => break,
        }
        if !ready() {
            continue;
        }
        pause = STATUS_PERIOD;
        let held = timeout(STATUS_ROUND, election.hold()).await;
        match held {
            Ok(Ok(leading)) => state.set_leading(leading),
            Ok(Err(error)) => log(&format!("the Lease: {error}")),
            Err(_) => log("the Lease: the API did not answer in time"),
        }
        // A Lease that could not be renewed may be another's by now.
        if !election.fresh() {
            state.set_leading(false);
        }
    }
    writing.abort();
    if state.leading()
        && let Ok(Err(error)) = timeout(STATUS_ROUND, election.release()).await
    {
        log(&format!("the Lease could not be given up: {error}"));
    }
}

/// Writes while this proxy leads.
async fn write(client: Client, place: Place, publish: Publish, state: Arc<State>) {
    let mut settle = Settle::default();
    let mut events = Events::new(client.clone(), place.pod.clone());
    loop {
        sleep(if state.leading() { STATUS_PERIOD } else { FIRST_LOOK }).await;
        if !state.leading() {
            settle = Settle::default();
            continue;
        }
        match wanted(&client, &place.namespace, &publish).await {
            Ok(Some(addresses)) => write_all(&client, &addresses, &mut settle, &state).await,
            Ok(None) => {}
            Err(error) => log(&format!("status: {error}")),
        }
        let snapshot = state.snapshot();
        events.round(snapshot.notes()).await;
    }
}

/// The addresses to write; `None` when none are known.
async fn wanted(client: &Client, namespace: &str, publish: &Publish) -> Result<Option<Addresses>, Error> {
    match publish {
        Publish::Nothing => Ok(Some(Addresses::new())),
        Publish::Addresses(addresses) => Ok(Some(addresses.clone())),
        Publish::Nodes => {
            let pods = Api::<Pod>::namespaced(client.clone(), namespace);
            let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"));
            let addresses: Addresses = pods.list(&ours).await?.items.iter().filter_map(ready_address).collect();
            Ok(Some(addresses).filter(|addresses| !addresses.is_empty()))
        }
    }
}

/// Writes to those that differ, a bounded number of them. An Ingress without addresses gets them at once; others when they settled.
async fn write_all(client: &Client, wanted: &Addresses, settle: &mut Settle, state: &State) {
    let settled = settle.settled(wanted);
    let snapshot = state.snapshot();
    let differ = snapshot.ours().filter(|ingress| match ingress.published() {
        Some(known) => *known != *wanted && settled,
        None => !wanted.is_empty(),
    });
    let (mut failed, mut first) = (0, None);
    for ingress in differ.take(STATUS_WRITES) {
        if !state.leading() {
            return;
        }
        // One that cannot be written must not keep the others from it.
        if let Err(error) = write_one(client, &ingress.namespace, ingress.name(), wanted).await {
            failed += 1;
            first.get_or_insert_with(|| format!("{}: {error}", ingress.label));
        }
        sleep(STATUS_PAUSE).await;
    }
    if let Some(first) = first {
        log(&format!("status of {failed} Ingresses could not be written; {first}"));
    }
}

async fn write_one(client: &Client, namespace: &str, name: &str, addresses: &Addresses) -> Result<(), Error> {
    let ingresses = Api::<Ingress>::namespaced(client.clone(), namespace);
    let (how, patch) = (PatchParams::default(), Patch::Merge(status(addresses)));
    let Ok(result) = timeout(STATUS_ROUND, ingresses.patch_status(name, &how, &patch)).await else {
        return Err(Error::Service("the API did not answer in time".into()));
    };
    match result {
        // Deleted meanwhile.
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

fn status(addresses: &Addresses) -> Value {
    let point = |address: &String| match address.parse::<IpAddr>() {
        Ok(_) => json!({ "ip": address }),
        Err(_) => json!({ "hostname": address }),
    };
    let points: Vec<_> = addresses.iter().map(point).collect();
    json!({ "status": { "loadBalancer": { "ingress": points } } })
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

    #[test]
    fn published_addresses_are_checked_and_none_empties() {
        let parse = |values: &[&str]| Publish::parse(&values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&[]), Ok(Publish::Nodes));
        assert_eq!(parse(&["none"]), Ok(Publish::Nothing));
        let both = Addresses::from(["192.0.2.1".to_owned(), "lb.example.com".to_owned()]);
        assert_eq!(
            parse(&["lb.example.com", "192.0.2.1"]),
            Ok(Publish::Addresses(both.clone()))
        );
        for bad in ["", "192.0.2", "http://x", "-a.b", "a..b", "A.b"] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
        let points = json!([{ "ip": "192.0.2.1" }, { "hostname": "lb.example.com" }]);
        assert_eq!(status(&both)["status"]["loadBalancer"]["ingress"], points);
        assert_eq!(
            status(&Addresses::new())["status"]["loadBalancer"]["ingress"],
            json!([])
        );
    }
}
