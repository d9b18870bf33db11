//! What a scenario needs of a cluster.

use anyhow::Result;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// Namespace of everything that scenarios make.
pub const NAMESPACE: &str = "conformance";

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
    /// What the status of an Ingress has to say, in order.
    fn published(&self) -> Vec<IpAddr>;
    /// Where endpoints of this process listen, so that proxies reach them.
    fn endpoints(&self) -> IpAddr;
    /// Creates or changes objects.
    fn apply(&self, objects: &[Value]) -> Result<()>;
    /// Lets the proxy read the Secrets that this Ingress names.
    fn allow_secrets(&self, ingress: &Value) -> Result<()>;
    /// Reads an object of a kind (`Ingress`, `Lease`).
    fn read(&self, kind: &str, namespace: &str, name: &str) -> Result<Value>;
    /// Removes objects; those that are not there are no matter.
    fn remove(&self, objects: &[Value]) -> Result<()>;
}
