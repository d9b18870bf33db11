//! The interface of a cluster that scenarios run in.

use anyhow::Result;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// Namespace of everything that scenarios make.
pub const NAMESPACE: &str = "conformance";

/// A namespace that is being deleted while scenarios are played; its name comes before [`NAMESPACE`].
pub const ENDING: &str = "a-conformance-that-ends";

/// Where one proxy listens.
#[derive(Debug, Clone, Copy)]
pub struct Proxy {
    /// Requests in plain text.
    pub http: SocketAddr,
    /// Requests over TLS.
    pub https: SocketAddr,
    /// Its dashboard.
    pub admin: SocketAddr,
}

/// A cluster in which the proxy runs. Calls block while the API answers; none waits for what proxies make of it.
pub trait Cluster: Send + Sync {
    /// Every proxy.
    fn proxies(&self) -> Vec<Proxy>;
    /// Fields by which the dashboards know who may read them; empty when they ask nobody.
    fn login(&self) -> String;
    /// The addresses that the status of an Ingress must have, in order.
    fn published(&self) -> Vec<IpAddr>;
    /// Where endpoints of this process listen, so that proxies reach them.
    fn endpoints(&self) -> IpAddr;
    /// Creates or changes objects.
    fn apply(&self, objects: &[Value]) -> Result<()>;
    /// Lets the proxy read the Secrets that this Ingress names.
    fn allow_secrets(&self, ingress: &Value) -> Result<()>;
    /// Reads an object of a kind (`Ingress`, `Lease`).
    fn read(&self, kind: &str, namespace: &str, name: &str) -> Result<Value>;
    /// Begins to delete the namespace [`ENDING`], which stays with all that is in it until [`Cluster::end`].
    fn begin_to_end(&self) -> Result<()>;
    /// Removes the finalizer, so that the namespace is deleted.
    fn end(&self, objects: &[Value]) -> Result<()>;
    /// Removes objects; missing ones are no error.
    fn remove(&self, objects: &[Value]) -> Result<()>;
}
