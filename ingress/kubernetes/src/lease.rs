//! One proxy among all: the holder of a Lease. A helper for work that only one may do; the data path never asks.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::json;
use std::time::{Duration, Instant};

/// Seconds a holder may be silent (client-go's default for its leader election).
const LEASE_SECONDS: i32 = 15;

/// This pod's part in the election.
pub struct Election {
    leases: Api<Lease>,
    name: &'static str,
    namespace: String,
    pod: String,
    /// The version of another's Lease last seen, and when: clocks of two nodes are never compared.
    seen: Option<(Option<String>, Instant)>,
    /// When the Lease was last known to be ours.
    held: Option<Instant>,
}

impl Election {
    /// Stands for election as `pod` for the Lease of that name.
    pub fn new(client: Client, name: &'static str, namespace: String, pod: String) -> Self {
        Self {
            leases: Api::namespaced(client, &namespace),
            name,
            namespace,
            pod,
            seen: None,
            held: None,
        }
    }

    /// Takes or renews the Lease; says whether it is ours. Two that try at once are told apart by the resource version.
    pub async fn hold(&mut self) -> Result<bool, Error> {
        // Measured from before the question: the API counts from some moment after it.
        let asked = Instant::now();
        let ours = self.take().await?;
        self.held = ours.then_some(asked);
        Ok(ours)
    }

    /// Whether the Lease is ours for certain: nobody else takes it before its length has passed.
    pub fn fresh(&self) -> bool {
        self.held.is_some_and(|held| held.elapsed() < length())
    }

    async fn take(&mut self) -> Result<bool, Error> {
        let now = MicroTime(Timestamp::now());
        let Some(lease) = self.leases.get_opt(self.name).await? else {
            let lease = json!({ "metadata": { "name": self.name, "namespace": self.namespace },
                "spec": { "holderIdentity": self.pod, "leaseDurationSeconds": LEASE_SECONDS, "acquireTime": now, "renewTime": now,
                    "leaseTransitions": 0 } });
            let lease = serde_json::from_value(lease).map_err(Error::SerdeError)?;
            return taken(self.leases.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone();
        let spec = lease.spec.unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        let mut wanted = json!({ "holderIdentity": self.pod, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now });
        if holder != self.pod {
            if !holder.is_empty() && !self.silent(version.clone()) {
                return Ok(false);
            }
            wanted["acquireTime"] = json!(now);
            wanted["leaseTransitions"] = json!(spec.lease_transitions.unwrap_or_default().saturating_add(1));
        }
        let patch = json!({ "metadata": { "resourceVersion": version }, "spec": wanted });
        taken(
            self.leases
                .patch(self.name, &PatchParams::default(), &Patch::Merge(patch))
                .await,
        )
    }

    /// Gives the Lease up if it is ours, so that another need not wait for its end.
    pub async fn release(&self) -> Result<(), Error> {
        let Some(lease) = self.leases.get_opt(self.name).await? else {
            return Ok(());
        };
        if lease.spec.and_then(|s| s.holder_identity).as_ref() != Some(&self.pod) {
            return Ok(());
        }
        let patch = json!({ "metadata": { "resourceVersion": lease.metadata.resource_version }, "spec": { "holderIdentity": "" } });
        taken(
            self.leases
                .patch(self.name, &PatchParams::default(), &Patch::Merge(patch))
                .await,
        )
        .map(|_| ())
    }

    /// Says whether another's Lease has not changed for its whole length, measured with this node's clock alone.
    fn silent(&mut self, version: Option<String>) -> bool {
        match &self.seen {
            Some((seen, at)) if *seen == version => at.elapsed() >= length(),
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }
}

fn length() -> Duration {
    Duration::from_secs(LEASE_SECONDS.unsigned_abs().into())
}

/// A conflict means that another was faster.
fn taken(result: Result<Lease, Error>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
