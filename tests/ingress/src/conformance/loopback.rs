//! A fake cluster on loopback: the real program and a fake API server.

use super::cluster::{Cluster, ENDING, Proxy};
use crate::FakeApi;
use crate::objects::{class, pod};
use crate::program::{Launch, Program, built};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};

/// Node of the proxy's pod: where the status has to say that an Ingress is exposed. Requests go to loopback in its place.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// See the module's text. Everything ends when it is dropped.
pub struct Loopback {
    api: FakeApi,
    proxy: Program,
}

impl Loopback {
    /// Starts the API server and one proxy, and waits until it is ready.
    pub async fn start() -> Self {
        let api = FakeApi::start().await;
        api.put("ingressclasses", class());
        api.put("pods", pod("proxy", &NODE.to_string()));
        let proxy = Launch::new(built())
            .pod("proxy")
            .argument("--access-log=off")
            .start(&api);
        proxy.until_ready().await;
        Self { api, proxy }
    }
}

impl Cluster for Loopback {
    fn proxies(&self) -> Vec<Proxy> {
        vec![Proxy {
            http: self.proxy.http(),
            https: self.proxy.https(),
            admin: self.proxy.admin(),
        }]
    }

    fn login(&self) -> String {
        String::new()
    }

    fn published(&self) -> Vec<IpAddr> {
        vec![NODE.into()]
    }

    fn endpoints(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn apply(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            let mut object = object.clone();
            // A real API server does the same.
            object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            self.api.put(plural(&object)?, object);
        }
        Ok(())
    }

    fn allow_secrets(&self, _ingress: &Value) -> Result<()> {
        Ok(())
    }

    fn read(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let plural = plural(&json!({ "kind": kind }))?;
        let object = self.api.get(plural, namespace, name);
        object.with_context(|| format!("there is no {kind} {namespace}/{name}"))
    }

    fn begin_to_end(&self) -> Result<()> {
        let metadata = json!({ "name": ENDING, "deletionTimestamp": "2026-01-01T00:00:00Z" });
        self.api.put("namespaces", json!({ "metadata": metadata }));
        Ok(())
    }

    fn end(&self, objects: &[Value]) -> Result<()> {
        self.remove(objects)
    }

    fn remove(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
            self.api.delete(plural(object)?, text("namespace"), text("name"));
        }
        Ok(())
    }
}

/// The resource of an object's kind.
fn plural(object: &Value) -> Result<&'static str> {
    match object["kind"].as_str() {
        Some("EndpointSlice") => Ok("endpointslices"),
        Some("Ingress") => Ok("ingresses"),
        Some("Lease") => Ok("leases"),
        Some("Namespace") => Ok("namespaces"),
        Some("Secret") => Ok("secrets"),
        Some("Service") => Ok("services"),
        other => anyhow::bail!("scenarios know no {other:?}"),
    }
}
