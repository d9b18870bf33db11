//! A feature's objects in a cluster, with an endpoint for each Service, until they are removed.

use super::cluster::{Cluster, ENDING, NAMESPACE, Proxy};
use super::features::{Feature, HOST_WITH_TLS};
use super::round_trip::trusting;
use crate::client;
use crate::endpoint::Endpoint;
use crate::objects::slice;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Longest wait for anything; a Lease is renewed every 5 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// Polling interval.
const PAUSE: Duration = Duration::from_millis(50);

/// See the module's text.
pub struct World<'a> {
    cluster: &'a dyn Cluster,
    objects: Vec<Value>,
    pods: Vec<Endpoint>,
    /// What is in a namespace that is being deleted.
    ending: Vec<Value>,
}

impl<'a> World<'a> {
    /// Creates everything and waits until it is exposed: the status says so, every proxy has the routes, the endpoints and the
    /// certificate.
    pub async fn with(cluster: &'a dyn Cluster, feature: &Feature) -> Result<Self> {
        let mut world = Self {
            cluster,
            objects: Vec::new(),
            pods: Vec::new(),
            ending: Vec::new(),
        };
        if feature.after_another {
            world.begin_to_end(feature).await?;
        }
        let services: BTreeSet<&str> = feature.ingresses.iter().flat_map(services_of).collect();
        for name in services {
            let ports = json!([{ "name": "http", "port": 8080, "targetPort": 3000 }]);
            let service = json!({ "metadata": { "name": name }, "spec": { "ports": ports } });
            world.objects.push(placed("v1", "Service", service));
            let slice = world.pod(name, 0).await?;
            world.objects.push(slice);
        }
        let further = feature
            .secrets
            .iter()
            .map(|secret| placed("v1", "Secret", secret.clone()));
        world.objects.extend(further);
        for ingress in &feature.ingresses {
            let ingress = placed("networking.k8s.io/v1", "Ingress", ingress.clone());
            if !feature.secrets.is_empty() {
                cluster.allow_secrets(&ingress)?;
            }
            world.objects.push(ingress);
        }
        cluster.apply(&world.objects)?;
        until("an address in the status", || {
            Ok(world.addresses(feature.name)? == cluster.published())
        })
        .await?;
        world.until_routed().await?;
        if let Some(certificate) = &feature.certificate {
            for proxy in cluster.proxies() {
                let start = Instant::now();
                while let Err(error) = client::connect_tls(proxy.https, HOST_WITH_TLS, trusting(certificate)?).await {
                    let late = start.elapsed() > PATIENCE;
                    anyhow::ensure!(!late, "{} does not show the certificate: {error}", proxy.https);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        Ok(world)
    }

    /// Makes an older default backend without an endpoint, waits until every proxy sends requests there, and begins to delete its
    /// namespace. Its Ingress stays, as objects of a namespace do for a while.
    async fn begin_to_end(&mut self, feature: &Feature) -> Result<()> {
        let there = |version: &str, kind: &str, mut object: Value| {
            object = placed(version, kind, object);
            object["metadata"]["namespace"] = json!(ENDING);
            object
        };
        let ports = json!([{ "name": "http", "port": 8080, "targetPort": 3000 }]);
        let service = json!({ "metadata": { "name": "echo-service" }, "spec": { "ports": ports } });
        self.ending = vec![
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ENDING } }),
            there("v1", "Service", service),
        ];
        let ingresses = feature.ingresses.iter().cloned().map(|mut ingress| {
            // A finalizer keeps the namespace until the scenarios are over.
            ingress["metadata"]["finalizers"] = json!(["landfall.dev/conformance"]);
            there("networking.k8s.io/v1", "Ingress", ingress)
        });
        self.ending.extend(ingresses);
        self.cluster.apply(&self.ending)?;
        for proxy in self.cluster.proxies() {
            let start = Instant::now();
            while client::fetch(proxy.http, "my-host", "/").await.0 != 503 {
                let late = start.elapsed() > PATIENCE;
                anyhow::ensure!(!late, "{} does not have the older default backend", proxy.http);
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.cluster.begin_to_end()
    }

    /// Every proxy.
    pub fn proxies(&self) -> Vec<Proxy> {
        self.cluster.proxies()
    }

    /// Gives a Service so many pods, and waits until every proxy has them all.
    pub async fn scale(&mut self, service: &str, replicas: usize) -> Result<()> {
        let mut slices = Vec::new();
        for number in 1..replicas {
            slices.push(self.pod(service, number).await?);
        }
        self.cluster.apply(&slices)?;
        self.objects.extend(slices);
        self.until_routed().await
    }

    /// The Ingress gets no address although another beside it has one, and the writer has had another round since.
    pub async fn leaves_alone(&self, ingress: &str) -> Result<()> {
        let renewed = || -> Result<Value> {
            let lease = self.cluster.read("Lease", "kube-system", "landfall-ingress")?;
            Ok(lease["spec"]["renewTime"].clone())
        };
        let before = renewed()?;
        until("the writer of statuses is at it again", || Ok(renewed()? != before)).await?;
        let addresses = self.addresses(ingress)?;
        anyhow::ensure!(addresses.is_empty(), "its status says {addresses:?}");
        Ok(())
    }

    /// Removes everything and waits until no proxy has any of it.
    pub async fn take_away(self) -> Result<()> {
        if !self.ending.is_empty() {
            self.cluster.end(&self.ending)?;
        }
        self.cluster.remove(&self.objects)?;
        for proxy in self.cluster.proxies() {
            let start = Instant::now();
            loop {
                let page = dashboard(proxy, &self.cluster.login()).await;
                let here = self.pods.iter().any(|pod| page.contains(&pod.address.to_string()));
                if !page.is_empty() && !here {
                    break;
                }
                anyhow::ensure!(
                    start.elapsed() < PATIENCE,
                    "{} still has endpoints: {page}",
                    proxy.admin
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Starts a pod and returns its slice.
    async fn pod(&mut self, service: &str, number: usize) -> Result<Value> {
        let name = format!("{service}-{number}");
        let endpoint = Endpoint::echo_at(self.cluster.endpoints(), service, &name).await?;
        let slice = slice(&name, service, endpoint.address);
        self.pods.push(endpoint);
        Ok(placed("discovery.k8s.io/v1", "EndpointSlice", slice))
    }

    async fn until_routed(&self) -> Result<()> {
        for proxy in self.cluster.proxies() {
            let start = Instant::now();
            loop {
                let page = dashboard(proxy, &self.cluster.login()).await;
                let missing = self.pods.iter().find(|pod| !page.contains(&pod.address.to_string()));
                let Some(missing) = missing else { break };
                let late = start.elapsed() > PATIENCE;
                anyhow::ensure!(
                    !late,
                    "{} does not have the endpoint {}: {page}",
                    proxy.admin,
                    missing.address
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// What the status of an Ingress says of where it is exposed.
    fn addresses(&self, ingress: &str) -> Result<Vec<IpAddr>> {
        let object = self.cluster.read("Ingress", NAMESPACE, ingress)?;
        let points = object["status"]["loadBalancer"]["ingress"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let address = |point: &Value| point["ip"].as_str().and_then(|ip| ip.parse().ok());
        points
            .iter()
            .map(|point| address(point).with_context(|| format!("a status with {point}")))
            .collect()
    }
}

/// The newest table of a proxy; empty when it does not answer.
async fn dashboard(proxy: Proxy, login: &str) -> String {
    let (status, text) = client::fetch_with(proxy.admin, "ui.landfall.local", "/status.json", login).await;
    if status == 200 { text } else { String::new() }
}

async fn until(what: &str, mut check: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !check()? {
        if start.elapsed() > PATIENCE {
            bail!("not in time: {what}");
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// A whole object of the scenarios' namespace.
fn placed(version: &str, kind: &str, mut object: Value) -> Value {
    object["apiVersion"] = json!(version);
    object["kind"] = json!(kind);
    object["metadata"]["namespace"] = json!(NAMESPACE);
    object
}

fn services_of(ingress: &Value) -> Vec<&str> {
    let spec = &ingress["spec"];
    let rules = spec["rules"].as_array().into_iter().flatten();
    let paths = rules.flat_map(|rule| rule["http"]["paths"].as_array().into_iter().flatten());
    let backends = paths.map(|path| &path["backend"]).chain([&spec["defaultBackend"]]);
    backends
        .filter_map(|backend| backend["service"]["name"].as_str())
        .collect()
}
