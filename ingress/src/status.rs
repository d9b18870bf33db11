//! One proxy, chosen by a Lease, writes into each Ingress where it can be reached: the addresses of nodes with a ready proxy.

use crate::log;
use crate::state::State;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Name of the Lease, and the label of our pods.
const NAME: &str = "landfall-ingress";
/// Seconds a leader may be silent (client-go's default for its leader election).
const LEASE_SECONDS: i32 = 15;
/// How often the Lease is looked at and status compared.
const PERIOD: Duration = Duration::from_secs(5);

/// What was last seen of another holder's Lease, and when: clocks of two nodes are never compared.
struct Seen {
    version: Option<String>,
    at: Instant,
}

/// Runs for ever.
pub async fn lead(client: Client, pod: String, namespace: String, state: Arc<State>) {
    let mut seen = Seen {
        version: None,
        at: Instant::now(),
    };
    loop {
        if state.ready() {
            let leading = hold(&client, &pod, &namespace, &mut seen).await;
            let written = match leading {
                Ok(true) => write(&client, &namespace, &state).await,
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                log(&format!("status: {error}"));
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Takes or renews the Lease; says whether it is ours. Two that try at once are told apart by the resource version.
async fn hold(client: &Client, pod: &str, namespace: &str, seen: &mut Seen) -> Result<bool, Error> {
    let leases = Api::<Lease>::namespaced(client.clone(), namespace);
    let now = micro_time();
    let ours = json!({ "holderIdentity": pod, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now });
    let Some(lease) = leases.get_opt(NAME).await? else {
        let lease = json!({ "metadata": { "name": NAME, "namespace": namespace }, "spec": ours });
        let lease = serde_json::from_value(lease).map_err(Error::SerdeError)?;
        return taken(leases.create(&PostParams::default(), &lease).await);
    };
    let version = lease.metadata.resource_version.clone();
    let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref());
    if holder != Some(pod) {
        if seen.version != version {
            *seen = Seen {
                version,
                at: Instant::now(),
            };
            return Ok(false);
        }
        if seen.at.elapsed() < Duration::from_secs(LEASE_SECONDS.unsigned_abs().into()) {
            return Ok(false);
        }
    }
    let patch = json!({ "metadata": { "resourceVersion": version }, "spec": ours });
    taken(leases.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await)
}

/// A conflict means that another was faster.
fn taken(result: Result<Lease, Error>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn write(client: &Client, namespace: &str, state: &State) -> Result<(), Error> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"));
    let addresses: BTreeSet<String> = pods.list(&ours).await?.items.iter().filter_map(ready_address).collect();
    if addresses.is_empty() {
        return Ok(());
    }
    let wanted: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    for (namespace, name) in &state.snapshot().ours {
        let ingresses = Api::<Ingress>::namespaced(client.clone(), namespace);
        let Some(ingress) = ingresses.get_opt(name).await? else {
            continue;
        };
        let has: BTreeSet<String> = ingress
            .status
            .and_then(|s| s.load_balancer?.ingress)
            .into_iter()
            .flatten()
            .filter_map(|i| i.ip)
            .collect();
        if has != addresses {
            let patch = json!({ "status": { "loadBalancer": { "ingress": wanted } } });
            ingresses
                .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
        }
    }
    Ok(())
}

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

/// Now, as RFC 3339 with microseconds (meta/v1 MicroTime).
fn micro_time() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, days) = (now.as_secs() % 86_400, now.as_secs() / 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        now.subsec_micros()
    )
}

/// Days since 1970-01-01 as a date of the Gregorian calendar (Hinnant, "chrono-Compatible Low-Level Date Algorithms", 2014).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #[test]
    fn days_become_dates() {
        assert_eq!(super::civil(0), (1970, 1, 1));
        assert_eq!(super::civil(11_016), (2000, 2, 29));
        assert_eq!(super::civil(20_781), (2026, 11, 24));
    }
}
